"""Operations on several values, and factors: the parts of merges and edges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops.base import (
    OPS,
    Apply,
    Arg,
    ChainedApply,
    Factor,
    Layer,
    Op,
    SavedValues,
    Saves,
    Signature,
    Tensor,
    constant_tensor,
)
from hiresnet_graph.shapes import Shape

if TYPE_CHECKING:
    import torch

_SCALE = Signature("", init=1.0, sigmoid=False)


def _unequal(one: Shape, two: Shape) -> str:
    """Two shapes in a message, with their grids if the sizes are equal."""
    return f"{one} and {two}" if str(one) != str(two) else f"{one.describe()} and {two.describe()}"


class Fold(Op):
    """Inputs combined from the first to the last, so that any of them can be left out.

    Class attributes:
        function: Path of the function that combines two values.
        averages: The result is divided by the number of inputs.
        skips_zeros: An input of zeros changes nothing.
        noun: Name of the result in messages.
    """

    arity: ClassVar[int | None] = None
    function: ClassVar[str] = "operator.add"
    averages: ClassVar[bool] = False
    skips_zeros: ClassVar[bool] = False
    noun: ClassVar[str] = ""

    def shape(self, *inputs: Shape) -> Shape:
        """The common shape."""
        for shape in inputs[1:]:
            if shape != inputs[0]:
                raise ShapeError(f"{self.noun} requires equal shapes, not {_unequal(inputs[0], shape)}.")
        return inputs[0]

    def apply(self, *inputs: Shape) -> Apply:
        """`a + b + ...`, or the same with another function."""
        args = tuple(map(Arg, range(len(inputs))))
        result = ChainedApply(self.function, args) if len(args) > 1 else args[0]
        if self.averages:
            return Apply("operator.truediv", (result, len(args)))
        return result if isinstance(result, Apply) else Apply("operator.pos", (result,))


@OPS.register
class Add(Fold):
    """The sum, from the first input to the last."""

    kind: ClassVar[str] = "add"
    keeps_precision: ClassVar[bool] = True
    shares_gradient: ClassVar[bool] = True
    saves: ClassVar[Saves] = "nothing"
    is_affine: ClassVar[bool] = True
    overwritable: ClassVar[bool] = True
    skips_zeros: ClassVar[bool] = True
    noun: ClassVar[str] = "A sum"


@OPS.register
class Mean(Fold):
    """The mean: the sum of the inputs divided by their number."""

    kind: ClassVar[str] = "mean"
    keeps_precision: ClassVar[bool] = True
    saves: ClassVar[Saves] = "nothing"
    is_affine: ClassVar[bool] = True
    averages: ClassVar[bool] = True
    noun: ClassVar[str] = "A mean"


@OPS.register
class Multiply(Fold):
    """The product. A factor with 1 channel, or of 1x1 size, is broadcast."""

    kind: ClassVar[str] = "multiply"
    keeps_precision: ClassVar[bool] = True
    function: ClassVar[str] = "operator.mul"

    def shape(self, *inputs: Shape) -> Shape:
        """Same as the first input, to which all others can be broadcast."""
        first = inputs[0]
        for shape in inputs[1:]:
            if not shape.broadcasts_to(first):
                raise ShapeError(f"A product requires factors of {first}, with 1 channel or of 1x1 size, not {shape}.")
        return first

    def saved(self, *inputs: Shape) -> SavedValues:
        """All factors, and the products between them; a single one is passed on."""
        if len(inputs) == 1:
            return SavedValues()
        return SavedValues(tuple(range(len(inputs))), elements=inputs[0].elements * (len(inputs) - 2))


@OPS.register
class Concat(Op):
    """Concatenation along the channels."""

    kind: ClassVar[str] = "concat"
    keeps_precision: ClassVar[bool] = True
    saves: ClassVar[Saves] = "nothing"
    shares_gradient: ClassVar[bool] = True
    is_affine: ClassVar[bool] = True
    arity: ClassVar[int | None] = None

    def shape(self, *inputs: Shape) -> Shape:
        """Channels add up; height and width are equal."""
        first = inputs[0]
        for shape in inputs[1:]:
            if shape.with_channels(first.channels) != first:
                sizes = "height and width" if first.spatial else "shapes"
                raise ShapeError(f"A concatenation requires equal {sizes}, not {_unequal(first, shape)}.")
        return first.with_channels(sum(shape.channels for shape in inputs))

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.cat` along the feature axis."""
        return Apply("torch.cat", ([Arg(index) for index in range(len(inputs))],), {"dim": 1 + inputs[0].feature_axis})


@OPS.register
class LearnedScale(Op):
    """A learned scalar factor: w x, or sigmoid(w) x.

    Attributes:
        sigmoid: Whether the factor is sigmoid(w): a gate.
        init: Initial value of w (default 1; 0 with `sigmoid`).
    """

    kind: ClassVar[str] = "scale"
    parameter_group: ClassVar[str] = "scales"
    is_affine: ClassVar[bool] = True
    maps_channels: ClassVar[bool] = True
    examples = ({"sigmoid": True}, {"init": -2.5, "sigmoid": True}, {"init": 0.25}, {})
    sigmoid: bool = False
    init: Factor | None = None

    @property
    def start(self) -> float:
        """Initial value of w."""
        return (0.0 if self.sigmoid else 1.0) if self.init is None else self.init

    def shape(self, *inputs: Shape) -> Shape:
        """Same as the input."""
        return inputs[0]

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """One number."""
        return (constant_tensor("weight", (), self.start),)

    def channel_map(self, tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, float]:
        """The factor, without a shift."""
        weight = tensors["weight"]
        return (weight.sigmoid() if self.sigmoid else weight), 0.0

    def layer(self, *inputs: Shape) -> Layer:
        """`hiresnet_graph.ops.layers.Scale`."""
        kwargs = _SCALE.kwargs(init=self.start, sigmoid=self.sigmoid)
        return Layer("hiresnet_graph.ops.layers.Scale", (), kwargs, _SCALE)

    def label(self, *, brief: bool = False) -> str:
        """`scale` or `gate`, and an initial value that is not the default."""
        return ("gate" if self.sigmoid else "scale") + ("" if self.init is None else f" from {self.init:g}")


@OPS.register
class FixedScale(Op):
    """A constant factor: `factor` times the input.

    Attributes:
        factor: The constant.
    """

    kind: ClassVar[str] = "fixed_scale"
    keeps_precision: ClassVar[bool] = True
    saves: ClassVar[Saves] = "nothing"
    is_affine: ClassVar[bool] = True
    maps_channels: ClassVar[bool] = True
    examples = ({"factor": -0.5}, {"factor": 0})
    channelwise: ClassVar[bool] = True
    overwritable: ClassVar[bool] = True
    factor: Factor

    def shape(self, *inputs: Shape) -> Shape:
        """Same as the input."""
        return inputs[0]

    def channel_map(self, tensors: Mapping[str, torch.Tensor]) -> tuple[float, float]:
        """The factor, without a shift."""
        return self.factor, 0.0

    def apply(self, *inputs: Shape) -> Apply:
        """`x * factor`."""
        return Apply("operator.mul", (Arg(0), self.factor))

    def label(self, *, brief: bool = False) -> str:
        """`scale 0.5`."""
        return f"scale {self.factor:g}"


def format_scale(scale: LearnedScale | FixedScale | None) -> str:
    """The factor of an edge, like `learned`, `gate from -2` (its initial value) or `0.5`; empty for none."""
    if scale is None or isinstance(scale, FixedScale):
        return "" if scale is None else f"{scale.factor:g}"
    return ("gate" if scale.sigmoid else "learned") + ("" if scale.init is None else f" from {scale.init:g}")
