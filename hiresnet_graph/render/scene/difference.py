"""The scene of two networks: what the second adds, removes and changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from hiresnet_graph.render.scene.make import MAX_LABELS
from hiresnet_graph.render.scene.scene import Arrow, Box, Change, Scene

_MARKS: dict[Change, str] = {"added": "+ ", "removed": "\u2212 ", "changed": "~ "}


def difference_scene(before: Scene, after: Scene) -> Scene:
    """One scene of two at the same level, with the change of each box and arrow; equal names are the same part."""
    boxes = _boxes(before, after)
    arrows = _arrows(before, after)
    groups = {group.name: group for group in (*after.groups, *before.groups)}
    shown = {box.group for box in boxes}
    counts: Counter[Change] = Counter([*(box.change for box in boxes), *(arrow.change for arrow in arrows)])
    numbers = ", ".join(f"{counts[change]} {change}" for change in _MARKS) if counts.keys() - {""} else "no difference"
    caption: tuple[str, ...] = ()
    if after.caption:
        caption = (
            f"{before.title} \u2192 {after.title}: {numbers}",
            "+ green: added; \u2212 orange dashed: removed; ~ blue dash-dotted: changed; grey: the same",
        )
    return replace(
        after,
        title=f"{before.title} \u2192 {after.title}",
        boxes=boxes,
        groups=tuple(group for group in groups.values() if group.name in shown),
        arrows=arrows,
        caption=caption,
        labelled=sum(bool(arrow.change) for arrow in arrows) <= MAX_LABELS,
        is_difference=True,
    )


def _boxes(before: Scene, after: Scene) -> tuple[Box, ...]:
    """The boxes of the second network, and each that it lacks after the one that it followed in the first."""
    old = {box.name: box for box in before.boxes}
    found = [_compared_box(old.get(box.name), box) for box in after.boxes]
    position = 0
    for box in before.boxes:
        index = next((i for i, other in enumerate(found) if other.name == box.name), None)
        if index is None:
            found.insert(position, replace(box, title=_MARKS["removed"] + box.title, change="removed", output=False))
            index = position
        position = index + 1
    return tuple(found)


def _compared_box(old: Box | None, new: Box) -> Box:
    if old is None:
        return replace(new, title=_MARKS["added"] + new.title, change="added")
    gone = _only_in((*old.lines, *old.notes), (*new.lines, *new.notes))
    if not gone and not _only_in((*new.lines, *new.notes), (*old.lines, *old.notes)):
        return new
    notes = (*new.notes, *(f"was {text}" for text in gone))
    return replace(new, title=_MARKS["changed"] + new.title, notes=notes, change="changed")


def _only_in(texts: Sequence[str], others: Sequence[str]) -> list[str]:
    return [text for text in texts if text not in others]


def _arrows(before: Scene, after: Scene) -> tuple[Arrow, ...]:
    old = {arrow.name: arrow for arrow in before.arrows}
    new = {arrow.name: arrow for arrow in after.arrows}
    found = []
    for arrow in after.arrows:
        known = old.get(arrow.name)
        if known is not None and (known.source, known.target) != (arrow.source, arrow.target):
            known = None
        found.append(_compared_arrow(known, arrow))
    gone = [
        arrow
        for arrow in before.arrows
        if arrow.name not in new or (new[arrow.name].source, new[arrow.name].target) != (arrow.source, arrow.target)
    ]
    for arrow in gone:
        name = f"{arrow.name} (removed)" if arrow.name in new else arrow.name
        found.append(replace(arrow, name=name, label=_MARKS["removed"] + arrow.label, change="removed"))
    return tuple(found)


def _compared_arrow(old: Arrow | None, new: Arrow) -> Arrow:
    if old is None:
        return replace(new, label=_MARKS["added"] + new.label, change="added")
    parts = ((old.label, new.label), (old.merge, new.merge), (str(old.delay), str(new.delay)))
    differing = [(a, b) for a, b in parts if a != b]
    if not differing:
        return replace(new, label="")
    return replace(new, label=f"{_MARKS['changed']}{new.label}, was {differing[0][0] or 'alone'}", change="changed")
