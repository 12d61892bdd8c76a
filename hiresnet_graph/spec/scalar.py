"""Plain scalars of the YAML 1.2 core schema: which are text, numbers, true, false or null."""

from __future__ import annotations

import math
import re
from typing import Any

_MAX_DIGITS = 300
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_CONSTANTS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
OLD_BOOLEANS = frozenset(("on", "off", "yes", "no"))
"""Booleans of YAML 1.1; text in YAML 1.2."""
_SWITCHES = OLD_BOOLEANS | {"y", "n", "none", "true", "false", "null"}
TYPED = frozenset(["", *"~nNtTfF.+-0123456789"])
"""First characters of plain scalars that may be something other than text; "" for the empty one."""


def resolve(text: str) -> Any:
    """The value of a plain scalar.

    Raises:
        ValueError: It is a number with too many digits.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text):
        if len(text) > _MAX_DIGITS:
            raise ValueError(f"a number has at most {_MAX_DIGITS} digits, this one has {len(text)}.")
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def is_text(text: str) -> bool:
    """Whether a plain scalar is text."""
    return text not in _CONSTANTS and not _INT.fullmatch(text) and not _FLOAT.fullmatch(text)


def looks_typed(text: str) -> bool:
    """Whether a text reads like true, false, nothing or a number: `no`, `'0'`, `None`."""
    return text.lower() in _SWITCHES or not (text == "" or is_text(text))
