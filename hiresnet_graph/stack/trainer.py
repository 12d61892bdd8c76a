"""The trainer of a stack: many runs in lockstep, computed as one program.

The runs do not depend on one another, nor on their indices. A run that has diverged is computed further with the
others, and ignored.

Axes: R replicas, D data seeds, S steps of an epoch, H hyperparameters of a step, B images of a batch, T readout steps,
C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from hiresnet_graph.data.loader import Loader
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.plan import Plan
from hiresnet_graph.seeding import derive_seed
from hiresnet_graph.stack.branches import Branches
from hiresnet_graph.stack.capture import CaptureContext, Captured
from hiresnet_graph.stack.losses import stacked_losses, stacked_score_sums
from hiresnet_graph.stack.lowering import Stacked
from hiresnet_graph.stack.optimizers import FlatOptimizer, SeparateOptimizers, StackOptimizer
from hiresnet_graph.stack.replicas import Replicas
from hiresnet_graph.stack.request import StackBackend
from hiresnet_graph.stack.stackable import MIN_REPLICAS
from hiresnet_graph.train.checkpoint import Checkpoint
from hiresnet_graph.train.checks import count_readouts
from hiresnet_graph.train.environment import describe_environment
from hiresnet_graph.train.evaluation import BATCH, Part, Scores, combine_steps, loss_of, score_sums
from hiresnet_graph.train.gradients import GradientGroups
from hiresnet_graph.train.optimizer_state import from_tensors, to_tensors
from hiresnet_graph.train.prepare import PreparedRun
from hiresnet_graph.train.state import Weights, below
from hiresnet_graph.train.trainer import Batch, Condition, Trainer, augmentation_of, image_format, memory_errors


class StackTrainer(Trainer):
    """The runs of a stack in progress.

    Args:
        runs: Their recipes and data go together.
        supergraph: A network that contains the network of each run.

    Raises:
        UsageError: A network is not a subgraph of `supergraph`.
        OutOfMemory: Memory is short.
    """

    def __init__(
        self, runs: Sequence[PreparedRun], supergraph: Plan, backend: StackBackend, device: torch.device
    ) -> None:
        first, recipe = runs[0], runs[0].recipe
        self._is_stacked = backend == "stacked"
        self._top = min(recipe.top_k, first.dataset.classes)
        self._step_weights = recipe.step_weights(count_readouts(supergraph))
        # Padded with replicas that are ignored to the number from which on bits do not depend on it.
        padded = [*runs, *[runs[-1]] * (MIN_REPLICAS - len(runs) if self._is_stacked else 0)]
        with memory_errors(f"{_describe(runs)} cannot be put on the device"):
            self.replicas = _make_replicas(padded, supergraph, backend, device)
            for k, run in enumerate(padded):
                self.replicas.load(k, run.arch.build(run.request.seeds.init).state_dict())
            recipes = [run.recipe for run in padded]
            self.optimizer: StackOptimizer
            if isinstance(self.replicas, Branches) and device.type == "cpu":
                self.optimizer = SeparateOptimizers(recipes, self.replicas)
            else:
                self.optimizer = FlatOptimizer(recipes, self.replicas)
            self._data_seeds = [run.request.seeds.data for run in padded]
            different = list(dict.fromkeys(self._data_seeds))
            loader = Loader(
                first.dataset,
                device=device,
                **augmentation_of(recipe),
                seed=different[0],
                workers=first.request.data_workers,
            )
            self._loaders = [loader.with_seed(seed) for seed in different]
            self._source_R = torch.tensor([different.index(seed) for seed in self._data_seeds], device=device)
            steps = loader.steps(recipe.batch_size, recipe.drop_last)
            losses_RS, self._correct_RS = (torch.zeros(len(padded), steps, device=device) for _ in range(2))
            self._sums_RT3 = torch.zeros(len(padded), len(self._step_weights), 3, dtype=torch.float64, device=device)
            self._rates_SHR = self.optimizer.rates([0] * len(padded), steps, steps)
            self._next_1 = torch.zeros(1, dtype=torch.int64, device=device)
            self._groups = GradientGroups([run.arch.plan for run in padded], device)
            self._gradients_RG = self._groups.zeros(len(padded))
        # Captured computations draw no random numbers; those that do are fallback operations.
        self._captures = device.type == "cuda" and not self.replicas.fallback_ops
        self._captured: dict[tuple[str, torch.Size], Captured] = {}
        self._context = CaptureContext.on(device) if self._captures else None
        environment = describe_environment(
            device,
            first.request.threads,
            isinstance(self.replicas, Branches) and self.replicas.memory_format is torch.channels_last,
            "graph" if self._captures and backend == "branches" and len(runs) == 1 else backend,
            replicas=len(runs),
            looped=self.replicas.fallback_ops,
        )
        pairs = zip(runs, self._gradients_RG, strict=False)
        gradients = [self._groups.sums_of(run.arch.plan, sums_G) for run, sums_G in pairs]
        super().__init__(
            runs,
            device,
            environment,
            losses_RS,
            self._correct_RS,
            gradients=gradients if recipe.record_gradients else (),
        )

    def checkpoint(self, k: int) -> Checkpoint:
        """Everything that the rest of a run depends on, in the format of a single run."""
        state = self.states[k]
        tensors = {f"model.{name}": value for name, value in self.replicas.state(k).items()}
        tensors |= to_tensors(self.optimizer.state(k, state.total_steps))
        tensors |= state.tensors()
        rng_state = [self.replicas.generators[k].get_state()]
        if self.device.type == "cuda":  # a single run on a GPU stores the state of the CPU, too
            rng_state.insert(0, torch.Generator().manual_seed(self._noise_seed(k)).get_state())
        tensors |= {f"noise.0.{i}": value for i, value in enumerate(rng_state)}
        return Checkpoint(state.counters(self.runs[k].key), tensors)

    def restore(self, k: int, checkpoint: Checkpoint) -> None:
        """Return a run to a checkpoint; for all runs, to checkpoints at the same step."""
        counters, tensors = checkpoint
        self.replicas.load(k, below(tensors, "model"))
        self.optimizer.load(k, from_tensors(tensors))
        rng_state = tensors.get("noise.0.1" if self.device.type == "cuda" else "noise.0.0")
        if rng_state is not None:
            self.replicas.generators[k].set_state(rng_state)
        self.states[k].restore(counters, tensors)

    # ----------------------------------------------------------------------------------------------------- of `Trainer`

    def _describe(self) -> str:
        return _describe(self.runs)

    def _random_state(self) -> AbstractContextManager[None]:
        return nullcontext()  # each replica has its own generator

    def _seed_epoch(self) -> None:
        for k, generator in enumerate(self.replicas.generators):
            generator.manual_seed(self._noise_seed(k))

    def _noise_seed(self, k: int) -> int:
        return derive_seed(self._data_seeds[k], "noise", self.state.epoch + 1)

    def _open_batches(self) -> list[Iterator[Batch]]:
        state, recipe = self.state, self.recipe
        first = [state.epoch * self.steps] * self.replicas.count
        self._rates_SHR.copy_(self.optimizer.rates(first, self.steps, self.steps))
        self._next_1.fill_(state.step)
        return [
            loader.training(state.epoch + 1, recipe.batch_size, drop_last=recipe.drop_last, first_step=state.step)
            for loader in self._loaders
        ]

    def _train_step(self, stop: Condition, is_due: Condition) -> None:
        x_DBCHW, labels_DB = (torch.stack(parts) for parts in zip(*self._next_batches(), strict=True))
        self._compute("step", self._learn, x_DBCHW, labels_DB)

    def _evaluate(self, part: Part, stop: Condition) -> Sequence[Scores] | None:
        # The batch size depends on the recipe alone: another one may round differently.
        batch, images = self.recipe.batch_size if self._is_stacked else BATCH[self.device.type], 0
        self._sums_RT3.zero_()
        for x_BCHW, labels_B in self._loaders[0].evaluation(part, batch):
            if stop():
                return None
            self._compute("evaluate", self._add_scores, x_BCHW, labels_B)
            images += len(labels_B)
        return [
            combine_steps([Scores(*(value / images for value in sums)) for sums in by_step], self._step_weights)
            for by_step in self._sums_RT3.tolist()
        ]

    def _weights(self, k: int) -> Weights:
        return self.replicas.state(k)

    def _load_weights(self, k: int, weights: Weights) -> None:
        self.replicas.load(k, weights)

    # ---------------------------------------------------------------------------------------------------- on the device

    def _compute(self, name: str, compute: Callable[..., None], *inputs: torch.Tensor) -> None:
        """Call a function; on a GPU, capture it in its first call and launch it as a whole."""
        if not self._captures:
            compute(*inputs)
            return
        key = (name, inputs[0].shape)
        if key not in self._captured:
            changed = [self.replicas.flat, self.replicas.grad, *self.replicas.buffers.values()]
            changed += [self._losses_KS, self._correct_RS, self._sums_RT3, self._next_1, *self.optimizer.tensors]
            changed.append(self._gradients_RG)
            self._captured[key] = Captured(compute, inputs, changed, self._context)
        self._captured[key](*inputs)

    def _learn(self, x_DBCHW: torch.Tensor, labels_DB: torch.Tensor) -> None:
        """One step of all replicas, without waiting for the device."""
        x_RBCHW, labels_RB = (value.index_select(0, self._source_R) for value in (x_DBCHW, labels_DB))
        self.replicas.zero_grad()
        logits_RBTK = self._logits(x_RBCHW, training=True)
        smoothing = self.recipe.label_smoothing
        if self._is_stacked:
            losses_R = stacked_losses(logits_RBTK, labels_RB, self._step_weights, smoothing)
        else:
            pairs = zip(logits_RBTK, labels_RB, strict=True)
            losses_R = torch.stack([loss_of(logits, labels, self._step_weights, smoothing) for logits, labels in pairs])
        losses_R.sum().backward()  # type: ignore[no-untyped-call]
        if self.recipe.record_gradients:
            self._gradients_RG.add_(self._groups.norms(self._gradient_norms))
        self.optimizer.step(self._rates_SHR.index_select(0, self._next_1)[0])
        correct_R = (logits_RBTK[:, :, -1].detach().argmax(2) == labels_RB).sum(1).float()
        self._losses_KS.index_copy_(1, self._next_1, losses_R.detach()[:, None])
        self._correct_RS.index_copy_(1, self._next_1, correct_R[:, None])
        self._next_1.add_(1)

    def _gradient_norms(self, name: str) -> torch.Tensor:
        """The norm of the gradient of a parameter [R]; 0 for replicas that do not have it."""
        norms_R: torch.Tensor = torch.linalg.vector_norm(self.replicas.view(name, self.replicas.grad), dim=1)
        return norms_R

    @torch.no_grad()
    def _add_scores(self, x_BCHW: torch.Tensor, labels_B: torch.Tensor) -> None:
        """Add the score sums of all replicas on a batch."""
        replicas = self.replicas.count
        logits_RBTK = self._logits(x_BCHW.expand(replicas, *x_BCHW.shape), training=False)
        if self._is_stacked:
            self._sums_RT3 += stacked_score_sums(logits_RBTK, labels_B.expand(replicas, -1), self._top)
            return
        each = [[score_sums(logits_BK, labels_B, self._top) for logits_BK in one.unbind(1)] for one in logits_RBTK]
        self._sums_RT3 += torch.stack([torch.stack(sums) for sums in each])

    def _logits(self, x_RBCHW: torch.Tensor, training: bool) -> torch.Tensor:
        """The outputs [R, B, T, K] for a batch of each replica, in the recipe's precision, as float32."""
        low = self.recipe.precision == "bf16"
        # A cache of rounded weights would not be computed again when a captured step is launched.
        autocast = torch.autocast(self.device.type, torch.bfloat16, cache_enabled=not self._captures)
        try:
            with autocast if low else nullcontext():
                logits: torch.Tensor = self.replicas(x_RBCHW, training=training).float()
        except ValueError as error:  # batch norm of one value per channel
            raise RunError(
                f"{self._describe()}, step {self.state.total_steps + 1}: a batch of {x_RBCHW.shape[1]} cannot be "
                f"computed: {error}. Choose another batch size, or 'drop_last=true'."
            ) from error
        return logits if logits.dim() == 4 else logits[:, :, None]


def _make_replicas(
    runs: Sequence[PreparedRun], supergraph: Plan, backend: StackBackend, device: torch.device
) -> Replicas:
    plans = [run.arch.plan for run in runs]
    try:
        if backend == "stacked":
            return Stacked(supergraph, plans, device=device)
        return Branches(supergraph, plans, device=device, memory_format=image_format(runs[0].recipe, supergraph))
    except ValueError as error:
        raise UsageError(f"{error} These runs cannot be computed together: train each of them on its own.") from error


def _describe(runs: Sequence[PreparedRun]) -> str:
    return "a stack of 1 run" if len(runs) == 1 else f"a stack of {len(runs)} runs"
