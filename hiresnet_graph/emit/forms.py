"""The form of a unit: its steps with every number taken out, so that units of one form can share a class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hiresnet_graph.emit.units import Item, Unit, Units, bare, held, is_copy, value_of
from hiresnet_graph.ops import Apply, Arg, Layer, Signature, Weight


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()
"""The default of a parameter that has none."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a class's `__init__`.

    Attributes:
        role: What its number is, like `stride`; `channels` for all that count channels or features.
        positional: It is passed by place.
        annotation: Its type, for classes that are written here.
    """

    name: str
    role: str
    default: Any = MISSING
    positional: bool = False
    annotation: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """A class that can be instantiated: its name in the source and its parameters."""

    name: str
    path: str
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True, slots=True)
class Number:
    """A number that was taken out of a form.

    Attributes:
        role: As of a parameter; like `stride`.
        place: The part of the unit that it belongs to, like `conv1`.
    """

    role: str
    place: str
    value: Any


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of the k-th number."""

    index: int


@dataclass(frozen=True, slots=True)
class Given:
    """The k-th operand of a step."""

    index: int


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor of the module at a path, like `weight` of `stage1.block1.conv1`."""

    path: str
    name: str


@dataclass(frozen=True, slots=True)
class Span:
    """A slice."""

    start: Any
    stop: Any
    step: Any


@dataclass(frozen=True, slots=True)
class Row:
    """A list or a tuple of values."""

    items: tuple[Any, ...]
    is_list: bool


@dataclass(frozen=True, slots=True)
class Use:
    """A function of values."""

    target: str
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]
    signature: Signature = field(compare=False)


@dataclass(frozen=True, slots=True)
class New:
    """An instance of a class, with a value for each of its parameters."""

    target: Target
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One item of a unit.

    Attributes:
        path: Of the module that is called, below the unit; empty for a function. `*` at its end stands for the copy of
            a time step.
        make: How the module is made; None for a function, and for one that is given from outside.
        use: The function.
        operands: Values: first the unit's inputs are counted, then its steps.
        time: The time step that the module is told; empty if it need not know it.
        copies: The time steps for which there is a copy.
    """

    path: str
    make: New | None
    use: Any
    operands: tuple[int, ...]
    time: str = ""
    copies: Slot | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """The steps of a unit, and the values that it gives."""

    inputs: int
    steps: tuple[Step, ...]
    results: tuple[int, ...]


@dataclass(slots=True)
class Reading:
    """A unit read: its form, the numbers that fill it, and where its own shortcut, if any, was passed over.

    Attributes:
        items: What each step was.
        bypassed: (step, operand) where the input of the shortcut stands for its output; (-1, 0) for the result.
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
    """A dotted path as the source writes it: `torch.nn.functional.relu` -> `F.relu`."""
    for prefix, short in (("torch.nn.functional.", "F."), ("torch.nn.", "nn."), ("torch.", "torch.")):
        if path.startswith(prefix):
            return short + path.removeprefix(prefix)
    return path.rpartition(".")[2]


class Reader:
    """Reads units and whole plans.

    Args:
        instance: The instance that a unit becomes.
    """

    def __init__(self, units: Units, instance: Callable[[Unit], New]) -> None:
        self.units = units
        self.instance = instance

    def unit(self, unit: Unit, *, whole: bool) -> Reading:
        """A unit; unless `whole`, its own shortcut is passed over as if it were the identity."""
        passed = None if whole else next((item for item in unit.items if unit.is_shortcut(item)), None)
        return self.read(unit.items, unit.inputs, (unit.output,), unit, passed)

    def read(
        self,
        items: tuple[Item, ...],
        inputs: tuple[str, ...],
        results: tuple[str, ...],
        unit: Unit | None = None,
        passed: Item | None = None,
    ) -> Reading:
        """Items in order, the values that they read, and those that they give."""
        numbers: list[Number] = []
        values = {name: k for k, name in enumerate(inputs)}
        steps: list[Step] = []
        for item in items:
            if item is passed:
                continue
            operands = tuple(item.inputs)
            if passed is not None:
                operands = tuple(passed.inputs[0] if name == value_of(passed) else name for name in operands)
            places = tuple(values[name] for name in operands)
            steps.append(self._step(item, places, unit, numbers))
            values[value_of(item)] = len(inputs) + len(steps) - 1
        kept = [item for item in items if item is not passed]
        bypassed: set[tuple[int, int]] = set()
        if passed is not None:
            out = value_of(passed)
            bypassed = {(i, k) for i, item in enumerate(kept) for k, name in enumerate(item.inputs) if name == out}
            bypassed |= {(-1, k) for k, name in enumerate(results) if name == out}
            values[out] = values[passed.inputs[0]]
        form = Form(len(inputs), tuple(steps), tuple(values[name] for name in results))
        return Reading(form, numbers, kept, frozenset(bypassed))

    def _step(self, item: Item, operands: tuple[int, ...], unit: Unit | None, numbers: list[Number]) -> Step:
        start = len(unit.weights) + 1 if unit else 0
        path = item.weights[start:] if unit or isinstance(item, Unit) else held(item)
        if isinstance(item, Unit):
            given = unit is not None and unit.is_shortcut(item)
            make = None if given else self._numbered(self.instance(item), path, numbers)
            time = ("step" if unit else str(item.step)) if item.steps else ""
            return Step(path, make, None, operands, time)
        layer = self.units.layers.get(item.name)
        if layer is not None and item.name not in self.units.functional:
            make = self._layer(layer, path, numbers)
            copies = _taken(compact(self.units.copies[item.weights]), "steps", "", numbers) if is_copy(path) else None
            return Step(path, make, None, operands, copies=copies)
        place = item.name[len(unit.name) + 1 :] if unit else bare(item.name)
        use = self._tree(item.op.apply(*item.input_shapes), place, "", path, numbers)
        return Step("", None, use, operands)

    def _numbered(self, new: New, place: str, numbers: list[Number]) -> New:
        """An instance with its numbers taken out."""
        values: list[Any] = []
        for parameter, value in zip(new.target.parameters, new.values, strict=True):
            if isinstance(value, New):
                values.append(self._numbered(value, place, numbers))
            elif parameter.role == "module":
                values.append(value)
            else:
                values.append(_taken(value, parameter.role, place, numbers))
        return New(new.target, tuple(values))

    def _layer(self, layer: Layer, place: str, numbers: list[Number]) -> New:
        parameters = _parameters(layer)
        given = dict(zip((parameter.name for parameter in parameters), layer.args, strict=False)) | layer.kwargs
        values = tuple(
            self._tree(given.get(parameter.name, parameter.default), place, parameter.role, "", numbers)
            for parameter in parameters
        )
        return New(Target(source_name(layer.target), layer.target, parameters), values)

    def _tree(self, value: Any, place: str, role: str, held: str, numbers: list[Number]) -> Any:
        """A value of an operation's torch form, with its numbers taken out."""

        def inner(value: Any, role: str) -> Any:
            return self._tree(value, place, role, held, numbers)

        match value:
            case Arg(index):
                return Given(index)
            case Weight(name):
                return Held(held, name)
            case Apply(target, args, kwargs, signature):
                signature = signature or Signature("")
                roles = (*map(signature.role, signature.positional), *[""] * len(args))
                new_args = tuple(inner(arg, role) for arg, role in zip(args, roles, strict=False))
                optional = [name for name, default in signature.keywords.items() if default is None]
                pairs = []
                for name, arg in {**signature.keywords, **kwargs}.items():
                    role = signature.role(name)
                    is_number = arg is not None or name not in optional
                    pairs.append((name, inner(arg, role) if is_number else _taken(arg, role, place, numbers)))
                return Use(target, new_args, tuple(pairs), signature)
            case slice():
                return Span(inner(value.start, "start"), inner(value.stop, "stop"), inner(value.step, "stride"))
            case list():
                return Row(tuple(inner(item, role) for item in value), True)
            case tuple() if not _is_number(value):
                return Row(tuple(inner(item, role) for item in value), False)
        if _is_number(value):
            return _taken(value, role or "value", place, numbers)
        return value


def compact(steps: tuple[int, ...]) -> range | tuple[int, ...]:
    """Steps as a range, if they are one of three or more."""
    whole = range(steps[0], steps[-1] + 1)
    return whole if len(steps) > 2 and steps == tuple(whole) else steps


def _taken(value: Any, role: str, place: str, numbers: list[Number]) -> Slot:
    numbers.append(Number(role, place, value))
    return Slot(len(numbers) - 1)


def _is_number(value: Any) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(_is_number(item) for item in value)
    return isinstance(value, int | float)
