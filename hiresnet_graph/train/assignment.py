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
from hiresnet_graph.plan import Plan
from hiresnet_graph.shapes import Clip, Map, Series, Vector
from hiresnet_graph.train.checkpoint import Checkpoint, drop_checkpoints
from hiresnet_graph.train.course import Course
from hiresnet_graph.train.events import Files
from hiresnet_graph.train.key import kinds_of
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import (
    BEST,
    LAST,
    METRICS,
    RESULT,
    SETTINGS,
    SPEC,
    Epoch,
    Machine,
    Preprocessing,
    RunRecord,
    Settings,
    read_record,
    read_settings,
    run_key,
)
from hiresnet_graph.train.request import RunRequest
from hiresnet_graph.train.steps import misfit, readouts
from hiresnet_graph.train.tensorboard import FOLDER as TENSORBOARD


@dataclass(frozen=True)
class Assignment:
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

    def record(self, course: Course, machine: Machine) -> RunRecord:
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

    def end(self, record: RunRecord, course: Course) -> None:
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


def assign(
    request: RunRequest, folder: Path, *, arch: Architecture | None = None, dataset: Dataset | None = None
) -> Assignment:
    """The run that is asked for, if network, data and recipe go together.

    Args:
        arch: The network of `request.spec`, if it is there already.
        dataset: The data of `request.data`, likewise.

    Raises:
        SpecError: The spec is wrong.
        UsageError: Network, data and recipe do not go together.
    """
    arch = arch or loads(request.spec, request.label)
    dataset = fit(dataset or load_dataset(request.data), arch.plan)
    recipe = _checked(request.recipe, dataset, arch.plan)
    plan, fingerprint = arch.plan.digest(), dataset.fingerprint()
    told = Settings(
        key=run_key(plan, recipe, request.seeds, fingerprint, kinds_of(arch.plan)),
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
    return Assignment(request, folder, arch, dataset, told)


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
