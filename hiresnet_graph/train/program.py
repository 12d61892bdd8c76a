"""The training program: one network, one data set, one recipe, and on the CPU the same bits every time.

A run is an iterator of events. Between two of them nothing of torch's global state is changed; what the next step
depends on is all in a checkpoint, so that a run that was stopped anywhere goes on as if it had not been.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

from safetensors.torch import save

from hiresnet_graph.architecture import Architecture, loads
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.plan import Plan
from hiresnet_graph.shapes import Clip, Map, Series, Vector
from hiresnet_graph.train.checkpoint import drop_checkpoints, load_checkpoint, save_checkpoint
from hiresnet_graph.train.events import EpochDone, Event, Files, Finished, Paused, Saved, Started
from hiresnet_graph.train.key import kinds_of
from hiresnet_graph.train.machine import choose_device, interrupt_noted, keep_memory
from hiresnet_graph.train.parallel import ALONE, Processes
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import (
    BEST,
    LAST,
    METRICS,
    RESULT,
    SETTINGS,
    SPEC,
    Epoch,
    Preprocessing,
    RunRecord,
    Settings,
    make_folder,
    read_record,
    read_settings,
    run_key,
    write_atomic,
)
from hiresnet_graph.train.request import RunRequest
from hiresnet_graph.train.steps import misfit, readouts
from hiresnet_graph.train.tensorboard import FOLDER as TENSORBOARD
from hiresnet_graph.train.trainer import Ask, Trainer, Turn, Watch


def run(
    request: RunRequest,
    folder: Path,
    *,
    until: int | None = None,
    stop: Ask | None = None,
    arch: Architecture | None = None,
    dataset: Dataset | None = None,
    ship_files: bool = False,
    fresh: bool = False,
    watch: Watch | None = None,
    processes: Processes = ALONE,
) -> Iterator[Event]:
    """Train a network in a folder, going on from the newest checkpoint that it has.

    Test images are seen after training only: with the weights of the best validation epoch, and with the last ones.

    Args:
        until: Pause after this epoch, with a checkpoint.
        stop: Asked after each step; when it says yes, the run saves a checkpoint and pauses.
        arch: The network of `request.spec`, if it is there already.
        dataset: The data of `request.data`, likewise.
        ship_files: Let events carry the files that they speak of.
        fresh: Start over, in place of any run in the folder.
        watch: Called after each step.
        processes: Those that train this one network together.

    Raises:
        SpecError: The spec is wrong.
        UsageError: Network, data, recipe and device do not go together, or the folder holds another run.
        RunError: A file cannot be written, memory is short, or a batch cannot be computed.
        KeyboardInterrupt: Ctrl-C; a checkpoint was saved before.
    """
    arch = arch or loads(request.spec, request.label)
    device = choose_device(request.device)
    if processes.world > 1 and device.type == "cuda":
        device = choose_device(f"cuda:{processes.local}")
    dataset = fit(dataset or load_dataset(request.data), arch.plan)
    recipe = _checked(request.recipe, dataset, arch.plan)
    plan, fingerprint = arch.plan.digest(), dataset.fingerprint()
    key = run_key(plan, recipe, request.seeds, fingerprint, kinds_of(arch.plan))
    told = Settings(
        key=key,
        architecture=arch.name,
        variant=request.label,
        plan=plan,
        seeds=request.seeds,
        data=dataset.name,
        source=request.data.as_data(),
        data_fingerprint=fingerprint,
        recipe=recipe,
        device=request.device,
        threads=request.threads,
        checkpoint_s=request.checkpoint_s,
        data_workers=request.data_workers,
    )
    finished = None if fresh else _claim(folder, told)
    if finished is not None:
        yield Started(len(finished.epochs), finished.machine)
        yield Finished(finished, _run_files(folder) if ship_files else ())
        return
    keep_memory()
    trainer = Trainer(arch, dataset, recipe, request, device, processes)
    if fresh and processes.first:
        _clear(folder)
    point = processes.shared(load_checkpoint(folder) if processes.first else None)
    if point is not None:
        if point.counters.key != key:
            raise UsageError(f"{folder} holds checkpoints of another run. Choose another folder, or delete this one.")
        trainer.restore(point)
    if processes.first:
        make_folder(folder)
        write_atomic(folder / SETTINGS, (told.model_dump_json(indent=2) + "\n").encode())
        write_atomic(folder / SPEC, arch.to_yaml().encode())
        write_atomic(folder / METRICS, "".join(map(_lines, trainer.epochs)).encode())

    keeper = _Keeper(folder, trainer, key, request.checkpoint_s, ship_files)
    yield Started(trainer.epoch, trainer.machine)
    for epoch in trainer.epochs:  # whoever listens may not have heard of them
        yield EpochDone(epoch)
    with closing(trainer):
        is_over = yield from _until_over(trainer, keeper, until, stop or (lambda: False), watch)
    if not is_over:
        yield Paused(trainer.epoch)
        return
    record = _record(trainer, arch, told, dataset)
    if processes.first:
        if record.outcome == "complete":
            write_atomic(folder / LAST, save(trainer.last_weights))
            write_atomic(folder / BEST, save(trainer.best_weights))
        write_atomic(folder / RESULT, (record.model_dump_json(indent=2) + "\n").encode())
        drop_checkpoints(folder)
    yield Finished(record, _run_files(folder) if ship_files else ())


class _Keeper:
    """Writes what a run has reached into its folder, when it is time."""

    def __init__(self, folder: Path, trainer: Trainer, key: str, checkpoint_s: float, ship_files: bool) -> None:
        self._folder, self._trainer, self._key, self._ship_files = folder, trainer, key, ship_files
        self._checkpoint_s, self._time, self._place = checkpoint_s, time.monotonic(), trainer.place

    def is_due(self) -> bool:
        """Whether the last checkpoint is long ago."""
        return 0 < self._checkpoint_s <= time.monotonic() - self._time

    def wants(self, turn: Turn) -> bool:
        """Whether a checkpoint belongs here."""
        return turn in ("stopped", "due") or (turn == "epoch" and (self.is_due() or not self._checkpoint_s))

    def save(self) -> Iterator[Saved]:
        """Write a checkpoint, unless the last one is of this very place."""
        if self._trainer.place != self._place:
            counters, tensors = self._trainer.state(self._key)
            files = save_checkpoint(self._folder, counters, tensors) if self._trainer.processes.first else ()
            self._time, self._place = time.monotonic(), self._trainer.place
            yield Saved(self._trainer.epoch, files if self._ship_files else ())

    def log(self, epoch: Epoch) -> None:
        """Write the curves of an epoch."""
        if self._trainer.processes.first:
            path = self._folder / METRICS
            try:
                with path.open("a", encoding="utf-8") as file:
                    file.write(_lines(epoch))
            except OSError as error:
                raise RunError(f"{path}: cannot be written: {error.strerror}.") from error


def _until_over(
    trainer: Trainer, keeper: _Keeper, until: int | None, stop: Ask, watch: Watch | None
) -> Generator[Event, None, bool]:
    """Train until all is done, or a stop is asked for; gives which of them."""
    while until is None or until >= trainer.recipe.epochs or trainer.epoch < until:
        events: list[Event] = []
        with interrupt_noted() as interrupted:

            def asked(interrupted: Ask = interrupted) -> bool:
                return stop() or interrupted()

            turn = trainer.advance(asked, keeper.is_due, watch)
            if turn in ("diverged", "tested"):
                return True
            if turn == "epoch":
                keeper.log(trainer.epochs[-1])
                events.append(EpochDone(trainer.epochs[-1]))
            if keeper.wants(turn) or interrupted():
                events += keeper.save()
        try:
            yield from events
        except (GeneratorExit, KeyboardInterrupt):  # nobody listens any more
            for _ in keeper.save():
                pass
            raise
        if interrupted():
            raise KeyboardInterrupt
        if turn == "stopped":
            return False
    yield from keeper.save()
    return False


def _record(trainer: Trainer, arch: Architecture, told: Settings, dataset: Dataset) -> RunRecord:
    """What is known of a run that is over."""
    cost, best = arch.cost(), trainer.best
    tested, last = trainer.tests or (None, None)
    mean, std = (tuple(level_C11.flatten().tolist()) for level_C11 in dataset.levels)
    return RunRecord(
        key=told.key,
        architecture=told.architecture,
        variant=told.variant,
        seeds=told.seeds,
        data=told.data,
        data_fingerprint=told.data_fingerprint,
        recipe=told.recipe,
        plan=told.plan,
        parameters=cost.parameters,
        macs=cost.macs,
        outcome="complete" if tested else "diverged",
        diverged_at=trainer.diverged_at,
        best_epoch=best.epoch if best and tested else None,
        validation_accuracy=best.validation_accuracy if best and tested else None,
        test_accuracy=tested.accuracy if tested else None,
        test_top_k=tested.top_k if tested else None,
        last_test_accuracy=last.accuracy if last else None,
        last_test_top_k=last.top_k if last else None,
        epochs=tuple(trainer.epochs),
        machine=trainer.machine,
        time_s=round(trainer.time_s, 3),
        preprocessing=Preprocessing(shape=tuple(dataset.shape), mean=mean, std=std, class_names=dataset.class_names),
    )


def fit(dataset: Dataset, plan: Plan) -> Dataset:
    """The data set with images of the shape that a network takes.

    Raises:
        UsageError: The network does not take one image and give one score for each class (at each step that is read
            out, with `readout: all`).
    """
    shapes = list(plan.inputs.values())
    if len(shapes) == 1 and isinstance(shapes[0], Clip):
        raise UsageError(
            f"'{plan.name}' takes another image at each of {shapes[0].steps} steps ('input: sequence'), but data "
            f"'{dataset.name}' has single images, without an axis of time. Set 'time.input=every' (the same image at "
            "each step) or 'time.input=first'."
        )
    if len(shapes) != 1 or not isinstance(shapes[0], Map):
        raise UsageError(
            f"'{plan.name}' takes {', '.join(f'{name} ({shape})' for name, shape in plan.inputs.items())}; "
            "training wants one input of channels x height x width."
        )
    scores = [call.shape for call in plan.calls if call.name in plan.outputs.values()]
    if [shape.frame if isinstance(shape, Series) else shape for shape in scores] != [Vector(dataset.classes)]:
        raise UsageError(
            f"'{plan.name}' gives {', '.join(str(shape) for shape in scores)}, but data '{dataset.name}' has "
            f"{dataset.classes} classes: training wants one output of {dataset.classes} values. "
            f"{_class_hint(plan, dataset.classes)}"
        )
    return dataset.fitted_to(shapes[0])


def _class_hint(plan: Plan, classes: int) -> str:
    """How to make the network give a score for each class."""
    fields = {"classifier": "classes", "linear": "width"}
    last = [call for call in plan.calls if call.name in plan.outputs.values()]
    # With `readout: all`, what comes out is a stack of the values of a node.
    stacked = [name for call in last if isinstance(call.shape, Series) for name in call.inputs]
    ends = [node for node in plan.nodes if node.value in (*plan.outputs.values(), *stacked)]
    if len(ends) == 1 and ends[0].block in fields:
        return f"Set '{ends[0].name}.{fields[ends[0].block]}={classes}'."
    return f"End the spec with a node like 'head: {{block: classifier, classes: {classes}}}'."


def _checked(recipe: Recipe, dataset: Dataset, plan: Plan) -> Recipe:
    """The recipe as it is for this data set and network, if they can be trained with it."""
    images = len(dataset.split.train)
    if recipe.batch_size > images:
        raise UsageError(
            f"the training part of data '{dataset.name}' has {images} images, and the batch size is "
            f"{recipe.batch_size}: choose '--batch-size {images}' or smaller (batch_size in a recipe)."
        )
    if told := misfit(recipe, plan):
        raise UsageError(f"recipe: {told}")
    return recipe.resolved(dataset.standard_augmentation, readouts(plan))


def _claim(folder: Path, told: Settings) -> RunRecord | None:
    """The record of this very run, if it is finished in the folder.

    Raises:
        UsageError: The folder holds another run.
    """
    record, old = read_record(folder), read_settings(folder)
    if (record is not None and record.key != told.key) or (old is not None and old.key != told.key):
        found: RunRecord | Settings | None = record or old
        assert found is not None
        raise UsageError(
            f"{folder} holds another run: {'; '.join(_differences(found, told))}. Choose another folder, or "
            "delete this one to start over in it ('hrg train --fresh' does both)."
        )
    return record


def _clear(folder: Path) -> None:
    """Delete a run from its folder, and nothing else."""
    try:
        for name in (RESULT, SETTINGS, SPEC, METRICS, BEST, LAST):
            (folder / name).unlink(missing_ok=True)
        if (folder / TENSORBOARD).is_dir():
            shutil.rmtree(folder / TENSORBOARD)
    except OSError as error:
        raise RunError(f"{error.filename or folder}: cannot be deleted: {error.strerror}.") from error
    drop_checkpoints(folder)


def _differences(old: RunRecord | Settings, new: Settings) -> Iterator[str]:
    """What makes two runs different, in words."""
    before, now = old.recipe.mathematics(), new.recipe.mathematics()
    pairs: dict[str, tuple[object, object]] = {
        "architecture": (old.architecture, new.architecture),
        "seed": (old.seeds, new.seeds),
        "data": (old.data, new.data),
        **{f"recipe.{name}": (before.get(name), now.get(name)) for name in {**before, **now}},
    }
    different = [f"{name} was {was}, now {is_}" for name, (was, is_) in pairs.items() if was != is_]
    if old.plan != new.plan:
        different.append(f"the network was another ('{old.variant or old.architecture}')")
    if old.data == new.data and old.data_fingerprint != new.data_fingerprint:
        different.append("the images, their split or their size were others")
    yield from different or ["it was made by another version of the training program"]


def _lines(epoch: Epoch) -> str:
    """The lines of an epoch in metrics.jsonl: one for each part of the data."""
    train = {"epoch": epoch.epoch, "split": "train", "loss": epoch.train_loss, "accuracy": epoch.train_accuracy}
    train |= {"lr": epoch.lr, "time_s": epoch.time_s}
    validation = {
        "epoch": epoch.epoch,
        "split": "validation",
        "loss": epoch.validation_loss,
        "accuracy": epoch.validation_accuracy,
        "top_k": epoch.validation_top_k,
    }
    return f"{json.dumps(train)}\n{json.dumps(validation)}\n"


def _run_files(folder: Path) -> Files:
    """The files of a finished run."""
    names = (SETTINGS, SPEC, METRICS, LAST, BEST, RESULT)
    return tuple((name, (folder / name).read_bytes()) for name in names if (folder / name).exists())
