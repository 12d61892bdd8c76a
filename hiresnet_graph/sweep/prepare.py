"""A study before training: its networks and runs, which of them are finished, and how the others will be computed.

`prepare_study` makes it; `hrg ablate --dry-run` prints it, and `ablate` trains it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hiresnet_graph.data import load_dataset
from hiresnet_graph.errors import MissingDataError, RunError, UsageError
from hiresnet_graph.formats import format_count
from hiresnet_graph.sweep.calibration import Calibration, CalibrationResult, Measurement, estimate_disk_bytes
from hiresnet_graph.sweep.database import FINAL
from hiresnet_graph.sweep.execution import ExecutionPlan
from hiresnet_graph.sweep.folders import folder_names
from hiresnet_graph.sweep.ledger import Ledger, RunState, StoredStudy, read_stored
from hiresnet_graph.sweep.networks import Networks, networks_of
from hiresnet_graph.sweep.options import AUTO, ExecutionOptions, resume_execution
from hiresnet_graph.sweep.plan import StudyPlan, make_plan
from hiresnet_graph.sweep.resources import device_kind, memory_budget
from hiresnet_graph.sweep.stacks import RunGroup, RunStack, find_groups, stack_runs
from hiresnet_graph.sweep.study import Study, read_study
from hiresnet_graph.train.record import START, Backend, Cursor, stored_cursors

if TYPE_CHECKING:
    from hiresnet_graph.data.dataset import Dataset


@dataclass(frozen=True)
class PreparedStudy:
    """A checked study, compared with its folder.

    What depends on the folder or on measurements is computed on first access, and once.

    Attributes:
        dataset: The data; None if they are not on this machine: then it is unknown which runs are finished.
        data_error: Why the data cannot be loaded; else empty.
        stored: What the folder holds already.
        calibrates: Whether throughput may be measured.
        measuring: Called before the first measurement.
    """

    study: Study
    networks: Networks
    plan: StudyPlan
    dataset: Dataset | None
    data_error: str
    folder: Path | None
    options: ExecutionOptions
    stored: StoredStudy
    calibrates: bool = True
    measuring: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<PreparedStudy {self.plan.name}: {len(self.missing)} of {len(self.plan.requests)} runs to train>"

    def with_ledger(self, ledger: Ledger, *, accept_changes: bool = False) -> PreparedStudy:
        """The same study, compared with the ledger that is open for writing.

        Raises:
            UsageError: The study does not fit the ledger.
        """
        prepared = dataclasses.replace(self, stored=ledger.stored(self.plan, accept_changes=accept_changes))
        if prepared.refusal:
            raise UsageError(prepared.refusal)
        return prepared

    @property
    def knows_classes(self) -> bool:
        """Whether the networks were checked against the number of classes: some data sets state it beforehand."""
        return self.dataset is not None or self.study.data_source().known_classes is not None

    # ---- runs

    @property
    def total(self) -> int:
        """Number of runs; a run that several variants share counts once."""
        return len(self.plan.requests)

    @cached_property
    def finished(self) -> frozenset[str]:
        """Keys of all finished runs in the folder, those of earlier plans included."""
        return frozenset(key for key, run in self.stored.runs.items() if run.state in FINAL)

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """Keys of the runs to train, in this order."""
        return tuple(key for key in self.plan.requests if key not in self.finished)

    @property
    def done(self) -> int:
        """Number of finished runs of the study."""
        return self.total - len(self.missing)

    @property
    def disk_bytes(self) -> int:
        """Estimated size of the files that the missing runs will write."""
        running = self.execution.workers * self.execution.stack
        return estimate_disk_bytes(self.networks, self.plan, self.missing, running)

    # ---- execution

    @cached_property
    def refusal(self) -> str:
        """Why the study cannot be trained in its folder with these options; empty if it can."""
        if self.stored.refusal:
            return self.stored.refusal
        refusal = self.options.refusal(self.stored.execution, self.devices)
        return f"{self.folder}: {refusal}" if refusal else ""

    @property
    def _frozen(self) -> ExecutionPlan | None:
        return None if self.stored.refusal else self.stored.execution

    @cached_property
    def devices(self) -> tuple[str, ...]:
        """The devices of the workers."""
        return self.options.devices(self._frozen)

    @cached_property
    def groups(self) -> Sequence[RunGroup]:
        """The groups of runs that may be computed together; empty if each run is computed by itself."""
        if self.options.stack_size == 1 and (self._frozen is None or self._frozen.backend == "eager"):
            return ()
        members = {row.key: self.networks.members[row.network] for row in reversed(self.plan.rows)}
        return find_groups({key: members[key] for key in self.plan.requests}, self.study.group)

    @cached_property
    def _calibration(self) -> Calibration | None:
        if self.dataset is None or not self.missing or not self.calibrates or self.refusal:
            return None
        if self.options.executor != "local":  # the workers are other machines
            return None
        return Calibration(
            self.networks, self.plan, self.groups, self.dataset, self.remaining, self.devices, self._default
        )

    @cached_property
    def _default(self) -> ExecutionPlan:
        """Each run by itself, in the default layout."""
        layout = self.options.layouts(self.devices, len(self.missing))[0]
        recipe = next(iter(self.plan.requests.values())).recipe
        return ExecutionPlan.of(recipe, device_kind(self.devices), layout)

    @cached_property
    def calibration_result(self) -> CalibrationResult | None:
        """How the fastest plan was measured; None if the options or the folder determine the plan."""
        if self._frozen is not None or self.options.stack_size is not None or self._calibration is None:
            return None
        self.measuring()
        return self._calibration.choose(self.options.layouts(self.devices, len(self.missing)))

    @cached_property
    def _choice(self) -> tuple[ExecutionPlan, str]:
        requested = choose_execution(self._default, self.options, self._frozen, self.calibration_result)
        return resume_execution(self._frozen, requested, self.options, self.devices, len(self.missing))

    @property
    def execution(self) -> ExecutionPlan:
        """How the runs are computed."""
        return self._choice[0]

    @cached_property
    def stacks(self) -> tuple[RunStack, ...]:
        """The missing runs that are computed together."""
        execution = self.execution
        if execution.backend == "eager":
            return ()
        return stack_runs(
            self.groups,
            self.missing,
            execution.backend,
            execution.stack,
            budget=memory_budget(self.devices, execution.workers),
            is_resumed=self._frozen is not None,
            cursors=self._cursors,
        )

    @cached_property
    def continued(self) -> Mapping[str, Path]:
        """The folders of the shorter runs that missing runs continue, by the keys of these."""
        return {key: shorter.folder for key, shorter in self._shorter.items()}

    @cached_property
    def _shorter(self) -> Mapping[str, RunState]:
        """The shorter runs that missing runs continue, by the keys of these."""
        runs, found = self.stored.runs, dict[str, RunState]()
        lengths = sorted({run.epochs for run in runs.values()}, reverse=True)
        for key in self.missing:
            if key in runs and self._is_started(runs[key]):
                continue  # it resumes from its own checkpoint
            own = self.plan.requests[key].recipe.epochs
            for epochs in (length for length in lengths if length < own):
                shorter = runs.get(self.plan.key_with_epochs(key, epochs))
                if shorter is None or not self.plan.continues(key, shorter.key, epochs):
                    continue
                if shorter.state == "complete" or (shorter.state == "waiting" and self._is_started(shorter)):
                    found[key] = shorter
                    break
        return found

    def _is_started(self, run: RunState) -> bool:
        """Whether a run has a folder; a ledger that was made again does not know its attempts."""
        return run.attempts > 0 or run.folder.name in self._folders

    @cached_property
    def _folders(self) -> set[str]:
        runs = next(iter(self.stored.runs.values()), None)
        return set() if runs is None else folder_names(runs.folder.parent)

    @cached_property
    def resumed(self) -> tuple[str, ...]:
        """Keys of the missing runs that resume from checkpoints of their own."""
        runs = self.stored.runs
        started = (key for key in self.missing if key in runs and self._is_started(runs[key]))
        return tuple(key for key in started if stored_cursors(runs[key].folder))

    @cached_property
    def remaining(self) -> Mapping[str, int]:
        """The epochs that are left of each missing run, in the order of training.

        Those of the shorter run that it continues, or of its last checkpoint, are done.
        """
        found = {}
        for key in self.missing:
            start = self._shorter.get(key) or self.stored.runs.get(key)
            found[key] = max(0, self.plan.requests[key].recipe.epochs - (_finished_epochs(start) if start else 0))
        return found

    def _cursors(self, key: str) -> set[Cursor]:
        from hiresnet_graph.train.checkpoint import resume_points
        from hiresnet_graph.train.continuation import end_cursors

        run = self.stored.runs.get(key)
        try:
            if key in self.continued:
                return end_cursors(self.continued[key])
            return resume_points(run.folder) if run is not None and self._is_started(run) else {START}
        except (RunError, OSError):  # its worker will report that
            return {START}

    @cached_property
    def estimate(self) -> Measurement | None:
        """The measured time of the missing runs; None if nothing was measured."""
        if self.calibration_result is not None:
            return self.calibration_result.chosen
        if self._calibration is None:
            return None
        self.measuring()
        return self._calibration.estimate(self.execution)

    @property
    def measured_label(self) -> str:
        """Label of the network that is measured."""
        return "" if self._calibration is None else self._calibration.label

    # ---- messages

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is valid and possibly unintended in the data, the networks and the recipes, in sentences."""
        data = self.dataset.remarks() if self.dataset is not None else ()
        return (*data, *self.networks.remarks(), *self._speed_remarks)

    @property
    def _speed_remarks(self) -> tuple[str, ...]:
        from hiresnet_graph.train.environment import speed_remarks

        if self.options.executor != "local" or not self.missing:
            return ()
        precisions = {self.plan.requests[key].recipe.precision for key in self.missing}
        return speed_remarks(self.devices[0], precisions)

    @property
    def messages(self) -> tuple[str, ...]:
        """What the user should know before training, in sentences."""
        found = [self._choice[1]]
        if self.calibration_result is not None:
            found.append(str(self.calibration_result))
        found.append(self.stacking)
        if more := len(self.continued):
            found.append(
                f"{format_count(more, 'run')} continue{'s' if more == 1 else ''} where a shorter one has ended."
            )
        asked = {key for key, request in self.plan.requests.items() if request.recipe.record_gradients}
        if lacking := len((asked & self.finished) - self.stored.recording):
            verb, pronoun = ("was", "it is") if lacking == 1 else ("were", "they are")
            found.append(
                f"{format_count(lacking, 'finished run')} {verb} trained without 'record_gradients', and {pronoun} not "
                "trained again for it. Train the study in another folder: results stay the same."
            )
        if self.options.stack == AUTO and self._frozen is None and self.options.executor != "local":
            found.append("Each run is computed by itself: 'auto' measures workers of this machine only.")
        begun = {key for key, run in self.stored.runs.items() if run.attempts}
        if outside := len(begun - self.plan.requests.keys()):
            verb = "is" if outside == 1 else "are"
            found.append(f"{format_count(outside, 'run')} of an earlier plan {verb} kept, and left out of the results.")
        return tuple(filter(None, found))

    @property
    def stacking(self) -> str:
        """How many of the missing runs are computed together, as a sentence; empty if that was not requested."""
        runs = len(self.missing)
        if self.execution.backend == "eager" or not runs:
            return ""
        sizes = [len(stack.keys) for stack in self.stacks]
        if not sizes:
            recipes = (request.recipe for request in self.plan.requests.values())
            fields = dict.fromkeys(field for recipe in recipes for field in recipe.unstacked_fields)
            named = ", ".join(f"'{field}'" for field in fields)
            reason = f"{named} in the recipe" if fields else "other networks, or memory is too small"
            return f"Each run is computed by itself: no two runs can be stacked ({reason})."
        together, alone = sum(sizes), runs - sum(sizes)
        programs = format_count(len(sizes), "program") + (f" of at most {max(sizes)}" if len(sizes) > 1 else "")
        text = f"{format_count(together, 'run')} as {programs} ({self.execution.backend})"
        return f"{text}, {alone} by {'itself' if alone == 1 else 'themselves'}." if alone else f"{text}."


def prepare_study(
    study: Study | str | Path,
    out: Path | str | None,
    options: ExecutionOptions | None = None,
    *,
    accept_changes: bool = False,
    calibrates: bool = True,
    measuring: Callable[[], None] = lambda: None,
) -> PreparedStudy:
    """Check a study, compile its networks, and compare it with a folder. Nothing is written.

    Args:
        study: A study; or its file, or the name of a shipped one.
        out: Folder of the study, which need not exist; None for none.
        options: What is requested about the execution.
        accept_changes: A label may refer to another network, or a run to other settings, than in the folder.
        calibrates: Whether throughput may be measured, which takes about 20 seconds.
        measuring: Called before the first measurement.

    Raises:
        SpecError: The study or one of its networks is wrong.
        UsageError: An option is wrong, or the data are.
        RunError: The ledger in the folder cannot be read.
    """
    options = options or ExecutionOptions()
    options.check()
    options.devices()
    if isinstance(study, str | Path):
        study = read_study(study)
    networks, source = networks_of(study), study.data_source()
    dataset, data_error = None, ""
    try:
        dataset = load_dataset(source)
    except MissingDataError as error:
        data_error = str(error)
    plan = make_plan(study, networks, source, dataset)
    stored = read_stored(out, plan, accept_changes=accept_changes) if out is not None else StoredStudy()
    if dataset is None:  # without the data, the keys of runs are unknown
        stored = stored._replace(runs={})
    folder = None if out is None else Path(out)
    return PreparedStudy(study, networks, plan, dataset, data_error, folder, options, stored, calibrates, measuring)


def _finished_epochs(run: RunState) -> int:
    if run.state == "complete":
        return run.epochs
    cursors = stored_cursors(run.folder) if run.attempts else ()
    return cursors[0][0] if cursors else 0


def choose_execution(
    default: ExecutionPlan,
    options: ExecutionOptions,
    frozen: ExecutionPlan | None,
    calibration: CalibrationResult | None,
) -> ExecutionPlan:
    """The execution plan that the options request.

    Args:
        default: Each run by itself, in the default layout.
        frozen: The plan of the resumed study, which holds where the options leave a choice.
        calibration: The measured choice, if there is one.
    """
    layout = default.layout
    stacked: Backend = "stacked"
    if frozen is not None:
        layout = layout._replace(threads=options.threads or frozen.threads)
        if options.stack in (None, AUTO):
            return default.using(layout, frozen.backend, frozen.stack)
        if frozen.backend != "eager":
            stacked = frozen.backend
    size = options.stack_size
    if size is not None:
        return default.using(layout, stacked if size > 1 else "eager", size)
    return default if calibration is None else calibration.plan
