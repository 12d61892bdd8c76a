"""A trace as calls of primitive operations: the flat form of an imported network.

A value of the trace is that of an operation, perhaps with its axes in another order: `permute`, `view` and their
kin compute nothing, they only change which `AxisOrder` the tensor has. So a layer norm between two permutations is
found as what it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.importing.trace import ATTENTION_WEIGHTS, Fault, ModuleCall, ModuleTrace, Recorded, TracedTensor
from hiresnet_graph.ops import (
    ChannelLayerNorm,
    Identity,
    LayerNorm,
    Op,
    StochasticDepth,
    ToMap,
    ToTokens,
    TransposeTokens,
)
from hiresnet_graph.shapes import Map, Shape, Tokens, Vector


class AxisOrder(NamedTuple):
    """How the axes of a tensor relate to the value of an operation.

    Attributes:
        kind: `standard`; of a map also `last` (channels last), `flat` and `flat_last` (height and width as one axis,
            channels first or last), `grouped` and `swapped` (the channels as two axes); of tokens also `grid` (rows
            and columns as two axes), `features_first`, `split` (rows and columns in patches), `patches` (the grid of
            patches first), and those of attention.
        groups: Number of groups of channels, of heads, or of rows and columns of a patch.
    """

    kind: str = "standard"
    groups: int = 0


STANDARD = AxisOrder()


@dataclass(frozen=True, slots=True)
class Ref:
    """A tensor of the trace as the value of an operation.

    Attributes:
        index: The primitive; or -1, -2, ... for the first, second, ... input.
    """

    index: int
    layout: AxisOrder = STANDARD


@dataclass(frozen=True, slots=True)
class AttentionScores(Ref):
    """The products of all queries and keys, which are no value of an operation; `index` has the queries.

    Attributes:
        scale: The factor of the products.
        is_softmax: Whether they have been normalised.
    """

    keys: Ref = Ref(0)
    scale: float = 1.0
    is_softmax: bool = False


def sizes_of(shape: Tokens, layout: AxisOrder) -> tuple[int, ...] | None:
    """The sizes of tokens in some order of the axes, without the batch; None if the batch is not in front."""
    (length, width), groups, (rows, columns) = shape.sizes, layout.groups or 1, shape.grid or (0, 0)
    return {
        "standard": (length, width),
        "grid": (rows, columns, width),
        "features_first": (width, length),
        "in_three": (length, 3, groups, width // 3 // groups),
        "apart": None,
        "in_heads": (groups, length, width // groups),
        "in_heads_last": (groups, width // groups, length),
        "key_last": (groups, width // 3 // groups, length),
        "merged": (length, groups, width // groups),
        "split": (rows // groups, groups, columns // groups, groups, width),
        "patches": (rows // groups, columns // groups, groups, groups, width),
        **dict.fromkeys(("query", "key", "value"), (groups, length, width // 3 // groups)),
    }[layout.kind]


class Stored(NamedTuple):
    """A tensor of the original: its name, and the shape in which the new network has it."""

    name: str
    shape: tuple[int, ...]


@dataclass(eq=False, slots=True)
class Primitive:
    """One primitive call.

    Attributes:
        op: The operation.
        operands: Its operands: primitives, or inputs as negative numbers.
        shape: Shape of one sample of its value.
        stored: Name of a tensor of the operation -> that of the original.
        frames: The calls of modules around it, from the outside in.
        location: File and line of its call.
    """

    op: Op
    operands: tuple[int, ...]
    shape: Shape
    stored: Mapping[str, Stored]
    frames: tuple[ModuleCall, ...]
    location: str


class Inexpressible(Exception):
    """Bare: a call has no form in primitive operations. Its text is a sentence without a period."""


class _Unknown(Exception):
    """Bare: an operand is the result of a call that has no form."""


_STAND_INS = -1_000_000
_COMPUTED = (
    "has a weight that is computed, not stored in the state_dict. If by weight_norm, spectral_norm or pruning, store "
    "the result first: torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight'), "
    "remove_spectral_norm(layer) or torch.nn.utils.prune.remove(layer, 'weight')"
)
DROPOUT = "dropout of the weights of attention. Set its probability to 0; blocks have dropout after their linear maps"
Handler = Callable[..., Any]
H = TypeVar("H", bound=Handler)
FUNCTIONS: dict[str, Handler] = {}
"""Name of a torch function -> what it is in primitive operations."""
CLASSES: dict[str, Handler] = {}
"""Dotted path of a class of modules, known as a whole -> what it is."""


def function(*names: str) -> Callable[[H], H]:
    """Register what the torch functions of these names are."""

    def register(handler: H) -> H:
        FUNCTIONS.update(dict.fromkeys(names, handler))
        return handler

    return register


def whole(*paths: str) -> Callable[[H], H]:
    """Register what the modules of these classes are."""

    def register(handler: H) -> H:
        CLASSES.update(dict.fromkeys(paths, handler))
        return handler

    return register


@dataclass(slots=True)
class Flat:
    """A network as primitive calls.

    Attributes:
        inputs, input_shapes: Names and shapes of the arguments.
        outputs: Name -> primitive or input.
        consumed: Tensors of the original that are part of a module that is known as a whole.
    """

    inputs: tuple[str, ...]
    input_shapes: tuple[Shape, ...]
    primitives: list[Primitive]
    outputs: dict[str, int]
    faults: list[Fault]
    consumed: set[str] = field(default_factory=set)

    def shape(self, index: int) -> Shape:
        """The shape of a primitive's value, or of an input."""
        return self.primitives[index].shape if index >= 0 else self.input_shapes[-1 - index]


def flatten_trace(trace: ModuleTrace, buffers: Mapping[str, Any]) -> Flat:
    """The primitive calls of a trace; those that no output depends on are left out.

    Args:
        buffers: The `state_dict` of the module.
    """
    converter = Converter(trace, buffers)
    for call in trace.calls:
        converter.convert(call)
    outputs = {name: converter.output(name, value) for name, value in trace.outputs.items()}
    shapes = tuple(converter.shapes[-1 - index] for index in range(len(trace.inputs)))
    faults = [*trace.faults, *converter.faults]
    flat = Flat(tuple(trace.inputs), shapes, converter.primitives, outputs, faults, converter.consumed)
    return flat if flat.faults else _pruned(_with_pixel_norms(_without_idle_paths(flat)))


def _with_pixel_norms(flat: Flat) -> Flat:
    """Norms of tokens that are made for them alone, as norms of the pixels of a map."""
    readers: dict[int, int] = {}
    for primitive in flat.primitives:
        for operand in primitive.operands:
            readers[operand] = readers.get(operand, 0) + 1
    for index, primitive in enumerate(flat.primitives):
        if not isinstance(primitive.op, ToMap) or primitive.operands[0] < 0:
            continue
        norm = flat.primitives[primitive.operands[0]]
        if not isinstance(norm.op, LayerNorm) or readers[primitive.operands[0]] != 1 or norm.operands[0] < 0:
            continue
        tokens = flat.primitives[norm.operands[0]]
        if isinstance(tokens.op, ToTokens) and readers[norm.operands[0]] == 1:
            op = ChannelLayerNorm(**norm.op.model_dump(exclude_defaults=True))
            flat.primitives[index] = replace(norm, op=op, operands=tokens.operands, shape=primitive.shape)
    return flat


def _without_idle_paths(flat: Flat) -> Flat:
    """Without stochastic depth of probability zero, where there is no other."""
    paths = {i: one for i, one in enumerate(flat.primitives) if isinstance(one.op, StochasticDepth)}
    if any(one.op.model_dump()["p"] for one in paths.values()):
        return flat

    def source(index: int) -> int:
        while index in paths:
            index = paths[index].operands[0]
        return index

    for primitive in flat.primitives:
        primitive.operands = tuple(map(source, primitive.operands))
    flat.outputs = {name: source(index) for name, index in flat.outputs.items()}
    return flat


def _pruned(flat: Flat) -> Flat:
    """Without primitives that no output depends on."""
    needed: set[int] = set()
    stack = list(flat.outputs.values())
    while stack:
        index = stack.pop()
        if index >= 0 and index not in needed:
            needed.add(index)
            stack += flat.primitives[index].operands
    new = {old: index for index, old in enumerate(sorted(needed))} | {-1 - i: -1 - i for i in range(len(flat.inputs))}
    kept = [flat.primitives[old] for old in sorted(needed)]
    for primitive in kept:
        primitive.operands = tuple(new[index] for index in primitive.operands)
    outputs = {name: new[index] for name, index in flat.outputs.items()}
    return Flat(flat.inputs, flat.input_shapes, kept, outputs, flat.faults, flat.consumed)


@dataclass(slots=True)
class Converter:
    """Makes primitive calls of recorded ones.

    Attributes:
        refs: What the values of the trace are.
        shapes: Input -> its shape.
        failed: Values without a form.
        tokens: Primitive -> that of its value as tokens.
        consumed: As of `Flat`.
        call: The recorded call that is converted.
    """

    trace: ModuleTrace
    buffers: Mapping[str, Any]
    primitives: list[Primitive] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    refs: dict[int, Ref] = field(default_factory=dict)
    shapes: dict[int, Shape] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)
    tokens: dict[int, int] = field(default_factory=dict)
    consumed: set[str] = field(default_factory=set)
    call: Recorded | None = None

    def __post_init__(self) -> None:
        for number, (name, value) in enumerate(self.trace.inputs.items()):
            sizes = value.sizes[1:]
            if len(sizes) not in (1, 3):
                what = f"its input '{name}' is {list(value.sizes)}; inputs are images [B, C, H, W] or vectors [B, C]"
                self.faults.append(Fault(what, "", "input"))
            self.shapes[-1 - number] = Map(*sizes) if len(sizes) == 3 else Vector(sizes[0] if sizes else 1)
            self.refs[id(value)] = Ref(-1 - number)

    def convert(self, call: Recorded) -> None:
        """Add the primitives of one recorded call."""
        if not any(output.depends for output in call.outputs):
            return
        self.call = call
        name = call.function.removeprefix("class:")
        handler = CLASSES.get(name) if name != call.function else FUNCTIONS.get(name)
        handler = handler or FUNCTIONS.get(name.removeprefix("aten::"))
        try:
            refusal = next((one.whole_refusal for one in call.operands if one.whole_refusal), "")
            if refusal:
                raise Inexpressible(refusal)
            if handler is None:
                what = f"there is no operation for {self.name}"
                raise Inexpressible(what)
            results = self._results(handler, call)
        except _Unknown:
            self._stand_in(call)
            return
        except Inexpressible as error:
            path = call.frames[-1].path if call.frames else ""
            fault = Fault(str(error), path, call.location)
            if fault not in self.faults:
                self.faults.append(fault)
            self._stand_in(call)
            return
        self.refs.update({id(output): ref for output, ref in zip(call.outputs, results, strict=True)})

    def _stand_in(self, call: Recorded) -> None:
        """Continue with the results of a call that has no form, so that all such calls are found."""
        for output in call.outputs:
            self.failed.add(id(output))
            sizes = output.sizes[1:]
            if len(sizes) in (1, 3):
                index = _STAND_INS - len(self.failed)
                self.shapes[index] = Map(*sizes) if len(sizes) == 3 else Vector(sizes[0])
                self.refs[id(output)] = Ref(index)

    def _results(self, handler: Handler, call: Recorded) -> tuple[Ref, ...]:
        arguments = (self, *([call.module] if call.module is not None else []), *call.args)
        try:
            bound = inspect.signature(handler).bind(*arguments, **call.kwargs)
        except TypeError as error:
            raise Inexpressible(f"'{call.function}' with these arguments is not supported: {error}") from None
        try:
            result = handler(*bound.args, **bound.kwargs)
        except ShapeError as error:
            raise Inexpressible(f"'{call.function}': {error.message.rstrip('.')}") from None
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            where = ".".join(map(str, detail["loc"])) or error.title
            raise Inexpressible(f"'{call.function}': the field '{where}' cannot be {detail['input']!r}") from None
        refs = result if isinstance(result, tuple) else (result,)
        for output, ref in zip(call.outputs, refs, strict=True):
            expected = None if isinstance(ref, AttentionScores) else self.sizes(ref)
            if expected is not None and tuple(expected) != output.sizes[1:]:
                raise Inexpressible(
                    f"'{call.function}' gives {list(output.sizes)}, which is no layout of a feature map or a vector"
                )
        return refs

    def output(self, name: str, value: TracedTensor) -> int:
        """The primitive of an output."""
        ref = self.refs.get(id(value))
        refusal = ATTENTION_WEIGHTS if isinstance(ref, AttentionScores) else value.whole_refusal
        if refusal:
            self.faults.append(Fault(f"its result '{name}' is {refusal}", "", "output"))
            return 0
        if ref is None:
            if id(value) not in self.failed:
                self.faults.append(Fault(f"its result '{name}' does not depend on the input", "", "output"))
            return 0
        if ref.layout != STANDARD:
            self.faults.append(
                Fault(f"its result '{name}' is a feature map with its axes in another order", "", "output")
            )
        return ref.index

    def shape(self, ref: Ref) -> Shape:
        """The shape of the value of which a tensor is a layout."""
        return self.primitives[ref.index].shape if ref.index >= 0 else self.shapes[ref.index]

    def sizes(self, ref: Ref) -> tuple[int, ...] | None:
        """The sizes of a tensor, without the batch; None if the batch is not in front."""
        shape, (kind, groups) = self.shape(ref), ref.layout
        if isinstance(shape, Tokens):
            return sizes_of(shape, ref.layout)
        if kind == "standard":
            return tuple(shape)
        c, h, w = shape
        return {
            "last": (h, w, c),
            "flat": (c, h * w),
            "flat_last": (h * w, c),
            "grouped": (groups, c // (groups or 1), h, w),
            "swapped": (c // (groups or 1), groups, h, w),
        }[kind]

    def ref(self, value: Any) -> Ref:
        """The value of a tensor argument that depends on the input."""
        if not isinstance(value, TracedTensor):
            raise Inexpressible(f"{self.name} requires a tensor, not {value!r}")
        if not value.depends:
            raise Inexpressible(f"{self.name} of a constant, or of a tensor that the network stores")
        if id(value) not in self.refs:
            raise _Unknown
        if isinstance(self.refs[id(value)], AttentionScores):
            raise Inexpressible(f"{self.name} of the weights of attention")
        return self.refs[id(value)]

    def standard(self, value: Any) -> Ref:
        """As `ref`, with the axes in the usual order."""
        ref = self.ref(value)
        if ref.layout != STANDARD:
            raise Inexpressible(f"{self.name} of a tensor of {list(value.sizes)}, whose axes are no feature map's")
        return ref

    def as_tokens(self, x: Ref) -> Ref:
        """A feature map whose channels are its last axis, as tokens; other values as they are."""
        if not isinstance(self.shape(x), Map):
            return x
        order = {"last": AxisOrder("grid"), "flat_last": STANDARD}.get(x.layout.kind)
        if order is None:
            raise Inexpressible(f"{self.name} along the last axis of a feature map, which is not the channels")
        known = self.tokens.get(x.index)
        if known is None:
            known = self.tokens[x.index] = self.emit(ToTokens(), Ref(x.index)).index
            # They belong to the module that contains both the map and its reader.
            reader = self.primitives[known].frames
            source = self.primitives[x.index].frames if x.index >= 0 else reader[:1]
            shared = [one for one, other in zip(reader, source, strict=False) if one == other and not one.is_standard]
            self.primitives[known].frames = tuple(shared)
        return Ref(known, order)

    def transposed(self, x: Ref) -> Ref:
        """Tokens whose features are the first axis, as tokens of their own: one for each feature."""
        if x.layout.kind != "features_first":
            return x
        shape = self.shape(x)
        assert isinstance(shape, Tokens)
        grids = [one.shape.grid for one in self.primitives if isinstance(one.shape, Tokens) and one.shape.grid]
        fitting = [grid for grid in grids if shape.grid is None and grid[0] * grid[1] == shape.channels]
        op = TransposeTokens(grid=fitting[-1]) if fitting else TransposeTokens()
        return self.emit(op, Ref(x.index))

    def _distinct(self, operands: Sequence[Ref]) -> tuple[Ref, ...]:
        """Operands with copies of those that are there already: a spec has one edge between two nodes."""
        found: list[Ref] = []
        for operand in operands:
            known = any(operand.index == other.index for other in found)
            found.append(self.emit(Identity(), operand, layout=operand.layout) if known else operand)
        return tuple(found)

    @property
    def name(self) -> str:
        """The function that is converted, in quotes."""
        assert self.call is not None
        return f"'{self.call.function.removeprefix('class:').removeprefix('aten::')}'"

    def stored(self, value: Any, shape: tuple[int, ...] | None = None) -> Stored:
        """A tensor argument that the network stores.

        Args:
            shape: The shape in which the operation has it.
        """
        if not isinstance(value, TracedTensor) or not value.name:
            raise Inexpressible(f"{self.name} {_COMPUTED}")
        return Stored(value.name, value.sizes if shape is None else shape)

    def parameter(self, tensor: Any) -> Stored:
        """A tensor of a module that is known as a whole."""
        name = self.trace.names.get(id(tensor))
        if name is None:
            raise Inexpressible(f"{self.name} {_COMPUTED}")
        assert self.call is not None
        path = self.call.frames[-1].path
        self.consumed |= {own for own in self.buffers if own.startswith(f"{path}.")}
        return Stored(name, tuple(tensor.shape))

    def emit(self, op: Op, *operands: Ref, layout: AxisOrder = STANDARD, **stored: Stored | None) -> Ref:
        """Add one primitive call.

        Args:
            layout: That of the result.
            stored: Its tensors.
        """
        assert self.call is not None
        if len(operands) != len({operand.index for operand in operands}):
            operands = self._distinct(operands)
        shapes = [self.shape(operand) for operand in operands]
        given = {name: tensor for name, tensor in stored.items() if tensor is not None}
        shape = op.shape(*shapes)
        declared = {tensor.name: tensor.shape for tensor in op.tensors(*shapes)}
        for name, tensor in given.items():
            if name not in declared or declared[name] != tensor.shape:
                raise Inexpressible(f"{self.name}: '{tensor.name}' has the shape {list(tensor.shape)}")
        missing = [name for name in declared if name not in given and name != "num_batches_tracked"]
        if missing:
            raise Inexpressible(f"{self.name} without '{missing[0]}'")
        indices = tuple(operand.index for operand in operands)
        self.primitives.append(Primitive(op, indices, shape, given, self.call.frames, self.call.location))
        return Ref(len(self.primitives) - 1, layout)
