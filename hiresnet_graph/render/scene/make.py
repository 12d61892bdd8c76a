"""Makes the scene of a plan.

A scene is made from a plan alone, so that it shows the computation and not the text of a spec.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from hiresnet_graph.cost import Cost, count_folded, count_parts
from hiresnet_graph.errors import UsageError
from hiresnet_graph.formats import format_count, format_si
from hiresnet_graph.graph import OpGraph
from hiresnet_graph.passes.timing import along_flow, format_step_ranges, timing
from hiresnet_graph.plan import Plan
from hiresnet_graph.render.scene.blocks import BlockScene
from hiresnet_graph.render.scene.calls import CallScene
from hiresnet_graph.render.scene.labels import shortened
from hiresnet_graph.render.scene.scene import HUES, Arrow, Box, Factor, Group, Heading, Level, Scene
from hiresnet_graph.render.scene.steps import StepScene

MAX_LABELS = 20
"""With more labels than this, the caption lists them instead."""
_MAX_TITLE = 80
"""A longer name of a network is cut in the caption."""
_MAX_NAME = 84
"""A longer name of a box or frame, which has three lines, is cut."""
_COLOR_LEGEND: dict[Heading, str] = {
    "lateral": "green: lateral",
    "feedback": "orange: feedback",
    "silent": "grey: not in the readout",
}
_FACTORS: dict[Factor, str] = {"gate": "cross: gate", "scale": "triangle: factor"}
_INPUT = {"first": "at step 0", "every": "at every step", "sequence": "one frame a step"}


def make_scene(
    plan: Plan,
    *,
    level: Level = "blocks",
    title: str | None = None,
    unrolled: bool = False,
    counts: bool = True,
    footer: bool = True,
) -> Scene:
    """The scene of a plan.

    Args:
        level: `stages` has a box for each stage and each node outside of stages; `blocks` a box for each node, with
            stages as groups, long ones folded; `ops` a box for each primitive call.
        title: Name of the network (default: the name of the plan).
        unrolled: Draw each time step; primitive calls are always those of all steps.
        counts: Whether boxes and the caption have numbers of parameters and multiply-adds.
        footer: Whether there is a caption.

    Raises:
        UsageError: There is nothing to unroll.
    """
    name = title if title is not None else (plan.name or "network")
    if unrolled and plan.folded is None:
        raise UsageError(f"'{name}' has no 'time', so there is nothing to unroll. Omit 'unrolled'.")
    if plan.folded is not None:
        plan = replace(plan, nodes=along_flow(plan.nodes, plan.edges))
    unrolled = unrolled and level != "ops"
    content = CallScene(plan) if level == "ops" else (StepScene if unrolled else BlockScene)(plan, level, counts=counts)
    arrows = _with_hues(map(_shortened_arrow, content.arrows()), by_distance=plan.folded is None)
    labelled = sum(bool(arrow.label) and arrow.family != "shortcut" for arrow in arrows) <= MAX_LABELS
    caption: tuple[str, ...] = ()
    if footer:
        caption = _caption(shortened(name, _MAX_TITLE), plan, content.boxes, arrows, labelled, counts)
    boxes, groups = tuple(map(_shortened_box, content.boxes)), tuple(map(_shortened_group, content.groups))
    return Scene(name, level, boxes, groups, arrows, caption, labelled, unrolled)


def _shortened_box(box: Box) -> Box:
    return replace(box, title=shortened(box.title, _MAX_NAME), lines=tuple(map(shortened, box.lines)))


def _shortened_group(group: Group) -> Group:
    """The group with a short title; of an edge, both ends are still to be seen."""
    ends = group.title.split(" > ")
    return replace(group, title=" > ".join(shortened(end, _MAX_NAME // len(ends)) for end in ends))


def _shortened_arrow(arrow: Arrow) -> Arrow:
    return replace(arrow, label=", ".join(map(shortened, arrow.label.split(", "))))


def _with_hues(content: Iterable[Arrow], *, by_distance: bool) -> tuple[Arrow, ...]:
    """Arrows with their hue: their distance if all are short, else the rank of their distance.

    So one distance has one colour in all variants of a network with few levels. In a network with `time` all skips have
    one colour, as the other colours show headings.
    """
    arrows = tuple(content)
    if not by_distance:
        return tuple(replace(arrow, hue=1) for arrow in arrows)
    distances = sorted({arrow.distance for arrow in arrows if arrow.family == "skip"})
    are_short = all(distance <= 6 for distance in distances)
    rank = {distance: distance if are_short else i + 1 for i, distance in enumerate(distances)}
    return tuple(replace(arrow, hue=rank.get(arrow.distance, arrow.distance)) for arrow in arrows)


def _caption(
    title: str, plan: Plan, boxes: Sequence[Box], arrows: Sequence[Arrow], labelled: bool, counts: bool
) -> tuple[str, ...]:
    lines = [_counts_caption(title, plan) if counts else title]
    if plan.folded is not None and plan.folded.time is not None:
        lines[0] += f"{' in' if counts else ':'} {format_count(plan.folded.time.steps, 'step')}"
        lines += _time_caption(plan.folded, boxes, arrows)
    else:
        lines += _distance_caption(arrows)
    lines += _glyph_caption(arrows)
    labels = Counter(arrow.label for arrow in arrows if arrow.label and arrow.family != "shortcut")
    if labels and not labelled:
        most = sorted(labels.items(), key=lambda item: (-item[1], item[0]))
        shown = [f"{label} ({number})" for label, number in most[:4]]
        rest = sum(number for _, number in most[4:])
        family = "skips" if any(arrow.family == "skip" for arrow in arrows) else "edges"
        lines.append(f"{family}: " + "; ".join(shown) + (f"; others ({rest})" if rest else ""))
    return tuple(lines)


def _counts_caption(title: str, plan: Plan) -> str:
    """The title with parameters and multiply-adds."""
    parts = count_parts(plan)
    total, folded = sum(parts.values(), Cost()), count_folded(plan)
    notes = []
    for family in ("skip", "shortcut"):
        number = sum(parts.get(edge.name, Cost()).parameters for edge in plan.edges if edge.family == family)
        notes += [f"{number:,} on {family}s"] if number else []
    notes += [f"{folded:,} with one copy of every weight"] if folded != total.parameters else []
    share = f" ({', '.join(notes)})" if notes else ""
    return f"{title}: {total.parameters:,} parameters{share}, {format_si(total.macs, decimals=1)} MACs"


def _glyph_caption(arrows: Sequence[Arrow]) -> list[str]:
    """The legend of the glyphs of arrows, unless all are sums."""
    merges = {arrow.merge for arrow in arrows if arrow.family not in ("flow", "shortcut", "gate")} - {"", "add"}
    legend = ["two bars: concatenation"] if "concat" in merges else []
    legend += [f"three lines: {', '.join(sorted(merges - {'concat'}))}"] if merges - {"concat"} else []
    legend += [text for factor, text in _FACTORS.items() if any(arrow.factor == factor for arrow in arrows)]
    return ["; ".join(legend)] if legend else []


def _distance_caption(arrows: Sequence[Arrow]) -> list[str]:
    """The legend of the colours of skips, if there are several."""
    found = sorted({(arrow.hue, arrow.distance) for arrow in arrows if arrow.family == "skip"})
    if len(found) < 2:
        return []
    if len(found) > len(HUES):
        return [f"colour and dashes of skips: their distance, {len(HUES)} in turn"]
    return [
        "distance of skips: "
        + ", ".join(f"{distance} {HUES[(max(1, hue) - 1) % len(HUES)]}" for hue, distance in found)
    ]


def _time_caption(folded: OpGraph, boxes: Sequence[Box], arrows: Sequence[Arrow]) -> list[str]:
    """How the network runs in time, and the legend of its arrows."""
    found, time = timing(folded), folded.time
    assert time is not None
    plural = "" if len(found.readouts) == 1 else "s"
    parts = [
        f"{' and '.join(found.unrolling)} unrolling",
        f"input {_INPUT[time.input]}",
        f"readout at step{plural} {format_step_ranges(found.readouts)}",
    ]
    legend = []
    if any("t+" in arrow.label for arrow in arrows):
        legend.append("dashed: takes time (t+1: one step)")
    if any(" at " in f" {arrow.label}" for arrow in arrows):
        legend.append("at: the steps when it is open")
    headings = {arrow.heading for arrow in arrows if arrow.family != "gate"}
    legend += [text for heading, text in _COLOR_LEGEND.items() if heading in headings]
    if any(arrow.family == "skip" and arrow.heading == "forward" for arrow in arrows):
        legend.append("blue: skip")
    if any(box.role == "zeros" for box in boxes):
        legend.append("dashed boxes: from zeros alone")
    lines = ["; ".join(parts)]
    return [*lines, "; ".join(legend)] if legend else lines
