"""The head of an image classifier, `classifier`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from hiresnet_graph.blocks.base import BLOCKS, Block
from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops import Count
from hiresnet_graph.shapes import Tokens
from hiresnet_graph.wire import NormName, Wire


@BLOCKS.register
class ClassifierBlock(Block):
    """Global average pooling of a feature map, and a linear map with bias to `classes` logits.

    Attributes:
        norm: A norm of the pooled values.
        dropout: Dropout probability before the linear map.
    """

    kind: ClassVar[str] = "classifier"
    examples = ({"classes": 5, "dropout": 0.1}, {"classes": 4, "norm": "layer2d"}, {"classes": 3})
    classes_field: ClassVar[str] = "classes"
    classes: Count
    norm: NormName = "none"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0

    def expand(self, x: Wire) -> Wire:
        """pool - (norm -) flatten - (dropout -) linear; a vector is not pooled."""
        if isinstance(x.shape, Tokens):
            raise ShapeError(
                f"'classifier' requires a feature map or a vector, not {x.shape.describe()}.", "Use 'token_head'."
            )
        if x.shape.spatial:
            x = x.adaptive_avg_pool(1, name="pool")
        x = x.norm(self.norm, name="norm")
        x = x.flatten() if x.shape.spatial else x
        return x.dropout(self.dropout).linear(self.classes)
