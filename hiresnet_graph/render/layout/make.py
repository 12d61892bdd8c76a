"""Selects the layout of a scene."""

from __future__ import annotations

from hiresnet_graph.render.layout.chain import chain_layout
from hiresnet_graph.render.layout.circuit import circuit_layout
from hiresnet_graph.render.layout.columns import is_chain
from hiresnet_graph.render.layout.grid import grid_layout
from hiresnet_graph.render.layout.layout import Direction, Layout
from hiresnet_graph.render.scene.scene import Scene


def make_layout(scene: Scene, direction: Direction = "LR") -> Layout:
    """The layout of a scene: as a grid of steps, as a chain with arcs if the flow of blocks is one, or as a circuit."""
    if scene.unrolled:
        return grid_layout(scene, direction)
    if scene.level != "ops" and is_chain(scene):
        return chain_layout(scene, direction)
    return circuit_layout(scene, direction)
