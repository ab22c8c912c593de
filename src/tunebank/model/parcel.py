"""A fused graph on its way from one process to another: structure as JSON, weights in a file.

    main(x)  with constants     ──pack──▶     main(x, w0, w1, ...)  +  weights.bin     ──unpack──▶

Weights of equal content are written once, so that functions for several shapes share them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import ir, relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from tunebank import _tvm

_INLINE_BYTES = 1024
_PAGE_BYTES = 4096


@dataclass(frozen=True)
class Weight:
    """Where a weight lies: offset and length in bytes, and what it is."""

    offset: int
    length: int
    shape: tuple[int, ...]
    dtype: str


@dataclass
class Packer:
    """Writes graphs and their weights into a folder."""

    folder: Path
    _places: dict[bytes, int] = field(default_factory=dict)
    _end: int = 0

    def pack(self, module: ir.IRModule, name: str) -> None:
        """Writes `name.json` and appends to `weights.bin`."""
        splitter = _Splitter(module)
        main = module.get_global_var("main")
        func = splitter.visit_expr(module["main"])
        params = [*func.params, *splitter.weights]
        attrs = dict(func.attrs or {}) | {"num_input": len(func.params)}
        whole = relax.Function(params, func.body, func.ret_ty, func.is_pure).with_attrs(attrs)
        splitter.builder_.update_func(main, whole)
        structure = splitter.builder_.get()
        places = [vars(self._write(constant)) for constant in splitter.weights.values()]
        text = json.dumps({"module": ir.save_json(structure), "weights": places})
        (self.folder / f"{name}.json").write_text(text)

    def _write(self, constant: Any) -> Weight:
        array = np.ascontiguousarray(_tvm.array_view(constant.value))
        data = array.reshape(-1).view(np.uint8).data
        digest = hashlib.blake2b(data, digest_size=20).digest()
        if digest not in self._places:
            with (self.folder / "weights.bin").open("ab") as file:
                file.write(bytes(-file.tell() % _PAGE_BYTES))
                self._places[digest] = file.tell()
                file.write(data)
        shape = tuple(int(extent) for extent in constant.ty.shape)
        return Weight(self._places[digest], len(data), shape, str(constant.ty.dtype))


@mutator
class _Splitter(PyExprMutator):  # type: ignore[misc]
    """Puts a parameter in the place of each large constant."""

    def __init__(self, module: ir.IRModule) -> None:
        super().__init__(module)
        self.weights: dict[Any, Any] = {}
        self._vars: dict[Any, Any] = {}

    def visit_generic_const_(self, constant: Any) -> Any:
        if _bytes_of(constant) <= _INLINE_BYTES:
            return constant
        if constant not in self._vars:
            var = relax.Var(f"weight{len(self._vars)}", constant.ty)
            self._vars[constant] = var
            self.weights[var] = constant
        return self._vars[constant]


def _bytes_of(constant: Any) -> int:
    count = int(np.prod([int(extent) for extent in constant.ty.shape], dtype=np.int64))
    return count * int(tvm.DataType(str(constant.ty.dtype)).itemsize)


class Unpacker:
    """Reads graphs from a folder; weights that they share become one object."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._constants: dict[Weight, Any] = {}

    def unpack(self, name: str) -> ir.IRModule:
        """The graph of that name, weights as constants again."""
        data = json.loads((self._folder / f"{name}.json").read_text())
        module = _tvm.load_own_json(data["module"])
        places = [Weight(**{**one, "shape": tuple(one["shape"])}) for one in data["weights"]]
        if not places:
            return module
        params = list(module["main"].params)[-len(places) :]
        constants = [self._constant(place) for place in places]
        bound = dict(zip(params, constants, strict=True))
        return relax.transform.BindParams("main", bound)(module)

    def _constant(self, place: Weight) -> Any:
        if place not in self._constants:
            file = self._folder / "weights.bin"
            data = np.memmap(file, np.uint8, "r", place.offset, (place.length,))
            array = data.view(np.dtype(place.dtype)).reshape(place.shape)
            self._constants[place] = relax.const(_tvm.tensor_of(array))
        return self._constants[place]
