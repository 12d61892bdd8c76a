"""The trainer of a single run, in one process or in several.

Axes: B images of a batch, R readout steps, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from hiresnet_graph.data.loader import Loader
from hiresnet_graph.lower.checkpointed import Checkpointed
from hiresnet_graph.lower.code import GraphWriter
from hiresnet_graph.lower.recurrent import Recurrent
from hiresnet_graph.plan import Plan
from hiresnet_graph.seeding import derive_seed
from hiresnet_graph.segments import block_segments
from hiresnet_graph.train.averaging import WeightAverage
from hiresnet_graph.train.checkpoint import Checkpoint
from hiresnet_graph.train.checks import count_readouts
from hiresnet_graph.train.environment import describe_environment
from hiresnet_graph.train.evaluation import (
    BATCH,
    Output,
    Part,
    Scores,
    class_weights,
    combine_steps,
    evaluate,
    loss_of,
    split_steps,
)
from hiresnet_graph.train.gradients import GradientGroups
from hiresnet_graph.train.mixing import Mixing, main_labels
from hiresnet_graph.train.optimizer_state import from_tensors, load_state, state_by_name, to_tensors
from hiresnet_graph.train.parallel import SINGLE_PROCESS, Processes
from hiresnet_graph.train.parameter_rules import frozen_layers, lr_factors, undecayed_parameters
from hiresnet_graph.train.prepare import PreparedRun
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.state import Weights, below
from hiresnet_graph.train.trainer import (
    Batch,
    Condition,
    Trainer,
    augmentation_of,
    compute_logits,
    image_format,
    make_optimizer,
    memory_errors,
    move_to,
)


class SingleTrainer(Trainer):
    """One run in progress: its network and its optimizer.

    Dropout draws from the global random numbers of torch, whose state is kept here between two calls.
    """

    def __init__(self, run: PreparedRun, device: torch.device, processes: Processes = SINGLE_PROCESS) -> None:
        recipe, seeds, dataset = run.recipe, run.request.seeds, run.dataset
        self.seeds, self._top = seeds, min(recipe.top_k, dataset.classes)
        self._step_weights = recipe.step_weights(count_readouts(run.arch.plan))
        memory_format = image_format(recipe, run.arch.plan)
        with memory_errors("the network cannot be put on the device"):
            self.module = move_to(run.arch.build(seeds.init), device, memory_format)
            self.loader = Loader(
                dataset,
                device=device,
                **augmentation_of(recipe),
                seed=seeds.data,
                workers=run.request.data_workers,
                memory_format=memory_format,
            )
        self._mixing = Mixing(recipe, dataset.classes, seeds.data)
        weights_K = class_weights(recipe, dataset)
        self._class_weights_K = None if weights_K is None else weights_K.to(device)
        plan = run.arch.plan
        self._forward = training_forward(self.module, plan, recipe)
        factors = lr_factors(recipe, plan)
        self._frozen = [self.module.get_submodule(name) for name in frozen_layers(recipe, plan)]
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(name in factors)
        self.optimizer = make_optimizer(recipe, self.module, factors, undecayed_parameters(recipe, plan))
        is_last, backend = memory_format is torch.channels_last, "compile" if recipe.compile else "eager"
        self._scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        self._average = None if recipe.ema is None else WeightAverage(self.module, recipe.ema)
        self._evaluated = self.module if self._average is None else self._average.module
        environment = describe_environment(device, run.request.threads, is_last, backend)
        steps = self.loader.steps(recipe.batch_size, recipe.drop_last)
        losses_1S, correct_1S = (torch.zeros(1, steps, device=device) for _ in range(2))
        self._groups = GradientGroups([plan], device, factors)
        gradients = [self._groups.sums_of(plan, self._groups.zeros())] if recipe.record_gradients else []
        super().__init__([run], device, environment, losses_1S, correct_1S, processes, gradients)
        self.rng_state: list[torch.Tensor] = []

    def checkpoint(self, k: int = 0) -> Checkpoint:
        """Everything that the rest of the run depends on."""
        tensors = {f"model.{name}": value for name, value in self._evaluated.state_dict().items()}
        if self._average is not None:
            tensors |= {f"trained.{name}": value for name, value in self.module.state_dict().items()}
        if self._scaler.is_enabled():
            tensors |= {f"scaler.{name}": torch.tensor(value) for name, value in self._scaler.state_dict().items()}
        tensors |= to_tensors(state_by_name(self.optimizer, self.module))
        tensors |= self.states[0].tensors()
        for rank, rng_state in enumerate(self.processes.gather(self.rng_state)):
            tensors |= {f"noise.{rank}.{i}": value for i, value in enumerate(rng_state)}
        return Checkpoint(self.states[0].counters(self.runs[0].key), tensors)

    def initialize(self, k: int) -> None:
        """Start the run from the weights that it requests, if any; as for `Trainer`."""
        super().initialize(k)
        self.module.load_state_dict(self._evaluated.state_dict())

    def restore(self, k: int, checkpoint: Checkpoint) -> None:
        """Return to a checkpoint."""
        counters, tensors = checkpoint
        self._evaluated.load_state_dict(below(tensors, "model"))  # by copy, so that the memory format stays
        if self._average is not None:
            self.module.load_state_dict(below(tensors, "trained"))
        if self._scaler.is_enabled():
            self._scaler.load_state_dict({name: value.item() for name, value in below(tensors, "scaler").items()})
        load_state(self.optimizer, self.module, from_tensors(tensors))
        rng_state = below(tensors, f"noise.{self.processes.rank}")
        self.rng_state = [rng_state[str(i)] for i in range(len(rng_state))]
        self.states[0].restore(counters, tensors)

    # ----------------------------------------------------------------------------------------------------- of `Trainer`

    def _describe(self) -> str:
        return f"seed {self.seeds}"

    @contextmanager
    def _random_state(self) -> Iterator[None]:
        is_gpu = self.device.type == "cuda"
        if self.rng_state:
            torch.set_rng_state(self.rng_state[0])
            if is_gpu and len(self.rng_state) > 1:
                torch.cuda.set_rng_state(self.rng_state[1], self.device)
        try:
            yield
        finally:
            self.rng_state = [torch.get_rng_state(), *([torch.cuda.get_rng_state(self.device)] if is_gpu else [])]

    def _seed_epoch(self) -> None:
        stream = f"noise{self.processes.rank or ''}"
        torch.manual_seed(derive_seed(self.seeds.data, stream, self.state.epoch + 1))

    def _open_batches(self) -> list[Iterator[Batch]]:
        self.module.train()
        for layer in self._frozen:
            layer.eval()
        batches = self.loader.training(
            self.state.epoch + 1,
            self.recipe.batch_size,
            drop_last=self.recipe.drop_last,
            first_step=self.state.step,
            rank=self.processes.rank,
            world=self.processes.world,
        )
        return [batches]

    def _train_step(self, stop: Condition, is_due: Condition) -> Sequence[torch.Tensor] | None:
        recipe, state = self.recipe, self.state
        [batch] = self._next_batches()
        x_BCHW, targets = self._mixing(*batch, *state.cursor)
        rate = recipe.lr_at(state.total_steps, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self.optimizer.zero_grad()
        loss, correct = self._add_gradients(x_BCHW, targets)
        requested: Sequence[torch.Tensor] | None = None
        if self.processes.world > 1:
            flags = (torch.tensor(float(condition()), device=self.device) for condition in (stop, is_due))
            loss, correct, *requested = self.processes.sum(self._trained(), [loss, correct, *flags])
        state.losses_S[state.step] = loss
        state.correct_S[state.step] = correct
        self._scaler.unscale_(self.optimizer)
        if state.gradients is not None:
            state.gradients.sums_G.add_(self._gradient_norms())
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), recipe.clip_norm)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self._average is not None:
            self._average.update(self.module, is_first=state.total_steps == 0)
        return requested

    def _add_gradients(self, x_BCHW: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the gradients of a batch, or of what this process has of it, in the parts of the recipe.

        Returns:
            Its share of the mean loss, and the number of correctly classified images.
        """
        recipe, state = self.recipe, self.state
        images = min(recipe.batch_size, state.images - state.step * recipe.batch_size)  # of all processes
        total, correct = (torch.zeros((), device=self.device) for _ in range(2))
        for part_BCHW, part in zip(
            *(value.tensor_split(recipe.accumulate) for value in (x_BCHW, targets)), strict=True
        ):
            if not len(part):  # the last batch has fewer images than there are parts, or processes
                continue
            outputs = [split_steps(output) for output in compute_logits(self._forward, part_BCHW, recipe)]
            loss = torch.stack(
                [
                    weight
                    * loss_of(logits_BRK, part, self._step_weights, recipe.label_smoothing, self._class_weights_K)
                    for weight, logits_BRK in zip(recipe.output_weights, outputs, strict=True)
                ]
            ).sum()
            # The mean over the batch is the weighted mean of the means.
            loss = loss * (len(part) / images)
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            correct += (outputs[0][:, -1].detach().argmax(1) == main_labels(part)).sum()
        return total, correct

    def _trained(self) -> list[nn.Parameter]:
        """The parameters that are trained."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _gradient_norms(self) -> torch.Tensor:
        """The norm of the gradients of each block and edge [G]."""
        parameters = dict(self.module.named_parameters())

        def norm_of(name: str) -> torch.Tensor:
            grad = parameters[name].grad
            return torch.zeros((), device=self.device) if grad is None else torch.linalg.vector_norm(grad)

        return self._groups.norms(norm_of)

    @torch.no_grad()
    def _evaluate(self, part: Part, stop: Condition) -> Sequence[Scores] | None:
        scores: tuple[Scores, ...] | None = None
        if self.processes.is_first:
            self._evaluated.eval()
            batches = self.loader.evaluation(part, BATCH[self.device.type])
            scores = evaluate(
                lambda x_BCHW: compute_logits(self._evaluated, x_BCHW, self.recipe)[0], batches, self._top, stop
            )
        shared: tuple[Scores, ...] | None = self.processes.broadcast(scores)
        return None if shared is None else [combine_steps(shared, self._step_weights)]

    def _weights(self, k: int) -> Weights:
        return dict(self._evaluated.state_dict())

    def _load_weights(self, k: int, weights: Weights) -> None:
        self._evaluated.load_state_dict(weights)


def training_forward(module: nn.Module, plan: Plan, recipe: Recipe) -> Callable[[torch.Tensor], Output]:
    """How a network is computed in training; the tensors are those of the module."""
    if recipe.checkpoint == "blocks":
        writer = GraphWriter(plan)
        return Checkpointed(module, writer, block_segments(writer.tree.root))
    if recipe.checkpoint_steps is not None and isinstance(module, Recurrent):
        return module.checkpointed(recipe.checkpoint_steps)
    return torch.compile(module, dynamic=False) if recipe.compile else module
