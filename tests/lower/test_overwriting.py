"""Calls that overwrite their operand: equal bits, also of gradients and under mixed precision."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

import hiresnet_graph as hrg
from hiresnet_graph.lower.code import evaluate
from hiresnet_graph.lower.interpreter import Interpreter
from hiresnet_graph.lower.weights import call_function, find
from hiresnet_graph.ops import OPS
from hiresnet_graph.plan import inplace_sums
from hiresnet_graph.shapes import Map

SIZE = {"input.height": 16, "input.width": 16}
NETWORKS = {
    "hiresnet18": {"params.width": 4, **SIZE},
    "resnet20": SIZE,
    "ror3_56": {"params.n": 2},
    "rnn_resnet3": {"params.width": 4, "params.size": 16},
    "hiresvit_tiny": {"params.width": 48, "params.depth": 2},
}


def network_of(name: str) -> hrg.Architecture:
    return hrg.load(name).override(NETWORKS[name])


def test_sums_of_residual_blocks_are_in_place() -> None:
    module = network_of("resnet20").build()
    assert "norm2.add_(" in module.stage2.block1.code and "norm2.add_(" in module.stage1.block1.code
    assert len(inplace_sums(network_of("resnet20").plan)) == 9


@pytest.mark.parametrize("is_low", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_gradients_are_those_without_overwriting(name: str, is_low: bool) -> None:
    network = network_of(name)
    module = network.build(seed=0)
    (argument, shape) = next(iter(network.plan.inputs.items()))
    x = torch.randn(4, *shape.frame)

    def gradients(run: Interpreter | nn.Module) -> list[torch.Tensor]:
        module.zero_grad()
        module.load_state_dict(state)
        with torch.autocast("cpu", dtype=torch.bfloat16) if is_low else contextlib.nullcontext():
            if isinstance(run, Interpreter):
                (output,) = (run.run({argument: x})[value] for value in network.plan.outputs.values())
            else:
                output = run(x)
        output.logsumexp(-1).sum().backward()
        return [output, *(parameter.grad for parameter in module.parameters() if parameter.grad is not None)]

    state = {key: value.clone() for key, value in module.state_dict().items()}
    ours, reference = gradients(module), gradients(Interpreter(network.plan, module))
    assert len(ours) == len(reference) > 5
    for one, other in zip(ours, reference, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


def test_a_sum_with_a_wider_type_is_not_in_place() -> None:
    """Under mixed precision the image has 32 bits and the convolution 16: the sum has 32."""
    start = "name: n\ninput: {channels: 3, height: 8, width: 8}\n"
    low = "low: {block: basic, width: 3}"
    behind = hrg.loads(f"{start}nodes:\n  body: {{block: plain, width: 3}}\n  {low}\nflow: body -> low", "n")
    assert [name.rpartition(".")[0] for name in inplace_sums(behind.plan)] == ["low.residual"]
    on_image = hrg.loads(f"{start}nodes:\n  {low}\nflow: low", "n")
    assert not inplace_sums(on_image.plan)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert on_image.build()(torch.randn(2, 3, 8, 8)).dtype == torch.float32


@pytest.mark.parametrize("kind", [kind for kind in OPS if OPS.get(kind).keeps_precision])
def test_operations_keep_sixteen_bits(kind: str) -> None:
    op_class = OPS.get(kind)
    for fields in op_class.examples or ({},):
        op = op_class(**fields)
        shapes = (Map(8, 8, 8),) * (op.arity or 2)
        values = [torch.randn(2, *shape, dtype=torch.bfloat16) for shape in shapes]
        layer, apply = op.layer(*shapes), op.apply(*shapes)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if layer is not None:
                result = find(layer.target)(*layer.args, **layer.kwargs)(*values)
            else:
                result = evaluate(apply, values, lambda name: None, call_function)
        assert result.dtype == torch.bfloat16
