"""When values are where in a network with `time`: which way it is unrolled, and how many steps it needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hiresnet_graph.errors import Problem
from hiresnet_graph.graph import EdgeRecord, Graph, NodeRecord
from hiresnet_graph.spec.model import TimeSpec

MOST_STEPS = 2_000
"""Steps up to which is looked for a number with which every edge reaches the readout."""


@dataclass(frozen=True, slots=True)
class Timing:
    """When values are where, as they come from the input; zeros that stand for nothing do not count.

    Attributes:
        steps: Number of steps.
        unrolling: `biological`: no edge without delay joins two nodes that lie on cycles. `engineering`: edges without
            delay lead from the input to the output. Both may hold; where neither does, it is `mixed`.
        holds: Node -> the steps at which its value depends on the input.
        smallest: The smallest number of steps: one more than the first step at which an output depends on the input.
            None if none ever does.
        complete: The smallest number of steps with which every edge reaches the readout. None if there is none.
        silent: The edges that do not reach the readout.
        unfilled: The nodes whose value never depends on the input.
        readouts: The steps that come out.
    """

    steps: int
    unrolling: tuple[str, ...]
    holds: Mapping[str, tuple[int, ...]]
    smallest: int | None
    complete: int | None
    silent: tuple[EdgeRecord, ...]
    unfilled: tuple[NodeRecord, ...]
    readouts: tuple[int, ...]


def timing(folded: Graph) -> Timing:
    """The timing of a graph of one step.

    An edge reaches the readout if a value can go from the input through it to an output that is read. With
    `readout: last`, the last step is read, whatever their number.
    """
    assert folded.time is not None
    return _Timing(folded, folded.time).told()


def check(folded: Graph) -> list[Problem]:
    """What is wrong with the number of steps: too few for any output to depend on the input."""
    time = folded.time
    assert time is not None
    found = _Timing(folded, time)
    smallest = found.smallest()
    last = time.steps if time.readout in ("last", "all") else int(time.readout) + 1
    if smallest is None or last >= smallest:
        return []
    node = next(record for record in folded.records[0] if record.name in found.outputs)
    what = f"{time.steps} steps are too few" if last == time.steps else f"a readout at step {last - 1} is too early"
    message = f"{what}: the output '{node.name}' first depends on the input at step {smallest - 1}."
    hint = (
        f"Set 'time.steps' to {smallest} or more."
        if last == time.steps
        else f"Read out at step {smallest - 1} or later."
    )
    return [Problem(message, node.origin.position, node.origin.path, hint)]


def warnings(folded: Graph) -> tuple[Problem, ...]:
    """What is allowed and may not be meant: edges that reach no readout, and nodes that are never filled."""
    found = timing(folded)
    problems = [
        Problem(
            f"'{node.name}' never holds a value that comes from the input.",
            node.origin.position,
            node.origin.path,
            "Give it an edge, or leave it out.",
        )
        for node in found.unfilled
    ]
    empty = {node.name for node in found.unfilled}
    late: dict[str, list[EdgeRecord]] = {}
    for edge in found.silent:
        if not {edge.source, edge.target} & empty:
            late.setdefault(str(edge.origin.path), []).append(edge)
    for path, edges in late.items():
        names = ", ".join(f"{edge.ends[0]} -> {edge.ends[1]}" for edge in edges[:6])
        more = f" and {len(edges) - 6} more" if len(edges) > 6 else ""
        hint = f"From {found.complete} steps on, every edge does." if found.complete else "Read out at another step."
        verb = "does" if len(edges) == 1 else "do"
        message = f"with {found.steps} steps {names}{more} {verb} not reach the readout."
        problems.append(Problem(message, edges[0].origin.position, path, hint))
    return tuple(problems)


def along_flow(nodes: Iterable[NodeRecord], edges: Iterable[EdgeRecord]) -> tuple[NodeRecord, ...]:
    """Nodes in an order, for tables and diagrams, in which as many edges as can be lead on, though there are cycles.

    Next is the first node for which all sources of the flow and of edges without delay are there, and of the others at
    least one; or else the first one at all.
    """
    left = {node.name: node for node in nodes}
    all_of: dict[str, set[str]] = {name: set() for name in left}
    one_of: dict[str, set[str]] = {name: set() for name in left}
    for edge in edges:
        if edge.family != "shortcut" and edge.source != edge.target:
            one_of[edge.target].add(edge.source)
            if edge.delay == 0 or edge.family == "flow":
                all_of[edge.target].add(edge.source)
    found: dict[str, NodeRecord] = {}
    while left:
        done = found.keys()
        ready = (name for name in left if all_of[name] <= done and (not one_of[name] or one_of[name] & done))
        name = next(ready, next(iter(left)))
        found[name] = left.pop(name)
    return tuple(found.values())


def told(steps: tuple[int, ...]) -> str:
    """Steps in words, like `steps 3 to 6 and 9`."""
    parts = [str(first) if first == last else f"{first} to {last}" for first, last in runs(steps)]
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"step{'s' if len(steps) > 1 else ''} {listed}"


def brief(steps: Iterable[int]) -> str:
    """Steps for a table or a label, like `3-6, 9`; nothing for none."""
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs(steps))


def runs(steps: Iterable[int]) -> list[tuple[int, int]]:
    """Steps in rising order as runs without a gap: the first and the last of each."""
    found: list[tuple[int, int]] = []
    for step in steps:
        if found and found[-1][1] == step - 1:
            found[-1] = (found[-1][0], step)
        else:
            found.append((step, step))
    return found


class _Timing:
    """Steps as the bits of whole numbers: bit t is step t."""

    def __init__(self, folded: Graph, time: TimeSpec) -> None:
        self.folded, self.time = folded, time
        self.edges = [edge for edge in folded.records[1] if edge.family not in ("shortcut", "gate")]
        self.nodes = {record.name: record for record in folded.records[0]}
        self.inputs = {node.name for node in folded.inputs}
        values = {record.value: record.name for record in folded.records[0]}
        self.outputs = {values[value] for value in folded.outputs.values()}
        span = 2 * sum(edge.delay for edge in self.edges) + max(
            (max(e.at, default=0) for e in self.edges if e.at), default=0
        )
        self.limit = max(time.steps, min(span + 2, MOST_STEPS))
        self.everywhere = (1 << self.limit) - 1
        self.held = self._held()

    def _open(self, edge: EdgeRecord) -> int:
        return self.everywhere if edge.at is None else _bits(step for step in edge.at if step < self.limit)

    def _arrivals(self, edge: EdgeRecord, held: Mapping[str, int]) -> int:
        """The steps at which an edge brings a value."""
        bits = (held[edge.source] << edge.delay) & self._open(edge) & self.everywhere
        return bits & held[edge.gate] if edge.gate else bits

    def _held(self) -> dict[str, int]:
        held = dict.fromkeys(self.nodes, 0)
        start = 1 if self.time.input == "first" else self.everywhere
        held |= dict.fromkeys(self.inputs, start)
        readers: dict[str, list[EdgeRecord]] = {name: [] for name in self.nodes}
        for edge in self.edges:
            for source in {edge.source, edge.gate} - {""}:
                readers[source].append(edge)
        todo = dict.fromkeys(self.inputs)
        while todo:
            name = next(iter(todo))
            del todo[name]
            for edge in readers[name]:
                bits = held[edge.target] | self._arrivals(edge, held)
                if bits != held[edge.target]:
                    held[edge.target] = bits
                    todo[edge.target] = None
        return held

    def smallest(self) -> int | None:
        """One more than the first step at which an output depends on the input."""
        found = 0
        for name in self.outputs:
            found |= self.held[name]
        return (found & -found).bit_length() or None

    def _reach(self) -> list[int]:
        """For each edge, the steps of an output that its values can come to."""
        ahead: dict[str, list[int]] = {name: [0] * self.limit for name in self.nodes}
        leaving: dict[str, list[tuple[EdgeRecord, int]]] = {name: [] for name in self.nodes}
        for edge in self.edges:
            leaving[edge.source].append((edge, self._open(edge)))
        order = list(reversed(self._order()))
        for step in reversed(range(self.limit)):
            for name in order:
                bits = 1 << step if name in self.outputs else 0
                for edge, is_open in leaving[name]:
                    there = step + edge.delay
                    if there < self.limit and is_open >> there & 1:
                        bits |= ahead[edge.target][there]
                ahead[name][step] = bits
        found = []
        for edge in self.edges:
            bits, arrivals = 0, self._arrivals(edge, self.held)
            for step in _steps(arrivals):
                bits |= ahead[edge.target][step]
            found.append(bits)
        return found

    def _order(self) -> list[str]:
        """The nodes in the order of the edges without delay."""
        position = {name: i for i, name in enumerate(self.folded.order())}
        return sorted(self.nodes, key=lambda name: position[self.nodes[name].value])

    def _unrolling(self) -> tuple[str, ...]:
        instant = [edge for edge in self.edges if edge.delay == 0]
        reached = set(self.inputs)
        for name in self._order():
            if name in reached:
                reached |= {edge.target for edge in instant if edge.source == name}
        cyclic = self._on_cycles()
        kinds = []
        if not any(edge.source in cyclic and edge.target in cyclic for edge in instant):
            kinds.append("biological")
        if reached & self.outputs:
            kinds.append("engineering")
        return tuple(kinds) or ("mixed",)

    def _on_cycles(self) -> set[str]:
        """The nodes from which a path leads back to them."""
        ends: dict[str, set[str]] = {name: set() for name in self.nodes}
        starts: dict[str, set[str]] = {name: set() for name in self.nodes}
        for edge in self.edges:
            ends[edge.source].add(edge.target)
            starts[edge.target].add(edge.source)
        found = {name for name in self.nodes if name in ends[name]}
        left = set(self.nodes)
        while True:  # what has no edge in, or none out, is on no cycle; what lies between two cycles stays
            loose = {name for name in left if not (ends[name] & left and starts[name] & left)}
            if not loose:
                break
            left -= loose
        for name in left - found:
            seen, todo = set[str](), [name]
            while todo:
                after = (ends[todo.pop()] & left) - seen
                seen |= after
                todo += after
                if name in seen:
                    found.add(name)
                    break
        return found

    def told(self) -> Timing:
        steps, within = self.time.steps, (1 << self.time.steps) - 1
        reach = self._reach()
        outputs = 0
        for name in self.outputs:
            outputs |= self.held[name]
        if self.time.readout == "all":
            read = outputs & within if self.time.empty == "skip" else within
            reached = [bool(bits & within) for bits in reach]
            first = [(bits & -bits).bit_length() for bits in reach]
            complete = max(first, default=1) if all(first) else None
        else:
            read = 1 << (steps - 1 if self.time.readout == "last" else int(self.time.readout))
            reached = [bool(bits & read) for bits in reach]
            common = self.everywhere
            for bits in reach:
                common &= bits
            complete = (common & -common).bit_length() or None
            if self.time.readout != "last":
                complete = steps if all(reached) else None
        return Timing(
            steps=steps,
            unrolling=self._unrolling(),
            holds={name: _steps(bits & within) for name, bits in self.held.items()},
            smallest=self.smallest(),
            complete=complete,
            silent=tuple(edge for edge, does in zip(self.edges, reached, strict=True) if not does),
            unfilled=tuple(node for name, node in self.nodes.items() if not self.held[name] & within),
            readouts=_steps(read),
        )


def _bits(steps: Iterable[int]) -> int:
    bits = 0
    for step in steps:
        bits |= 1 << step
    return bits


def _steps(bits: int) -> tuple[int, ...]:
    return tuple(step for step in range(bits.bit_length()) if bits >> step & 1)
