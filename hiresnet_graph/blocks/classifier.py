"""The head of an image classifier, `classifier`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from hiresnet_graph.blocks.base import BLOCKS, Block
from hiresnet_graph.ops import Count
from hiresnet_graph.wire import Wire


@BLOCKS.register
class ClassifierBlock(Block):
    """Global average pooling of a feature map, optional dropout, and a linear map with bias to `classes` logits."""

    kind: ClassVar[str] = "classifier"
    examples = ({"classes": 5, "dropout": 0.1}, {"classes": 3})
    classes_field: ClassVar[str] = "classes"
    classes: Count
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0

    def expand(self, x: Wire) -> Wire:
        """pool - flatten - (dropout -) linear; a vector is not pooled."""
        if x.shape.spatial:
            x = x.adaptive_avg_pool(1, name="pool").flatten()
        return x.dropout(self.dropout).linear(self.classes)
