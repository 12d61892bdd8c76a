"""A run as it was asked for, and its folder: what is checked first, and what is written when.

Axes: C channels.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save

from hiresnet_graph.architecture import Architecture, loads
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.files import make_folder, write_atomic
from hiresnet_graph.train.checkpoint import Checkpoint, drop_checkpoints
from hiresnet_graph.train.checks import check_batch_size, check_loss_steps, match_input
from hiresnet_graph.train.events import Files
from hiresnet_graph.train.identity import identify_network, identify_run
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import (
    BEST,
    LAST,
    METRICS,
    RESULT,
    SETTINGS,
    SPEC,
    Environment,
    Epoch,
    Preprocessing,
    RunRecord,
    Settings,
    read_record,
    read_settings,
)
from hiresnet_graph.train.request import RunRequest
from hiresnet_graph.train.state import TrainingState
from hiresnet_graph.train.tensorboard import FOLDER as TENSORBOARD


@dataclass(frozen=True)
class PreparedRun:
    """A run that is asked for: its network, its data, and the folder that it is written into.

    Attributes:
        dataset: With images of the shape that the network takes.
        told: What the folder says of the run from its first moment on; with the recipe as it is for this data set.
    """

    request: RunRequest
    folder: Path
    arch: Architecture
    dataset: Dataset
    told: Settings

    @property
    def recipe(self) -> Recipe:
        """As it is for this data set and network."""
        return self.told.recipe

    @property
    def key(self) -> str:
        """Of the run."""
        return self.told.key

    def finished(self) -> RunRecord | None:
        """The record of this very run, if it is finished in the folder.

        Raises:
            UsageError: The folder holds another run.
        """
        told, folder = self.told, self.folder
        record, old = read_record(folder), read_settings(folder)
        if (record is not None and record.key != told.key) or (old is not None and old.key != told.key):
            found: RunRecord | Settings | None = record or old
            assert found is not None
            raise UsageError(
                f"{folder} holds another run: {'; '.join(_differences(found, told))}. Choose another folder, or "
                "delete this one to start over in it ('hrg train --fresh' does both)."
            )
        return record

    def clear(self) -> None:
        """Delete a run from the folder, and nothing else."""
        folder = self.folder
        try:
            for name in (RESULT, SETTINGS, SPEC, METRICS, BEST, LAST):
                (folder / name).unlink(missing_ok=True)
            if (folder / TENSORBOARD).is_dir():
                shutil.rmtree(folder / TENSORBOARD)
        except OSError as error:
            raise RunError(f"{error.filename or folder}: cannot be deleted: {error.strerror}.") from error
        drop_checkpoints(folder)

    def own(self, point: Checkpoint) -> Checkpoint:
        """The same checkpoint, if it is one of this run.

        Raises:
            UsageError: It is that of another run.
        """
        if point.counters.key != self.key:
            raise UsageError(
                f"{self.folder} holds checkpoints of another run. Choose another folder, or delete this one."
            )
        return point

    def begin(self, epochs: Iterable[Epoch]) -> None:
        """Write what is known of the run at its start, with the epochs that are done already."""
        make_folder(self.folder)
        write_atomic(self.folder / SETTINGS, (self.told.model_dump_json(indent=2) + "\n").encode())
        write_atomic(self.folder / SPEC, self.arch.to_yaml().encode())
        write_atomic(self.folder / METRICS, "".join(map(_lines, epochs)).encode())

    def log(self, epoch: Epoch) -> None:
        """Write the curves of an epoch."""
        path = self.folder / METRICS
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(_lines(epoch))
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror}.") from error

    def record(self, course: TrainingState, machine: Environment) -> RunRecord:
        """What is known of the run when it is over."""
        told, cost, best = self.told, self.arch.cost(), course.best
        tested, last = course.tests or (None, None)
        mean, std = (tuple(level_C11.flatten().tolist()) for level_C11 in self.dataset.levels)
        shape, names = tuple(self.dataset.shape), self.dataset.class_names
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
            diverged_at=course.diverged_at,
            best_epoch=best.epoch if best and tested else None,
            validation_accuracy=best.validation_accuracy if best and tested else None,
            test_accuracy=tested.accuracy if tested else None,
            test_top_k=tested.top_k if tested else None,
            last_test_accuracy=last.accuracy if last else None,
            last_test_top_k=last.top_k if last else None,
            epochs=tuple(course.epochs),
            machine=machine,
            time_s=round(course.time_s, 3),
            preprocessing=Preprocessing(shape=shape, mean=mean, std=std, class_names=names),
        )

    def end(self, record: RunRecord, course: TrainingState) -> None:
        """Write what the run has come to, the record last; checkpoints are needed no more."""
        if record.outcome == "complete":
            write_atomic(self.folder / LAST, save(course.last_weights))
            write_atomic(self.folder / BEST, save(course.best_weights))
        write_atomic(self.folder / RESULT, (record.model_dump_json(indent=2) + "\n").encode())
        drop_checkpoints(self.folder)

    def files(self) -> Files:
        """The files of the finished run."""
        names = (SETTINGS, SPEC, METRICS, LAST, BEST, RESULT)
        return tuple((name, (self.folder / name).read_bytes()) for name in names if (self.folder / name).exists())


def prepare_run(
    request: RunRequest, folder: Path, *, arch: Architecture | None = None, dataset: Dataset | None = None
) -> PreparedRun:
    """The run that is asked for, if network, data and recipe go together.

    Args:
        arch: The network of `request.spec`, if it is there already.
        dataset: The data of `request.data`, likewise.

    Raises:
        SpecError: The spec is wrong.
        UsageError: Network, data and recipe do not go together.
    """
    arch = arch or loads(request.spec, request.label)
    dataset = match_input(dataset or load_dataset(request.data), arch.plan)
    if error := check_batch_size(request.recipe, dataset) or check_loss_steps(request.recipe, arch.plan):
        raise UsageError(f"recipe: {error}")
    identity = identify_run(identify_network(arch.plan), request.recipe, request.seeds, dataset)
    told = Settings(
        key=identity.key,
        architecture=arch.name,
        variant=request.label,
        plan=identity.plan,
        seeds=request.seeds,
        data=dataset.name,
        source=request.data.as_data(),
        data_fingerprint=identity.data_fingerprint,
        recipe=identity.recipe,
        device=request.device,
        threads=request.threads,
        checkpoint_s=request.checkpoint_s,
        data_workers=request.data_workers,
    )
    return PreparedRun(request, folder, arch, dataset, told)


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
