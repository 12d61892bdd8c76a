"""The trained networks of a run, a study or a file of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from torch import nn

from hiresnet_graph.architecture import Architecture, load, split_variant
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.lower.weights import load_weights
from hiresnet_graph.sweep.database import RUNS
from hiresnet_graph.sweep.results import Results, read_results
from hiresnet_graph.sweep.status import read_status
from hiresnet_graph.train.checks import match_input
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import RunRecord
from hiresnet_graph.train.run_folder import Run, load_run
from hiresnet_graph.train.trained import TrainedNetwork, dataset_of_run, open_trained, stored_dataset

Opener = Callable[[], AbstractContextManager[TrainedNetwork]]
_WEIGHTS = ".safetensors"


@dataclass(frozen=True)
class Subject:
    """A network with its trained weights, of one or several runs.

    Attributes:
        setting: Its setting of the grid; empty without a grid.
        seeds: The seeds of its runs, as text; empty for a file of weights.
        networks: Open the network of each run.
        records: The record of each run; empty for a file of weights.
    """

    label: str
    setting: Mapping[str, object]
    seeds: tuple[str, ...]
    networks: tuple[Opener, ...]
    records: tuple[RunRecord, ...] = ()


@dataclass(frozen=True)
class AnalysisSource:
    """What is analysed.

    Attributes:
        results: Of the run or the study; None for a file of weights.
        study: Folder of the study; None for a single network.
    """

    name: str
    architecture: str
    data: str
    subjects: tuple[Subject, ...]
    results: Results | None = None
    study: Path | None = None


def find_networks(
    source: Path, *, spec: str | None = None, data: str | None = None, device: str = "auto"
) -> AnalysisSource:
    """The trained networks of a source, with the weights of the epoch of best validation.

    Args:
        source: Folder of a run or a study, or a safetensors file.
        spec: The network of a file of weights, as `SPEC` or `SPEC@VARIANT`.
        data: The data set for a file of weights (default: digits).
        device: As for `train`.

    Raises:
        UsageError: There is no finished run; or a file of weights has no spec, or a folder has another one.
        RunError: The folder is none of a run or a study, or a file cannot be read.
        SpecError: The spec is wrong.
    """
    if source.is_file() or source.suffix == _WEIGHTS:
        return _from_weights(source, spec, data or "digits", device)
    for option, given in (("--spec", spec), ("--data", data)):
        if given is not None:
            raise UsageError(
                f"{option} {given}: '{source}' has its own network and data. Give '{option}' with a file of weights."
            )
    results = read_results(source)
    runs = finished_runs(source, results)
    dataset = cache(partial(stored_dataset, next(iter(runs.values()))[0].folder))
    subjects = tuple(
        Subject(
            results.networks[index].label,
            results.networks[index].setting,
            tuple(str(run.record.seeds) for run in found),
            tuple(partial(_open_run, run, dataset, device) for run in found),
            tuple(run.record for run in found),
        )
        for index, found in runs.items()
    )
    is_study = (source / RUNS).is_dir()
    return AnalysisSource(
        results.name, results.architecture, results.data, subjects, results, source if is_study else None
    )


def finished_runs(folder: Path, results: Results) -> dict[int, list[Run]]:
    """The finished runs of each network of a study that is not the same as another; or the run of a folder.

    Raises:
        UsageError: There are none.
    """
    names = {run.key: run.name for run in read_status(folder).runs}
    is_study = (folder / RUNS).is_dir()
    found: dict[int, list[Run]] = {}
    for row in results.rows:
        if row.state == "complete" and not results.networks[row.network].same_as:
            found.setdefault(row.network, []).append(load_run(folder / RUNS / names[row.key] if is_study else folder))
    if not found:
        states = ", ".join(dict.fromkeys(row.state for row in results.rows))
        raise UsageError(f"{folder}: contains no complete run to analyse ({states}). Finish one first.")
    return found


def _open_run(run: Run, dataset: Callable[[], Dataset], device: str) -> AbstractContextManager[TrainedNetwork]:
    arch = run.architecture
    return open_trained(
        f"{run.folder}, analysed",
        arch,
        run.load_into,
        dataset_of_run(run.folder, run.record, arch, dataset()),
        run.record.recipe,
        device=device,
        threads=run.record.machine.threads,
    )


def _from_weights(path: Path, spec: str | None, data: str, device: str) -> AnalysisSource:
    if spec is None:
        raise UsageError(
            f"{path}: a file of weights does not name its network. Add '--spec SPEC' or '--spec SPEC@VARIANT'."
        )
    if not path.is_file():
        raise RunError(f"{path}: there is no such file.")
    name, variant = split_variant(spec)
    arch = load(name) if variant is None else load(name).variant(variant)
    dataset = match_input(load_dataset(data), arch.plan)

    open_network = partial(
        open_trained, f"{path}, analysed", arch, partial(_loaded, path), dataset, Recipe(), device=device, threads=1
    )
    subject = Subject(variant or arch.name, {}, (), (open_network,))
    return AnalysisSource(path.name, arch.title, dataset.name, (subject,))


def _loaded(path: Path, arch: Architecture) -> nn.Module:
    module = arch.build()
    load_weights(module, path)
    return module.eval()
