"""Expressions in the texts of a spec: `$name`, and `$(...)` with arithmetic that can do no harm.

Python's own parser reads an expression, and its tree is evaluated here; nothing is ever passed to `eval`. Each step is
bounded (lengths, nesting, size of numbers), so that a spec from a stranger can be read: it may fail, but never hang.
Which names are known, and where, is up to the callers.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from hiresnet_graph.errors import ExpressionError, did_you_mean
from hiresnet_graph.spec.arithmetic import (
    BINARY,
    COMPARISONS,
    FUNCTIONS,
    MAX_INT,
    UNARY,
    Number,
    kind_of,
    show,
    to_text,
)
from hiresnet_graph.spec.scalar import looks_typed

MAX_EXPRESSION = 1_000
MAX_NESTING = 50
MAX_LENGTH = 10_000
_SHOWN = 12
_TOO_NESTED = f"an expression may be nested {MAX_NESTING} deep, this one is deeper."


class UnknownName(ExpressionError):
    """A name that is not known."""

    def __init__(self, name: str, known: Iterable[str], offset: int) -> None:
        super().__init__(f"there is no name '{name}' here.", offset, similar_name(name, known))
        self.name = name


class Unknown:
    """The value of a param that is known only where a block is used.

    Attributes:
        is_used: Whether a template uses it.
    """

    is_used = False


def unknown_value(text: str, names: Mapping[str, Any]) -> Unknown | None:
    """The unknown value that the expressions of a text depend on, if there is one.

    Raises:
        UnknownName: They use a name that is not known.
    """
    found = None
    for part in _parts(text):
        if isinstance(part, _Expression):
            for node in ast.walk(part.tree):
                if isinstance(node, ast.Name) and node.id in part.names and node.id not in names:
                    raise UnknownName(node.id, names, part.offset_of(node))
            found = next((names[name] for name in part.names if isinstance(names[name], Unknown)), found)
    if found is not None:
        found.is_used = True
    return found


def evaluate(text: str, names: Mapping[str, Any]) -> Any:
    """The value of a text: that of its expression if it is one, else the text with the value of each one inserted.

    `$$` gives a `$`. Values of `names` are passed on as they are, not copied.

    Raises:
        ExpressionError: An expression is invalid, uses an unknown name, cannot be computed, or is too large.
    """
    if "$" not in text:
        return text
    parts = _parts(text)
    if len(parts) == 1 and isinstance(parts[0], _Expression):
        return _value(parts[0], names)
    written = "".join(part if isinstance(part, str) else _inserted(part, names) for part in parts)
    if len(written) > max(MAX_LENGTH, len(text)):
        raise ExpressionError(f"a text has at most {MAX_LENGTH:,} characters, this one would have {len(written):,}.")
    return written


def names_in(text: str) -> frozenset[str]:
    """The names that the expressions of a text use; none if the text is invalid: `evaluate` says why."""
    if "$" not in text:
        return frozenset()
    try:
        parts = _parts(text)
    except ExpressionError:
        return frozenset()
    return frozenset().union(*(part.names for part in parts if isinstance(part, _Expression)))


def similar_name(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name."""
    if written := {"true": "True", "false": "False", "null": "None", "none": "None"}.get(name):
        return f"Write '{written}'."
    if where := {"i": "in the fields of a node with 'depth'", "in_width": "in an entry of 'blocks'"}.get(name):
        return f"'{name}' has a value {where} only."
    names = sorted(known)
    hint = did_you_mean(name, names) or f"Known: {', '.join(names[:_SHOWN])}, ..."
    return hint if names else "A template uses names from 'params', and there are none here."


# ---------------------------------------------------------------------------------------------------------- parsing

_MARK = re.compile(r"\$(\$|\(|[^\W\d]\w*)?")
_BRACKET_OR_STRING = re.compile(r"""[()]|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_SPACE = str.maketrans("\t\n\r\f\v", "     ")


@dataclass(frozen=True, eq=False)
class _Expression:
    """One expression of a text.

    Attributes:
        text: Without its `$` and brackets.
        offset: Of its first character in the text.
        start: Of its `$`.
    """

    text: str
    offset: int
    start: int
    tree: ast.expr
    names: frozenset[str]

    def offset_of(self, node: ast.AST) -> int:
        column = getattr(node, "col_offset", 1) - 1
        if not self.text.isascii():
            column = len(self.text.encode()[: max(column, 0)].decode(errors="ignore"))
        return self.offset + max(column, 0)


@lru_cache(maxsize=8192)
def _parts(text: str) -> tuple[str | _Expression, ...]:
    """The literal parts and the expressions of a text."""
    parts: list[str | _Expression] = []
    plain = ""
    index = 0
    while (match := _MARK.search(text, index)) is not None:
        plain += text[index : match.start()]
        index = match.end()
        what = match[1]
        if what == "$":
            plain += "$"
            continue
        if what is None:
            raise ExpressionError("expected a name or '(' after '$'.", match.start(), "Write '$$' for a '$'.")
        if plain:
            parts.append(plain)
            plain = ""
        if what == "(":
            end = _end(text, index, match.start())
            parts.append(_parse(text[index:end], index, match.start()))
            index = end + 1
        else:
            name = ast.Name(what, ast.Load(), col_offset=1)
            parts.append(_Expression(what, match.start() + 1, match.start(), name, frozenset([what])))
    plain += text[index:]
    return (*parts, plain) if plain or not parts else tuple(parts)


def _end(text: str, index: int, start: int) -> int:
    """The index of the bracket that closes a `$(`; brackets inside quotes do not count."""
    depth = 1
    for match in _BRACKET_OR_STRING.finditer(text, index, index + MAX_EXPRESSION + 1):
        if match[0] in "()":
            depth += 1 if match[0] == "(" else -1
            if depth == 0:
                return match.start()
    if len(text) - index > MAX_EXPRESSION:
        message = f"an expression has at most {MAX_EXPRESSION:,} characters, and this one is not closed within them."
        raise ExpressionError(message, start)
    raise ExpressionError("this '$(' is never closed.", start)


def _parse(text: str, offset: int, start: int) -> _Expression:
    if not text.strip():
        raise ExpressionError("expected an expression between the brackets.", offset)
    try:
        with warnings.catch_warnings():
            # Python warns of odd literals; those that are not allowed are reported below.
            warnings.simplefilter("ignore")
            tree = ast.parse(f"({text.translate(_SPACE)}\n)", mode="eval").body
    except SyntaxError as error:
        column = (error.offset or 1) - 2 if error.lineno == 1 else len(text)
        reason = error.msg.removesuffix(" (detected at line 1)").split(". Perhaps")[0].rstrip(".?")
        hint = "Inside $(...) names are written without a '$'." if "$" in text else _HINT
        at = offset + min(max(column, 0), len(text))
        raise ExpressionError(f"not a valid expression: {reason}.", at, hint) from None
    except (ValueError, OverflowError):
        raise ExpressionError("not a valid expression: it contains a character that is not allowed.", offset) from None
    except (RecursionError, MemoryError):
        raise ExpressionError(_TOO_NESTED, offset) from None
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called}
    return _Expression(text, offset, start, tree, frozenset(used))


_UNQUOTED = "Write true, false or a number, without quotes, where the value is set."
_HINT = (
    "An expression has numbers, text, names, + - * / // % **, comparisons, 'and', 'or', 'not', 'a if c else b', x[i], "
    f"lists, and the functions {', '.join(FUNCTIONS)}."
)


# -------------------------------------------------------------------------------------------------------- evaluation


def _value(expression: _Expression, names: Mapping[str, Any]) -> Any:
    return _Evaluation(expression, names).visit(expression.tree, 0)


def _inserted(expression: _Expression, names: Mapping[str, Any]) -> str:
    """A value as part of a longer text."""
    value = _value(expression, names)
    if not isinstance(value, str | Number | None):
        message = f"{kind_of(value)} cannot be part of a longer text."
        raise ExpressionError(message, expression.start, "Make the template the whole value.")
    try:
        return to_text(value)
    except ValueError:
        raise ExpressionError("this number is too long to be written out.", expression.start) from None


class _Evaluation:
    """One walk over the tree of an expression."""

    def __init__(self, expression: _Expression, names: Mapping[str, Any]) -> None:
        self.expression, self.names = expression, names

    def visit(self, node: ast.expr, depth: int) -> Any:
        if depth > MAX_NESTING:
            self.fail(node, _TOO_NESTED)
        depth += 1
        match node:
            case ast.Name():
                return self.name(node)
            case ast.Constant():
                return self.constant(node)
            case ast.List() | ast.Tuple():
                return [self.visit(item, depth) for item in node.elts]
            case ast.UnaryOp():
                return self.unary(node, depth)
            case ast.BinOp():
                return self.binary(node, depth)
            case ast.Compare():
                return self.compare(node, depth)
            case ast.BoolOp():
                return self.logic(node, depth)
            case ast.IfExp():
                return self.visit(node.body if self.condition(node.test, depth) else node.orelse, depth)
            case ast.Subscript():
                return self.index(node, depth)
            case ast.Call():
                return self.call(node, depth)
        self.refuse(node)

    def name(self, node: ast.Name) -> Any:
        name = node.id
        if name in self.names:
            return self.names[name]
        if name in FUNCTIONS:
            self.fail(node, f"'{name}' is a function.", f"Write '{name}(...)'.")
        raise UnknownName(name, self.names, self.expression.offset_of(node))

    def constant(self, node: ast.Constant) -> Any:
        if node.value is not None and not isinstance(node.value, Number | str):
            self.refuse(node)
        return self.checked(node, "this number" if isinstance(node.value, Number) else "this text", node.value)

    def condition(self, node: ast.expr, depth: int) -> Any:
        """A value that is taken as true or false."""
        value = self.visit(node, depth)
        if isinstance(value, str) and looks_typed(value):
            self.fail(node, f"{show(value)} is text, and as a condition text is always true.", _UNQUOTED)
        return value

    def unary(self, node: ast.UnaryOp, depth: int) -> Any:
        if isinstance(node.op, ast.Not):
            return not self.condition(node.operand, depth)
        value = self.visit(node.operand, depth)
        if type(node.op) not in UNARY:
            self.refuse(node)
        sign, function = UNARY[type(node.op)]
        return self.compute(node, sign, [value], function)

    def binary(self, node: ast.BinOp, depth: int) -> Any:
        # A long sum is nested on its left only: a loop follows it, and it does not count as nested.
        chain = [node]
        while isinstance(chain[-1].left, ast.BinOp):
            chain.append(chain[-1].left)
        value = self.visit(chain[-1].left, depth)
        for link in reversed(chain):
            if type(link.op) not in BINARY:
                self.refuse(link)
            value = self.combine(link, value, self.visit(link.right, depth))
        return value

    def combine(self, node: ast.BinOp, left: Any, right: Any) -> Any:
        sign, function = BINARY[type(node.op)]
        if isinstance(left, Number) and isinstance(right, Number):
            return self.compute(node, sign, [left, right], function)
        # Text and lists can be joined, and nothing else: '*' would repeat them, '%' would format.
        if sign == "+" and isinstance(left, str) and isinstance(right, str):
            return self.compute(node, sign, [left, right], operator.add)
        if sign == "+" and isinstance(left, list) and isinstance(right, list):
            return self.compute(node, sign, [left, right], lambda a, b: [*a, *b])
        self.fail(node, f"'{sign}' cannot be applied to {kind_of(left)} and {kind_of(right)}.")

    def compare(self, node: ast.Compare, depth: int) -> bool:
        left = self.visit(node.left, depth)
        for op, item in zip(node.ops, node.comparators, strict=True):
            if type(op) not in COMPARISONS:
                self.fail(item, "'is' is not allowed in an expression.", "Write '==' or '!='.")
            right = self.visit(item, depth)
            sign, function = COMPARISONS[type(op)]
            for one, other in ((left, right), (right, left)):
                if isinstance(one, str) and isinstance(other, Number) and looks_typed(one):
                    self.fail(node, f"{show(one)} is text, which never equals {show(other)}.", _UNQUOTED)
            if not self.compute(node, sign, [left, right], function):
                return False
            left = right
        return True

    def logic(self, node: ast.BoolOp, depth: int) -> Any:
        stop = isinstance(node.op, ast.Or)
        value: Any = None
        for item in node.values:
            value = (self.visit if item is node.values[-1] else self.condition)(item, depth)
            if bool(value) is stop:
                break
        return value

    def index(self, node: ast.Subscript, depth: int) -> Any:
        if isinstance(node.slice, ast.Slice):
            self.refuse(node.slice)
        value, key = self.visit(node.value, depth), self.visit(node.slice, depth)
        if isinstance(value, dict):
            if not isinstance(key, str):
                self.fail(node.slice, f"a key is text, got {kind_of(key)}.")
            if key not in value:
                self.fail(node.slice, f"there is no key {show(key)} here.", did_you_mean(key, value))
            return value[key]
        if not isinstance(value, str | list | tuple):
            self.fail(node, f"{kind_of(value)} has no items to choose from.")
        if isinstance(key, bool) or not isinstance(key, int):
            self.fail(node.slice, f"an index is a whole number, got {kind_of(key)}.")
        if not -len(value) <= key < len(value):
            self.fail(node.slice, f"there is no item {show(key)}: there are {len(value)}, counted from 0.")
        return value[key]

    def call(self, node: ast.Call, depth: int) -> Any:
        if not isinstance(node.func, ast.Name):
            self.refuse(node)
        name = node.func.id
        if name not in FUNCTIONS:
            self.fail(node.func, f"there is no function '{name}'.", did_you_mean(name, FUNCTIONS))
        function, fewest, most = FUNCTIONS[name]
        if node.keywords:
            self.fail(node, f"'{name}' takes its values without names.")
        values = [self.visit(item, depth) for item in node.args]
        if not fewest <= len(values) <= most:
            expected = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            self.fail(node, f"'{name}' takes {expected} values, got {len(values)}.")
        return self.compute(node, name, values, function)

    def compute(self, node: ast.AST, what: str, values: Sequence[Any], function: Callable[..., Any]) -> Any:
        """Apply a function, and report its failure as an error of the expression."""
        try:
            result = function(*values)
        except ZeroDivisionError:
            self.fail(node, f"'{what}' would divide by zero.")
        except OverflowError:
            self.fail(node, f"the result of '{what}' is too large.")
        except (TypeError, RecursionError):
            self.fail(node, f"'{what}' cannot be applied to {' and '.join(kind_of(value) for value in values)}.")
        except (ValueError, MemoryError) as error:
            self.fail(node, f"'{what}' cannot be computed: {error}.")
        return self.checked(node, f"the result of '{what}'", result)

    def checked(self, node: ast.AST, what: str, value: Any) -> Any:
        if isinstance(value, bool):
            return value
        if isinstance(value, int) and abs(value) > MAX_INT:
            self.fail(node, f"{what} is too large: whole numbers go up to 10**15.")
        if isinstance(value, float) and not math.isfinite(value):
            self.fail(node, f"{what} is not a finite number.")
        if isinstance(value, str | list) and len(value) > MAX_LENGTH:
            self.fail(node, f"{what} is too long: text and lists have up to {MAX_LENGTH:,} parts.")
        return value

    def fail(self, node: ast.AST, message: str, hint: str = "") -> NoReturn:
        raise ExpressionError(message, self.expression.offset_of(node), hint)

    def refuse(self, node: ast.AST) -> NoReturn:
        start = self.expression.offset_of(node) - self.expression.offset
        encoded = self.expression.text.encode(errors="replace")
        stop = (getattr(node, "end_col_offset", None) or 1) - 1
        end = len(encoded[: max(stop, 0)].decode(errors="ignore"))
        shown = " ".join(self.expression.text[start : end if end > start else None].split())[:40]
        self.fail(node, f"'{shown}' is not allowed in an expression.", _HINT)
