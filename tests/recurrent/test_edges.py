"""Removed and reordered edges of random recurrent graphs."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import SpecError
from tests.recurrent.graphs import Sample, make


def without_one(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The spec without one of its edges, for each of them; and without its skips."""
    for i in range(len(spec.get("edges", ()))):
        yield {**spec, "edges": [edge for k, edge in enumerate(spec["edges"]) if k != i]}
    matrix = spec.get("transitions", {})
    for row, columns in matrix.items():
        for column in columns if row != "edges" else ():
            patched = copy.deepcopy(matrix)
            patched[row][column] = None
            yield {**spec, "transitions": patched}
    if "skips" in spec:
        yield {**spec, "skips": {**spec["skips"], "edges": "none"}}
        levels = spec["skips"]["levels"]
        yield {**spec, "skips": {**spec["skips"], "edges": f"full - {levels[0]}>{levels[1]}"}}


def parameters(arch: hrg.Architecture) -> dict[str, int]:
    return {name: tensor.elements for name, tensor in arch.plan.tensors().items()}


@pytest.mark.parametrize("seed", range(5000, 5030))
def test_removing_an_edge_never_adds_a_tensor(seed: int) -> None:
    """Nor a copy for a step: there are only fewer calls."""
    sample = make(seed)
    whole = parameters(sample.arch)
    for spec in without_one(sample.spec):
        try:
            rest = parameters(Sample(spec).arch)
        except SpecError as error:  # without the edge, the output is empty at the readout
            assert any(word in str(error) for word in ("readout", "too few", "path", "nothing", "not used")), error
            continue
        assert rest.keys() <= whole.keys()
        assert all(rest[name] <= whole[name] for name in rest)


def shuffled(spec: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The spec with chains, edges, and rows and columns of its transitions in another order."""
    spec = copy.deepcopy(spec)
    for key in ("flow", "edges"):
        if isinstance(spec.get(key), list):
            rng.shuffle(spec[key])
    if "transitions" in spec:
        rows = list(spec["transitions"].items())
        rng.shuffle(rows)
        for i, (row, columns) in enumerate(rows):
            if isinstance(columns, dict):
                entries = list(columns.items())
                rng.shuffle(entries)
                rows[i] = (row, dict(entries))
        spec["transitions"] = dict(rows)
    return spec


@pytest.mark.parametrize("seed", range(5100, 5140))
def test_the_order_of_edges_in_the_file_changes_nothing(seed: int) -> None:
    sample = make(seed)
    digest = sample.arch.plan.digest()
    for draw in range(3):
        assert Sample(shuffled(sample.spec, random.Random(draw))).arch.plan.digest() == digest


def test_removing_transitions_by_kind_removes_their_tensors() -> None:
    text = """
name: kinds
input: {channels: 2, height: 8, width: 8}
nodes:
  pre: {block: conv, width: 2}
  s1: {block: state, shape: [2, 8, 8]}
  s2: {block: state, shape: [3, 4, 4]}
  s3: {block: state, shape: [4, 2, 2]}
  post: {block: classifier, classes: 3}
flow: [pre -> s1, s3 -> post]
transitions:
  s1: {s1: brc2, s2: brc2, s3: brc2}
  s2: {s1: brd2, s2: brc2, s3: brc2}
  s3: {s1: brd2, s2: brd2, s3: brc2}
time: {steps: 6}
"""
    remaining = {
        "all": {"s1__s1", "s1__s2", "s1__s3", "s2__s1", "s2__s2", "s2__s3", "s3__s1", "s3__s2", "s3__s3"},
        "adjacent": {"s1__s1", "s1__s2", "s2__s1", "s2__s2", "s2__s3", "s3__s2", "s3__s3"},
        "all - feedback": {"s1__s1", "s1__s2", "s1__s3", "s2__s2", "s2__s3", "s3__s3"},
        "all - lateral": {"s1__s2", "s1__s3", "s2__s1", "s2__s3", "s3__s1", "s3__s2"},
        "forward - bypass": {"s1__s2", "s2__s3"},
        "s1>s3": {"s1__s3"},
    }
    for expression, names in remaining.items():
        arch = hrg.loads(text).with_edges(expression, "transitions")
        found = {name.split(".")[1] for name in arch.plan.tensors() if name.startswith("edges.")}
        assert found == names, expression
