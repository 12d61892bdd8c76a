"""Padding of height and width."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops.base import (
    OPS,
    Apply,
    Arg,
    Op,
    Padding,
    SavedValues,
    Signature,
    pair,
    require_map,
)
from hiresnet_graph.shapes import Map, Shape

_PAD = Signature("input pad", mode="constant")
Sides = Padding | tuple[Padding, Padding] | tuple[Padding, Padding, Padding, Padding]


@OPS.register
class Pad(Op):
    """Rows and columns added around a feature map.

    Attributes:
        padding: One number for all sides, [rows, columns] for two sides each, or [top, bottom, left, right]:
            `[0, 1, 0, 1]` pads at the end alone.
        mode: Zeros, the mirror image (`reflect`), or copies of the border (`replicate`).
    """

    kind: ClassVar[str] = "pad"
    is_affine: ClassVar[bool] = True
    examples = ({"padding": [0, 1, 0, 1]}, {"padding": 2, "mode": "reflect"}, {"padding": [0, 3], "mode": "replicate"})
    channelwise: ClassVar[bool] = True
    padding: Annotated[Sides, Field(union_mode="smart")]
    mode: Literal["zeros", "reflect", "replicate"] = "zeros"

    @property
    def sides(self) -> tuple[int, int, int, int]:
        """Top, bottom, left and right."""
        if isinstance(self.padding, tuple) and len(self.padding) == 4:
            return self.padding
        rows, columns = pair(self.padding)
        return rows, rows, columns, columns

    def shape(self, *inputs: Shape) -> Map:
        """Height and width with the padding of both sides."""
        x = require_map("Padding", inputs[0])
        top, bottom, left, right = self.sides
        for size, most in ((x.height, max(top, bottom)), (x.width, max(left, right))):
            if self.mode == "reflect" and most >= size:
                raise ShapeError(
                    f"The mirror image of {x} is less than {most} wide.", f"Pad by at most {size - 1}, or with zeros."
                )
        return Map(x.channels, x.height + top + bottom, x.width + left + right)

    def saved(self, *inputs: Shape) -> SavedValues:
        """Nothing; the operand where border pixels are repeated."""
        return SavedValues() if self.mode == "zeros" else SavedValues(operands=(0,))

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.nn.functional.pad`."""
        top, bottom, left, right = self.sides
        kwargs = _PAD.kwargs(mode="constant" if self.mode == "zeros" else self.mode)
        return Apply("torch.nn.functional.pad", (Arg(0), (left, right, top, bottom)), kwargs, _PAD)
