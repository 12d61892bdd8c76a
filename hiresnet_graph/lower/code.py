"""The code of nested modules as `torch.fx` graphs."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from typing import Any

from torch import fx

from hiresnet_graph.identifiers import argument_names
from hiresnet_graph.lower.weights import find
from hiresnet_graph.ops import Apply, Arg, ChainedApply, Layer, Weight
from hiresnet_graph.plan import Call, Plan, inplace_calls, inplace_sums, layers_by_weight
from hiresnet_graph.tree import ModuleTree, ModuleUse, container_of, is_below, make_tree


class GraphWriter:
    """Writes the code of modules as `torch.fx` graphs.

    Args:
        layers: The existing layers by address (default: those of the plan).
    """

    def __init__(self, plan: Plan, layers: Mapping[str, Layer] | None = None) -> None:
        self.plan = plan
        self.layers = layers or {name: layer for name, (layer, _) in layers_by_weight(plan).items()}
        self.tree: ModuleTree = make_tree(plan, self.layers)
        self.inplace = inplace_calls(plan) | inplace_sums(plan)
        self.labels = {value: node for node, held in self.tree.values.items() for _, value in held}
        self.uses: dict[str, list[ModuleUse]] = {}
        for call in self.tree.root.all():
            if call.path:
                self.uses.setdefault(call.path, []).append(call)

    def __deepcopy__(self, memo: dict[int, object]) -> GraphWriter:
        return self

    def network(self) -> fx.Graph:
        """The code of the network."""
        root = self.tree.root
        graph = fx.Graph()
        arguments = argument_names(root.inputs)
        values: dict[str, fx.Node] = {name: graph.placeholder(argument) for name, argument in arguments.items()}
        self._write(graph, root, values, {})
        outputs = {name: values[value] for name, value in zip(self.plan.outputs, root.outputs, strict=True)}
        graph.output(next(iter(outputs.values())) if len(outputs) == 1 else outputs)
        graph.lint()
        return graph

    def segment(self, call: ModuleUse) -> fx.Graph:
        """The code of some items of the network, which returns a tuple."""
        return self._code(call, lambda results: results)

    def module(self, call: ModuleUse) -> fx.Graph:
        """The code of a module: it returns one value, or its own value and inner values as a tuple.

        Its arguments are `x`, the values from elsewhere, and the layers and modules that are not its own.
        """
        return self._code(call, lambda results: results[0] if len(results) == 1 else results)

    def _code(self, call: ModuleUse, result: Callable[[tuple[fx.Node, ...]], Any]) -> fx.Graph:
        graph = fx.Graph()
        names = list(self._argument_names(call))
        nodes = [graph.placeholder(name) for name in names]
        values = dict(zip(call.inputs, nodes, strict=False))
        passed = dict(zip(call.modules, nodes[len(call.inputs) :], strict=True))
        self._write(graph, call, values, passed)
        found = tuple(values[name] for name in call.outputs) if call.items else (nodes[0],)
        graph.output(result(found))
        graph.lint()
        return graph

    def _argument_names(self, call: ModuleUse) -> Iterator[str]:
        labels = ["x", *(self.labels.get(name, name.removesuffix(f".step{call.step}")) for name in call.inputs[1:])]
        unique: list[str] = []
        for label in [*labels, *call.modules]:
            while label in unique:
                label += "_"
            unique.append(label)
        return iter(argument_names(unique).values())

    def _write(
        self, graph: fx.Graph, module: ModuleUse, values: dict[str, fx.Node], passed: dict[str, fx.Node]
    ) -> None:
        """Add the items of a module.

        Args:
            values: Name -> node, to which the values of the items are added.
            passed: The layers and modules that the module takes as arguments.
        """
        start = len(module.path) + 1 if module.path else 0
        own = {item.name for item in module.items if isinstance(item, Call)}
        found = dict(passed)

        def called(address: str) -> fx.Node:
            if address not in found:
                found[address] = graph.get_attr(address[start:])
            return found[address]

        def call_module(address: str, args: tuple[fx.Node, ...], kwargs: dict[str, Any]) -> fx.Node:
            if address in passed:
                return graph.call_method("__call__", (passed[address], *args), kwargs)
            if container_of(address) in passed:
                return graph.call_method(address.rpartition(".")[2], (passed[container_of(address)], *args), kwargs)
            return graph.call_module(address[start:], args, kwargs)

        for item in module.items:
            if isinstance(item, ModuleUse):
                args = (*(values[name] for name in item.inputs), *map(called, item.modules))
                node = call_module(item.path, args, {} if item.step is None else {"step": item.step})
                suffix = "" if item.step is None else f"_step{item.step}"
                node._rename(_identifier(_relative(item.path, module.path)) + suffix)
                for k, name in enumerate(item.outputs):
                    is_one = len(item.outputs) == 1
                    values[name] = node if is_one else graph.call_function(operator.getitem, (node, k))
            else:

                def weight(name: str, address: str = item.weights) -> fx.Node:
                    if address in passed:
                        return graph.call_function(getattr, (passed[address], name))
                    return graph.get_attr(f"{address[start:]}.{name}")

                node = self._call(graph, item, [values[name] for name in item.inputs], own, weight, call_module)
                node._rename(_identifier(_relative(item.name, module.path)))  # keeps `a.conv` and `a_conv` apart
                values[item.name] = node

    def _call(
        self,
        graph: fx.Graph,
        call: Call,
        inputs: list[fx.Node],
        own: set[str],
        weight: Callable[[str], fx.Node],
        call_module: Callable[..., fx.Node],
    ) -> fx.Node:
        """A call of a layer or of functions; `own` are the calls of its module."""
        layer = call.op.layer(*call.input_shapes)
        if layer is not None and self.layers[call.weights] == layer:
            return call_module(call.weights, tuple(inputs), {})
        apply = call.op.apply(*call.input_shapes)
        if call.inputs and call.inputs[0] in own:  # a hook on a module must see values that do not change
            apply = self.inplace.get(call.name, apply)

        def function(target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
            if target.startswith("."):
                return graph.call_method(target[1:], args, kwargs)
            return graph.call_function(find(target), args, kwargs)

        node: fx.Node = evaluate(apply, inputs, weight, function)
        return node


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


def _relative(address: str, path: str) -> str:
    return address[len(path) + 1 :] if path and is_below(address, path) else address


def _identifier(name: str) -> str:
    return name.replace("@", "").replace(".", "_")
