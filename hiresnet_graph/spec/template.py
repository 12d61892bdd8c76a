"""Templates in a tree: each text with `$` becomes its value, and params may use each other in any order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hiresnet_graph.errors import ExpressionError, Position, Problem, SpecError
from hiresnet_graph.spec.expression import Unknown, UnknownName, evaluate, names_in, similar_name, unknown_value
from hiresnet_graph.spec.marked import MarkedDict, format_path, position_at, position_in
from hiresnet_graph.spec.reader import MAX_DEPTH, MAX_VALUES

Path = Sequence[str | int]


def substitute(tree: Any, names: Mapping[str, Any], path: Path = (), position: Position | None = None) -> Any:
    """A tree of mappings, lists and texts with the templates in its values evaluated; positions stay.

    Parts without templates are shared with the given tree, which is not changed.

    Args:
        path: Of the tree in its spec, for the paths of problems.
        position: Of the tree in its file; used for a bare text, which does not know it.

    Raises:
        SpecError: With every template that cannot be evaluated.
    """
    substitution = _Substitution(names)
    new = substitution.value(tree, path, position)
    if substitution.problems:
        raise SpecError(substitution.problems)
    return new


def resolve_params(params: MarkedDict, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The values of params, which may use each other in any order.

    Args:
        params: As written, with templates.
        given: Other names that are known, like `in_width` in a block.

    Raises:
        SpecError: With every template that cannot be evaluated, every cycle and every number that is not finite, but
            not what depends on these.
    """
    names = {name: value for name, value in (given or {}).items() if name not in params}
    substitution = _Substitution(names, known=[*names, *params])
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
                count = len(substitution.problems)
                value = substitution.value(params[name], ("params", name), params.value_positions.get(name))
                if not _is_finite(value):
                    message = "a param requires finite numbers: JSON has no others."
                    substitution.problems.append(Problem(message, params.value_positions.get(name), f"params.{name}"))
                if len(substitution.problems) > count:
                    failed.add(name)
                else:
                    names[name] = value
            elif need in opened:
                members = list(opened)
                cycle = members[members.index(need) :]
                substitution.problems.append(_cycle_problem(params, cycle))
                failed.update(cycle)
            elif need not in done:
                opened[need] = iter(needs[need])
    if substitution.problems:
        raise SpecError(substitution.problems)
    return {name: names[name] for name in params}


def _is_finite(value: Any) -> bool:
    """Whether all numbers of a value are finite."""
    if isinstance(value, dict | list):
        return all(map(_is_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


class _Substitution:
    """One walk over a tree, which collects problems and counts the values that templates add."""

    def __init__(self, names: Mapping[str, Any], known: Sequence[str] | None = None) -> None:
        self.names = names
        self.known = known
        self.has_unknown = any(isinstance(value, Unknown) for value in names.values())
        self.problems: list[Problem] = []
        self.total = 0

    def value(self, value: Any, path: Path, position: Position | None) -> Any:
        if isinstance(value, str):
            return self.text(value, path, position) if "$" in value else value
        return self.container(value, path) if isinstance(value, dict | list) else value

    def container(self, data: Any, path: Path) -> Any:
        new: Any = None
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            if isinstance(value, str):
                if "$" not in value:
                    continue
                result = self.text(value, (*path, key), position_at(data, (key,)))
            elif isinstance(value, dict | list):
                result = self.container(value, (*path, key))
            else:
                continue
            if result is not value:
                new = data.copy() if new is None else new
                new[key] = result
        return data if new is None else new

    def text(self, text: str, path: Path, position: Position | None) -> Any:
        try:
            if self.has_unknown and (unknown := unknown_value(text, self.names)) is not None:
                return unknown
            value = evaluate(text, self.names)
            if isinstance(value, dict | list):
                self.count(value, len(path))
            return value
        except ExpressionError as error:
            at = None if position is None else position_in(position, text, error.offset)
            hint = error.hint
            if isinstance(error, UnknownName) and self.known is not None:
                hint = similar_name(error.name, self.known)
            self.problems.append(Problem(error.message, at, format_path(path), hint))
            return text

    def count(self, value: Any, depth: int) -> None:
        """Count the values of what a template gives, against the limits that files have."""
        self.total += 1
        if self.total > MAX_VALUES:
            raise ExpressionError(f"a spec holds at most {MAX_VALUES:,} values, with this one it would have more.")
        if isinstance(value, dict | list):
            if depth >= MAX_DEPTH:
                raise ExpressionError(f"values may be nested {MAX_DEPTH} deep, with this one they would be deeper.")
            for item in value.values() if isinstance(value, dict) else value:
                self.count(item, depth + 1)


def _names_of(value: Any) -> set[str]:
    """The names that the texts of a tree use."""
    found: set[str] = set()
    rest = [value]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            found |= names_in(value)
        elif isinstance(value, dict | list):
            rest.extend(value.values() if isinstance(value, dict) else value)
    return found


def _cycle_problem(params: MarkedDict, cycle: list[str]) -> Problem:
    order = {name: i for i, name in enumerate(params)}
    first = min(range(len(cycle)), key=lambda i: order[cycle[i]])
    names = cycle[first:] + cycle[:first]
    shown = [*names, names[0]]
    if len(shown) > 12:
        shown = [*shown[:6], "...", *shown[-5:]]
    message = f"params may not depend on themselves: {' -> '.join(shown)}."
    return Problem(message, params.value_positions.get(names[0]), format_path(("params", names[0])))
