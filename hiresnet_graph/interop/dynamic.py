"""Whether a network accepts feature maps of other heights and widths than those of its spec."""

from __future__ import annotations

from dataclasses import replace

from hiresnet_graph.errors import ShapeError, UsageError
from hiresnet_graph.plan import Plan
from hiresnet_graph.shapes import Map, Shape

_LARGEST_STEP = 64
_TRIED = ((1, 1), (2, 1), (1, 3), (4, 4), (5, 2))  # other sizes, in steps added to height and width


def size_step(plan: Plan) -> int:
    """The number of pixels by whose multiples height and width may be changed: the smallest that suits all calls.

    Raises:
        UsageError: A call contains the height and width of the spec, like a linear map of a flattened feature map.
    """
    sizes = {shape.spatial for shape in plan.inputs.values() if isinstance(shape, Map)}
    if not sizes:
        raise UsageError("the inputs of this network have no height and width that could be dynamic.")
    if len(sizes) > 1:
        raise UsageError("the inputs of this network differ in height and width; they can be dynamic only if equal.")
    (height, width), step, fault = sizes.pop(), 1, ""
    while step <= _LARGEST_STEP and height % step == width % step == 0:
        faults = [_fault(plan, height + step * rows, width + step * columns) for rows, columns in _TRIED]
        fault = next(filter(None, faults), "")
        if not fault:
            return step
        step *= 2
    raise UsageError(f"height and width cannot be dynamic: {fault}")


def _fault(plan: Plan, height: int, width: int) -> str:
    """The first call that does not accept this size of the inputs, or computes something else; empty without one."""
    shapes: dict[str, Shape] = {
        name: replace(shape, height=height, width=width) if isinstance(shape, Map) else shape
        for name, shape in plan.inputs.items()
    }
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
    return ""
