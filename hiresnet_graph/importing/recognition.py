"""Whether calls of primitive operations are exactly what a registered block computes.

Names of classes play no part: a candidate is expanded, and both graphs are compared operation by operation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple, cast, get_args

from pydantic import ValidationError

from hiresnet_graph import ops
from hiresnet_graph.blocks import BLOCKS
from hiresnet_graph.errors import ShapeError
from hiresnet_graph.importing.primitives import Flat, Stored
from hiresnet_graph.importing.token_candidates import token_candidates
from hiresnet_graph.ops import Op, pair
from hiresnet_graph.projections import StandardProjection
from hiresnet_graph.registry import Kind
from hiresnet_graph.shapes import Shape
from hiresnet_graph.wire import ActivationName, Builder, Wire

_COMMUTATIVE = ("add", "multiply")
INPUT = -1
"""The operand of a graph of calls that is its input."""
ACTIVATIONS = frozenset(get_args(ActivationName)) - {"none"}
_NORMS = {"batch_norm": "batch", "group_norm": "group", "layer_norm": "layer", "layer_norm2d": "layer2d"}
Key = tuple[Any, ...]


class Recognised(NamedTuple):
    """A block that computes the calls.

    Attributes:
        tensors: Address below the block -> tensor of the original.
        free: Fields that change nothing for this input.
        slots: Inner value of the network -> slot of the block where edges add to it.
    """

    block: str
    fields: dict[str, Any]
    tensors: dict[str, Stored]
    free: frozenset[str] = frozenset()
    slots: Mapping[int, str] = MappingProxyType({})


def operation_key(op: Op, shape: Shape) -> Key:
    """Equal for operations that compute the same, however they are written."""
    fields = op.canonical(shape).model_dump()
    for name in ("padding", "output_padding", "stride", "kernel_size", "dilation", "size"):
        if isinstance(fields.get(name), int | tuple):
            fields[name] = pair(fields[name])
    return (op.kind, *sorted((name, value) for name, value in fields.items()))


@dataclass(slots=True)
class Calls:
    """Calls of operations with one input.

    Attributes:
        keys, operands: Of each call; `INPUT` is the operand that is the input.
        output: The call whose value comes out.
    """

    keys: Sequence[Key]
    operands: Sequence[tuple[int, ...]]
    output: int

    def hashes(self) -> list[int]:
        """A number for each call, equal for equal calls of equal operands; sums and products have no order."""
        found: list[int] = []
        for key, operands in zip(self.keys, self.operands, strict=True):
            below = [hash("input") if index == INPUT else found[index] for index in operands]
            found.append(hash((key, tuple(sorted(below) if key[0] in _COMMUTATIVE else below))))
        return found


def pairing(one: Calls, other: Calls) -> dict[int, int] | None:
    """Call of one graph -> equal call of the other one; None if the graphs differ."""
    if len(one.keys) != len(other.keys):
        return None
    left, right = one.hashes(), other.hashes()
    if left[one.output] != right[other.output]:
        return None
    found: dict[int, int] = {}
    stack = [(one.output, other.output)]
    while stack:
        a, b = stack.pop()
        if a == INPUT or b == INPUT:
            if a != b:
                return None
            continue
        if a in found:
            if found[a] != b:
                return None
            continue
        if left[a] != right[b]:
            return None
        found[a] = b
        below = one.operands[a], other.operands[b]
        if one.keys[a][0] in _COMMUTATIVE:
            order = [_by_hash(below[0], left), _by_hash(below[1], right)]
            stack += zip(*order, strict=True)
        else:
            stack += zip(*below, strict=True)
    return found if len(found) == len(one.keys) and len(set(found.values())) == len(found) else None


def with_norms(op: Op, norms: Mapping[str, float]) -> Op:
    """A norm with the fields that the file sets for all norms, where it does not set them itself."""
    if not op.normalizes:
        return op
    unset = type(op).model_fields.keys() - op.model_fields_set
    return op.changed({name: value for name, value in norms.items() if name in unset})


def _by_hash(operands: Sequence[int], hashes: Sequence[int]) -> list[int]:
    return sorted(operands, key=lambda index: hash("input") if index == INPUT else hashes[index])


class Expanded(NamedTuple):
    """The calls of a block or of a projection.

    Attributes:
        names: Of each call, below the node or edge.
        slots: Slot -> the call to whose value its edges add; its input is none.
    """

    calls: Calls
    names: list[str]
    slots: dict[str, int]


class _Recording(Builder):
    """The calls of a block, named like those of a node.

    Args:
        norms: Fields of all norms.
    """

    def __init__(self, norms: Mapping[str, float]) -> None:
        self.norms = norms
        self.names: dict[str, int] = {"": INPUT}
        self.keys: list[Key] = []
        self.operands: list[tuple[int, ...]] = []
        self.slots: dict[str, int] = {}

    def call(self, op: Op, inputs: tuple[Wire, ...], scope: str, part: str | None) -> Wire:
        base = f"{scope}.{part or op.part or op.kind}"
        name, number = base, 1
        while name in self.names:
            number += 1
            name = f"{base}{number}"
        shapes = [wire.shape for wire in inputs]
        op = with_norms(op, self.norms)
        self.names[name] = len(self.keys)
        self.keys.append(operation_key(op, shapes[0]))
        self.operands.append(tuple(self.names[wire.name] for wire in inputs))
        return Wire(self, name, op.shape(*shapes), inputs[0].scope)

    def join(self, wire: Wire, slot: str, operands: tuple[Wire, ...]) -> Wire:
        joined = replace(wire, scope=f"{wire.scope}.{slot}").add(*operands) if operands else wire
        self.slots[slot] = self.names[joined.name]
        return replace(joined, scope=wire.scope)

    def shortcut(self, wire: Wire, target: Shape, scope: str, project: Callable[[Wire, Shape], Wire]) -> Wire:
        return replace(project(replace(wire, scope=scope), target), scope=wire.scope)

    def inline(self, wire: Wire, block: Any) -> Wire:
        raise ShapeError("a block of a spec is no registered block.")


def expanded(kind: type[Kind], fields: Mapping[str, Any], shape: Shape, norms: Mapping[str, float]) -> Expanded | None:
    """The calls of a block for an input of this shape; None if it does not accept them, or computes nothing."""

    def apply(x: Wire) -> Wire:
        block: Any = kind.model_validate(fields)
        return cast("Wire", block.expand(x))

    return _recorded(apply, shape, norms)


def projected(fields: Mapping[str, Any], source: Shape, target: Shape, norms: Mapping[str, float]) -> Expanded | None:
    """The calls of the standard projection between two shapes; None if it does not accept them, or computes nothing."""
    return _recorded(lambda x: StandardProjection.model_validate(fields).project(x, target), source, norms)


def _recorded(apply: Callable[[Wire], Wire], shape: Shape, norms: Mapping[str, float]) -> Expanded | None:
    builder = _Recording(norms)
    try:
        out = apply(Wire(builder, "", shape, ""))
    except (ValidationError, ShapeError):
        return None
    if out.name == "":
        return None
    names = [name.removeprefix(".") for name in builder.names if name]
    return Expanded(Calls(builder.keys, builder.operands, builder.names[out.name]), names, builder.slots)


def calls_of(
    flat: Flat, members: Collection[int], source: int, output: int, *, idle_paths: bool = True
) -> tuple[Calls, list[int]]:
    """Some primitives of a network that read one value from outside, and their indices in the network.

    Args:
        idle_paths: Whether stochastic depth of probability zero is a call.
    """
    order = [index for index in sorted(members) if idle_paths or not _is_idle(flat.primitives[index].op)]
    place = {index: number for number, index in enumerate(order)} | {source: INPUT}
    for index in sorted(members):
        if index not in place:
            place[index] = place[flat.primitives[index].operands[0]]
    keys = []
    for index in order:
        primitive = flat.primitives[index]
        keys.append(operation_key(primitive.op, flat.shape(primitive.operands[0])))
    operands = [tuple(place[operand] for operand in flat.primitives[index].operands) for index in order]
    return Calls(keys, operands, place[output]), order


def _is_idle(op: Op) -> bool:
    return isinstance(op, ops.StochasticDepth) and op.p == 0


def recognise(
    flat: Flat, members: Collection[int], source: int, output: int, norms: Mapping[str, float]
) -> Recognised | None:
    """The registered block that computes these primitives, or None."""
    own, order = calls_of(flat, members, source, output, idle_paths=False)
    operations = [flat.primitives[index].op for index in order]
    for block, fields in candidates(operations, flat.shape(source), flat.shape(output)):
        found = expanded(BLOCKS.get(block), fields, flat.shape(source), norms)
        if found is None:
            continue
        pairs = pairing(own, found.calls)
        if pairs is None:
            continue
        tensors = {
            f"{found.names[pairs[place]]}.{name}": stored
            for place, index in enumerate(order)
            for name, stored in flat.primitives[index].stored.items()
        }
        adds = any(isinstance(op, ops.Add) for op in operations)
        free = frozenset({"drop_path"}) if block == "mbconv" and not adds else frozenset()
        slots = {order[place]: slot for place, call in pairs.items() for slot, at in found.slots.items() if call == at}
        return Recognised(block, fields, tensors, free, slots)
    return None


def candidates(found: Sequence[Op], source: Shape, target: Shape) -> Iterator[tuple[str, dict[str, Any]]]:
    """Blocks, with fields, that may compute these operations."""
    if len(found) == 1:
        yield from _resolution(found[0])
        return
    convs = [op for op in found if isinstance(op, ops.Conv2d)]
    norms = {_NORMS[op.kind] for op in found if op.kind in _NORMS}
    active = [op.kind for op in found if op.kind in ACTIVATIONS]
    common: dict[str, Any] = {}
    if not norms:
        common["norm"] = "none"
    elif norms != {"batch"}:
        common["norm"] = min(norms)
    activation = active[0] if active else "none"
    linear = [op for op in found if isinstance(op, ops.Linear)]
    if linear and not convs and isinstance(found[-1], ops.Linear):
        dropout = next((op.p for op in found if isinstance(op, ops.Dropout)), 0)
        norm = {} if not norms else {"norm": min(norms)}
        yield "classifier", {"classes": linear[-1].width, **norm, **({"dropout": dropout} if dropout else {})}
    yield from token_candidates(found, source, activation)
    if len(convs) == 1 and len(found) <= 3:
        yield "conv", _conv_fields(convs[0], common, activation)
    if len(convs) == 2:
        yield from _squeeze_excite(convs, active)
    if len(convs) in (1, 2) and isinstance(found[-1], ops.Concat):
        yield from _dense_layer(convs, found)
    if len(convs) == 2 and convs[0].groups == source.channels > 1:
        yield "separable_conv", _separable(convs, common, activation)
    if len(convs) in (2, 3, 4):
        yield from _residual(convs, found, common, activation, source, target)
    if 2 <= len(convs) <= 5:
        yield from _mbconv(convs, found, source, activation)


def _resolution(op: Op) -> Iterator[tuple[str, dict[str, Any]]]:
    """One operation that changes height and width, as the block that is called by what it does."""
    fields = {name: value for name, value in op.model_dump().items() if name in op.model_fields_set}
    if isinstance(op, ops.AdaptiveAvgPool):
        yield "pool", {"pool": "adaptive", "size": op.size}
    elif isinstance(op, ops.MaxPool | ops.AvgPool):
        is_padded = op.padding not in (0, (0, 0))
        stride = {"stride": op.kernel_size} if op.stride is None and is_padded else {}
        yield "pool", {**({"pool": "avg"} if isinstance(op, ops.AvgPool) else {}), **fields, **stride}
    elif isinstance(op, ops.ConvTranspose2d):
        scale = {} if op.kernel_size == 2 else {"scale": op.kernel_size}
        yield "upsample", {"mode": "deconv", **scale, "width": op.width}


def _without(fields: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in defaults or value != defaults[name]}


def _conv_fields(conv: ops.Conv2d, common: Mapping[str, Any], activation: str) -> dict[str, Any]:
    fields = {name: getattr(conv, name) for name in ("kernel_size", "stride", "padding", "dilation", "groups")}
    fields = _without(fields, kernel_size=3, stride=1, padding=None, dilation=1, groups=1)
    bias = {} if conv.bias == ("norm" in common and common["norm"] == "none") else {"bias": conv.bias}
    chosen = {} if activation == "relu" else {"activation": activation}
    return {"width": conv.width, **fields, **bias, **common, **chosen}


def _separable(convs: Sequence[ops.Conv2d], common: Mapping[str, Any], activation: str) -> dict[str, Any]:
    fields = {"kernel_size": convs[0].kernel_size, "stride": convs[0].stride, "activation": activation}
    return {"width": convs[1].width, **_without(fields, kernel_size=3, stride=1, activation="relu"), **common}


def _squeeze_excite(convs: Sequence[ops.Conv2d], active: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    if len(active) == 2:
        fields = {"hidden": convs[0].width, "activation": active[0], "gate": active[1]}
        yield "squeeze_excite", _without(fields, activation="relu", gate="sigmoid")


def _dense_layer(convs: Sequence[ops.Conv2d], found: Sequence[Op]) -> Iterator[tuple[str, dict[str, Any]]]:
    growth = convs[-1].width
    dropout = next((op.p for op in found if isinstance(op, ops.Dropout)), 0)
    bottleneck = convs[0].width // growth if len(convs) == 2 else 0
    yield (
        "dense_layer",
        {"growth": growth, **_without({"bottleneck": bottleneck, "dropout": dropout}, bottleneck=4, dropout=0)},
    )


def _residual(
    convs: Sequence[ops.Conv2d],
    found: Sequence[Op],
    common: Mapping[str, Any],
    activation: str,
    source: Shape,
    target: Shape,
) -> Iterator[tuple[str, dict[str, Any]]]:
    width, strides = target.channels, [max(pair(conv.stride)) for conv in convs]
    groups = max(conv.groups for conv in convs)
    inner = [conv for conv in convs if pair(conv.kernel_size) == (3, 3)]
    if not inner:
        return
    fields: dict[str, Any] = {"width": width, "groups": groups, "stride": max(strides), "activation": activation}
    fields = {**_without(fields, groups=1, stride=1, activation="relu"), **common}
    adds = any(isinstance(op, ops.Add) for op in found)
    hidden = inner[0].width
    if len(inner) == 2:
        names = ("basic", "preact_basic") if adds else ("plain",)
        given = {} if hidden == width else {"hidden": hidden}
    else:
        names = ("bottleneck", "preact_bottleneck")
        given = {} if hidden == width // 4 else {"hidden": hidden}
    for name in names:
        for shortcut in _shortcuts(found, source == target):
            yield name, {**fields, **given, **({"shortcut": shortcut} if shortcut else {})}


def _shortcuts(found: Sequence[Op], is_same: bool) -> Iterator[dict[str, Any]]:
    """The fields of shortcuts that differ from the default one."""
    yield {}
    if is_same:
        yield {"channels": "none", "when": "always"}
        yield {"when": "always"}
        return
    yield {"channels": "pad", "norm": "none"}
    yield {"norm": "none"}
    yield {"norm": "none", "bias": False}
    if any(isinstance(op, ops.AvgPool) for op in found):
        yield {"spatial": "avg"}


def _mbconv(
    convs: Sequence[ops.Conv2d], found: Sequence[Op], source: Shape, activation: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    depthwise = next((conv for conv in convs if conv.groups == conv.width and conv.groups > 1), None)
    if depthwise is None:
        return
    ratio = depthwise.width / source.channels
    fields: dict[str, Any] = {
        "expansion": int(ratio) if ratio == int(ratio) else ratio,
        "kernel_size": depthwise.kernel_size,
        "stride": depthwise.stride,
        "activation": activation,
    }
    fields = {"width": convs[-1].width, **_without(fields, expansion=6, kernel_size=3, stride=1, activation="relu6")}
    if any(op.kind == "sigmoid" for op in found):
        squeeze = convs[-3].width / source.channels
        short = round(squeeze, 4)
        fields["squeeze"] = short if round(source.channels * short) == convs[-3].width else squeeze
    drop_path = next((op.model_dump()["p"] for op in found if op.kind == "drop_path"), 0)
    if drop_path:
        fields["drop_path"] = drop_path
    yield "mbconv", fields
