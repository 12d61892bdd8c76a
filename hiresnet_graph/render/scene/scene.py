"""The content of a diagram without positions: boxes, groups of boxes, arrows, a caption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hiresnet_graph.graph import Family
from hiresnet_graph.shapes import Shape

Level = Literal["stages", "blocks", "ops"]
Role = Literal["input", "block", "stage", "fold", "op", "zeros"]
Change = Literal["", "added", "removed", "changed"]
"""What a second network does to a part of a first one."""
Factor = Literal["", "gate", "scale"]
Heading = Literal["forward", "lateral", "feedback", "silent"]

HUES = ("blue", "orange dashed", "green dotted", "pink dash-dotted", "amber long-dashed", "light blue dash-dot-dotted")
"""The colours and dashes of skips: those of hue 1, 2, ...; hue 7 is blue again."""


@dataclass(frozen=True, slots=True)
class Box:
    """A node, a stage, or a primitive call.

    Attributes:
        name: Unique in the scene; folded blocks have a name like `stage1.block3...block17`.
        title, lines, notes: The text: bold, plain, and small.
        group: Name of the group that contains it, or empty.
        members: The nodes or calls that it stands for.
        role: `zeros` is a node at a step to which nothing has come from the input yet.
        output: Whether its value is an output of the network.
    """

    name: str
    title: str
    lines: tuple[str, ...]
    notes: tuple[str, ...]
    role: Role
    group: str
    members: tuple[str, ...]
    shape: Shape
    output: bool
    tooltip: str
    change: Change = ""


@dataclass(frozen=True, slots=True)
class Group:
    """A frame around boxes: a stage, a time step, or the operations of one node or edge.

    `family` is that of the edge.
    """

    name: str
    title: str
    note: str
    family: Family | None = None


@dataclass(frozen=True, slots=True)
class Arrow:
    """A connection of two boxes.

    Attributes:
        name: Unique in the scene.
        label: The operations of the edge, in a few words.
        source_group, target_group: The group where it starts or ends, if the spec names the stage and not a block.
        delay: Steps that the value takes.
        distance: Number of stages (or blocks, within one stage) between its ends.
        merge: Kind of merge at its target; empty where it arrives alone.
        factor: What its value is multiplied by, if anything.
        families: The sets that it belongs to, for a page on which they can be switched off.
        hue: Number of its colour; arrows of one distance have one colour.
        edges: The edges of the plan that it stands for.
        heading: In a network with `time`: to a later node, to the same, to an earlier one; silent if never in the
            readout.
    """

    name: str
    source: str
    target: str
    family: Family
    tooltip: str
    distance: int = 1
    edges: tuple[str, ...] = ()
    label: str = ""
    delay: int = 0
    heading: Heading = "forward"
    source_group: str = ""
    target_group: str = ""
    hue: int = 0
    merge: str = ""
    factor: Factor = ""
    families: tuple[str, ...] = ()
    change: Change = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """A diagram without positions.

    Attributes:
        title: Name of the network.
        caption: Lines below the picture.
        labelled: Whether skips have labels; otherwise the caption lists them.
        unrolled: Whether there is a box for each node at each step, and a group for each step.
        is_difference: Whether it shows two networks.
    """

    title: str
    level: Level
    boxes: tuple[Box, ...]
    groups: tuple[Group, ...]
    arrows: tuple[Arrow, ...]
    caption: tuple[str, ...]
    labelled: bool
    unrolled: bool = False
    is_difference: bool = False
