"""The nodes and edges of a network with `time` that are computed at each step.

The unrolled plan has calls alone: a state at which a single value arrives has no call, and would be missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hiresnet_graph.graph import OpGraph
from hiresnet_graph.passes.step import Steps
from hiresnet_graph.passes.timing import InputMachine


@dataclass(frozen=True, slots=True)
class Trace:
    """What is computed and reaches a readout.

    Attributes:
        nodes: (node, step) -> whether the value depends on an input; otherwise it comes from zeros alone.
        edges: (edge, step at which its value arrives).
        outputs: (node, step) of the outputs.
    """

    nodes: Mapping[tuple[str, int], bool]
    edges: frozenset[tuple[str, int]]
    outputs: frozenset[tuple[str, int]]


def trace(folded: OpGraph) -> Trace:
    """The trace of a graph of one step."""
    time = folded.time
    assert time is not None
    values: list[dict[str, bool | None]] = []
    steps = Steps(folded, InputMachine(), lambda name, step: values[step][name] if step >= 0 else None)
    for step in range(time.steps):
        has_input = step == 0 or time.input != "first"
        values.append(steps.run(step, {node.name: True if has_input else None for node in folded.inputs}))
    read = range(time.steps) if time.readout == "all" else [time.steps - 1 if time.readout == "last" else time.readout]
    todo = [(name, step) for name in folded.outputs.values() for step in read if values[step][name] is not None]
    outputs = set(todo)
    needed = set(todo)
    while todo:
        name, step = todo.pop()
        node = folded[name]
        for operand in node.operands:
            source = (operand, step - node.delay)
            if source[1] >= 0 and source not in needed and values[source[1]][operand] is not None:
                needed.add(source)
                todo.append(source)
    owners: dict[tuple[str, int], bool] = {}
    for name, step in needed:
        key = (folded[name].owner or name, step)
        owners[key] = owners.get(key, False) or bool(values[step][name])
    node_of = {record.value: record.name for record in folded.records.nodes}
    nodes = set(node_of.values())
    return Trace(
        {(name, step): depends for (name, step), depends in sorted(owners.items()) if name in nodes},
        frozenset((name, step) for name, step in owners if name not in nodes),
        frozenset((node_of[name], step) for name, step in outputs),
    )
