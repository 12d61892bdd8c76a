"""The plan of a study: its networks, its rows, and one request for each different run. Nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from hiresnet_graph.data import load_dataset
from hiresnet_graph.errors import UsageError
from hiresnet_graph.formats import format_count
from hiresnet_graph.sweep.networks import Network, Networks, networks_of
from hiresnet_graph.sweep.results import NetworkInfo
from hiresnet_graph.sweep.study import Study, fail
from hiresnet_graph.train.checks import (
    check_batch_size,
    check_class_weights,
    check_losses,
    check_outputs,
    check_smallest_batch,
    count_readouts,
    match_input,
)
from hiresnet_graph.train.record import Seeds
from hiresnet_graph.train.request import RunRequest

if TYPE_CHECKING:
    from hiresnet_graph.data import DatasetKind
    from hiresnet_graph.data.dataset import Dataset
    from hiresnet_graph.train.identity import NetworkIdentity
    from hiresnet_graph.train.initial_weights import InitialWeights


@dataclass(frozen=True)
class PlannedRow:
    """One network of a study with one pair of seeds.

    Attributes:
        network: Index in `StudyPlan.networks`.
        key: Key of the run; rows of equal networks share it.
    """

    network: int
    seeds: Seeds
    key: str


@dataclass(frozen=True)
class StudyPlan:
    """Everything that a study trains.

    Attributes:
        recipe: The recipe before the grid, as JSON data.
        baseline: Label of the variant that the others are compared with; None if the study has none.
        requests: The request for each different run, by its key. All networks with the first seeds come first, so that
            an interrupted study can be evaluated.
        subsets_of: All edges of which the variants are subsets, if a subset rule made them; else empty.
        text: The study as a file in YAML.
        key_with_epochs: The key that a run has with another number of epochs.
    """

    name: str
    architecture: str
    data: str
    data_fingerprint: str
    recipe: Mapping[str, object]
    baseline: str | None
    networks: tuple[NetworkInfo, ...]
    rows: tuple[PlannedRow, ...]
    requests: Mapping[str, RunRequest]
    subsets_of: tuple[str, ...]
    text: str
    key_with_epochs: Callable[[str, int], str] = field(default=lambda key, epochs: "", compare=False)

    def __repr__(self) -> str:
        runs = format_count(len(self.requests), "run")
        return f"<StudyPlan {self.name} on {self.data}: {format_count(len(self.networks), 'network')}, {runs}>"

    def continues(self, key: str, other: str, epochs: int) -> bool:
        """Whether a run of this plan continues another run, which has fewer epochs."""
        recipe = self.requests[key].recipe
        return epochs < recipe.epochs and recipe.has_fixed_rates and self.key_with_epochs(key, epochs) == other


def plan_study(study: Study) -> StudyPlan:
    """Check a study in full: every network compiled, every run with its key, equal runs once.

    Raises:
        SpecError: The study or one of its networks is wrong; with all errors.
        UsageError: The same for a study without a file; or the data cannot be found, or do not fit a network.
    """
    networks = networks_of(study)
    source = study.data_source()
    return make_plan(study, networks, source, load_dataset(source))


def make_plan(study: Study, networks: Networks, source: DatasetKind, dataset: Dataset | None) -> StudyPlan:
    """The plan of a study whose networks are compiled.

    Args:
        dataset: The loaded data. Without them, what depends on the data is not checked (except for the number of
            classes, where it is known), and keys distinguish runs but are not those of the ledger.

    Raises:
        SpecError, UsageError: Data and networks, or data and recipe, do not fit.
    """
    from hiresnet_graph.train.identity import NetworkIdentity, custom_ops_hash, identify_run

    if dataset is None:
        matched = None
        _check_known_classes(study, networks, source)
    else:
        matched = _matched(study, networks, dataset)
    augment = "none" if matched is None else matched.standard_augmentation
    rows: dict[tuple[int, int], PlannedRow] = {}
    requests: dict[str, RunRequest] = {}
    origins: dict[str, tuple[NetworkIdentity, Seeds, InitialWeights | None]] = {}
    known: dict[int, tuple[NetworkIdentity, str]] = {}  # identity and spec; settings of the recipe alone share them
    for network in networks.members:
        arch = network.architecture
        if id(arch) not in known:
            identity = NetworkIdentity(network.info.plan, custom_ops_hash(arch.plan), count_readouts(arch.plan))
            known[id(arch)] = identity, arch.to_yaml()
    for s, seeds in enumerate(study.seed_pairs):
        for n, network in enumerate(networks.members):
            identity, spec = known[id(network.architecture)]
            key = identify_run(identity, network.recipe, seeds, matched, network.weights).key
            rows[n, s] = PlannedRow(n, seeds, key)
            origins[key] = (identity, seeds, network.weights)
            request = RunRequest(spec, network.info.label, seeds, source, network.recipe, weights=network.weights)
            requests.setdefault(key, request)
    return StudyPlan(
        name=study.name or networks.architecture,
        architecture=networks.architecture,
        data=dataset.name if dataset is not None else source.kind,
        data_fingerprint="" if matched is None else matched.fingerprint(),
        recipe=study.recipe.resolved(augment).model_dump(mode="json"),
        baseline=networks.baseline,
        networks=tuple(network.info for network in networks.members),
        rows=tuple(rows[index] for index in sorted(rows)),
        requests=requests,
        subsets_of=networks.subsets_of,
        text=study.to_yaml(),
        key_with_epochs=partial(_key_with_epochs, requests, origins, matched),
    )


def _key_with_epochs(
    requests: Mapping[str, RunRequest],
    origins: Mapping[str, tuple[NetworkIdentity, Seeds, InitialWeights | None]],
    dataset: Dataset | None,
    key: str,
    epochs: int,
) -> str:
    """The key of a run with another number of epochs."""
    from hiresnet_graph.train.identity import identify_run

    network, seeds, weights = origins[key]
    recipe = requests[key].recipe.model_copy(update={"epochs": epochs})
    return identify_run(network, recipe, seeds, dataset, weights).key


def _matched(study: Study, networks: Networks, dataset: Dataset) -> Dataset:
    """The data set with images in the input shape of all networks.

    Raises:
        SpecError, UsageError: Data and networks, or data and recipe, do not fit.
    """
    found: dict[str, Dataset] = {}
    for network in networks.members:
        plan = network.architecture.plan
        shapes = {call.name: call.shape for call in plan.calls if call.name in plan.outputs.values()}
        outputs = network.recipe.outputs
        ends = str(
            [*plan.inputs.items(), *((name, shapes.get(value)) for name, value in plan.outputs.items()), *outputs]
        )
        _check_losses(study, network)
        if ends not in found:
            try:
                found[ends] = match_input(dataset, plan, outputs)
            except UsageError as error:
                fail(study, ("data",), f"variant '{network.info.label}': {error}")
        batch_size = _field_path(study, "batch_size")
        if message := check_batch_size(network.recipe, dataset):
            fail(study, batch_size, message)
        if message := check_class_weights(network.recipe, dataset):
            fail(study, _field_path(study, "class_weights"), message)
        if message := check_smallest_batch(network.recipe, dataset, plan):
            fail(study, batch_size, f"variant '{network.info.label}': {message}")
    if len({matched.fingerprint() for matched in found.values()}) > 1:
        message = "the networks take images of different shapes, so they cannot be compared in one study."
        fail(study, ("network",), message)
    return found.popitem()[1]


def _check_known_classes(study: Study, networks: Networks, source: DatasetKind) -> None:
    if (classes := source.known_classes) is None:
        return
    for network in networks.members:
        _check_losses(study, network)
        try:
            check_outputs(source.kind, classes, network.architecture.plan, network.recipe.outputs)
        except UsageError as error:
            fail(study, ("data",), f"variant '{network.info.label}': {error}")


def _check_losses(study: Study, network: Network) -> None:
    if message := check_losses(network.recipe.outputs, network.architecture.plan):
        fail(study, _field_path(study, "losses"), f"variant '{network.info.label}': {message}")


def _field_path(study: Study, name: str) -> tuple[str, str]:
    """Where a study sets a field of the recipe: in its grid, or in its recipe."""
    varied = next((key for key in (name, f"recipe.{name}") if key in study.grid), None)
    return ("grid", varied) if varied else ("recipe", name)
