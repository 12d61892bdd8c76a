"""The changes of a spec, by a variant or by a file that extends another, for errors that are found elsewhere."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

from hiresnet_graph.errors import Position, Problem, Related
from hiresnet_graph.spec.document import Document
from hiresnet_graph.spec.marked import MarkedDict, positions_in


class Change(NamedTuple):
    """What a variant or a file changes.

    Attributes:
        owner: The variant or the spec, in words.
        positions: Of the changed keys and values, by the section of the spec.
        start: The position that stands for the whole change.
    """

    owner: str
    positions: dict[str, list[Position]]
    start: Position | None

    def name(self, problem: Problem) -> Problem:
        """The problem with the change that it comes from, unless its positions show it."""
        if problem.related or problem.position is None:
            return problem
        every = [position for positions in self.positions.values() for position in positions]
        if (problem.position.source, problem.position.line) in {position[:2] for position in every}:
            return problem
        section = re.split(r"[.\[]", problem.path)[0]
        start = min(self.positions.get(section, []) or every, key=lambda position: position[1:], default=self.start)
        return problem if start is None else replace(problem, related=(Related(f"Caused by {self.owner}", start),))


def variant_change(document: Document, variant: str) -> Change:
    """What a variant of a spec changes."""
    variants = document.tree["variants"]
    changed = variants[variant]
    positions = {key: _positions(changed, key) for key in changed} if isinstance(changed, MarkedDict) else {}
    return Change(f"the variant '{variant}'", positions, variants.key_positions.get(variant))


def extension_change(document: Document, extended: Document) -> Change:
    """What a file changes in the spec that it extends."""
    below = {position.source for position in positions_in(extended.tree)}
    positions = {
        key: [position for position in _positions(document.tree, key) if position.source not in below]
        for key in document.tree.without("name", "description")
    }
    name = document.tree.value_positions.get("name")
    return Change(f"the spec '{document.name}'", positions, None if name is None or name.source in below else name)


def _positions(tree: MarkedDict, key: str) -> list[Position]:
    own = [positions[key] for positions in (tree.key_positions, tree.value_positions) if key in positions]
    return [*own, *positions_in(tree[key])]
