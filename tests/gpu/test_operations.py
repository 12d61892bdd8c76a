"""Operations, blocks and shipped specs on the device, forward and backward, against float64 on the CPU."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor

import hiresnet_graph as hrg
from hiresnet_graph.blocks import BLOCKS
from hiresnet_graph.ops import OPS
from hiresnet_graph.shipped import spec_names
from hiresnet_graph.train import Recipe
from hiresnet_graph.train.environment import tf32_products
from hiresnet_graph.train.trainer import image_format, move_to
from tests.emit.test_equal_bits import small
from tests.kinds import accepted, network_of
from tests.recurrent.test_definition import SMALL

BATCH = 2
EXAMPLES = [
    pytest.param({"block": name, **example}, id=f"{name}-{number}")
    for name, kind in {name: registry.get(name) for registry in (OPS, BLOCKS) for name in registry}.items()
    for number, example in enumerate(kind.examples)
]


def computed(net: hrg.Architecture, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Outputs, gradients and running statistics of one step, in the memory format of training.

    Networks that draw random numbers are computed in evaluation mode, since devices draw different ones.
    """
    plan = net.plan
    memory_format = image_format(Recipe(), plan)
    module = move_to(net.build(0).to(dtype=dtype), torch.device(device), memory_format)
    module.train(not any(call.op.random for call in plan.calls))
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=generator, dtype=torch.float64).to(device, dtype)
        return values.contiguous(memory_format=memory_format) if values.dim() == 4 else values

    inputs = [random(BATCH, *shape).requires_grad_() for shape in plan.inputs.values()]
    with tf32_products(False):
        outputs = module(*inputs)
        named = outputs if isinstance(outputs, dict) else {"output": outputs}
        total = torch.stack([(value * random(*value.shape)).sum() for value in named.values()]).sum()
        if total.requires_grad:
            total.backward()  # type: ignore[no-untyped-call]
    found = {f"output {name}": value.detach() for name, value in named.items()}
    parameters = {**dict(module.named_parameters()), **{f"input {i}": value for i, value in enumerate(inputs)}}
    found |= {f"gradient {name}": value.grad for name, value in parameters.items() if value.grad is not None}
    found |= {f"buffer {name}": value for name, value in module.named_buffers() if value.is_floating_point()}
    return {name: value.double().cpu() for name, value in found.items()}


def distance(found: dict[str, Tensor], exact: dict[str, Tensor]) -> float:
    """||found - exact|| / ||exact||, the largest of outputs, gradients and statistics."""
    assert found.keys() == exact.keys()
    worst = 0.0
    for kind in ("output", "gradient", "buffer"):
        names = [name for name in exact if name.startswith(kind)]
        if names:
            ours, theirs = (torch.cat([values[name].flatten() for name in names]) for values in (found, exact))
            assert ours.isfinite().all()
            worst = max(worst, float((ours - theirs).norm() / theirs.norm().clamp(min=1e-9)))
    return worst


@pytest.mark.parametrize("fields", EXAMPLES)
def test_an_operation_equals_float64_on_the_cpu(fields: dict[str, object], device: str) -> None:
    for shape in accepted(fields):
        net = network_of(fields, shape)
        exact = computed(net, "cpu", torch.float64)
        assert distance(computed(net, device, torch.float64), exact) < 1e-10
        assert distance(computed(net, device, torch.float32), exact) < 1e-4


@pytest.mark.parametrize("name", spec_names())
def test_a_shipped_spec_equals_float64_on_the_cpu(name: str, device: str) -> None:
    """float32 is further away: where rounding moves a value across the kink of a ReLU, its gradient changes."""
    gc.collect()  # modules are in cycles, and those of a few large networks would fill the memory
    net = hrg.load(name).override(SMALL[name]) if name in SMALL else small(name)
    exact = computed(net, "cpu", torch.float64)
    assert distance(computed(net, device, torch.float64), exact) < 1e-8
    assert distance(computed(net, device, torch.float32), exact) < 0.5
