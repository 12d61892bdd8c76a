"""A study: the network, its variants, and how they are trained. Written as a file, or in Python.

    name: does the long skip matter
    network: hiresnet18                  # a spec: its file or a shipped name (with @VARIANT), or the spec itself
    changes: {width: 8}                  # as `key=value` on the command line
    variants: [none, full, full - p3]    # variants of the spec, edge sets, its name; or label -> changes
    subsets: leave-one-out               # instead of variants: a rule over the edges of the group, or `family`
    prune: dead                          # leave out nodes that no input reaches; see the key of specs
    group: long                          # the group of edge sets, if the spec names groups; or transitions
    controls: [adjusted]                 # see `controls`
    baseline: none                       # what the others are compared with (default: the first)
    seeds: 5                             # 0 to 4; or a list; or {init: 5, data: [0]}: every pair
    grid: {lr: [0.01, 0.003]}            # every combination; fields of the recipe, params, or fields of the network
    data: cifar10                        # as `--data`, or {kind: cifar10, root: DIR}
    weights: runs/base                   # what the runs start from: a file, or the folder of a run
    reinit: true                         # initialise at random what does not fit
    recipe: {epochs: 80}
    published: {source: ..., values: [{label: none, mean: 89.15, std: 0.31, n: 5}]}   # see `published`
    search: {space: {edges: full}}       # instead of variants, subsets and grid: see `search`

Reading a study parses it and checks its fields; `prepare_study` and `plan_study` check everything else.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    PrivateAttr,
    field_validator,
)

from hiresnet_graph.architecture import Architecture, load, split_variant
from hiresnet_graph.data import DatasetKind, data_source
from hiresnet_graph.errors import Position, Problem, Source, SpecError, UsageError, did_you_mean
from hiresnet_graph.files import is_file
from hiresnet_graph.shipped import study_names, study_path
from hiresnet_graph.spec.marked import MarkedDict, marked, merge
from hiresnet_graph.spec.problems import Problems
from hiresnet_graph.spec.reader import SUFFIXES, read
from hiresnet_graph.spec.writer import to_yaml
from hiresnet_graph.sweep.published import Published
from hiresnet_graph.sweep.search_settings import RandomSeed, SearchSettings
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import Seeds

MAX_SEEDS = 10_000
"""Random seeds of one network."""
SeedCount = Annotated[int, Field(ge=1, le=MAX_SEEDS, strict=True)]
RunSeeds = Annotated[tuple[RandomSeed, ...], Field(max_length=MAX_SEEDS)]


class SeedLists(BaseModel):
    """Random seeds of the initial weights, and of data order and augmentation. Every pair is a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    init: SeedCount | RunSeeds
    data: SeedCount | RunSeeds


class Study(BaseModel):
    """The networks that are compared, and how they are trained.

    Attributes:
        name: Name of the study (default: that of the network).
        description: A sentence about it.
        network: A network; or its spec, as a file, a shipped name (both with an optional `@VARIANT`) or a mapping.
        changes: Changed params or fields of the network, like `{"width": 8, "stage2.depth": 5}`.
        variants: Variants of the spec, edge sets, and the name of the network, as it is. Or label -> one of these, or
            label -> a mapping of changes: `edges` (an edge set), `variant` (of the spec), and any keys of `changes`.
        subsets: Instead of variants, a rule: one of `RULES`, or `family`.
        prune: `dead` leaves out nodes that no input reaches or that reach no output, as the key of a spec.
        group: The group of skips that edge sets refer to, if the spec names its groups; or `transitions`.
        controls: `adjusted` (the baseline with its hidden channels widened to the parameters of the largest variant),
            `random-edges` (for each variant as many random edges); `adjusted:LABEL` and `random-edges:LABEL` for one
            variant. Or mappings: `{adjusted: [A, B]}`, `{random-edges: [A, B], draws: 3, seed: 0}`.
        baseline: Label of the variant that the others are compared with (default: the first; none for random subsets).
        seeds: The number of random seeds (0, 1, 2, ...), or a list of them; or separate ones for init and data.
        grid: Values crossed with all variants: a field of the recipe (`lr`, or `recipe.lr`) or a key of `changes` ->
            its values.
        data: The data set, as text or mapping.
        recipe: How every network is trained.
        weights: What all runs start from, instead of random weights: a safetensors file, a file of `torch.save` with
            tensors alone, or the folder of a run; relative to the study file. A variant in the form of a mapping may
            have its own, or `null` for random weights. A network may lack tensors of the file.
        reinit: Initialise at random what the file lacks or has in another shape, instead of an error.
        published: Published results of the same networks, for `hrg show` and `hrg report`; they affect no run.
        search: How a sampler chooses the networks, instead of variants, subsets, controls and a grid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    description: str = ""
    network: InstanceOf[Architecture] | str | dict[str, Any]
    changes: dict[str, Any] = Field(default_factory=dict)
    variants: tuple[str, ...] | dict[str, Any] | None = None
    subsets: str | None = None
    prune: Literal["dead"] | None = None
    group: str | None = None
    controls: tuple[str | dict[str, Any], ...] = ()
    baseline: str | None = None
    seeds: SeedCount | RunSeeds | SeedLists = 5
    grid: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    data: str | dict[str, Any] | InstanceOf[DatasetKind] = "digits"
    recipe: Recipe = Recipe()
    weights: str | None = None
    reinit: bool = False
    published: Published | None = None
    search: SearchSettings | None = None
    _tree: MarkedDict = PrivateAttr(default_factory=MarkedDict)
    _checks_rules: bool = PrivateAttr(default=True)

    @field_validator("seeds")
    @classmethod
    def _some_seeds(cls, value: Any) -> Any:
        for seeds in (value.init, value.data) if isinstance(value, SeedLists) else (value,):
            if seeds == ():
                raise ValueError("at least one seed is required")
            if isinstance(seeds, tuple) and len(set(seeds)) < len(seeds):
                raise ValueError("a seed is given twice")
        if isinstance(value, SeedLists) and len(_listed(value.init)) * len(_listed(value.data)) > MAX_SEEDS:
            raise ValueError(f"init and data make more than {MAX_SEEDS:,} pairs of seeds")
        return value

    def __repr__(self) -> str:
        return f"<Study {self.name or self.network} on {self.data}>"

    def _repr_html_(self) -> str:
        """The study file in a notebook."""
        return f"<pre>{html.escape(self.to_yaml())}</pre>"

    @property
    def tree(self) -> MarkedDict:
        """The file, with the positions of its values; empty for a study made in Python."""
        return self._tree

    @property
    def checks_rules(self) -> bool:
        """Whether each pattern of the recipe must match: not in a proposal of a search, which lacks edges."""
        return self._checks_rules

    @property
    def seed_pairs(self) -> tuple[Seeds, ...]:
        """The random seeds of the runs of each network, in order."""
        seeds = self.seeds
        if isinstance(seeds, SeedLists):
            return tuple(Seeds(*pair) for pair in itertools.product(_listed(seeds.init), _listed(seeds.data)))
        return tuple(Seeds(seed, seed) for seed in _listed(seeds))

    def base(self) -> Architecture:
        """The network, before its changes.

        Raises:
            SpecError: The spec cannot be found or read.
        """
        if isinstance(self.network, Architecture):
            return self.network
        if isinstance(self.network, dict):
            tree = self._tree.get("network", self.network)
            return Architecture(tree if isinstance(tree, MarkedDict) else marked(tree))
        position = self._tree.value_positions.get("network")
        name, variant = split_variant(self.network)
        try:
            network = load(_beside(name, position))
        except SpecError as error:
            first = error.problems[0]
            if position is None or first.position is None or first.position.source.text:
                raise
            # There is no such file, or it cannot be read: the error is in the study.
            fail(self, ("network",), f"'{name}': {first.message}", first.hint)
        if variant is not None and variant not in network.variants:
            hint = did_you_mean(variant, network.variants) or "It has no variants."
            fail(self, ("network",), f"'{network.name}' has no variant '{variant}'.", hint)
        return network if variant is None else network.variant(variant)

    def data_source(self) -> DatasetKind:
        """The data set of the study, not loaded yet.

        Raises:
            SpecError, UsageError: The data set is unknown, or one of its fields is wrong.
        """
        if isinstance(self.data, DatasetKind):
            return self.data
        try:
            return data_source(self.data)
        except UsageError as error:
            fail(self, ("data",), str(error).removeprefix("data: "))

    def patched(self, fields: Mapping[str, Any], source: str) -> Study:
        """The study with changed fields; `None` removes a field, mappings are merged.

        Args:
            source: The text of the changes for messages, like `--seeds 3`.

        Raises:
            SpecError, UsageError: A field is wrong.
        """
        own = self._tree or marked(self._written())
        position = Position(Source("command line", source), 1, 1)
        changes: MarkedDict = marked(fields, position)
        for key, value in changes.items():
            # The option of this name, if there is one.
            at = position.shifted(max(0, source.find(f"--{key}")))
            changes[key] = marked(_plain(value), at)
            changes.key_positions[key] = changes.value_positions[key] = at
        if fields.keys() & {"changes", "variants", "subsets", "group", "controls", "grid", "weights"}:
            own = own.without("published")  # its values may belong to other networks
        return study_of(merge(own, changes))

    def to_yaml(self) -> str:
        """The study as a file."""
        return to_yaml(self._tree or self._written())

    def _written(self) -> dict[str, Any]:
        """The fields that are set, as plain data."""
        data: dict[str, Any] = {}
        for key in type(self).model_fields:
            if key not in self.model_fields_set:
                continue
            value = getattr(self, key)
            if isinstance(value, Architecture):
                value = value.standalone()
            elif isinstance(value, DatasetKind):
                value = value.as_data()
            elif isinstance(value, BaseModel):
                value = value.model_dump(mode="json", exclude_unset=True)
            data[key] = _plain(value)
        return data


def read_study(study: str | Path) -> Study:
    """The study of a file, or a shipped study by its name.

    Raises:
        SpecError: It cannot be found or read, or fields are wrong; with all of these errors.
    """
    return study_of(read(_find(str(study))))


def study_of(tree: MarkedDict) -> Study:
    """The study of a mapping.

    Raises:
        SpecError: Fields are wrong; with all errors and their positions.
        UsageError: The same, if the mapping has no positions.
    """
    problems = Problems(tree)
    fields: dict[str, Any] = dict(tree)
    if isinstance(fields.get("recipe"), dict):
        fields["recipe"] = problems.model(Recipe, fields["recipe"], ("recipe",)) or Recipe()
    study = problems.model(Study, fields, ())
    raise_if_any(problems)
    assert study is not None
    study._tree = tree
    return study


def raise_if_any(problems: Problems) -> None:
    """Raise the errors, if there are any: those of a file with their positions, those of a call as wrong usage."""
    if any(problem.position is not None for problem in problems.found):
        problems.raise_if_any()
    if problems.found:
        raise UsageError("\n".join(str(problem) for problem in problems.found))


def fail(study: Study, path: tuple[str | int, ...], message: str, hint: str = "") -> NoReturn:
    """Raise one error of a study."""
    problems = Problems(study.tree)
    problems.add(path, message, hint)
    raise_if_any(problems)
    raise AssertionError


def _find(study: str) -> Path:
    if "/" in study or study.endswith(SUFFIXES) or is_file(study):
        return Path(study)
    shipped = study_path(study)
    if shipped is None:
        hint = did_you_mean(study, study_names()) or "'hrg list studies' lists them."
        message = f"there is no file and no shipped study '{study}'."
        raise SpecError([Problem(message, Position(Source(study, ""), 1, 1), hint=hint)])
    return shipped


def _beside(name: str, position: Position | None) -> str:
    """The path of a spec relative to the folder of the study, if it is a file; the name of a shipped spec unchanged."""
    if position is not None and Path(position.source.name).suffix in SUFFIXES:
        beside = Path(position.source.name).parent / name
        if "/" in name or name.endswith(SUFFIXES) or is_file(beside):
            return str(beside) if "/" in str(beside) else f"./{beside}"
    return name


def _listed(seeds: int | tuple[int, ...]) -> tuple[int, ...]:
    return seeds if isinstance(seeds, tuple) else tuple(range(seeds))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
