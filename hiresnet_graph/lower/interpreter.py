"""Interpreter of plans: runs each call directly, as a reference for other lowerings, and to change single values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import nn

from hiresnet_graph.lower.code import evaluate
from hiresnet_graph.lower.weights import call_function, find
from hiresnet_graph.plan import Call, Plan

Function = Callable[..., torch.Tensor]
Visit = Callable[[Call, torch.Tensor], torch.Tensor]
"""From a call and its value to the value that later calls read."""


class Interpreter:
    """The calls of a plan as functions of tensors, with the tensors and the mode of a module.

    Args:
        module: Built from the plan, or from one with the same tensors.
    """

    def __init__(self, plan: Plan, module: nn.Module) -> None:
        self.plan = plan
        self._functions = {call.name: _function(call, module) for call in plan.calls}

    def run(
        self,
        values: dict[str, torch.Tensor],
        calls: Iterable[Call] | None = None,
        *,
        visit: Visit | None = None,
        keep: Collection[str] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Compute calls, in order, and return their values.

        Args:
            values: Of the inputs of the plan, and of all operands that are not computed; unchanged.
            calls: Of the plan (default: all).
            visit: Called after each call.
            keep: Names of the values to return, besides the outputs of the plan (default: all). Others are freed after
                their last use.
        """
        chosen = list(self.plan.calls if calls is None else calls)
        kept = None if keep is None else {*keep, *self.plan.outputs.values()}
        last = {name: call.name for call in chosen for name in (call.name, *call.inputs)}
        found = dict(values)
        for call in chosen:
            value = self._functions[call.name](*(found[name] for name in call.inputs))
            found[call.name] = value if visit is None else visit(call, value)
            if kept is not None:
                for name in {call.name, *call.inputs}:
                    if last[name] == call.name and name not in kept:
                        del found[name]
        return found


def interpret(plan: Plan, module: nn.Module, *inputs: torch.Tensor) -> Any:
    """The output of a plan with the tensors and the mode of a module that was built from it.

    In training mode, running statistics in the module are updated, as by a call of the module.
    """
    values = Interpreter(plan, module).run(dict(zip(plan.inputs, inputs, strict=True)))
    outputs = {name: values[value] for name, value in plan.outputs.items()}
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def _function(call: Call, module: nn.Module) -> Function:
    layer = call.op.layer(*call.input_shapes)
    if layer is None:
        apply = call.op.apply(*call.input_shapes)
        return lambda *args: evaluate(apply, list(args), lambda _: None, call_function)
    with torch.device("meta"):  # random initial weights would advance the generator that dropout reads
        copy: nn.Module = find(layer.target)(*layer.args, **layer.kwargs)
    copy.train(module.training)
    source = module.get_submodule(call.weights)
    for tensor in call.tensors:
        owner: dict[str, Any] = copy._parameters if tensor.trainable else copy._buffers
        owner[tensor.name] = getattr(source, tensor.name)
    return copy
