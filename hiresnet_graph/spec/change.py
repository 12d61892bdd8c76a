"""The last change of a spec, by a variant or by a file that extends another, for errors that are found elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from hiresnet_graph.errors import Position, Problem, Related
from hiresnet_graph.spec.document import Document
from hiresnet_graph.spec.marked import positions_in


class Change(NamedTuple):
    """The last change of a spec.

    Attributes:
        owner: What changes it, in words.
        positions: Of all its keys and values.
    """

    owner: str
    positions: tuple[Position, ...]

    def name(self, problem: Problem) -> Problem:
        """The problem with the change that it comes from, unless its positions show it."""
        if problem.related or problem.position is None or not self.positions:
            return problem
        if (problem.position.source, problem.position.line) in {position[:2] for position in self.positions}:
            return problem
        start = min(self.positions, key=lambda position: position[1:])
        return replace(problem, related=(Related(f"This is an error of {self.owner}", start),))


def last_change(document: Document) -> Change:
    """The change by the chosen variant, or else by the file itself if it extends another."""
    if document.chosen is not None:
        changed = document.tree["variants"][document.chosen]
        return Change(f"the variant '{document.chosen}'", tuple(positions_in(changed)))
    below = set() if document.base is None else {position.source for position in positions_in(document.base.tree)}
    found = positions_in(document.tree.without("name", "description"))
    return Change(f"the spec '{document.name}'", tuple(position for position in found if position.source not in below))
