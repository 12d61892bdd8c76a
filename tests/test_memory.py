"""The estimate of the memory of training, compared with what torch stores and allocates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

import hiresnet_graph as hrg
from benchmarks.memory import measured_bytes
from hiresnet_graph.cost import count_parts
from hiresnet_graph.memory import step_memory
from hiresnet_graph.ops import OPS
from hiresnet_graph.train.memory import training_memory
from hiresnet_graph.train.recipe import Recipe, make_recipe
from tests.kinds import accepted, network_of

CHAIN = """
name: chain
input: {channels: 1, height: 4, width: 4}
nodes:
  a: {block: conv2d, width: 2, kernel_size: 1, bias: false}
  b: relu
  c: {block: conv2d, width: 3, kernel_size: 1, bias: false}
flow: input -> a -> b -> c
"""


def stored_bytes(net: hrg.Architecture, batch: int) -> int:
    """What autograd stores for the backward pass, without weights; shared memory counts once."""
    module = net.build().train()
    inputs = [torch.randn(batch, *shape).requires_grad_() for shape in net.plan.inputs.values()]
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    found: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = module(*inputs)
    del result
    return sum(found.values())


EXAMPLES = [{"block": name, **example} for name in OPS for example in OPS.get(name).examples or ({},)]


@pytest.mark.parametrize("fields", EXAMPLES, ids=str)
def test_what_an_operation_stores_is_what_it_declares(fields: dict[str, Any]) -> None:
    """For each further sample, since masks and statistics of a batch do not grow with it."""
    for shape in accepted(fields):
        net = network_of(fields, shape)
        (call,) = [call for call in net.plan.calls if call.op.kind == fields["block"]]
        rule = call.op.saved(*call.input_shapes)
        values = [*(call.input_shapes[k] for k in rule.operands), *([call.shape] if rule.result else [])]
        declared = 4 * (sum(value.elements for value in values) + rule.elements) + rule.size_bytes
        assert stored_bytes(net, 6) - stored_bytes(net, 3) == 3 * declared


def test_a_step_is_followed_value_by_value() -> None:
    """Input 64 B; a and b 128 B each; c, its gradient and the probabilities of the loss 192 B each."""
    plan = hrg.loads(CHAIN).plan
    assert step_memory(plan) == (128, 64 + 128 + 3 * 192, {"b": 128})
    assert step_memory(plan, 10)[:2] == (1280, 10 * (64 + 128 + 3 * 192))
    # computed again: b is made a second time, when c and the loss are still there
    segments = [plan.calls[:2], plan.calls[2:]]
    assert step_memory(plan, segments=segments) == (128, 768, {"b": 128})
    assert step_memory(plan, segments=[plan.calls[:1], plan.calls[1:2], plan.calls[2:]]).stored == 256
    # only c is trained: it reads b, and nothing before it has a gradient
    assert step_memory(plan, trained=["c.weight"]).stored == 128
    assert step_memory(plan, trained=["a.weight"]).by_call == {"b": 128}
    assert step_memory(plan, low_precision=True).by_call == {"a": 32 + 4, "b": 64, "c": 12}


@pytest.mark.parametrize(
    ("name", "changes", "checkpoint"),
    [
        ("hiresnet18", {"input.height": 16, "input.width": 16}, None),
        ("hiresnet18", {"input.height": 16, "input.width": 16}, "blocks"),
        ("hiresvit_tiny", {"width": 48, "depth": 3}, None),
        ("hiresvit_tiny", {"width": 48, "depth": 3}, "blocks"),
        pytest.param("swin_tiny", {"width": 32, "input.height": 56, "input.width": 56}, None, marks=pytest.mark.slow),
        ("blt", {"steps": 2}, None),
    ],
)
def test_estimates_are_within_15_percent_of_what_is_allocated(
    name: str, changes: dict[str, int], checkpoint: str | None
) -> None:
    arch = hrg.load(name).override({"params.classes": 2, **changes})
    recipe = make_recipe({"epochs": 2, "batch_size": 16, "augment": "none", "checkpoint": checkpoint})
    estimated = training_memory(arch.plan, recipe).peak_bytes
    assert estimated == pytest.approx(measured_bytes(arch, recipe), rel=0.15)


def test_what_is_stored_for_the_backward_pass_of_shipped_networks() -> None:
    for name in ("hiresnet18", "hiresvit_tiny", "frnn3"):
        net = hrg.load(name)
        expected = stored_bytes(net, 6) - stored_bytes(net, 3)
        (shape,) = net.plan.inputs.values()
        assert 3 * (net.cost().memory_bytes + 4 * shape.elements) == pytest.approx(expected, rel=0.01)


def test_memory_depends_on_the_recipe() -> None:
    net = hrg.load("hiresnet18")
    plan, tensors = net.plan, net.plan.tensors().values()

    def of(**fields: Any) -> Any:
        return training_memory(plan, make_recipe(fields))

    base, cost = of(), net.cost()
    assert base.gradients_bytes == 4 * cost.parameters and base.optimizer_bytes == 8 * cost.parameters
    assert base.weights_bytes == 8 * sum(tensor.elements for tensor in tensors)
    assert base.stored_bytes == 100 * cost.memory_bytes
    assert of(optimizer="sgd").optimizer_bytes == 4 * cost.parameters
    assert of(optimizer="sgd", momentum=0).optimizer_bytes == 0
    assert of(batch_size=50).stored_bytes == base.stored_bytes / 2
    assert 0.5 < of(precision="bf16").stored_bytes / base.stored_bytes < 0.6
    assert of(precision="fp16") == of(precision="bf16")
    assert of(accumulate=4).stored_bytes == base.stored_bytes / 4
    assert of(ema=0.9).weights_bytes == 1.5 * base.weights_bytes
    assert of(checkpoint="blocks").peak_bytes < 0.6 * base.peak_bytes
    frozen = of(freeze=["stem", "stage1", "stage2", "edges.*"])
    assert frozen.stored_bytes < 0.4 * base.stored_bytes and frozen.gradients_bytes < base.gradients_bytes
    time = hrg.load("frnn3").plan
    assert training_memory(time, Recipe(checkpoint_steps=2)).stored_bytes < training_memory(time, Recipe()).stored_bytes


def test_the_memory_of_skips() -> None:
    """Sums of values that are stored anyway take nothing; projections take what their norms and convolutions read."""
    sums, projected = (hrg.load(name) for name in ("hiresvit_tiny", "hiresnet18"))
    for net, is_free in ((sums, True), (projected, False)):
        without = net.with_edges("none")
        assert (net.cost().memory_bytes == without.cost().memory_bytes) is is_free
    edge = count_parts(projected.plan)["edges.stem__stage3"]
    assert edge.memory_bytes == 4 * (16 * 8 * 8 + 64 * 8 * 8)  # what its convolution and its norm read
