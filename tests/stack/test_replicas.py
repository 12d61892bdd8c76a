"""Networks in stacks, compared with single modules and with other stacks: masks, NaN in other replicas, optimizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import hiresnet_graph as hrg
from hiresnet_graph.plan import Plan
from hiresnet_graph.stack.branches import Branches
from hiresnet_graph.stack.lowering import Stacked
from hiresnet_graph.stack.optimizers import FlatOptimizer
from hiresnet_graph.stack.replicas import Replicas
from hiresnet_graph.train import Recipe

BATCH = 6


def network(**changes: Any) -> hrg.Architecture:
    """A narrow hiresnet18 for small images, with odd numbers of channels."""
    small = {"width": 5, "input.height": 9, "input.width": 9}
    return hrg.load("hiresnet18").override({**small, **{key.replace("__", "."): v for key, v in changes.items()}})


def family(arch: hrg.Architecture, *edges: str) -> tuple[Plan, list[hrg.Architecture]]:
    """The supergraph, and networks with some edge subsets."""
    return arch.with_edges("full").plan, [arch.with_edges(some) for some in edges]


def images(shape: Sequence[int], seed: int, batch: int = BATCH) -> tuple[torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *shape, generator=chance), torch.randint(3, (batch,), generator=chance)


def filled(own: Replicas, networks: Sequence[hrg.Architecture], seeds: Sequence[int]) -> list[nn.Module]:
    """Load the initial weights of each network into its replica, and return the modules."""
    modules: list[nn.Module] = []
    for k, (arch, seed) in enumerate(zip(networks, seeds, strict=True)):
        module = arch.build(seed).to(own.dtype)
        own.load(k, module.state_dict())
        modules.append(module)
    return modules


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-3))


NETWORKS: dict[str, tuple[Callable[[], hrg.Architecture], tuple[str, ...]]] = {
    "plain": (lambda: network(block="plain"), ("none", "full", "in", "out")),
    "basic": (network, ("none", "full", "p2", "p3")),
    "resnext": (lambda: network(block="resnext", width=8), ("full", "p1", "none")),
    "mean": (lambda: network(skips__merge="mean"), ("none", "full", "in")),
    "multiply": (lambda: network(skips__merge="multiply"), ("none", "full", "out")),
    "weighted": (lambda: network(skips__merge="weighted"), ("none", "full", "in")),
    "gated": (lambda: network(skips__merge="gated"), ("none", "full", "p1")),
    "scale": (lambda: network(skips__scale={"learned": True, "init": 0.5}), ("none", "full", "p1")),
    "gate": (lambda: network(skips__scale="gate", skips__slot="residual"), ("none", "full", "in")),
    "fixed scale": (lambda: network(skips__scale=-0.5), ("none", "full", "out")),
    "at the input": (lambda: network(skips__slot="input"), ("none", "full", "in")),
}


@pytest.mark.parametrize("program", [Stacked, Branches])
@pytest.mark.parametrize("name", NETWORKS)
def test_edge_subsets_equal_single_modules(name: str, program: Callable[..., Replicas]) -> None:
    arch, edges = NETWORKS[name][0](), NETWORKS[name][1]
    supergraph, networks = family(arch, *edges)
    own = program(supergraph, [one.plan for one in networks], dtype=torch.float64)
    modules = filled(own, networks, range(len(networks)))
    assert_equals_single_modules(own, modules, supergraph)


SHIPPED = ["resnet20", "densenet40", "frnn3", "rnn_resnet3", "cornet_rt", "rcnn"]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_networks(name: str) -> None:
    arch = hrg.load(name)
    if name in ("frnn3", "rnn_resnet3"):
        arch = arch.override({"width": 4, "size": 8})
    elif name == "cornet_rt":
        arch = arch.override({"input.height": 32, "input.width": 32})
    own = Stacked(arch.plan, [arch.plan] * 3, dtype=torch.float64)
    assert not own.fallback_ops or name == "rcnn"
    assert_equals_single_modules(own, filled(own, [arch] * 3, range(3)), arch.plan, batch=2)


def assert_equals_single_modules(
    own: Replicas, modules: Sequence[nn.Module], plan: Plan, batch: int = BATCH, tolerance: float = 1e-12
) -> None:
    (shape,) = plan.inputs.values()
    for k in range(own.count):
        own.generators[k].manual_seed(k)
    x_MB = torch.stack([images(shape, k, batch)[0] for k in range(own.count)]).to(own.device, own.dtype)
    y_MB = own(x_MB, training=True)
    direction = torch.randn(y_MB.shape[1:], generator=torch.Generator().manual_seed(9)).to(own.device, own.dtype)
    (y_MB * direction).sum().backward()
    for k, module in enumerate(modules):
        torch.manual_seed(k)
        y_B = module.train()(x_MB[k].contiguous(memory_format=torch.channels_last))
        (y_B * direction).sum().backward()
        assert relative(y_MB[k], y_B) < tolerance
        grads = own.spread(k, own.grad)
        assert {*grads} == {name for name, _ in module.named_parameters()}
        largest = max(float(p.grad.abs().max()) for p in module.parameters() if p.grad is not None)
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None
            assert float((grads[name] - parameter.grad).abs().max()) <= tolerance * largest
        assert {*own.state(k)} == {*module.state_dict()}
        for name, value in module.state_dict().items():
            assert relative(own.state(k)[name], value) < tolerance
    if own.absent is not None:
        assert torch.equal(own.grad[own.absent], torch.zeros_like(own.grad[own.absent]))


RECIPES = (
    Recipe(lr=0.01, warmup_epochs=1),
    Recipe(lr=0.03, weight_decay=1e-3, clip_norm=0.5, schedule="cosine"),
    Recipe(lr=0.001, weight_decay=1e-2, momentum=0.5, step_every=2),
)


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd", "nesterov"])
def test_fifty_steps_equal_those_of_torch_optimizers(kind: str) -> None:
    supergraph, networks = family(network(width=2), "none", "full", "in")
    own = Stacked(supergraph, [one.plan for one in networks], dtype=torch.float64)
    modules = filled(own, networks, range(3))
    fields: dict[str, object] = {"optimizer": "sgd", "nesterov": True} if kind == "nesterov" else {"optimizer": kind}
    recipes = [recipe.model_copy(update=fields) for recipe in RECIPES]
    optimizer = FlatOptimizer(recipes, own)
    rates = optimizer.rates([0, 0, 0], 50, 10)
    assert rates.shape[0] == 50 and rates.shape[2] == 3
    theirs = [_torch_optimizer(recipe, module) for recipe, module in zip(recipes, modules, strict=True)]
    for step in range(50):
        batches = [images((3, 9, 9), 10 * step + k) for k in range(3)]
        own.zero_grad()
        out = own(torch.stack([x for x, _ in batches]).double(), training=True)
        torch.stack([cross_entropy(y, labels) for y, (_, labels) in zip(out, batches, strict=True)]).sum().backward()
        optimizer.step(rates[step])
        for module, other, recipe, (x, labels) in zip(modules, theirs, recipes, batches, strict=True):
            other.zero_grad()
            cross_entropy(module(x.double()), labels).backward()
            if recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(module.parameters(), recipe.clip_norm)
            other.param_groups[0]["lr"] = recipe.lr_at(step, 10)
            other.step()
    for k, module in enumerate(modules):
        for name, value in module.state_dict().items():
            assert relative(own.state(k)[name], value) < 1e-9, name
        names = [name for name, _ in module.named_parameters()]
        for index, kept in theirs[k].state_dict()["state"].items():
            for entry, value in kept.items():
                if value is not None and torch.is_tensor(value):
                    assert relative(optimizer.state(k, 50)[names[index]][entry], value) < 1e-9


def _torch_optimizer(recipe: Recipe, module: nn.Module) -> torch.optim.Optimizer:
    how = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(module.parameters(), momentum=recipe.momentum, nesterov=recipe.nesterov, **how)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(module.parameters(), **how)


def test_the_state_of_an_optimizer_can_be_restored() -> None:
    supergraph, networks = family(network(), "none", "full", "in")
    first, second = (Stacked(supergraph, [one.plan for one in networks]) for _ in range(2))
    filled(first, networks, range(3))
    one, other = (FlatOptimizer(RECIPES, own) for own in (first, second))
    _learned(first, one, range(4))
    for k in range(3):
        second.load(k, first.state(k))
        other.load(k, one.state(k, 4))
    _learned(first, one, range(4, 8))
    _learned(second, other, range(4, 8))
    for k in range(3):
        for name, value in first.state(k).items():
            assert torch.equal(value, second.state(k)[name])


def _learned(own: Replicas, optimizer: FlatOptimizer, steps: Sequence[int], low: bool = False) -> None:
    """Train all replicas on the same batch and labels."""
    (shape,) = own.supergraph.inputs.values()
    for step in steps:
        x_B, labels_B = images(shape, step, 8)
        own.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            out = own(x_B.to(own.dtype).expand(own.count, *x_B.shape), training=True)
        out = out.to(own.dtype)
        torch.stack([cross_entropy(y, labels_B) for y in out]).sum().backward()
        optimizer.step(optimizer.rates([step] * own.count, 1, 10)[0])


def trained(
    networks: Sequence[hrg.Architecture],
    supergraph: Plan,
    dtype: torch.dtype,
    sick: int | None = None,
    steps: int = 4,
    low: bool = False,
) -> list[dict[str, torch.Tensor]]:
    """The state of each replica after a few steps, with weight decay and clipping."""
    torch.set_num_threads(1)
    own = Stacked(supergraph, [one.plan for one in networks], dtype=dtype)
    filled(own, networks, [0] * len(networks))
    if sick is not None:
        for value in own.parameters_of(sick).values():
            value.detach().fill_(float("nan"))
    optimizer = FlatOptimizer([Recipe(weight_decay=1e-3, clip_norm=1.0)] * len(networks), own)
    _learned(own, optimizer, range(steps), low)
    return [{name: value.detach().clone() for name, value in own.state(k).items()} for k in range(len(networks))]


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert {*found} == {*expected}
    for name, value in expected.items():
        assert torch.isfinite(value).all() and torch.equal(found[name], value), name


SHARED = """
name: shared
input: {channels: 2, height: 6, width: 6}
nodes:
  a: {block: conv, width: 5}
  b: {block: conv, width: 5}
  c: {block: conv, width: 5}
  head: {block: classifier, classes: 3}
flow: a -> b -> c -> head
edges:
  - {from: a, to: c, slot: output, block: conv, width: 5, weights: w}
  - {from: b, to: c, slot: output, block: conv, width: 5, weights: w}
"""


@pytest.mark.parametrize("program", [Stacked, Branches])
def test_running_statistics_of_weights_that_several_edges_share(program: Callable[..., Replicas]) -> None:
    """Replicas with both edges, with either, and with none: each norm counts the calls that its own network has."""
    head, one, two = SHARED.partition("  - {from: a")[0], *SHARED.splitlines(keepends=True)[-2:]
    both = hrg.loads(SHARED)
    networks = [both, hrg.loads(head + one), hrg.loads(head + two), hrg.loads(head.removesuffix("edges:\n")), both]
    own = program(both.plan, [arch.plan for arch in networks], dtype=torch.float64)
    modules = filled(own, networks, range(5))
    x_MB = torch.stack([images((2, 6, 6), k)[0] for k in range(5)]).double()
    for _ in range(3):
        own(x_MB, training=True)
    for k, module in enumerate(modules):
        for _ in range(3):
            module.train()(x_MB[k])
        expected, found = module.state_dict(), own.state(k)
        counts = {name: int(value) for name, value in found.items() if name.endswith("num_batches_tracked")}
        shared = counts.pop("w.norm.num_batches_tracked", None)
        assert shared == (6, 3, 3, None, 6)[k] and set(counts.values()) == {3}
        assert {*found} == {*expected}
        for name, value in expected.items():
            assert relative(found[name], value) < 1e-12, (k, name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("width", [3, 8])
def test_a_replica_does_not_depend_on_other_replicas(width: int, dtype: torch.dtype) -> None:
    supergraph, networks = family(network(width=width), "none", "full", "in")
    before = trained(networks, supergraph, dtype)
    for order, sick in (([2, 1, 0], None), ([1, 1, 0, 2, 1], 1), ([0, 1, 2, 1], 3), ([0, 0, 1, 2, 0, 1, 2, 2], 0)):
        after = trained([networks[number] for number in order], supergraph, dtype, sick)
        for k, number in enumerate(order):
            if k != sick:
                assert_equal(after[k], before[number])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("merge", ["add", "mean", "weighted", "multiply"])
def test_a_masked_edge_is_an_absent_edge(merge: str, dtype: torch.dtype) -> None:
    supergraph, networks = family(network(skips__merge=merge), "none", "full", "in", "p2")
    together = trained(networks, supergraph, dtype)
    for arch, found in zip(networks, together, strict=True):
        own = trained([arch] * 3, arch.plan, dtype)  # no edge that is not its own, so no mask
        assert_equal(found, own[0])


def test_weights_of_an_absent_edge_are_never_read() -> None:
    supergraph, networks = family(network(), "none", "full", "in")
    before = trained(networks, supergraph, torch.float32)
    own = Stacked(supergraph, [one.plan for one in networks])
    filled(own, networks, [0] * 3)
    assert own.absent is not None
    with torch.no_grad():
        own.flat[own.absent] = 1e30
    optimizer = FlatOptimizer([Recipe(weight_decay=1e-3, clip_norm=1.0)] * 3, own)
    _learned(own, optimizer, range(4))
    for k in range(3):
        assert_equal(own.state(k), before[k])


EDGE = """
name: edge
input: {channels: 2, height: 6, width: 6}
nodes:
  a: {block: conv, width: 4}
  b: {block: conv, width: 4}
  drop: {block: dropout}
  head: {block: classifier, classes: 3}
flow: [a -> b -> drop -> head]
edges: [{from: a, to: b, slot: output, block: dropout}]
"""


def test_dropout_on_an_absent_edge_draws_no_numbers() -> None:
    full = hrg.loads(EDGE)
    none = hrg.loads(EDGE[: EDGE.index("edges:")])
    found = []
    for networks in ([none, full, none], [none] * 3):
        own = Stacked(full.plan, [one.plan for one in networks])
        filled(own, networks, [0, 0, 0])
        for noise in own.generators:
            noise.manual_seed(3)
        _learned(own, FlatOptimizer([Recipe()] * 3, own), range(3))
        assert own.fallback_ops == ("dropout",)
        found.append({name: value.detach().clone() for name, value in own.state(2).items()})
    assert_equal(found[0], found[1])


def test_batch_norms_count_batches_for_each_replica() -> None:
    supergraph, networks = family(network(), "none", "full", "none")
    own = Stacked(supergraph, [one.plan for one in networks])
    filled(own, networks, range(3))
    state = {name: torch.full_like(v, 5) for name, v in own.state(1).items() if name.endswith("num_batches_tracked")}
    own.load(1, {**own.state(1), **state})
    _learned(own, FlatOptimizer([Recipe()] * 3, own), range(2))
    for k, counted in enumerate((2, 7, 2)):
        numbers = [v for name, v in own.state(k).items() if name.endswith("num_batches_tracked")]
        assert numbers and all(number.dtype == torch.int64 and int(number) == counted for number in numbers)
    edges = [name for name in own.buffers if name.startswith("edges.") and name.endswith("running_mean")]
    assert edges
    for name in edges:  # a replica without the edge leaves what belongs to it alone
        assert own.buffers[name][1].abs().sum() > 0 and own.buffers[name][[0, 2]].abs().sum() == 0


@pytest.mark.parametrize("width", [1, 3, 5, 7])
def test_bf16_with_odd_widths_reads_no_other_replica(width: int) -> None:
    supergraph, networks = family(network(width=width), "full", "none", "full", "in")
    before = trained(networks, supergraph, torch.float32, low=True, steps=3)
    after = trained(networks, supergraph, torch.float32, sick=1, low=True, steps=3)
    for k in (0, 2, 3):
        assert_equal(after[k], before[k])
    assert not torch.isfinite(next(iter(after[1].values()))).all()


def test_slots_are_aligned_to_cache_lines() -> None:
    supergraph, networks = family(network(width=3), "full", "none", "in")
    for dtype in (torch.float32, torch.float64):
        own = Stacked(supergraph, [one.plan for one in networks], dtype=dtype)
        for k in range(3):
            for value in own.state(k).values():
                assert value.data_ptr() % 64 == 0
            assert all(
                value.untyped_storage().data_ptr() == own.flat.data_ptr() for value in own.parameters_of(k).values()
            )


def test_another_network_is_rejected() -> None:
    arch = network()
    with pytest.raises(ValueError, match="is not 'hiresnet18' without operands of its merges"):
        Stacked(arch.with_edges("in").plan, [arch.with_edges("full").plan])
