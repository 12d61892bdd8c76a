"""A trained network in time, evaluated at other readout steps than in training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Literal, NamedTuple

from hiresnet_graph.errors import SpecError, UsageError
from hiresnet_graph.lower.recurrent import Recurrent
from hiresnet_graph.passes.timing import timing
from hiresnet_graph.train.evaluation import Part, Scores, evaluate
from hiresnet_graph.train.trained import TrainedNetwork

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
    network: TrainedNetwork, steps: Iterable[int] | None = None, *, part: Part = "test", past: Past | None = None
) -> tuple[ReadoutPoint, ...]:
    """The scores of a trained network at some steps: see `Run.readout`.

    Raises:
        UsageError: The network does not run in time, or no steps are given.
    """
    folded, recipe = network.arch.plan.folded, network.recipe
    if folded is None:
        raise UsageError(f"'{network.arch.title}' does not run in time, so it has no steps to read out.")
    in_training = timing(folded)
    selected = range((in_training.smallest or 1) - 1, in_training.steps) if steps is None else sorted(set(steps))
    if not selected or selected[0] < 0:
        raise UsageError(f"steps: expected one step or more, counted from 0, not {list(selected)}.")
    assert isinstance(network.module, Recurrent)
    readers, reasons = _readers(partial(network.module.at, past=past), selected)
    scores: dict[int, Scores] = {}
    for reader in readers:
        top = min(recipe.top_k, network.loader.dataset.classes)
        found = evaluate(partial(network.logits, reader), network.batches(part), top)
        assert found is not None
        scores |= dict(zip(reader.readouts, found, strict=True))
    return tuple(
        ReadoutPoint(step, step in in_training.readouts, scores.get(step), reasons.get(step, "")) for step in selected
    )


def _readers(at: Callable[..., Recurrent], steps: Collection[int]) -> tuple[list[Recurrent], dict[int, str]]:
    """Modules that read out the steps, a single one if possible; and why the other steps cannot be read out."""
    together = _reader(at, steps)
    if together is not None:
        return [together], {}
    separate: dict[int, Recurrent] = {}
    reasons: dict[int, str] = {}
    for step in steps:
        try:
            separate[step] = at(steps=step + 1, readout=step)
        except UsageError as error:
            reasons[step] = str(error)
        except SpecError as error:
            reasons[step] = error.problems[0].message
    together = _reader(at, separate)
    return ([together] if together is not None else list(separate.values())), reasons


def _reader(at: Callable[..., Recurrent], steps: Collection[int]) -> Recurrent | None:
    """The module that reads out all steps in one pass; None if some of its tensors are missing."""
    try:
        reader = at(steps=max(steps, default=0) + 1, readout="all")
    except (UsageError, SpecError):
        return None
    return reader if set(steps) <= set(reader.readouts) else None
