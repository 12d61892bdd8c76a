"""A plan run call by call, as directly as it reads: what the other lowerings are held against."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hiresnet_graph.lower.single import resolved
from hiresnet_graph.lower.weights import applied, find
from hiresnet_graph.plan import Plan


def interpret(plan: Plan, module: nn.Module, *inputs: torch.Tensor) -> Any:
    """The output of a plan with the tensors, buffers and mode of a module that was built from it.

    Running statistics in the module are updated in train mode, as by a call of the module.
    """
    values: dict[str, torch.Tensor] = dict(zip(plan.inputs, inputs, strict=True))
    for call in plan.calls:
        args = [values[name] for name in call.inputs]
        layer = call.op.layer(*call.input_shapes)
        if layer is None:
            values[call.name] = resolved(call.op.apply(*call.input_shapes), args, lambda _: None, applied)
            continue
        with torch.device("meta"):  # drawing initial weights would move the random state that dropout reads
            fresh = find(layer.target)(*layer.args, **layer.kwargs)
        fresh.train(module.training)
        held = module.get_submodule(call.weights)
        for tensor in call.tensors:
            owner = fresh._parameters if tensor.trainable else fresh._buffers
            owner[tensor.name] = getattr(held, tensor.name)
        values[call.name] = fresh(*args)
    outputs = {name: values[value] for name, value in plan.outputs.items()}
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs
