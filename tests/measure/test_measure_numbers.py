"""What the check of a candidate's numbers lets pass and what not, by data type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tvm import s_tir, te, tirx

from programs import kernel
from tunebank.kernel import Kernel
from tunebank.measure import LocalMeasurer, Measurement
from tunebank.measure.arguments import index_positions, random_argument
from tunebank.measure.local import LEAST_FLOAT_ROUNDING, rounding_of
from tunebank.schedule import Scheduled, Trace
from tunebank.schedule.reference import reference_module

SHAPE = (16, 64)
Formula = Callable[..., Any]


def elementwise(formula: Formula, *, dtype: str, inputs: int = 1) -> tirx.PrimFunc:
    given = [te.placeholder(SHAPE, dtype, name=f"x{i}") for i in range(inputs)]
    return te.create_prim_func(
        [*given, te.compute(SHAPE, lambda *i: formula(*(x[i] for x in given)))]
    )


def matmul(in_dtype: str, out_dtype: str, *, plus: float = 0) -> tirx.PrimFunc:
    a, b = te.placeholder((16, 32), in_dtype), te.placeholder((32, 16), in_dtype)
    k = te.reduce_axis((0, 32))
    product = te.compute(
        (16, 16), lambda i, j: te.sum(a[i, k].astype(out_dtype) * b[k, j].astype(out_dtype), axis=k)
    )
    if not plus:
        return te.create_prim_func([a, b, product])
    moved = te.compute((16, 16), lambda i, j: product[i, j] + tirx.const(plus, out_dtype))
    return te.create_prim_func([a, b, moved])


def measured(measurer: LocalMeasurer, target: Kernel, program: tirx.PrimFunc) -> Measurement:
    """A program measured as a candidate for a kernel, itself or an impostor."""
    func = program.with_attr("global_symbol", "main")
    schedule = s_tir.Schedule(reference_module(Kernel.from_prim_func(func, name="candidate")))
    candidate = Scheduled(target, Trace.from_text("[[],[]]"), schedule)
    (result,) = measurer.measure([candidate], best_us={})
    return result


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (matmul("float32", "float32"), matmul("float32", "float32", plus=0.01)),
        (matmul("float16", "float16"), matmul("float16", "float16", plus=2.0)),
        (matmul("int8", "int32"), matmul("int8", "int32", plus=1)),
        (matmul("uint8", "int32"), matmul("uint8", "int32", plus=-1)),
        (
            elementwise(lambda x: x * tirx.const(3, "int32"), dtype="int32"),
            elementwise(lambda x: tirx.Select(x > 1, x + 1, x * 3), dtype="int32"),
        ),
        (
            elementwise(lambda x: x + x, dtype="bfloat16"),
            elementwise(lambda x: x, dtype="bfloat16"),
        ),
        (
            elementwise(lambda x: x > tirx.const(0.0, "float32"), dtype="float32"),
            elementwise(lambda x: x > tirx.const(0.01, "float32"), dtype="float32"),
        ),
    ],
    ids=["float32", "float16", "int8", "uint8", "int32", "bfloat16", "bool"],
)
def test_right_and_wrong(
    measurer: LocalMeasurer, right: tirx.PrimFunc, wrong: tirx.PrimFunc
) -> None:
    target = kernel(right)
    accepted = measured(measurer, target, right)
    assert (accepted.status, accepted.checked) == ("ok", True), accepted.error
    refused = measured(measurer, target, wrong)
    assert refused.status == "wrong"
    assert "differs from the reference" in (refused.error or "")


def test_not_a_number_is_right_where_the_reference_has_it(measurer: LocalMeasurer) -> None:
    root = elementwise(te.sqrt, dtype="float32")  # of numbers from -1 to 1
    target = kernel(root)
    assert measured(measurer, target, root).checked
    half = elementwise(lambda x: te.sqrt(x) * tirx.const(0.5, "float32"), dtype="float32")
    assert measured(measurer, target, half).status == "wrong"
    more = elementwise(lambda x: te.sqrt(x - tirx.const(0.1, "float32")), dtype="float32")
    assert "NaN" in (measured(measurer, target, more).error or "")


def gather() -> tirx.PrimFunc:
    table, ids = te.placeholder((2, 8), "float32"), te.placeholder((5,), "int64")
    shift = te.placeholder((5,), "int64")
    rows = te.compute(
        (5, 8), lambda i, j: table[ids[i], j] + shift[i].astype("float32"), name="rows"
    )
    return te.create_prim_func([table, ids, shift, rows])


def test_indices_are_told_from_other_integers(measurer: LocalMeasurer) -> None:
    assert index_positions(gather()) == [1]
    assert measured(measurer, kernel(gather()), gather()).checked
    assert set(random_argument("int64", (50,), 0, is_index=True)) == {0, 1}
    assert np.abs(random_argument("int64", (500,), 0, is_index=False)).max() == 100
    bytes_ = random_argument("uint8", (5000,), 0, is_index=False)
    assert (bytes_.min(), bytes_.max()) == (0, 255)


def test_a_sum_is_allowed_more_the_longer_it_is() -> None:
    assert rounding_of(kernel(matmul("int8", "int32"))) == 0.0
    assert rounding_of(kernel(matmul("float32", "float32"))) == LEAST_FLOAT_ROUNDING
    assert rounding_of(kernel(matmul("float16", "float16"))) == pytest.approx(8 * 2.0**-11)
    assert rounding_of(kernel(matmul("float16", "float32"))) == LEAST_FLOAT_ROUNDING
