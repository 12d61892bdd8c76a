"""Collecting the mistakes of a spec: each gets its place in the file, and none stops the search for the next."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hiresnet_graph.errors import ExpressionError, Position, Problem, Related, SpecError, did_you_mean
from hiresnet_graph.registry import Kind, KindError, Registry
from hiresnet_graph.spec.source import MarkedDict, format_path, key_position_at, position_at, position_in

Path = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)
_TEMPLATE = re.compile(r"\$(?:\w+|\(.*?\)+)")


class Problems:
    """The mistakes found so far in one tree.

    Args:
        tree: The whole spec, with the positions of its values.
    """

    def __init__(self, tree: Any) -> None:
        self.tree = tree
        self.found: list[Problem] = []
        self._seen: set[tuple[str, str]] = set()

    def position(self, path: Sequence[str | int]) -> Position | None:
        """Where the value at a path stands."""
        return position_at(self.tree, path)

    def add(
        self, path: Path, message: str, hint: str = "", *, offset: int = 0, key: bool = False, tree: Any = None
    ) -> None:
        """Note a mistake at a path.

        Args:
            path: Of a value in the spec.
            offset: The character of the value (a text) where the mistake is.
            key: The mistake is the key, not the value.
            tree: What holds the last part of the path, where that is not (or no longer) found in the spec's tree.
        """
        at = key_position_at if key else position_at
        position = at(tree, path[-1:]) if tree is not None else None
        position = position or at(self.tree, path)
        if position is not None and offset:
            position = position_in(position, str(_at(self.tree, path)), offset)
        self.note(Problem(message, position, format_path(path), hint))

    def note(self, problem: Problem) -> None:
        """Note a mistake that knows its place; the same one twice counts once."""
        if related := self._params_set_elsewhere(problem.position):
            problem = replace(problem, related=(*problem.related, *related))
        mark = (str(problem.position or problem.path), problem.message)
        if mark not in self._seen:
            self._seen.add(mark)
            self.found.append(problem)

    def _params_set_elsewhere(self, position: Position | None) -> tuple[Related, ...]:
        """Positions of the params of a template that are set outside its file: by an override or an extension."""
        params = self.tree.get("params") if isinstance(self.tree, MarkedDict) else None
        if position is None or not isinstance(params, MarkedDict):
            return ()
        for template in _TEMPLATE.finditer(position.source.line(position.line)):
            if template.start() < position.column <= template.end():
                positions = {name: params.value_positions.get(name) for name in re.findall(r"\w+", template[0])}
                return tuple(
                    Related(f"'{name}' is set", at)
                    for name, at in positions.items()
                    if at and at.source != position.source
                )
        return ()

    def expression(self, path: Path, error: ExpressionError) -> None:
        """Note a mistake inside an expression."""
        self.add(path, _sentence(error.message), error.hint, offset=error.offset)

    def absorb(self, error: SpecError) -> None:
        """Note all mistakes of an error that was raised further in."""
        for problem in error.problems:
            self.note(problem)

    def raise_if_any(self) -> None:
        """Stop if there are mistakes.

        Raises:
            SpecError: With all of them, in the order of the file.
        """
        if self.found:
            raise SpecError(self.found)

    def model(self, model: type[M], value: Any, path: Path, beside: Sequence[str] = ()) -> M | None:
        """A pydantic model of the value at a path, or None after its mistakes are noted.

        Args:
            beside: Further keys that may stand there, for hints.
        """
        if not isinstance(value, dict):
            self.add(path, f"this wants a mapping, not {_shown(value)}.")
            return None
        try:
            return model.model_validate(value)
        except ValidationError as error:
            self.validation(error, value, path, model, beside)
            return None

    def validation(
        self, error: ValidationError, value: Any, path: Path, model: type[BaseModel], beside: Sequence[str] = ()
    ) -> None:
        """Note the mistakes that pydantic found."""
        branches: dict[Path, list[Any]] = {}
        for detail in error.errors(include_url=False):
            inner = (detail.get("ctx") or {}).get("error")
            place = _inside(value, detail)
            if isinstance(inner, KindError):
                self.validation(inner.error, _at(value, place), path + place, inner.kind)
            else:
                branches.setdefault(place, []).append(detail)
        for place, details in branches.items():
            if any(len(other) > len(place) and other[: len(place)] == place for other in branches) and place:
                continue  # another form of the value is meant, and what is wrong with it is told further in
            kind, given = details[0]["type"], details[0]["input"]
            key = str(details[0]["loc"][-1]) if details[0]["loc"] else ""
            holder = _at(value, place[:-1]) if place else value
            add = partial(self.add, path + place, tree=holder if place else None)
            inner = (details[0].get("ctx") or {}).get("error")
            if kind == "extra_forbidden":
                add(f"unknown key '{key}'.", did_you_mean(key, [*known_keys(model), *beside]), key=True)
            elif kind == "missing":
                add(f"the key '{key}' is missing.")
            elif inner is not None:
                add(_sentence(str(inner)))
            else:
                told = " or ".join(dict.fromkeys(wanted(detail) for detail in details))
                add(f"this wants {told}, not {_shown(given)}.")

    def mended(self, model: type[M], value: Mapping[str, Any], path: Path, stand_ins: Mapping[str, Any]) -> M | None:
        """As `model`, but wrong keys are left out once their mistakes are noted, so that the rest can be looked at too.

        Args:
            stand_ins: What to put for keys that are wrong or missing and cannot be left out.
        """
        try:
            return model.model_validate(value)
        except ValidationError as error:
            self.validation(error, value, path, model)
            wrong = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
        kept = {key: item for key, item in value.items() if key not in wrong}
        try:
            return model.model_validate({**{k: v for k, v in stand_ins.items() if k in wrong}, **kept})
        except ValidationError:
            return None

    def kind(
        self,
        registry: Registry[Any],
        name: object,
        fields: dict[str, Any],
        path: Path,
        name_path: Path,
        beside: Sequence[str] = (),
    ) -> Kind | None:
        """A registered kind with these fields, or None after its mistakes are noted; `beside` as for `model`."""
        if not isinstance(name, str):
            self.add(name_path, f"this wants the name of a {registry.family}, not {_shown(name)}.")
            return None
        if name not in registry:
            self.add(name_path, f"there is no {registry.family} '{name}'.", did_you_mean(name, registry))
            return None
        found: Kind | None = self.model(registry.get(name), fields, path, beside)
        return found


def known_keys(model: type[BaseModel]) -> list[str]:
    """The keys that a mapping for this model may have."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_WANTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}


def wanted(detail: Any) -> str:
    """What must hold where pydantic found something else, as a noun: `a whole number`."""
    kind, ctx = detail["type"], detail.get("ctx") or {}
    if kind == "literal_error":
        return str(ctx["expected"])
    if kind in ("too_long", "too_short") and "tuple" in str(detail["loc"][-1]):
        return f"a list of {ctx.get('max_length', ctx.get('min_length'))}"
    if kind in ("too_long", "too_short") and "actual_length" in ctx:
        most, least = ctx.get("max_length"), ctx.get("min_length")
        return f"a list of at most {most}" if least is None else f"a list of at least {least}"
    if kind == "missing":
        return "a longer list"
    for key, words in (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than")):
        if key in ctx:
            limit = ctx[key]
            return f"a number of {words} {int(limit) if limit == int(limit) else limit:,}"
    return _WANTED.get(kind, f"something else ({detail['msg'][0].lower()}{detail['msg'][1:]})")


def _inside(value: Any, detail: Any) -> Path:
    """The part of a pydantic location that is a path in the data; the rest names branches of unions."""
    path: list[str | int] = []
    loc = detail["loc"]
    for i, part in enumerate(loc):
        try:
            value = value[part]
        except (LookupError, TypeError):
            if isinstance(value, dict) and i == len(loc) - 1 and detail["type"] == "missing":
                path.append(part)
            continue
        path.append(part)
    return tuple(path)


def _at(value: Any, path: Path) -> Any:
    for part in path:
        value = value[part]
    return value
