"""Python expressions laid out in lines of 120 characters, broken as by a formatter."""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import dataclass
from typing import Any

from hiresnet_graph.formats import one_line

WIDTH = 120
STEP = 4


@dataclass(frozen=True, slots=True)
class Brackets:
    """Items in brackets: `head(item, item)`, `[item, item]`."""

    head: str
    items: tuple[Doc, ...]
    ends: str = "()"


@dataclass(frozen=True, slots=True)
class Operands:
    """Operands joined by one left-associative operator: `a + b + c`."""

    operator: str
    operands: tuple[Doc, ...]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A keyword argument or an entry of a dict: a label and its value."""

    label: str
    value: Doc


@dataclass(frozen=True, slots=True)
class Postfix:
    """A value with a suffix: `value[:, ::2]`."""

    value: Doc
    suffix: str


@dataclass(frozen=True, slots=True)
class Each:
    """A dict comprehension: `{key: value for name in source}`."""

    key: str
    value: Doc
    loop: str


Doc = str | Brackets | Operands | Each | Labelled | Postfix
"""An expression without layout."""


def literal(value: Any) -> str:
    """A plain value as source, with double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        items = ", ".join(literal(item) for item in value)
        return f"({items},)" if len(value) == 1 else f"({items})"
    if isinstance(value, range) and value.start == 0:
        return f"range({value.stop})"
    return repr(value)


def shortened(name: str) -> str:
    """A name of the spec in the form that a docstring allows, of at most 60 characters."""
    return textwrap.shorten(_without_quotes(name), 60, placeholder="...") or "network"


def docstring(text: str, indent: int) -> list[str]:
    """The lines of a docstring, one if it fits. Nothing in the text can end it or escape a character."""
    text, pad = _without_quotes(text), " " * indent
    if len(text) + indent + 6 <= WIDTH:
        return [f'{pad}"""{text}"""']
    lines = textwrap.wrap(text, WIDTH - indent - 3, break_long_words=True)
    return [f'{pad}"""{lines[0]}', *(f"{pad}{line}" for line in lines[1:]), f'{pad}"""']


def _without_quotes(text: str) -> str:
    return re.sub(r'[\\"]', " ", one_line(text))


def in_brackets(doc: Doc) -> Doc:
    """The expression, in round brackets if it is a chain of operands."""
    return Brackets("", (doc,)) if isinstance(doc, Operands) else doc


def flat(doc: Doc) -> str:
    """The expression in one line."""
    match doc:
        case Brackets(head, items, ends):
            return f"{head}{ends[0]}{', '.join(flat(item) for item in items)}{ends[1]}"
        case Operands(operator, operands):
            return f" {operator} ".join(flat(operand) for operand in operands)
        case Each(key, value, loop):
            return f"{{{key}: {flat(value)} {loop}}}"
        case Labelled(label, value):
            return f"{label}{flat(value)}"
        case Postfix(value, suffix):
            return f"{flat(in_brackets(value))}{suffix}"
    return doc


def statement(before: str, doc: Doc, indent: int, after: str = "") -> list[str]:
    """The lines of a statement: `before`, an expression and `after`."""
    line = f"{' ' * indent}{before}{flat(doc)}{after}"
    if len(line) <= WIDTH:
        return [line]
    match doc:
        case Operands(operator, (Brackets("") as first, last)):
            return _broken(before, first, f" {operator} {flat(last)}{after}", indent)
        case Operands(operator, (first, Brackets() as last)):
            lines = _broken(f"{before}{flat(first)} {operator} ", last, after, indent)
            if len(lines[0]) <= WIDTH:
                return lines
    return _broken(before, in_brackets(doc), after, indent)


def _broken(before: str, doc: Doc, after: str, indent: int) -> list[str]:
    """The lines of an expression that does not fit into one."""
    pad = " " * indent
    match doc:
        case Labelled(label, value):
            return _broken(f"{before}{label}", value, after, indent)
        case Postfix(value, suffix):
            return _broken(before, in_brackets(value), f"{suffix}{after}", indent)
        case Each(key, value, loop):
            inner = " " * (indent + STEP)
            entry = _fitted(f"{key}: ", value, "", indent + STEP)
            return [f"{pad}{before}{{", *entry, f"{inner}{loop}", f"{pad}}}{after}"]
        case Operands(operator, operands):
            lines = _fitted(before, operands[0], "", indent)
            for operand in operands[1:]:
                lines += _fitted(f"{operator} ", operand, "", indent)
            return [*lines[:-1], f"{lines[-1]}{after}"]
        case Brackets(head, items, ends) if items:
            lines = [f"{pad}{before}{head}{ends[0]}"]
            inner = f"{' ' * (indent + STEP)}{', '.join(flat(item) for item in items)}"
            if len(inner) <= WIDTH:
                lines.append(inner)
            elif len(items) == 1:
                lines += _broken("", items[0], "", indent + STEP)
            else:
                for item in items:
                    lines += _fitted("", item, ",", indent + STEP)
            return [*lines, f"{pad}{ends[1]}{after}"]
    return [f"{pad}{before}{flat(doc)}{after}"]


def _fitted(before: str, doc: Doc, after: str, indent: int) -> list[str]:
    line = f"{' ' * indent}{before}{flat(doc)}{after}"
    return [line] if len(line) <= WIDTH else _broken(before, doc, after, indent)
