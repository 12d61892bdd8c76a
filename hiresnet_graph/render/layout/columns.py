"""The structure of a network whose flow is one chain: its columns, and which arrows are flow, shortcuts or arcs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from hiresnet_graph.render.scene.scene import Arrow, Box, Group, Scene

_MAX_COLUMNS, _MAX_COLUMNS_BESIDE_STAGES = 10, 6
"""With more columns than this, nodes at which no arc ends are stacked."""


@dataclass(slots=True)
class ChainColumn:
    """Boxes in a row across the flow; `group` is their stage. `u0` and `u1` are its extent along the flow."""

    boxes: list[Box]
    group: Group | None
    u0: float = 0.0
    u1: float = 0.0


def is_chain(scene: Scene) -> bool:
    """Whether the flow joins each box to the next, and does not branch."""
    boxes = scene.boxes
    if not boxes:
        return False
    joined = {(arrow.source, arrow.target) for arrow in scene.arrows if arrow.family in ("flow", "edge")}
    if any((box.name, following.name) not in joined for box, following in pairwise(boxes)):
        return False
    index = {box.name: i for i, box in enumerate(boxes)}
    for arrow in scene.arrows:
        if arrow.family == "flow" and index[arrow.target] - index[arrow.source] != 1 and not arrow.delay:
            return False
    runs = [box.group for i, box in enumerate(boxes) if box.group and (i == 0 or boxes[i - 1].group != box.group)]
    return len(runs) == len(scene.groups)


class Chain:
    """A scene whose flow is one chain.

    Attributes:
        flow: An arrow from each box to the next.
        shortcuts: The blocks' own.
        arcs: All other arrows.
        cells: Column and row of each box of a network whose sizes go down and up again, which is drawn as a valley
            (like a U-Net); empty for others.
        column_of: Box -> index of its column.
    """

    def __init__(self, scene: Scene, *, upright: bool) -> None:
        self.scene, self.upright = scene, upright
        self.boxes: Sequence[Box] = scene.boxes
        self.groups = {group.name: group for group in scene.groups}
        self.index = {box.name: i for i, box in enumerate(scene.boxes)}
        self.flow: list[Arrow] = []
        self.shortcuts: list[Arrow] = []
        self.arcs: list[Arrow] = []
        self._sort_arrows()
        self.cells = self._valley()
        self.columns = self._make_columns()
        self.column_of = {box.name: k for k, column in enumerate(self.columns) for box in column.boxes}

    def _sort_arrows(self) -> None:
        joined: set[tuple[str, str]] = set()
        for arrow in self.scene.arrows:
            pair = (arrow.source, arrow.target)
            is_next = self.index[arrow.target] - self.index[arrow.source] == 1
            if arrow.family == "shortcut":
                self.shortcuts.append(arrow)
            elif arrow.family in ("flow", "edge") and is_next and pair not in joined:
                joined.add(pair)
                self.flow.append(arrow)
            else:
                self.arcs.append(arrow)

    # columns

    def _make_columns(self) -> list[ChainColumn]:
        """A stage is one column if arcs end at the stage, or at one column inside it; otherwise each block is one."""
        if self.cells:
            number = max(column for column, _ in self.cells.values()) + 1
            return [
                ChainColumn([box for box in self.boxes if self.cells[box.name][0] == k], None) for k in range(number)
            ]
        split = {box.group for box in self.boxes if box.group} & self._crossed_stages()
        columns: list[ChainColumn] = []
        for box in self.boxes:
            group = self.groups.get(box.group)
            last = columns[-1] if columns else None
            if group is not None and last is not None and last.group is group and box.group not in split:
                last.boxes.append(box)
            else:
                columns.append(ChainColumn([box], group))
        limit = _MAX_COLUMNS_BESIDE_STAGES if self.groups and not self.upright else _MAX_COLUMNS
        return self._stacked(columns, limit) if len(columns) > limit and not split else columns

    def _valley(self) -> dict[str, tuple[int, int]]:
        sizes = [box.shape.spatial[0] if box.shape is not None and box.shape.spatial else 0 for box in self.boxes]
        down = next((i for i, (a, b) in enumerate(pairwise(sizes)) if b < a), len(sizes))
        if self.groups or not any(0 < a < b for a, b in pairwise(sizes[down:])):
            return {}
        cells: dict[str, tuple[int, int]] = {}
        column = row = 0
        for before, size, box in zip([sizes[0], *sizes], sizes, self.boxes, strict=False):
            if 0 < size != before:
                row += 1 if size < before else -1
            else:
                column += 1
            while (column, row) in cells.values():
                column += 1
            cells[box.name] = (column, row)
        first = min(column for column, _ in cells.values())
        is_flat = all(
            cells[arrow.source][1] == cells[arrow.target][1] and cells[arrow.source][0] < cells[arrow.target][0]
            for arrow in self.arcs
        )
        return {name: (column - first, row) for name, (column, row) in cells.items()} if is_flat else {}

    def _crossed_stages(self) -> set[str]:
        """Stages with a block at which an arc from elsewhere ends."""
        group_of = {box.name: box.group for box in self.boxes}
        found = set()
        for arrow in self.arcs:
            ends = ((arrow.source, arrow.source_group), (arrow.target, arrow.target_group))
            is_inside = group_of[arrow.source] == group_of[arrow.target] != ""
            for box, stage in ends:
                if group_of[box] and not stage and not (is_inside and self.scene.level == "blocks"):
                    found.add(group_of[box])
        return found

    def _stacked(self, columns: list[ChainColumn], limit: int) -> list[ChainColumn]:
        """Fewer columns: consecutive boxes outside stages at which no arc ends are stacked, or put below a stage."""
        ends = {name for arrow in self.arcs for name in (arrow.source, arrow.target)}
        tallest = max(3 if self.groups else 4, *(len(column.boxes) for column in columns))
        free = [column.group is None and column.boxes[0].name not in ends for column in columns]
        runs: list[ChainColumn] = []
        for i, column in enumerate(columns):
            if free[i] and i and free[i - 1] and len(runs[-1].boxes) < tallest:
                runs[-1].boxes += column.boxes
            else:
                runs.append(ChainColumn(column.boxes, column.group))
        if len(runs) <= limit:
            return runs
        found: list[ChainColumn] = []
        for run in runs:
            last = found[-1] if found else None
            is_free = run.group is None and run.boxes[0].name not in ends
            if is_free and last is not None and last.group and len(last.boxes) + len(run.boxes) <= tallest + 1:
                last.boxes += run.boxes
            else:
                found.append(run)
        return found

    # arrows and columns

    def column(self, box: str) -> ChainColumn:
        """The column of a box."""
        return self.columns[self.column_of[box]]

    def columns_apart(self, arrow: Arrow) -> int:
        """The number of columns from the source of an arrow to its target; negative for one that leads back."""
        return self.column_of[arrow.target] - self.column_of[arrow.source]

    def is_split(self, column: ChainColumn) -> bool:
        """Whether the stage of a column has other columns too."""
        return column.group is not None and sum(other.group is column.group for other in self.columns) > 1

    def has_shortcuts(self, column: ChainColumn) -> bool:
        """Whether the boxes of a column have shortcuts, which are drawn beside them."""
        names = {box.name for box in column.boxes}
        return len(column.boxes) > 1 and any(arrow.source in names for arrow in self.shortcuts)

    def inner_arcs(self, column: ChainColumn) -> list[Arrow]:
        """The arcs between the boxes of one column."""
        names = {box.name for box in column.boxes}
        if len(names) == 1:
            return []
        return [arrow for arrow in self.arcs if arrow.source in names and arrow.target in names]

    @cached_property
    def all_inner_arcs(self) -> list[Arrow]:
        """The arcs within any column."""
        return [arrow for column in self.columns for arrow in self.inner_arcs(column)]
