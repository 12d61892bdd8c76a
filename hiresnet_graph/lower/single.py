"""A plan as one straight-line `torch.fx.GraphModule`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

from torch import fx, nn

from hiresnet_graph.identifiers import argument_names, class_name
from hiresnet_graph.lower.weights import attach, find, make_layers
from hiresnet_graph.ops import Apply, Arg, ChainedApply, Layer, Weight
from hiresnet_graph.plan import Plan, inplace_calls, layers_by_weight


def build(plan: Plan, seed: int = 0) -> fx.GraphModule:
    """The module of a plan: straight-line code without a reference to this package.

    Args:
        seed: Seed of the initial weights; each is drawn from (seed, its name) alone.

    Shape: each input [B, channels, height, width] or [B, channels]; the output likewise, or a dict of outputs.
    """
    return fx.GraphModule(module_of_layers(plan, seed), straight_line(plan), class_name=class_name(plan.name))


def module_of_layers(plan: Plan, seed: int) -> nn.Module:
    """A module without `forward` that contains the layers of a plan."""
    root = nn.Module()
    attach(root, make_layers(plan, seed))
    return root


def straight_line(plan: Plan, layers: Mapping[str, Layer] | None = None) -> fx.Graph:
    """The calls of a plan as a `torch.fx` graph.

    Args:
        layers: The layers of the root module by the name of their weights (default: those of the plan).
    """
    if layers is None:
        layers = {name: layer for name, (layer, _) in layers_by_weight(plan).items()}
    graph = fx.Graph()
    arguments = argument_names(plan.inputs)
    values: dict[str, fx.Node] = {name: graph.placeholder(argument) for name, argument in arguments.items()}

    def function(target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
        return graph.call_function(find(target), args, kwargs)

    inplace = inplace_calls(plan)
    for call in plan.calls:
        inputs = [values[name] for name in call.inputs]
        layer = call.op.layer(*call.input_shapes)
        if layer is not None and layers[call.weights] == layer:
            node = graph.call_module(call.weights, tuple(inputs))
        else:

            def weight(name: str, weights: str = call.weights) -> fx.Node:
                return graph.get_attr(f"{weights}.{name}")

            apply = inplace.get(call.name) or call.op.apply(*call.input_shapes)
            node = evaluate(apply, inputs, weight, function)
        node._rename(_identifier(call.name))  # unlike setting `name`, this keeps `a.conv` and `a_conv` apart
        values[call.name] = node
    outputs = {name: values[value] for name, value in plan.outputs.items()}
    graph.output(next(iter(outputs.values())) if len(outputs) == 1 else outputs)
    graph.lint()
    return graph


def evaluate(
    value: Any,
    inputs: list[Any],
    weight: Callable[[str], Any],
    call: Callable[[str, tuple[Any, ...], dict[str, Any]], Any],
) -> Any:
    """Evaluate an application: replace its inputs, weights and calls, from the inside out."""
    if isinstance(value, Arg):
        return inputs[value.index]
    if isinstance(value, Weight):
        return weight(value.name)
    if isinstance(value, ChainedApply):
        each = [evaluate(arg, inputs, weight, call) for arg in value.args]
        return reduce(lambda left, right: call(value.target, (left, right), {}), each)
    if isinstance(value, Apply):
        args = tuple(evaluate(arg, inputs, weight, call) for arg in value.args)
        kwargs = {key: evaluate(arg, inputs, weight, call) for key, arg in value.kwargs.items()}
        return call(value.target, args, kwargs)
    if isinstance(value, list):
        return [evaluate(item, inputs, weight, call) for item in value]
    return value


def _identifier(name: str) -> str:
    return name.replace(".", "_")
