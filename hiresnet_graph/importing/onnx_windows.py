"""Attention in windows in ONNX files, which write it as some forty nodes, as one node.

The nodes are recognised by what they compute, not by their order. Indices in place of features pass through those that
move features, and show where each number comes from. Biases and the mask are constants: the table of offsets is read
from them, and what follows from it must be equal to all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy
import torch
from torch.overrides import handle_torch_function, has_torch_function

from hiresnet_graph.errors import ShapeError, UnsupportedNetwork
from hiresnet_graph.importing.onnx_nodes import OnnxNode
from hiresnet_graph.ops import DotProductAttention
from hiresnet_graph.ops.layers import shift_mask, window_attention, window_bias
from hiresnet_graph.shapes import Tokens

_TOLERANCE = 1e-5
"""Relative difference of the scale, whose square root exporters round."""
_MOVES = frozenset(
    {"Concat", "Flatten", "Gather", "Identity", "Reshape", "Shape", "Slice", "Split", "Squeeze", "Transpose"}
    | {"Unsqueeze"}
)
"""Operations that move numbers and compute nothing."""
_OF_CONSTANTS: dict[str, Callable[..., torch.Tensor]] = {
    "Cast": lambda a, x: x.to({1: torch.float32, 7: torch.int64, 9: torch.bool, 11: torch.float64}[a["to"]]),
    "Equal": lambda a, x, y: x == y,
    "Expand": lambda a, x, sizes: x.expand(numpy.broadcast_shapes(tuple(x.shape), tuple(sizes.tolist()))),
    "GreaterOrEqual": lambda a, x, y: x >= y,
    "Not": lambda a, x: ~x,
}
"""Operations that are known for constants alone."""
Compute = Callable[[OnnxNode, Sequence[Any]], Any]


class WindowLayout(NamedTuple):
    """How tokens are arranged in windows and heads.

    Attributes:
        grid, window, shift: Rows and columns.
        width: Features of one head.
    """

    heads: int
    grid: tuple[int, int]
    window: tuple[int, int]
    shift: tuple[int, int]
    width: int

    @property
    def sizes(self) -> tuple[int, int]:
        """Number of tokens and of their features."""
        return self.grid[0] * self.grid[1], self.heads * self.width

    @property
    def windows(self) -> int:
        """Number of windows."""
        return self.sizes[0] // (self.window[0] * self.window[1])

    def split(self, x_BLC: torch.Tensor, parts: int) -> torch.Tensor:
        """Parts of the features [B, tokens, parts * C] by windows and heads: [parts, B, windows * heads, N, width]."""
        (height, width), (rows, columns) = self.grid, self.window
        x = x_BLC.reshape(-1, height, width, x_BLC.shape[-1]).roll((-self.shift[0], -self.shift[1]), (1, 2))
        x = x.reshape(-1, height // rows, rows, width // columns, columns, parts, self.heads, self.width)
        x = x.permute(5, 0, 1, 3, 6, 2, 4, 7)
        return x.reshape(parts, -1, self.windows * self.heads, rows * columns, self.width)

    def is_expressible(self) -> bool:
        """Whether the operation with one number as its shift has these windows."""
        length, channels = self.sizes
        op = DotProductAttention(heads=self.heads, window=self.window, shift=max(self.shift))
        try:
            return op.windows(Tokens(length, 3 * channels, self.grid)) == (self.grid, self.window, self.shift)
        except ShapeError:
            return False


def relative_window_attention(
    qkv: torch.Tensor,
    offsets: torch.Tensor,
    heads: int,
    grid: tuple[int, int],
    window: tuple[int, int],
    shift: tuple[int, int],
) -> torch.Tensor:
    """Attention in windows [B, tokens, 3 * channels] with biases [offsets, heads], as one call for a recorder."""
    tensors = (qkv, offsets)
    if has_torch_function(tensors):
        found: torch.Tensor = handle_torch_function(
            relative_window_attention, tensors, *tensors, heads, grid, window, shift
        )
        return found
    return window_attention(qkv, heads, grid, window, shift, window_bias(offsets, window))


def with_windows(
    nodes: Sequence[OnnxNode],
    arrays: Mapping[str, torch.Tensor],
    outputs: Collection[str],
    batch: int,
    compute: Compute,
) -> tuple[list[OnnxNode], dict[str, torch.Tensor]]:
    """The nodes with one `WindowAttention` for those of each attention in windows, and the arrays with its offsets.

    Args:
        arrays: Name -> value that the file stores.
        outputs: Values that the graph returns.
        batch: A number of samples that the nodes accept.
        compute: Result of a node for these operands.
    """
    search = _Search(list(nodes), dict(arrays), batch, compute)
    for node in nodes:
        if node.op_type == "Softmax":
            search.replace(node)
    return search.needed(outputs), search.arrays


class _Search:
    def __init__(self, nodes: list[OnnxNode], arrays: dict[str, torch.Tensor], batch: int, compute: Compute) -> None:
        self.nodes, self.arrays, self.batch, self.compute = nodes, arrays, batch, compute
        self.made = {name: node for node in nodes for name in node.outputs}
        self.constants: dict[str, Any] = {"": None, **arrays}
        self.constant_names = set(self.constants)
        for node in nodes:
            if self.constant_names.issuperset(node.inputs):
                self.constant_names.update(node.outputs)
        self.new: dict[str, OnnxNode] = {}

    def replace(self, softmax: OnnxNode) -> None:
        """Add the node for the attention around a softmax, if it is one in windows."""
        add = self.made.get(softmax.inputs[0])
        result = next((one for one in self.nodes if one.inputs[:1] == softmax.outputs), None)
        if softmax.attributes.get("axis") not in (-1, 3) or add is None or add.op_type != "Add":
            return
        if result is None or result.op_type != "MatMul":
            return
        pairs = [(self.made.get(one), other) for one, other in (add.inputs, reversed(add.inputs))]
        product, bias = next((pair for pair in pairs if pair[1] in self.constant_names), (None, ""))
        if product is None or product.op_type != "MatMul":
            return
        try:
            self._replace(softmax, product, self.constant(bias), result)
        except (UnsupportedNetwork, RuntimeError, OverflowError):
            return  # some node cannot be computed, or has absurd sizes: the import reports what is left

    def _replace(self, softmax: OnnxNode, product: OnnxNode, bias: torch.Tensor, result: OnnxNode) -> None:
        (query, first), (key, second) = map(self.unscaled, product.inputs)
        operands = (query, key, result.inputs[1])
        scale = first * second
        width = round(scale**-2) if 0 < scale <= 1 else 0
        layout, source = self.layout(operands, width)
        if layout is None or abs(scale * width**0.5 - 1) > _TOLERANCE:
            return
        offsets = table_of(bias, layout)
        output = self.output(result, layout)
        if offsets is None or output is None:
            return
        table = f"{output}.weight"
        self.arrays[table] = offsets
        attributes = {"layout": layout}
        name = self.made[output].name
        self.new[output] = OnnxNode("WindowAttention", [source, table], [output], attributes, name, softmax.layer)

    def constant(self, name: str) -> Any:
        """A value that does not depend on the input."""
        if name not in self.constants:
            node = self.made[name]
            self._compute(node, [self.constant(one) for one in node.inputs], self.constants)
        return self.constants[name]

    def _compute(self, node: OnnxNode, operands: Sequence[Any], values: dict[str, Any]) -> None:
        """Add the results of a node."""
        own = _OF_CONSTANTS.get(node.op_type)
        try:
            result = self.compute(node, operands) if own is None else own(node.attributes, *operands)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise UnsupportedNetwork(f"'{node.op_type}' of a constant.") from error
        values |= zip(node.outputs, result if isinstance(result, tuple) else (result,), strict=False)

    def unscaled(self, name: str) -> tuple[str, float]:
        """What was multiplied by a number, and the number."""
        node = self.made.get(name)
        if node is not None and node.op_type == "Mul":
            for value, factor in (node.inputs, reversed(node.inputs)):
                if factor in self.constant_names and self.constant(factor).numel() == 1:
                    return value, float(self.constant(factor))
        return name, 1.0

    def layout(self, operands: Sequence[str], width: int) -> tuple[WindowLayout | None, str]:
        """The layout of queries, transposed keys, and values, and the value that they are parts of.

        Args:
            width: Features of a head.
        """
        source, found = self._source(operands, width)
        if found is None:
            return None, ""
        length, channels = found.sizes
        indices = torch.arange(self.batch * length * 3 * channels).view(self.batch, length, 3 * channels)
        values = self.moved(source, indices)
        if any(name not in values or values[name].numel() != indices.numel() // 3 for name in operands):
            return None, ""
        query, key, value = (values[name] for name in operands)
        # The first window begins with the token to which the shift leads.
        found = found._replace(shift=divmod(int(query.flatten()[0]) // (3 * channels), found.grid[1]))
        queries, keys, features = found.split(indices, 3)
        is_same = torch.equal(query, queries) and torch.equal(key, keys.mT) and torch.equal(value, features)
        return (found, source) if is_same and found.is_expressible() else (None, "")

    def _source(self, operands: Sequence[str], width: int) -> tuple[str, WindowLayout | None]:
        """The value from which all operands are moved, and the layout that a reshape on the way shows, if there are."""
        sources: set[str] = set()
        found = None
        seen: set[str] = set()
        stack = list(operands)
        while stack:
            name = stack.pop()
            node = self.made.get(name)
            if name in seen or name in self.constant_names:
                continue
            seen.add(name)
            if node is None or node.op_type not in _MOVES:
                sources.add(name)
                continue
            stack += node.inputs
            if node.op_type == "Reshape" and node.inputs[1] in self.constant_names:
                found = _layout_of(self.constant(node.inputs[1]).tolist(), width) or found
        return (sources.pop(), found) if len(sources) == 1 else ("", None)

    def output(self, result: OnnxNode, layout: WindowLayout) -> str | None:
        """The value with the results as tokens again."""
        length, channels = layout.sizes
        sizes = (self.batch, layout.windows * layout.heads, layout.window[0] * layout.window[1], layout.width)
        indices = torch.arange(self.batch * length * channels).view(sizes)
        for name, value in self.moved(result.outputs[0], indices).items():
            is_alone = value.shape == (self.batch, length, channels) and self.made[name].outputs == [name]
            if is_alone and torch.equal(layout.split(value, 1)[0], indices):
                return name
        return None

    def moved(self, name: str, indices: torch.Tensor) -> dict[str, torch.Tensor]:
        """Indices in place of a value, and in place of those that nodes make by moving its numbers."""
        values: dict[str, Any] = {name: indices}
        for node in self.nodes:
            is_move = node.op_type in _MOVES and not values.keys().isdisjoint(node.inputs)
            if is_move and all(one in values or one in self.constant_names for one in node.inputs):
                operands = [values[one] if one in values else self.constant(one) for one in node.inputs]
                self._compute(node, operands, values)
        return {one: value for one, value in values.items() if value.dtype == torch.int64}

    def needed(self, outputs: Collection[str]) -> list[OnnxNode]:
        """The nodes, without those of which only nodes that were replaced have read the results."""
        read = {name for node in self.nodes for name in node.inputs} | set(outputs)
        idle = {id(node) for node in self.nodes if read.isdisjoint(node.outputs)}  # in the file, too
        needed, found = set(outputs), []
        for node in reversed(self.nodes):
            if id(node) in idle or not needed.isdisjoint(node.outputs):
                kept = next((self.new[name] for name in node.outputs if name in self.new), node)
                needed.update(kept.inputs)
                found.append(kept)
        return found[::-1]


def _layout_of(sizes: Sequence[int], width: int) -> WindowLayout | None:
    """The layout whose windows and heads become axes of their own by these sizes of a reshape."""
    if len(sizes) != 8 or sizes[5] != 3 or sizes[7] not in (width, -1):
        return None
    _, down, rows, across, columns, _, heads, _ = sizes
    if min(down, rows, across, columns, heads, width) < 1:
        return None
    return WindowLayout(heads, (down * rows, across * columns), (rows, columns), (0, 0), width)


def table_of(bias: torch.Tensor, layout: WindowLayout) -> torch.Tensor | None:
    """The biases [offsets, heads] from which those of all pairs of tokens, with the mask, follow; None if from none."""
    rows, columns = layout.window
    count, pairs = (2 * rows - 1) * (2 * columns - 1), rows * columns
    sizes = (1, layout.windows * layout.heads, pairs, pairs)
    if not bias.is_floating_point() or count * layout.heads == 1:
        return None
    try:
        given = bias.expand(sizes).reshape(layout.windows, layout.heads, pairs, pairs)
    except RuntimeError:  # of another shape
        return None
    offsets = window_bias(torch.arange(count)[:, None], layout.window).flatten()
    table = given.new_zeros(count, layout.heads)
    table[offsets] = given[0].flatten(1).T  # no token of the first window comes from another border
    expected = window_bias(table, layout.window)
    if any(layout.shift):
        expected = shift_mask(given, layout.grid, layout.window, layout.shift) + expected
    return table if torch.equal(expected.expand_as(given), given) else None
