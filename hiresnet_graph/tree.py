"""The modules of a network: which calls of a plan are made by which `nn.Module`.

Each node, stage and block of the spec is a module, also each projection and each part of a block with layers of its
own. A module computes consecutive calls of the plan, so that nesting changes the order of no call, and therefore no bit
of an output or a gradient:

- The merge at the slot `input` of a node belongs to the module above. The merges at the other slots belong to the node.
- A projection is called where it stands in the plan: by the node in which it ends, if that has begun, and otherwise by
  the module above. What comes from outside is a further argument.
- A layer whose name lies outside of the module that calls it is passed as an argument, and so is the module `edges`
  with the projections.

A stage or block whose calls are not consecutive is no module: what is in it is called by the module above. A node that
computes nothing (a state, an identity) is a module that returns its input. A node that is a single layer is that layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from hiresnet_graph.graph import EdgeRecord, NodeRecord
from hiresnet_graph.ops import Identity
from hiresnet_graph.plan import Call, Plan, layers_by_weight

_SLOTS = ("input", "residual", "output")
_NEVER_MODULES = frozenset({"edges", *_SLOTS})
StepValue = tuple[int | None, str]
"""A time step (None without `time`) and the name of a value."""
_INNER_STEP = re.compile(r"step[0-9]+")


@dataclass(frozen=True, slots=True)
class ModuleUse:
    """One call of a module.

    Attributes:
        path: Address of the module; empty for the network.
        step: The time step; None in a network without `time`.
        items: The calls that it makes, in the order of the plan. Without any, it returns its input.
        inputs: Names of the values that it takes, in the order of first use.
        outputs: Names of the values that it returns: its own value, then inner values that are read outside.
        modules: Addresses of what it calls outside of it: layers, and modules with projections.
        node: The node of the spec that it is, or empty.
    """

    path: str
    step: int | None
    items: tuple[Call | ModuleUse, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    modules: tuple[str, ...]
    node: str = ""

    def __deepcopy__(self, memo: dict[int, object]) -> ModuleUse:
        return self

    def all(self) -> Iterator[ModuleUse]:
        """This call and all calls of modules in it, the inner ones first."""
        for item in self.items:
            if isinstance(item, ModuleUse):
                yield from item.all()
        yield self


class ModuleTree(NamedTuple):
    """The modules of a network.

    Attributes:
        root: The network itself.
        values: Node -> (time step, name of its value in `root`), for each step at which it has one.
    """

    root: ModuleUse
    values: dict[str, tuple[StepValue, ...]]


def make_tree(plan: Plan, layers: Iterable[str] | None = None) -> ModuleTree:
    """The modules of a plan.

    Args:
        layers: Addresses of the existing layers (default: those of the plan).
    """
    taken = frozenset(layers_by_weight(plan) if layers is None else layers)
    return _Nesting(plan, taken).tree()


def values_of(item: Call | ModuleUse) -> tuple[str, ...]:
    """The names of the values of an item."""
    return item.outputs if isinstance(item, ModuleUse) else (item.name,)


def is_alias(name: str) -> bool:
    """Whether a value is that of a node that computes nothing."""
    return "@" in name


def container_of(path: str) -> str:
    """The address of the module that contains another."""
    return path.rpartition(".")[0]


def is_below(address: str, path: str) -> bool:
    """Whether an address lies inside a module."""
    return not path or address.startswith(f"{path}.")


class _Nesting:
    """Finds the modules that make each call.

    Attributes:
        calls: The calls of the plan and of nodes that compute nothing.
        chains: For each call, the addresses of the modules that make it, the outermost first.
    """

    def __init__(self, plan: Plan, layers: frozenset[str]) -> None:
        self.plan, self.layers = plan, layers
        self.is_timed = any(record.at_steps for record in plan.nodes)
        self.nodes = {record.name: record for record in plan.nodes if record.block != "input"}
        self.edges = {edge.name: edge for edge in plan.edges}
        self.first_blocks: dict[str, str] = {}
        for record in self.nodes.values():
            self.first_blocks.setdefault(record.stage, record.name)
        self.calls = list(plan.calls)
        self.started: set[tuple[str, int | None]] = set()
        self.chains = [self._chain(call) for call in self.calls]
        passing = PassingNodes(plan, self.nodes, self.edges, {path for chain in self.chains for path in chain})
        self.calls, self.outputs = passing.read(self.calls), passing.outputs()
        self._insert(passing.used_by([*(name for call in self.calls for name in call.inputs), *self.outputs]))
        self.values = passing.values
        self.spans = self._spans()

    def _around(self, node: str) -> tuple[str, ...]:
        record = self.nodes.get(node)
        return (record.stage,) if record is not None and record.stage else ()

    def _before(self, node: str) -> tuple[str, ...]:
        """The modules that merge the values at the input of a node; that of a stage is the input of its first block."""
        around = self._around(node)
        return () if around and self.first_blocks[around[0]] == node else around

    def _chain(self, call: Call) -> tuple[str, ...]:
        """The modules that make the next call of the plan."""
        owner, name = call.owner, call.name.removesuffix(f".step{call.step}")
        if call.step is None and self.is_timed:
            return ()  # zeros, which belong to an input, and the steps of an output as one tensor
        edge = self.edges.get(owner)
        if edge is not None and edge.family != "shortcut":
            target = edge.target
            own = (*self._around(target), target) if (target, call.step) in self.started else self._before(target)
            return (*own, owner, *_parts(name, owner)) if is_below(name, owner) else own
        node = owner if edge is None else edge.target
        if node not in self.nodes:
            return ()  # the frame of a step, which belongs to an input
        if name.startswith(f"{node}.input."):
            return self._before(node)
        self.started.add((node, call.step))
        return (*self._around(node), node, *_parts(name, node))

    def _insert(self, passing: Sequence[Call]) -> None:
        """Place the calls of nodes that compute nothing before their first reader, as early as nesting requires."""
        index = {call.name: i for i, call in enumerate(self.calls)}
        first: dict[str, int] = {}
        for i, call in enumerate(self.calls):
            for name in call.inputs:
                first.setdefault(name, i)
        starts: dict[tuple[str, int | None], int] = {}
        for i, (call, chain) in enumerate(zip(self.calls, self.chains, strict=True)):
            for path in chain:
                starts.setdefault((path, call.step), i)
        placed: list[tuple[int, Call]] = []
        for call in reversed(passing):
            position = first.get(call.name, len(self.calls))
            if position < len(self.calls):
                around, reader = self._around(call.owner), self.chains[position]
                outer = next((path for path, own in zip(reader, (*around, ""), strict=False) if path != own), "")
                start = starts.get((outer, self.calls[position].step), position)
                position = start if start > index.get(call.inputs[0], -1) else position
            first[call.inputs[0]] = min(position, first.get(call.inputs[0], position))
            placed.append((position, call))
        for position, call in sorted(placed, key=lambda pair: -pair[0]):
            self.calls.insert(position, call)
            self.chains.insert(position, (*self._around(call.owner), call.owner))

    def _spans(self) -> dict[tuple[str, int | None], tuple[int, int]]:
        """The first and last call of each module at each step; the chains lose all other modules."""
        members: dict[tuple[str, int | None], list[int]] = {}
        with_layers: set[str] = {record.stage for record in self.nodes.values()} | self.nodes.keys()
        with_layers |= {edge.name for edge in self.edges.values() if edge.family == "shortcut"}
        for i, (call, chain) in enumerate(zip(self.calls, self.chains, strict=True)):
            for path in chain:
                members.setdefault((path, call.step), []).append(i)
            if call.op.layer(*call.input_shapes) is not None:
                with_layers.update(chain)
        scattered = {path for (path, _), found in members.items() if found[-1] - found[0] + 1 != len(found)}
        omitted = scattered | self.layers | {path for path, _ in members if path not in with_layers}
        self.chains = [tuple(path for path in chain if path not in omitted) for chain in self.chains]
        return {key: (found[0], found[-1]) for key, found in members.items()}

    def tree(self) -> ModuleTree:
        """The modules, from the network down."""
        self.last_reader = {name: i for i, call in enumerate(self.calls) for name in call.inputs}
        self.results = set(self.outputs)
        items = self._items(0, len(self.calls) - 1, 0)
        root = ModuleUse("", None, items, tuple(self.plan.inputs), self.outputs, ())
        return ModuleTree(root, self.values)

    def _items(self, start: int, end: int, depth: int) -> tuple[Call | ModuleUse, ...]:
        items: list[Call | ModuleUse] = []
        i = start
        while i <= end:
            call, chain = self.calls[i], self.chains[i]
            if len(chain) > depth:
                last = self.spans[chain[depth], call.step][1]
                items.append(self._module(chain[depth], i, last, depth + 1))
                i = last
            else:
                items.append(call)
            i += 1
        return tuple(items)

    def _module(self, path: str, start: int, end: int, depth: int) -> ModuleUse:
        step = self.calls[start].step
        items = self._items(start, end, depth)
        made = [call.name for call in self.calls[start : end + 1]]
        own = set(made)
        read = dict.fromkeys(name for call in self.calls[start : end + 1] for name in call.inputs if name not in own)
        outputs = [name for name in made if name in self.results or self.last_reader.get(name, -1) > end]
        record = self._record(path, end)
        value = dict(self.values[record.name]).get(step) if record is not None else None
        value = value if value in outputs else outputs[-1]
        called = dict.fromkeys(address for item in items for address in self._called(item, path))
        if start == end and is_alias(made[0]):
            items = ()
        return ModuleUse(
            path,
            step,
            items,
            tuple(read),
            (value, *(name for name in outputs if name != value)),
            tuple(called),
            path if path in self.nodes else "",
        )

    def _record(self, path: str, end: int) -> NodeRecord | None:
        """The node that a module is, or the last node of a stage."""
        if path in self.nodes:
            return self.nodes[path]
        owner = self.calls[end].owner
        node = self.nodes.get(self.edges[owner].target if owner in self.edges else owner)
        return node if node is not None and node.stage == path else None

    def _called(self, item: Call | ModuleUse, path: str) -> Iterator[str]:
        """The addresses outside of a module that it needs for an item."""
        if isinstance(item, ModuleUse):
            found = item.modules if is_below(item.path, path) else (container_of(item.path), *item.modules)
        else:
            found = (item.weights,) if item.op.layer(*item.input_shapes) is not None else ()
        return (address for address in found if not is_below(address, path))


def _parts(name: str, owner: str) -> tuple[str, ...]:
    """The addresses of the modules inside a node or an edge that make a call."""
    parts = name[len(owner) + 1 :].split(".")
    *parts, last = parts
    if _INNER_STEP.fullmatch(last):
        return ()  # in a block with its own `time`, layers are called directly
    if parts and parts[-1] in _SLOTS:
        parts = parts[: -2 if parts[-1] == "input" else -1]
    paths = (".".join((owner, *parts[: k + 1])) for k, part in enumerate(parts) if part not in _NEVER_MODULES)
    return tuple(paths)


class PassingNodes:
    """Nodes that compute nothing: their value is that of another call, which they return.

    Attributes:
        calls: Their calls, in the order of steps and nodes.
        values: Node -> (time step, name of its value), for all nodes.
    """

    def __init__(
        self, plan: Plan, nodes: dict[str, NodeRecord], edges: dict[str, EdgeRecord], computing: set[str]
    ) -> None:
        self.plan, self.edges = plan, edges
        self.is_timed = any(record.at_steps for record in plan.nodes)
        self.incoming: dict[str, list[EdgeRecord]] = {}
        for edge in plan.edges:
            if edge.family != "shortcut":
                self.incoming.setdefault(edge.target, []).append(edge)
        self.values: dict[str, tuple[StepValue, ...]] = {
            record.name: record.at_steps or ((None, record.value),) for record in plan.nodes
        }
        self.aliases: dict[str, list[tuple[str, int | None, str]]] = {}
        found: list[Call] = []
        for name, record in nodes.items():
            if name in computing:
                continue
            named: list[StepValue] = []
            for step, value in self.values[name]:
                alias = f"{name}@" if step is None else f"{name}@.step{step}"
                named.append((step, alias))
                self.aliases.setdefault(value, []).append((name, step, alias))
                shape = record.shape
                found.append(Call(alias, Identity(), (value,), (shape,), shape, name, name, record.origin, step))
            self.values[name] = tuple(named)
        order = {name: i for i, name in enumerate(nodes)}
        found.sort(key=lambda call: (call.step or 0, order[call.owner]))
        self.calls = [self._read(call) for call in found]

    def read(self, calls: Iterable[Call]) -> list[Call]:
        """Calls that read the values of these nodes where an edge leads from them."""
        return list(calls) if not self.aliases else [self._read(call) for call in calls]

    def used_by(self, read: Iterable[str]) -> list[Call]:
        """The calls whose values are read; for other steps, the value of a node is the one that it would return."""
        used, found = set(read), []
        for call in reversed(self.calls):
            if call.name in used:
                used.add(call.inputs[0])
                found.append(call)
            else:
                held = self.values[call.owner]
                self.values[call.owner] = tuple((step, call.inputs[0] if v == call.name else v) for step, v in held)
        return found[::-1]

    def outputs(self) -> tuple[str, ...]:
        """The values of the outputs."""
        found = []
        for name, value in self.plan.outputs.items():
            own = [alias for node, _, alias in self.aliases.get(value, ()) if node == name]
            found.append(own[-1] if own else value)
        return tuple(found)

    def _read(self, call: Call) -> Call:
        if self.aliases.keys().isdisjoint(call.inputs):
            return call
        inputs: list[str] = []
        for k, value in enumerate(call.inputs):
            sources = self._sources(call, value) if value in self.aliases else []
            occurrence = call.inputs[:k].count(value)
            inputs.append(sources[min(occurrence, len(sources) - 1)] if sources else value)
        return replace(call, inputs=tuple(inputs))

    def _sources(self, call: Call, value: str) -> list[str]:
        """The names under which a call can read a value: one for each edge that brings it."""
        if call.step is None and self.is_timed:
            ends: list[tuple[str, int | None]] = [(call.owner, None)]
        else:
            ends = [
                (node, edge.delay)
                for edge in self._edges_of(call)
                for node in (edge.source, *([edge.gate] if edge.gate else []))
            ]
        found = []
        for node, delay in ends:
            for name, step, alias in self.aliases[value]:
                is_now = call.step is None or delay is None or step is None or step == call.step - delay
                if name == node and is_now and alias != call.name:
                    found.append(alias)
            if all(name != node for name, *_ in self.aliases[value]) and value in (
                held for _, held in self.values.get(node, ())
            ):
                found.append(value)
        return found

    def _edges_of(self, call: Call) -> list[EdgeRecord]:
        """The edges that can bring the operands of a call."""
        edge = self.edges.get(call.owner)
        if edge is not None and edge.family != "shortcut":
            return [edge]
        node = call.owner if edge is None else edge.target
        edges = self.incoming.get(node, [])
        slot = next((slot for slot in _SLOTS if call.name.startswith(f"{node}.{slot}.")), "input")
        return sorted(edges, key=lambda edge: edge.slot != slot)
