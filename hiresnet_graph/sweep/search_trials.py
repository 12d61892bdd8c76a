"""The trials of a search: what its sampler proposed, and what came of it, as the ledger stores them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hiresnet_graph.errors import RunError
from hiresnet_graph.spec.problems import explain
from hiresnet_graph.sweep.database import RESTORE_HINT, open_for_reading
from hiresnet_graph.train.record import LEDGER

Outcome = Literal["asked", "complete", "diverged", "pruned", "known", "too-large", "no-network"]
TRAINED: tuple[Outcome, ...] = ("asked", "complete", "diverged", "pruned")
"""The outcomes of proposals that have runs of their own."""


class Trial(BaseModel):
    """A proposal, as the ledger stores it.

    Attributes:
        params: Choices of the sampler.
        outcome: `asked` while it is trained; `diverged` if one of its runs was; `known` if an earlier trial had the
            same network; `too-large` or `no-network` (its edges make no valid network) if it is not trained.
        label: The edges of the network, as an edge set.
        setting: The other choices.
        keys: Keys of its runs.
        values: One for each objective; empty if it was pruned, has diverged, or was not trained.
        memory: State that the sampler keeps with the trial.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    params: dict[str, Any]
    outcome: Outcome
    label: str
    setting: dict[str, Any]
    parameters: int
    macs: int
    keys: tuple[str, ...]
    values: tuple[float, ...] = ()
    memory: dict[str, Any] = Field(default_factory=dict)


def read_trials(folder: Path | str) -> tuple[Trial, ...]:
    """All proposals of the search in a folder, in order, including those that were not trained.

    Raises:
        RunError: The ledger of the folder cannot be read.
    """
    with open_for_reading(Path(folder) / LEDGER) as database:
        rows = database.execute("SELECT content FROM trials ORDER BY number").fetchall()
    return tuple(parse_trial(content, Path(folder) / LEDGER) for (content,) in rows)


def parse_trial(content: str, path: Path) -> Trial:
    """A trial from its JSON in the ledger at a path.

    Raises:
        RunError: It is not of this version.
    """
    try:
        return Trial.model_validate_json(content)
    except ValidationError as error:
        raise RunError(f"{path}: a trial in it is not of this version ({explain(error)[0]}). {RESTORE_HINT}") from None
