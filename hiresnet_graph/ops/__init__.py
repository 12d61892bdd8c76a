"""The primitive operations: each defines a shape rule, a cost rule, its tensors, and its torch form as data."""

from hiresnet_graph.ops.activation import (
    GELU,
    Activation,
    Dropout,
    Hardswish,
    LeakyReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Tanh,
)
from hiresnet_graph.ops.base import OPS, Apply, Arg, Count, Layer, Op, Padding, Pair, Tensor, Weight, pair
from hiresnet_graph.ops.combine import Add, Concat, Mean, Multiply, PadChannels, Scale, SliceChannels, ToMap
from hiresnet_graph.ops.conv import Conv2d, ConvTranspose2d, Linear
from hiresnet_graph.ops.norm import Affine, BatchNorm, GroupNorm, LayerNorm
from hiresnet_graph.ops.pool import AdaptiveAvgPool, AvgPool, Flatten, MaxPool, Resize, Subsample
from hiresnet_graph.ops.steps import Frame, Identity, Stack, Zeros

__all__ = [
    "GELU",
    "OPS",
    "Activation",
    "AdaptiveAvgPool",
    "Add",
    "Affine",
    "Apply",
    "Arg",
    "AvgPool",
    "BatchNorm",
    "Concat",
    "Conv2d",
    "ConvTranspose2d",
    "Count",
    "Dropout",
    "Flatten",
    "Frame",
    "GroupNorm",
    "Hardswish",
    "Identity",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "MaxPool",
    "Mean",
    "Multiply",
    "Op",
    "PadChannels",
    "Padding",
    "Pair",
    "ReLU",
    "ReLU6",
    "Resize",
    "Scale",
    "SiLU",
    "Sigmoid",
    "SliceChannels",
    "Stack",
    "Subsample",
    "Tanh",
    "Tensor",
    "ToMap",
    "Weight",
    "Zeros",
    "pair",
]
