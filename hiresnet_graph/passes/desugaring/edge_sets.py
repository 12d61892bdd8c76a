"""Edge-set expressions over the nodes of a section, as pairs of ends."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from hiresnet_graph.errors import ExpressionError
from hiresnet_graph.passes.limits import MAX_EDGES, MAX_LEVELS
from hiresnet_graph.passes.names import Addresses, End
from hiresnet_graph.spec.edge_set import EdgeSet, Pairs
from hiresnet_graph.spec.model import SkipSpec, Texts
from hiresnet_graph.spec.problems import Path, Problems
from hiresnet_graph.spec.section import texts

Pair = tuple[End, End]


class EdgeSetReader:
    """Reads the edge sets of a section. Problems are recorded, and an invalid set selects nothing.

    Args:
        nodes: The names of all nodes, in their order.
        check_size: Raises if a number of further edges exceeds the limit.
    """

    def __init__(
        self,
        addresses: Addresses,
        problems: Problems,
        nodes: Iterable[str],
        check_size: Callable[[int, Path], None],
    ) -> None:
        self.addresses, self.problems, self.check_size = addresses, problems, check_size
        self._index = {name: i for i, name in enumerate(nodes)}

    def skips(self, spec: SkipSpec, path: Path, slot: str, depth: Mapping[str, int]) -> list[tuple[Pair, int | None]]:
        """The edges that a group of skips selects, in the order of nodes, each with its distance in levels.

        The distance is that of `p1`, `p2`, ...; None if an end is no level.

        Args:
            depth: Position of each node along the flow, which orders the levels.
        """
        levels = self._levels(spec, path, depth)
        if levels is None:
            return []
        # An edge is known by its calls here, so that `stem>stage2` and this pair of levels are one edge.
        targets = {
            call: self.addresses.targets(level, slot)[0]
            for call, level in levels.items()
            if level not in self.addresses.inputs
        }
        arriving = {end.call: call for call, end in reversed(targets.items())}
        ends: dict[tuple[str, str], Pair] = {}

        def single(source: str, target: str) -> Iterable[tuple[str, str]]:
            starts = self.addresses.sources(source)
            try:
                stops = self.addresses.targets(target, slot)
            except ExpressionError as error:
                raise ExpressionError(error.message, len(source) + 1, error.hint) from None
            if len(starts) * len(stops) > MAX_EDGES:
                raise ExpressionError(f"this selects more than {MAX_EDGES:,} edges.")
            for start in starts:
                for stop in stops:
                    key = (f"{start.call}.{start.part}".strip("."), arriving.get(stop.call, f">{stop.call}"))
                    ends[key] = (start, stop)
                    yield key

        try:
            chosen = _chosen(spec.edges, list(levels), single)
        except ExpressionError as error:
            self._report(error, spec.edges, (*path, "edges"))
            return []
        self.check_size(len(chosen), (*path, "edges"))
        for source, target in sorted(chosen - ends.keys()):
            if target not in targets:
                message = f"'{target}' is an input; no edge may end there."
                self.problems.add((*path, "levels"), message, "Remove it.")
                return []
            ends[source, target] = (self.addresses.sources(levels[source])[0], targets[target])
        number = {call: i for i, call in enumerate(levels)}

        def distance(key: tuple[str, str]) -> int | None:
            return abs(number[key[1]] - number[key[0]]) if number.keys() >= {*key} else None

        return [(ends[key], distance(key)) for key in sorted(chosen, key=lambda key: self._position(ends[key]))]

    def _position(self, pair: Pair) -> tuple[int, str, int]:
        source, target = pair
        return self._index.get(source.call, -1), source.part, self._index.get(target.call, -1)

    def _levels(self, spec: SkipSpec, path: Path, depth: Mapping[str, int]) -> dict[str, str] | None:
        """The levels of a group along the flow: the node whose value it is -> the level. None after a problem."""
        items = texts(spec.levels, (*path, "levels")) if spec.levels is not None else []
        try:
            names = self.addresses.levels([text for text, _ in items])
        except ExpressionError as error:
            self.problems.add(items[error.offset][1], error.message, error.hint)
            return None
        calls = {name: self.addresses.sources(name)[0].call for name in names}
        names.sort(key=lambda name: (depth.get(calls[name], 0), self._index.get(calls[name], 0)))
        levels: dict[str, str] = {}
        for name in names:
            if (other := levels.get(calls[name])) is not None:
                twice = f"'{name}' twice" if other == name else f"'{other}' and '{name}' (one tensor)"
                self.problems.add((*path, "levels"), f"the levels name {twice}.", "Remove one.")
                return None
            levels[calls[name]] = name
        if len(levels) > MAX_LEVELS:
            message = f"there are {len(levels):,} levels; the limit is {MAX_LEVELS:,}."
            self.problems.add((*path, "levels"), message)
            return None
        return levels

    def transitions(self, text: Texts, path: Path, found: Collection[tuple[str, str]]) -> Collection[tuple[str, str]]:
        """Those of the entries of `transitions`, as pairs of labels, that an edge set selects."""
        index = {self.addresses.sources(name)[0].label: i for name, i in self._index.items()}
        labels = {label for pair in found for label in pair}
        levels = sorted(labels, key=lambda label: index.get(label, 0))

        def single(source: str, target: str) -> Iterable[tuple[str, str]]:
            starts, stops = ({end.label for end in self.addresses.sources(name)} for name in (source, target))
            return [pair for pair in found if pair[0] in starts and pair[1] in stops]

        try:
            chosen = _chosen(text, levels, single, frozenset(found))
        except ExpressionError as error:
            self._report(error, text, path)
            return []
        return [pair for pair in found if pair in chosen]

    def _report(self, error: ExpressionError, text: Texts, path: Path) -> None:
        item = getattr(error, "item", None)
        self.problems.expression((*path, item) if isinstance(text, list) and item is not None else path, error)


def _chosen(
    text: Texts, levels: Sequence[str], pairs: Pairs, possible: frozenset[tuple[str, str]] | None = None
) -> frozenset[tuple[str, str]]:
    """The edges of a set.

    Args:
        possible: The edges that there are, if the words of the set stand for more.

    Raises:
        ExpressionError: The set, or a part of it, selects no edge, but is not `none`.
    """
    edge_set = EdgeSet.parse(text)
    chosen = edge_set.select(levels, pairs)
    if possible is not None:
        chosen &= possible
    if not chosen and (reason := edge_set.why_empty(levels, pairs)):
        raise ExpressionError(reason, 0, "Write 'none' for no edges.")
    return chosen
