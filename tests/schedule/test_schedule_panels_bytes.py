"""Sums of products of bytes: the numbers, and that they are the default where they can be."""

from __future__ import annotations

import pytest
from tvm import te, tirx

from programs import kernel
from tunebank.device import Device, detect_device
from tunebank.kernel import Kernel
from tunebank.measure import LocalMeasurer
from tunebank.schedule import IllegalScheduleError, Space, default_schedule
from tunebank.schedule.panels import (
    KIND,
    Parameters,
    panels_traces,
)
from tunebank.schedule.product import as_product


def _wide(value: tirx.PrimExpr) -> tirx.PrimExpr:
    return value.astype("int32")


def products(
    *,
    m: int = 9,
    n: int = 32,
    k: int = 24,
    x: str = "uint8",
    w: str = "int8",
    packable: bool = True,
) -> Kernel:
    """Rows of bytes times a matrix of bytes, scaled and rounded to bytes again."""
    a, b = te.placeholder((m, k), x, name="a"), te.placeholder((k, n), w, name="b")
    r = te.reduce_axis((0, k), name="r")
    sums = te.compute((m, n), lambda i, j: te.sum(_wide(a[i, r]) * _wide(b[r, j]), axis=r), "sums")
    scaled = te.compute(
        (m, n), lambda i, j: sums[i, j].astype("float32") * tirx.const(0.002, "float32"), "scaled"
    )
    func = te.create_prim_func([a, b, scaled])
    return kernel(func.with_attr("layout_free_buffers", [1]) if packable else func)


def convolution(
    *, size: int = 7, cin: int = 8, cout: int = 48, stride: int = 1, pad: int = 1
) -> Kernel:
    """A 3x3 convolution of bytes with zeros around the image, or 1x1 without; int32 results."""
    window = 1 + 2 * pad
    out = (size + 2 * pad - window) // stride + 1
    x = te.placeholder((2, size, size, cin), "uint8", name="x")
    w = te.placeholder((window, window, cin, cout), "int8", name="w")

    def padded(n: tirx.Var, y: tirx.Var, z: tirx.Var, c: tirx.Var) -> tirx.PrimExpr:
        if not pad:
            return x[n, y, z, c]
        inside = tirx.all(y >= pad, y < size + pad, z >= pad, z < size + pad)
        return tirx.if_then_else(inside, x[n, y - pad, z - pad, c], tirx.const(0, "uint8"))

    image = te.compute((2, size + 2 * pad, size + 2 * pad, cin), padded, "padded")
    ry, rx = te.reduce_axis((0, window), name="ry"), te.reduce_axis((0, window), name="rx")
    rc = te.reduce_axis((0, cin), name="rc")
    sums = te.compute(
        (2, out, out, cout),
        lambda n, y, z, k: te.sum(
            _wide(image[n, y * stride + ry, z * stride + rx, rc]) * _wide(w[ry, rx, rc, k]),
            axis=[ry, rx, rc],
        ),
        "sums",
    )
    return kernel(te.create_prim_func([x, w, sums]).with_attr("layout_free_buffers", [1]))


KERNELS = {
    "products": products,
    "one row": lambda: products(m=1, n=64, k=40),
    "image": convolution,
    "1x1": lambda: convolution(cin=12, cout=16, pad=0),
    "stride": lambda: convolution(size=9, stride=2),
}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("given", [(14, 1, 1), (6, 2, 2), (5, 1, 3)], ids=str)
def test_the_numbers_are_the_kernel_s(
    name: str, given: tuple[int, int, int], device: Device, measurer: LocalMeasurer
) -> None:
    if not device.multiplies_bytes:
        pytest.skip("this CPU has no AVX-512 VNNI")
    target = KERNELS[name]()
    found = as_product(target)
    assert found is not None
    assert found.is_of_bytes
    rows, vectors, parts = given
    columns = found.extents[found.column]
    vectors = vectors if columns % (vectors * device.vector_lanes) == 0 else 1
    one = Parameters(rows, vectors, min(parts, found.count(found.others)))
    (result,) = measurer.measure([Space(target, device).apply(one.trace)], best_us={})
    assert (result.status, result.error) == ("ok", None)
    assert result.checked


@pytest.fixture(scope="module")
def server() -> Device:
    """A CPU with the instruction, whatever this machine's is."""
    return detect_device('{"kind":"llvm","mcpu":"icelake-server"}', threads=1)


@pytest.mark.parametrize("name", KERNELS)
def test_it_is_the_default(name: str, server: Device) -> None:
    chosen = default_schedule(Space(KERNELS[name](), server))
    assert chosen is not None
    assert chosen.trace.instructions[0].kind == KIND


def test_not_on_a_cpu_without_the_instruction() -> None:
    older = detect_device('{"kind":"llvm","mcpu":"skylake-avx512"}', threads=1)
    target = products()
    assert panels_traces(target, older, clearly=True) == []
    with pytest.raises(IllegalScheduleError):
        Space(target, older).apply(Parameters(6, 1, 1).trace)


OTHERS = {
    "steps that are no fours": lambda: products(k=22),
    "signed by signed": lambda: products(x="int8"),
    "a weight that can't be packed": lambda: products(packable=False),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_sums_of_integers_are_none(name: str) -> None:
    assert as_product(OTHERS[name]()) is None


def test_a_vector_is_whole(server: Device) -> None:
    assert panels_traces(products(n=24), server, clearly=True) == []
