"""Which texts of dynamic shapes count as arithmetic."""

from __future__ import annotations

import pytest

from tunebank.model.torch_expression import is_arithmetic


@pytest.mark.parametrize(
    "text",
    [
        "s0",
        "s0 + 2*s1",
        "s0//2 - 1",
        "s0**2",
        "Symbol('s17', positive=True, integer=True)",
        "Mul(Integer(2), Symbol('s0', integer=True))",
        "Add(Integer(-1), FloorDiv(Symbol('s0', integer=True), Integer(2)))",
        "Pow(Symbol('s0', integer=True), Integer(-1))",
        "Float('1.5', precision=53)",
        "Max(1, s0)",
        "Ge(u0, 0)",
    ],
)
def test_arithmetic(text: str) -> None:
    assert is_arithmetic(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s0 +",
        "print(1)",
        "__import__('os').system('true')",
        "s0.__class__",
        "s0[0]",
        "lambda: 1",
        "[s0 for s0 in (1,)]",
        "Symbol('__import__')",
        "Symbol('s0', integer=exit())",
        "Symbol('s0', integer='x')",
        "Float('nan; exit()')",
        "Float('1', precision=1000000000)",
        "Add('exit()', 1)",
        "Add(*s0)",
        "Integer('7')",
        "9**9**9",
        "9**99",
        "9**s0",
        "Pow(9, Pow(9, 9))",
        "Pow(Pow(Pow(Pow(9, 8), 8), 8), 8)",
        "1 << 99999",
        "'s0'",
        "(" * 5000 + ")" * 5000,
        "s0 + " * 5000 + "1",
        "s0 := 1",
        "True if s0 else False",
        "f'{s0}'",
    ],
)
def test_not_arithmetic(text: str) -> None:
    assert not is_arithmetic(text)
