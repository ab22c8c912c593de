"""Rounding to expect: by data type, length of sums, and depth."""

from __future__ import annotations

import math

import pytest
from tvm import ir, relax, te, tirx, topi

from tunebank.build import expected_rounding
from tunebank.measure.rounding import UNIT_ROUNDOFF, rounding_variance, roundoff


def _matmul(length: int, dtype: str = "float32", out_dtype: str = "float32") -> tirx.PrimFunc:
    a, b = te.placeholder((4, length), dtype), te.placeholder((length, 8), dtype)
    k = te.reduce_axis((0, length))
    c = te.compute(
        (4, 8), lambda i, j: te.sum((a[i, k] * b[k, j]).astype(out_dtype), axis=k), name="c"
    )
    return te.create_prim_func([a, b, c])


@pytest.mark.parametrize("length", [16, 1024])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_sum_rounds_once_for_each_term(length: int, dtype: str) -> None:
    variance = rounding_variance(_matmul(length, dtype, dtype))
    assert variance == pytest.approx(length * UNIT_ROUNDOFF[dtype] ** 2)


def test_the_type_of_the_sum_counts_not_that_of_its_terms() -> None:
    kept_wide = rounding_variance(_matmul(64, "float16", "float32"))
    assert kept_wide == pytest.approx(64 * UNIT_ROUNDOFF["float32"] ** 2)


def test_moving_numbers_rounds_nothing() -> None:
    a = te.placeholder((4, 6), "float32")
    padded = te.compute(
        (6, 4),
        lambda i, j: tirx.if_then_else(i < 5, a[j, i], tirx.const(0.0, "float32")),
    )
    assert rounding_variance(te.create_prim_func([a, padded])) == 0.0
    ids = te.placeholder((3,), "int64")
    looked_up = te.compute((3, 6), lambda i, j: a[ids[i], j])
    assert rounding_variance(te.create_prim_func([a, ids, looked_up])) == 0.0


def test_integers_are_exact_unless_they_are_rounded_to() -> None:
    assert rounding_variance(_matmul(64, "int8", "int32")) == 0.0
    a = te.placeholder((64,), "float32")
    quantised = te.compute((64,), lambda i: tirx.round(a[i] * 10.0).astype("int8"))
    assert rounding_variance(te.create_prim_func([a, quantised])) == 2.0**-16


def test_places_between_pixels_are_as_exact_as_their_size_lets_them_be() -> None:
    data = te.placeholder((1, 1, 8, 8), "float32")
    roi = [0.0] * 4

    def resized(extent: int, method: str) -> float:
        result = topi.image.resize2d(data, roi, (extent, extent), layout="NCHW", method=method)
        return rounding_variance(te.create_prim_func([data, result]))

    small, large = resized(16, "linear"), resized(512, "linear")
    assert small == pytest.approx((8 + 16**2) * UNIT_ROUNDOFF["float32"] ** 2)
    assert large == pytest.approx((8 + 512**2) * UNIT_ROUNDOFF["float32"] ** 2)


def test_unit_roundoff() -> None:
    assert roundoff("int32") == roundoff("bool") == 0.0
    assert roundoff("float8_e4m3fn") > roundoff("bfloat16") > roundoff("float16")


def _chain(layers: int, length: int) -> ir.IRModule:
    """So many multiplications by a square matrix in a row, and one beside them."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((4, length), "float32"))
    weight = te.placeholder((length, length), "float32")
    data = te.placeholder((4, length), "float32")
    k = te.reduce_axis((0, length))
    product = te.compute(
        (4, length), lambda i, j: te.sum(data[i, k] * weight[k, j], axis=k), name="product"
    )
    func = te.create_prim_func([data, weight, product])
    with builder.function("main", [x]):
        var = builder.add_func(func, "layer")
        with builder.dataflow():
            matrix = builder.emit(relax.op.ones((length, length), "float32"))
            type_ = relax.TensorType((4, length), "float32")
            result = x
            for _ in range(layers):
                result = builder.emit(relax.call_tir(var, [result, matrix], type_))
            beside = builder.emit(relax.call_tir(var, [x, matrix], type_))
            out = builder.emit_output(relax.Tuple([result, beside]))
        builder.emit_func_output(out)
    return builder.get()


def test_rounding_grows_with_the_root_of_depth_and_length() -> None:
    one = expected_rounding(_chain(1, 16))
    assert one == pytest.approx(math.sqrt(2 * 16) * 2.0**-24)
    assert expected_rounding(_chain(9, 16)) == pytest.approx(3 * one)
    assert expected_rounding(_chain(1, 64)) == pytest.approx(2 * one)
