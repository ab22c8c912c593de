"""Whether the text of a dynamic shape is arithmetic, before it is evaluated.

PyTorch keeps the extents of dynamic dimensions as text, such as `Mul(Integer(2), Symbol('s0',
integer=True))`, and gives it to `sympy.sympify`, which is Python's `eval` with more names.
"""

from __future__ import annotations

import ast
import re

_FUNCTIONS = frozenset((
    "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Abs", "And", "Or", "Not",
    "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "LessThan", "GreaterThan",
    "StrictLessThan", "StrictGreaterThan", "floor", "ceiling", "FloorDiv", "ModularIndexing",
    "Where", "PythonMod", "Mod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv",
    "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv", "TruncToFloat", "TruncToInt",
    "RoundToInt", "ToFloat", "Identity", "IsNonOverlappingAndDenseIndicator", "Symbol",
))  # fmt: skip
"""What stands before a bracket, in `sympy.srepr`'s form or the plain one."""
_CONSTANTS = frozenset(("oo", "int_oo", "true", "false"))
_SYMBOL = re.compile(r"[a-z]+[0-9]+")
_DIGITS = re.compile(r"-?[0-9.]+(e[+-]?[0-9]+)?")
_NODES = (
    ast.Expression, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Load, ast.operator, ast.unaryop,
    ast.boolop, ast.cmpop,
)  # fmt: skip
_MAX_EXPRESSION = 10_000
_MAX_EXPONENT = 8
_MAX_POWERS = 3
_MAX_PRECISION = 1000  # bits
_POWERS = ("Pow", "PowByNatural", "FloatPow")


def is_arithmetic(text: str) -> bool:
    """Whether a text has symbols, numbers, arithmetic and known functions, and no more.

    Powers are small and few: sympy works them out, and a tower of them would never end.
    """
    if len(text) > _MAX_EXPRESSION:
        return False
    try:
        tree = ast.parse(text, mode="eval")
        return sum(map(_is_power, ast.walk(tree))) <= _MAX_POWERS and _is_arithmetic(tree)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False


def _is_power(node: ast.AST) -> bool:
    return isinstance(node, ast.Pow) or (isinstance(node, ast.Name) and node.id in _POWERS)


def _is_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return _is_known_call(node)
    if isinstance(node, ast.Name):
        return node.id in _CONSTANTS or _SYMBOL.fullmatch(node.id) is not None
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (int, float))
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.LShift):
            return False
        if isinstance(node.op, ast.Pow) and not _is_exponent(node.right):
            return False
    elif not isinstance(node, _NODES):
        return False
    return all(map(_is_arithmetic, ast.iter_child_nodes(node)))


def _is_known_call(call: ast.Call) -> bool:
    """`Add(...)` and its like; `Symbol('s0', integer=True)`; `Float('1.5', precision=53)`."""
    name = getattr(call.func, "id", None)
    values = [getattr(keyword.value, "value", None) for keyword in call.keywords]
    if name not in _FUNCTIONS or not all(map(_is_small, values)):
        return False
    if name in ("Symbol", "Float") and len(call.args) == 1:
        kind = _SYMBOL if name == "Symbol" else _DIGITS
        text = getattr(call.args[0], "value", None)
        return isinstance(text, str) and kind.fullmatch(text) is not None
    if values or name == "Symbol":
        return False
    if name in _POWERS and not (len(call.args) == 2 and _is_exponent(call.args[1])):
        return False
    return all(map(_is_arithmetic, call.args))


def _is_small(value: object) -> bool:
    return isinstance(value, int) and value <= _MAX_PRECISION


def _is_exponent(node: ast.expr) -> bool:
    """Whether it is a small constant: `2`, `-1`, `Integer(-1)`."""
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Integer" and node.args:
        node = node.args[0]
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    value = getattr(node, "value", None)
    return isinstance(value, (int, float)) and value <= _MAX_EXPONENT
