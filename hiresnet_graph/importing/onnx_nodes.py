"""The nodes of an ONNX file, with those that exporters write for one layer joined again.

Exporters have no operation for a linear map of tokens, a group norm (before opset 21) or attention: they write several
nodes, and transpose weights. They also store equal tensors once, so that two norms seem to share their weights.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch

_LONGEST = 120
"""Characters of the name of a node, which is for messages alone."""
_SCOPES = "pkg.torch.onnx.name_scopes"
"""Key under which torch writes the addresses of the modules around a node."""
_TRANSPOSED, _FLAT = ".T", ".flat"
"""Endings of the names of tensors that the file has in another shape."""
_LINEAR = ("weight", "bias")
_PARAMETERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "Linear", "LayerNormalization", "GroupNorm"), _LINEAR),
    "BatchNormalization": ("weight", "bias", "running_mean", "running_var"),
    "WindowAttention": ("weight",),
}
"""Operation -> names of its tensors, which are its operands after the first."""
_FACTORS = ("Mul", "Div")
_GENERATED = re.compile(r"onnx::|/|_?\d+$|val_\d+|.*(lifted_tensor|tensor_constant|scalar_tensor)")
"""Names that exporters give to numbers of the code; parameters keep theirs."""
_NORMS = frozenset({"BatchNormalization", "GroupNorm", "LayerNormalization"})


@dataclass(eq=False, slots=True)
class OnnxNode:
    """One node.

    Attributes:
        op_type: Name of its operation; `Linear`, `GroupNorm`, `Attention`, `WindowAttention`, `Select` and `Restride`
            stand for several.
        layer: Address of the layer that it was in torch; empty if the file does not say.
    """

    op_type: str
    inputs: list[str]
    outputs: list[str] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    layer: str = ""


Joined = tuple[OnnxNode, tuple[OnnxNode, ...]]
"""A node, and those that it stands for, in order."""


def read_nodes(graph: Any) -> list[OnnxNode]:
    """The nodes of a graph of the package `onnx`, in order."""
    import onnx

    found = []
    for index, node in enumerate(graph.node):
        attributes = {one.name: _plain(onnx.helper.get_attribute_value(one)) for one in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            continue  # an array
        if node.op_type == "Split":
            attributes.setdefault("num_outputs", len(node.output))
        name = (node.name or str(index))[:_LONGEST]
        found.append(OnnxNode(node.op_type, list(node.input), list(node.output), attributes, name, _layer(node)))
    return found


def _plain(value: Any) -> Any:
    """A number as it was written, not as the float32 that the file stores."""
    return float(str(numpy.float32(value))) if isinstance(value, float) else value


def _layer(node: Any) -> str:
    text = next((one.value for one in node.metadata_props if one.key == _SCOPES), "")
    try:
        scopes = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return ""
    return str(scopes[-2]) if isinstance(scopes, list) and len(scopes) > 1 else ""


def numbers_of(graph: Any, arrays: Mapping[str, torch.Tensor]) -> frozenset[str]:
    """The arrays of one element that are numbers of the code: constants, and initial values without a name."""
    named = {tensor.name for tensor in graph.initializer if not _GENERATED.match(tensor.name)}
    return frozenset(name for name, value in arrays.items() if value.numel() == 1 and name not in named)


def weights_of(
    nodes: Iterable[OnnxNode], arrays: Mapping[str, torch.Tensor], numbers: Collection[str]
) -> dict[str, torch.Tensor]:
    """The arrays that are weights: of layers, of any size, other arrays of several elements, and named factors.

    Args:
        numbers: As `numbers_of` finds them.
    """
    used = {
        name
        for node in nodes
        for place, name in enumerate(node.inputs)
        if 0 < place <= len(_PARAMETERS.get(node.op_type, ())) or (node.op_type in _FACTORS and name not in numbers)
    }
    return {
        name: value
        for name, value in arrays.items()
        if value.is_floating_point() and (value.numel() > 1 or name in used)
    }


def joined(
    nodes: Iterable[OnnxNode],
    arrays: Mapping[str, torch.Tensor],
    outputs: Iterable[str],
    numbers: Collection[str] = frozenset(),
) -> tuple[list[OnnxNode], dict[str, torch.Tensor]]:
    """The nodes with those of one layer joined, and the arrays with one for each tensor of a layer.

    Args:
        arrays: Name -> value that the file stores.
        outputs: Values that the graph returns.
        numbers: As `numbers_of` finds them.
    """
    joining = _Joining(list(nodes), dict(arrays), set(outputs), numbers)
    for join in (joining.linear, joining.group_norm, joining.select, joining.attention, joining.restride):
        joining.each(join)
    _give_own_tensors(joining.nodes, joining.arrays, numbers)
    used = {name for node in joining.nodes for name in node.inputs}
    return joining.nodes, {name: array for name, array in joining.arrays.items() if name in used | joining.outputs}


class _Joining:
    """Replaces nodes by one that stands for them."""

    def __init__(
        self, nodes: list[OnnxNode], arrays: dict[str, torch.Tensor], outputs: set[str], numbers: Collection[str]
    ) -> None:
        self.nodes, self.arrays, self.outputs, self.numbers = nodes, arrays, outputs, numbers
        self.made: dict[str, OnnxNode] = {}
        self.readers: dict[str, list[OnnxNode]] = {}

    def each(self, join: Callable[[OnnxNode], Joined | None]) -> None:
        """Try to join at each node."""
        self.made = {name: node for node in self.nodes for name in node.outputs}
        self.readers = {}
        for node in self.nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)
        replaced: dict[int, OnnxNode | None] = {}
        for node in self.nodes:
            found = join(node)
            if found is not None:
                new, (*others, last) = found
                new.name, new.layer, new.outputs = last.name, node.layer, last.outputs
                replaced |= dict.fromkeys(map(id, others)) | {id(last): new}
        self.nodes = [one for node in self.nodes if (one := replaced.get(id(node), node)) is not None]

    def source(self, value: str, *kinds: str) -> OnnxNode | None:
        """The node that makes a value, if it is of these kinds and one other node alone reads it."""
        node = self.made.get(value)
        alone = len(self.readers.get(value, ())) == 1 and value not in self.outputs
        return node if node is not None and node.op_type in kinds and alone else None

    def reader(self, node: OnnxNode | None, kind: str) -> OnnxNode | None:
        """The node of this kind that alone reads the value of a node."""
        if node is None or self.source(node.outputs[0], node.op_type) is None:
            return None
        (found,) = self.readers[node.outputs[0]]
        return found if found.op_type == kind else None

    def stored(self, node: OnnxNode | None, size: int) -> str:
        """The stored operand of a node that has this many elements; empty if there is none."""
        names = () if node is None else node.inputs
        return next((name for name in names if name in self.arrays and self.arrays[name].numel() == size), "")

    def linear(self, node: OnnxNode) -> Joined | None:
        """A product with a stored matrix, and the sum with a stored vector after it."""
        weight = self.arrays.get(node.inputs[1]) if node.op_type == "MatMul" else None
        if weight is None or weight.dim() != 2:
            return None
        transposed = f"{node.inputs[1]}{_TRANSPOSED}"
        self.arrays[transposed] = weight.T.contiguous()
        after = self.reader(node, "Add")
        bias = self.stored(after, weight.shape[1])
        if after is None or not bias or self.arrays[bias].dim() != 1:
            return OnnxNode("Linear", [node.inputs[0], transposed]), (node,)
        return OnnxNode("Linear", [node.inputs[0], transposed, bias]), (node, after)

    def group_norm(self, node: OnnxNode) -> Joined | None:
        """A norm of groups as channels, between two changes of the shape, and a scale and a shift of channels."""
        if node.op_type != "InstanceNormalization":
            return None
        scale, shift = (self.arrays.get(name) for name in node.inputs[1:])
        before, after = self.source(node.inputs[0], "Reshape"), self.reader(node, "Reshape")
        times = self.reader(after, "Mul")
        plus = self.reader(times, "Add")
        if before is None or after is None or times is None or plus is None or scale is None or shift is None:
            return None
        names = [next((one for one in part.inputs if one in self.arrays), "") for part in (times, plus)]
        if not all(names) or not bool((scale == 1).all()) or bool(shift.any()):
            return None
        own = [f"{name}{_FLAT}" for name in names]
        self.arrays |= {new: self.arrays[name].flatten() for new, name in zip(own, names, strict=True)}
        attributes = {"num_groups": scale.numel(), "epsilon": node.attributes.get("epsilon", 1e-5)}
        joined_node = OnnxNode("GroupNorm", [before.inputs[0], *own], attributes=attributes)
        return joined_node, (before, node, after, times, plus)

    def select(self, node: OnnxNode) -> Joined | None:
        """One element along an axis, written as a slice of length one without that axis."""
        cut = self.source(node.inputs[0], "Slice") if node.op_type == "Squeeze" else None
        if cut is None or len(cut.inputs) != 4 or len(node.inputs) != 2:
            return None
        arrays = [self.arrays.get(name) for name in (*cut.inputs[1:], node.inputs[1])]
        numbers = [int(one) for one in arrays if one is not None and one.numel() == 1]
        if len(numbers) != 4 or numbers[1] != numbers[0] + 1 or numbers[2] != numbers[3]:
            return None
        return OnnxNode("Select", [cut.inputs[0]], attributes={"axis": numbers[2], "index": numbers[0]}), (cut, node)

    def attention(self, node: OnnxNode) -> Joined | None:
        """softmax(scale * Q K^T) V, with the keys transposed by three nodes or one."""
        product = self.source(node.inputs[0], "MatMul") if node.op_type == "Softmax" else None
        result = self.reader(node, "MatMul")
        if product is None or result is None or result.inputs[0] != node.outputs[0]:
            return None
        if node.attributes.get("axis", -1) not in (-1, 3):
            return None
        scale, members, operands = 1.0, [], []
        for value in product.inputs:
            times = self.source(value, "Mul")
            factor = self.stored(times, 1)
            if times is not None and factor in self.numbers:
                scale *= float(self.arrays[factor])
                members.append(times)
                value = next(name for name in times.inputs if name != factor)
            operands.append(value)
        key = self.transposed(operands[1])
        if not key:
            return None
        inputs = [operands[0], key[0].inputs[0], result.inputs[1]]
        return OnnxNode("Attention", inputs, attributes={"scale": scale}), (*members, *key, product, node, result)

    def transposed(self, value: str) -> tuple[OnnxNode, ...]:
        """The nodes that exchange the last two axes of a value; empty if its source does something else."""
        last = self.source(value, "Reshape", "Transpose")
        middle = self.source(last.inputs[0], "Transpose") if last is not None and last.op_type == "Reshape" else last
        if last is None or middle is None:
            return ()
        axes = list(middle.attributes["perm"])
        if axes[-2:] != [len(axes) - 1, len(axes) - 2]:
            return ()
        if middle is last:
            return (last,)
        first = self.source(middle.inputs[0], "Reshape")
        return () if first is None else (first, middle, last)

    def restride(self, node: OnnxNode) -> Joined | None:
        """All elements of a value by their index, which changes where they are stored and nothing else."""
        flat = self.source(node.inputs[0], "Reshape") if node.op_type == "Gather" else None
        size = self.arrays.get(flat.inputs[1]) if flat is not None else None
        if flat is None or size is None or size.tolist() != [-1]:
            return None
        return OnnxNode("Restride", [flat.inputs[0], node.inputs[1]]), (flat, node)


def _give_own_tensors(nodes: Iterable[OnnxNode], arrays: dict[str, torch.Tensor], numbers: Collection[str]) -> None:
    """Name tensors after their layers, where the file names these, and give each norm tensors of its own."""
    users = Counter(name for node in nodes for name in set(node.inputs))
    given: set[str] = set()
    for node in nodes:
        stored = [name for name in node.inputs[1:] if name in arrays]
        base = node.layer or _prefix(stored, users) or node.outputs[0]
        for place, slot in _slots(node, arrays, numbers):
            name = node.inputs[place]
            is_copy = users[name] > 1 and (node.op_type in _NORMS or users[stored[0]] == 1)
            is_computed = users[name] == 1 and name.endswith((_TRANSPOSED, _FLAT))
            if node.layer or is_copy or is_computed:
                own, number = f"{base}.{slot}", 1
                while own in arrays and not _is_same(own, name, arrays, given, bool(node.layer)):
                    number += 1
                    own = f"{base}_{number}.{slot}"
                arrays.setdefault(own, arrays[name].clone())
                node.inputs[place] = own
            given.add(node.inputs[place])


def _slots(node: OnnxNode, arrays: Mapping[str, torch.Tensor], numbers: Collection[str]) -> Iterator[tuple[int, str]]:
    """The stored operands of a layer: their place, and the name of the tensor."""
    if node.op_type in ("Add", "Mul") and node.layer:
        named = (*numbers, *(name for name in node.inputs if "." in name))
        slots = [(place, "weight") for place, name in enumerate(node.inputs) if name not in named]
    else:
        slots = list(enumerate(_PARAMETERS.get(node.op_type, ()), 1))
    for place, slot in slots:
        if place < len(node.inputs) and node.inputs[place] in arrays:
            yield place, slot


def _is_same(own: str, name: str, arrays: Mapping[str, torch.Tensor], given: Collection[str], has_layer: bool) -> bool:
    """Whether a name that is in use is that of this tensor: the same layer may be called twice."""
    return (has_layer or own not in given) and torch.equal(arrays[own], arrays[name])


def _prefix(names: Iterable[str], users: Mapping[str, int]) -> str:
    """What the names of the tensors of a layer begin with, those of other layers last; empty if nothing is known."""
    plain = [
        name.removesuffix(_TRANSPOSED).removesuffix(_FLAT) for name in sorted(names, key=lambda one: users[one] > 1)
    ]
    return next((name.rpartition(".")[0] for name in plain if "." in name), "")
