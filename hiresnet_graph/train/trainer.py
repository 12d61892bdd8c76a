"""What every trainer does: it takes one run, or several in lockstep, from step to step and from epoch to epoch.

Between two calls, nothing of torch's global state is changed.

Axes: K runs, S steps of an epoch, B images of a batch.
"""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import nn

from hiresnet_graph.errors import OutOfMemory, first_line, is_out_of_memory
from hiresnet_graph.plan import Plan
from hiresnet_graph.train.checkpoint import Checkpoint
from hiresnet_graph.train.environment import torch_settings
from hiresnet_graph.train.evaluation import Output, Part, Scores, trained_outputs
from hiresnet_graph.train.gradients import GradientSums
from hiresnet_graph.train.parallel import SINGLE_PROCESS, Processes
from hiresnet_graph.train.prepare import PreparedRun
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import Environment
from hiresnet_graph.train.state import TrainingState, Weights

# Steps between two checks that the loss is finite: a GPU must finish all its work for one.
FINITE_CHECK_EVERY = {"cpu": 1, "cuda": 50}

Batch = tuple[torch.Tensor, torch.Tensor]
Condition = Callable[[], bool]
OnStep = Callable[[int, int, int], None]
"""Called after each step with the number of the epoch, the step in it, and the steps of an epoch."""
StepOutcome = Literal["epoch", "due", "stopped", "diverged", "tested"]
"""Why `advance` has returned: an epoch is done, a checkpoint is due, a stop was requested, a run has diverged, or all
runs are tested after the last epoch."""


class Trainer(ABC):
    """One run in progress, or several in lockstep: all active runs are at the same step.

    Times of a run are those of the trainer, divided by the number of its runs.

    Attributes:
        states: The training state of each run.
        active: Indices of the runs that have not ended. A run that has diverged has ended.
        steps: Number of steps of an epoch.

    Args:
        runs: Their data, batch size and number of epochs are equal.
        losses_KS: Where the losses of an epoch are written; there may be more rows than runs.
        correct_KS: Likewise for the numbers of correctly classified images.
        gradients: For each run, where the norms of gradients are added; empty if they are not recorded.
    """

    def __init__(
        self,
        runs: Sequence[PreparedRun],
        device: torch.device,
        environment: Environment,
        losses_KS: torch.Tensor,
        correct_KS: torch.Tensor,
        processes: Processes = SINGLE_PROCESS,
        gradients: Sequence[GradientSums] = (),
    ) -> None:
        self.runs, self.recipe, self.device = tuple(runs), runs[0].recipe, device
        self.environment, self.processes = environment, processes
        self.steps = losses_KS.shape[1]
        self._losses_KS = losses_KS
        images = len(runs[0].dataset.split.train)
        rows = zip(losses_KS, correct_KS, strict=True)
        self.states = [
            TrainingState(run.recipe, images, *row, *gradients[k : k + 1])
            for k, (run, row) in enumerate(zip(runs, rows, strict=False))
        ]
        self.active = list(range(len(runs)))
        self._ended: list[int] = []
        self._ticked = 0.0
        self._batches: list[Iterator[Batch]] | None = None

    @property
    def state(self) -> TrainingState:
        """The state of one of the active runs, which are all at the same step."""
        return self.states[self.active[0]]

    def advance(self, stop: Condition, is_due: Condition, on_step: OnStep | None = None) -> StepOutcome:
        """Train until the epoch is done, some run has diverged, a checkpoint is due, or a stop is requested.

        After the last epoch, test. Runs that have ended meanwhile are returned by `take_ended`.
        """
        with self._computing():
            if self.state.is_trained:
                return self._test(stop)
            return self._train_epoch(stop, is_due, on_step) or self._validate(stop)

    def take_ended(self) -> list[int]:
        """The runs that have ended since the last call."""
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None:
        """Stop the iterators of batches, and their processes."""
        for batches in self._batches or ():
            if isinstance(batches, Generator):
                batches.close()
        self._batches = None

    def initialize(self, k: int) -> None:
        """Start a run from the weights that it requests, if any.

        Raises:
            RunError: Their file cannot be read, or has changed.
            UsageError: They do not fit the network.
        """
        if (found := self.runs[k].initial_weights()) is not None:
            with torch.no_grad():
                self._load_weights(k, {**self._copy(k), **found})

    @abstractmethod
    def checkpoint(self, k: int) -> Checkpoint:
        """Everything that the rest of a run depends on."""

    @abstractmethod
    def restore(self, k: int, checkpoint: Checkpoint) -> None:
        """Return a run to a checkpoint; for all runs, to checkpoints at the same step."""

    # -------------------------------------------------------------------------------- what differs between the trainers

    @abstractmethod
    def _describe(self) -> str:
        """What is trained, for messages."""

    @abstractmethod
    def _random_state(self) -> AbstractContextManager[None]:
        """Within, random numbers continue where they were."""

    @abstractmethod
    def _seed_epoch(self) -> None:
        """Seed the random numbers of the next epoch."""

    @abstractmethod
    def _open_batches(self) -> list[Iterator[Batch]]:
        """The batches of the next epoch, from its next step on."""

    @abstractmethod
    def _train_step(self, stop: Condition, is_due: Condition) -> Sequence[torch.Tensor] | None:
        """Compute one step of all runs. With several processes: whether any of them is to stop, and to save."""

    @abstractmethod
    def _evaluate(self, part: Part, stop: Condition) -> Sequence[Scores] | None:
        """The scores of each run on one part of the data; None if a stop was requested meanwhile."""

    @abstractmethod
    def _weights(self, k: int) -> Weights:
        """The current weights of a run, not copied."""

    @abstractmethod
    def _load_weights(self, k: int, weights: Weights) -> None:
        """Copy weights into the network of a run."""

    # ----------------------------------------------------------------------------------------------------- the progress

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Within, torch has the settings of the runs, and time is counted."""
        self._ticked = time.perf_counter()
        threads, is_tf32 = self.runs[0].request.threads, self.recipe.precision == "tf32"
        where = f"{self._describe()}, epoch {self.state.epoch + 1}, step {self.state.step + 1}"
        with torch_settings(self.device, threads, is_tf32), memory_errors(where), self._random_state():
            try:
                yield
            finally:
                self._tick()

    def _tick(self) -> None:
        """Count the time since the last tick."""
        now = time.perf_counter()
        for k in self.active:
            self.states[k].add_time((now - self._ticked) / len(self.runs))
        self._ticked = now

    def _train_epoch(self, stop: Condition, is_due: Condition, on_step: OnStep | None) -> StepOutcome | None:
        """Train on each image once, from the current step on; None when all steps are done."""
        is_single, every = self.processes.world == 1, FINITE_CHECK_EVERY[self.device.type]
        if self.state.step == 0:
            self._seed_epoch()
        if self._batches is None:
            self._batches = self._open_batches()
        while self.state.step < self.steps:
            requested = self._train_step(stop, is_due)
            for k in self.active:
                self.states[k].step += 1
            step = self.state.step
            if on_step is not None:
                on_step(self.state.epoch + 1, step, self.steps)
            must_stop = is_single and stop()
            if not must_stop and step < self.steps and step % every:
                continue
            if self._end_diverged():
                return "diverged"
            must_save = is_single and is_due()
            if requested is not None:
                must_stop, must_save = (bool(flag.item()) for flag in requested)
            if step < self.steps and (must_stop or must_save):
                return "stopped" if must_stop else "due"
        self.close()
        return None

    def _next_batches(self) -> list[Batch]:
        assert self._batches is not None
        return [next(batches) for batches in self._batches]

    def _end_diverged(self) -> bool:
        """End the runs of which a loss since the last check is not finite; whether there are any."""
        start, step = self.state.checked, self.state.step
        # One look at the device for all runs.
        if bool(torch.isfinite(self._losses_KS[self.active, start:step]).all()):
            for k in self.active:
                self.states[k].checked = step
            return False
        self._end([k for k in self.active if not self.states[k].check_finite()])
        return True

    def _end(self, runs: Iterable[int]) -> None:
        self._tick()
        self._ended += runs
        self.active = [k for k in self.active if k not in self._ended]

    def _validate(self, stop: Condition) -> StepOutcome:
        """Evaluate the networks after an epoch."""
        scores = self._evaluate("validation", stop)
        if scores is None:
            return "stopped"
        self._tick()
        self._end([k for k in self.active if not self.states[k].end_epoch(scores[k], partial(self._copy, k))])
        return "epoch" if self.active else "diverged"

    def _copy(self, k: int) -> Weights:
        return {name: value.detach().clone() for name, value in self._weights(k).items()}

    def _test(self, stop: Condition) -> StepOutcome:
        """Evaluate on the test set, with the last weights and with those of the best epoch."""
        last = self._evaluate("test", stop)
        if last is None:
            return "stopped"
        for k in self.active:
            self.states[k].last_weights = to_cpu(self._weights(k))
        earlier = [k for k in self.active if self.states[k].best is not self.states[k].epochs[-1]]
        best: Sequence[Scores] | None = last
        if earlier:
            for k in earlier:
                self._load_weights(k, self.states[k].best_weights)
            best = self._evaluate("test", stop)
            if best is None:
                for k in earlier:
                    self._load_weights(k, self.states[k].last_weights)
                return "stopped"
        assert best is not None
        for k in self.active:
            state = self.states[k]
            state.best_weights = to_cpu(state.best_weights)
            state.test_scores = ((best if k in earlier else last)[k], last[k])
        self._end(self.active)
        return "tested"


def image_format(recipe: Recipe, plan: Plan) -> torch.memory_format:
    """The memory format of the images of a network.

    CPUs with oneDNN and GPUs with tensor cores compute convolutions in channels-last; other formats are converted to it
    and back at every call. A network that cannot be trained in it is computed in the contiguous format, whatever the
    recipe says.
    """
    is_last = recipe.channels_last is not False and plan.trains_in_channels_last
    return torch.channels_last if is_last else torch.contiguous_format


def augmentation_of(recipe: Recipe) -> dict[str, Any]:
    """The settings of a recipe that `Loader` takes."""
    return recipe.model_dump(include={"augment", "crop_padding", "rand_augment", "random_erasing"})


def move_to(module: nn.Module, device: torch.device, memory_format: torch.memory_format) -> nn.Module:
    """The network on a device, in a memory format."""
    return cast(nn.Module, cast(Any, module).to(device, memory_format=memory_format))


def compute_logits(
    forward: Callable[[torch.Tensor], Output], x_BCHW: torch.Tensor, recipe: Recipe
) -> list[torch.Tensor]:
    """The outputs of a network that are trained, the main one first, in the recipe's precision, as float32."""
    low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.precision)
    with torch.autocast(x_BCHW.device.type, low) if low else contextlib.nullcontext():
        return [output.float() for output in trained_outputs(forward(x_BCHW), recipe)]


def make_optimizer(
    recipe: Recipe,
    module: nn.Module,
    factors: Mapping[str, float] | None = None,
    undecayed: frozenset[str] = frozenset(),
) -> torch.optim.Optimizer:
    """The optimizer of a recipe, by torch.

    Args:
        factors: The parameters to train, each with a factor of the learning rate; by default all. Parameters with one
            factor are a group of the optimizer, with the factor as its `scale`.
        undecayed: Those without weight decay, in groups of their own.
    """
    by_name = dict(module.named_parameters())
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name in by_name if factors is None else factors:
        factor, decay = 1.0 if factors is None else factors[name], 0.0 if name in undecayed else recipe.weight_decay
        groups.setdefault((factor, decay), []).append(by_name[name])
    parameters = [
        {"params": members, "scale": factor, "weight_decay": decay} for (factor, decay), members in groups.items()
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            fused=True,
        )
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, lr=recipe.lr, fused=True)


def to_cpu(weights: Weights) -> Weights:
    """A contiguous copy of weights, as files have them."""
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in weights.items()}


@contextmanager
def memory_errors(where: str) -> Iterator[None]:
    """Convert every way in which torch reports too little memory into one error."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"{where}: not enough memory ({(first_line(error) or 'no details')[:200]}). "
            "Choose a smaller recipe.batch_size, or fewer runs at one time."
        ) from error
