"""A requested run with everything that was checked before it starts, and the files of its folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from safetensors.torch import save

from hiresnet_graph.architecture import Architecture, loads
from hiresnet_graph.data import DatasetKind, data_source, load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.files import make_folder, write_atomic
from hiresnet_graph.train.checkpoint import Checkpoint, delete_checkpoints, load_checkpoint
from hiresnet_graph.train.checks import (
    check_batch_size,
    check_class_weights,
    check_loss_steps,
    check_smallest_batch,
    match_input,
)
from hiresnet_graph.train.continuation import continue_run, has_state
from hiresnet_graph.train.differences import differences
from hiresnet_graph.train.events import Files
from hiresnet_graph.train.identity import identify_network, identify_run
from hiresnet_graph.train.optimizer_state import from_tensors
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import (
    BEST,
    LAST,
    METRICS,
    OPTIMIZER,
    RESULT,
    RUN_FILES,
    SETTINGS,
    SPEC,
    Environment,
    Epoch,
    Preprocessing,
    RunRecord,
    Settings,
    has_run,
    read_record,
    read_settings,
    weights_file,
)
from hiresnet_graph.train.request import RunRequest
from hiresnet_graph.train.state import TrainingState, Weights
from hiresnet_graph.train.tensorboard import delete_curves


class InMemoryData(DatasetKind):
    """Stands for a data set that was passed in memory and cannot be loaded again."""

    kind: ClassVar[str] = "memory"

    def load(self) -> Dataset:
        """Always fails: there is nothing to load.

        Raises:
            UsageError: Always.
        """
        raise UsageError("this run was trained on images in memory, which no file contains. Pass them again.")


def stored_source(settings: Settings | None) -> DatasetKind | None:
    """The data set of a run from its settings; None if it was passed in memory."""
    if settings is None or settings.source is None or settings.source["kind"] == InMemoryData.kind:
        return None
    return data_source(settings.source)


@dataclass(frozen=True)
class PreparedRun:
    """A requested run that can be trained: its network, its data, and its folder.

    Attributes:
        dataset: With images in the input shape of the network.
        settings: What the folder records of the run when it starts, with the resolved recipe.
    """

    request: RunRequest
    folder: Path
    arch: Architecture
    dataset: Dataset
    settings: Settings

    @property
    def recipe(self) -> Recipe:
        """The recipe as it is for this data set and network."""
        return self.settings.recipe

    @property
    def key(self) -> str:
        """The key of the run."""
        return self.settings.key

    def initial_weights(self) -> Weights | None:
        """The tensors that replace random ones when the run starts; None if it starts from random weights.

        Raises:
            RunError: Their file cannot be read, or has changed.
            UsageError: They do not fit the network.
        """
        weights = self.request.weights
        return None if weights is None else weights.fit(self.arch.plan).tensors

    def finished_record(self, *, fresh: bool = False) -> RunRecord | None:
        """The record of this run, if it is already finished in the folder and is not to start over.

        Args:
            fresh: Start over, replacing any run in the folder.

        Raises:
            UsageError: The folder holds another run, or files that are not of a run; or the run would replace the
                weights that it starts from.
        """
        if fresh:
            self._check_replaceable()
            return None
        folder, found = self.folder, read_record(self.folder)
        self._refuse_other_files()
        if found is not None and found.key == self.key:
            return found
        for old in (found, read_settings(folder)):
            if old is not None and old.key != self.key and (reason := self._not_continued(old)) is not None:
                raise UsageError(
                    f"{folder} holds another run: {'; '.join(differences(old, self.settings))}.{reason} Choose "
                    "another folder, or start over in this one with 'hrg train --fresh'."
                )
        return None

    def _not_continued(self, old: RunRecord | Settings) -> str | None:
        """Why a run cannot be continued as this one: a sentence, empty if it is not a shorter one; None if it can."""
        epochs = old.recipe.epochs
        recipe = self.recipe.model_copy(update={"epochs": epochs})
        shorter = identify_run(
            identify_network(self.arch.plan), recipe, self.request.seeds, self.dataset, self.request.weights
        )
        if epochs > self.recipe.epochs or old.key != shorter.key:
            return ""
        if not recipe.has_fixed_rates:
            return f" It cannot be continued: with '{recipe.schedule}', all rates depend on the number of epochs."
        if isinstance(old, RunRecord) and old.outcome != "complete":
            return f" It cannot be continued: it has {old.outcome}."
        if isinstance(old, RunRecord) and not has_state(self.folder) and load_checkpoint(self.folder) is None:
            return f" It cannot be continued: '{OPTIMIZER}' is missing."
        return None

    def continue_shorter(self) -> None:
        """If the folder holds a shorter run, which `finished_record` has accepted, let this one start at its end."""
        old = [found for found in (read_record(self.folder), read_settings(self.folder)) if found is not None]
        shorter = {found.key for found in old if found.key != self.key}
        checkpoint = load_checkpoint(self.folder)
        if shorter and (checkpoint is None or checkpoint.counters.key in shorter):
            continue_run(self.folder, self.folder, self.key)

    def _refuse_other_files(self) -> None:
        """Refuse a folder with a file that would be replaced and that no run has written.

        Raises:
            UsageError: There is one.
        """
        folder = self.folder
        if not has_run(folder):
            for name in RUN_FILES:
                if (folder / name).exists():
                    raise UsageError(
                        f"{folder} holds no run, but a file '{name}', which a run would replace. Choose another "
                        "folder, or move this file."
                    )

    def clear_folder(self) -> None:
        """Delete the files of the run in the folder, and nothing else: in a folder without a run, nothing at all.

        Raises:
            UsageError: As for `finished_record`.
            RunError: A file cannot be deleted.
        """
        self._check_replaceable()
        if not has_run(self.folder):
            return
        try:
            delete_checkpoints(self.folder)
            delete_curves(self.folder)
            for name in RUN_FILES:
                (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"{error.filename or self.folder}: cannot be deleted: {error.strerror}.") from error

    def _check_replaceable(self) -> None:
        folder = self.folder
        self._refuse_other_files()
        source = None if self.request.weights is None else weights_file(Path(self.request.weights.source)).resolve()
        if source is not None and source in {folder.resolve() / name for name in RUN_FILES}:
            raise UsageError(
                f"{folder} holds the weights that this run starts from, and starting over would delete them. Choose "
                "another folder."
            )

    def check_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Check that a checkpoint belongs to this run.

        Raises:
            UsageError: It belongs to another run, or has the state of an optimizer for other parameters.
        """
        if checkpoint.counters.key != self.key:
            raise UsageError(
                f"{self.folder} holds checkpoints of another run. Choose another folder, or delete this one."
            )
        parameters = {name for name, tensor in self.arch.plan.tensors().items() if tensor.trainable}
        if unknown := sorted(from_tensors(checkpoint.tensors).keys() - parameters):
            raise UsageError(
                f"{self.folder}: its checkpoint has the state of the optimizer for '{unknown[0]}', which is no "
                "parameter of the network: it was not written by this version. Choose another folder, or start over "
                "in this one with 'hrg train --fresh'."
            )

    def write_start(self, epochs: Iterable[Epoch]) -> None:
        """Write the settings, the spec, and the metrics of the epochs that are already done."""
        make_folder(self.folder)
        write_atomic(self.folder / SETTINGS, (self.settings.model_dump_json(indent=2) + "\n").encode())
        write_atomic(self.folder / SPEC, self.arch.to_yaml().encode())
        write_atomic(self.folder / METRICS, "".join(map(_metrics_lines, epochs)).encode())

    def append_metrics(self, epoch: Epoch) -> None:
        """Append an epoch to the metrics."""
        path = self.folder / METRICS
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(_metrics_lines(epoch))
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror}.") from error

    def make_record(self, state: TrainingState, environment: Environment) -> RunRecord:
        """The record of the run when it has ended."""
        settings, cost, best = self.settings, self.arch.cost(), state.best
        at_best, at_last = state.test_scores or (None, None)
        mean, std = (tuple(level_C11.flatten().tolist()) for level_C11 in self.dataset.channel_stats)
        shape, names = tuple(self.dataset.shape), self.dataset.class_names
        return RunRecord(
            key=settings.key,
            architecture=settings.architecture,
            variant=settings.variant,
            seeds=settings.seeds,
            data=settings.data,
            data_fingerprint=settings.data_fingerprint,
            duplicates=self.dataset.duplicates,
            recipe=settings.recipe,
            plan=settings.plan,
            parameters=cost.parameters,
            macs=cost.macs,
            outcome="complete" if at_best else "diverged",
            diverged_at=state.diverged_at,
            best_epoch=best.epoch if best and at_best else None,
            validation_accuracy=best.validation_accuracy if best and at_best else None,
            test_accuracy=at_best.accuracy if at_best else None,
            test_top_k=at_best.top_k if at_best else None,
            last_test_accuracy=at_last.accuracy if at_last else None,
            last_test_top_k=at_last.top_k if at_last else None,
            epochs=tuple(state.epochs),
            machine=environment,
            time_s=round(state.time_s, 3),
            preprocessing=Preprocessing(shape=shape, mean=mean, std=std, class_names=names),
            weights=settings.weights,
        )

    def write_result(self, record: RunRecord, state: TrainingState, final: Checkpoint | None) -> None:
        """Write the weights, the state of the optimizer and then the record; delete the checkpoints.

        Args:
            final: Of the end of the run, if it is complete.
        """
        if final is not None:
            rest = {
                name: value.detach().cpu().contiguous()
                for name, value in final.tensors.items()
                # Random numbers are seeded in each epoch, and norms of gradients start at 0.
                if not name.startswith(("model.", "best.", "noise.", "gradients."))
            }
            write_atomic(self.folder / LAST, save(state.last_weights))
            write_atomic(self.folder / BEST, save(state.best_weights))
            write_atomic(self.folder / OPTIMIZER, save(rest))
        write_atomic(self.folder / RESULT, (record.model_dump_json(indent=2) + "\n").encode())
        delete_checkpoints(self.folder)

    def result_files(self) -> Files:
        """The files of the finished run."""
        return tuple(
            (name, (self.folder / name).read_bytes()) for name in reversed(RUN_FILES) if (self.folder / name).exists()
        )


def prepare_run(
    request: RunRequest,
    folder: Path,
    *,
    arch: Architecture | None = None,
    dataset: Dataset | None = None,
    processes: int = 1,
) -> PreparedRun:
    """The requested run, after checking that network, data and recipe go together.

    Args:
        arch: The network of `request.spec`, if it is loaded already.
        dataset: The data of `request.data`, if they are loaded already.
        processes: Number of processes that share each batch.

    Raises:
        SpecError: The spec is wrong.
        UsageError: Network, data and recipe do not go together.
    """
    arch = arch or loads(request.spec, request.label)
    dataset = match_input(dataset or load_dataset(request.data), arch.plan, request.recipe.outputs)
    if error := (
        check_batch_size(request.recipe, dataset)
        or check_loss_steps(request.recipe, arch.plan)
        or check_class_weights(request.recipe, dataset)
        or check_smallest_batch(request.recipe, dataset, arch.plan, processes)
    ):
        raise UsageError(f"recipe: {error}")
    identity = identify_run(identify_network(arch.plan), request.recipe, request.seeds, dataset, request.weights)
    settings = Settings(
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
        weights=request.weights,
    )
    return PreparedRun(request, folder, arch, dataset, settings)


def _metrics_lines(epoch: Epoch) -> str:
    """The lines of an epoch in metrics.jsonl: one for each part of the data."""
    train = {"epoch": epoch.epoch, "split": "train", "loss": epoch.train_loss, "accuracy": epoch.train_accuracy}
    train |= {"lr": epoch.lr, "time_s": epoch.time_s}
    train |= {} if epoch.gradient_norms is None else {"gradient_norms": epoch.gradient_norms}
    validation = {
        "epoch": epoch.epoch,
        "split": "validation",
        "loss": epoch.validation_loss,
        "accuracy": epoch.validation_accuracy,
        "top_k": epoch.validation_top_k,
    }
    return f"{json.dumps(train)}\n{json.dumps(validation)}\n"
