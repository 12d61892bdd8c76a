"""Templates in the texts of a spec: `$name`, and `$(...)` with arithmetic that can do no harm.

Expressions are parsed by Python's own parser and walked here; nothing is ever passed to `eval`. Each step is bounded
(lengths, nesting, size of numbers), so that a spec from a stranger can be read: it may fail, but never hang.
Which names are known, and where, is for the callers to say.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from hiresnet_graph.errors import ExpressionError, Position, Problem, SpecError, did_you_mean
from hiresnet_graph.spec.source import MAX_DEPTH, MAX_VALUES, MarkedDict, MarkedList, format_path, position_in

__all__ = ["FUNCTIONS", "evaluate", "is_template", "names_in", "resolve_params", "substitute"]

MAX_EXPRESSION = 1_000
MAX_NESTING = 50
MAX_INT = 10**15
MAX_LENGTH = 10_000
_TOO_MANY = f"a spec holds at most {MAX_VALUES:,} values, with this one it would have more."


# ------------------------------------------------------------------------------------------------------- the verbs


def evaluate(text: str, names: Mapping[str, Any]) -> Any:
    """The value of a text: that of its template if it is one, else the text with each template written out.

    `$$` gives a `$`. Values that come from `names` are handed on as they are, not copied.

    Raises:
        ExpressionError: Something is no expression, is not known, cannot be computed, or is too large.
    """
    if "$" not in text:
        return text
    parts = _parts(text)
    if len(parts) == 1 and isinstance(parts[0], _Template):
        return _value(parts[0], names)
    written = "".join(part if isinstance(part, str) else _written(part, names) for part in parts)
    if len(written) > max(MAX_LENGTH, len(text)):
        raise ExpressionError(f"a text has at most {MAX_LENGTH:,} characters, this one would have {len(written):,}.")
    return written


def names_in(text: str) -> frozenset[str]:
    """The names that the templates of a text use. None for a text that is not well formed: `evaluate` says why."""
    if "$" not in text:
        return frozenset()
    try:
        parts = _parts(text)
    except ExpressionError:
        return frozenset()
    found: set[str] = set()
    for part in parts:
        if isinstance(part, _Template):
            found |= part.names
    return frozenset(found)


def is_template(text: str) -> bool:
    """Whether a text has a `$name` or a `$(`, well formed or not."""
    return "$" in text and any(match[1] and match[1] != "$" for match in _MARK.finditer(text))


def substitute(
    tree: Any, names: Mapping[str, Any], path: Sequence[str | int] = (), position: Position | None = None
) -> Any:
    """A tree of mappings, lists and texts with the templates in its values evaluated; positions stay.

    What holds no template is shared with the tree that was given, which is not changed.

    Args:
        path: Where the tree stands in its spec, for the paths of problems.
        position: Where the tree stands in its file; of use for a bare text, which cannot know it.
    Raises:
        SpecError: With every template that cannot be evaluated, each with its place.
    """
    walk = _Substitution(names)
    new = walk.any(tree, path, position)
    if walk.problems:
        raise SpecError(walk.problems)
    return new


def resolve_params(params: MarkedDict, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The values of params, which may use each other in any order.

    Args:
        params: As written, templates included.
        given: Names known beside them, like `in_width` in a block.
    Raises:
        SpecError: With every template that cannot be evaluated and every cycle; what depends on these is not told.
    """
    names: dict[str, Any] = dict(given or {})
    for name in params:
        names.pop(name, None)
    walk = _Substitution(names, known=[*names, *params])
    needs = {name: sorted(_names_of(value) & params.keys()) for name, value in params.items()}
    failed: set[str] = set()
    done: set[str] = set()
    for start in params:
        opened: dict[str, Iterator[str]] = {} if start in done else {start: iter(needs[start])}
        while opened:
            name, rest = next(reversed(opened.items()))
            need = next(rest, None)
            if need is None:
                del opened[name]
                done.add(name)
                if name in failed or any(other in failed for other in needs[name]):
                    failed.add(name)
                    continue
                told = len(walk.problems)
                value = walk.any(params[name], ("params", name), params.value_positions.get(name))
                if len(walk.problems) > told:
                    failed.add(name)
                else:
                    names[name] = value
            elif need in opened:
                members = list(opened)
                cycle = members[members.index(need) :]
                walk.problems.append(_cycle_problem(params, cycle))
                failed.update(cycle)
            elif need not in done:
                opened[need] = iter(needs[need])
    if walk.problems:
        raise SpecError(sorted(walk.problems, key=lambda problem: (problem.position or (0, 0, 0))[1:]))
    return {name: names[name] for name in params}


# ------------------------------------------------------------------------------------------------------ whole trees


class _Substitution:
    """One walk over a tree, which collects problems and keeps count of what the result holds."""

    def __init__(self, names: Mapping[str, Any], known: Sequence[str] | None = None) -> None:
        self.names = names
        self.known = known
        self.problems: list[Problem] = []
        self.total = 0
        # Containers that aliases share are done once, but what they hold counts each time: result, added values.
        self.seen: dict[int, tuple[Any, int]] = {}
        # The value is kept beside its size: an id is good only as long as its object lives.
        self.sizes: dict[int, tuple[Any, int, int]] = {}

    def any(self, value: Any, path: Sequence[str | int], position: Position | None) -> Any:
        if isinstance(value, str):
            return self.text(value, path, position) if "$" in value else value
        if isinstance(value, dict):
            return self.mapping(value, path)
        return self.items(value, path) if isinstance(value, list) else value

    def mapping(self, data: dict[str, Any], path: Sequence[str | int]) -> dict[str, Any]:
        if id(data) in self.seen:
            return self.again(data, path)  # type: ignore[no-any-return]
        before = self.total
        new: dict[str, Any] | None = None
        for key, value in data.items():
            if isinstance(value, str):
                if "$" not in value:
                    continue
                position = data.value_positions.get(key) if isinstance(data, MarkedDict) else None
                result = self.text(value, (*path, key), position)
            elif isinstance(value, dict):
                result = self.mapping(value, (*path, key))
            elif isinstance(value, list):
                result = self.items(value, (*path, key))
            else:
                continue
            if result is not value:
                if new is None:
                    new = data.copy()
                new[key] = result
        out = data if new is None else new
        self.seen[id(data)] = (out, self.total - before)
        return out

    def items(self, data: list[Any], path: Sequence[str | int]) -> list[Any]:
        if id(data) in self.seen:
            return self.again(data, path)  # type: ignore[no-any-return]
        before = self.total
        new: list[Any] | None = None
        for i, value in enumerate(data):
            if not isinstance(value, str | dict | list) or (isinstance(value, str) and "$" not in value):
                continue
            position = data.positions[i] if isinstance(data, MarkedList) and i < len(data.positions) else None
            result = self.any(value, (*path, i), position)
            if result is not value:
                if new is None:
                    new = data.copy()
                new[i] = result
        out = data if new is None else new
        self.seen[id(data)] = (out, self.total - before)
        return out

    def again(self, data: Any, path: Sequence[str | int]) -> Any:
        out, added = self.seen[id(data)]
        self.total += added
        if added and self.total > MAX_VALUES:
            self.problems.append(Problem(_TOO_MANY, getattr(data, "position", None), format_path(path)))
        return out

    def text(self, text: str, path: Sequence[str | int], position: Position | None) -> Any:
        try:
            value = evaluate(text, self.names)
            if isinstance(value, dict | list):
                self.check_size(value, len(path))
        except ExpressionError as error:
            place = None if position is None else position_in(position, text, error.offset)
            hint = error.hint
            if isinstance(error, _UnknownName) and self.known is not None:
                hint = _similar(error.name, self.known)
            self.problems.append(Problem(error.message, place, format_path(path), hint))
            return text
        return value

    def check_size(self, value: Any, depth: int) -> None:
        size, height = self.measure(value, 0)
        self.total += size
        if depth + height > MAX_DEPTH:
            raise ExpressionError(f"values may be nested {MAX_DEPTH} deep, with this one they would lie deeper.")
        if self.total > MAX_VALUES:
            raise ExpressionError(_TOO_MANY)

    def measure(self, value: Any, depth: int) -> tuple[int, int]:
        """How many values a value holds, itself included, and how deep they lie."""
        if not isinstance(value, dict | list):
            return 1, 0
        known = self.sizes.get(id(value))
        if known is not None:
            return known[1], known[2]
        if depth > MAX_DEPTH:
            return 1, MAX_DEPTH
        size, height = 1, 0
        for item in value.values() if isinstance(value, dict) else value:
            inner, below = self.measure(item, depth + 1)
            size += inner
            height = max(height, below)
        self.sizes[id(value)] = (value, size, height + 1)
        return size, height + 1


def _names_of(value: Any) -> set[str]:
    """The names that the texts of a tree use."""
    found: set[str] = set()
    seen: set[int] = set()
    rest = [value]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            found |= names_in(value)
        elif isinstance(value, dict | list) and id(value) not in seen:
            seen.add(id(value))
            rest.extend(value.values() if isinstance(value, dict) else value)
    return found


def _cycle_problem(params: MarkedDict, cycle: list[str]) -> Problem:
    order = {name: i for i, name in enumerate(params)}
    first = min(range(len(cycle)), key=lambda i: order[cycle[i]])
    names = cycle[first:] + cycle[:first]
    shown = [*names, names[0]]
    if len(shown) > 12:
        shown = [*shown[:6], "...", *shown[-5:]]
    message = f"params may not need themselves, but here is a cycle: {' -> '.join(shown)}."
    return Problem(message, params.value_positions.get(names[0]), format_path(("params", names[0])))


# ---------------------------------------------------------------------------------------------------------- parsing

_MARK = re.compile(r"\$(\$|\(|[^\W\d]\w*)?")
_BRACKET_OR_STRING = re.compile(r"""[()]|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_SPACE = str.maketrans("\t\n\r\f\v", "     ")


@dataclass(frozen=True, eq=False)
class _Template:
    """One template of a text.

    Attributes:
        text: The expression, without its `$` and brackets.
        offset: Of its first character in the whole text.
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
def _parts(text: str) -> tuple[str | _Template, ...]:
    """A text taken apart into what stands there as it is, and templates."""
    parts: list[str | _Template] = []
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
            parts.append(_Template(what, match.start() + 1, match.start(), name, frozenset([what])))
    plain += text[index:]
    if plain or not parts:
        parts.append(plain)
    return tuple(parts)


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


def _parse(text: str, offset: int, start: int) -> _Template:
    if not text.strip():
        raise ExpressionError("expected an expression between the brackets.", offset)
    try:
        with warnings.catch_warnings():
            # Python warns of odd literals; what they are worth here is said below.
            warnings.simplefilter("ignore")
            tree = ast.parse(f"({text.translate(_SPACE)}\n)", mode="eval").body
    except SyntaxError as error:
        column = (error.offset or 1) - 2 if error.lineno == 1 else len(text)
        reason = error.msg.removesuffix(" (detected at line 1)").split(". Perhaps")[0].rstrip(".?")
        hint = "Inside $(...) names stand without a '$'." if "$" in text else _HINT
        place = offset + min(max(column, 0), len(text))
        raise ExpressionError(f"this is no expression: {reason}.", place, hint) from None
    except (ValueError, OverflowError):
        raise ExpressionError("this is no expression: it holds a character that may not be there.", offset) from None
    except (RecursionError, MemoryError):
        raise ExpressionError(f"an expression may be nested {MAX_NESTING} deep, this one is deeper.", offset) from None
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called}
    return _Template(text, offset, start, tree, frozenset(used))


# -------------------------------------------------------------------------------------------------------- evaluation


class _UnknownName(ExpressionError):
    """A name that is not known."""

    name = ""


def _unknown(name: str, known: Iterable[str], offset: int) -> ExpressionError:
    if name in FUNCTIONS:
        return ExpressionError(f"'{name}' is a function.", offset, f"Write '{name}(...)'.")
    error = _UnknownName(f"there is no name '{name}' here.", offset, _similar(name, known))
    error.name = name
    return error


def _similar(name: str, known: Iterable[str]) -> str:
    written = {"true": "True", "false": "False", "null": "None", "none": "None"}.get(name)
    return f"Write '{written}'." if written else did_you_mean(name, known)


def _value(template: _Template, names: Mapping[str, Any]) -> Any:
    if isinstance(template.tree, ast.Name):
        name = template.tree.id
        try:
            return names[name]
        except KeyError:
            raise _unknown(name, names, template.offset_of(template.tree)) from None
    return _Evaluation(template, names).visit(template.tree, 0)


def _written(template: _Template, names: Mapping[str, Any]) -> str:
    """A value as it is written inside a longer text."""
    value = _value(template, names)
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return _word(value)
    if isinstance(value, int | float):
        try:
            return str(value)
        except ValueError:
            raise ExpressionError("this number is too long to be written out.", template.start) from None
    message = f"{_kind(value)} may not stand inside a longer text."
    raise ExpressionError(message, template.start, "Make the template the whole value.")


def _word(value: bool | None) -> str:
    return "null" if value is None else "true" if value else "false"


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, bool):
        return str(value)
    for types, name in ((int | float, "a number"), (str, "text"), (list | tuple, "a list"), (dict, "a mapping")):
        if isinstance(value, types):
            return name
    return f"a {type(value).__name__}"


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"'{value[:40]}'"
    if isinstance(value, int) and abs(value) > MAX_INT:
        return "a large number"
    return str(value) if isinstance(value, int | float) else _kind(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0 and abs(base) > 1:
        # |base| >= 2 ** (bits - 1): tells that the result is too large without computing it.
        if (abs(base).bit_length() - 1) * exponent > MAX_INT.bit_length():
            raise OverflowError
        return base**exponent
    result = base**exponent
    if isinstance(result, complex):
        raise ValueError("the result is no real number")
    return result


def _round(value: Any, digits: Any = None) -> Any:
    if digits is None:
        return round(value)
    if not isinstance(digits, int) or abs(digits) > 15:
        raise ValueError("the number of digits must be a whole number from -15 to 15")
    return round(value, digits)


def _one_number(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def apply(value: Any) -> Any:
        if not _is_number(value):
            raise TypeError
        return function(value)

    return apply


def _extreme(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(*values: Any) -> Any:
        given = values[0] if len(values) == 1 and isinstance(values[0], list | tuple) else values
        if not given:
            raise ValueError("it wants at least one value")
        if not (all(_is_number(value) for value in given) or all(isinstance(value, str) for value in given)):
            raise TypeError
        return function(given)

    return apply


def _convert(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def apply(value: Any) -> Any:
        if not isinstance(value, int | float | str):
            raise TypeError
        try:
            return function(value)
        except ValueError:
            raise ValueError(f"{_shown(value)} is no number") from None

    return apply


def _length(value: Any) -> int:
    if not isinstance(value, str | list | tuple | dict):
        raise TypeError
    return len(value)


def _text(value: Any) -> str:
    if isinstance(value, dict | list | tuple):
        raise TypeError
    return _word(value) if value is None or isinstance(value, bool) else str(value)


FUNCTIONS: Mapping[str, tuple[Callable[..., Any], int, int]] = {
    # name: (function, fewest arguments, most arguments)
    "abs": (_one_number(abs), 1, 1),
    "ceil": (_one_number(math.ceil), 1, 1),
    "float": (_convert(float), 1, 1),
    "floor": (_one_number(math.floor), 1, 1),
    "int": (_convert(int), 1, 1),
    "len": (_length, 1, 1),
    "max": (_extreme(max), 1, 100),
    "min": (_extreme(min), 1, 100),
    "round": (_round, 1, 2),
    "str": (_text, 1, 1),
}

_BINARY: dict[type[ast.operator], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
    ast.FloorDiv: ("//", operator.floordiv),
    ast.Mod: ("%", operator.mod),
    ast.Pow: ("**", _power),
}
_COMPARISONS: dict[type[ast.cmpop], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.In: ("in", lambda a, b: a in b),
    ast.NotIn: ("not in", lambda a, b: a not in b),
}
_HINT = (
    "An expression has numbers, text, names, + - * / // % **, comparisons, 'and', 'or', 'not', 'a if c else b', x[i], "
    f"lists, and the functions {', '.join(FUNCTIONS)}."
)


class _Evaluation:
    """One walk over the tree of an expression."""

    def __init__(self, template: _Template, names: Mapping[str, Any]) -> None:
        self.template, self.names = template, names

    def fail(self, node: ast.AST, message: str, hint: str = "") -> NoReturn:
        raise ExpressionError(message, self.template.offset_of(node), hint)

    def visit(self, node: ast.expr, depth: int) -> Any:
        if depth > MAX_NESTING:
            self.fail(node, f"an expression may be nested {MAX_NESTING} deep, this one is deeper.")
        method = _VISITS.get(type(node))
        if method is None:
            self.refuse(node)
        return method(self, node, depth + 1)

    def refuse(self, node: ast.AST) -> NoReturn:
        start = self.template.offset_of(node) - self.template.offset
        encoded = self.template.text.encode(errors="replace")
        stop = (getattr(node, "end_col_offset", None) or 1) - 1
        end = len(encoded[: max(stop, 0)].decode(errors="ignore"))
        shown = " ".join(self.template.text[start : end if end > start else None].split())[:40]
        self.fail(node, f"'{shown}' is not something that an expression may hold.", _HINT)

    def compute(self, node: ast.AST, what: str, values: Sequence[Any], function: Callable[..., Any]) -> Any:
        """Apply a function, and tell its failure as a mistake of the expression."""
        try:
            result = function(*values)
        except ZeroDivisionError:
            self.fail(node, f"'{what}' would divide by zero.")
        except OverflowError:
            self.fail(node, f"the result of '{what}' is too large.")
        except (TypeError, RecursionError):
            self.fail(node, f"'{what}' cannot take {' and '.join(_kind(value) for value in values)}.")
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

    # ---- one method for each kind of node

    def constant(self, node: ast.Constant, depth: int) -> Any:
        if node.value is not None and not isinstance(node.value, bool | int | float | str):
            self.refuse(node)
        return self.checked(node, "this number" if isinstance(node.value, int | float) else "this text", node.value)

    def name(self, node: ast.Name, depth: int) -> Any:
        try:
            return self.names[node.id]
        except KeyError:
            raise _unknown(node.id, self.names, self.template.offset_of(node)) from None

    def items(self, node: ast.List | ast.Tuple, depth: int) -> list[Any]:
        return [self.visit(item, depth) for item in node.elts]

    def unary(self, node: ast.UnaryOp, depth: int) -> Any:
        value = self.visit(node.operand, depth)
        if isinstance(node.op, ast.Not):
            return not value
        if isinstance(node.op, ast.Invert):
            self.refuse(node)
        sign, function = ("-", operator.neg) if isinstance(node.op, ast.USub) else ("+", operator.pos)
        return self.compute(node, sign, [value], _one_number(function))

    def binary(self, node: ast.BinOp, depth: int) -> Any:
        # A long sum nests on its left only: it is gone through in a loop, and is not deep to its writer.
        chain = [node]
        while isinstance(chain[-1].left, ast.BinOp):
            chain.append(chain[-1].left)
        value = self.visit(chain[-1].left, depth)
        for link in reversed(chain):
            if type(link.op) not in _BINARY:
                self.refuse(link)
            value = self.combine(link, value, self.visit(link.right, depth))
        return value

    def combine(self, node: ast.BinOp, left: Any, right: Any) -> Any:
        sign, function = _BINARY[type(node.op)]
        if _is_number(left) and _is_number(right):
            return self.compute(node, sign, [left, right], function)
        # Text and lists can be put together, and nothing else: '*' would repeat them, '%' would format.
        if sign == "+" and isinstance(left, str) and isinstance(right, str):
            return self.compute(node, sign, [left, right], operator.add)
        if sign == "+" and isinstance(left, list) and isinstance(right, list):
            return self.compute(node, sign, [left, right], lambda a, b: [*a, *b])
        self.fail(node, f"'{sign}' cannot take {_kind(left)} and {_kind(right)}.")

    def compare(self, node: ast.Compare, depth: int) -> bool:
        left = self.visit(node.left, depth)
        for op, item in zip(node.ops, node.comparators, strict=True):
            if type(op) not in _COMPARISONS:
                self.fail(item, "'is' is not something that an expression may hold.", "Write '==' or '!='.")
            right = self.visit(item, depth)
            sign, function = _COMPARISONS[type(op)]
            if not self.compute(node, sign, [left, right], function):
                return False
            left = right
        return True

    def logic(self, node: ast.BoolOp, depth: int) -> Any:
        stop = isinstance(node.op, ast.Or)
        value: Any = None
        for item in node.values:
            value = self.visit(item, depth)
            if bool(value) is stop:
                break
        return value

    def choice(self, node: ast.IfExp, depth: int) -> Any:
        return self.visit(node.body if self.visit(node.test, depth) else node.orelse, depth)

    def index(self, node: ast.Subscript, depth: int) -> Any:
        if isinstance(node.slice, ast.Slice):
            self.refuse(node.slice)
        value, key = self.visit(node.value, depth), self.visit(node.slice, depth)
        if isinstance(value, dict):
            if not isinstance(key, str):
                self.fail(node.slice, f"a key is text, got {_kind(key)}.")
            if key not in value:
                self.fail(node.slice, f"there is no key {_shown(key)} here.", did_you_mean(key, value))
            return value[key]
        if not isinstance(value, str | list | tuple):
            self.fail(node, f"{_kind(value)} has no items to choose from.")
        if isinstance(key, bool) or not isinstance(key, int):
            self.fail(node.slice, f"an index is a whole number, got {_kind(key)}.")
        if not -len(value) <= key < len(value):
            self.fail(node.slice, f"there is no item {_shown(key)}: there are {len(value)}, counted from 0.")
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
            wanted = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            self.fail(node, f"'{name}' takes {wanted} values, got {len(values)}.")
        return self.compute(node, name, values, function)


_VISITS: dict[type[ast.expr], Callable[[_Evaluation, Any, int], Any]] = {
    ast.BinOp: _Evaluation.binary,
    ast.BoolOp: _Evaluation.logic,
    ast.Call: _Evaluation.call,
    ast.Compare: _Evaluation.compare,
    ast.Constant: _Evaluation.constant,
    ast.IfExp: _Evaluation.choice,
    ast.List: _Evaluation.items,
    ast.Name: _Evaluation.name,
    ast.Subscript: _Evaluation.index,
    ast.Tuple: _Evaluation.items,
    ast.UnaryOp: _Evaluation.unary,
}
