"""A plan as a Python file that imports only torch."""

from __future__ import annotations

import ast
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hiresnet_graph.cost import count
from hiresnet_graph.emit.body import Body, Script
from hiresnet_graph.emit.classes import SHORTCUT, BlockClass, Classes, attributes
from hiresnet_graph.emit.copied import copied_source
from hiresnet_graph.emit.forms import NO_DEFAULT, Number, Parameter, source_name
from hiresnet_graph.emit.text import WIDTH, Brackets, docstring, literal, shortened, statement
from hiresnet_graph.emit.units import Item, Unit, Units, in_steps, value_of, weights_name, without_step
from hiresnet_graph.formats import format_count
from hiresnet_graph.identifiers import argument_names, class_name
from hiresnet_graph.ops import Apply
from hiresnet_graph.plan import Call, Plan
from hiresnet_graph.shapes import Shape


def emit(plan: Plan) -> str:
    """The network as Python source: one class for each kind of block, and one for the network.

    The `state_dict` has the same keys as that of the module from `lower.build`, and with equal tensors the outputs are
    bitwise equal. Equal plans give equal text.

    Raises:
        UsageError: The source of a layer that torch lacks cannot be found.
    """
    original, plan = plan, in_steps(plan)
    units = Units(plan)
    copied = copied_source(_targets(plan))
    given = {*copied.definitions, *copied.imports}
    name = class_name(plan.name)
    while name in given:
        name += "Net"
    classes = Classes(units, plan, {*given, name})
    reserved = frozenset({name, *given, *(written.target.name for written in classes.written)})
    parts = [*dict.fromkeys(copied.definitions.values())]
    parts += [_block_class(written, classes, reserved) for written in classes.written]
    only = list(plan.inputs) == ["input"]
    arguments = {"input": "x"} if only else argument_names(plan.inputs, reserved)
    parts.append(_network_class(plan, name, classes, arguments, reserved))
    body = "\n\n\n".join(parts)
    imports = "\n".join([*sorted({line for line in copied.imports.values() if line}), _imports(body)])
    return f"{_heading(original, arguments)}\n\n{imports}\n\n\n{body}\n"


def _block_class(block: BlockClass, classes: Classes, reserved: frozenset[str]) -> str:
    unit, reading = block.unit, block.reading
    stored_as = attributes(block)
    used: set[str] = set()

    def slot(k: int, stored: bool) -> str:
        expression = block.slots[k]
        if expression is None:
            return literal(reading.numbers[k].value)
        if not stored:
            return expression
        used.add(expression)
        return f"self.{stored_as[expression]}"

    def constant(k: int) -> Any:
        return reading.numbers[k].value if block.slots[k] is None else NO_DEFAULT

    script = Script(
        form=reading.form,
        items=reading.items,
        arguments=_arguments(unit),
        results=(),
        hints=lambda item: _inner_hints(item, unit),
        final=lambda _: False,
        first=classes.units.first,
        sensitive=classes.units.is_sensitive,
        slots=slot,
        constant=constant,
        reserved=reserved,
        optional=frozenset({SHORTCUT} if block.shortcut == "some" else ()),
        timed=bool(unit.steps),
    )
    body = Body(script)
    forward = body.forward()
    modules = body.parts(lambda _: SHORTCUT)
    stored = [f"        self.{stored_as[name]} = {name}" for name in stored_as if name in used]
    arguments = ", ".join([*(f"{name}: Tensor" for name in script.arguments), *(["step: int"] if unit.steps else [])])
    constructor = [*_signature(block.target.parameters), "        super().__init__()", *stored, *modules, ""]
    return "\n".join(
        [
            f"class {block.target.name}(nn.Module):",
            *docstring(block.doc, 4),
            "",
            *(constructor if stored or modules else ()),
            f"    def forward(self, {arguments}) -> Tensor:",
            *forward,
        ]
    )


def _signature(parameters: Sequence[Parameter]) -> list[str]:
    entries = ["self"]
    for parameter in parameters:
        default = "" if parameter.default is NO_DEFAULT else f" = {literal(parameter.default)}"
        entries.append(f"{parameter.name}: {parameter.annotation}{default}")
    lines = statement("def ", Brackets("__init__", tuple(entries)), 4)
    line = f"{lines[0]} -> None:"
    if len(lines) == 1 and len(line) <= WIDTH:
        return [line]
    inner = f"        {', '.join(entries)}"
    entries_lines = [inner] if len(inner) <= WIDTH else [f"        {entry}," for entry in entries]
    return ["    def __init__(", *entries_lines, "    ) -> None:"]


def _arguments(unit: Unit) -> tuple[str, ...]:
    """`x`, and names of the other inputs by their use."""
    names = ["x"]
    for value in unit.inputs[1:]:
        reader = next(item for item in unit.items if value in item.inputs)
        inner = reader.name[len(unit.name) + 1 :].split(".")
        word = inner[0] if inner[0] in ("gate", "residual") else "skip"
        name, number = word, 1
        while name in names:
            number += 1
            name = f"{word}{number}"
        names.append(name)
    return tuple(names)


def _inner_hints(item: Item, unit: Unit) -> list[str]:
    parts = item.name[len(unit.name) + 1 :].split(".")
    if parts[0] == "edges" and len(parts) > 1:
        parts = parts[1:]
        return [parts[0], "out"]
    joins = ("input", "output", "residual")
    named = parts[0] not in joins and (len(parts) > 1 or isinstance(item, Unit))
    return [parts[0], "out"] if named else ["out"]


def _network_class(
    plan: Plan, name: str, classes: Classes, arguments: Mapping[str, str], reserved: frozenset[str]
) -> str:
    several = len(plan.outputs) > 1
    reading = classes.reader.read(classes.units.items, tuple(plan.inputs), tuple(plan.outputs.values()))
    numbers: list[Number] = reading.numbers
    values = _Values(classes.units.items, plan)
    script = Script(
        form=reading.form,
        items=reading.items,
        arguments=tuple(arguments.values()),
        results=tuple(plan.outputs) if several else (),
        hints=values.hints,
        final=values.is_final,
        first=classes.units.first,
        sensitive=classes.units.is_sensitive,
        slots=lambda k, _: literal(numbers[k].value),
        constant=lambda k: numbers[k].value,
        reserved=reserved,
        comments=True,
    )
    body = Body(script)
    forward = Brackets("forward", ("self", *(f"{argument}: Tensor" for argument in arguments.values())))
    head = statement("def ", forward, 4)
    head[-1] += f" -> {'dict[str, Tensor]' if several else 'Tensor'}:"
    return "\n".join(
        [
            f"class {name}(nn.Module):",
            *docstring(f"{shortened(plan.name)}: {_shapes(plan, arguments)}.", 4),
            "",
            "    def __init__(self) -> None:",
            "        super().__init__()",
            *body.parts(lambda path: path),
            *_initial(plan),
            "",
            *head,
            *body.forward(),
        ]
    )


class _Values:
    """Names for the values of a network, and which of them are values of nodes.

    In a network with `time`, the values of a node at several steps are named after node and step.
    """

    def __init__(self, items: Sequence[Item], plan: Plan) -> None:
        self._ends = {node.value for node in plan.nodes}
        self._nodes = {node.name for node in plan.nodes}
        self._targets = {edge.name: edge.target for edge in plan.edges if edge.slot == "input"}
        self._owned = {(call.owner, call.step) for call in plan.calls}
        self._steps: dict[str, set[int]] = {}
        last: dict[tuple[str, int], str] = {}
        for item in items:
            if item.step is not None:
                self._steps.setdefault(self._owner(item), set()).add(item.step)
                last[self._owner(item), item.step] = value_of(item)
        self._ends |= {value for (owner, _), value in last.items() if owner in self._nodes}

    def _owner(self, item: Item) -> str:
        """The node or edge of an item; an edge that is the only source of the value of a node counts as the node."""
        owner = without_step(item.name) if isinstance(item, Unit) else item.owner or without_step(item.name)
        target = self._targets.get(owner, "")
        return target if target and item.step is not None and (target, item.step) not in self._owned else owner

    def is_final(self, item: Item) -> bool:
        """Whether the value of an item is that of a node."""
        return value_of(item) in self._ends

    def hints(self, item: Item) -> list[str]:
        """Names for the value of an item, the best first."""
        owner = self._owner(item)
        parts = owner.split(".")
        own = without_step(item.name).replace(".", "_")
        if parts[0] in ("edges", "flow") and len(parts) > 1:
            names = [name for name in (parts[-1], "_".join(parts[1:])) if len(name) <= 32] or ["skip"]
        elif item.step is not None and not self.is_final(item):
            names = [own]
        else:
            names = [parts[0], "_".join(parts), own]
        several = item.step is not None and len(self._steps[owner]) > 1
        return [f"{name}_step{item.step}" for name in names] if several else names


def _initial(plan: Plan) -> list[str]:
    """The lines that set initial weights that differ from torch's defaults."""
    rules: dict[tuple[str, str], set[str]] = {}
    exceptions: dict[float, list[str]] = {}
    for call in plan.calls:
        for tensor in call.tensors if _layer(call) else ():
            if tensor.init == "he_normal" and tensor.name == "weight":
                action = 'nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")'
                rules.setdefault((action, ""), set()).add(_layer(call))
    for kind, scales in sorted(_scales(plan).items()):
        ((usual, _),) = Counter(scale for scale in scales.values() if scale is not None).most_common(1)
        if usual != 1:
            condition = " and module.affine" if None in scales.values() else ""
            rules.setdefault((f"nn.init.constant_(module.weight, {usual})", condition), set()).add(kind)
        for weights, scale in scales.items():
            if scale not in (None, usual):
                exceptions.setdefault(scale, []).append(weights)
    lines: list[str] = []
    for (action, condition), kinds in rules.items():
        word = "elif" if lines else "if"
        lines += [
            f"            {word} isinstance(module, {' | '.join(sorted(kinds))}){condition}:",
            f"                {action}",
        ]
    if lines:
        lines = ["", "        for module in self.modules():", *lines]
    for scale, names in exceptions.items():
        weight, indent = literal(f"{names[0]}.weight"), 8
        if len(names) > 1:
            lines += statement("for name in ", Brackets("", tuple(map(literal, names))), indent, ":")
            weight, indent = 'f"{name}.weight"', 12
        lines.append(f"{' ' * indent}nn.init.constant_(self.get_parameter({weight}), {scale})")
    return lines


def _layer(call: Call) -> str:
    """The torch class of a call's layer, as in the source; empty if it has none."""
    layer = call.op.layer(*call.input_shapes)
    target = layer.target if layer is not None else ""
    return source_name(target) if target.startswith("torch.nn.") else ""


def _scales(plan: Plan) -> dict[str, dict[str, float | None]]:
    """The initial scales of norms: class -> weights -> scale, or None for a norm without scale."""
    found: dict[str, dict[str, float | None]] = {}
    for call in plan.calls:
        if call.op.normalizes and _layer(call):
            weight = next((tensor for tensor in call.tensors if tensor.name == "weight"), None)
            values = {"zeros": 0.0, "ones": 1.0}
            scale = None if weight is None else values.get(weight.init, weight.value)
            found.setdefault(_layer(call), {})[weights_name(call)] = scale
    return {kind: scales for kind, scales in found.items() if any(scale is not None for scale in scales.values())}


def _heading(plan: Plan, arguments: Mapping[str, str]) -> str:
    cost = count(plan)
    time = plan.folded.time if plan.folded is not None else None
    sample = "one sample" if time is None else f"one sample in {format_count(time.steps, 'step')}"
    lines = docstring(
        f"{shortened(plan.name)}: {cost.parameters:,} parameters, {cost.macs:,} multiply-adds for {sample}.", 0
    )
    return "\n".join([lines[0].removesuffix('"""'), "", *textwrap.wrap(f"{_shapes(plan, arguments)}.", WIDTH), '"""'])


def _shapes(plan: Plan, arguments: Mapping[str, str]) -> str:
    """The shapes of inputs and outputs, like `x [B, 3, 32, 32] -> [B, 10]`."""
    shapes = {**plan.inputs, **{call.name: call.shape for call in plan.calls}}
    left = ", ".join(f"{arguments[name]} {_size(shape)}" for name, shape in plan.inputs.items())
    if len(plan.outputs) == 1:
        return f"{left} -> {_size(shapes[next(iter(plan.outputs.values()))])}"
    return f"{left} -> " + ", ".join(f"{key} {_size(shapes[value])}" for key, value in plan.outputs.items())


def _size(shape: Shape) -> str:
    return f"[{', '.join(['B', *(str(size) for size in shape)])}]"


def _targets(plan: Plan) -> Iterable[str]:
    """The dotted paths of all classes and functions in a plan."""
    for call in plan.calls:
        layer = call.op.layer(*call.input_shapes)
        if layer is not None:
            yield layer.target
        todo: list[Any] = [call.op.apply(*call.input_shapes)]
        while todo:
            value = todo.pop()
            if isinstance(value, Apply):
                yield value.target
                todo += [*value.args, *value.kwargs.values()]
            elif isinstance(value, list | tuple):
                todo += value


def _imports(body: str) -> str:
    """The imports that the body needs."""
    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    lines = ["import torch"] if "torch" in used else []
    names = [name for name in ("Tensor", "nn") if name in used]
    lines.append(f"from torch import {', '.join(names)}")
    if "F" in used:
        lines.append("from torch.nn import functional as F")
    return "\n".join(lines)
