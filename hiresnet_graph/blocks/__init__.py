"""The blocks of nodes, one module for each group; every primitive operation is a block, too."""

from hiresnet_graph.blocks.base import BLOCKS, Block, PreactShortcut, Shortcut
from hiresnet_graph.blocks.residual import ResidualBlock
from hiresnet_graph.registry import import_modules

__all__ = ["BLOCKS", "Block", "PreactShortcut", "ResidualBlock", "Shortcut"]

import_modules(__name__, __path__)
