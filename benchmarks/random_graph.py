"""Random layered graphs as specs, of any size: what `graph_size` validates."""

from __future__ import annotations

import itertools
import random
from typing import Any

WIDTH = 10


def random_spec(size: int, seed: int = 0) -> dict[str, Any]:
    """A spec of `size` nodes and about 3 edges a node: layers of 10 nodes, each with edges from 3 earlier nodes.

    Every node of a layer feeds the next one, so all nodes are reached and only the last layer has ends; a node `sum`
    joins these. Values have 2 channels of 4x4; a third of the nodes each is `conv`, `identity` and `relu`.
    """
    draw = random.Random(seed)
    names = [f"n{i}" for i in range(size - 1)]
    layers = [names[i : i + WIDTH] for i in range(0, len(names), WIDTH)]
    blocks: list[dict[str, Any]] = [
        {"block": "conv", "width": 2, "kernel_size": 1},
        {"block": "identity"},
        {"block": "relu"},
    ]
    nodes = {name: draw.choice(blocks) for name in names}
    pairs = [("input", name) for name in layers[0]]
    earlier = list(layers[0])
    for below, layer in itertools.pairwise(layers):
        feeders = draw.sample(below, len(below))
        for k, name in enumerate(layer):
            # A last layer with fewer nodes takes all that is left below it.
            chosen = feeders[k :: len(layer)]
            while len(chosen) < min(3, len(earlier)):
                other = draw.choice(earlier)
                if other not in chosen:
                    chosen.append(other)
            pairs += [(source, name) for source in chosen]
        earlier += layer
    nodes["sum"] = {"block": "identity"}
    pairs += [(name, "sum") for name in layers[-1]]
    return {
        "name": f"random{size}",
        "input": {"channels": 2, "height": 4, "width": 4},
        "nodes": nodes,
        "edges": [{"from": source, "to": target} for source, target in pairs],
    }
