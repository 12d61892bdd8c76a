"""`train`: one run in this process, from a network and a folder."""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from hiresnet_graph.architecture import Architecture, load
from hiresnet_graph.data import DatasetKind, data_source
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.train.events import EpochDone, Event, Finished, Started
from hiresnet_graph.train.parallel import processes
from hiresnet_graph.train.program import run
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import SETTINGS, SPEC, Epoch, RunRecord, Seeds, read_settings
from hiresnet_graph.train.request import RunRequest
from hiresnet_graph.train.tensorboard import Board
from hiresnet_graph.train.trainer import Watch

# The file that makes a folder one of a study.
_LEDGER = "ledger.sqlite"


class InMemory(DatasetKind):
    """Stands for a data set that was handed over as it is: nobody else can load it."""

    kind: ClassVar[str] = "memory"

    def load(self) -> Dataset:
        """Fails: the images are nowhere but where they were made."""
        raise UsageError("this run was trained on images in memory, which no file has. Hand them over again.")


def train(
    arch: Architecture,
    *,
    out: Path | str,
    data: str | Mapping[str, Any] | DatasetKind | Dataset = "digits",
    recipe: Recipe | None = None,
    seed: int | Seeds = 0,
    label: str = "",
    progress: Callable[[Epoch], None] | None = None,
    watch: Watch | None = None,
    device: str = "auto",
    threads: int = 1,
    checkpoint_s: float = RunRequest.checkpoint_s,
    data_workers: int = 0,
    resume: bool = True,
    tensorboard: bool = False,
) -> RunRecord:
    """Train a network in a folder: its record, its spec, its curves, and the weights of the best and the last epoch.

    A run that was stopped goes on from its last checkpoint, and on the CPU ends with the same bits as one that was
    not. Under torchrun its processes train the one network together.

    Args:
        out: Folder of the run.
        data: A data set as `data_source` takes it, or one in memory. Its images are brought to the shape of the input.
        recipe: The protocol of the paper, if left out.
        seed: Of the initial weights, the order of the images, their augmentation and dropout; `Seeds` separates them.
        label: What the record calls the variant; the chosen variant of the spec, if left out.
        progress: Called after each epoch that is trained here.
        watch: Called after each step with the number of the epoch, the step, and the steps of an epoch.
        device: `cpu`, `cuda`, `cuda:N`, or `auto`: a GPU if there is one.
        threads: Of the CPU; another number rounds differently.
        checkpoint_s: Least time between two checkpoints; 0 makes one after each epoch.
        data_workers: Processes that read the images of a data set that does not fit into memory.
        resume: False starts over, in place of any run in the folder.
        tensorboard: Write curves for TensorBoard, too.

    Raises:
        SpecError: The spec is wrong.
        UsageError: Network, data, recipe and device do not go together, or the folder holds another run.
        RunError: A file cannot be written, memory is short, or a batch cannot be computed.
        MissingToolError: TensorBoard is wanted and not installed.
        KeyboardInterrupt: Ctrl-C, or the process was asked to end; a checkpoint was saved before.
    """
    _refuse_study(Path(out))
    in_memory = data if isinstance(data, Dataset) else None
    source = InMemory() if isinstance(data, Dataset) else data_source(data)
    request = RunRequest(
        spec=arch.to_yaml(),
        label=label or arch.chosen or "",
        seeds=seed if isinstance(seed, Seeds) else Seeds(seed, seed),
        data=source,
        recipe=recipe or Recipe(),
        device=device,
        threads=threads,
        checkpoint_s=checkpoint_s,
        data_workers=data_workers,
    )
    return _carry_out(
        request, Path(out), arch, in_memory, progress=progress, watch=watch, resume=resume, tensorboard=tensorboard
    )


def resume_run(
    folder: Path | str,
    *,
    progress: Callable[[Epoch], None] | None = None,
    watch: Watch | None = None,
    device: str | None = None,
    threads: int | None = None,
    tensorboard: bool = False,
) -> RunRecord:
    """Go on with the run in a folder, from what the folder says alone; the record of a finished one is given at once.

    Args:
        device, threads: Instead of those that the run had.

    Raises:
        RunError: The folder holds no run that `train` has begun.
        UsageError: It holds a study.
    """
    arch, request = read_request(folder)
    changes: dict[str, Any] = {"device": device, "threads": threads}
    request = dataclasses.replace(request, **{name: value for name, value in changes.items() if value is not None})
    return _carry_out(request, Path(folder), arch, None, progress=progress, watch=watch, tensorboard=tensorboard)


def read_request(folder: Path | str) -> tuple[Architecture, RunRequest]:
    """The network of the run in a folder, and what was asked for.

    Raises:
        RunError: The folder holds no run that `train` has begun.
        UsageError: It holds a study.
    """
    _refuse_study(Path(folder))
    told, spec = read_settings(Path(folder)), Path(folder) / SPEC
    if told is None or not spec.exists():
        raise RunError(f"{folder}: there is no run to go on with: {SETTINGS} or {SPEC} is missing.")
    if told.source is None or told.source["kind"] == InMemory.kind:
        raise RunError(f"{folder}: this run was trained on images in memory. Go on with it where they are made.")
    arch = load(spec)
    return arch, RunRequest(
        spec=arch.to_yaml(),
        label=told.variant,
        seeds=told.seeds,
        data=data_source(told.source),
        recipe=told.recipe,
        device=told.device,
        threads=told.threads,
        checkpoint_s=told.checkpoint_s,
        data_workers=told.data_workers,
    )


def _refuse_study(folder: Path) -> None:
    """Leave the folder of a study alone."""
    if (folder / _LEDGER).exists():
        raise UsageError(
            f"{folder} holds a study, not a run: go on with it by the command that began it ('hrg ablate' or "
            "'hrg search'), or choose another folder."
        )


def _carry_out(
    request: RunRequest,
    folder: Path,
    arch: Architecture,
    dataset: Dataset | None,
    *,
    progress: Callable[[Epoch], None] | None,
    watch: Watch | None,
    tensorboard: bool,
    resume: bool = True,
) -> RunRecord:
    with processes(request.device) as together, _end_noted() as stop:
        board = Board(folder) if tensorboard and together.first else None
        events = run(
            request,
            folder,
            stop=stop,
            arch=arch,
            dataset=dataset,
            fresh=not resume,
            watch=watch,
            processes=together,
        )
        with closing(events) as told:  # type: ignore[type-var]
            return _followed(told, progress if together.first else None, board)


def _followed(events: Iterator[Event], progress: Callable[[Epoch], None] | None, board: Board | None) -> RunRecord:
    """The record that a run ends with."""
    done = 0
    for event in events:
        if isinstance(event, Started):
            done = event.epoch
        elif isinstance(event, EpochDone):
            if board is not None:
                board.add(event.epoch)
            if progress is not None and event.epoch.epoch > done:
                progress(event.epoch)
        elif isinstance(event, Finished):
            if board is not None:
                board.end(event.record)
            return event.record
    raise KeyboardInterrupt


@contextmanager
def _end_noted() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether this process was asked to end, as torchrun and cluster schedulers do it."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield lambda: False
        return
    seen: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
