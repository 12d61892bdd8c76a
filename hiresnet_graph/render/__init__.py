"""Diagrams of networks: a plan becomes a scene, the scene gets a layout, and Graphviz draws it."""

from hiresnet_graph.render.dot import to_dot
from hiresnet_graph.render.draw import FORMATS, layout_engine, render, to_svg
from hiresnet_graph.render.layout.layout import Direction
from hiresnet_graph.render.scene.make import make_scene
from hiresnet_graph.render.scene.scene import Arrow, Box, Group, Level, Scene

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
