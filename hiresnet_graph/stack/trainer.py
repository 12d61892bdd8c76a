"""Runs in progress that are computed as one program, in lockstep: what `Trainer` is to a run alone.

Each run has its own course, weights, optimizer state and chance; none depends on the others, nor on its place among
them. A run whose loss is not finite has diverged: it is computed on, since the others are, and is not looked at again.

Axes: R replicas that are computed, D seeds of data, S steps of an epoch, H settings of the optimizer, B images of a
batch, T time steps that are read out, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Literal

import torch
from torch import nn

from hiresnet_graph.data.loader import Loader
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.plan import Plan
from hiresnet_graph.seeding import derive_seed
from hiresnet_graph.stack.branches import Branches
from hiresnet_graph.stack.capture import Captured, Recorder
from hiresnet_graph.stack.lowering import Stacked
from hiresnet_graph.stack.optimizers import FlatOptimizer
from hiresnet_graph.stack.replicas import Replicas
from hiresnet_graph.stack.stackable import FEWEST
from hiresnet_graph.train.checkpoint import Checkpoint, Counters
from hiresnet_graph.train.checks import count_readouts
from hiresnet_graph.train.environment import describe, settings
from hiresnet_graph.train.evaluation import BATCH, Scores, all_sums_of, loss_of, losses_of, sums_of, weighted
from hiresnet_graph.train.prepare import PreparedRun
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.request import StackBackend
from hiresnet_graph.train.state import TrainingState, below
from hiresnet_graph.train.trainer import (
    FINITE_CHECK_EVERY,
    Ask,
    StepOutcome,
    memory_errors,
    memory_format_of,
    on_cpu,
    optimizer_of,
)

_Batch = tuple[torch.Tensor, torch.Tensor]


class StackTrainer:
    """Runs in lockstep, and their courses so far.

    Times of a run are those of the stack, divided by the runs that it began with.

    Attributes:
        courses: Of each run.
        alive: The runs that are neither diverged nor done, by their places; all stand at the same step.

    Args:
        runs: What is asked for; recipes and data go together.
        whole: A network that holds all of theirs.

    Raises:
        UsageError: A network is not part of `whole`.
        OutOfMemory: Memory is short.
    """

    def __init__(self, runs: Sequence[PreparedRun], whole: Plan, backend: StackBackend, device: torch.device) -> None:
        first = runs[0]
        self.runs, self.device, self.recipe = tuple(runs), device, first.recipe
        self._is_stacked = backend == "stacked"
        self._top = min(self.recipe.top_k, first.dataset.classes)
        self._weights = self.recipe.step_weights(count_readouts(whole))
        # Replicas that nobody asked for bring a stack to the number from which bits do not depend on it.
        padded = [*runs, *[runs[-1]] * (FEWEST - len(runs) if self._is_stacked else 0)]
        with memory_errors(f"{_told(runs)} cannot be put on the device"):
            self.replicas = _replicas(padded, whole, backend, device)
            self._names = [self._begin(k, run) for k, run in enumerate(padded)]
            self.optimizer: FlatOptimizer | _Apart
            recipes = [run.recipe for run in padded]
            if isinstance(self.replicas, Branches) and device.type == "cpu":
                self.optimizer = _Apart(recipes, self.replicas)
            else:
                self.optimizer = FlatOptimizer(recipes, self.replicas)
            seeds = [run.request.seeds.data for run in padded]
            different = list(dict.fromkeys(seeds))
            loader = Loader(
                first.dataset,
                device=device,
                augment=self.recipe.augment,
                crop_padding=self.recipe.crop_padding,
                seed=different[0],
                workers=first.request.data_workers,
            )
            self._loaders = [loader.with_seed(seed) for seed in different]
            self._source_R = torch.tensor([different.index(seed) for seed in seeds], device=device)
            self.steps = loader.steps(self.recipe.batch_size, self.recipe.drop_last)
            self._losses_RS, self._right_RS = (torch.zeros(len(padded), self.steps, device=device) for _ in range(2))
            self._sums_RT3 = torch.zeros(len(padded), len(self._weights), 3, dtype=torch.float64, device=device)
            self._rates_SHR = self.optimizer.rates([0] * len(padded), self.steps, self.steps)
            self._next_1 = torch.zeros(1, dtype=torch.int64, device=device)
        images = len(first.dataset.split.train)
        rows = zip(self._losses_RS, self._right_RS, strict=True)
        self.courses = [TrainingState(run.recipe, images, *row) for run, row in zip(runs, rows, strict=False)]
        self.alive = list(range(len(runs)))
        self._lost: list[int] = []
        # What draws random numbers is among the looped.
        self._captures = device.type == "cuda" and not self.replicas.fallback_ops
        self._captured: dict[tuple[str, torch.Size], Captured] = {}
        self._recorder = Recorder.on(device) if self._captures else None
        self.machine = describe(
            device,
            first.request.threads,
            isinstance(self.replicas, Branches) and self.replicas.memory_format is torch.channels_last,
            "graph" if self._captures and backend == "branches" and len(runs) == 1 else backend,
            replicas=len(runs),
            looped=self.replicas.fallback_ops,
        )
        self._ticked = 0.0
        self._batches: list[Iterator[_Batch]] | None = None

    def _begin(self, k: int, run: PreparedRun) -> list[str]:
        """Give a replica its initial weights; the names of its parameters in the order of a run alone."""
        module = run.arch.build(run.request.seeds.init)
        self.replicas.load(k, module.state_dict())
        return [name for name, _ in module.named_parameters()]

    @property
    def course(self) -> TrainingState:
        """Of one of those that go on: where they all stand."""
        return self.courses[self.alive[0]]

    def take_lost(self) -> list[int]:
        """The runs that have diverged since the last call, which are no longer among those alive."""
        lost, self._lost = self._lost, []
        return lost

    # ------------------------------------------------------------------------------------------------- to and from disk

    def state(self, k: int) -> tuple[Counters, dict[str, torch.Tensor]]:
        """All that the rest of a run depends on, as `Trainer.state` has it."""
        course = self.courses[k]
        done = course.epoch * self.steps + course.step
        tensors = {f"model.{name}": value for name, value in self.replicas.state(k).items()}
        held = self.optimizer.state(k, done)
        for index, name in enumerate(self._names[k]):
            tensors |= {f"optimizer.{index}.{entry}": value for entry, value in held.get(name, {}).items()}
        tensors |= course.tensors()
        tensors |= {f"noise.0.{place}": value for place, value in enumerate(self._noise(k))}
        return course.counters(self.runs[k].key), tensors

    def restore(self, k: int, point: Checkpoint) -> None:
        """Bring a run back to where a checkpoint was made; to be done for all, with checkpoints of one place."""
        counters, tensors = point
        state: dict[str, dict[str, torch.Tensor]] = {}
        for name, value in below(tensors, "optimizer").items():
            index, _, entry = name.partition(".")
            state.setdefault(self._names[k][int(index)], {})[entry] = value
        self.replicas.load(k, below(tensors, "model"))
        self.optimizer.load(k, state)
        noise = tensors.get("noise.0.1" if self.device.type == "cuda" else "noise.0.0")
        if noise is not None:
            self.replicas.generators[k].set_state(noise)
        self.courses[k].restore(counters, tensors)

    def _noise(self, k: int) -> list[torch.Tensor]:
        """The state of the random numbers of the CPU and, if there is one, of the GPU."""
        own = self.replicas.generators[k].get_state()
        if self.device.type == "cpu":
            return [own]
        return [torch.Generator().manual_seed(self._noise_seed(k)).get_state(), own]

    def _noise_seed(self, k: int) -> int:
        run = self.runs[min(k, len(self.runs) - 1)]
        return derive_seed(run.request.seeds.data, "noise", self.course.epoch + 1)

    # --------------------------------------------------------------------------------------------------------- the work

    def advance(self, ask: Ask, due: Ask) -> StepOutcome:
        """Train until the epoch is done, some run has diverged, a checkpoint is due, or a stop is asked for.

        After the last epoch, test. Whatever is said, see `take_lost`.
        """
        with self._computing():
            if self.course.epoch == self.recipe.epochs:
                return self._test(ask)
            turn = self._pass(ask, due)
            return turn or self._end_epoch(ask)

    def close(self) -> None:
        """End what gives the batches, and its processes."""
        for batches in self._batches or ():
            if isinstance(batches, Generator):
                batches.close()
        self._batches = None

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Within, torch is set as the runs want it."""
        self._ticked = time.perf_counter()
        course, threads = self.course, self.runs[0].request.threads
        where = f"{_told(self.runs)}, epoch {course.epoch + 1}, step {course.step + 1}"
        with settings(self.device, threads, self.recipe.precision == "tf32"), memory_errors(where):
            try:
                yield
            finally:
                self._tick()

    def _tick(self) -> None:
        """Count the time since the last tick."""
        now = time.perf_counter()
        for k in self.alive:
            self.courses[k].add_time((now - self._ticked) / len(self.runs))
        self._ticked = now

    def _pass(self, ask: Ask, due: Ask) -> StepOutcome | None:
        """Train on each image once, from where the epoch stands; None when all are done."""
        every = FINITE_CHECK_EVERY[self.device.type]
        if self.course.step == 0:
            for k, noise in enumerate(self.replicas.generators):
                noise.manual_seed(self._noise_seed(k))
        if self._batches is None:
            self._start_epoch()
        assert self._batches is not None
        while self.course.step < self.steps:
            found = [next(batches) for batches in self._batches]
            x_DBCHW, labels_DB = (torch.stack(parts) for parts in zip(*found, strict=True))
            self._compute("step", self._learn, x_DBCHW, labels_DB)
            for k in self.alive:
                self.courses[k].step += 1
            step, stopped = self.course.step, ask()
            if not stopped and step < self.steps and step % every:
                continue
            if self._look():
                return "diverged"
            is_due = due()
            if step < self.steps and (stopped or is_due):
                return "stopped" if stopped else "due"
        self.close()
        return None

    def _start_epoch(self) -> None:
        """Make ready what the steps of this epoch take, from where it stands."""
        course = self.course
        self._batches = [
            loader.training(
                course.epoch + 1, self.recipe.batch_size, drop_last=self.recipe.drop_last, first_step=course.step
            )
            for loader in self._loaders
        ]
        first = [course.epoch * self.steps] * self.replicas.count
        self._rates_SHR.copy_(self.optimizer.rates(first, self.steps, self.steps))
        self._next_1.fill_(course.step)

    def _look(self) -> bool:
        """Whether some runs have diverged since the last look; they are among the lost, then."""
        start, step = self.course.looked, self.course.step
        if bool(torch.isfinite(self._losses_RS[self.alive, start:step]).all()):
            for k in self.alive:
                self.courses[k].looked = step
            return False
        self._lose([k for k in self.alive if not self.courses[k].is_finite()])
        return True

    def _lose(self, lost: list[int]) -> None:
        self._lost += lost
        self.alive = [k for k in self.alive if k not in lost]

    # ---------------------------------------------------------------------------------------------------- on the device

    def _compute(self, what: str, compute: Callable[..., None], *inputs: torch.Tensor) -> None:
        """Compute something; on a GPU, launched as one from the second time on."""
        if not self._captures:
            compute(*inputs)
            return
        key = (what, inputs[0].shape)
        if key not in self._captured:
            held = [self.replicas.flat, self.replicas.grad, *self.replicas.buffers.values()]
            held += [self._losses_RS, self._right_RS, self._sums_RT3, self._next_1]
            if isinstance(self.optimizer, FlatOptimizer):
                held += self.optimizer.kept.values()
            self._captured[key] = Captured(compute, inputs, held, self._recorder)
        self._captured[key](*inputs)

    def _learn(self, x_DBCHW: torch.Tensor, labels_DB: torch.Tensor) -> None:
        """One step of all replicas, of which the host sees nothing."""
        x_RBCHW, labels_RB = (value.index_select(0, self._source_R) for value in (x_DBCHW, labels_DB))
        self.replicas.zero_grad()
        logits_RBTK = self._logits(x_RBCHW, training=True)
        smoothing = self.recipe.label_smoothing
        if self._is_stacked:
            losses_R = losses_of(logits_RBTK, labels_RB, self._weights, smoothing)
        else:
            pairs = zip(logits_RBTK, labels_RB, strict=True)
            losses_R = torch.stack([loss_of(logits, labels, self._weights, smoothing) for logits, labels in pairs])
        losses_R.sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(self._rates_SHR.index_select(0, self._next_1)[0])
        right_R = (logits_RBTK[:, :, -1].detach().argmax(2) == labels_RB).sum(1).float()
        self._losses_RS.index_copy_(1, self._next_1, losses_R.detach()[:, None])
        self._right_RS.index_copy_(1, self._next_1, right_R[:, None])
        self._next_1.add_(1)

    @torch.no_grad()
    def _see(self, x_BCHW: torch.Tensor, labels_B: torch.Tensor) -> None:
        """Add up how good all replicas are on some images."""
        replicas = self.replicas.count
        logits_RBTK = self._logits(x_BCHW.expand(replicas, *x_BCHW.shape), training=False)
        if self._is_stacked:
            self._sums_RT3 += all_sums_of(logits_RBTK, labels_B.expand(replicas, -1), self._top)
            return
        each = [[sums_of(one, labels_B, self._top) for one in logits.unbind(1)] for logits in logits_RBTK]
        self._sums_RT3 += torch.stack([torch.stack(sums) for sums in each])

    def _logits(self, x_RBCHW: torch.Tensor, training: bool) -> torch.Tensor:
        """The scores [R, B, T, K] of a batch for each replica, in the recipe's precision, as float32."""
        low = self.recipe.precision == "bf16"
        # What a cache of rounded weights holds would not be computed anew when a recorded step is launched.
        rounded = torch.autocast(self.device.type, torch.bfloat16, cache_enabled=not self._captures)
        try:
            with rounded if low else nullcontext():
                logits: torch.Tensor = self.replicas(x_RBCHW, training=training).float()
        except ValueError as error:  # batch norm of one value per channel
            step = self.course.epoch * self.steps + self.course.step + 1
            raise RunError(
                f"{_told(self.runs)}, step {step}: a batch of {x_RBCHW.shape[1]} cannot be computed: "
                f"{error}. Choose another batch size, or 'drop_last=true'."
            ) from error
        return logits if logits.dim() == 4 else logits[:, :, None]

    # ------------------------------------------------------------------------------------------------- how good it is

    def _end_epoch(self, ask: Ask) -> StepOutcome:
        """See how good the networks are after an epoch."""
        found = self._evaluate("validation", ask)
        if found is None:
            return "stopped"
        self._tick()
        self._lose([k for k in self.alive if not self.courses[k].end_epoch(found[k], partial(self._copy, k))])
        return "epoch" if self.alive else "diverged"

    def _copy(self, k: int) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in self.replicas.state(k).items()}

    def _test(self, ask: Ask) -> StepOutcome:
        """Look at the test images, with the last weights and with those of the best epoch."""
        last = self._evaluate("test", ask)
        if last is None:
            return "stopped"
        earlier = [k for k in self.alive if self.courses[k].best is not self.courses[k].epochs[-1]]
        for k in self.alive:
            self.courses[k].last_weights = on_cpu(self.replicas.state(k))
        best: list[Scores] | None = last
        if earlier:
            for k in earlier:
                self.replicas.load(k, self.courses[k].best_weights)
            best = self._evaluate("test", ask)
            if best is None:
                for k in earlier:
                    self.replicas.load(k, self.courses[k].last_weights)
                return "stopped"
        assert best is not None
        for k in self.alive:
            course = self.courses[k]
            course.best_weights = on_cpu(course.best_weights)
            course.tests = ((best if k in earlier else last)[k], last[k])
        return "tested"

    def _evaluate(self, part: Literal["validation", "test"], ask: Ask) -> list[Scores] | None:
        """How good each network is on one part of the data; None if a stop was asked for meanwhile."""
        # A number of images that depends on the recipe alone: another one may round differently.
        batch, images = self.recipe.batch_size if self._is_stacked else BATCH[self.device.type], 0
        self._sums_RT3.zero_()
        for x_BCHW, labels_B in self._loaders[0].evaluation(part, batch):
            if ask():
                return None
            self._compute("look", self._see, x_BCHW, labels_B)
            images += len(labels_B)
        return [
            weighted([Scores(*(value / images for value in sums)) for sums in by_step], self._weights)
            for by_step in self._sums_RT3.tolist()
        ]


def _replicas(runs: Sequence[PreparedRun], whole: Plan, backend: StackBackend, device: torch.device) -> Replicas:
    parts = [run.arch.plan for run in runs]
    try:
        if backend == "stacked":
            return Stacked(whole, parts, device=device)
        return Branches(whole, parts, device=device, memory_format=memory_format_of(runs[0].recipe))
    except ValueError as error:
        raise UsageError(f"{error} These runs cannot be computed together: train each of them alone.") from error


def _told(runs: Sequence[PreparedRun]) -> str:
    return "a stack of 1 run" if len(runs) == 1 else f"a stack of {len(runs)} runs"


class _Apart:
    """torch's own optimizers, one for each replica, in place of `FlatOptimizer`: they give the bits of a run alone.

    The fused ones of the CPU round differently from the same computed operation by operation.
    """

    def __init__(self, recipes: Sequence[Recipe], replicas: Branches) -> None:
        self._recipes, self._modules = tuple(recipes), replicas.modules
        self._optimizers = [optimizer_of(*pair) for pair in zip(recipes, replicas.modules, strict=True)]

    def rates(self, steps: Sequence[int], count: int, steps_per_epoch: int) -> torch.Tensor:
        """The learning rate of each replica at so many steps, counted from the one that each stands at: [S, 1, R]."""
        each = zip(self._recipes, steps, strict=True)
        rates_RS = [[recipe.lr_at(step + place, steps_per_epoch) for place in range(count)] for recipe, step in each]
        return torch.tensor(rates_RS, dtype=torch.float64).T[:, None]

    def step(self, rates_HR: torch.Tensor) -> None:
        """Clip the gradients of each replica and change its parameters."""
        for module, recipe, optimizer, rate in zip(
            self._modules, self._recipes, self._optimizers, rates_HR[0].tolist(), strict=True
        ):
            if recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(module.parameters(), recipe.clip_norm)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()

    def state(self, k: int, steps: int) -> dict[str, dict[str, torch.Tensor]]:
        """What is kept for each parameter of replica k."""
        held = self._optimizers[k].state
        return {
            name: {entry: value for entry, value in held[parameter].items() if torch.is_tensor(value)}
            for name, parameter in self._modules[k].named_parameters()
            if parameter in held
        }

    def load(self, k: int, state: dict[str, dict[str, torch.Tensor]]) -> None:
        """Go on with what `state` has given for a network like replica k's."""
        entries: dict[int, dict[str, torch.Tensor]] = {}
        for index, (name, parameter) in enumerate(self._modules[k].named_parameters()):
            for entry, value in state.get(name, {}).items():
                own = torch.empty_like(parameter if value.shape == parameter.shape else value, requires_grad=False)
                entries.setdefault(index, {})[entry] = own.copy_(value)
        optimizer = self._optimizers[k]
        optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
