"""GraphML files, as igraph, Gephi, yEd and networkx write them, as specs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import networkx as nx

from hiresnet_graph.blocks import BLOCKS
from hiresnet_graph.errors import Problem, SpecError, UsageError, did_you_mean, first_line
from hiresnet_graph.interop.networkx import node_names, spec_from_networkx
from hiresnet_graph.ops import OPS

_EDGE_FIELDS = ("delay", "slot")
_POSITIONS = re.compile(r" \((?:'\w+' is at dict:[\d:]+(?:; |\.))+\)")
"""Where the ends of an edge are in the text of the spec, in a message."""


@dataclass(frozen=True)
class ImportedGraph:
    """The spec of a GraphML file, as plain data.

    Attributes:
        ids: The name of a node in the spec -> its id in the file.
    """

    path: Path
    spec: dict[str, Any]
    ids: Mapping[str, str]

    def located(self, error: SpecError) -> SpecError:
        """The problems of the spec by the file and the ids of its nodes and edges, since nobody wrote the spec."""
        return SpecError(map(self._located, error.problems), error.omitted)

    def _located(self, problem: Problem) -> Problem:
        place, rest = "", problem.path
        if found := re.fullmatch(r"nodes\.(\w+)(.*)", problem.path, re.DOTALL):
            place, rest = f"node '{self.ids.get(found[1], found[1])}'", found[2]
        elif found := re.fullmatch(r"edges\[(\d+)\](.*)", problem.path, re.DOTALL):
            edge = self.spec["edges"][int(found[1])]
            place = " -> ".join(f"'{self.ids.get(edge[end], edge[end])}'" for end in ("from", "to"))
            place, rest = f"edge {place}", found[2]
        path = ", ".join(filter(None, (place, rest.removeprefix("."))))
        return replace(
            problem,
            message=_POSITIONS.sub("", problem.message),
            position=None,
            path=f"{self.path}: {path}" if path else str(self.path),
            related=(),
        )


def spec_from_graphml(
    path: Path,
    *,
    input: Mapping[str, int],
    block: Mapping[str, Any] | None = None,
    head: Mapping[str, Any] | None = None,
    steps: int | None = None,
) -> ImportedGraph:
    """The spec of the graph in a GraphML file.

    Attributes that are fields of a spec are read: `block` and the fields of that block, of edges `delay` and `slot`.
    All others are left out, and so are empty texts and NaN, which stand for no value. A number without a fraction is a
    whole number, whatever its type in the file. Names are changed to valid ones, and edges have the default projection.

    Args:
        input: Channels, height and width.
        block: Block and fields of nodes without the attribute `block`; fields of nodes with the same block that lack
            them.
        head, steps: As of `hrg.from_networkx`.

    Raises:
        UsageError: The file cannot be read, or the graph is undirected or empty, or has a cycle but no `steps`; or a
            node has a block that does not exist.
    """
    try:
        found = nx.read_graphml(path)
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error.strerror}.") from error
    except Exception as error:  # of the XML parser, of networkx, or of a number in the file
        line = (first_line(error) or type(error).__name__)[:200]
        raise UsageError(f"'{path}' is no GraphML file, or is damaged: {line}") from error
    graph: nx.DiGraph[Any] = nx.MultiDiGraph() if found.is_directed() else nx.Graph()  # type: ignore[assignment]
    graph.add_nodes_from((node, _node_fields(node, data, block or {}, path)) for node, data in found.nodes(data=True))
    graph.add_edges_from((source, target, _edge_fields(data)) for source, target, data in found.edges(data=True))
    name = re.sub(r"\W+", "_", path.stem)
    spec = spec_from_networkx(
        graph, input=input, name=name, edge_default={"projection": {}}, head=head, rename=True, steps=steps
    )
    return ImportedGraph(path, spec, {name: str(node) for node, name in node_names(graph, rename=True).items()})


def _node_fields(node: object, data: Mapping[str, Any], default: Mapping[str, Any], path: Path) -> dict[str, Any]:
    own_kind = data["block"] if "block" in data and _is_given(data["block"]) else None
    if own_kind == "input" or (own_kind is None and node == "input"):
        return {"block": "input"}
    kind = str(default.get("block", "") if own_kind is None else own_kind)
    if kind not in BLOCKS and kind not in OPS:
        if own_kind is not None:
            hint = did_you_mean(kind, [*BLOCKS, *OPS])
            message = f"'{path}': the node '{node}' has the block '{kind}', which does not exist."
            raise UsageError(f"{message} {hint}".rstrip())
        return dict(default)
    known = (BLOCKS if kind in BLOCKS else OPS).get(kind).model_fields
    own = {name: _value(value) for name, value in data.items() if name in known and _is_given(value)}
    return {**(default if default.get("block") == kind else {}), "block": kind, **own}


def _edge_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(data[name]) for name in _EDGE_FIELDS if name in data and _is_given(data[name])}


def _is_given(value: Any) -> bool:
    """Whether a value is more than what other programs write where there is none."""
    return value != "" and not (isinstance(value, float) and math.isnan(value))


def _value(value: Any) -> Any:
    """A value, as a whole number if it is one: igraph writes every number as `double`."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
