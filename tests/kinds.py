"""Networks of one node, for each family of shapes that its block or operation accepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import hiresnet_graph as hrg
from hiresnet_graph.errors import SpecError
from hiresnet_graph.ops import OPS, Activation
from hiresnet_graph.shapes import Map, Shape, Tokens, Vector

SHAPES: tuple[Shape, ...] = (Map(8, 7, 9), Tokens(24, 12, (4, 6)), Tokens(26, 12, (4, 6), 2), Vector(8))


def network_of(fields: Mapping[str, Any], shape: Shape) -> hrg.Architecture:
    return hrg.from_dict({"name": "net", "input": input_of(shape), "nodes": {"a": fields}, "flow": "input -> a"})


def input_of(shape: Shape) -> dict[str, Any]:
    """The entry of a spec for an input of a shape."""
    if isinstance(shape, Map):
        return {"channels": shape.channels, "height": shape.height, "width": shape.width}
    if isinstance(shape, Tokens):
        grid = {"length": shape.length} if shape.grid is None else {"grid": list(shape.grid)}
        return {"channels": shape.channels, **grid, "prefix": shape.prefix}
    return {"channels": shape.channels}


def accepted(fields: Mapping[str, Any]) -> list[Shape]:
    """The shapes that a block or an operation accepts: a map, tokens and a vector; of an activation the first alone."""
    kind, found = fields["block"], []
    for shape in SHAPES:
        if found and kind in OPS and issubclass(OPS.get(kind), Activation):
            break
        if isinstance(found[0] if found else None, Map) and (isinstance(shape, Vector) or len(found) > 1):
            continue
        try:
            network_of(fields, shape).plan  # noqa: B018
        except SpecError:
            continue
        found.append(shape)
    assert found, f"no shape is accepted by {fields}"
    return found
