"""The classes of a network: units of one form share a class, and `__init__` takes the numbers in which they differ."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any

from hiresnet_graph.blocks import BLOCKS
from hiresnet_graph.emit.forms import NO_DEFAULT, Form, Instance, Number, Parameter, Reader, Reading, Target
from hiresnet_graph.emit.text import shortened
from hiresnet_graph.emit.units import Item, Unit, Units, without_step
from hiresnet_graph.identifiers import camel_case
from hiresnet_graph.plan import Plan

_DEFAULTS: dict[str, Any] = {
    "stride": 1,
    "padding": 0,
    "output_padding": 0,
    "dilation": 1,
    "groups": 1,
    "bias": True,
    "ceil_mode": False,
    "pool_stride": None,
    "pool_padding": 0,
}
SHORTCUT = "shortcut"


@dataclass(frozen=True, slots=True)
class BlockClass:
    """A class of units.

    Attributes:
        slots: For each number of the form, an expression of parameters like `stride`; None for a constant.
        unit, reading: One unit of the class, and its form with the shortcut.
        shortcut: Whether the shortcut is passed in: "" (never), "always" or "some" (by some units).
    """

    target: Target
    doc: str
    unit: Unit
    reading: Reading
    slots: tuple[str | None, ...]
    shortcut: str


@dataclass(slots=True)
class _FormGroup:
    """Units of one form, with their readings in the same order."""

    label: str
    form: Form
    units: list[Unit]
    readings: list[Reading]


class Classes:
    """The classes of all units of a plan.

    Attributes:
        written: The classes, each after those that it uses.
        reader: Reads units as instances of the classes.
    """

    def __init__(self, units: Units, plan: Plan, taken: set[str]) -> None:
        self.units = units
        self.reader = Reader(units, self.instance)
        self.written: list[BlockClass] = []
        self._taken = set(taken)
        self._labels = _labels(plan)
        self._stages = {node.stage for node in plan.nodes if node.stage}
        self._instances: dict[str, Instance] = {}
        self._groups: dict[str, tuple[_FormGroup, int]] = {}
        self._targets: dict[int, tuple[Target, list[list[Any]]]] = {}
        objects: dict[str, Unit] = {}
        for unit in _nested(units.items):
            objects.setdefault(unit.weights, unit)
        rounds: dict[int, list[Unit]] = {}
        for unit in objects.values():
            rounds.setdefault(unit.height, []).append(unit)
        for _, members in sorted(rounds.items()):
            groups = self._grouped(members)
            for base, same in self._based(groups).items():
                for group, name in zip(same, self._named(base, same), strict=True):
                    self._write(group, name)

    def instance(self, unit: Unit) -> Instance:
        """The instance for a unit."""
        if unit.weights not in self._instances:
            group, row = self._groups[unit.weights]
            target, values = self._targets[id(group)]
            shortcut = next((item for item in unit.items if unit.is_shortcut(item)), None)
            external = self.instance(shortcut) if isinstance(shortcut, Unit) else None
            pairs = zip(target.parameters, values[row], strict=True)
            filled = (external if parameter.role == "module" else value for parameter, value in pairs)
            self._instances[unit.weights] = Instance(target, tuple(filled))
        return self._instances[unit.weights]

    def _grouped(self, units: Sequence[Unit]) -> list[_FormGroup]:
        """Units by kind and form. Units without a shortcut join those with one, and take None as shortcut."""
        found: dict[tuple[str, Form], dict[frozenset[tuple[int, int]], _FormGroup]] = {}
        by_form: dict[Form, str] = {}
        readings = [self.reader.unit(unit, with_shortcut=False) for unit in units]
        position = {unit.name: k for k, unit in enumerate(units)}
        for unit, reading in zip(units, readings, strict=True):
            if label := self._labels.get(without_step(unit.name), ""):
                by_form.setdefault(reading.form, label)
        for unit, reading in zip(units, readings, strict=True):
            label = self._labels.get(without_step(unit.name)) or by_form.get(reading.form, "")
            group = found.setdefault((label, reading.form), {}).setdefault(
                reading.bypassed, _FormGroup(label, reading.form, [], [])
            )
            group.units.append(unit)
            group.readings.append(reading)
        groups = []
        for several in found.values():
            first = next((group for bypassed, group in several.items() if bypassed), None)
            is_timed = first is not None and _has_timed_shortcut(first.units[0])
            plain = None if is_timed else several.pop(frozenset(), None)
            if plain is not None and first is not None:
                pairs = [*zip(first.units, first.readings, strict=True), *zip(plain.units, plain.readings, strict=True)]
                pairs.sort(key=lambda pair: position[pair[0].name])
                first.units, first.readings = [unit for unit, _ in pairs], [reading for _, reading in pairs]
            groups += [plain] if plain is not None and first is None else []
            groups += several.values()
        return groups

    def _based(self, groups: list[_FormGroup]) -> dict[str, list[_FormGroup]]:
        """Groups by the base of their class names."""
        based: dict[str, list[_FormGroup]] = {}
        for group in groups:
            based.setdefault(self._base(group), []).append(group)
        return based

    def _base(self, group: _FormGroup) -> str:
        if group.label:
            return BLOCKS.get(group.label).__name__ if group.label in BLOCKS else _camel(group.label)
        ends = {unit.name.rpartition(".")[2] for unit in group.units}
        if all(without_step(unit.name).startswith("edges.") for unit in group.units):
            return "EdgeBlock"
        if len(ends) > 1 and all(without_step(unit.name) in self._stages for unit in group.units):
            return "Stage"
        return _camel(ends.pop()) if len(ends) == 1 else f"{_parts(group)}Block"

    def _named(self, base: str, groups: list[_FormGroup]) -> Iterator[str]:
        """A name for each group: the base, the base with its parts, or the base with a number."""
        for group in groups:
            is_short = base in ("Shortcut", "Projection") and len(group.readings[0].items) <= 4
            stem = f"{_parts(group)}{base}" if is_short and len(groups) > 1 else base
            name, number = stem, 1
            while name in self._taken:
                number += 1
                name = f"{stem}{number}"
            self._taken.add(name)
            yield name

    def _write(self, group: _FormGroup, name: str) -> None:
        rows = [reading.numbers for reading in group.readings]
        parameters, slots, columns = _parametrized(rows, group.units)
        with_shortcut = [any(unit.is_shortcut(item) for item in unit.items) for unit in group.units]
        shortcut = ""
        if any(with_shortcut):
            shortcut = "always" if all(with_shortcut) else "some"
            default = NO_DEFAULT if shortcut == "always" else None
            annotation = "nn.Module" if shortcut == "always" else "nn.Module | None"
            external = Parameter(SHORTCUT, "module", default, annotation=annotation)
            parameters, columns = (*parameters, external), (*columns, [None] * len(rows))
        order = sorted(range(len(parameters)), key=lambda k: parameters[k].default is not NO_DEFAULT)
        target = Target(name, "", tuple(parameters[k] for k in order))
        self._targets[id(group)] = target, [[columns[k][row] for k in order] for row in range(len(rows))]
        for row, unit in enumerate(group.units):
            self._groups[unit.weights] = group, row
        first = group.units[with_shortcut.index(True) if shortcut else 0]
        reading = self.reader.unit(first, with_shortcut=True)
        self.written.append(BlockClass(target, _doc(group, self._stages), first, reading, slots, shortcut))


def _nested(items: Sequence[Item]) -> Iterator[Unit]:
    """All units among and inside items, the inner ones first."""
    for item in items:
        if isinstance(item, Unit):
            yield from _nested(item.items)
            yield item


def _has_timed_shortcut(unit: Unit) -> bool:
    """Whether the shortcut of a unit takes the time step: then it is no module that may be None."""
    return any(isinstance(item, Unit) and bool(item.steps) for item in unit.items if unit.is_shortcut(item))


def _labels(plan: Plan) -> dict[str, str]:
    """The labels of nodes and edges of the spec: the kind of the block, or `projection`."""
    labels = {node.name: node.block for node in plan.nodes}
    for edge in plan.edges:
        if edge.family != "shortcut" and edge.projection != "written":
            labels[edge.name] = edge.projection if edge.projection in BLOCKS else "projection"
    return labels


def _camel(name: str) -> str:
    return camel_case(name, "Block", shortest=2)


def _parts(group: _FormGroup) -> str:
    """The parts of a unit as one word: `ConvNorm`."""
    items = group.readings[0].items
    names = [item.name.rpartition(".")[2] if isinstance(item, Unit) else item.op.part or item.op.kind for item in items]
    return "".join(_camel(re.sub(r"[0-9]+$", "", name)) for name in names[:4])


def _doc(group: _FormGroup, stages: Set[str]) -> str:
    names = list(dict.fromkeys(unit.weights for unit in group.units))
    what = f"Block '{shortened(group.label)}':" if group.label not in ("", "projection") else "Part:"
    if all(without_step(unit.name) in stages for unit in group.units):
        what = "Stage:"
    elif group.label == "projection":
        what = "Projection of"
    elif all(name.endswith(".shortcut") for name in names):
        what, names = "Shortcut of", [name.removesuffix(".shortcut") for name in names]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    text = f"{what} {names[0]}{more}."
    return text if len(text) <= 100 else f"{what.rstrip(':')} {len(names)} nodes."


def _vector(rows: Sequence[Sequence[Number]], slot: int) -> tuple[Any, ...]:
    """The values of one slot in all units, with their types, since 1 == True."""
    return tuple((type(row[slot].value), row[slot].value) for row in rows)


def _values(vector: tuple[Any, ...]) -> list[Any]:
    return [value for _, value in vector]


def _parametrized(
    rows: list[list[Number]], units: list[Unit]
) -> tuple[tuple[Parameter, ...], tuple[str | None, ...], tuple[list[Any], ...]]:
    """The parameters of a class, the expression of each slot, and the value of each parameter in each unit."""
    first = rows[0]
    vectors = [_vector(rows, slot) for slot in range(len(first))]
    ends = _ends(units)
    found: dict[tuple[str, Any], Parameter] = {}
    slots: list[str | None] = [None] * len(first)
    names: set[str] = set()

    def parameter(slot: int, name: str, *, positional: bool = False) -> str:
        role, vector = first[slot].role, vectors[slot]
        existing = found.get((role, vector))
        if existing is None:
            default = _DEFAULTS.get(role, NO_DEFAULT)
            if default not in _values(vector):
                default = NO_DEFAULT
            existing = Parameter(
                _unused(name, first[slot].part, names), role, default, positional, _annotation(vector, role)
            )
            names.add(existing.name)
            found[role, vector] = existing
        return existing.name

    channels = [slot for slot, number in enumerate(first) if number.role == "channels"]
    for vector, name in ends:
        for slot in [slot for slot in channels if vectors[slot] == vector][:1]:
            parameter(slot, name, positional=True)
    unknown = {vectors[slot] for slot in channels if len(set(vectors[slot])) > 1} - {vector for vector, _ in ends}
    for slot in channels:
        if ("channels", vectors[slot]) in found or vectors[slot] in unknown:
            slots[slot] = parameter(slot, "hidden" if len(unknown) == 1 else f"{_word(first[slot].part)}_channels")
    for slot, number in enumerate(first):
        same_layer = [k for k in range(len(first)) if first[k].part == number.part]
        if number.role == "channels":
            continue
        if number.role == "groups":
            inner = next((k for k in same_layer if first[k].role == "channels"), None)
            if inner is not None and vectors[slot] == vectors[inner] and any(v > 1 for v in _values(vectors[slot])):
                slots[slot] = slots[inner]
                continue
        if len(set(vectors[slot])) == 1:
            continue
        if number.role == "padding":
            kernel = next((k for k in same_layer if first[k].role == "kernel_size" and slots[k]), None)
            if kernel is not None and _is_half(_values(vectors[slot]), _values(vectors[kernel])):
                slots[slot] = f"{slots[kernel]} // 2"
                continue
        slots[slot] = parameter(slot, number.role)
    columns = tuple(_values(vector) for _, vector in found)
    return tuple(found.values()), tuple(slots), columns


def _ends(units: list[Unit]) -> list[tuple[Any, str]]:
    """The numbers of input and output channels, with their names."""
    found = []
    for which, shapes in (("in", [unit.input_shapes[0] for unit in units]), ("out", [unit.shape for unit in units])):
        found.append((tuple((int, shape.channels) for shape in shapes), f"{which}_{shapes[0].feature_noun}"))
    if found[0][0] == found[1][0]:
        return [(found[0][0], found[1][1].removeprefix("out_"))]
    return found


def _is_half(padding: list[Any], kernel: list[Any]) -> bool:
    return all(
        isinstance(size, int) and isinstance(pad, int) and pad == size // 2
        for pad, size in zip(padding, kernel, strict=True)
    )


def _word(part: str) -> str:
    return part.replace(".", "_")


def _unused(name: str, part: str, names: set[str]) -> str:
    if name in names:
        name = f"{_word(part)}_{name}"
    stem, number = name, 1
    while name in names or name in ("self", SHORTCUT):
        number += 1
        name = f"{stem}{number}"
    return name


def _annotation(vector: tuple[Any, ...], role: str) -> str:
    kinds = []
    for kind, value in dict.fromkeys(vector):
        text = "None" if value is None else kind.__name__
        if kind is tuple:
            inner = "float" if any(isinstance(item, float) for item in value) else "int"
            text = f"tuple[{', '.join([inner] * len(value))}]" if role != "steps" else "tuple[int, ...]"
        kinds.append(text)
    kinds = [kind for kind in dict.fromkeys(kinds) if not (kind == "int" and "float" in kinds)]
    return " | ".join(sorted(kinds, key=lambda kind: (kind == "None", kind)))


def attributes(written: BlockClass) -> dict[str, str]:
    """Parameter -> name of the attribute that stores it for `forward`, distinct from all modules."""
    parts = {step.path.partition(".")[0] for step in written.reading.form.steps}
    return {
        parameter.name: parameter.name if parameter.name not in parts else f"{parameter.name}_"
        for parameter in written.target.parameters
    }
