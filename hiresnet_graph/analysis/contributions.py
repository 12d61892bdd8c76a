"""How much each edge contributes to what arrives at a node: the mean absolute activations of Fig. 2 of the paper."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

from hiresnet_graph.analysis.probes import Compute, ProbedNetwork, call_directly
from hiresnet_graph.plan import Call

_RANK = {"function": 0, "shortcut": 1}
"""Order of the kinds of operands; edges follow."""


class Contribution(NamedTuple):
    """The contribution of one operand of a merge.

    Attributes:
        target: The node.
        slot: The slot where the values are merged.
        step: Time step; None in a network without `time`.
        edge: The edge as edge sets write it; for the block's own value, the name of the node.
        kind: `function` (the block's own value), `shortcut`, `skip`, `edge` or `flow`.
        mean_abs: Mean of |x| over all images, channels and positions of the value x that is merged.
        share: `mean_abs` divided by the sum over all operands of the merge; None if that is 0.
    """

    target: str
    slot: str
    step: int | None
    edge: str
    kind: str
    mean_abs: float
    share: float | None


class MergedValue(NamedTuple):
    """A value that is merged; fields as of `Contribution`.

    Attributes:
        call: Its probe.
    """

    call: Call
    target: str
    slot: str
    edge: str
    kind: str


def measure_contributions(
    network: ProbedNetwork, batches: Iterable[torch.Tensor], *, forward: Compute = call_directly
) -> list[Contribution]:
    """The contribution of each operand of each merge of two values or more.

    The operands of a merge are what a hook on it sees: the value F(x) of the block itself, its shortcut, and the value
    P(x) of each edge after its projection, scale and gate. For each, |x| is averaged over images, channels and
    positions; the shares of a merge sum to 1. A mean or a learned scale of the merge is not more than that: the
    division of the merge `mean` is the same for all operands, and learned scales belong to the edges. In a network in
    time, each step is a merge of its own; numbers are not summed over steps.

    Args:
        batches: Batches of images [B, channels, height, width], as the network expects them.
        forward: See `Compute`.

    Source: López & Triesch 2025, Fig. 2 ("average absolute activations of projections and residuals in each block").
    """
    merges = operands_of(network)
    names = {one.call.name for operands in merges for one in operands}
    sums: dict[str, float] = dict.fromkeys(names, 0.0)
    counts = dict.fromkeys(names, 0)

    def visit(call: Call, value: torch.Tensor) -> torch.Tensor:
        if call.name in names:
            sums[call.name] += value.abs().sum(dtype=torch.float64).item()
            counts[call.name] += value.numel()
        return value

    for x_BCHW in batches:
        forward(lambda x: network.output(network.run(x, visit=visit, keep=())), x_BCHW)
    means = {name: sums[name] / counts[name] if counts[name] else 0.0 for name in names}
    found = []
    for operands in merges:
        total = sum(means[one.call.name] for one in operands)
        for call, target, slot, edge, kind in operands:
            mean = means[call.name]
            found.append(Contribution(target, slot, call.step, edge, kind, mean, mean / total if total else None))
    return found


def operands_of(network: ProbedNetwork) -> list[tuple[MergedValue, ...]]:
    """The operands of each merge of two values or more, by step and target in the order of the network."""
    groups: dict[tuple[str, str, int | None], list[MergedValue]] = {}
    for call, probe in network.probes:
        edge = network.edges.get(probe.edge)
        name = probe.target if edge is None else network.labels[edge.name]
        kind = "function" if edge is None else edge.family
        key = (probe.target, probe.slot, call.step)
        groups.setdefault(key, []).append(MergedValue(call, probe.target, probe.slot, name, kind))
    order = {node.name: i for i, node in enumerate(network.plan.nodes)}
    found = [
        tuple(sorted(group, key=lambda one: _RANK.get(one.kind, 2))) for group in groups.values() if len(group) > 1
    ]
    return sorted(found, key=lambda group: (group[0].call.step or 0, order.get(group[0].target, 0)))
