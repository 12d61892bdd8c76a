"""Writing plain or marked data as YAML or JSON, as people write it: keys in order, short inner parts on one line."""

from __future__ import annotations

import json
import math
import numbers
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from hiresnet_graph.spec.scalar import OLD_BOOLEANS, is_text
from hiresnet_graph.spec.syntax import find_cut

_WIDTH = 120
_PLAIN = re.compile(r"[\w$(](?:[\w$().*+/<>=%-]| (?! |$))*")
_ESCAPED = re.compile("[\x7f-\xa0\xad\u200b-\u200f\u2028-\u202f\u2060-\u206f\ud800-\udfff\ufeff\ufff0-\uffff]")
Write = Callable[[Any], str]


def to_yaml(data: Any) -> str:
    """Data as YAML.

    Raises:
        TypeError: A value cannot be written as JSON either, or a key is not text.
    """
    if isinstance(data, dict | list | tuple) and data:
        return "\n".join(_yaml_lines(data, 0, top=True)) + "\n"
    return _flow(data, _yaml_scalar) + "\n"


def to_json(data: Any) -> str:
    """Data as JSON.

    Raises:
        TypeError: A value has no form in JSON, or a key is not text.
        ValueError: A number is not finite, which has no form in JSON.
    """
    return "\n".join(_json_lines(data, 0, top=True)) + "\n"


def _yaml_lines(data: Any, indent: int, top: bool = False) -> list[str]:
    """The lines of a container that is not empty, in block style."""
    pad = " " * indent
    lines: list[str] = []
    if isinstance(data, dict):
        for key, value in data.items():
            head = f"{pad}{_key(key, _yaml_scalar)}:"
            flow = _short(value, _WIDTH - len(head) - 1, top, _yaml_scalar)
            lines += [head, *_yaml_lines(value, indent + 2)] if flow is None else [f"{head} {flow}"]
        return lines
    for value in data:
        flow = _short(value, _WIDTH - indent - 2, False, _yaml_scalar)
        inner = _yaml_lines(value, indent + 2) if flow is None else [pad + "  " + flow]
        lines += [f"{pad}- {inner[0][indent + 2 :]}", *inner[1:]]
    return lines


def _json_lines(data: Any, indent: int, top: bool = False) -> list[str]:
    if not isinstance(data, dict | list | tuple) or not data:
        return [_flow(data, _json_scalar)]
    pad = " " * (indent + 2)
    lines: list[str] = []
    is_mapping = isinstance(data, dict)
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        head = f"{pad}{_key(key, _json_scalar)}: " if is_mapping else pad
        flow = _short(value, _WIDTH - len(head) - 1, top, _json_scalar)
        inner = _json_lines(value, indent + 2) if flow is None else [flow]
        lines += [f"{head}{inner[0]}", *inner[1:]]
        lines[-1] += ","
    lines[-1] = lines[-1][:-1]
    opening, closing = "{}" if is_mapping else "[]"
    return [opening, *lines, " " * indent + closing]


def _short(value: Any, space: int, top: bool, write: Write) -> str | None:
    """A value on one line: a scalar always; a container if it is flat enough to be readable, and fits."""
    if not isinstance(value, dict | list | tuple) or not value:
        return _flow(value, write)
    # `nodes`, `skips` and the like are written in lines, even where one line is enough.
    if not _is_flat(value, 1 if top else 2) or len(value) > space:
        return None
    flow = _flow(value, write)
    return flow if len(flow) <= space else None


def _is_flat(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list | tuple):
        return True
    return levels > 0 and all(_is_flat(v, levels - 1) for v in (value.values() if isinstance(value, dict) else value))


def _flow(value: Any, write: Write) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k, write)}: {_flow(v, write)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(v, write) for v in value) + "]"
    return write(value)


def _key(key: Any, write: Write) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key must be text, got {key!r}")
    return write(key)


def _yaml_scalar(value: Any) -> str:
    if isinstance(value, str):
        return _yaml_text(str(value))
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return _number(value)


def _json_scalar(value: Any) -> str:
    if isinstance(value, str):
        return _json_text(str(value))
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"JSON has no number {value}")
    return _number(value)


def _number(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, numbers.Integral):  # those of NumPy, too
        return int.__repr__(int(value))
    if isinstance(value, numbers.Real):
        return float.__repr__(float(value))
    raise TypeError(f"only text, numbers, true, false, null, lists and mappings can be written, got {value!r}")


@lru_cache(maxsize=4096)
def _yaml_text(text: str) -> str:
    """A text as a scalar that is the same inside and outside of brackets."""
    if _PLAIN.fullmatch(text) and text.lower() not in OLD_BOOLEANS and is_text(text) and find_cut(text) < 0:
        return text
    if text.isprintable() and not _ESCAPED.search(text):
        return "'" + text.replace("'", "''") + "'"
    return _json_text(text)


@lru_cache(maxsize=4096)
def _json_text(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)
