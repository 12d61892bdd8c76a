"""Diagrams of networks: a plan becomes a scene, the scene gets a layout, both make a picture, and writers a file."""

from hiresnet_graph.render.draw import FORMATS, render, render_difference, render_sheet, to_graphviz, to_svg
from hiresnet_graph.render.layout.layout import Direction
from hiresnet_graph.render.options import RenderOptions
from hiresnet_graph.render.picture.theme import ThemeName
from hiresnet_graph.render.scene.make import make_scene
from hiresnet_graph.render.scene.scene import Arrow, Box, Group, Level, Scene

__all__ = [
    "FORMATS",
    "Arrow",
    "Box",
    "Direction",
    "Group",
    "Level",
    "RenderOptions",
    "Scene",
    "ThemeName",
    "make_scene",
    "render",
    "render_difference",
    "render_sheet",
    "to_graphviz",
    "to_svg",
]
