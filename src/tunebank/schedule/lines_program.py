"""The program of a Lines schedule; see `lines.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import ir
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T  # noqa: N812

from tunebank.device import Device
from tunebank.kernel import Kernel
from tunebank.schedule.chain import Chain, as_chain
from tunebank.schedule.line_buffer import LineBuffer
from tunebank.schedule.lines import Parameters, fits
from tunebank.schedule.pointwise import begin_program, store_steps, unravelled
from tunebank.schedule.product_program import ProductProgram
from tunebank.schedule.trace import Trace


def lines_module(kernel: Kernel, device: Device, trace: Trace) -> ir.IRModule:
    """The kernel as a program.

    Raises:
        ValueError: the kernel is not of the kind, or the parameters don't fit it.
    """
    parameters = Parameters.of(trace)
    found = as_chain(kernel)
    if found is None:
        raise ValueError("no window over a sum of products")
    if not fits(found, device, parameters):
        raise ValueError(f"{parameters} don't fit the kernel")
    return _Program(found, device.vector_lanes, parameters).module()


class _Program(ProductProgram):
    """Writes the program of one kernel under one set of parameters."""

    def __init__(self, chain: Chain, lanes: int, given: Parameters) -> None:
        super().__init__(chain.product, lanes=lanes, rows=given.rows, vectors=given.vectors)
        self._chain = chain
        self._given = given

    def module(self) -> ir.IRModule:
        """The program."""
        chain, bands = self._chain, self._given.bands
        batch, height, _, _ = chain.window.shape
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            self._buffers = begin_program(chain.kernel)
            self._pack()
            self._prepare_x()
            with T.parallel(0, batch * bands * self._groups) as task:
                image, band, group = unravelled(task, [batch, bands, self._groups])
                self._band(image, group, band * height // bands, (band + 1) * height // bands)
        return ir.IRModule({"main": builder.get()})

    def _band(self, image: Any, group: Any, start: Any, stop: Any) -> None:
        """Some lines of results, for a group of channels."""
        first = self._first_column(group)
        panel = self._panel({}, group, first)
        self._lines = LineBuffer(
            self._chain.window, self._chain.padding, self._buffers,
            lanes=self._lanes, vectors=self._given.vectors,
        )  # fmt: skip
        n, y = self._product.axes[:2]
        self._lines.pass_over(
            image, first, start, stop,
            fill=lambda line: self._rows({n: image, y: line}, first, panel),
        )  # fmt: skip

    def _finish(self, axes: Mapping[Any, Any], column: Any, lane: Any, total: Any) -> None:
        """A vector of what is between the two, into the line buffer."""
        product = self._product
        n, y, x, k = product.axes[:4]
        at = {**axes, k: column + lane}
        place = [at[axis] for axis in (n, y, x, k)]
        known = store_steps(product.steps, place, {product.result: total}, self._buffers)
        self._lines.keep(known[self._chain.between], axes[y], axes[x], lane)
