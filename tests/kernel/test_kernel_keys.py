"""Kernel key, class key and anchor key: what they heed and what they don't."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from programs import (
    conv2d,
    depthwise_conv2d,
    elementwise,
    kernel,
    matmul,
    pool,
    softmax,
)
from tunebank.kernel import Kernel, anchor_key, class_key, kernel_key

PROGRAMS: dict[str, Callable[..., Any]] = {
    "conv2d": lambda **k: conv2d(epilogue=["bias", "add", "relu"], **k),
    "depthwise": depthwise_conv2d,
    "matmul": lambda **k: matmul(epilogue=["tanh"], **k),
    "pool": pool,
    "softmax": softmax,
    "elementwise": elementwise,
}

sizes = st.integers(4, 30)
channels = st.integers(2, 70)
quick = settings(max_examples=30, deadline=None)

CONV_CHANGES = [
    {"stride": 2},
    {"dilation": 2},
    {"dtype": "float16"},
    {"layout": "NCHW"},
    {"padding": 0},
    {"epilogue": ["relu"]},
    {"epilogue": ["tanh"]},
    {"epilogue": ["bias"]},
    {"epilogue": ["bias", "relu"]},
    {"epilogue": ["relu", "bias"]},
    {"epilogue": ["add", "relu"]},
]


@pytest.mark.parametrize("name", PROGRAMS)
def test_names_do_not_count(name: str) -> None:
    plain, renamed = PROGRAMS[name](), PROGRAMS[name](names="other_")
    assert kernel(plain).blocks != kernel(renamed).blocks
    renamed = renamed.with_attr("global_symbol", "another_function")
    assert kernel_key(plain) == kernel_key(renamed)
    assert class_key(plain) == class_key(renamed)
    assert anchor_key(plain) == anchor_key(renamed)


@quick
@given(sizes, channels, channels, st.sampled_from([3, 5]))
def test_extents_of_a_convolution(size: int, cin: int, cout: int, window: int) -> None:
    base = kernel(conv2d(epilogue=["bias", "relu"]))
    other = kernel(conv2d(size=size, cin=cin, cout=cout, window=window, epilogue=["bias", "relu"]))
    assert other.class_key == base.class_key
    assert other.anchor_key == base.anchor_key
    is_same = (size, cin, cout, window) == (8, 8, 16, 3)
    assert (other.key == base.key) == is_same


@quick
@given(channels, channels, channels)
def test_extents_of_a_matmul(m: int, n: int, k: int) -> None:
    base, other = kernel(matmul()), kernel(matmul(m=m, n=n, k=k))
    assert other.class_key == base.class_key
    assert (other.key == base.key) == ((m, n, k) == (16, 16, 16))


@quick
@given(st.integers(2, 60), st.integers(2, 60))
def test_extents_of_programs_of_several_blocks(rows: int, columns: int) -> None:
    other = kernel(softmax(rows=rows, columns=columns))
    assert other.class_key == kernel(softmax()).class_key
    assert (other.key == kernel(softmax()).key) == ((rows, columns) == (8, 32))


@quick
@given(st.sampled_from(CONV_CHANGES), sizes, channels)
def test_structure_of_a_convolution(change: dict[str, Any], size: int, cin: int) -> None:
    """Whatever the extents, another structure is another class."""
    changed = kernel(conv2d(**{"size": size, "cin": cin, **change}))
    assert changed.class_key != kernel(conv2d()).class_key
    assert changed.key != kernel(conv2d()).key


def test_all_structures_are_distinct_classes() -> None:
    kernels = [kernel(conv2d(**change)) for change in [{}, *CONV_CHANGES]]
    kernels += [kernel(matmul(transposed=transposed)) for transposed in (False, True)]
    kernels += [kernel(pool(how=how)) for how in ("max", "sum")]
    kernels += [kernel(depthwise_conv2d()), kernel(softmax())]
    operators = ("add", "subtract", "multiply")
    kernels += [kernel(elementwise(operator=operator)) for operator in operators]
    kernels += [kernel(elementwise(shape=shape)) for shape in [(4,), (2, 3, 4)]]
    classes = [one.class_key for one in kernels]
    assert len(set(classes)) == len(classes)


def test_the_stride_counts_even_where_the_extents_agree() -> None:
    one = conv2d(size=8, window=3, stride=1, padding=0)  # 6 x 6 results
    two = conv2d(size=13, window=3, stride=2, padding=0)  # 6 x 6 results
    assert kernel(one).loop_extents == kernel(two).loop_extents
    assert class_key(one) != class_key(two)


def test_the_anchor_ignores_what_stands_around_it() -> None:
    anchors = [
        kernel(conv2d(**change)).anchor_key
        for change in (
            {},
            {"epilogue": ["bias", "relu"]},
            {"stride": 2},
            {"window": 1},
            {"size": 9},
        )
    ]
    assert len(set(anchors)) == 1
    assert anchors[0]
    assert kernel(conv2d(layout="NCHW")).anchor_key not in anchors
    assert kernel(conv2d(dtype="float16")).anchor_key not in anchors
    assert kernel(matmul()).anchor_key not in anchors
    assert kernel(elementwise()).anchor_key == ""
    assert anchor_key(elementwise()) is None


def test_the_order_of_operands_is_no_class_of_its_own() -> None:
    assert class_key(elementwise(operator="reversed_add")) == class_key(elementwise())
    assert kernel_key(elementwise(operator="reversed_add")) != kernel_key(elementwise())


def test_layout_free_weights_are_a_class_of_their_own() -> None:
    packable = matmul().with_attr("layout_free_buffers", [1])
    assert class_key(packable) != class_key(matmul())
    assert class_key(packable) == class_key(matmul(m=32).with_attr("layout_free_buffers", [1]))
    assert class_key(packable) != class_key(matmul().with_attr("layout_free_buffers", [0]))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_kernel_survives_its_text(name: str) -> None:
    first = kernel(PROGRAMS[name](), name=name, weight=3)
    again = Kernel.from_ir(first.ir, name=name, weight=3)
    assert again == first
    assert again.loop_extents == first.loop_extents
    assert again.anchor == first.anchor


def test_flops() -> None:
    assert kernel(matmul(m=10, n=20, k=30)).flops == 2 * 10 * 20 * 30
    assert kernel(matmul()).with_weight(5).weight == 5


def test_the_anchor_is_the_reduction_that_iterates_most() -> None:
    conv = kernel(conv2d(epilogue=["relu"]))
    assert conv.anchor is not None
    assert conv.blocks[conv.anchor] == "conv"
    assert conv.spatial_loops(conv.anchor) == (0, 1, 2, 3)
    assert kernel(elementwise()).anchor is None


KEYS_SCRIPT = """
import programs
from tunebank.kernel import class_key, kernel_key, anchor_key
for make in (programs.conv2d, programs.depthwise_conv2d, programs.softmax, programs.pool):
    print(kernel_key(make()), class_key(make()), anchor_key(make()))
print(class_key(programs.conv2d(epilogue=["bias", "add", "relu"])))
"""


def test_keys_are_the_same_in_every_process() -> None:
    answers = set()
    for seed in ("0", "1"):
        tests, source = Path(__file__).parents[1], Path(__file__).parents[2] / "src"
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join([str(tests), str(source)]),
        }
        answers.add(subprocess.check_output([sys.executable, "-c", KEYS_SCRIPT], env=environment))
    assert len(answers) == 1
    first = answers.pop().decode().split()
    conv = conv2d()
    assert first[:3] == [kernel_key(conv), class_key(conv), anchor_key(conv)]
    # A bank holds these keys: whoever changes them must raise the bank's schema version.
    assert first[:3] == [
        "7438bcdc88711f899e3bbec2",
        "585c599b2decb237c2eb0f9c",
        "ef27ca1f3091acfbcbe62bfd",
    ]
