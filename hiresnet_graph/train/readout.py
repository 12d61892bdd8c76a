"""A trained network in time, evaluated at other readout steps than in training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from torch import nn

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.errors import SpecError, UsageError
from hiresnet_graph.lower.recurrent import Recurrent
from hiresnet_graph.passes.timing import timing
from hiresnet_graph.train.evaluation import Part, Scores, evaluate
from hiresnet_graph.train.record import RunRecord
from hiresnet_graph.train.trained import dataset_of_run, open_trained

Past = Literal["error", "last"]


class ReadoutPoint(NamedTuple):
    """A network at one readout step.

    Attributes:
        step: Counted from 0.
        trained: Whether it was a readout step in training.
        scores: Loss, and accuracies from 0 to 1; None if the step cannot be read out.
        reason: Why it cannot; else empty.
    """

    step: int
    trained: bool
    scores: Scores | None
    reason: str = ""


def evaluate_steps(
    folder: Path,
    record: RunRecord,
    arch: Architecture,
    load: Callable[[Architecture], nn.Module],
    steps: Iterable[int] | None,
    *,
    part: Part,
    past: Past | None,
    data: Dataset | None,
    device: str,
) -> tuple[ReadoutPoint, ...]:
    """The scores of the network of a run at some steps: see `Run.readout`.

    Args:
        load: Builds a network with the weights of the run.
    """
    if arch.plan.folded is None:
        raise UsageError(f"{folder}: '{arch.title}' does not run in time, so it has no steps to read out.")
    in_training = timing(arch.plan.folded)
    selected = range((in_training.smallest or 1) - 1, in_training.steps) if steps is None else sorted(set(steps))
    if not selected or selected[0] < 0:
        raise UsageError(f"steps: expected one step or more, counted from 0, not {list(selected)}.")
    dataset, recipe = dataset_of_run(folder, record, arch, data), record.recipe
    if past is not None:
        arch = arch.override({"time.past": past})
    what = f"{folder}, read out at other steps"
    with open_trained(what, arch, load, dataset, recipe, device=device, threads=record.machine.threads) as network:
        assert isinstance(network.module, Recurrent)
        readers, reasons = _readers(network.module, selected)
        scores: dict[int, Scores] = {}
        for reader in readers:
            top = min(recipe.top_k, dataset.classes)
            found = evaluate(partial(network.logits, reader), network.batches(part), top)
            assert found is not None
            scores |= dict(zip(reader.readouts, found, strict=True))
    return tuple(
        ReadoutPoint(step, step in in_training.readouts, scores.get(step), reasons.get(step, "")) for step in selected
    )


def _readers(module: Recurrent, steps: Collection[int]) -> tuple[list[Recurrent], dict[int, str]]:
    """Modules that read out the steps, a single one if possible; and why the other steps cannot be read out."""
    together = _reader(module, steps)
    if together is not None:
        return [together], {}
    separate: dict[int, Recurrent] = {}
    reasons: dict[int, str] = {}
    for step in steps:
        try:
            separate[step] = module.at(steps=step + 1, readout=step)
        except UsageError as error:
            reasons[step] = str(error)
        except SpecError as error:
            reasons[step] = error.problems[0].message
    together = _reader(module, separate)
    return ([together] if together is not None else list(separate.values())), reasons


def _reader(module: Recurrent, steps: Collection[int]) -> Recurrent | None:
    """The module that reads out all steps in one pass; None if some of its tensors are missing."""
    try:
        reader = module.at(steps=max(steps, default=0) + 1, readout="all")
    except (UsageError, SpecError):
        return None
    return reader if set(steps) <= set(reader.readouts) else None
