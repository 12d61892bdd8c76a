"""Selects the layout of a scene."""

from __future__ import annotations

from hiresnet_graph.render.layout.chain import chain_layout
from hiresnet_graph.render.layout.circuit import circuit_layout
from hiresnet_graph.render.layout.columns import is_chain
from hiresnet_graph.render.layout.grid import grid_layout
from hiresnet_graph.render.layout.layout import Direction, Layout
from hiresnet_graph.render.scene.scene import Scene


def make_layout(scene: Scene, direction: Direction = "LR", max_width: float | None = None) -> Layout:
    """The layout of a scene: as a grid of steps, as a chain with arcs if the flow of blocks is one, or as a circuit.

    Args:
        max_width: A wider layout is wrapped into rows, between stages, as a circuit; one with the direction `TB` or
            with steps is not.
    """
    if scene.unrolled:
        return grid_layout(scene, direction)
    if scene.level != "ops" and is_chain(scene):
        layout = chain_layout(scene, direction)
        if max_width is None or direction == "TB" or layout.page.width <= max_width:
            return layout
        wrapped = circuit_layout(scene, direction, max_width)
        return wrapped if wrapped.page.width < layout.page.width else layout
    return circuit_layout(scene, direction, None if direction == "TB" else max_width)
