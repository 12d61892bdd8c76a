"""The columns of a circuit: what is framed together, split where it branches, in the order in which it is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from hiresnet_graph.render.scene.scene import Arrow, Box, Group, Scene
from hiresnet_graph.traversal import topological_order

_MAX_RUN = 16
"""A longer run of boxes is continued in the next column."""
_MAX_STACK = 24
"""Owners of one rank are in one column as long as it has no more boxes than this."""

Run = list[Box]
"""Boxes one below the other, each of which feeds the next."""


@dataclass(slots=True)
class Owner:
    """The calls of one node or edge, the blocks of a stage, or one box that belongs to none.

    Attributes:
        columns: The runs of boxes in each of its columns.
        is_edge: Whether these are the calls of an edge, which are close to its target.
        rank: Its position along the flow.
        stack: Number of the owners above and below it, along the flow.
    """

    group: Group | None
    boxes: list[Box] = field(default_factory=list)
    columns: list[list[Run]] = field(default_factory=list)
    is_edge: bool = False
    rank: int = 0
    stack: int = 0

    @property
    def height(self) -> int:
        """The number of boxes in its longest column."""
        return max(sum(map(len, runs)) for runs in self.columns)


class Ranks:
    """Owners in ranks along the flow, and their columns.

    Attributes:
        columns: Owners and their runs in each column, from the top; an owner is in consecutive columns.
        column_of: Box -> index of its column.
        last_of: Box -> index of the column after which its wires leave: that of the box, or the last one of the stack
            if its owner has no column farther on.
    """

    def __init__(self, scene: Scene) -> None:
        groups = {group.name: group for group in scene.groups}
        owners: dict[str, Owner] = {}
        for box in scene.boxes:
            owners.setdefault(box.group or box.name, Owner(groups.get(box.group))).boxes.append(box)
        self.owners = list(owners.values())
        self.owner_of = {box.name: owner for owner in self.owners for box in owner.boxes}
        self._index = {box.name: i for i, owner in enumerate(self.owners) for box in owner.boxes}
        self._mark_edges(scene.arrows)
        fed = {arrow.target for arrow in scene.arrows if not arrow.delay and arrow.heading == "forward"}
        self._set_ranks([a for a in scene.arrows if a.heading == "forward" and not (a.delay and a.target in fed)])
        inside: list[list[Arrow]] = [[] for _ in self.owners]
        for arrow in scene.arrows:
            if self._index[arrow.source] == self._index[arrow.target]:
                inside[self._index[arrow.source]].append(arrow)
        for owner, arrows in zip(self.owners, inside, strict=True):
            owner.columns = columns_of(owner.boxes, arrows)
        self.columns: list[list[tuple[Owner, list[Run]]]] = []
        self.column_of: dict[str, int] = {}
        self.last_of: dict[str, int] = {}
        self._set_columns()

    def _mark_edges(self, arrows: Sequence[Arrow]) -> None:
        for owner in self.owners:
            owner.is_edge = owner.group is not None and owner.group.family is not None
        for arrow in arrows:  # the only call of an edge has its name
            for end in (arrow.source, arrow.target):
                if end in arrow.edges:
                    self.owner_of[end].is_edge = True

    def _set_ranks(self, arrows: Sequence[Arrow]) -> None:
        """Give nodes the first even rank after all that feeds them, and edges the last odd one before their targets."""
        following: list[list[int]] = [[] for _ in self.owners]
        for arrow in arrows:
            source, target = self._index[arrow.source], self._index[arrow.target]
            if source != target:
                following[source].append(target)
        pending = dict.fromkeys(range(len(self.owners)))
        order: list[int] = []
        for i in topological_order(following, lambda: next(iter(pending), None)):
            del pending[i]
            order.append(i)
        position = {index: i for i, index in enumerate(order)}
        for index in order:
            self._raise_to(index, 0)
            for target in following[index]:
                if position[target] > position[index]:
                    self._raise_to(target, self.owners[index].rank + 1)
        for index in reversed(order):
            targets = [self.owners[target].rank for target in following[index] if position[target] > position[index]]
            if self.owners[index].is_edge and targets:
                latest = min(targets) - 1
                self.owners[index].rank = latest - (latest + 1) % 2

    def _raise_to(self, index: int, rank: int) -> None:
        owner = self.owners[index]
        owner.rank = max(owner.rank, rank + (rank % 2 == 0 if owner.is_edge else rank % 2))

    def _stacks(self) -> list[list[Owner]]:
        """Owners of one rank, in as many stacks as keep each low enough."""
        stacks: list[list[Owner]] = []
        for owner in sorted(self.owners, key=lambda owner: owner.rank):
            last = stacks[-1] if stacks else []
            if not last or last[0].rank != owner.rank or sum(o.height for o in [*last, owner]) > _MAX_STACK:
                stacks.append([])
            stacks[-1].append(owner)
        return stacks

    def _set_columns(self) -> None:
        for number, stack in enumerate(self._stacks()):
            first, length = len(self.columns), max(len(owner.columns) for owner in stack)
            self.columns += [[] for _ in range(length)]
            for owner in stack:
                owner.stack = number
                for i, runs in enumerate(owner.columns):
                    self.columns[first + i].append((owner, runs))
                    is_last = i == len(owner.columns) - 1
                    for box in (box for run in runs for box in run):
                        self.column_of[box.name] = first + i
                        self.last_of[box.name] = first + length - 1 if is_last else first + i


def columns_of(boxes: Sequence[Box], arrows: Sequence[Arrow]) -> list[list[Run]]:
    """The runs of boxes in each column of one owner: branches are beside each other.

    A box continues a run if it is all that the run leads to and if nothing else leads to it, apart from arrows that
    bypass boxes of this run.
    """
    covers = _covers(boxes, arrows)
    sources: dict[int, list[int]] = {}
    for source, targets in covers.items():
        for target in targets:
            sources.setdefault(target, []).append(source)
    following = {i: found[0] for i, found in covers.items() if len(found) == 1 and len(sources[found[0]]) == 1}
    starts = sorted(set(range(len(boxes))) - set(following.values()))
    runs: list[list[int]] = []
    run_of: dict[int, int] = {}
    for start in starts:
        chain = [start]
        while chain[-1] in following:
            chain.append(following[chain[-1]])
        parts = -(-len(chain) // _MAX_RUN)
        bounds = [len(chain) * k // parts for k in range(parts + 1)]
        for low, high in pairwise(bounds):
            run_of.update(dict.fromkeys(chain[low:high], len(runs)))
            runs.append(chain[low:high])
    layers = _layers(runs, run_of, covers)
    columns: list[list[Run]] = [[] for _ in range(max(layers) + 1)]
    for run, layer in zip(runs, layers, strict=True):
        columns[layer].append([boxes[i] for i in run])
    return columns


def _covers(boxes: Sequence[Box], arrows: Sequence[Arrow]) -> dict[int, list[int]]:
    """For each box, the boxes that it feeds and that it does not also lead to through others."""
    index = {box.name: i for i, box in enumerate(boxes)}
    targets: dict[int, set[int]] = {}
    for arrow in arrows:
        if index[arrow.source] < index[arrow.target]:
            targets.setdefault(index[arrow.source], set()).add(index[arrow.target])
    behind = [0] * len(boxes)  # as bits
    covers: dict[int, list[int]] = {}
    for i in reversed(range(len(boxes))):
        through = 0
        for target in sorted(targets.get(i, ())):
            through |= behind[target]
        found = [target for target in sorted(targets.get(i, ())) if not through >> target & 1]
        behind[i] = through | sum(1 << target for target in targets.get(i, ()))
        if found:
            covers[i] = found
    return covers


def _layers(runs: Sequence[Sequence[int]], run_of: Mapping[int, int], covers: Mapping[int, list[int]]) -> list[int]:
    """The column of each run: after all that feed it, and one that nothing feeds just before what it feeds."""
    layers = [0] * len(runs)
    following: list[set[int]] = [
        {run_of[j] for i in run for j in covers.get(i, ())} - {k} for k, run in enumerate(runs)
    ]
    order = list(topological_order([sorted(targets) for targets in following]))
    for k in order:
        for target in following[k]:
            layers[target] = max(layers[target], layers[k] + 1)
    fed = set().union(*following)
    for k in reversed(order):
        if k not in fed and following[k]:
            layers[k] = min(layers[target] for target in following[k]) - 1
    return layers
