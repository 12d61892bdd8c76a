"""Units: the calls of a plan that become calls of a class, usually those of one node or edge.

A group of calls can become a unit if it has layers or is a node, if only one of its values is read outside, if no other
call uses its weights (unless the same group is called again), and if all its inputs can be computed before it. Other
calls are written one by one, so that any plan can be emitted.

In a network with `time`, the calls of one node at one step are a group, and the groups of all steps are calls of one
object: `in_steps` prefixes the names of calls with the step, and replaces it by `*` in the names of weights with a copy
for each step, so that these groups are equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import networkx as nx

from hiresnet_graph.ops import Layer
from hiresnet_graph.plan import Call, Plan, layers_by_weight
from hiresnet_graph.shapes import Shape
from hiresnet_graph.traversal import topological_order

ANY_STEP = "*"
"""In unit_of of `step<t>` at the end of the name of weights that have a copy for each step."""


def in_steps(plan: Plan) -> Plan:
    """The plan with calls named `step<t>/<call>`, and copies of weights named `<weights>.*`."""
    folded = plan.folded
    if folded is None:
        return plan

    def named(name: str, step: int | None) -> str:
        return name if step is None else f"step{step}/{name.removesuffix(f'.step{step}')}"

    def weights(call: Call) -> str:
        stem = call.weights.removesuffix(f".step{call.step}")
        own = call.name.removesuffix(f".step{call.step}")
        is_copy = call.tensors and call.step is not None and own in folded and folded[own].weights != call.weights
        return f"{stem}.{ANY_STEP}" if is_copy else call.weights

    names = {call.name: named(call.name, call.step) for call in plan.calls}
    names |= {name: name for name in plan.inputs}
    calls = (
        replace(
            call,
            name=names[call.name],
            inputs=tuple(names[name] for name in call.inputs),
            weights=weights(call),
        )
        for call in plan.calls
    )
    outputs = {name: names[value] for name, value in plan.outputs.items()}
    nodes = (replace(node, value=names[node.value]) for node in plan.nodes)
    return replace(plan, calls=tuple(calls), outputs=outputs, nodes=tuple(nodes))


def without_step(name: str) -> str:
    """The name of a call without its step."""
    return name.rpartition("/")[2]


def weights_name(call: Call) -> str:
    """The name of the weights of a call in the `state_dict`."""
    return f"{call.weights.removesuffix(ANY_STEP)}step{call.step}" if is_copy(call.weights) else call.weights


def is_copy(weights: str) -> bool:
    """Whether weights have a copy for each step."""
    return weights.endswith(f".{ANY_STEP}")


@dataclass(frozen=True, slots=True)
class Unit:
    """Calls that become one call of a class.

    Attributes:
        name: Prefix of the names of its calls.
        weights: Prefix of the names of its weights.
        items: Its calls and inner units, in execution order.
        inputs: The values that it reads.
        output, shape: The value that is read outside.
        first: Index in the plan of its first call with a layer.
        sensitive: Its order among other such items matters, since it draws random numbers, or changes a buffer that
            others change, too.
        step: The time step; None in a network without `time`.
        steps: The steps with copies of its weights; if there are any, its `forward` takes the step.
    """

    name: str
    weights: str
    items: tuple[Item, ...]
    inputs: tuple[str, ...]
    input_shapes: tuple[Shape, ...]
    output: str
    shape: Shape
    first: int
    sensitive: bool
    step: int | None = None
    steps: tuple[int, ...] = ()

    def is_shortcut(self, item: Item) -> bool:
        """Whether an item is the shortcut of the unit, a module that is passed in."""
        return (
            isinstance(item, Unit)
            and (item.name, item.weights) == (f"{self.name}.shortcut", f"{self.weights}.shortcut")
            and len(item.inputs) == 1
        )

    @property
    def height(self) -> int:
        """The nesting depth of its inner units, shortcuts not counted."""
        inner = [item.height + (not self.is_shortcut(item)) for item in self.items if isinstance(item, Unit)]
        return max(inner, default=0)


Item = Call | Unit


def value_of(item: Item) -> str:
    """The name of the value of an item."""
    return item.output if isinstance(item, Unit) else item.name


@dataclass(frozen=True, slots=True)
class _CallGroup:
    """Calls with a common prefix of their names, as indices in the plan."""

    name: str
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Candidate(_CallGroup):
    """A group with one output.

    Attributes:
        group: The original group, of which calls at the ends may be omitted.
    """

    weights: str
    output: str
    group: _CallGroup


class Units:
    """The units of a plan.

    Attributes:
        items: Calls and units, in execution order.
        layers: Call -> layer, if it has one.
        functional: Calls that run as a function of the weights of another layer.
        copies: Weights `<weights>.*` -> the steps that have a copy.
    """

    def __init__(self, plan: Plan) -> None:
        self.calls = plan.calls
        self.layers: dict[str, Layer] = {}
        for call in plan.calls:
            layer = call.op.layer(*call.input_shapes)
            if layer is not None:
                self.layers[call.name] = layer
        self._layered = {i for i, call in enumerate(plan.calls) if call.name in self.layers}
        layers = layers_by_weight(plan)
        self.functional = {
            call.name
            for call in plan.calls
            if call.name in self.layers and layers[call.weights][0] != self.layers[call.name]
        }
        self._index = {call.name: i for i, call in enumerate(plan.calls)}
        self._readers: list[list[int]] = [[] for _ in plan.calls]
        for i, call in enumerate(plan.calls):
            for name in call.inputs:
                if name in self._index:
                    self._readers[self._index[name]].append(i)
        self._returned = {self._index[name] for name in plan.outputs.values() if name in self._index}
        self._users = Counter(call.weights for call in plan.calls if call.name in self.layers)
        self.copies = self._copies()
        self._below: Counter[str] = Counter()
        for weights, count in self._users.items():
            for prefix in _prefixes(weights):
                self._below[prefix] += count
        self._sensitive = {i for i, call in enumerate(plan.calls) if self._is_sensitive(call)}
        self._after = dict(zip(sorted(self._sensitive)[1:], sorted(self._sensitive), strict=False))
        self._nodes = {node.name for node in plan.nodes if node.name not in plan.inputs}
        self._wholes = {*self._nodes, *(node.stage for node in plan.nodes), *(edge.name for edge in plan.edges)}
        self.items = self._arrange(range(len(plan.calls)), self._owned(plan), "")

    def _copies(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, dict[int, None]] = {}
        for call in self.calls:
            if is_copy(call.weights) and call.step is not None:
                found.setdefault(call.weights, {})[call.step] = None
        return {weights: tuple(steps) for weights, steps in found.items()}

    def _is_sensitive(self, call: Call) -> bool:
        is_only_user = self._users[call.weights] == len(self.copies.get(call.weights, (0,)))
        has_own_buffers = call.op.normalizes and bool(call.tensors) and is_only_user
        return not call.op.pure and not has_own_buffers

    def _owned(self, plan: Plan) -> list[_CallGroup]:
        """The calls of each stage, of each other node (with its shortcut) and of each edge, at each step."""
        owners = {edge.name: edge.source for edge in plan.edges if edge.family == "shortcut"}
        stages = {node.name: node.stage for node in plan.nodes if node.stage}
        members: dict[str, list[int]] = {}
        for i, call in enumerate(plan.calls):
            owner = owners.get(call.owner, call.owner)
            owner = stages.get(owner, owner)
            members.setdefault(call.name.removesuffix(without_step(call.name)) + owner if owner else "", []).append(i)
        return [_CallGroup(name, tuple(found)) for name, found in members.items() if name]

    def _arrange(self, body: Sequence[int], groups: Iterable[_CallGroup], inside: str) -> tuple[Item, ...]:
        """The calls of a body as items; `inside` is the prefix of all its weights."""
        found = self._candidates(groups, inside)
        while stuck := self._stuck(body, found):
            rest = [part for k in stuck for part in self._parts(found[k].group)]
            found = self._candidates(rest, inside, [found[k] for k in range(len(found)) if k not in stuck])
        units = [self._unit(candidate) for candidate in found]
        unit_of = {i: k for k, candidate in enumerate(found) for i in candidate.members}
        items: dict[int, Item] = {}
        for i in body:
            items.setdefault(self._key(i, unit_of), units[unit_of[i]] if i in unit_of else self.calls[i])
        return tuple(self._ordered(body, unit_of, items))

    @staticmethod
    def _key(i: int, unit_of: dict[int, int]) -> int:
        """A negative key for all calls of a unit, another key for each other call."""
        return -1 - unit_of[i] if i in unit_of else i

    def _dependencies(self, body: Sequence[int], unit_of: dict[int, int]) -> set[tuple[int, int]]:
        inside = set(body)
        found = set()
        for i in body:
            before = [self._index[name] for name in self.calls[i].inputs if name in self._index]
            if i in self._after:
                before.append(self._after[i])
            target = self._key(i, unit_of)
            found |= {(self._key(j, unit_of), target) for j in before if j in inside}
        return {(source, target) for source, target in found if source != target}

    def _stuck(self, body: Sequence[int], found: list[_Candidate]) -> set[int]:
        """The candidates that would have to run both before and after another item."""
        unit_of = {i: k for k, candidate in enumerate(found) for i in candidate.members}
        graph: nx.DiGraph[int] = nx.DiGraph(self._dependencies(body, unit_of))
        loops = (part for part in nx.strongly_connected_components(graph) if len(part) > 1)
        return {-1 - key for part in loops for key in part if key < 0}

    def _ordered(self, body: Sequence[int], unit_of: dict[int, int], items: dict[int, Item]) -> list[Item]:
        """Items in topological order; among free items, the first in the plan comes first."""
        first: dict[int, int] = {}
        for i in body:
            first.setdefault(self._key(i, unit_of), i)
        keys = sorted(items, key=first.__getitem__)
        index = {key: i for i, key in enumerate(keys)}
        successors: list[list[int]] = [[] for _ in keys]
        for source, target in self._dependencies(body, unit_of):
            successors[index[source]].append(index[target])
        return [items[keys[i]] for i in topological_order(successors)]

    def _candidates(
        self, groups: Iterable[_CallGroup], inside: str, known: Iterable[_Candidate] = ()
    ) -> list[_Candidate]:
        """The groups that can become units, or the parts of them that can."""
        found, todo = list(known), list(groups)
        while todo:
            rest: list[_CallGroup] = []
            for group in todo:
                candidate = self._candidate(group, inside)
                if candidate is None:
                    rest += self._parts(group)
                else:
                    found.append(candidate)
            clashing = self._clashing(found)
            found = [candidate for candidate in found if candidate.weights not in clashing]
            todo = rest + [part for several in clashing.values() for one in several for part in self._parts(one.group)]
        return sorted(found, key=lambda candidate: candidate.members[0])

    def _parts(self, group: _CallGroup) -> list[_CallGroup]:
        """A group split by the next part of the names."""
        start = len(group.name) + 1
        parts: dict[str, list[int]] = {}
        for i in group.members:
            name = self.calls[i].name
            end = name.find(".", start)
            if name.startswith(f"{group.name}.") and end > 0:
                parts.setdefault(name[:end], []).append(i)
        return [_CallGroup(name, tuple(members)) for name, members in parts.items()]

    def _candidate(self, group: _CallGroup, inside: str) -> _Candidate | None:
        """A group without merges at its ends and calls shared with others; None if it cannot become a unit."""
        name = group.name
        if without_step(name) in self._nodes and self._layered.isdisjoint(group.members):
            return self._function(group)
        parts = self._parts(group)
        is_whole = without_step(name) in self._wholes
        if len(parts) == 1 and len(parts[0].members) == len(group.members) and not is_whole:
            return None
        if any(not self.calls[i].name.startswith(f"{name}.") for i in group.members):
            return None
        ends = (f"{name}.input.", f"{name}.output.")
        inner = [i for i in group.members if i in self._layered or not self.calls[i].name.startswith(ends)]
        members = set(inner)
        if len(self._exits(members)) > 1:
            read_outside = self._exits(set(group.members))
            members = set()
            for i in inner:
                leading = all(self._index.get(source) not in members for source in self.calls[i].inputs)
                if i in self._layered or not (leading and i in read_outside):
                    members.add(i)
        layers = [self.calls[i].weights for i in sorted(members & self._layered)]
        stems = [name.removesuffix(f".{ANY_STEP}") for name in layers if is_copy(name)]
        is_shortcut = name.endswith(".shortcut")
        if not members or not (is_shortcut or (layers and (is_whole or len(members) > 1))):
            return None
        exits = self._exits(members)
        weights = _common_weights(without_step(name), layers)
        if len(exits) != 1 or not weights or (inside and not weights.startswith(f"{inside}.")):
            return None
        if weights in self._users or any(s in self._users or not s.startswith(f"{weights}.") for s in stems):
            return None
        if any(self.calls[i].name in self.functional for i in members):
            return None
        return _Candidate(name, tuple(sorted(members)), weights, self.calls[exits[0]].name, group)

    def _function(self, group: _CallGroup) -> _Candidate | None:
        """A node without layers, like a pooling; the merge at its input is that of its reader."""
        name = group.name
        members = tuple(i for i in group.members if not self.calls[i].name.startswith(f"{name}.input."))
        exits = self._exits(set(members))
        if len(exits) != 1 or without_step(name) in self._users:
            return None
        if not all(self.calls[i].inputs and not self.calls[i].tensors for i in members):
            return None
        return _Candidate(name, members, without_step(name), self.calls[exits[0]].name, group)

    def _exits(self, members: set[int]) -> list[int]:
        """The calls whose values are read outside."""
        return [
            i
            for i in sorted(members)
            if i in self._returned or any(reader not in members for reader in self._readers[i])
        ]

    def _clashing(self, found: list[_Candidate]) -> dict[str, list[_Candidate]]:
        """The candidates that would share weights with other calls, by the prefix of their weights."""
        by_weights: dict[str, list[_Candidate]] = {}
        for candidate in found:
            by_weights.setdefault(candidate.weights, []).append(candidate)
        clashing = {}
        for weights, several in by_weights.items():
            used = sum(i in self._layered for one in several for i in one.members)
            are_equal = len(several) == 1 or len({self._fingerprint(one) for one in several}) == 1
            if used != self._below[weights] or not are_equal:
                clashing[weights] = several
        return clashing

    def _fingerprint(self, candidate: _Candidate) -> object:
        """Equal for two groups that can be two calls of one object."""
        start = len(candidate.name)
        own = {self.calls[i].name for i in candidate.members}
        outer: dict[str, int] = {}
        found = []
        for i in candidate.members:
            call = self.calls[i]
            inputs = tuple(name[start:] if name in own else outer.setdefault(name, len(outer)) for name in call.inputs)
            weights = call.weights[len(candidate.weights) :] if i in self._layered else ""
            form = self.layers.get(call.name) or call.op.apply(*call.input_shapes)
            found.append((call.name[start:], inputs, weights, repr(form)))
        return (tuple(found), candidate.output[start:])

    def _unit(self, candidate: _Candidate) -> Unit:
        members = candidate.members
        group = _CallGroup(candidate.name, members)
        items = self._arrange(members, self._parts(group), candidate.weights)
        own = {value_of(item) for item in items}
        inputs: dict[str, Shape] = {}
        for item in items:
            for name, shape in zip(item.inputs, item.input_shapes, strict=True):
                if name not in own:
                    inputs.setdefault(name, shape)
        return Unit(
            candidate.name,
            candidate.weights,
            items,
            tuple(inputs),
            tuple(inputs.values()),
            candidate.output,
            self.calls[self._index[candidate.output]].shape,
            min(self._layered.intersection(members), default=members[0]),
            any(i in self._sensitive for i in members),
            self.calls[members[0]].step,
            next((self.copies[name] for i in members if is_copy(name := self.calls[i].weights)), ()),
        )

    def first(self, item: Item) -> int:
        """Index in the plan of the first call with weights of an item."""
        return item.first if isinstance(item, Unit) else self._index[item.name]

    def is_sensitive(self, item: Item) -> bool:
        """Whether the order of an item among other such items matters."""
        return item.sensitive if isinstance(item, Unit) else self._index[item.name] in self._sensitive


def _prefixes(name: str) -> Iterable[str]:
    end = name.find(".")
    while end > 0:
        yield name[:end]
        end = name.find(".", end + 1)


def _common_weights(name: str, layers: list[str]) -> str:
    """The common prefix of the names of weights in a group."""
    if all(weights.startswith(f"{name}.") for weights in layers):
        return name
    common: list[str] = []
    stems = (weights.removesuffix(f".{ANY_STEP}").split(".")[:-1] for weights in layers)
    for parts in zip(*stems, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join(common)
