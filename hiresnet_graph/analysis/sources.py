"""The trained networks of a run, a study or a file of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from torch import nn

from hiresnet_graph.analysis.probes import skip_labels
from hiresnet_graph.architecture import Architecture, split_variant
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.errors import UsageError
from hiresnet_graph.formats import format_count
from hiresnet_graph.lower.weight_files import REINIT_HINT
from hiresnet_graph.lower.weights import load_weights
from hiresnet_graph.shipped import spec_path
from hiresnet_graph.spec.reader import SUFFIXES
from hiresnet_graph.sweep.database import RUNS
from hiresnet_graph.sweep.results import Results, read_results
from hiresnet_graph.sweep.status import run_folders
from hiresnet_graph.sweep.variants import name_of
from hiresnet_graph.train.checks import match_input
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import BEST, LEDGER, RESULT, RunRecord
from hiresnet_graph.train.run_folder import Run, load_run
from hiresnet_graph.train.trained import TrainedNetwork, open_trained, stored_dataset

Opener = Callable[[], AbstractContextManager[TrainedNetwork]]
_WEIGHTS = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True)
class Subject:
    """A network with its trained weights, of one or several runs.

    Attributes:
        setting: Its setting of the grid; empty without a grid.
        seeds: The seeds of its runs, as text; empty for a file of weights.
        networks: Open the network of each run.
        records: The record of each run; empty for a file of weights.
        skips: Name of an edge beside the flow -> how edge sets write it; empty for a file of weights.
    """

    label: str
    setting: Mapping[str, object]
    seeds: tuple[str, ...]
    networks: tuple[Opener, ...]
    records: tuple[RunRecord, ...] = ()
    skips: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AnalysisSource:
    """What is analysed.

    Attributes:
        results: Of the run or the study; None for a file of weights.
        study: Folder of the study; None for a single network.
        absent: Names of finished runs whose weights are not in the folder.
    """

    name: str
    architecture: str
    data: str
    subjects: tuple[Subject, ...]
    results: Results | None = None
    study: Path | None = None
    absent: tuple[str, ...] = ()


def find_networks(source: Path, *, device: str = "auto") -> AnalysisSource:
    """The trained networks of a run or a study, with the weights of the epoch of best validation.

    Args:
        source: Its folder.
        device: As for `train`.

    Raises:
        UsageError: There is no finished run, or the source is no folder.
        RunError: The folder is none of a run or a study, or a file cannot be read.
    """
    file = source if source.exists() else Path(split_variant(str(source))[0])
    is_shipped = not file.exists() and spec_path(str(file)) is not None
    if file.is_file() or file.suffix in _WEIGHTS or is_shipped:
        is_spec = file.suffix in SUFFIXES or is_shipped
        raise UsageError(
            f"'{source}' is {'a spec' if is_spec else 'a file of weights'}, not the folder of a run or a study. Give a "
            f"spec with its weights: '{source if is_spec else 'SPEC'} --weights {'FILE' if is_spec else source}'."
        )
    results = read_results(source)
    runs, absent = _finished_runs(source, results)
    dataset = cache(partial(stored_dataset, next(iter(runs.values()))[0].folder))
    subjects = tuple(
        Subject(
            results.networks[index].label,
            results.networks[index].setting,
            tuple(str(run.record.seeds) for run in found),
            tuple(partial(_open, run, dataset, device) for run in found),
            tuple(run.record for run in found),
            skip_labels(found[0].architecture.plan.edges),
        )
        for index, found in runs.items()
    )
    is_study = (source / LEDGER).exists()
    return AnalysisSource(
        results.name, results.architecture, results.data, subjects, results, source if is_study else None, absent
    )


def _finished_runs(folder: Path, results: Results) -> tuple[dict[int, list[Run]], tuple[str, ...]]:
    """The finished runs of each network of a study that is not the same as another, and the names of those whose
    weights are elsewhere; or the run of a folder.

    Raises:
        UsageError: There are none, or none with weights.
    """
    folders = run_folders(folder)
    found: dict[int, list[Run]] = {}
    absent: list[str] = []
    for row in results.rows:
        if row.state != "complete" or results.networks[row.network].same_as:
            continue
        place = folders[row.key]
        if place != folder and not all((place / file).exists() for file in (RESULT, BEST)):
            absent.append(place.name)
            continue
        found.setdefault(row.network, []).append(load_run(place))
    if absent and not found:
        raise UsageError(
            f"{folder}: the weights of its {format_count(len(absent), 'finished run')} are not in its folder '{RUNS}'; "
            "the ledger has numbers alone. Copy that folder from where they were trained, or train them again."
        )
    if not found:
        states = ", ".join(dict.fromkeys(row.state for row in results.rows))
        raise UsageError(f"{folder}: contains no complete run to analyse ({states}). Finish one first.")
    return found, tuple(absent)


def _open(run: Run, dataset: Callable[[], Dataset], device: str) -> AbstractContextManager[TrainedNetwork]:
    return run.open(data=dataset(), device=device)


def network_with_weights(
    arch: Architecture,
    weights: Path,
    *,
    reinit: bool = False,
    data: str = "digits",
    device: str = "auto",
    message: Callable[[str], None] = lambda text: None,
) -> AnalysisSource:
    """A network with weights from a file or the folder of a run.

    Args:
        weights: As for `read_weights`.
        reinit: Tensors that do not fit have their initial values, instead of an error.
        data: The data set.
        device: As for `train`.
        message: Called with what does not fit of the weights, and with the normalisation if the data do not give it.

    Raises:
        UsageError: Network and data do not go together.
        SpecError: The spec is wrong.
    """
    dataset = match_input(load_dataset(data), arch.plan)
    if dataset.normalization is None and weights.is_file():  # a run has the normalisation of its data
        mean, std = (", ".join(f"{value / 255:.3f}" for value in stats.flatten()) for stats in dataset.channel_stats)
        theirs = f"{data}{',' if ':' in data else ':'}mean=M,std=S"
        message(
            f"Images are normalised with the mean ({mean}) and the standard deviation ({std}) of the training images. "
            f"Weights that were trained with others need theirs: '--data {theirs}'."
        )
    load_module = partial(_loaded, weights, reinit, message)
    open_network = partial(open_trained, f"{weights}, analysed", arch, load_module, dataset, Recipe(), device=device)
    subject = Subject(name_of(arch), {}, (), (partial(open_network, threads=1),))
    return AnalysisSource(weights.name, arch.title, dataset.name, (subject,))


def _loaded(path: Path, reinit: bool, message: Callable[[str], None], arch: Architecture) -> nn.Module:
    module = arch.build()
    for sentence in load_weights(module, path, specs=arch.files, reinit=reinit, hint=REINIT_HINT):
        message(sentence)
    return module.eval()
