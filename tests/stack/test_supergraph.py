"""Masks of subgraphs in a supergraph, and networks that are no subgraphs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.plan import Call, Plan
from hiresnet_graph.stack.supergraph import Mask, is_fold, mask_of

SETS = ("none", "full", "in", "out", "p1", "p2", "p3", "stem>stage2 + stage1>stage3", "full - p1")


def network(**changes: Any) -> hrg.Architecture:
    return hrg.load("hiresnet18").override({key.replace("__", "."): value for key, value in changes.items()})


def masked(supergraph: Plan, mask: Mask) -> dict[str, Call]:
    """A supergraph with a mask applied: without operands and calls that the subgraph lacks."""
    same: dict[str, str] = {}
    left: dict[str, Call] = {}
    for call in supergraph.calls:
        if call.name in mask.absent:
            continue
        keeps = mask.keeps(call)
        inputs = tuple(same.get(name, name) for name, retained in zip(call.inputs, keeps, strict=True) if retained)
        if len(inputs) == 1 < len(call.inputs):
            same[call.name] = inputs[0]
            continue
        shapes = tuple(shape for shape, retained in zip(call.input_shapes, keeps, strict=True) if retained)
        left[call.name] = replace(call, inputs=inputs, input_shapes=shapes)
    return left


def is_same(left: dict[str, Call], subgraph: Plan) -> bool:
    """Whether the calls equal those of a plan, but for the names of shared calls."""
    others = {call.name: call for call in subgraph.calls}
    names = dict(zip(left, others, strict=False))
    return len(left) == len(others) and all(
        (
            call.op,
            call.shape,
            call.weights if call.tensors else "",
            tuple(names.get(name, name) for name in call.inputs),
        )
        == (their.op, their.shape, their.weights if their.tensors else "", their.inputs)
        for call, their in ((left[name], others[names[name]]) for name in left)
    )


@pytest.mark.parametrize("block", ["plain", "basic", "resnext"])
@pytest.mark.parametrize("merge", ["add", "mean", "multiply", "weighted", "gated"])
def test_edge_subsets_are_masks_of_the_full_network(block: str, merge: str) -> None:
    arch = network(block=block, skips__merge=merge)
    supergraph = arch.with_edges("full").plan
    for edges in SETS:
        subgraph = arch.with_edges(edges).plan
        mask = mask_of(supergraph, subgraph)
        assert mask is not None
        assert is_same(masked(supergraph, mask), subgraph)
        assert (mask == Mask({}, frozenset())) == (subgraph.digest() == supergraph.digest())


@pytest.mark.parametrize("slot", ["input", "residual"])
def test_edges_into_any_slot(slot: str) -> None:
    arch = network(skips__slot=slot)
    supergraph = arch.with_edges("full").plan
    for edges in SETS:
        mask = mask_of(supergraph, arch.with_edges(edges).plan)
        assert mask is not None and is_same(masked(supergraph, mask), arch.with_edges(edges).plan)


def test_projections_without_weights() -> None:
    arch = network(skips__projection={"channels": "pad", "norm": "none"})
    supergraph = arch.with_edges("full").plan
    for edges in SETS:
        mask = mask_of(supergraph, arch.with_edges(edges).plan)
        assert mask is not None and is_same(masked(supergraph, mask), arch.with_edges(edges).plan)


def test_subsets_of_transitions() -> None:
    arch = hrg.load("frnn3")
    for edges in ("all - feedback", "all - lateral", "all - bypass"):
        subgraph = arch.override({"transitions.edges": edges}).plan
        mask = mask_of(arch.plan, subgraph)
        assert mask is not None and is_same(masked(arch.plan, mask), subgraph)


def test_a_plain_network_is_a_residual_one_without_shortcuts() -> None:
    supergraph = network(block="basic").with_edges("full").plan
    for edges in SETS:
        subgraph = network(block="plain").with_edges(edges).plan
        mask = mask_of(supergraph, subgraph)
        assert mask is not None and is_same(masked(supergraph, mask), subgraph)


def test_other_networks_have_no_mask() -> None:
    arch = network()
    full, some = arch.with_edges("full").plan, arch.with_edges("in").plan
    assert mask_of(some, full) is None  # the other way round
    assert mask_of(full, network(width=8).with_edges("in").plan) is None
    assert mask_of(full, network(classes=100).with_edges("in").plan) is None
    assert mask_of(full, network(skips__merge="mean").with_edges("in").plan) is None
    assert mask_of(full, hrg.load("hiresnet18_basic_adjusted").plan) is None
    assert mask_of(full, network(block="resnext", width=16).with_edges("in").plan) is None
    assert mask_of(full, network(**{"input.height": 16, "input.width": 16}).with_edges("in").plan) is None


def test_another_order_of_operands_has_no_mask() -> None:
    plan = network().with_edges("full").plan
    at, call = next((i, call) for i, call in enumerate(plan.calls) if is_fold(call) and len(call.inputs) > 2)
    turned = replace(call, inputs=(call.inputs[1], call.inputs[0], *call.inputs[2:]))
    other = replace(plan, calls=(*plan.calls[:at], turned, *plan.calls[at + 1 :]))
    assert mask_of(plan, plan) == Mask({}, frozenset())
    assert mask_of(plan, other) is None


def test_a_concatenation_cannot_be_masked() -> None:
    arch = hrg.load("densenet40")
    assert mask_of(arch.plan, arch.plan) == Mask({}, frozenset())
    wide = next(call for call in arch.plan.calls if call.op.kind == "concat" and len(call.inputs) > 1)
    assert not is_fold(wide)


def test_one_changed_field_has_no_mask() -> None:
    full = network().with_edges("full").plan
    for at, call in enumerate(full.calls):
        if call.op.kind == "batch_norm":
            changed = replace(call, op=call.op.model_copy(update={"momentum": 0.5}))
            other = replace(full, calls=(*full.calls[:at], changed, *full.calls[at + 1 :]))
            assert mask_of(full, other) is None
