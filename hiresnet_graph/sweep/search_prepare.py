"""A search before training: its space, the trials in its folder, and how its runs will be computed.

`prepare_search` makes it; `hrg search --dry-run` prints it, and `search` trains it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from hiresnet_graph.errors import UsageError
from hiresnet_graph.spec.reader import parse
from hiresnet_graph.sweep.database import is_empty, open_for_reading
from hiresnet_graph.sweep.execution import ExecutionPlan
from hiresnet_graph.sweep.ledger import Ledger, StoredStudy, read_stored
from hiresnet_graph.sweep.options import ExecutionOptions, resume_execution
from hiresnet_graph.sweep.plan import StudyPlan
from hiresnet_graph.sweep.prepare import choose_execution
from hiresnet_graph.sweep.resources import device_kind
from hiresnet_graph.sweep.search_space import SearchSpace
from hiresnet_graph.sweep.search_trials import TRAINED, Trial, parse_trial
from hiresnet_graph.sweep.study import Study, read_study, study_of
from hiresnet_graph.train.record import LEDGER


class StoredSearch(NamedTuple):
    """What a folder holds before a search is resumed in it.

    Attributes:
        study: Its runs, and how they are computed.
        text: The study as a file; empty if there is none yet.
        trials: The proposals so far, by number.
    """

    study: StoredStudy = StoredStudy()
    text: str = ""
    trials: Mapping[int, Trial] = {}


@dataclass(frozen=True)
class PreparedSearch:
    """A checked search, compared with its folder.

    Attributes:
        folder: Folder of the search; None for none.
        stored: What the folder holds already.
    """

    space: SearchSpace
    folder: Path | None
    options: ExecutionOptions
    stored: StoredSearch

    def with_ledger(self, ledger: Ledger) -> PreparedSearch:
        """The same search, compared with the ledger that is open for writing.

        Raises:
            UsageError: The search does not fit the ledger.
        """
        trials = {number: parse_trial(content, ledger.folder / LEDGER) for number, content in ledger.trials().items()}
        study = ledger.stored(self.space.plan(self.space.first), accept_changes=True)
        prepared = dataclasses.replace(self, stored=StoredSearch(study, ledger.text, trials))
        if prepared.refusal:
            raise UsageError(prepared.refusal)
        return prepared

    @property
    def trained(self) -> int:
        """Number of runs that have ended."""
        trials = (trial for trial in self.stored.trials.values() if trial.outcome in TRAINED)
        return sum(len(trial.keys) for trial in trials if trial.outcome != "asked")

    @property
    def batch_runs(self) -> int:
        """Number of runs that may be trained at one time: those of a batch."""
        return self.space.search.batch * len(self.space.study.seed_pairs)

    @cached_property
    def devices(self) -> tuple[str, ...]:
        """The devices of the workers."""
        return self.options.devices(self._frozen)

    @property
    def _frozen(self) -> ExecutionPlan | None:
        return self.stored.study.execution

    @property
    def execution(self) -> ExecutionPlan:
        """How the runs are computed."""
        return self._choice[0]

    @property
    def message(self) -> str:
        """A sentence that lists the requested settings that are not applied; empty if all are."""
        return self._choice[1]

    @cached_property
    def _choice(self) -> tuple[ExecutionPlan, str]:
        layout = self.options.layouts(self.devices, self.batch_runs)[0]
        default = ExecutionPlan.of(self.space.study.recipe, device_kind(self.devices), layout)
        requested = choose_execution(default, self.options, self._frozen, None)
        return resume_execution(self._frozen, requested, self.options, self.devices, self.batch_runs)

    @cached_property
    def plans(self) -> Mapping[int, StudyPlan]:
        """The runs of each proposal so far, by number; those without a network are left out."""
        trials = self.stored.trials.items()
        return {number: self.space.plan(trial.params) for number, trial in trials if trial.outcome != "no-network"}

    @cached_property
    def refusal(self) -> str:
        """Why the search cannot be trained in its folder with these options; empty if it can."""
        if refusal := self.stored.study.refusal or self._another_search:
            return refusal
        if refusal := self.options.refusal(self._frozen, self.devices):
            return f"{self.folder}: {refusal}"
        for number, plan in self.plans.items():
            if tuple(row.key for row in plan.rows) != self.stored.trials[number].keys:
                return (
                    f"{self.folder} holds a search of other runs: its network, data, recipe or seeds have changed. "
                    "Choose another folder."
                )
        return ""

    @property
    def _another_search(self) -> str:
        """How the settings differ from those of the search in the folder, whose budget alone may be another."""
        if not self.stored.text:
            return ""
        stored = study_of(parse(self.stored.text, f"{self.folder}/{LEDGER}")).search
        if stored is None:
            return f"{self.folder} holds a study without a search. Choose another folder."
        for field in type(stored).model_fields:
            before, now = getattr(stored, field), getattr(self.space.search, field)
            if field != "runs" and before != now:
                return f"{self.folder} holds another search ({field}: {before}, now {now}). Choose another folder."
        return ""


def prepare_search(
    study: Study | str | Path, out: Path | str | None, options: ExecutionOptions | None = None
) -> PreparedSearch:
    """Check a search, and compare it with a folder. Nothing is written.

    Args:
        study: A study with `search`, or its file.
        out: Folder of the search, which need not exist; None for none.
        options: What is requested about the execution.

    Raises:
        SpecError: The search or its network is wrong.
        UsageError: An option is wrong, or the data are.
        RunError: The ledger in the folder cannot be read.
    """
    options = options or ExecutionOptions()
    options.check()
    options.devices()
    space = SearchSpace(read_study(study) if isinstance(study, str | Path) else study)
    folder = None if out is None else Path(out)
    return PreparedSearch(space, folder, options, StoredSearch() if folder is None else _read_stored(folder, space))


def _read_stored(folder: Path, space: SearchSpace) -> StoredSearch:
    study = read_stored(folder, space.plan(space.first), accept_changes=True)
    if study.refusal or not (folder / LEDGER).exists():
        return StoredSearch(study)
    with open_for_reading(folder / LEDGER, may_be_empty=True) as database:
        if is_empty(database):
            return StoredSearch(study)
        text = "".join(row[0] for row in database.execute("SELECT text FROM study"))
        rows = database.execute("SELECT number, content FROM trials ORDER BY number").fetchall()
    return StoredSearch(study, text, {number: parse_trial(content, folder / LEDGER) for number, content in rows})
