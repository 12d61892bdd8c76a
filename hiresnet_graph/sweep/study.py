"""What a study says: the network, what is varied, and how it is trained. A file, or values in Python.

    name: does the long skip matter
    network: hiresnet18                  # a spec: its file, a shipped name, either with @VARIANT, or the spec itself
    changes: {width: 8}                  # as `key=value` on the command line
    variants: [none, full, full - p3]    # variants of the spec, or edge sets; or label -> changes, see `Variant`
    subsets: leave-one-out               # instead of variants: a rule over the edges of the group, or `family`
    group: long                          # the group that edge sets are about, if skips are in groups; or transitions
    controls: [adjusted]                 # see `controls`
    baseline: none                       # what the others are compared with; the first, if left out
    seeds: 5                             # 0 to 4; or a list; or {init: 5, data: [0]}: every pair
    grid: {lr: [0.01, 0.003]}            # every combination; fields of the recipe, params, or fields of the network
    data: cifar10                        # as `--data`, or {kind: cifar10, root: DIR}
    recipe: {epochs: 80}
    search: {space: {edges: full}}       # instead of variants, subsets and grid: see `search`

What it asks for is worked out by `plan_study`; here it is only read.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    NonNegativeInt,
    PositiveInt,
    PrivateAttr,
    field_validator,
)

from hiresnet_graph.architecture import Architecture, load
from hiresnet_graph.data import DatasetKind
from hiresnet_graph.errors import Position, Problem, Source, SpecError, UsageError, did_you_mean
from hiresnet_graph.shipped import study_names, study_path
from hiresnet_graph.spec.problems import Problems
from hiresnet_graph.spec.source import MarkedDict, MarkedList, merge, read, to_yaml
from hiresnet_graph.sweep.space import Search
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import Seeds

_SUFFIXES = (".yaml", ".yml", ".json")
# Stands for a network that is wrong or missing while other mistakes are looked for.
_STAND_IN = "hiresnet18"


class SeedLists(BaseModel):
    """Seeds of the initial weights, and seeds of the order of the images and their augmentation. Every pair is run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    init: PositiveInt | tuple[NonNegativeInt, ...]
    data: PositiveInt | tuple[NonNegativeInt, ...]


class Study(BaseModel):
    """What is compared, and how it is trained.

    Attributes:
        name: Of the study; that of the network, if left out.
        network: A network; or its spec, as a file, a shipped name (either with `@VARIANT` behind it) or a mapping.
        changes: Params or fields of the network that are changed, like `{"width": 8, "stage2.depth": 5}`.
        variants: Variants of the spec, and edge sets. Or label -> one of these, or label -> what is changed: `edges`
            (an edge set), `variant` (of the spec), and any keys of `changes`.
        subsets: Instead of variants, a rule: one of `RULES`, or `family`.
        group: The group of skips that edge sets are about, if the spec names its groups; or `transitions`.
        controls: `adjusted` (the baseline with its hidden channels widened to the parameters of the largest variant),
            `random-edges` (for each variant as many edges, drawn by chance); `adjusted:LABEL` and `random-edges:LABEL`
            for one variant. Or mappings: `{adjusted: [A, B]}`, `{random-edges: [A, B], draws: 3, seed: 0}`.
        baseline: Label of the variant that the others are compared with. The first, if left out; none, if subsets are
            drawn by chance.
        seeds: How many (0, 1, 2, ...), or which; or init and data apart.
        grid: What is crossed with all variants: a field of the recipe (`lr`, or `recipe.lr`) or a key of `changes` ->
            its values.
        data: As text or mapping.
        search: How a sampler chooses the networks, instead of variants, subsets, controls and a grid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    description: str = ""
    network: InstanceOf[Architecture] | str | dict[str, Any]
    changes: dict[str, Any] = Field(default_factory=dict)
    variants: tuple[str, ...] | dict[str, Any] | None = None
    subsets: str | None = None
    group: str | None = None
    controls: tuple[str | dict[str, Any], ...] = ()
    baseline: str | None = None
    seeds: PositiveInt | tuple[NonNegativeInt, ...] | SeedLists = 5
    grid: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    data: str | dict[str, Any] | InstanceOf[DatasetKind] = "digits"
    recipe: Recipe = Recipe()
    search: Search | None = None
    _tree: MarkedDict = PrivateAttr(default_factory=MarkedDict)

    @field_validator("seeds")
    @classmethod
    def _some_seeds(cls, value: Any) -> Any:
        for seeds in (value.init, value.data) if isinstance(value, SeedLists) else (value,):
            if seeds == ():
                raise ValueError("at least one seed is wanted")
            if isinstance(seeds, tuple) and len(set(seeds)) < len(seeds):
                raise ValueError("a seed is there twice")
        return value

    @property
    def tree(self) -> MarkedDict:
        """The file, with the places of its values; empty for a study made in Python."""
        return self._tree

    @property
    def seed_pairs(self) -> tuple[Seeds, ...]:
        """The seeds of each run of a network, in their order."""
        seeds = self.seeds
        if isinstance(seeds, SeedLists):
            return tuple(Seeds(*pair) for pair in itertools.product(_listed(seeds.init), _listed(seeds.data)))
        return tuple(Seeds(seed, seed) for seed in _listed(seeds))

    def base(self) -> Architecture:
        """The network, before its changes.

        Raises:
            SpecError: It cannot be found or read.
        """
        if isinstance(self.network, Architecture):
            return self.network
        if isinstance(self.network, dict):
            tree = self._tree.get("network", self.network)
            return Architecture(tree if isinstance(tree, MarkedDict) else _marked(tree, None))
        position = self._tree.value_positions.get("network")
        name, at, variant = self.network.rpartition("@")
        if not at or Path(self.network).exists():
            name, variant = self.network, ""
        try:
            network = load(_beside(name, position))
        except SpecError as error:
            first = error.problems[0]
            if position is None or first.position is None or first.position.source.text:
                raise
            # There is no such file, or it cannot be read: the study is what can be mended.
            fail(self, ("network",), f"'{name}': {first.message}", first.hint)
        if variant and variant not in network.variants:
            hint = did_you_mean(variant, network.variants) or "It has no variants."
            fail(self, ("network",), f"'{network.name}' has no variant '{variant}'.", hint)
        return network.variant(variant) if variant else network

    def patched(self, fields: Mapping[str, Any], source: str) -> Study:
        """The study with other fields; `None` takes one away, mappings are merged.

        Args:
            source: What says so, for messages: like `--seeds 3`.

        Raises:
            SpecError, UsageError: A field is wrong.
        """
        own = self._tree or _marked(self._written(), None)
        position = Position(Source("command line", source), 1, 1)
        said: MarkedDict = _marked(fields, position)
        for key, value in said.items():
            # The option that says it, if there is one of this name.
            at = position.shifted(max(0, source.find(f"--{key}")))
            said[key] = _marked(_plain(value), at)
            said.key_positions[key] = said.value_positions[key] = at
        return study_of(merge(own, said))

    def to_yaml(self) -> str:
        """The study as a file."""
        return to_yaml(self._tree or self._written())

    def _written(self) -> dict[str, Any]:
        """The fields that were given, as plain data."""
        data: dict[str, Any] = {}
        for key in type(self).model_fields:
            if key not in self.model_fields_set:
                continue
            value = getattr(self, key)
            if isinstance(value, Architecture):
                value = value.patched()
            elif isinstance(value, DatasetKind):
                value = value.as_data()
            elif isinstance(value, BaseModel):
                value = value.model_dump(mode="json", exclude_unset=True)
            data[key] = _plain(value)
        return data


def read_study(study: str | Path) -> Study:
    """The study of a file, or a shipped study by its name.

    Raises:
        SpecError: It cannot be found or read, or says what cannot be; with all mistakes.
    """
    return study_of(read(_find(str(study))))


def study_of(tree: MarkedDict) -> Study:
    """The study that a mapping says.

    Raises:
        SpecError: It says what cannot be; with all mistakes and their places.
        UsageError: The same, if nothing is known of places.
    """
    problems = Problems(tree)
    fields: dict[str, Any] = dict(tree)
    if isinstance(fields.get("recipe"), dict):
        fields["recipe"] = problems.repaired(Recipe, fields["recipe"], ("recipe",), {}) or Recipe()
    study = problems.repaired(Study, fields, (), {"network": _STAND_IN})
    if study is not None:
        study._tree = tree
        if problems.found:
            from hiresnet_graph.sweep.plan import note_mistakes

            note_mistakes(study, problems, _lost(tree, study))
    stop_if_any(problems)
    assert study is not None
    return study


def _lost(tree: MarkedDict, study: Study) -> frozenset[str]:
    """The keys that a file with mistakes meant to give, and that the study made of the rest does not have."""
    lost = {key for key in tree if key in Study.model_fields and key not in study.model_fields_set}
    for key in tree:
        if key not in Study.model_fields:
            lost.update(difflib.get_close_matches(key, Study.model_fields, n=1))
    return frozenset(lost if "network" in tree else {*lost, "network"})


def is_study(name: str) -> bool:
    """Whether a word of a command line means a study rather than a spec: a file says so by its key `network`.

    Raises:
        SpecError: It is a file that cannot be read.
    """
    if not (name.endswith(_SUFFIXES) or Path(name).is_file()):
        return study_path(name) is not None
    return Path(name).exists() and "network" in read(Path(name))


def stop_if_any(problems: Problems) -> None:
    """Stop if there are mistakes: those of a file with their places, those of a call as wrong usage."""
    if any(problem.position is not None for problem in problems.found):
        problems.raise_if_any()
    if problems.found:
        raise UsageError("\n".join(str(problem) for problem in problems.found))


def fail(study: Study, path: tuple[str | int, ...], message: str, hint: str = "") -> NoReturn:
    """Stop with one mistake of a study."""
    problems = Problems(study.tree)
    problems.add(path, message, hint)
    stop_if_any(problems)
    raise AssertionError


def _find(study: str) -> Path:
    if "/" in study or study.endswith(_SUFFIXES) or Path(study).is_file():
        return Path(study)
    shipped = study_path(study)
    if shipped is None:
        hint = did_you_mean(study, study_names()) or "'hrg list studies' lists them."
        message = f"there is no file and no shipped study '{study}'."
        raise SpecError([Problem(message, Position(Source(study, ""), 1, 1), hint=hint)])
    return shipped


def _beside(name: str, position: Position | None) -> str:
    """A spec's file as seen from the study's, if there is one; the name of a shipped spec as it is."""
    if position is not None and Path(position.source.name).suffix in _SUFFIXES:
        beside = Path(position.source.name).parent / name
        if "/" in name or name.endswith(_SUFFIXES) or beside.is_file():
            return str(beside) if "/" in str(beside) else f"./{beside}"
    return name


def _listed(seeds: int | tuple[int, ...]) -> tuple[int, ...]:
    return seeds if isinstance(seeds, tuple) else tuple(range(seeds))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _marked(value: Any, position: Position | None) -> Any:
    """Plain data with one position for all of it."""
    if isinstance(value, MarkedDict | MarkedList):
        return value
    if isinstance(value, Mapping):
        places = {} if position is None else dict.fromkeys(value, position)
        items = {key: _marked(item, position) for key, item in value.items()}
        return MarkedDict(items, position, dict(places), dict(places))
    if isinstance(value, list | tuple):
        return MarkedList(
            (_marked(item, position) for item in value), position, [position] * len(value) if position else []
        )
    return value
