"""A plan as one straight-line `torch.fx.GraphModule`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import fx, nn

from hiresnet_graph.lower.weights import attach, find, make_layers
from hiresnet_graph.ops import Apply, Arg, Layer, Weight
from hiresnet_graph.plan import Plan, class_name, holders, overwriting


def build(plan: Plan, seed: int = 0) -> fx.GraphModule:
    """The module of a plan: no Python loop over the graph at run time, and no trace of this package in it.

    Args:
        seed: Of the initial weights; each is drawn from (seed, its name) alone.

    Shape: each input [B, channels, height, width] or [B, channels]; the output likewise, or a dict of outputs.
    """
    return fx.GraphModule(rooted(plan, seed), straight_line(plan), class_name=class_name(plan.name))


def rooted(plan: Plan, seed: int) -> nn.Module:
    """The layers of a plan below one module, which computes nothing."""
    root = nn.Module()
    attach(root, make_layers(plan, seed))
    return root


def straight_line(plan: Plan, held: Mapping[str, Layer] | None = None) -> fx.Graph:
    """The calls of a plan as a graph of torch.

    Args:
        held: The layers below the root, by the name of their weights; those that the plan itself makes unless told.
    """
    if held is None:
        held = {name: layer for name, (layer, _) in holders(plan).items()}
    graph = fx.Graph()
    values: dict[str, fx.Node] = {name: graph.placeholder(_identifier(name)) for name in plan.inputs}

    def function(target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
        return graph.call_function(find(target), args, kwargs)

    in_place = overwriting(plan)
    for call in plan.calls:
        inputs = [values[name] for name in call.inputs]
        layer = call.op.layer(*call.input_shapes)
        if layer is not None and held[call.weights] == layer:
            node = graph.call_module(call.weights, tuple(inputs))
        else:

            def weight(name: str, weights: str = call.weights) -> fx.Node:
                return graph.get_attr(f"{weights}.{name}")

            apply = in_place.get(call.name) or call.op.apply(*call.input_shapes)
            node = resolved(apply, inputs, weight, function)
        node._rename(_identifier(call.name))  # unlike setting `name`, this keeps `a.conv` and `a_conv` apart
        values[call.name] = node
    outputs = {name: values[value] for name, value in plan.outputs.items()}
    graph.output(next(iter(outputs.values())) if len(outputs) == 1 else outputs)
    graph.lint()
    return graph


def resolved(
    value: Any,
    inputs: list[Any],
    weight: Callable[[str], Any],
    call: Callable[[str, tuple[Any, ...], dict[str, Any]], Any],
) -> Any:
    """An application with its inputs, weights and calls put in, from the inside out."""
    if isinstance(value, Arg):
        return inputs[value.index]
    if isinstance(value, Weight):
        return weight(value.name)
    if isinstance(value, Apply):
        args = tuple(resolved(arg, inputs, weight, call) for arg in value.args)
        kwargs = {key: resolved(arg, inputs, weight, call) for key, arg in value.kwargs.items()}
        return call(value.target, args, kwargs)
    if isinstance(value, list):
        return [resolved(item, inputs, weight, call) for item in value]
    return value


def _identifier(name: str) -> str:
    return name.replace(".", "_")
