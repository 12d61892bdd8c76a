"""GraphML files, as igraph, Gephi, yEd and networkx write them, as specs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import networkx as nx

from hiresnet_graph.blocks import BLOCKS
from hiresnet_graph.errors import UsageError, first_line
from hiresnet_graph.interop.networkx import spec_from_networkx
from hiresnet_graph.ops import OPS

_EDGE_FIELDS = ("delay", "slot")


def spec_from_graphml(
    path: Path,
    *,
    input: Mapping[str, int],
    block: Mapping[str, Any] | None = None,
    head: Mapping[str, Any] | None = None,
    steps: int | None = None,
) -> dict[str, Any]:
    """The spec, as plain data, of the graph in a GraphML file.

    Attributes that are fields of a spec are read: `block` and the fields of that block, of edges `delay` and `slot`.
    All others are left out. Names are changed to valid ones, and edges have the default projection.

    Args:
        input: Channels, height and width.
        block: Block and fields of nodes without the attribute `block`; fields of nodes with the same block that lack
            them.
        head, steps: As of `hrg.from_networkx`.

    Raises:
        UsageError: The file cannot be read, or the graph is undirected or empty, or has a cycle but no `steps`.
    """
    try:
        found = nx.read_graphml(path)
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error.strerror}.") from error
    except Exception as error:  # of the XML parser, of networkx, or of a number in the file
        line = (first_line(error) or type(error).__name__)[:200]
        raise UsageError(f"'{path}' is no GraphML file, or is damaged: {line}") from error
    graph: nx.DiGraph[Any] = nx.MultiDiGraph() if found.is_directed() else nx.Graph()  # type: ignore[assignment]
    graph.add_nodes_from((node, _node_fields(data, block or {})) for node, data in found.nodes(data=True))
    graph.add_edges_from((source, target, _edge_fields(data)) for source, target, data in found.edges(data=True))
    name = re.sub(r"\W+", "_", path.stem)
    return spec_from_networkx(
        graph, input=input, name=name, edge_default={"projection": {}}, head=head, rename=True, steps=steps
    )


def _node_fields(data: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    kind = data.get("block", default.get("block"))
    if kind not in BLOCKS and kind not in OPS:
        return {"block": kind} if kind == "input" else dict(default)
    known = (BLOCKS if kind in BLOCKS else OPS).get(kind).model_fields
    own = {name: value for name, value in data.items() if name in known}
    return {**(default if default.get("block") == kind else {}), "block": kind, **own}


def _edge_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in _EDGE_FIELDS if data.get(name)}
