"""Timing of a network in time: when nodes hold values, how it is unrolled, and how many steps it needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hiresnet_graph.errors import Problem, SpecError
from hiresnet_graph.formats import format_count
from hiresnet_graph.graph import EdgeRecord, NodeRecord, OpGraph, OpNode
from hiresnet_graph.passes.limits import MAX_TIMED_CALLS
from hiresnet_graph.passes.step import StepMachine, Steps, anchor_name
from hiresnet_graph.shapes import Shape
from hiresnet_graph.spec.model import TimeSpec
from hiresnet_graph.traversal import reachable

MAX_NAMES = 12
"""Limit on the edges that a warning names."""


@dataclass(frozen=True, slots=True)
class Timing:
    """When nodes hold values that depend on the input. Zeros in place of empty values do not count.

    Attributes:
        steps: Number of steps.
        unrolling: `biological`: no edge without delay connects two nodes on cycles. `engineering`: edges without delay
            form a path from the input to the output. Both may hold; if neither does, it is `mixed`.
        holds: Node -> the steps at which its value depends on the input.
        smallest: The smallest number of steps with which an output depends on the input; None if there is none.
        complete: The smallest number of steps with which every edge reaches the readout; None if there is none.
        silent: The edges that do not reach the readout.
        unfilled: The nodes whose value never depends on the input.
        readouts: The steps whose values are returned.
    """

    steps: int
    unrolling: tuple[str, ...]
    holds: Mapping[str, tuple[int, ...]]
    smallest: int | None
    complete: int | None
    silent: tuple[EdgeRecord, ...]
    unfilled: tuple[NodeRecord, ...]
    readouts: tuple[int, ...]


def timing(folded: OpGraph) -> Timing:
    """The timing of a one-step graph.

    An edge reaches the readout if a value can flow from the input through it to an output at a readout step. With
    `readout: last`, that is the last step for any number of steps.
    """
    assert folded.time is not None
    return _Timing(folded, folded.time).result()


def check_steps(folded: OpGraph) -> None:
    """Check that there are enough steps for the outputs.

    Raises:
        SpecError: With so few steps, no output depends on the input.
    """
    time = folded.time
    assert time is not None
    first = _Timing(folded, time).first()
    last = time.steps - 1 if time.readout in ("last", "all") else int(time.readout)
    if first is None or last >= first:
        return
    node = next(record for record in folded.records.nodes if record.value in folded.outputs.values())
    few = last == time.steps - 1
    what = (
        f"{time.steps} step{' is' if time.steps == 1 else 's are'} too few"
        if few
        else f"a readout at step {last} is too early"
    )
    message = f"{what}: the output '{node.name}' first depends on the input at step {first}."
    hint = f"Set 'time.steps' to {first + 1} or more." if few else f"Read out at step {first} or later."
    raise SpecError([Problem(message, node.origin.position, node.origin.path, hint)])


def warnings(folded: OpGraph) -> tuple[Problem, ...]:
    """What is valid but probably unintended: edges that reach no readout, and nodes that are never filled."""
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
    closed = [edge for edge in silent if edge.at is not None and not {*edge.at} & {*_arrivals(edge, found)}]
    for edge in closed:
        could = _arrivals(edge, found)
        when = f"values could arrive at {format_steps(could)}" if could else "no value can arrive in time"
        message = f"{edge.ends[0]} -> {edge.ends[1]} is open only at {format_steps(edge.at or ())}, and {when}."
        problems.append(Problem(message, edge.origin.position, edge.origin.path, "Change 'at', or remove it."))
    late = [edge for edge in silent if edge not in closed]
    if late:
        names = ", ".join(f"{edge.ends[0]} -> {edge.ends[1]}" for edge in late[:MAX_NAMES])
        more = f" and {len(late) - MAX_NAMES} more" if len(late) > MAX_NAMES else ""
        steps = format_count(found.steps, "step")
        message = f"with {steps} {names}{more} {'does' if len(late) == 1 else 'do'} not reach the readout."
        hint = (
            f"With {found.complete} steps or more, every edge does." if found.complete else "Read out at another step."
        )
        problems.append(Problem(message, late[0].origin.position, late[0].origin.path, hint))
    return tuple(problems)


def along_flow(nodes: Iterable[NodeRecord], edges: Iterable[EdgeRecord]) -> tuple[NodeRecord, ...]:
    """The order of nodes in tables and diagrams, in which most edges lead forwards even if there are cycles.

    The next node is the first one after all its sources by flow or without delay and after at least one of the others;
    if there is none, the first that is left.
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


def _arrivals(edge: EdgeRecord, found: Timing) -> list[int]:
    """The steps at which values of an edge could arrive if it was always open."""
    return [step + edge.delay for step in found.holds[edge.source] if step + edge.delay < found.steps]


def format_steps(steps: Sequence[int]) -> str:
    """Steps as a phrase, like `steps 3 to 6 and 9`."""
    parts: list[str] = []
    for first, last in _ranges(steps):
        parts += [f"{first} to {last}"] if last > first + 1 else map(str, dict.fromkeys((first, last)))
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"step{'s' if len(steps) > 1 else ''} {listed}"


def format_step_ranges(steps: Iterable[int]) -> str:
    """Steps for a table or a label, like `3-6, 9`; empty for none."""
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in _ranges(steps))


def _ranges(steps: Iterable[int]) -> list[tuple[int, int]]:
    """The first and last step of each range without a gap, for steps in ascending order."""
    found: list[tuple[int, int]] = []
    for step in steps:
        if found and found[-1][1] == step - 1:
            found[-1] = (found[-1][0], step)
        else:
            found.append((step, step))
    return found


class InputMachine(StepMachine[bool]):
    """Whether a value depends on the input: it does if an operand does, and zeros do not."""

    def call(self, node: OpNode, operands: list[bool], step: int) -> bool:
        """Whether an operand does."""
        return any(operands)

    def zeros(self, shape: Shape) -> bool:
        """False."""
        return False


class _Timing:
    """The nodes of a one-step graph at each step: True if the value depends on the input, None where it is empty."""

    def __init__(self, folded: OpGraph, time: TimeSpec) -> None:
        self.folded, self.time = folded, time
        self.edges = [edge for edge in folded.records.edges if edge.family not in ("shortcut", "gate")]
        self.outputs = set(folded.outputs.values())
        self.values: list[dict[str, bool | None]] = []
        self.steps = Steps(
            folded, InputMachine(), lambda name, step: self.values[step][name] if 0 <= step < len(self.values) else None
        )
        span = 2 * sum(edge.delay for edge in self.edges) + max(
            (max(edge.at) for edge in self.edges if edge.at), default=0
        )
        self.limit = max(time.steps, min(span + 2, MAX_TIMED_CALLS // len(folded)))

    def run(self, steps: int) -> None:
        """Compute steps until `steps` of them are done."""
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
        """For each step and node, the steps at which its value reaches an output, as the bits of a number."""
        readers: dict[str, list[tuple[str, int]]] = {node.name: [] for node in self.folded.nodes}
        for node in self.folded.nodes:
            for operand in node.operands:
                readers[operand].append((node.name, node.delay))
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
        """For each edge, the steps at which its values from the input reach an output, as the bits of a number."""
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
        reached = reachable((node.name for node in self.folded.inputs), lambda name: after.get(name, ()))
        cyclic = on_cycles((edge.source, edge.target) for edge in self.edges)
        kinds = []
        if not any(edge.source in cyclic and edge.target in cyclic for edge in instant):
            kinds.append("biological")
        if any(record.name in reached for record in self.folded.records.nodes if record.value in self.outputs):
            kinds.append("engineering")
        return tuple(kinds) or ("mixed",)

    def result(self) -> Timing:
        """The timing."""
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
            for record in self.folded.records.nodes
        }
        return Timing(
            steps=steps,
            unrolling=self._unrolling(),
            holds=holds,
            smallest=None if first is None else first + 1,
            complete=complete,
            silent=tuple(edge for edge, does in zip(self.edges, reached, strict=True) if not does),
            unfilled=tuple(record for record in self.folded.records.nodes if not holds[record.name]),
            readouts=readouts,
        )


def on_cycles(edges: Iterable[tuple[str, str]]) -> set[str]:
    """The nodes from which a path of these edges leads back to them."""
    after: dict[str, set[str]] = {}
    before: dict[str, set[str]] = {}
    for source, target in edges:
        after.setdefault(source, set()).add(target)
        before.setdefault(target, set()).add(source)
    left = after.keys() & before.keys()
    while loose := {name for name in left if not (after[name] & left and before[name] & left)}:
        left -= loose  # without an edge in or out, a node is on no cycle; nodes between two cycles remain
    return {name for name in left if name in reachable(after[name], lambda name: after.get(name, ()))}
