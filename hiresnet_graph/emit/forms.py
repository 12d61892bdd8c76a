"""The form of a unit: its steps with all numbers replaced by slots, so that units of one form can share a class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hiresnet_graph.emit.units import Item, Unit, Units, is_copy, value_of, weights_name, without_step
from hiresnet_graph.ops import Apply, Arg, ChainedApply, Layer, Signature, Weight


class _NoDefault:
    def __repr__(self) -> str:
        return "NO_DEFAULT"


NO_DEFAULT = _NoDefault()
"""The default of a parameter without a default."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a class's `__init__`.

    Attributes:
        role: The meaning of its number, like `stride`; `channels` for all numbers of channels or features.
        positional: It is omitted by position.
        annotation: Its type, in emitted classes.
    """

    name: str
    role: str
    default: Any = NO_DEFAULT
    positional: bool = False
    annotation: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """A class to instantiate: its name in the source, its dotted path and its parameters."""

    name: str
    path: str
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True, slots=True)
class Number:
    """A number that a slot replaces in a form.

    Attributes:
        role: The role of the parameter, like `stride`.
        part: The part of the unit to which it belongs, like `conv1`.
    """

    role: str
    part: str
    value: Any


@dataclass(frozen=True, slots=True)
class Slot:
    """In place of the k-th number."""

    index: int


@dataclass(frozen=True, slots=True)
class Operand:
    """The k-th operand of a step."""

    index: int


@dataclass(frozen=True, slots=True)
class ModuleTensor:
    """A tensor of the module at a path, like `weight` of `stage1.block1.conv1`."""

    path: str
    name: str


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice."""

    start: Any
    stop: Any
    step: Any


@dataclass(frozen=True, slots=True)
class Items:
    """A list or a tuple of values."""

    items: tuple[Any, ...]
    is_list: bool


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A call of a function."""

    target: str
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]
    signature: Signature = field(compare=False)


@dataclass(frozen=True, slots=True)
class ChainedCalls:
    """A function of two values called from the first value to the last: f(f(a, b), c)."""

    target: str
    args: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance of a class, with a value for each parameter."""

    target: Target
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One item of a unit.

    Attributes:
        path: Path of the called module, below the unit; empty for a function. `*` at its end stands for the copy of the
            current time step.
        make: The instance that creates the module; None for a function, and for a module that is omitted in.
        use: The function call.
        operands: Indices of values: the unit's inputs, then its steps.
        time: The time step that is omitted to the module; empty if none is.
        copies: The time steps that have a copy.
    """

    path: str
    make: Instance | None
    use: Any
    operands: tuple[int, ...]
    time: str = ""
    copies: Slot | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """The steps of a unit, and the indices of its results."""

    inputs: int
    steps: tuple[Step, ...]
    results: tuple[int, ...]


@dataclass(slots=True)
class Reading:
    """A unit as a form and the numbers in its slots.

    Attributes:
        items: The item of each step.
        bypassed: (step, operand) where the input of an omitted shortcut replaces its output; (-1, 0) for the result.
    """

    form: Form
    numbers: list[Number] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    bypassed: frozenset[tuple[int, int]] = frozenset()


def _parameters(layer: Layer) -> tuple[Parameter, ...]:
    """The parameters of a layer; without a signature, those that are given."""
    signature = layer.signature
    if signature is None:
        names = [Parameter(f"value{k}", "value", positional=True) for k in range(len(layer.args))]
        return (*names, *(Parameter(name, name) for name in layer.kwargs))
    positional = [Parameter(name, signature.role(name), positional=True) for name in signature.positional]
    keywords = [Parameter(name, signature.role(name), value) for name, value in signature.keywords.items()]
    return (*positional, *keywords)


def source_name(path: str) -> str:
    """A dotted path in the source: `torch.nn.functional.relu` -> `F.relu`."""
    for prefix, short in (("torch.nn.functional.", "F."), ("torch.nn.", "nn."), ("torch.", "torch.")):
        if path.startswith(prefix):
            return short + path.removeprefix(prefix)
    return path.rpartition(".")[2]


class Reader:
    """Reads units and whole plans.

    Args:
        instance: Gives the instance for a unit.
    """

    def __init__(self, units: Units, instance: Callable[[Unit], Instance]) -> None:
        self.units = units
        self.instance = instance

    def unit(self, unit: Unit, *, with_shortcut: bool) -> Reading:
        """A unit; without its own shortcut, the identity takes its part."""
        omitted = None if with_shortcut else next((item for item in unit.items if unit.is_shortcut(item)), None)
        return self.read(unit.items, unit.inputs, (unit.output,), unit, omitted)

    def read(
        self,
        items: tuple[Item, ...],
        inputs: tuple[str, ...],
        results: tuple[str, ...],
        unit: Unit | None = None,
        omitted: Item | None = None,
    ) -> Reading:
        """Items in order, with the names of their inputs and results."""
        numbers: list[Number] = []
        values = {name: k for k, name in enumerate(inputs)}
        steps: list[Step] = []
        for item in items:
            if item is omitted:
                continue
            operands = tuple(item.inputs)
            if omitted is not None:
                operands = tuple(omitted.inputs[0] if name == value_of(omitted) else name for name in operands)
            indices = tuple(values[name] for name in operands)
            steps.append(self._step(item, indices, unit, numbers))
            values[value_of(item)] = len(inputs) + len(steps) - 1
        remaining = [item for item in items if item is not omitted]
        bypassed: set[tuple[int, int]] = set()
        if omitted is not None:
            out = value_of(omitted)
            bypassed = {(i, k) for i, item in enumerate(remaining) for k, name in enumerate(item.inputs) if name == out}
            bypassed |= {(-1, k) for k, name in enumerate(results) if name == out}
            values[out] = values[omitted.inputs[0]]
        form = Form(len(inputs), tuple(steps), tuple(values[name] for name in results))
        return Reading(form, numbers, remaining, frozenset(bypassed))

    def _step(self, item: Item, operands: tuple[int, ...], unit: Unit | None, numbers: list[Number]) -> Step:
        start = len(unit.weights) + 1 if unit else 0
        path = item.weights[start:] if unit or isinstance(item, Unit) else weights_name(item)
        if isinstance(item, Unit):
            is_external = unit is not None and unit.is_shortcut(item)
            make = None if is_external else self._numbered(self.instance(item), path, numbers)
            time = ("step" if unit else str(item.step)) if item.steps else ""
            return Step(path, make, None, operands, time)
        layer = self.units.layers.get(item.name)
        if layer is not None and item.name not in self.units.functional:
            make = self._layer(layer, path, numbers)
            copies = _slot(compact(self.units.copies[item.weights]), "steps", "", numbers) if is_copy(path) else None
            return Step(path, make, None, operands, copies=copies)
        part = item.name[len(unit.name) + 1 :] if unit else without_step(item.name)
        use = self._tree(item.op.apply(*item.input_shapes), part, "", path, numbers)
        return Step("", None, use, operands)

    def _numbered(self, new: Instance, part: str, numbers: list[Number]) -> Instance:
        """An instance with its numbers replaced by slots."""
        values: list[Any] = []
        for parameter, value in zip(new.target.parameters, new.values, strict=True):
            if isinstance(value, Instance):
                values.append(self._numbered(value, part, numbers))
            elif parameter.role == "module":
                values.append(value)
            else:
                values.append(_slot(value, parameter.role, part, numbers))
        return Instance(new.target, tuple(values))

    def _layer(self, layer: Layer, part: str, numbers: list[Number]) -> Instance:
        parameters = _parameters(layer)
        arguments = dict(zip((parameter.name for parameter in parameters), layer.args, strict=False)) | layer.kwargs
        values = tuple(
            self._tree(arguments.get(parameter.name, parameter.default), part, parameter.role, "", numbers)
            for parameter in parameters
        )
        return Instance(Target(source_name(layer.target), layer.target, parameters), values)

    def _tree(self, value: Any, part: str, role: str, path: str, numbers: list[Number]) -> Any:
        """A value of an operation's torch form, with its numbers replaced by slots."""

        def inner(value: Any, role: str) -> Any:
            return self._tree(value, part, role, path, numbers)

        match value:
            case Arg(index):
                return Operand(index)
            case Weight(name):
                return ModuleTensor(path, name)
            case ChainedApply(target, args):
                return ChainedCalls(target, tuple(inner(arg, "") for arg in args))
            case Apply(target, args, kwargs, signature):
                signature = signature or Signature("")
                roles = (*map(signature.role, signature.positional), *[""] * len(args))
                new_args = tuple(inner(arg, role) for arg, role in zip(args, roles, strict=False))
                optional = [name for name, default in signature.keywords.items() if default is None]
                pairs = []
                for name, arg in {**signature.keywords, **kwargs}.items():
                    role = signature.role(name)
                    is_number = arg is not None or name not in optional
                    pairs.append((name, inner(arg, role) if is_number else _slot(arg, role, part, numbers)))
                return FunctionCall(target, new_args, tuple(pairs), signature)
            case slice():
                return Slice(inner(value.start, "start"), inner(value.stop, "stop"), inner(value.step, "stride"))
            case list():
                return Items(tuple(inner(item, role) for item in value), True)
            case tuple() if not _is_number(value):
                return Items(tuple(inner(item, role) for item in value), False)
        if _is_number(value):
            return _slot(value, role or "value", part, numbers)
        return value


def compact(steps: tuple[int, ...]) -> range | tuple[int, ...]:
    """Steps as a range, if three or more are consecutive."""
    full = range(steps[0], steps[-1] + 1)
    return full if len(steps) > 2 and steps == tuple(full) else steps


def _slot(value: Any, role: str, part: str, numbers: list[Number]) -> Slot:
    numbers.append(Number(role, part, value))
    return Slot(len(numbers) - 1)


def _is_number(value: Any) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(_is_number(item) for item in value)
    return isinstance(value, int | float)
