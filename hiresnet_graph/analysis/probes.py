"""A network whose edges can be observed and changed while it computes.

Its plan has a probe where each edge arrives at its slot: after the block, the projection, the scale and the gate of the
edge, before the merge. The block's own value at a slot and its shortcut have probes too. Of the edges inside blocks
that the spec defines, shortcuts alone have probes, and only if they are requested.

Axes: B images of a batch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property

import torch
from torch import nn

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.errors import ExpressionError, UsageError, similar
from hiresnet_graph.graph import EdgeRecord
from hiresnet_graph.lower.interpreter import Interpreter, Visit
from hiresnet_graph.ops import EdgeProbe
from hiresnet_graph.passes import resolve
from hiresnet_graph.plan import Call, Plan, make_plan
from hiresnet_graph.spec.edge_set import EdgeSet

Compute = Callable[[Callable[[torch.Tensor], torch.Tensor], torch.Tensor], torch.Tensor]
"""Computes a function of a batch of images, for example in the precision of a recipe."""
SKIPS = ("skip", "edge")
"""Families of the edges beside the flow: groups of skips, and entries of `edges` and `transitions`."""


def skip_labels(edges: Iterable[EdgeRecord]) -> dict[str, str]:
    """Name of each edge beside the flow -> how edge sets write it, like `stem>stage2`; one of several by its name."""
    written = {edge.name: f"{edge.ends[0]}>{edge.ends[1]}" for edge in edges if edge.family in SKIPS}
    counts = Counter(written.values())
    return {name: text if counts[text] == 1 else name for name, text in written.items()}


def call_directly(function: Callable[[torch.Tensor], torch.Tensor], x_BCHW: torch.Tensor) -> torch.Tensor:
    """The function of the batch."""
    return function(x_BCHW)


class ProbedNetwork:
    """A network with a probe on each edge.

    Args:
        arch: The network.
        module: Built from it, with any weights, in evaluation mode. It is not changed.
        output: The name of the output that is looked at; by default the only one.
        inner: Whether the shortcuts inside blocks that the spec defines have probes, too.
    """

    def __init__(
        self, arch: Architecture, module: nn.Module, output: str | None = None, *, inner: bool = False
    ) -> None:
        self.arch, self.module, self._output = arch, module, output
        self.plan: Plan = make_plan(resolve(arch.graph, probes=True, inner_probes=inner))
        self.probes = tuple((call, call.op) for call in self.plan.calls if isinstance(call.op, EdgeProbe))
        self._interpreter = Interpreter(self.plan, module)

    @cached_property
    def edges(self) -> Mapping[str, EdgeRecord]:
        """The edges that are computed and have a probe, by name."""
        probed = {probe.edge for _, probe in self.probes}
        return {edge.name: edge for edge in self.plan.edges if edge.name in probed}

    @cached_property
    def labels(self) -> Mapping[str, str]:
        """Name of an edge -> how edge sets write it, like `stem>stage2`; a shortcut or one of several by its name."""
        written = {edge.name: f"{edge.ends[0]}>{edge.ends[1]}" for edge in self.edges.values()}
        everywhere = Counter(text for name, text in written.items() if self.edges[name].family != "shortcut")
        skips = skip_labels(self.edges.values())
        return {
            name: skips.get(name) or (text if self.edges[name].family != "shortcut" and everywhere[text] == 1 else name)
            for name, text in written.items()
        }

    @cached_property
    def skips(self) -> tuple[str, ...]:
        """The names of the edges that are not part of the flow, in the order of the network; shortcuts excepted."""
        return tuple(name for name, edge in self.edges.items() if edge.family in SKIPS)

    @cached_property
    def shortcuts(self) -> tuple[str, ...]:
        """The names of the shortcuts of blocks, in the order of the network."""
        return tuple(name for name, edge in self.edges.items() if edge.family == "shortcut")

    @cached_property
    def branches(self) -> tuple[str, ...]:
        """The names of the edges of the flow that lead into nodes with several of them, as own shortcuts do."""
        flow = {name: edge.target for name, edge in self.edges.items() if edge.family == "flow"}
        counts = Counter(flow.values())
        return tuple(name for name, target in flow.items() if counts[target] > 1)

    def select(self, text: str) -> tuple[str, ...]:
        """The names of the edges of a set, like `stem>stage3`, `in` or `full - p1`.

        A word selects among skips. `A>B` is the skips from A to B; where there are none, the edge of the flow, or the
        shortcut inside a block.

        Raises:
            UsageError: The set cannot be read, or selects no edge.
        """
        order = {node.name: i for i, node in enumerate(self.plan.nodes)}
        ends = {name: self.edges[name].ends for name in self.skips}
        flow = {name: edge.ends for name, edge in self.edges.items() if edge.family in ("flow", "shortcut")}
        position = {end: order.get(node, 0) for node, end in self._ends(self.skips)}
        levels = sorted(position, key=lambda end: position[end])

        named: set[tuple[str, str]] = set()

        def single(source: str, target: str) -> Iterable[tuple[str, str]]:
            named.add((source, target))
            return [(source, target)] if (source, target) in {*ends.values(), *flow.values()} else []

        try:
            chosen = EdgeSet.parse(text).select(levels, single)
        except ExpressionError as error:
            hint = f" {error.hint}" if error.hint else self._similar_edge(text)
            raise UsageError(
                f"edges '{text}', character {error.offset + 1}: {error.message}{hint}{self._known()}"
            ) from None
        found = [name for name, pair in ends.items() if pair in chosen]
        bare = chosen & named - set(ends.values())
        found += [name for name, pair in flow.items() if pair in bare]
        if not found:
            hint = self._similar_edge(text)
            raise UsageError(f"edges '{text}' selects no edge of '{self.arch.title}'.{hint}{self._known()}")
        return tuple(found)

    def _ends(self, names: Iterable[str]) -> list[tuple[str, str]]:
        """The nodes at the ends of edges, each with its name in edge sets."""
        found = []
        for name in names:
            edge = self.edges[name]
            found += [(edge.source, edge.ends[0]), (edge.target, edge.ends[1])]
        return found

    def _similar_edge(self, text: str) -> str:
        """The edge that an unknown one in a set was probably meant to be, as a sentence; empty if there is none."""
        labels = list(self.labels.values())
        unknown = (word for word in re.findall(r"[\w.]+>[\w.]+", text) if word not in labels)
        close = next(filter(None, (similar(word, labels) for word in unknown)), "")
        return f" Did you mean '{close}'?" if close else ""

    def _known(self) -> str:
        labels = [self.labels[name] for name in self.skips or self.branches]
        more = ", ..." if len(labels) > 12 else ""
        which = "edges beside the flow" if self.skips else "meeting edges of the flow"
        return (
            f" The {which} of '{self.arch.title}': {', '.join(labels[:12])}{more}."
            if labels
            else " All of its edges are one chain, the flow: name one by its ends, 'A>B'."
        )

    def run(
        self,
        x_BCHW: torch.Tensor,
        *,
        visit: Visit | None = None,
        keep: Collection[str] | None = None,
    ) -> dict[str, torch.Tensor]:
        """The values of calls for a batch of images; see `Interpreter.run`."""
        (name,) = self.plan.inputs
        return self._interpreter.run({name: x_BCHW}, visit=visit, keep=keep)

    def rerun(self, values: dict[str, torch.Tensor], calls: Iterable[Call], visit: Visit) -> torch.Tensor:
        """The output after some calls are computed again.

        Args:
            values: All operands of these calls that are not among them, and the output.
        """
        return self.output(self._interpreter.run(values, calls, visit=visit, keep=()))

    def output(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The output among the values of calls."""
        name = self._output or next(iter(self.plan.outputs))
        return values[self.plan.outputs[name]]

    def readers(self, names: Collection[str]) -> tuple[Call, ...]:
        """The calls with these names, and all that depend on them, in order."""
        found, calls = set(names), []
        for call in self.plan.calls:
            if call.name in found or not found.isdisjoint(call.inputs):
                found.add(call.name)
                calls.append(call)
        return tuple(calls)
