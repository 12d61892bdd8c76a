"""The blocks of nodes. Every primitive operation is a block, too."""

from hiresnet_graph.blocks.base import BLOCKS, Block, PreactShortcut, Shortcut
from hiresnet_graph.blocks.classifier import ClassifierBlock
from hiresnet_graph.blocks.conv import ConvBlock, SeparableConvBlock
from hiresnet_graph.blocks.dense import DenseLayerBlock
from hiresnet_graph.blocks.mbconv import MBConvBlock, SqueezeExciteBlock
from hiresnet_graph.blocks.preact import PreactBasicBlock, PreactBottleneckBlock
from hiresnet_graph.blocks.residual import (
    BasicBlock,
    BottleneckBlock,
    PlainBlock,
    ResidualBlock,
    ResNeXtBlock,
    ResNeXtBottleneckBlock,
)
from hiresnet_graph.blocks.resolution import IdentityBlock, PoolBlock, UpsampleBlock
from hiresnet_graph.blocks.transition import BRC2Block, BRD2Block, StateBlock, TransitionBlock

__all__ = [
    "BLOCKS",
    "BRC2Block",
    "BRD2Block",
    "BasicBlock",
    "Block",
    "BottleneckBlock",
    "ClassifierBlock",
    "ConvBlock",
    "DenseLayerBlock",
    "IdentityBlock",
    "MBConvBlock",
    "PlainBlock",
    "PoolBlock",
    "PreactBasicBlock",
    "PreactBottleneckBlock",
    "PreactShortcut",
    "ResNeXtBlock",
    "ResNeXtBottleneckBlock",
    "ResidualBlock",
    "SeparableConvBlock",
    "Shortcut",
    "SqueezeExciteBlock",
    "StateBlock",
    "TransitionBlock",
    "UpsampleBlock",
]
