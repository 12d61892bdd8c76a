"""When values are where in a network with `time`: which way it is unrolled, and how many steps it needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hiresnet_graph.errors import Problem, SpecError
from hiresnet_graph.graph import EdgeRecord, Graph, Node, NodeRecord
from hiresnet_graph.passes.step import StepMachine, Steps, anchor_name
from hiresnet_graph.shapes import Shape
from hiresnet_graph.spec.model import TimeSpec

MOST_CALLS = 1_000_000
"""Calls in all steps up to which is looked for a number of steps with which every edge reaches the readout."""

MOST_NAMES = 12
"""Edges that a warning names."""


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
    return _Timing(folded, folded.time).result()


def check(folded: Graph) -> None:
    """Hold the number of steps against what the outputs need.

    Raises:
        SpecError: There are too few for any output to depend on the input.
    """
    time = folded.time
    assert time is not None
    first = _Timing(folded, time).first()
    last = time.steps - 1 if time.readout in ("last", "all") else int(time.readout)
    if first is None or last >= first:
        return
    node = next(record for record in folded.records[0] if record.value in folded.outputs.values())
    few = last == time.steps - 1
    what = (
        f"{time.steps} step{' is' if time.steps == 1 else 's are'} too few"
        if few
        else f"a readout at step {last} is too early"
    )
    message = f"{what}: the output '{node.name}' first depends on the input at step {first}."
    hint = f"Set 'time.steps' to {first + 1} or more." if few else f"Read out at step {first} or later."
    raise SpecError([Problem(message, node.origin.position, node.origin.path, hint)])


def warnings(folded: Graph) -> tuple[Problem, ...]:
    """What is allowed and may not be meant: edges that reach no readout, and nodes that are never filled."""
    found = timing(folded)
    problems = [
        Problem(
            f"'{node.name}' never holds a value that depends on the input.",
            node.origin.position,
            node.origin.path,
            "Give it an edge, or remove it.",
        )
        for node in found.unfilled
    ]
    empty = {node.name for node in found.unfilled}
    silent = [edge for edge in found.silent if not {edge.source, edge.target} & empty]
    shut = [edge for edge in silent if edge.at is not None and not _brings(edge, found)]
    for edge in shut:
        could = tuple(step + edge.delay for step in found.holds[edge.source] if step + edge.delay < found.steps)
        when = f"values could arrive at {format_steps(could)}" if could else "no value can arrive in time"
        message = f"{edge.ends[0]} -> {edge.ends[1]} is open only at {format_steps(edge.at or ())}, and {when}."
        problems.append(Problem(message, edge.origin.position, edge.origin.path, "Change 'at', or remove it."))
    late = [edge for edge in silent if edge not in shut]
    if late:
        names = ", ".join(f"{edge.ends[0]} -> {edge.ends[1]}" for edge in late[:MOST_NAMES])
        more = f" and {len(late) - MOST_NAMES} more" if len(late) > MOST_NAMES else ""
        steps = f"{found.steps} step{'' if found.steps == 1 else 's'}"
        message = f"with {steps} {names}{more} {'does' if len(late) == 1 else 'do'} not reach the readout."
        hint = (
            f"With {found.complete} steps or more, every edge does." if found.complete else "Read out at another step."
        )
        problems.append(Problem(message, late[0].origin.position, late[0].origin.path, hint))
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


def _brings(edge: EdgeRecord, found: Timing) -> bool:
    """Whether a value arrives on an edge while it is open."""
    return any(
        step + edge.delay in (edge.at or ()) for step in found.holds[edge.source] if step + edge.delay < found.steps
    )


def format_steps(steps: tuple[int, ...]) -> str:
    """Steps in words, like `steps 3 to 6 and 9`."""
    parts: list[str] = []
    for first, last in runs(steps):
        parts += [f"{first} to {last}"] if last > first + 1 else map(str, dict.fromkeys((first, last)))
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"step{'s' if len(steps) > 1 else ''} {listed}"


def format_step_ranges(steps: Iterable[int]) -> str:
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


class InputMachine(StepMachine[bool]):
    """Whether a value depends on the input; zeros that stand for nothing do not."""

    def call(self, node: Node, operands: list[bool], step: int) -> bool:
        """It does if an operand does."""
        return any(operands)

    def zeros(self, shape: Shape) -> bool:
        """They do not."""
        return False


class _Timing:
    """The calls of a graph of one step at each step: True if a value depends on the input, None where it is empty."""

    def __init__(self, folded: Graph, time: TimeSpec) -> None:
        self.folded, self.time = folded, time
        self.edges = [edge for edge in folded.records[1] if edge.family not in ("shortcut", "gate")]
        self.outputs = set(folded.outputs.values())
        self.values: list[dict[str, bool | None]] = []
        self.steps = Steps(
            folded, InputMachine(), lambda name, step: self.values[step][name] if 0 <= step < len(self.values) else None
        )
        span = 2 * sum(edge.delay for edge in self.edges) + max(
            (max(edge.at) for edge in self.edges if edge.at), default=0
        )
        self.limit = max(time.steps, min(span + 2, MOST_CALLS // len(folded)))

    def run(self, steps: int) -> None:
        """Go on until so many steps are done."""
        for step in range(len(self.values), steps):
            given = None if self.time.input == "first" and step else True
            self.values.append(self.steps.run(step, {node.name: given for node in self.folded.inputs}))

    def first(self) -> int | None:
        """The first step at which an output depends on the input; None if there is none within the limit."""
        for step in range(self.limit):
            self.run(step + 1)
            if any(self.values[step][name] for name in self.outputs):
                return step
        return None

    def _ahead(self) -> list[dict[str, int]]:
        """For each step and call, the steps at which its value comes to an output, as the bits of a number."""
        readers: dict[str, list[tuple[str, int]]] = {node.name: [] for node in self.folded.nodes}
        for edge in self.folded.edges:
            readers[edge.source].append((edge.target, edge.delay))
        order = list(reversed(self.folded.order()))
        ahead: list[dict[str, int]] = [{} for _ in range(self.limit)]
        for step in reversed(range(self.limit)):
            for name in order:
                if self.values[step][name] is None:
                    continue
                bits = 1 << step if name in self.outputs else 0
                for reader, delay in readers[name]:
                    if step + delay < self.limit:
                        bits |= ahead[step + delay].get(reader, 0)
                if bits:
                    ahead[step][name] = bits
        return ahead

    def _reach(self) -> list[int]:
        """For each edge, the steps of an output that its values from the input come to."""
        ahead, found = self._ahead(), []
        for edge in self.edges:
            bits, end = 0, anchor_name(edge.name)
            for step in range(self.limit):
                if self.values[step][end]:
                    bits |= ahead[step].get(end, 0)
            found.append(bits)
        return found

    def _unrolling(self) -> tuple[str, ...]:
        instant = [edge for edge in self.edges if edge.delay == 0]
        after: dict[str, set[str]] = {}
        for edge in instant:
            after.setdefault(edge.source, set()).add(edge.target)
        reached = _from(after, (node.name for node in self.folded.inputs))
        cyclic = on_cycles((edge.source, edge.target) for edge in self.edges)
        kinds = []
        if not any(edge.source in cyclic and edge.target in cyclic for edge in instant):
            kinds.append("biological")
        if any(record.name in reached for record in self.folded.records[0] if record.value in self.outputs):
            kinds.append("engineering")
        return tuple(kinds) or ("mixed",)

    def result(self) -> Timing:
        """All of it."""
        self.run(self.limit)
        steps, within = self.time.steps, (1 << self.time.steps) - 1
        out = [step for step in range(steps) if any(self.values[step][name] is not None for name in self.outputs)]
        reach = self._reach()
        if self.time.readout == "all":
            readouts = tuple(out)
            reached = [bool(bits & within) for bits in reach]
            firsts = [(bits & -bits).bit_length() for bits in reach]
            complete = max(firsts, default=1) if all(firsts) else None
        else:
            readouts = (steps - 1 if self.time.readout == "last" else int(self.time.readout),)
            reached = [bool(bits >> readouts[0] & 1) for bits in reach]
            common = (1 << self.limit) - 1
            for bits in reach:
                common &= bits
            complete = (common & -common).bit_length() or None
            if self.time.readout != "last":
                complete = steps if all(reached) else None
        first = self.first()
        holds = {
            record.name: tuple(step for step in range(steps) if self.values[step][record.value])
            for record in self.folded.records[0]
        }
        return Timing(
            steps=steps,
            unrolling=self._unrolling(),
            holds=holds,
            smallest=None if first is None else first + 1,
            complete=complete,
            silent=tuple(edge for edge, does in zip(self.edges, reached, strict=True) if not does),
            unfilled=tuple(record for record in self.folded.records[0] if not holds[record.name]),
            readouts=readouts,
        )


def on_cycles(edges: Iterable[tuple[str, str]]) -> set[str]:
    """The ends of edges from which a path leads back to them."""
    after: dict[str, set[str]] = {}
    before: dict[str, set[str]] = {}
    for source, target in edges:
        after.setdefault(source, set()).add(target)
        before.setdefault(target, set()).add(source)
    left = after.keys() & before.keys()
    while loose := {name for name in left if not (after[name] & left and before[name] & left)}:
        left -= loose  # no edge into it or none out of it: on no cycle; what lies between two cycles stays
    return {name for name in left if name in _from(after, after[name])}


def _from(after: Mapping[str, set[str]], starts: Iterable[str]) -> set[str]:
    """What can be reached, the starts included."""
    seen = set(starts)
    todo = list(seen)
    while todo:
        new = after.get(todo.pop(), set()) - seen
        seen |= new
        todo += new
    return seen
