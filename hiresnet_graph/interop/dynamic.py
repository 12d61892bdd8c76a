"""Whether a network accepts feature maps of other heights and widths than those of its spec, and which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from hiresnet_graph.errors import ShapeError, UsageError
from hiresnet_graph.ops.pool import AdaptiveAvgPool
from hiresnet_graph.plan import Call, Plan
from hiresnet_graph.shapes import Map, Shape

_LARGEST_STEP = 64
_TRIED = ((1, 1), (2, 1), (1, 3), (4, 4), (5, 2), (64, 192), (333, 77))  # sizes, in steps added to height and width
_Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class SizeRange:
    """The heights and widths of the inputs that suit all calls of a network.

    Attributes:
        step: Height and width are multiples of this number of pixels.
        smallest: The smallest height and the smallest width at which every feature map whose size follows that of the
            input keeps two pixels or more: programs are compiled for one pixel, or for more.
        example: A height and a width in this range, those of the spec if they are.
    """

    step: int
    smallest: _Size
    example: _Size

    def describe(self) -> str:
        """The range as a sentence for users; empty if any size of two pixels or more is in it."""
        parts = [f"multiples of {self.step}"] if self.step > 1 else []
        height, width = self.smallest
        if height != width:
            parts.append(f"at least {height} and {width}")
        elif height > max(self.step, 2):
            parts.append(f"at least {height}")
        return f"Height and width of the inputs must be {', '.join(parts)}." if parts else ""


def size_range(plan: Plan, *, onnx: bool = False) -> SizeRange:
    """The range of height and width of a network, with the smallest step that suits all calls.

    Args:
        onnx: The network becomes an ONNX file, in which pooling to several pixels keeps the windows of one size.

    Raises:
        UsageError: A call contains the height and width of the spec, like a linear map of a flattened feature map.
    """
    sizes = {(shape.height, shape.width) for shape in plan.inputs.values() if isinstance(shape, Map)}
    if not sizes:
        raise UsageError("the inputs of this network have no height and width that could be dynamic. Omit 'dynamic'.")
    if len(sizes) > 1:
        raise UsageError(
            "the inputs of this network differ in height and width; they can be dynamic only if equal. Omit 'dynamic'."
        )
    (height, width), step, fault = sizes.pop(), 1, ""
    while step <= _LARGEST_STEP and height % step == width % step == 0:
        faults = [_fault(plan, (height + step * rows, width + step * columns), onnx) for rows, columns in _TRIED]
        fault = next(filter(None, faults), "")
        if not fault:
            return _range(plan, step, (height, width))
        step *= 2
    raise UsageError(f"height and width cannot be dynamic: {fault} Omit 'dynamic' to export for the size of the spec.")


def _range(plan: Plan, step: int, example: _Size) -> SizeRange:
    """The range of this step: from the smallest multiples at which no size that varies is one pixel."""
    large = _shapes(plan, (example[0] + 64 * step, example[1] + 64 * step))

    def is_above_one(size: _Size) -> bool:
        try:
            found = _shapes(plan, size)
        except ShapeError:
            return False
        return all(
            own > 1 or own == full
            for name, shape in found.items()
            for own, full in zip(shape, large[name], strict=True)
        )

    while not is_above_one(example):
        example = (2 * example[0], 2 * example[1])
    height, width = example
    rows = _first(height // step, lambda count: is_above_one((step * count, width)))
    columns = _first(width // step, lambda count: is_above_one((height, step * count)))
    return SizeRange(step, (step * rows, step * columns), example)


def _first(last: int, holds: Callable[[int], bool]) -> int:
    """The first number from which on a condition holds, which does at `last`; by bisection."""
    first = 1
    while first < last:
        middle = (first + last) // 2
        first, last = (first, middle) if holds(middle) else (middle + 1, last)
    return last


def _inputs(plan: Plan, size: _Size) -> dict[str, Shape]:
    return {
        name: replace(shape, height=size[0], width=size[1]) if isinstance(shape, Map) else shape
        for name, shape in plan.inputs.items()
    }


def _shapes(plan: Plan, size: _Size) -> Mapping[str, Shape]:
    """The shapes of all values at this size of the inputs."""
    shapes = _inputs(plan, size)
    for call in plan.calls:
        shapes[call.name] = call.op.shape(*(shapes[name] for name in call.inputs))
    return shapes


def _fault(plan: Plan, size: _Size, onnx: bool) -> str:
    """The first call that does not accept this size of the inputs, or computes something else; empty without one."""
    shapes = _inputs(plan, size)
    for call in plan.calls:
        inputs = tuple(shapes[name] for name in call.inputs)
        try:
            shapes[call.name] = call.op.shape(*inputs)
        except ShapeError as error:
            return f"'{call.name}' does not fit another size: {error.message}"
        is_same = (call.op.layer(*inputs), call.op.apply(*inputs), call.op.tensors(*inputs)) == (
            call.op.layer(*call.input_shapes),
            call.op.apply(*call.input_shapes),
            call.tensors,
        )
        if not is_same:
            return f"'{call.name}' ({call.op.label()}) is made for {(*call.input_shapes, call.shape)[0].describe()}."
        if onnx and inputs != call.input_shapes and _keeps_windows(call):
            return (
                f"an ONNX file keeps the windows of '{call.name}' ({call.op.label()}) for "
                f"{call.input_shapes[0].describe()}. Write a .pt2 file, or pool to one pixel."
            )
    return ""


def _keeps_windows(call: Call) -> bool:
    """Whether torch writes the windows of a call into ONNX as constants, computed from the size of the example."""
    return isinstance(call.op, AdaptiveAvgPool) and call.op.size != 1
