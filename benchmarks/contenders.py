"""Ways to train, epoch by epoch: each gives the mean training loss of one epoch, validation included, for each `next`.

`script_epochs` is a plain script as the PyTorch tutorial has it; `run_epochs` and `stack_epochs` are this package;
`vmap_epochs` and `grouped_epochs` are loops by hand over M replicas, without a captured graph.

Axes: M replicas, B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

from benchmarks.handwritten import HiResNet18
from hiresnet_graph.architecture import Architecture
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.data.loader import Loader
from hiresnet_graph.data.split import Split
from hiresnet_graph.errors import UsageError
from hiresnet_graph.stack.lowering import Stacked
from hiresnet_graph.stack.optimizers import FlatOptimizer
from hiresnet_graph.stack.program import run_stack
from hiresnet_graph.stack.request import StackRequest
from hiresnet_graph.train.environment import tf32_products
from hiresnet_graph.train.events import EpochDone, Finished, Refused, RunEvent
from hiresnet_graph.train.program import run
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import Seeds
from hiresnet_graph.train.request import RunRequest

CIFAR = "CIFAR-10"
_STEPS = 5000
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def cut(whole: Dataset, train: int) -> Dataset:
    """A data set with so many training images at most, a ninth as many for validation, as in the paper's protocol."""
    held = max(train // 9, 10)
    split = whole.split
    return dataclasses.replace(whole, split=Split(split.train[:train], split.validation[:held], split.test[:held]))


def images(train: int) -> tuple[Dataset, str]:
    """What is trained on, cut to so many images besides those for validation; and where it is from."""
    try:
        whole, origin = load_dataset("cifar10"), CIFAR
    except UsageError:
        whole, origin = load_dataset(f"synthetic:images={2 * train},channels=3,size=32,classes=10"), "random images"
    return cut(whole, train), origin


class Pictures(TorchDataset[tuple[torch.Tensor, int]]):
    """Images as torchvision's CIFAR10 gives them: a PIL image through the transforms."""

    def __init__(self, data: Dataset, places: tuple[int, ...], transform: transforms.Compose) -> None:
        chosen = torch.tensor(places)
        self.arrays = data.images_NCHW[chosen].permute(0, 2, 3, 1).squeeze(3).contiguous().numpy()
        self.labels = data.labels_N[chosen].tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(np.asarray(self.arrays[place]))), self.labels[place]


def script_epochs(
    data: Dataset, *, width: int = 16, batch: int = 100, device: str = "cpu", low_precision: bool = False
) -> Iterator[float]:
    """Train as in the tutorial "Training a Classifier"; one `next` is one epoch, and gives its mean loss.

    Args:
        low_precision: Compute in bfloat16, as torch's autocast does it.
    """
    channels, size, _ = data.shape
    plain = [transforms.ToTensor(), transforms.Normalize(MEAN[:channels], STD[:channels])]
    augmented = [transforms.RandomCrop(size, padding=size // 8), transforms.RandomHorizontalFlip(), *plain]
    train_set = Pictures(data, data.split.train, transforms.Compose(augmented))
    validation_set = Pictures(data, data.split.validation, transforms.Compose(plain))
    train_loader = DataLoader(train_set, batch_size=batch, shuffle=True, num_workers=2)
    validation_loader = DataLoader(validation_set, batch_size=batch, shuffle=False, num_workers=2)
    network: nn.Module = HiResNet18(width, channels=channels).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    rounded = partial(torch.autocast, torch.device(device).type, torch.bfloat16, enabled=low_precision)
    while True:
        network.train()
        running_loss = 0.0
        for inputs, labels in train_loader:
            inputs, labels = inputs.to(device), labels.to(device)
            optimizer.zero_grad()
            with rounded():
                loss = cross_entropy(network(inputs), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            running_loss += loss.item()
        network.eval()
        correct = total = 0
        with torch.no_grad():
            for inputs, labels in validation_loader:
                with rounded():
                    predicted = network(inputs.to(device)).argmax(1)
                total += labels.size(0)
                correct += int((predicted == labels.to(device)).sum())
        yield running_loss / len(train_loader)


def run_epochs(request: RunRequest, data: Dataset) -> Iterator[float]:
    """A run alone, as `hrg train` and the workers of `hrg ablate` do it."""
    with tempfile.TemporaryDirectory() as folder, closing(run(request, Path(folder), dataset=data)) as events:  # type: ignore[type-var]
        for event in events:
            if isinstance(event, EpochDone):
                yield event.epoch.train_loss
        raise RuntimeError("the run has ended")


def stack_epochs(request: StackRequest, data: Dataset) -> Iterator[float]:
    """Runs as one program, as `hrg ablate --stack` does it; their folders are below one that is deleted."""
    with tempfile.TemporaryDirectory() as folder:
        members = tuple(run._replace(folder=Path(folder) / run.key) for run in request.runs)
        events = run_stack(dataclasses.replace(request, runs=members), dataset=data)
        losses: list[float] = []
        with closing(events) as told:  # type: ignore[type-var]
            for event in told:
                if isinstance(event, RunEvent) and isinstance(event.event, Finished | Refused):
                    raise RuntimeError(f"run {event.key} has ended: {event.event}")
                if isinstance(event, RunEvent) and isinstance(event.event, EpochDone):
                    losses.append(event.event.epoch.train_loss)
                    if len(losses) == len(members):
                        yield sum(losses) / len(losses)
                        losses = []


# ------------------------------------------------------------------------------------------------ replicas by hand


class Together(Protocol):
    """M replicas that are computed together."""

    def __call__(self, x_MBCHW: Tensor, *, training: bool) -> Tensor:
        """Scores [M, B, K]."""

    def zero_grad(self) -> None:
        """Forget the gradients."""

    def step(self) -> None:
        """Change the weights by the gradients."""


class Vmap:
    """Replicas by `torch.func.vmap` over stacked state, as torch's tutorial on ensembles has it; Adam on it, fused."""

    def __init__(self, arch: Architecture, seeds: Sequence[Seeds], recipe: Recipe, device: torch.device) -> None:
        modules = [arch.build(seed.init).to(device) for seed in seeds]
        # What `torch.func.stack_module_state` does; it wants modules of one class, and each fx module is of its own.
        states = [dict(module.named_parameters()) for module in modules]
        self.parameters = {name: torch.stack([s[name].detach() for s in states]).requires_grad_() for name in states[0]}
        states = [dict(module.named_buffers()) for module in modules]
        self.buffers = {name: torch.stack([state[name] for state in states]) for name in states[0]}
        self.base = modules[0].to("meta")
        self.optimizer = torch.optim.Adam(list(self.parameters.values()), lr=recipe.lr, fused=True)

    def __call__(self, x_MBCHW: Tensor, *, training: bool) -> Tensor:
        self.base.train(training)

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x_BCHW: Tensor) -> Any:
            return torch.func.functional_call(self.base, (parameters, buffers), (x_BCHW,))

        scores_MBK: Tensor = torch.func.vmap(one)(self.parameters, self.buffers, x_MBCHW)
        return scores_MBK

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def step(self) -> None:
        self.optimizer.step()


class Grouped:
    """Replicas by grouped convolutions in NCHW: our stacked program, step by step and not captured."""

    def __init__(self, arch: Architecture, seeds: Sequence[Seeds], recipe: Recipe, device: torch.device) -> None:
        self.replicas = Stacked(arch.plan, [arch.plan] * len(seeds), device=device)
        for k, seed in enumerate(seeds):
            self.replicas.load(k, arch.build(seed.init).state_dict())
        self.optimizer = FlatOptimizer([recipe] * len(seeds), self.replicas)
        # The rate is constant, and the corrections of Adam's first steps are 1 at the end of this table.
        self.rates_PHM = self.optimizer.rates([0] * len(seeds), _STEPS, _STEPS)
        self.steps = 0

    def __call__(self, x_MBCHW: Tensor, *, training: bool) -> Tensor:
        scores_MBK: Tensor = self.replicas(x_MBCHW, training=training)
        return scores_MBK

    def zero_grad(self) -> None:
        self.replicas.zero_grad()

    def step(self) -> None:
        self.optimizer.step(self.rates_PHM[min(self.steps, len(self.rates_PHM) - 1)])
        self.steps += 1


def epochs_by_hand(
    make: Callable[[], Together], seeds: Sequence[Seeds], recipe: Recipe, data: Dataset, device: torch.device
) -> Iterator[float]:
    """Train replicas with data on the device; those of one data seed share their batches."""
    program, count = make(), len(seeds)
    kinds = list(dict.fromkeys(seed.data for seed in seeds))
    place_M = torch.tensor([kinds.index(seed.data) for seed in seeds], device=device)
    first = Loader(data, device=device, augment=recipe.augment)
    loaders = [first.with_seed(kind) for kind in kinds]
    low = recipe.precision == "bf16"
    rounded = partial(torch.autocast, device.type, torch.bfloat16) if low else contextlib.nullcontext
    for epoch in itertools.count(1):
        losses = []
        with tf32_products(recipe.precision == "tf32") if device.type == "cuda" else contextlib.nullcontext():
            for batches in zip(*(loader.training(epoch, recipe.batch_size) for loader in loaders), strict=True):
                x_MBCHW = torch.stack([x_BCHW for x_BCHW, _ in batches])[place_M]
                labels_MB = torch.stack([labels_B for _, labels_B in batches])[place_M]
                program.zero_grad()
                with rounded():
                    scores_MBK = program(x_MBCHW, training=True)
                each = cross_entropy(scores_MBK.float().flatten(0, 1), labels_MB.flatten(), reduction="none")
                loss_M = each.view(count, -1).mean(1)
                loss_M.sum().backward()  # type: ignore[no-untyped-call]
                program.step()
                losses.append(loss_M.detach().mean())
            right_M = torch.zeros(count, device=device)
            with torch.no_grad():
                for x_BCHW, labels_B in loaders[0].evaluation("validation", recipe.batch_size):
                    with rounded():
                        scores_MBK = program(x_BCHW.expand(count, *x_BCHW.shape), training=False)
                    right_M += (scores_MBK.argmax(2) == labels_B).sum(1)
            assert bool((right_M >= 0).all())
        yield torch.stack(losses).mean().item()
