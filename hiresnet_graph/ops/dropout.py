"""Operations that drop a part of a value at random in training mode, and do nothing in evaluation mode."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

from pydantic import Field

from hiresnet_graph.ops.base import (
    OPS,
    Layer,
    Op,
    SavedValues,
    Signature,
    require_map,
)
from hiresnet_graph.shapes import Map, Shape

_DROPOUT = Signature("p")


class RandomDrop(Op):
    """Zeros in place of a random part of a value, and the rest divided by the probability to keep it.

    Attributes:
        p: Probability that a part is dropped.
    """

    is_affine: ClassVar[bool] = True
    pure: ClassVar[bool] = False
    random: ClassVar[bool] = True
    p: Annotated[float, Field(ge=0, lt=1)] = 0.5

    def shape(self, *inputs: Shape) -> Shape:
        """Same as the input."""
        return inputs[0]

    def drawn(self, shape: Shape) -> tuple[int, ...]:
        """Sizes of the random numbers of one sample, which are broadcast to its value."""
        return tuple(shape)

    def saved(self, *inputs: Shape) -> SavedValues:
        """The random numbers."""
        return SavedValues(elements=math.prod(self.drawn(inputs[0])))


@OPS.register
class Dropout(RandomDrop):
    """Dropout of single elements in training mode (Srivastava et al. 2014)."""

    kind: ClassVar[str] = "dropout"
    examples = ({"p": 0.3},)

    def layer(self, *inputs: Shape) -> Layer:
        """`torch.nn.Dropout`."""
        return Layer("torch.nn.Dropout", (self.p,), signature=_DROPOUT)


@OPS.register
class Dropout2d(RandomDrop):
    """Dropout of whole channels of a feature map in training mode (Tompson et al. 2015)."""

    kind: ClassVar[str] = "dropout2d"
    examples = ({"p": 0.3},)

    def shape(self, *inputs: Shape) -> Map:
        """Same as the input."""
        return require_map("2-d dropout", inputs[0])

    def drawn(self, shape: Shape) -> tuple[int, ...]:
        """One number for each channel."""
        return shape.channels, 1, 1

    def layer(self, *inputs: Shape) -> Layer:
        """`torch.nn.Dropout2d`."""
        return Layer("torch.nn.Dropout2d", (self.p,), signature=_DROPOUT)


@OPS.register
class StochasticDepth(RandomDrop):
    """Stochastic depth: in training mode, the value of a whole sample is dropped (Huang et al. 2016).

    It belongs on the branch of a residual block, before the sum. This is the mode `row` of torchvision's
    `StochasticDepth`, and timm's `DropPath`.
    """

    kind: ClassVar[str] = "drop_path"
    examples = ({"p": 0.2},)
    short_name: ClassVar[str] = "drop path"

    def drawn(self, shape: Shape) -> tuple[int, ...]:
        """One number."""
        return (1,) * len(shape)

    def layer(self, *inputs: Shape) -> Layer:
        """`hiresnet_graph.ops.layers.DropPath`."""
        return Layer("hiresnet_graph.ops.layers.DropPath", (self.p,), signature=_DROPOUT)
