"""Diagrams of networks: a plan becomes a scene, the scene gets places, and Graphviz paints it."""

from hiresnet_graph.render.dot import to_dot
from hiresnet_graph.render.draw import FORMATS, layout_engine, render, to_svg
from hiresnet_graph.render.geometry import Direction
from hiresnet_graph.render.scene import Arrow, Box, Group, Level, Scene, make_scene

__all__ = [
    "FORMATS",
    "Arrow",
    "Box",
    "Direction",
    "Group",
    "Level",
    "Scene",
    "layout_engine",
    "make_scene",
    "render",
    "to_dot",
    "to_svg",
]
