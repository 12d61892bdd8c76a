"""`train` and `resume_run`: one run in this process, in a folder."""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hiresnet_graph.architecture import Architecture, load
from hiresnet_graph.data import DatasetKind, data_source
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.files import similar_folder
from hiresnet_graph.train.checks import check_losses
from hiresnet_graph.train.differences import differences
from hiresnet_graph.train.environment import choose_device
from hiresnet_graph.train.events import EpochDone, Event, Finished, Started
from hiresnet_graph.train.initial_weights import InitialWeights, initial_weights
from hiresnet_graph.train.parallel import join_processes
from hiresnet_graph.train.parameter_rules import check_rules
from hiresnet_graph.train.prepare import InMemoryData, PreparedRun, prepare_run, stored_source
from hiresnet_graph.train.program import run
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import (
    CHECKPOINTS,
    LEDGER,
    SETTINGS,
    SPEC,
    Cursor,
    Epoch,
    RunRecord,
    Seeds,
    has_run,
    read_record,
    read_settings,
    stored_cursors,
    study_folder,
)
from hiresnet_graph.train.request import RunRequest
from hiresnet_graph.train.tensorboard import Board
from hiresnet_graph.train.trainer import OnStep


def train(
    arch: Architecture,
    *,
    out: Path | str,
    data: str | Mapping[str, Any] | DatasetKind | Dataset = "digits",
    recipe: Recipe | None = None,
    seed: int | Seeds = 0,
    weights: Path | str | None = None,
    reinit: bool = False,
    label: str = "",
    on_weights: Callable[[str], None] | None = None,
    on_data: Callable[[Dataset], None] | None = None,
    on_resume: Callable[[Cursor], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    on_step: OnStep | None = None,
    device: str = "auto",
    threads: int = 1,
    checkpoint_s: float = RunRequest.checkpoint_s,
    data_workers: int = 0,
    resume: bool = True,
    tensorboard: bool = False,
) -> RunRecord:
    """Train a network; the folder gets the record, the spec, the metrics, and the weights of the best and last epoch.

    A run that was stopped resumes from its last checkpoint, and on the CPU gives the same bits as one that was not
    stopped. Under torchrun, all processes train this one network together.

    Args:
        out: Folder of the run.
        data: A data set as `data_source` takes it, or one in memory. Images are resized to the input of the network.
        recipe: By default the protocol of the paper.
        seed: Of the initial weights, the order of the images, their augmentation and dropout; `Seeds` separates them.
        weights: What the run starts from, instead of random weights; as for `read_weights`. The file may have more.
        reinit: Initialise at random what the file lacks or has in another shape, instead of an error.
        on_weights: Called with what does not fit, in sentences.
        label: Name of the variant in the record; by default the variant of the spec.
        on_data: Called with the data before training; not for a run that is finished.
        on_resume: Called with the number of finished epochs, and of steps of the next one, if the run is resumed.
        on_epoch: Called after each epoch that is trained here.
        on_step: Called after each step with the number of the epoch, the step, and the steps of an epoch.
        device: `cpu`, `cuda`, `cuda:N`, or `auto`: a GPU if there is one.
        threads: CPU threads; another number rounds differently.
        checkpoint_s: Minimum seconds between two checkpoints; 0 writes one after each epoch.
        data_workers: Processes that read the images of a data set that does not fit into memory.
        resume: False starts over, replacing any run in the folder.
        tensorboard: Also write curves for TensorBoard.

    Raises:
        SpecError: The spec is wrong.
        UsageError: Network, data, recipe and device do not go together, or the folder holds another run or is in use.
        RunError: A file cannot be written, or memory is short (OutOfMemory).
        MissingToolError: TensorBoard is requested and not installed.
        KeyboardInterrupt: Ctrl-C, or the process was terminated; a checkpoint was written before.
    """
    recipe = recipe or Recipe()
    initial = _check_start(arch, recipe, weights, reinit, on_weights)
    execution = {"device": device, "threads": threads, "checkpoint_s": checkpoint_s, "data_workers": data_workers}
    request = _make_request(arch, data, recipe, seed, initial, label, **execution)
    observers = _Observers(on_data, on_resume, on_epoch, on_step, tensorboard)
    return _execute(request, Path(out), arch, observers, data if isinstance(data, Dataset) else None, resume)


def check_run(
    arch: Architecture,
    *,
    out: Path | str | None = None,
    data: str | Mapping[str, Any] | DatasetKind | Dataset = "digits",
    recipe: Recipe | None = None,
    seed: int | Seeds = 0,
    weights: Path | str | None = None,
    reinit: bool = False,
    on_weights: Callable[[str], None] | None = None,
    device: str = "auto",
    resume: bool = True,
) -> RunRecord | None:
    """Check all that `train` checks before it trains, and write nothing; the record, if the run is finished already.

    Args:
        out: Folder of the run, which need not exist; None for none.
        data: As for `train`; like all that follows.

    Raises:
        SpecError: The spec is wrong.
        UsageError: As for `train`.
        RunError: A file of the folder cannot be read.
        MissingDataError: The data are not on this machine; all that does not depend on them was checked.
    """
    recipe, folder = recipe or Recipe(), None if out is None else Path(out)
    choose_device(device)
    request = _make_request(arch, data, recipe, seed, _check_start(arch, recipe, weights, reinit, on_weights))
    if error := check_losses(recipe.outputs, arch.plan):
        raise UsageError(f"recipe.losses: {error}")
    if folder is not None:
        _check_folder(folder)
    dataset = data if isinstance(data, Dataset) else None
    prepared = prepare_run(request, folder or Path(), arch=arch, dataset=dataset)
    if folder is None:
        return None
    _check_in_study(prepared, fresh=not resume)
    return prepared.finished_record(fresh=not resume)


def _make_request(
    arch: Architecture,
    data: str | Mapping[str, Any] | DatasetKind | Dataset,
    recipe: Recipe,
    seed: int | Seeds,
    weights: InitialWeights | None,
    label: str = "",
    **execution: Any,
) -> RunRequest:
    """The request of a run; `execution` are the other fields of `RunRequest`."""
    source = InMemoryData() if isinstance(data, Dataset) else data_source(data)
    seeds = seed if isinstance(seed, Seeds) else Seeds(seed, seed)
    return RunRequest(arch.to_yaml(), label or arch.chosen or "", seeds, source, recipe, weights=weights, **execution)


def _check_start(
    arch: Architecture,
    recipe: Recipe,
    source: Path | str | None,
    reinit: bool,
    on_weights: Callable[[str], None] | None,
) -> InitialWeights | None:
    """The weights that a run of a network starts from; None for random ones.

    Raises:
        UsageError: They cannot be read or do not fit, or a pattern of the recipe matches nothing.
    """
    if error := check_rules(recipe, [arch.plan]):
        raise UsageError(f"recipe.{error}")
    if source is None:
        return None
    weights, file = initial_weights(source, arch.files, reinit=reinit)
    sentences = [*([file.note] if file.note else []), *weights.fit(arch.plan, file).sentences()]
    if on_weights is not None:
        for sentence in sentences:
            on_weights(sentence)
    return weights


def resume_run(
    folder: Path | str,
    *,
    on_data: Callable[[Dataset], None] | None = None,
    on_resume: Callable[[Cursor], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    on_step: OnStep | None = None,
    device: str | None = None,
    threads: int | None = None,
    tensorboard: bool = False,
) -> RunRecord:
    """Resume the run in a folder from its files alone; the record of a finished run is returned at once.

    Args:
        on_data: As for `train`.
        on_resume: As for `train`.
        on_epoch: As for `train`.
        on_step: As for `train`.
        device: Instead of the one that the run was started with.
        threads: Likewise.
        tensorboard: As for `train`.

    Raises:
        RunError: The folder holds no run that `train` has started.
        UsageError: It holds a study, or another process trains in it.
    """
    arch, request = read_request(folder)
    changes: dict[str, Any] = {"device": device, "threads": threads}
    request = dataclasses.replace(request, **{name: value for name, value in changes.items() if value is not None})
    return _execute(request, Path(folder), arch, _Observers(on_data, on_resume, on_epoch, on_step, tensorboard))


def read_request(folder: Path | str) -> tuple[Architecture, RunRequest]:
    """The network of the run in a folder, and its request.

    Raises:
        RunError: The folder holds no run that `train` has started.
        UsageError: It holds a study.
    """
    _refuse_study(Path(folder))
    settings, spec = read_settings(Path(folder)), Path(folder) / SPEC
    if settings is None or not spec.exists():
        hint = "" if Path(folder).is_dir() else f" {similar_folder(Path(folder))}".rstrip()
        raise RunError(f"{folder}: there is no run to resume: {SETTINGS} or {SPEC} is missing.{hint}")
    source = stored_source(settings)
    if source is None:
        raise RunError(f"{folder}: this run was trained on images in memory. Resume it where they are created.")
    arch = load(spec)
    return arch, RunRequest(
        spec=arch.to_yaml(),
        label=settings.variant,
        seeds=settings.seeds,
        data=source,
        recipe=settings.recipe,
        device=settings.device,
        threads=settings.threads,
        checkpoint_s=settings.checkpoint_s,
        data_workers=settings.data_workers,
        weights=settings.weights,
    )


def _refuse_study(folder: Path) -> None:
    """Refuse the folder of a study."""
    if (folder / LEDGER).exists():
        raise UsageError(
            f"{folder} holds a study, not a run: resume it by the command that started it ('hrg ablate' or "
            "'hrg search'), or choose another folder."
        )


def _check_folder(folder: Path) -> None:
    """Refuse the folder of a study, and one with files that a run would take for its checkpoints."""
    _refuse_study(folder)
    if not has_run(folder) and (found := stored_cursors(folder)):
        raise UsageError(
            f"{folder} holds no run, but files '{CHECKPOINTS}/{'-'.join(map(str, found[0]))}.*', which a run would "
            "take for its checkpoints. Choose another folder, or move these files."
        )


def _check_in_study(prepared: PreparedRun, *, fresh: bool) -> None:
    """In a folder of a study, allow the run that it holds and nothing else: the ledger of the study has recorded it."""
    folder, study = prepared.folder, study_folder(prepared.folder)
    if study is None:
        return
    held = [found for found in (read_record(folder), read_settings(folder)) if found is not None]
    if fresh:
        reason = "starting over would replace a run of the study"
    elif not held:
        reason = "it holds no run yet"
    elif any(found.key != prepared.key for found in held):
        reason = f"it holds another run: {'; '.join(differences(held[0], prepared.settings))}"
    else:
        return
    raise UsageError(f"{folder} belongs to the study in {study}, and {reason}. Choose another folder.")


class _Observers(NamedTuple):
    """What is called, and whether TensorBoard gets curves, as `train` describes them."""

    on_data: Callable[[Dataset], None] | None
    on_resume: Callable[[Cursor], None] | None
    on_epoch: Callable[[Epoch], None] | None
    on_step: OnStep | None
    tensorboard: bool


def _execute(
    request: RunRequest,
    folder: Path,
    arch: Architecture,
    observers: _Observers,
    dataset: Dataset | None = None,
    resume: bool = True,
) -> RunRecord:
    _check_folder(folder)
    with join_processes(request.device) as processes, _deferred_termination() as stop:
        board = Board(folder) if observers.tensorboard and processes.is_first else None
        events = run(
            request,
            folder,
            stop=stop,
            arch=arch,
            dataset=dataset,
            fresh=not resume,
            lock=study_folder(folder) or folder,
            check=partial(_check_in_study, fresh=not resume),
            on_data=observers.on_data,
            on_resume=observers.on_resume,
            on_step=observers.on_step,
            processes=processes,
        )
        with closing(events):
            return _consume(events, observers.on_epoch if processes.is_first else None, board)


def _consume(events: Iterator[Event], on_epoch: Callable[[Epoch], None] | None, board: Board | None) -> RunRecord:
    """Report the events of a run; returns its record."""
    done = 0
    for event in events:
        if isinstance(event, Started):
            done = event.epoch
        elif isinstance(event, EpochDone):
            if board is not None:
                board.add(event.epoch)
            if on_epoch is not None and event.epoch.epoch > done:
                on_epoch(event.epoch)
        elif isinstance(event, Finished):
            if board is not None:
                board.end(event.record)
            return event.record
    raise KeyboardInterrupt


@contextmanager
def _deferred_termination() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns whether this process got SIGTERM, as torchrun and cluster schedulers send it."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield lambda: False
        return
    seen: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
