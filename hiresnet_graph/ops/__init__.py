"""The primitive operations: each defines a shape rule, a cost rule, its tensors, and its torch form as data.

An operation is registered by its module alone; the names below are those that other modules use.
"""

from hiresnet_graph.ops.activation import Activation, ReLU, Sigmoid
from hiresnet_graph.ops.attention import ClassToken, DotProductAttention, PositionEmbedding
from hiresnet_graph.ops.base import (
    OPS,
    Apply,
    Arg,
    ChainedApply,
    Count,
    Factor,
    Layer,
    Op,
    Padding,
    Pair,
    Remark,
    Signature,
    Tensor,
    Weight,
    pair,
    require_grid,
    require_map,
    require_tokens,
    size_label,
    stride_label,
)
from hiresnet_graph.ops.channels import ChannelScale, ChannelShuffle, PadChannels, SliceChannels
from hiresnet_graph.ops.combine import (
    Add,
    Concat,
    FixedScale,
    Fold,
    LearnedScale,
    Mean,
    Multiply,
)
from hiresnet_graph.ops.conv import Conv2d, ConvTranspose2d, Linear, transposed_geometry
from hiresnet_graph.ops.dropout import Dropout, RandomDrop, StochasticDepth
from hiresnet_graph.ops.norm import BatchNorm, ChannelLayerNorm, GroupNorm, LayerNorm, ScaleShift
from hiresnet_graph.ops.pool import AdaptiveAvgPool, AvgPool, Flatten, MaxPool, Resize, Subsample
from hiresnet_graph.ops.probe import EdgeProbe
from hiresnet_graph.ops.steps import Frame, Identity, StackSteps, Zeros
from hiresnet_graph.ops.tokens import (
    CopyPrefix,
    DropPrefix,
    FitGrid,
    MergePatches,
    PadPrefix,
    SelectToken,
    TokenMean,
    ToMap,
    ToTokens,
    TransposeTokens,
)
from hiresnet_graph.registry import import_modules

__all__ = [
    "OPS",
    "Activation",
    "AdaptiveAvgPool",
    "Add",
    "Apply",
    "Arg",
    "AvgPool",
    "BatchNorm",
    "ChainedApply",
    "ChannelLayerNorm",
    "ChannelScale",
    "ChannelShuffle",
    "ClassToken",
    "Concat",
    "Conv2d",
    "ConvTranspose2d",
    "CopyPrefix",
    "Count",
    "DotProductAttention",
    "DropPrefix",
    "Dropout",
    "EdgeProbe",
    "Factor",
    "FitGrid",
    "FixedScale",
    "Flatten",
    "Fold",
    "Frame",
    "GroupNorm",
    "Identity",
    "Layer",
    "LayerNorm",
    "LearnedScale",
    "Linear",
    "MaxPool",
    "Mean",
    "MergePatches",
    "Multiply",
    "Op",
    "PadChannels",
    "PadPrefix",
    "Padding",
    "Pair",
    "PositionEmbedding",
    "RandomDrop",
    "ReLU",
    "Remark",
    "Resize",
    "ScaleShift",
    "SelectToken",
    "Sigmoid",
    "Signature",
    "SliceChannels",
    "StackSteps",
    "StochasticDepth",
    "Subsample",
    "Tensor",
    "ToMap",
    "ToTokens",
    "TokenMean",
    "TransposeTokens",
    "Weight",
    "Zeros",
    "pair",
    "require_grid",
    "require_map",
    "require_tokens",
    "size_label",
    "stride_label",
    "transposed_geometry",
]

import_modules(__name__, __path__)
