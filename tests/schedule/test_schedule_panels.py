"""Sums of products over awkward extents: the numbers, the even shares, when it is chosen."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tvm import te, tirx

from programs import (
    conv2d,
    depthwise_conv2d,
    elementwise,
    grouped_conv2d,
    kernel,
    matmul,
    softmax,
)
from tunebank.device import Device, detect_device
from tunebank.kernel import Kernel
from tunebank.measure import LocalMeasurer
from tunebank.schedule import (
    IllegalScheduleError,
    Space,
    Trace,
    default_schedule,
    default_traces,
)
from tunebank.schedule.panels import (
    KIND,
    Parameters,
    is_by_lines,
    lines_of_a_pass,
    panels_traces,
)
from tunebank.schedule.product import as_product
from tunebank.schedule.tiles import uneven
from tunebank.schedule.trace import one_step


def attention(*, heads: int = 3, rows: int = 37, columns: int = 37, depth: int = 8) -> Kernel:
    """Products of each head's matrices, as of queries and keys, then a factor."""
    q = te.placeholder((1, heads, rows, depth), "float32", name="q")
    k = te.placeholder((1, heads, depth, columns), "float32", name="k")
    r = te.reduce_axis((0, depth), name="r")
    product = te.compute(
        (1, heads, rows, columns),
        lambda b, h, i, j: te.sum(q[b, h, i, r] * k[b, h, r, j], axis=r),
        name="product",
    )
    scaled = te.compute(product.shape, lambda *at: product[at] * tirx.const(0.5, "float32"))
    return kernel(te.create_prim_func([q, k, scaled]))


def constant(func: tirx.PrimFunc) -> Kernel:
    """A kernel whose weight may be laid out anew."""
    return kernel(func.with_attr("layout_free_buffers", [1]))


KERNELS = {
    "prime rows": lambda: kernel(matmul(m=37, n=64, k=24, epilogue=("bias", "relu"))),
    "prime rows and columns": lambda: kernel(matmul(m=37, n=53, k=24)),
    "transposed": lambda: kernel(matmul(m=37, n=53, k=24, transposed=True)),
    "heads": attention,
    "few columns": lambda: attention(rows=31, columns=17),
    "padded": lambda: kernel(conv2d(size=17, cin=8, cout=32, epilogue=("bias", "relu"))),
    "stride": lambda: kernel(conv2d(size=37, cin=5, cout=32, stride=2, epilogue=("add",))),
    "dilated": lambda: kernel(conv2d(size=19, cin=16, cout=48, dilation=2, batch=2)),
    "one row": lambda: kernel(matmul(m=1, n=101, k=24)),
    "1x1": lambda: kernel(conv2d(size=17, cin=24, cout=40, window=1)),
    "groups": lambda: kernel(grouped_conv2d(cin=24, cout=204, groups=3, epilogue=("bias",))),
    "1x1 in groups": lambda: constant(grouped_conv2d(cin=8, cout=136, groups=2, window=1)),
    "packed": lambda: constant(matmul(m=37, n=64, k=24, epilogue=("bias",))),
    "a condition after it": lambda: kernel(matmul(m=37, n=64, k=24, epilogue=("bias", "leaky"))),
    "four channels": lambda: constant(conv2d(size=16, cin=8, cout=4, epilogue=("bias",))),
    "colours": lambda: constant(conv2d(size=12, cin=8, cout=3, epilogue=("bias",))),
}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("given", [(14, 1, 1), (6, 2, 2), (5, 1, 3)], ids=str)
def test_the_numbers_are_the_kernel_s(
    name: str, given: tuple[int, int, int], device: Device, measurer: LocalMeasurer
) -> None:
    target = KERNELS[name]()
    rows, vectors, parts = given
    found = as_product(target)
    assert found is not None
    columns = found.together
    one = Parameters(
        rows,
        max(1, min(vectors, columns // device.vector_lanes)),
        min(parts, found.count(found.others)),
    )
    (result,) = measurer.measure([Space(target, device).apply(one.trace)], best_us={})
    assert (result.status, result.error) == ("ok", None)
    assert result.checked


@pytest.mark.parametrize("parts", [1, 3, 4])
def test_the_numbers_where_lines_follow_each_other(
    parts: int, device: Device, measurer: LocalMeasurer
) -> None:
    func = conv2d(batch=2, size=6, cin=16, cout=64, window=1, epilogue=("bias", "relu"))
    scheduled = Space(constant(func), device).apply(Parameters(5, 1, parts).trace)
    (result,) = measurer.measure([scheduled], best_us={})
    assert (result.status, result.error) == ("ok", None)
    assert result.checked


@pytest.mark.parametrize("name", KERNELS)
def test_it_is_the_default_of_awkward_extents(name: str, device: Device) -> None:
    chosen = default_schedule(Space(KERNELS[name](), device))
    assert chosen is not None
    assert chosen.trace.instructions[0].kind == KIND


def whole_sum() -> Kernel:
    """A sum of all elements: a kernel without a spatial axis."""
    x = te.placeholder((8, 16), "float32", name="x")
    i, j = te.reduce_axis((0, 8), name="i"), te.reduce_axis((0, 16), name="j")
    return kernel(te.create_prim_func([x, te.compute((), lambda: te.sum(x[i, j], axis=[i, j]))]))


EVEN = {
    "whole sum": whole_sum,
    "few rows": lambda: constant(matmul(m=8, n=64, k=24)),
    "one row": lambda: kernel(matmul(m=1, n=64, k=24)),
    "image": lambda: constant(conv2d(size=14, cin=8, cout=32)),
    "depthwise": lambda: kernel(depthwise_conv2d()),
    "softmax": lambda: kernel(softmax()),
    "elementwise": lambda: kernel(elementwise()),
}


def test_products_of_activations_are_always_tried(device: Device) -> None:
    target = attention(rows=32, columns=64)
    assert panels_traces(target, device, clearly=True) == []
    assert panels_traces(target, device, clearly=False)


@pytest.mark.parametrize("name", EVEN)
def test_others_are_left_alone(name: str, device: Device) -> None:
    target = EVEN[name]()
    assert panels_traces(target, device, clearly=False) == []
    assert default_schedule(Space(target, device)) is not None


def test_equal_kernels_have_the_same_schedules(device: Device) -> None:
    """What is read of a kernel is kept, and serves those that are equal."""
    first, second = (constant(matmul(m=8, n=64, k=40)) for _ in range(2))
    assert first == second
    assert panels_traces(first, device, clearly=False) == []
    assert panels_traces(second, device, clearly=False) == []


def test_it_is_the_default_of_dense_layers(device: Device) -> None:
    chosen = default_schedule(Space(constant(matmul(m=64, n=192, k=32)), device))
    assert chosen is not None
    assert chosen.trace.instructions[0].kind == KIND


@pytest.mark.parametrize(("channels", "is_far"), [(64, False), (512, True)])
def test_it_is_the_default_where_weights_are_far(
    channels: int, is_far: bool, device: Device
) -> None:
    """Sketches would read them again for each tile of rows."""
    target = constant(conv2d(size=7, cin=channels, cout=channels))
    assert bool(panels_traces(target, device, clearly=True)) == is_far
    one_row = constant(matmul(m=1, n=channels, k=channels * 9))
    assert panels_traces(one_row, device, clearly=True) == [], "they are read once in any case"


def test_lines_follow_each_other_in_1x1_convolutions(device: Device) -> None:
    """Those of a part are shared out among tiles together, if they can be."""
    target = constant(conv2d(batch=2, size=6, cin=16, cout=64, window=1))
    found = as_product(target)
    assert found is not None
    assert [lines_of_a_pass(found, Parameters(6, 1, parts)) for parts in (1, 2, 4, 5)] == [
        12, 6, 3, 1
    ]  # fmt: skip
    assert panels_traces(target, device, clearly=True) == [], "donors know such better"
    (first, *_) = panels_traces(target, device, clearly=False)
    assert lines_of_a_pass(found, Parameters.of(first)) > 1
    for changes in ({"window": 3}, {"stride": 2}):
        other = as_product(constant(conv2d(**{"size": 6, "window": 1, **changes})))
        assert other is not None
        assert lines_of_a_pass(other, Parameters(6, 1, 1)) == 1


def test_rows_a_page_apart_are_few_in_a_tile(device: Device) -> None:
    """They would push each other out of the nearest cache."""
    apart, side_by_side = (constant(matmul(m=126, n=192, k=k)) for k in (1024, 1008))
    rows = [
        Parameters.of(panels_traces(one, device, clearly=True)[0]).rows
        for one in (apart, side_by_side)
    ]
    assert rows[0] <= 8 < rows[1]


def test_half_vectors_are_no_reason_by_themselves(device: Device) -> None:
    """24 columns are three vectors of 256 bits, which may be as fast as whole ones."""
    target = constant(conv2d(size=14, cin=16, cout=24, window=1))
    assert panels_traces(target, device, clearly=True) == []
    traces = default_traces(Space(target, device))
    assert traces[0].instructions[0].kind != KIND
    if device.vector_lanes > 8:
        assert KIND in [trace.instructions[0].kind for trace in traces], "it is tried all the same"


@pytest.mark.parametrize(("mcpu", "is_half"), [("znver4", False), ("emeraldrapids", True)])
def test_half_vectors_are_a_reason_where_whole_ones_are_twice_as_fast(
    mcpu: str, is_half: bool
) -> None:
    device = detect_device(json.dumps({"kind": "llvm", "mcpu": mcpu, "num-cores": 1}), threads=1)
    much, little = (constant(conv2d(size=28, cin=40, cout=40, window=w)) for w in (3, 1))
    assert bool(panels_traces(much, device, clearly=True)) == is_half
    assert panels_traces(little, device, clearly=True) == []


@pytest.mark.parametrize("extent", [1, 2, 13, 14, 15, 37, 197, 1500])
@pytest.mark.parametrize("most", [1, 6, 14])
def test_shares_are_even(extent: int, most: int) -> None:
    shares = uneven(extent, most)
    assert sum(count * size for count, size in shares) == extent
    sizes = [size for count, size in shares if count]
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    "values", [(0, 1, 1), (14, 0, 1), (14, 9, 1), (14, 1, 0), (14, 1, 99), (14, 1), (14, 1, True)]
)
def test_a_stranger_s_parameters_are_refused(values: tuple[Any, ...], device: Device) -> None:
    space = Space(KERNELS["prime rows"](), device)
    with pytest.raises(IllegalScheduleError):
        space.apply(one_step(KIND, *values))


def test_traces_come_back_from_their_text(device: Device) -> None:
    (first, *_) = panels_traces(KERNELS["heads"](), device, clearly=True)
    again = Trace.from_text(first.text)
    assert again.identity == first.identity
    assert Parameters.of(again) == Parameters.of(first)


def test_what_is_larger_stays_where_it_is(device: Device) -> None:
    """Threads share out lines where the image is larger than the weights, else columns."""
    image = constant(conv2d(size=28, cin=24, cout=40, window=1))
    weights = constant(conv2d(size=4, cin=64, cout=272, window=1))
    for target, by_lines in ((image, True), (weights, False)):
        product = as_product(target)
        assert product is not None
        assert is_by_lines(product) == by_lines
        for trace in panels_traces(target, device, clearly=False):
            parts = Parameters.of(trace).parts
            assert not by_lines or parts % device.threads == 0
