"""Which layout a scene gets."""

from __future__ import annotations

from hiresnet_graph.render.chain import place_chain
from hiresnet_graph.render.circuit import place_calls
from hiresnet_graph.render.geometry import Direction, Places
from hiresnet_graph.render.grid import place_steps
from hiresnet_graph.render.scene import Scene


def place(scene: Scene, direction: Direction = "LR") -> Places | None:
    """Places for everything in a scene, or None if they are Graphviz's business: blocks whose flow branches."""
    if scene.unrolled:
        return place_steps(scene, direction)
    return place_calls(scene, direction) if scene.level == "ops" else place_chain(scene, direction)
