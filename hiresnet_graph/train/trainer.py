"""A run in progress: the network, the optimizer, and how they go from step to step and from epoch to epoch.

All that the next step depends on is in `Trainer.state`. Between two calls nothing of torch's global state is changed.

Axes: S steps of an epoch, B images of a batch, R time steps that are read out, C channels, H height, W width, K
classes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from torch import nn

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.data.loader import Loader
from hiresnet_graph.errors import OutOfMemory, RunError, is_out_of_memory
from hiresnet_graph.lower.recurrent import Recurrent
from hiresnet_graph.seeding import derive_seed
from hiresnet_graph.train.checkpoint import Checkpoint, Counters
from hiresnet_graph.train.checks import count_readouts
from hiresnet_graph.train.environment import describe, settings
from hiresnet_graph.train.evaluation import BATCH, Scores, by_step, evaluate, loss_of, weighted
from hiresnet_graph.train.parallel import Processes
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.request import RunRequest
from hiresnet_graph.train.state import TrainingState, below

# Steps between two looks at whether the loss is still finite: a GPU must finish all that it was given for one.
FINITE_CHECK_EVERY = {"cpu": 1, "cuda": 50}

Ask = Callable[[], bool]
Watch = Callable[[int, int, int], None]
"""Called after each step with the number of the epoch, the step in it, and the steps of an epoch."""


StepOutcome = Literal["epoch", "due", "stopped", "diverged", "tested"]


class Trainer:
    """A run in progress: its network, its optimizer, and its course so far."""

    def __init__(
        self,
        arch: Architecture,
        dataset: Dataset,
        recipe: Recipe,
        request: RunRequest,
        device: torch.device,
        processes: Processes,
    ) -> None:
        self.recipe, self.seeds, self.device, self.processes = recipe, request.seeds, device, processes
        self.threads = request.threads
        self.top = min(recipe.top_k, dataset.classes)
        self.weights = recipe.step_weights(count_readouts(arch.plan))
        self.layout = memory_format_of(recipe)
        with memory_errors("the network cannot be put on the device"):
            self.module = placed(arch.build(request.seeds.init), device, self.layout)
            self.loader = Loader(
                dataset,
                device=device,
                augment=recipe.augment,
                crop_padding=recipe.crop_padding,
                seed=request.seeds.data,
                workers=request.data_workers,
                memory_format=self.layout,
            )
        self.forward = _trained(self.module, recipe)
        self.optimizer = optimizer_of(recipe, self.module)
        self.steps = self.loader.steps(recipe.batch_size, recipe.drop_last)
        losses_S, right_S = (torch.zeros(self.steps, device=device) for _ in range(2))
        self.course = TrainingState(recipe, len(dataset.split.train), losses_S, right_S)
        is_last, backend = self.layout is torch.channels_last, "compile" if recipe.compile else "eager"
        self.machine = describe(device, request.threads, is_last, backend)
        self.noise: list[torch.Tensor] = []
        self._ticked = 0.0
        self._batches: Iterator[tuple[torch.Tensor, torch.Tensor]] | None = None

    @property
    def epoch(self) -> int:
        """Epochs that are done."""
        return self.course.epoch

    @property
    def step(self) -> int:
        """Steps that are done of the next epoch."""
        return self.course.step

    # ------------------------------------------------------------------------------------------------- to and from disk

    def state(self, key: str) -> tuple[Counters, dict[str, torch.Tensor]]:
        """All that the rest of the run depends on."""
        tensors = {f"model.{name}": value for name, value in self.module.state_dict().items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in entry.items() if torch.is_tensor(value)}
        tensors |= self.course.tensors()
        for rank, noise in enumerate(self.processes.gathered(self.noise)):
            tensors |= {f"noise.{rank}.{place}": value for place, value in enumerate(noise)}
        return self.course.counters(key), tensors

    def restore(self, point: Checkpoint) -> None:
        """Go back to where a checkpoint was made."""
        counters, tensors = point
        self.module.load_state_dict(below(tensors, "model"))  # by copy, so that the layout stays as it was built
        state: dict[int, dict[str, torch.Tensor]] = {}
        parameters = list(self.module.parameters())
        for name, value in below(tensors, "optimizer").items():
            index, _, entry = name.partition(".")
            like = parameters[int(index)]
            if value.shape == like.shape:  # written by a run in another layout: the optimizer wants that of its weights
                value = torch.empty_like(like, requires_grad=False).copy_(value)
            state.setdefault(int(index), {})[entry] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        noise = below(tensors, f"noise.{self.processes.rank}")
        self.noise = [noise[str(place)] for place in range(len(noise))]
        self.course.restore(counters, tensors)

    # --------------------------------------------------------------------------------------------------------- the work

    def advance(self, ask: Ask, due: Ask, watch: Watch | None) -> StepOutcome:
        """Train until the epoch is done, a checkpoint is due, or a stop is asked for; after the last epoch, test."""
        with self._computing():
            if self.epoch == self.recipe.epochs:
                return self._test(ask)
            turn = self._pass(ask, due, watch)
            return turn or self._end_epoch(ask)

    def close(self) -> None:
        """End what gives the batches, and its processes."""
        if isinstance(self._batches, Generator):
            self._batches.close()
        self._batches = None

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Within, torch is set as the run wants it, and its random numbers go on where they were."""
        self._ticked = time.perf_counter()
        where = f"seed {self.seeds}, epoch {self.epoch + 1}, step {self.step + 1}"
        with settings(self.device, self.threads, self.recipe.precision == "tf32"), memory_errors(where):
            if self.noise:
                torch.set_rng_state(self.noise[0])
                if self.device.type == "cuda" and len(self.noise) > 1:
                    torch.cuda.set_rng_state(self.noise[1], self.device)
            try:
                yield
            finally:
                self.noise = [torch.get_rng_state()]
                if self.device.type == "cuda":
                    self.noise.append(torch.cuda.get_rng_state(self.device))
                self._tick()

    def _tick(self) -> None:
        """Count the time since the last tick."""
        now = time.perf_counter()
        self.course.add_time(now - self._ticked)
        self._ticked = now

    def _pass(self, ask: Ask, due: Ask, watch: Watch | None) -> StepOutcome | None:
        """Train on each image once, from where the epoch stands; None when all are done."""
        rank, alone, every = self.processes.rank, self.processes.world == 1, FINITE_CHECK_EVERY[self.device.type]
        if self.step == 0:
            # Dropout draws from the global stream, which is set anew for each epoch.
            torch.manual_seed(derive_seed(self.seeds.data, f"noise{rank or ''}", self.epoch + 1))
        if self._batches is None:
            self._batches = self.loader.training(
                self.epoch + 1,
                self.recipe.batch_size,
                drop_last=self.recipe.drop_last,
                first_step=self.step,
                rank=rank,
                world=self.processes.world,
            )
        self.module.train()
        while self.step < self.steps:
            x_BCHW, labels_B = next(self._batches)
            wanted = self._learn(x_BCHW, labels_B, ask, due)
            self.course.step += 1
            if watch is not None:
                watch(self.epoch + 1, self.step, self.steps)
            stopped = alone and ask()
            if not stopped and self.step < self.steps and self.step % every:
                continue
            if not self.course.is_finite():
                return "diverged"
            is_due = alone and due()
            if wanted is not None:
                stopped, is_due = (bool(flag.item()) for flag in wanted)
            if self.step < self.steps and (stopped or is_due):
                return "stopped" if stopped else "due"
        self.close()
        return None

    def _learn(
        self, x_BCHW: torch.Tensor, labels_B: torch.Tensor, ask: Ask, due: Ask
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """One step. With several processes: how many of them want to stop, and to save, so that all do the same."""
        recipe, wanted = self.recipe, None
        rate = recipe.lr_at(self.epoch * self.steps + self.step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        batch = min(recipe.batch_size, self.course.images - self.step * recipe.batch_size)
        if len(labels_B):
            logits_BRK = by_step(self._logits(self.forward, x_BCHW))
            loss = loss_of(logits_BRK, labels_B, self.weights, recipe.label_smoothing)
            right = (logits_BRK[:, -1].detach().argmax(1) == labels_B).sum().float()
            if self.processes.world > 1:  # the mean over the whole batch is that of the means, weighted
                loss = loss * (len(labels_B) / batch)
            loss.backward()  # type: ignore[no-untyped-call]
        else:  # of a last batch of fewer images than processes
            loss, right = (torch.zeros((), device=self.device) for _ in range(2))
        if self.processes.world > 1:
            flags = (torch.tensor(float(asked()), device=self.device) for asked in (ask, due))
            sums = self.processes.sum(self.module.parameters(), [loss.detach(), right, *flags])
            loss, right, *flags_ = sums
            wanted = (flags_[0], flags_[1])
        self.course.losses_S[self.step] = loss.detach()
        self.course.right_S[self.step] = right
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), recipe.clip_norm)
        self.optimizer.step()
        return wanted

    def _logits(self, forward: Callable[[torch.Tensor], torch.Tensor], x_BCHW: torch.Tensor) -> torch.Tensor:
        """The scores of a batch, in the recipe's precision, as float32."""
        try:
            return scores_of(forward, x_BCHW, self.recipe)
        except ValueError as error:  # batch norm of one value per channel
            raise RunError(
                f"seed {self.seeds}, step {self.epoch * self.steps + self.step + 1}: a batch of {len(x_BCHW)} cannot "
                f"be computed: {error}. Choose another batch size, or 'drop_last=true'."
            ) from error

    def _end_epoch(self, ask: Ask) -> StepOutcome:
        """See how good the network is after an epoch."""
        scores = self._evaluate("validation", ask)
        if scores is None:
            return "stopped"
        self._tick()
        weights = self.module.state_dict
        fine = self.course.end_epoch(scores, lambda: {name: value.clone() for name, value in weights().items()})
        return "epoch" if fine else "diverged"

    def _test(self, ask: Ask) -> StepOutcome:
        """Look at the test images, with the last weights and with those of the best epoch."""
        course, last = self.course, self._evaluate("test", ask)
        if last is None:
            return "stopped"
        course.last_weights = on_cpu(self.module.state_dict())
        best: Scores | None = last
        if course.best is not course.epochs[-1]:
            self.module.load_state_dict(course.best_weights)
            best = self._evaluate("test", ask)
            if best is None:
                self.module.load_state_dict(course.last_weights)
                return "stopped"
        assert best is not None
        course.best_weights = on_cpu(course.best_weights)
        course.tests = (best, last)
        return "tested"

    @torch.no_grad()
    def _evaluate(self, part: Literal["validation", "test"], ask: Ask) -> Scores | None:
        """How good the network is on one part of the data; None if a stop was asked for meanwhile."""
        scores: Scores | None = None
        if self.processes.first:
            scores = self._scores(part, ask)
        shared: Scores | None = self.processes.shared(scores)
        return shared

    def _scores(self, part: Literal["validation", "test"], ask: Ask) -> Scores | None:
        self.module.eval()
        batches = self.loader.evaluation(part, BATCH[self.device.type])
        scores = evaluate(lambda x_BCHW: self._logits(self.module, x_BCHW), batches, self.top, ask)
        return None if scores is None else weighted(scores, self.weights)


def memory_format_of(recipe: Recipe) -> torch.memory_format:
    """The memory layout of images.

    Channels last is what convolutions are computed in on CPUs with oneDNN and on GPUs with tensor cores; other layouts
    are brought to it and back at every call.
    """
    return torch.contiguous_format if recipe.channels_last is False else torch.channels_last


def scores_of(forward: Callable[[torch.Tensor], torch.Tensor], x_BCHW: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """What a network gives for a batch, in the recipe's precision, as float32."""
    low = recipe.precision == "bf16"
    with torch.autocast(x_BCHW.device.type, torch.bfloat16) if low else contextlib.nullcontext():
        return forward(x_BCHW).float()


def _trained(module: nn.Module, recipe: Recipe) -> Callable[[torch.Tensor], torch.Tensor]:
    """How a network is computed in training; its tensors are those of the module."""
    if recipe.checkpoint_steps is not None and isinstance(module, Recurrent):
        return module.checkpointed(recipe.checkpoint_steps)
    return torch.compile(module, dynamic=False) if recipe.compile else module


def placed(module: nn.Module, device: torch.device, layout: torch.memory_format) -> nn.Module:
    """The network on a device, in a memory layout."""
    return cast(nn.Module, cast(Any, module).to(device, memory_format=layout))


def optimizer_of(recipe: Recipe, module: nn.Module) -> torch.optim.Optimizer:
    """torch's optimizer of a network, as a recipe says."""
    parameters = list(module.parameters())
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)


def on_cpu(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A copy of weights in the order of their axes, as files have them."""
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in weights.items()}


@contextmanager
def memory_errors(where: str) -> Iterator[None]:
    """StepOutcome each of torch's ways to say that memory is short into one error."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"{where}: not enough memory ({next(iter(str(error).splitlines()), 'no more is known')[:200]}). "
            "Choose a smaller recipe.batch_size, or fewer runs at one time."
        ) from error
