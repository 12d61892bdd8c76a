"""Common-subexpression elimination: equal calls are computed once."""

from __future__ import annotations

from hiresnet_graph.graph import OpGraph


def cse(graph: OpGraph) -> OpGraph:
    """The graph with equal pure calls merged: a value that two skips pool alike is pooled once.

    Calls are equal if their operations and operands are, and their weights if they have tensors. The first call stays.
    Batch norm and dropout are never pure.
    """
    seen: dict[object, str] = {}
    stand_ins: dict[str, str] = {}
    for node in graph.nodes:
        if node.op is None or not node.op.pure:
            continue
        operands = tuple(stand_ins.get(operand, operand) for operand in node.operands)
        weights = node.weights if node.op.tensors(*graph.operand_shapes(node)) else ""
        first = seen.setdefault((node.op, operands, weights), node.name)
        if first != node.name:
            stand_ins[node.name] = first
    return graph.restricted(lambda name: name not in stand_ins, stand_ins) if stand_ins else graph
