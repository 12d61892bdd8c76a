"""Collecting the errors of a spec: each gets its position in the file, and none stops the search for the next."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from hiresnet_graph.errors import (
    MAX_PROBLEMS,
    ExpressionError,
    Position,
    Problem,
    Related,
    SpecError,
    did_you_mean,
    similar,
)
from hiresnet_graph.formats import as_sentence
from hiresnet_graph.registry import Kind, KindError, Registry
from hiresnet_graph.spec.expression import Unknown
from hiresnet_graph.spec.marked import MarkedDict, format_path, key_position_at, position_at, position_in

Path = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)
_MAX_EQUAL = 10
"""The number of errors with one message that are reported; further ones are counted."""
_TEMPLATE = re.compile(r"\$(?:\w+|\(.*?\)+)")


class Problems:
    """The errors found so far in one tree.

    Args:
        tree: The full spec, with the positions of its values.
        is_partial: Missing keys are no errors, since they may be given elsewhere.

    Attributes:
        omitted: The number of errors beyond the limits, which have no position.
    """

    def __init__(self, tree: Any, *, is_partial: bool = False) -> None:
        self.tree, self.is_partial = tree, is_partial
        self.found: list[Problem] = []
        self.omitted = 0
        self._seen: set[tuple[str, str]] = set()
        self._equal: Counter[str] = Counter()

    def position(self, path: Sequence[str | int]) -> Position | None:
        """The position of the value at a path."""
        return position_at(self.tree, path)

    def add(
        self, path: Path, message: str, hint: str = "", *, offset: int = 0, key: bool = False, tree: Any = None
    ) -> None:
        """Report an error at a path.

        Args:
            path: Of a value in the spec.
            offset: The character of the value (a text) where the error is.
            key: The error is in the key, not in the value.
            tree: What holds the last part of the path, if that is not (or no longer) part of the spec's tree.
        """
        if self._is_full(message):
            self.omitted += 1
            return
        at = key_position_at if key else position_at
        position = at(tree, path[-1:]) if tree is not None else None
        position = position or at(self.tree, path)
        if position is not None and offset:
            position = position_in(position, str(_at(self.tree, path)), offset)
        self.report(Problem(message, position, format_path(path), hint))

    def report(self, problem: Problem) -> None:
        """Report an error that has its position; duplicates, and all uses of a wrong param, count once."""
        if self._is_full(problem.message):
            self.omitted += 1
            return
        if related := self._params_set_elsewhere(problem.position):
            problem = replace(problem, related=(*problem.related, *related))
        mark = (" ".join(map(str, related)) or str(problem.position or problem.path), problem.message)
        if mark not in self._seen:
            self._seen.add(mark)
            self._equal[problem.message] += 1
            self.found.append(problem)

    def _is_full(self, message: str) -> bool:
        """Whether no more errors are reported with this message. Positions are computed only for those that are."""
        return self._equal[message] >= _MAX_EQUAL or len(self.found) >= MAX_PROBLEMS

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
        """Report an error inside an expression."""
        self.add(path, as_sentence(error.message), error.hint, offset=error.offset)

    def absorb(self, error: SpecError) -> None:
        """Report all errors of an exception raised further in."""
        for problem in error.problems:
            self.report(problem)
        self.omitted += error.omitted

    def raise_if_any(self) -> None:
        """Stop if there are errors.

        Raises:
            SpecError: With all of them, in the order of the file.
        """
        if self.found:
            raise SpecError(self.found, self.omitted)

    def model(self, model: type[M], value: Any, path: Path, beside: Sequence[str] = ()) -> M | None:
        """A pydantic model of the value at a path, or None after its errors are reported.

        Args:
            beside: Other keys that the value may have, for hints.
        """
        if isinstance(value, Unknown):
            return None
        if not isinstance(value, dict):
            self.add(path, f"expected a mapping, got {_shown(value)}.")
            return None
        try:
            return model.model_validate(value)
        except ValidationError as error:
            self.validation(error, value, path, model, beside)
            return None

    def validation(
        self,
        error: ValidationError,
        value: Any,
        path: Path = (),
        model: type[BaseModel] | None = None,
        beside: Sequence[str] = (),
    ) -> None:
        """Report the errors that pydantic found in the value at a path; arguments as for `model`."""
        branches: dict[Path, list[Any]] = {}
        for detail in error.errors(include_url=False):
            inner = (detail.get("ctx") or {}).get("error")
            part = _inside(value, detail)
            if isinstance(inner, KindError):
                fields = None if value is None else _at(value, part)
                self.validation(inner.error, fields, path + part, inner.kind)
            elif detail["type"] in ("extra_forbidden", "missing") or not _has_unknown(detail["input"]):
                branches.setdefault(part, []).append(detail)
        unknown = {part: str(part[-1]) for part, found in branches.items() if found[0]["type"] == "extra_forbidden"}
        hints = {part: _known_hint(key, model, branches[part][0]["loc"], beside) for part, key in unknown.items()}
        outer = {part[:end] for part in branches for end in range(1, len(part))}
        for part, details in branches.items():
            if part in outer:
                continue  # another branch of a union matches better, and its errors are further in
            holder = _at(value, part[:-1]) if part and value is not None else None
            add = partial(self.add, path + part, tree=holder)
            inners = ((detail.get("ctx") or {}).get("error") for detail in details)
            inner = next((error for error in inners if error is not None), None)
            key = str(details[0]["loc"][-1]) if details[0]["loc"] else ""
            if details[0]["type"] == "extra_forbidden":
                add(f"unknown key '{key}'.", hints[part], key=True)
            elif details[0]["type"] == "missing":
                if not self.is_partial and not any(f"'{key}'" in hint for hint in hints.values()):
                    add(f"the key '{key}' is missing.", _misspelt_hint(key, holder, model))
            elif inner is not None:
                add(as_sentence(str(inner)))
            else:
                expected = " or ".join(dict.fromkeys(_expected(detail) for detail in details))
                hint = _value_hint(details, key)
                add(f"expected {expected}, got {_shown(details[0]['input'])}.", hint)

    def repaired(
        self, model: type[M], value: Mapping[str, Any], path: Path, replacements: Mapping[str, Any]
    ) -> M | None:
        """As `model`, but without the invalid keys once their errors are reported, so that the rest can be checked.

        Args:
            replacements: Values of required keys that are invalid or missing.
        """
        try:
            return model.model_validate(value)
        except ValidationError as error:
            self.validation(error, value, path, model)
            invalid = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
        valid = {key: item for key, item in value.items() if key not in invalid}
        try:
            return model.model_validate({**{k: v for k, v in replacements.items() if k in invalid}, **valid})
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
        """A registered kind with these fields, or None after its errors are reported; `beside` as for `model`."""
        if not isinstance(name, str):
            self.add(name_path, f"expected the name of a {registry.family}, got {_shown(name)}.")
            return None
        if name not in registry:
            self.add(name_path, f"there is no {registry.family} '{name}'.", did_you_mean(name, registry))
            return None
        found: Kind | None = self.model(registry.get(name), fields, path, beside)
        return found


def explain(error: ValidationError, value: Any = None, model: type[BaseModel] | None = None) -> list[Problem]:
    """The errors that pydantic found, as sentences.

    Args:
        value: The data that were validated; with their positions, if they are marked.
        model: What they were validated as, for hints.
    """
    problems = Problems(value)
    problems.validation(error, value, (), model)
    return problems.found


def known_keys(model: type[BaseModel]) -> list[str]:
    """The keys that a mapping for this model may have."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _known_hint(key: str, model: type[BaseModel] | None, location: Path, beside: Sequence[str]) -> str:
    """A hint at a key that the mapping with this unknown key may have."""
    owner = _model_at(model, location[:-1])
    known = [] if owner is None else known_keys(owner)
    return did_you_mean(key, [*known, *(beside if owner is model else ())])


def _model_at(model: type[BaseModel] | None, location: Path) -> type[BaseModel] | None:
    """The model of the value at a location that pydantic gives, in which names of models stand for branches."""
    for part in location:
        fields = {} if model is None else {field.alias or name: field for name, field in model.model_fields.items()}
        if part not in fields:
            continue
        inside = list(_models_in(fields[part].annotation))
        named = [inner for inner in inside if inner.__name__ in location]
        model = next(iter(named or inside), None)
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in the annotation of a field."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _has_unknown(value: object) -> bool:
    if isinstance(value, dict | list | tuple):
        return any(map(_has_unknown, value.values() if isinstance(value, dict) else value))
    return isinstance(value, Unknown)


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}


_YES, _NO = ("on", "yes", "y", "true"), ("off", "no", "n", "false")


def _misspelt_hint(key: str, holder: object, model: type[BaseModel] | None) -> str:
    """Which key of a mapping may stand for a missing one: of blocks, whose further keys depend on their kind."""
    known = model.model_fields if model is not None else {}
    given = holder if isinstance(holder, Mapping) else {}
    near = next((name for name in given if name not in known and similar(str(name), [key])), None)
    return "" if near is None else f"Did you mean '{key}' instead of '{near}'?"


def _value_hint(details: Sequence[Any], key: str) -> str:
    """What to write instead of a value of another type, or of another name; empty if that is not known."""
    value, expected = (
        details[0]["input"],
        " ".join(str((detail.get("ctx") or {}).get("expected")) for detail in details),
    )
    if isinstance(value, str):
        name = similar(value, re.findall(r"'([^']+)'", expected))
        if "true or false" in map(_expected, details) and (word := value.lower()) in (*_YES, *_NO):
            return f"Write {'true' if word in _YES else 'false'}: in YAML 1.2, '{value}' is a text."
        is_number = any(_expected(one) in ("a number", "a whole number") for one in details)
        if is_number and re.search(r"\w\s*[-+*/]", value):
            return f"Write '$({value})'."
        return f"Did you mean '{name}'?" if name else ""
    if isinstance(value, float) and value.is_integer() and any(_expected(one) == "a whole number" for one in details):
        return f"Write {int(value)}, or in a template 'round(...)' or '//'."
    if key == "input" and isinstance(value, list) and len(value) == 3:
        return "Write '{{channels: {}, height: {}, width: {}}}'.".format(*value)
    if key == "gate" and isinstance(value, bool):
        return "A gate is the name of a node, whose output multiplies the value; 'scale: gate' is a learned one."
    return ""


def _expected(detail: Any) -> str:
    """What pydantic expected, as a noun: `a whole number`."""
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
    for key, words in (("ge", "of at least"), ("gt", "greater than"), ("le", "of at most"), ("lt", "less than")):
        if key in ctx:
            limit = ctx[key]
            return f"a number {words} {int(limit) if limit == int(limit) else limit:,}"
    return _EXPECTED.get(kind, f"something else ({detail['msg'][0].lower()}{detail['msg'][1:]})")


def _inside(value: Any, detail: Any) -> Path:
    """The part of a pydantic location that is a path in the data; the rest names branches of unions."""
    loc: Path = detail["loc"]
    if value is None:
        return loc
    path: list[str | int] = []
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
