"""The fields that the parts of a study set: none may be set twice, since rows would have labels of other networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.errors import Problem, Related
from hiresnet_graph.spec.marked import format_path, key_position_at
from hiresnet_graph.spec.problems import Problems
from hiresnet_graph.sweep.controls import ADJUSTED, Control
from hiresnet_graph.sweep.study import Study
from hiresnet_graph.sweep.variants import NO_CHANGES, StudyPath, edge_set_key, entries_of, is_as_it_is
from hiresnet_graph.train.recipe import Recipe

_SHOWN = 3


class Assignment(NamedTuple):
    """A field that is set, as an address in the spec or below `recipe`, and where the study sets it."""

    field: tuple[str, ...]
    path: StudyPath


def setting_name(arch: Architecture, key: str) -> str:
    """A key of a grid or a search space as settings name it: fields of the recipe get the prefix `recipe.`."""
    field = key.removeprefix("recipe.")
    params = arch.tree.get("params")
    is_param = isinstance(params, dict) and key in params
    return f"recipe.{field}" if field in Recipe.model_fields and not is_param else key


def check_assignments(
    study: Study, arch: Architecture, controls: Iterable[tuple[StudyPath, Control]], problems: Problems
) -> None:
    """Report each field that two parts of a study set where only one of them can have an effect.

    A variant may deviate from `changes`, but not every variant; the grid may deviate neither from them nor from the
    recipe, and a variant of the spec is overridden by both.
    """
    check = _Check(study, arch, problems)
    changes = check.assignments(study.changes, ("changes",))
    crossed = [*check.assignments(study.grid, ("grid",)), *check.searched()]
    recipe = [Assignment(("recipe", name), ("recipe", name)) for name in sorted(study.recipe.model_fields_set)]
    check.within(changes)
    check.within(crossed)
    check.between(crossed, [*changes, *recipe])
    variants = check.variants()
    for own, _ in variants:
        check.within(own)
    of_variants = [assignment for own, of_spec in variants for assignment in (*own, *of_spec)]
    check.between(crossed, [*of_variants, *check.edge_sets(controls)])
    check.between(changes, [assignment for _, of_spec in variants for assignment in of_spec])
    check.without_effect(changes, [own for own, _ in variants])


class _Check:
    """The comparison of the assignments of one study."""

    def __init__(self, study: Study, arch: Architecture, problems: Problems) -> None:
        self._study, self._arch, self._problems = study, arch, problems
        key = edge_set_key(study.group)
        self._edges = arch.address(key) or tuple(key.split("."))

    def assignments(self, fields: Mapping[str, Any], path: StudyPath) -> list[Assignment]:
        """The assignments of keys like those of `changes`; keys that name nothing are reported elsewhere."""
        found = []
        for key, value in fields.items():
            name = setting_name(self._arch, key)
            field = tuple(name.split(".")) if name.startswith("recipe.") else self._arch.address(name)
            values = value if isinstance(value, list | tuple) else [value]
            leaves = dict.fromkeys(leaf for item in values for leaf in _leaves(field, item)) if field else ()
            found += [Assignment(leaf, (*path, key)) for leaf in leaves]
        return found

    def searched(self) -> list[Assignment]:
        """The assignments of the search space."""
        space = self._study.search.space if self._study.search is not None else {}
        path = ("search", "space")
        edges = [Assignment(self._edges, (*path, "edges"))] if "edges" in space else []
        return [*edges, *self.assignments({key: space[key] for key in space if key not in ("edges", "prune")}, path)]

    def variants(self) -> list[tuple[list[Assignment], list[Assignment]]]:
        """The assignments of each variant of the study, and those of the variant of the spec from which it starts."""
        found = []
        for path, _, value in entries_of(self._study.variants or ()):
            name, own = value, list[Assignment]()
            if isinstance(value, Mapping):
                name = value.get("variant")
                own = self.assignments({k: v for k, v in value.items() if k not in NO_CHANGES}, path)
                if value.get("edges") is not None:
                    own.append(Assignment(self._edges, (*path, "edges")))
            elif value not in self._arch.variants and not is_as_it_is(self._arch, value):
                own = [Assignment(self._edges, path)]
            is_of_spec = isinstance(name, str) and name in self._arch.variants
            changes = _leaves((), self._arch.variant_changes(name)) if is_of_spec else ()
            found.append((own, [Assignment(leaf, path) for leaf in changes if leaf]))
        return found

    def edge_sets(self, controls: Iterable[tuple[StudyPath, Control]]) -> list[Assignment]:
        """The edge sets that a subset rule and random controls choose."""
        found = [Assignment(self._edges, ("subsets",))] if self._study.subsets is not None else []
        return [*found, *(Assignment(self._edges, path) for path, control in controls if control.kind != ADJUSTED)]

    def within(self, assignments: list[Assignment]) -> None:
        """Report fields that are set twice in one part of the study."""
        for i, own in enumerate(assignments):
            self.between([own], [other for other in assignments[:i] if other.path != own.path])

    def between(self, assignments: list[Assignment], others: list[Assignment]) -> None:
        """Report each of the first that sets a field of the others."""
        found: dict[StudyPath, tuple[str, list[StudyPath]]] = {}
        for own in assignments:
            for other in others:
                if _overlap(own.field, other.field):
                    field = ".".join(own.field if len(own.field) > len(other.field) else other.field)
                    paths = found.setdefault(own.path, (field, []))[1]
                    if other.path not in paths:
                        paths.append(other.path)
        for path, (field, places) in found.items():
            self._report(path, field.removeprefix("nodes.").removeprefix("recipe."), places)

    def without_effect(self, changes: list[Assignment], variants: list[list[Assignment]]) -> None:
        """Report changes of which every variant sets all fields."""
        effective = {
            change.path
            for change in changes
            for own in variants
            if not any(_holds(one.field, change.field) for one in own)
        }
        for path in dict.fromkeys(change.path for change in changes if variants):
            if path not in effective:
                message = f"every variant sets '{path[-1]}' itself, so that this value has no effect."
                is_edges = path[-1] == edge_set_key(self._study.group)
                hint = f"Leave it out{' (or --edges)' if is_edges else ''}, or add a variant that does not set it."
                self._problems.add(path, message, hint, key=True)

    def _report(self, path: StudyPath, field: str, others: list[StudyPath]) -> None:
        tree = self._study.tree
        names = [f"'{format_path(other)}'" for other in others]
        shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        message = f"'{field}' is set here and in {shown}, and only one value can have an effect."
        positions = [key_position_at(tree, other) for other in others[:_SHOWN]]
        related = tuple(Related(f"{name} is", at) for name, at in zip(names, positions, strict=False) if at)
        self._problems.report(
            Problem(message, key_position_at(tree, path), format_path(path), "Set it in one place.", related)
        )


def _overlap(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """Whether one address is that of the other, or of something that holds it."""
    return all(x == y for x, y in zip(a, b, strict=False))


def _holds(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """Whether the first address is the second one, or that of something that holds it."""
    return a == b[: len(a)]


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[tuple[str, ...]]:
    """The addresses that a value at an address sets: mappings are merged, so theirs are those of their items."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves((*path, str(key)), item)
    else:
        yield path
