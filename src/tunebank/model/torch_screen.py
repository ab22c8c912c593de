"""What the text of a `.pt2` program may say, before PyTorch sees it.

`torch.export.load` trusts its file. It unpickles, it looks operators up by any dotted path below
`torch` (`torch.os.system` is one), it evaluates the expressions of dynamic shapes as Python, it
imports the modules that the types of nested inputs name, and the graph that it builds is written
as Python source and executed. A file that anyone may have sent must do none of this. So

- every text in the program is of a kind that is known, and is checked by that kind: names are
  identifiers, operators are PyTorch's own, expressions are arithmetic;
- what isn't needed is dropped: guards (Python source), stack traces, module stacks;
- inputs and outputs are taken flat, so that no types are named.

Devices become `cpu`: a program exported on a GPU is the same program.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tunebank.model.torch_expression import is_arithmetic

Json = Any

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATH = re.compile(r"[A-Za-z0-9_.:/-]*")
_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed)\.[A-Za-z0-9_]+\.[A-Za-z0-9_]+"
    r"|torch\.ops\.higher_order\.(cond|while_loop|scan|map_impl|associative_scan"
    r"|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|lshift|rshift|and_|or_"
    r"|eq|ne|lt|le|gt|ge|getitem)"
    r"|torch\.sym_(float|int|max|min|not|ite)|torch\._sym_sqrt|math\.(trunc|floor|ceil)"
)
_FORBIDDEN_OPERATORS = ("from_file", "save", "load", "_print")
_NAME_KEYS = frozenset(("name", "as_name", "user_input_name"))
_PATH_KEYS = frozenset(("parameter_name", "buffer_name", "tensor_constant_name"))
_FREE_KEYS = frozenset(("as_string", "as_strings"))  # they end as Python's `repr`
_NUMBERS = frozenset(("NaN", "Infinity", "-Infinity"))
_REFUSED_KEYS = {
    "custom_obj": "custom objects",
    "as_custom_obj": "custom objects",
    "token": "effect tokens",
    "gradient_to_parameter": "gradients",
    "gradient_to_user_input": "gradients",
}
_DROPPED_KEYS = frozenset(("metadata", "custom_obj_values"))


class ScreenError(ValueError):
    """A program that says what it must not say; the message names it."""


def screened(program: Mapping[str, Json]) -> dict[str, Json]:
    """The program, all its texts checked, reduced to what is needed.

    Args:
        program: the document `models/<name>.json` of a `.pt2` archive.

    Raises:
        ScreenError: a text of no known kind, an operator that isn't PyTorch's own, or what
            could run code.
        KeyError, TypeError, RecursionError: not such a document.
    """
    module = program["graph_module"]
    signature = _clean(module["signature"], "signature")
    graph = _clean(module["graph"], "graph")
    _drop_constant_outputs(graph, signature)
    return {
        "graph_module": {
            "graph": graph,
            "signature": signature,
            "module_call_graph": [_flat_call(signature)],
            "metadata": {},
            "treespec_namedtuple_fields": {},
        },
        "opset_version": {},
        "range_constraints": _clean(program["range_constraints"], "range_constraints"),
        "schema_version": _clean(program["schema_version"], "schema_version"),
        "verifiers": ["TRAINING"],  # the laxest of PyTorch's own
        "guards_code": [],
    }


def operator_names(program: Json) -> set[str]:
    """The operators that a screened program calls."""
    if isinstance(program, list):
        return set().union(*map(operator_names, program))
    if not isinstance(program, Mapping):
        return set()
    own = {program[key] for key in ("target", "as_operator") if isinstance(program.get(key), str)}
    return own.union(*map(operator_names, program.values()))


def _clean(value: Json, key: str) -> Json:
    """A part of the document, checked; `key` is what it stands under."""
    if isinstance(value, str):
        return _checked_text(value, key)
    if isinstance(value, list):
        return [_clean(item, key) for item in value]
    if not isinstance(value, Mapping):
        return value
    if key in ("device", "as_device"):
        return {"type": "cpu", "index": None}
    cleaned = {}
    for name, item in value.items():
        if not _NAME.fullmatch(name):
            raise ScreenError(f"a field named {name[:40]!r}")
        if name in _REFUSED_KEYS:
            raise ScreenError(f"{_REFUSED_KEYS[name]}, which are not supported")
        cleaned[name] = {} if name in _DROPPED_KEYS else _clean(item, name)
    return cleaned


def _checked_text(text: str, key: str) -> str:
    if key in _FREE_KEYS:
        return text
    if key in ("target", "as_operator"):
        return _checked_operator(text)
    if key == "expr_str":
        if not is_arithmetic(text):
            raise ScreenError(f"the shape expression {text[:40]!r}, which is not arithmetic")
        return text
    kinds = ((_NAME_KEYS, _NAME), (_PATH_KEYS, _PATH))
    if any(key in keys and kind.fullmatch(text) for keys, kind in kinds):
        return text
    if text in _NUMBERS or (not text and key == "name"):
        return text
    raise ScreenError(f"an unexpected text {text[:40]!r} as {key!r}")


def _checked_operator(name: str) -> str:
    """An operator of PyTorch that only computes."""
    if not _OPERATORS.fullmatch(name) or any(
        part.startswith(_FORBIDDEN_OPERATORS) for part in name.split(".")[3:4]
    ):
        raise ScreenError(f"the operator {name[:80]!r}, which is not one of PyTorch's own")
    return name


def _drop_constant_outputs(graph: dict[str, Json], signature: dict[str, Json]) -> None:
    """Takes outputs away that are always the same: None, and Python's numbers."""
    specs = signature["output_specs"]
    kept = [
        "user_output" not in spec or bool(_VARYING & set(spec["user_output"]["arg"]))
        for spec in specs
    ]
    signature["output_specs"] = [s for s, keep in zip(specs, kept, strict=True) if keep]
    graph["outputs"] = [o for o, keep in zip(graph["outputs"], kept, strict=True) if keep]


def _flat_call(signature: Mapping[str, Json]) -> dict[str, Json]:
    """How the program is called: all inputs by position, all outputs in one tuple."""
    inputs = sum(1 for spec in signature["input_specs"] if _is_of_user(spec, "input"))
    outputs = sum(1 for spec in signature["output_specs"] if _is_of_user(spec, "output"))
    arguments = _tuple_spec([_LEAF] * inputs)
    keywords = {"type": "builtins.dict", "context": "[]", "children_spec": []}
    flat: dict[str, Json] = {
        "inputs": [],
        "outputs": [],
        "in_spec": json.dumps([1, _tuple_spec([arguments, keywords])]),
        "out_spec": json.dumps([1, _tuple_spec([_LEAF] * outputs)]),
        "forward_arg_names": None,
    }
    return {"fqn": "", "signature": flat}


_VARYING = {"as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool"}
_LEAF: dict[str, Json] = {"type": None, "context": None, "children_spec": []}


def _tuple_spec(children: list[Json]) -> dict[str, Json]:
    return {"type": "builtins.tuple", "context": "null", "children_spec": children}


def _is_of_user(spec: Mapping[str, Json], side: str) -> bool:
    return f"user_{side}" in spec or (side == "input" and "constant_input" in spec)
