"""A trained network in time, read out at other steps than in training."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from hiresnet_graph.data import data_source, load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.data.loader import Loader
from hiresnet_graph.errors import RunError, SpecError, UsageError
from hiresnet_graph.lower.recurrent import Recurrent
from hiresnet_graph.passes.timing import timing
from hiresnet_graph.train.checks import match_input
from hiresnet_graph.train.environment import choose_device, settings
from hiresnet_graph.train.evaluation import BATCH, Scores, evaluate
from hiresnet_graph.train.record import read_settings
from hiresnet_graph.train.single import InMemory
from hiresnet_graph.train.trainer import memory_errors, memory_format_of, placed, scores_of

if TYPE_CHECKING:
    from hiresnet_graph.train.run_folder import Run

Part = Literal["test", "validation"]
Past = Literal["error", "last"]


class ReadoutPoint(NamedTuple):
    """A network that is read out at one step.

    Attributes:
        step: Counted from 0.
        trained: Whether it was read out there in training.
        scores: Loss, and accuracies from 0 to 1; None if it cannot be read out there.
        reason: Why not; empty if it can.
    """

    step: int
    trained: bool
    scores: Scores | None
    reason: str = ""


def read_out(
    run: Run,
    steps: Iterable[int] | None = None,
    *,
    part: Part = "test",
    which: Literal["best", "last"] = "best",
    past: Past | None = None,
    data: Dataset | None = None,
    device: str = "auto",
) -> tuple[ReadoutPoint, ...]:
    """How good the network of a run is at each of some steps: see `Run.readout`."""
    arch = run.architecture
    if arch.plan.folded is None:
        raise UsageError(f"{run.folder}: '{arch.title}' does not run in time, so there are no steps to read it out at.")
    found = timing(arch.plan.folded)
    wanted = range((found.smallest or 1) - 1, found.steps) if steps is None else sorted(set(steps))
    if not wanted or wanted[0] < 0:
        raise UsageError(f"steps: some are wanted, counted from 0, not {list(wanted)}.")
    dataset = _fitted(run, data)
    recipe, where = run.record.recipe, choose_device(device)
    if past is not None:
        arch = arch.override({"time.past": past})
    with (
        memory_errors(f"{run.folder}, read out at other steps"),
        torch.no_grad(),
        settings(where, run.record.machine.threads, recipe.precision == "tf32"),
    ):
        module = placed(run.loaded(arch, which), where, memory_format_of(recipe))
        assert isinstance(module, Recurrent)
        loader = Loader(dataset, device=where, memory_format=memory_format_of(recipe))
        readers, reasons = _readers(module, wanted)
        scores: dict[int, Scores] = {}
        for reader in readers:
            batches = loader.evaluation(part, BATCH[where.type])
            top = min(recipe.top_k, dataset.classes)
            seen = evaluate(partial(scores_of, reader, recipe=recipe), batches, top)
            assert seen is not None
            scores |= dict(zip(reader.readouts, seen, strict=True))
    return tuple(ReadoutPoint(step, step in found.readouts, scores.get(step), reasons.get(step, "")) for step in wanted)


def data_of(run: Run) -> Dataset:
    """The data that a run was trained on.

    Raises:
        RunError: They were in memory, or the run does not say what they were.
        UsageError: They cannot be found.
    """
    told = read_settings(run.folder)
    if told is None or told.source is None or told.source["kind"] == InMemory.kind:
        raise RunError(f"{run.folder}: this run was trained on images in memory. Hand them over: 'data=...'.")
    return load_dataset(data_source(told.source))


def _fitted(run: Run, data: Dataset | None) -> Dataset:
    """The data of a run as its network sees them.

    Raises:
        RunError: They are others now.
    """
    dataset = match_input(data or data_of(run), run.architecture.plan)
    if dataset.fingerprint() != run.record.data_fingerprint:
        raise RunError(
            f"{run.folder}: data '{dataset.name}' are not what this run was trained on: images, split or size differ."
        )
    return dataset


def _readers(module: Recurrent, steps: Collection[int]) -> tuple[list[Recurrent], dict[int, str]]:
    """Modules that read out the steps, one for all of them if there can be, and why other steps cannot be read out."""
    whole = _whole(module, steps)
    if whole is not None:
        return [whole], {}
    single: dict[int, Recurrent] = {}
    reasons: dict[int, str] = {}
    for step in steps:
        try:
            single[step] = module.at(steps=step + 1, readout=step)
        except UsageError as error:
            reasons[step] = str(error)
        except SpecError as error:
            reasons[step] = error.problems[0].message
    whole = _whole(module, single)
    return ([whole] if whole is not None else list(single.values())), reasons


def _whole(module: Recurrent, steps: Collection[int]) -> Recurrent | None:
    """The module that reads out all steps in one pass; None if it would need what there is not."""
    try:
        whole = module.at(steps=max(steps, default=0) + 1, readout="all")
    except (UsageError, SpecError):
        return None
    return whole if set(steps) <= set(whole.readouts) else None
