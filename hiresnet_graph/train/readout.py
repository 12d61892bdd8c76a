"""A trained network in time, evaluated at other readout steps than in training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import nn

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.data.loader import Loader
from hiresnet_graph.errors import RunError, SpecError, UsageError
from hiresnet_graph.lower.recurrent import Recurrent
from hiresnet_graph.passes.timing import timing
from hiresnet_graph.train.checks import match_input
from hiresnet_graph.train.environment import choose_device, torch_settings
from hiresnet_graph.train.evaluation import BATCH, Part, Scores, evaluate
from hiresnet_graph.train.prepare import stored_source
from hiresnet_graph.train.record import RunRecord, read_settings
from hiresnet_graph.train.trainer import compute_logits, image_format, memory_errors, move_to

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
    dataset = match_input(data or stored_dataset(folder), arch.plan)
    if dataset.fingerprint() != record.data_fingerprint:
        raise RunError(
            f"{folder}: data '{dataset.name}' are not what this run was trained on: images, split or size differ."
        )
    recipe, where = record.recipe, choose_device(device)
    if past is not None:
        arch = arch.override({"time.past": past})
    with (
        memory_errors(f"{folder}, read out at other steps"),
        torch.no_grad(),
        torch_settings(where, record.machine.threads, recipe.precision == "tf32"),
    ):
        module = move_to(load(arch), where, image_format(recipe, arch.plan))
        assert isinstance(module, Recurrent)
        loader = Loader(dataset, device=where, memory_format=image_format(recipe, arch.plan))
        readers, reasons = _readers(module, selected)
        scores: dict[int, Scores] = {}
        for reader in readers:
            batches = loader.evaluation(part, BATCH[where.type])
            top = min(recipe.top_k, dataset.classes)
            found = evaluate(partial(compute_logits, reader, recipe=recipe), batches, top)
            assert found is not None
            scores |= dict(zip(reader.readouts, found, strict=True))
    return tuple(
        ReadoutPoint(step, step in in_training.readouts, scores.get(step), reasons.get(step, "")) for step in selected
    )


def stored_dataset(folder: Path) -> Dataset:
    """The data that the run in a folder was trained on.

    Raises:
        RunError: They were passed in memory, or the folder does not name them.
        UsageError: They cannot be found.
    """
    source = stored_source(read_settings(folder))
    if source is None:
        raise RunError(f"{folder}: this run was trained on images in memory. Pass them again: 'data=...'.")
    return load_dataset(source)


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
