"""What programs of sums of products have in common: W's values laid out, X's rows in registers.

panel       W's values for a group of columns, one row for each step of the sum
tile        rows of X times a panel, accumulated in registers: R rows of V vectors

Sums of bytes go four steps at a time, by an instruction of AVX-512 VNNI:

    sums[i, k] += x[i, r] * w[r, k] + x[i, r + 1] * w[r + 1, k] + ...
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from tvm import ir, tirx
from tvm.tirx.script.builder import ir as T  # noqa: N812

from tunebank import _tvm
from tunebank.schedule.factor import Factor, Panel
from tunebank.schedule.pointwise import element, first_of_group, rebuilt, unravelled, zero
from tunebank.schedule.product import Product
from tunebank.schedule.tiles import uneven

STEPS_AHEAD = 32
"""Of a sum, for which values are asked for. Of 16, 32 and 64 the best on an Emerald Rapids."""
_FIRST_CACHE_BYTES = 32 * 1024


class ProductProgram(ABC):
    """Writes parts of a program of a sum of products.

    Args:
        product: the sum.
        lanes: elements of a vector.
        rows: of a register tile, at most.
        vectors: of a register tile.
    """

    def __init__(self, product: Product, *, lanes: int, rows: int, vectors: int) -> None:
        self._product = product
        self._lanes = lanes
        self._most_rows = rows
        self._vectors = vectors
        self._columns = lanes * vectors
        self._wanted = product.columns
        self._groups = product.groups(self._columns)
        self._buffers: dict[Any, Any] = {}
        self._producers = dict(product.producers)  # those that are computed in place
        axes, extents = product.axes, product.extents
        self._factor = Factor(
            product.w,
            tuple(axes[position] for position in product.reduced),
            tuple(extents[position] for position in product.reduced),
            axes[product.column],
            self._wanted,
            product.depth,
        )
        self._packed: Callable[[Any], Panel] | None = None
        """W's values by group of columns, where it is packed beforehand."""

    @abstractmethod
    def _finish(self, axes: Mapping[Any, Any], column: Any, lane: Any, total: Any) -> None:
        """Takes a vector of sums.

        Args:
            axes: where, the column left out.
            column: the first of the panel's columns.
            lane: of the panel's columns, which.
            total: the sums.
        """

    def _first_column(self, group: Any) -> Any:
        if self._wanted < self._columns:
            return 0  # of one group that is not whole
        together = self._product.together
        each = math.ceil(together / self._columns)
        if each == self._groups:
            return first_of_group(group, self._columns, together)
        first = first_of_group(group % each, self._columns, together)
        return group // each * together + first

    def _prepare_x(self) -> None:
        """Computes what X is read from, such as a padded image, once and for all; no mere copy."""
        step = self._producers.get(self._product.x.source)
        if step is None or isinstance(step.value, ir.TensorLoad):
            return
        buffer = self._product.x.source
        del self._producers[buffer]
        *extents, last = (int(extent) for extent in buffer.shape)
        held = T.alloc_buffer((*extents, last), str(buffer.dtype))
        with T.parallel(0, math.prod(extents)) as number:
            place = unravelled(number, extents)

            def store(column: Any) -> None:
                at = [*place, column]
                axes = dict(zip(step.axes, at, strict=True))
                T.buffer_store(held, rebuilt(step.value, axes, self._load), at)

            with T.serial(0, last // self._lanes) as group, T.vectorized(0, self._lanes) as lane:
                store(group * self._lanes + lane)
            with T.serial(0, last % self._lanes) as rest:
                store(last // self._lanes * self._lanes + rest)
        self._buffers[buffer] = held

    def _pack(self) -> None:
        """Has W packed beforehand, if it can be."""
        if self._product.may_be_packed(self._columns):
            self._packed = self._factor.packed(self._buffers, self._columns)

    def _panel(self, axes: Mapping[Any, Any], group: Any, first: Any) -> Panel:
        """W's values for a group of columns."""
        if self._packed is not None:
            return self._packed(group)
        if self._product.is_of_bytes or self._wanted < self._columns:
            raise ValueError("a factor that can't be packed beforehand")
        panel = T.alloc_buffer((math.prod(self._factor.extents), self._columns), "float32")
        self._copy_w(axes, first, lambda value, place: T.buffer_store(panel, value, place))
        return lambda number, lane: panel[number, lane]

    def _copy_w(
        self, axes: Mapping[Any, Any], first: Any, store: Callable[[Any, list[Any]], None]
    ) -> None:
        """Copies W's values of a group of columns: by step of the sum, by column of the group."""
        factor = self._factor
        with T.serial(0, math.prod(factor.extents)) as number:
            steps = zip(factor.steps, unravelled(number, factor.extents), strict=True)
            known = {**axes, **dict(steps)}

            def copy(column: Any) -> None:
                place = {**known, factor.column: first + column}
                store(rebuilt(self._product.w, place, self._load), [number, column])

            self._each_vector(copy)

    def _rows(self, axes: Mapping[Any, Any], first: Any, panel: Panel, *, lines: int = 1) -> None:
        """All rows of some lines, in tiles of two sizes."""
        begin = 0
        for count, rows in uneven(lines * self._product.rows, self._most_rows):
            if count:
                with T.serial(0, count) as tile:
                    self._tile(axes, begin + tile * rows, rows, first, panel)
            begin += count * rows

    def _tile(self, axes: Mapping[Any, Any], top: Any, rows: int, first: Any, panel: Panel) -> None:
        product = self._product
        dtype = str(product.result.dtype)
        sums = T.alloc_buffer((rows, self._columns), dtype, scope="local")
        with T.unroll(0, rows) as i:
            self._each_vector(lambda k: T.buffer_store(sums, zero(dtype), [i, k]))
        factor = self._factor
        with T.grid(*factor.loops) as loops:
            *outer, last = [loops] if len(factor.loops) == 1 else list(loops)
            number = factor.number([*outer, last])
            steps = dict(zip(factor.steps, (*outer, last * factor.depth), strict=True))
            self._ask_ahead(panel, number)
            with T.unroll(0, rows) as i:
                column = {product.axes[product.column]: first}
                known = {**self._at_row(axes, top + i), **steps, **column}
                if product.is_of_bytes:
                    self._add_bytes(sums, i, self._bytes(known), lambda k: panel(number, k))
                else:
                    value = rebuilt(product.x, known, self._load)
                    self._each_vector(lambda k: _add(sums, (i, k), value, panel(number, k)))
        with T.unroll(0, rows) as i:
            known = self._at_row(axes, top + i)
            self._each_wanted(lambda k: self._finish(known, first, k, sums[i, k]))

    def _ask_ahead(self, panel: Panel, number: Any) -> None:
        """Asks for the panel's values some steps ahead, if it was packed beforehand.

        They are then one after another, from panel to panel, mostly in a far cache or in memory,
        and what the hardware fetches ahead ends with each page of 32 steps.
        """
        if self._packed is not None and self._product.w_bytes > _FIRST_CACHE_BYTES:
            width = self._lanes * self._product.depth
            for vector in range(self._vectors):
                _tvm.prefetch(panel(number + STEPS_AHEAD, vector * width))

    def _bytes(self, axes: Mapping[Any, Any]) -> Any:
        """The bytes of X that an instruction takes, as one number; copies of X are passed by."""
        load, known = self._product.x, axes
        while True:
            place = [rebuilt(index, known, self._load) for index in load.indices]
            step = self._producers.get(load.source)
            if step is None:
                break
            load, known = step.value, dict(zip(step.axes, place, strict=True))
        place[-1] = tirx.Ramp(place[-1], 1, self._product.depth)
        return tirx.reinterpret("int32", self._buffers[load.source][tuple(place)])

    def _add_bytes(self, sums: Any, row: Any, x: Any, panel_at: Callable[[Any], Any]) -> None:
        """Adds the products of some bytes of X with as many of W to a row of sums."""
        lanes, depth = self._lanes, self._product.depth
        for vector in range(self._vectors):
            w = panel_at(tirx.Ramp(vector * lanes * depth, 1, lanes * depth))
            at = tirx.Ramp(vector * lanes, 1, lanes)
            T.buffer_store(sums, _tvm.add_products_of_bytes(sums[row, at], x, w), [row, at])

    def _at_row(self, axes: Mapping[Any, Any], row: Any) -> dict[Any, Any]:
        if self._product.row is None:
            return dict(axes)
        return {**axes, self._product.axes[self._product.row]: row}

    def _each_vector(self, act: Callable[[Any], None]) -> None:
        for vector in range(self._vectors):
            with T.vectorized(0, self._lanes) as lane:
                act(vector * self._lanes + lane)

    def _each_wanted(self, act: Callable[[Any], None]) -> None:
        if self._wanted >= self._columns:
            self._each_vector(act)
            return
        with T.vectorized(0, self._wanted) as lane:
            act(lane)

    def _load(self, buffer: Any, place: list[Any]) -> Any:
        return element(buffer, place, lambda b, at: self._buffers[b][tuple(at)], self._producers)


def _add(sums: Any, place: tuple[Any, Any], x: Any, w: Any) -> None:
    T.buffer_store(sums, sums[place] + x * w, list(place))
