"""The functions and operators of expressions, bounded so that none can hang or fill the memory."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

MAX_INT = 10**15

Number = int | float


def kind_of(value: Any) -> str:
    """What a value is, for messages."""
    if value is None or isinstance(value, bool):
        return str(value)
    for types, name in ((Number, "a number"), (str, "text"), (list | tuple, "a list"), (dict, "a mapping")):
        if isinstance(value, types):
            return name
    return f"a {type(value).__name__}"


def show(value: Any) -> str:
    """A value, or what it is, for messages."""
    if isinstance(value, str):
        return f"'{value[:40]}'"
    if isinstance(value, int) and abs(value) > MAX_INT:
        return "a large number"
    return str(value) if isinstance(value, Number) else kind_of(value)


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0 and abs(base) > 1:
        # |base| >= 2 ** (bits - 1): shows that the result is too large without computing it.
        if (abs(base).bit_length() - 1) * exponent > MAX_INT.bit_length():
            raise OverflowError
        return base**exponent
    result = base**exponent
    if isinstance(result, complex):
        raise ValueError("the result is not a real number")
    return result


def _round(value: Any, digits: Any = None) -> Any:
    if digits is None:
        return round(value)
    if not isinstance(digits, int) or abs(digits) > 15:
        raise ValueError("the number of digits must be a whole number from -15 to 15")
    return round(value, digits)


def _of(types: Any, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of one value of these types."""

    def apply(value: Any) -> Any:
        if not isinstance(value, types):
            raise TypeError
        return function(value)

    return apply


def _extreme(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(*values: Any) -> Any:
        given = values[0] if len(values) == 1 and isinstance(values[0], list | tuple) else values
        if not given:
            raise ValueError("it needs at least one value")
        if not (all(isinstance(value, Number) for value in given) or all(isinstance(value, str) for value in given)):
            raise TypeError
        return function(given)

    return apply


def _convert(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def apply(value: Any) -> Any:
        try:
            return function(value)
        except ValueError:
            raise ValueError(f"{show(value)} is not a number") from None

    return _of(Number | str, apply)


def to_text(value: Any) -> str:
    """A value as it is written in YAML."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true" if value else "false"
    return str(value)


FUNCTIONS: Mapping[str, tuple[Callable[..., Any], int, int]] = {
    # name: (function, fewest arguments, most arguments)
    "abs": (_of(Number, abs), 1, 1),
    "ceil": (_of(Number, math.ceil), 1, 1),
    "float": (_convert(float), 1, 1),
    "floor": (_of(Number, math.floor), 1, 1),
    "int": (_convert(int), 1, 1),
    "len": (_of(str | list | tuple | dict, len), 1, 1),
    "max": (_extreme(max), 1, 100),
    "min": (_extreme(min), 1, 100),
    "round": (_round, 1, 2),
    "str": (_of(str | Number | None, to_text), 1, 1),
}

UNARY: dict[type[ast.unaryop], tuple[str, Callable[[Any], Any]]] = {
    ast.USub: ("-", _of(Number, operator.neg)),
    ast.UAdd: ("+", _of(Number, operator.pos)),
}
BINARY: dict[type[ast.operator], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
    ast.FloorDiv: ("//", operator.floordiv),
    ast.Mod: ("%", operator.mod),
    ast.Pow: ("**", _power),
}
COMPARISONS: dict[type[ast.cmpop], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.In: ("in", lambda a, b: a in b),
    ast.NotIn: ("not in", lambda a, b: a not in b),
}
