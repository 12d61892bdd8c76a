"""Interpreter of plans: runs each call directly, as a reference for the other lowerings."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hiresnet_graph.lower.single import evaluate
from hiresnet_graph.lower.weights import call_function, find
from hiresnet_graph.plan import Plan


def interpret(plan: Plan, module: nn.Module, *inputs: torch.Tensor) -> Any:
    """The output of a plan with the tensors and the mode of a module that was built from it.

    In training mode, running statistics in the module are updated, as by a call of the module.
    """
    values: dict[str, torch.Tensor] = dict(zip(plan.inputs, inputs, strict=True))
    for call in plan.calls:
        args = [values[name] for name in call.inputs]
        layer = call.op.layer(*call.input_shapes)
        if layer is None:
            values[call.name] = evaluate(call.op.apply(*call.input_shapes), args, lambda _: None, call_function)
            continue
        with torch.device("meta"):  # random initial weights would advance the generator that dropout reads
            copy = find(layer.target)(*layer.args, **layer.kwargs)
        copy.train(module.training)
        source = module.get_submodule(call.weights)
        for tensor in call.tensors:
            owner = copy._parameters if tensor.trainable else copy._buffers
            owner[tensor.name] = getattr(source, tensor.name)
        values[call.name] = copy(*args)
    outputs = {name: values[value] for name, value in plan.outputs.items()}
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs
