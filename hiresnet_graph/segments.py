"""A network in consecutive parts, for activation checkpointing: what passes between them is stored, the rest is not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from hiresnet_graph.plan import Call, Plan
from hiresnet_graph.tree import ModuleUse, make_tree

Segment = tuple[Call | ModuleUse, ...]
"""Consecutive calls of a network, some of them made by modules."""


def step_segments(root: ModuleUse, every: int) -> tuple[Segment, ...]:
    """Parts of `every` time steps; an item without a step belongs to the part of the item before it."""
    number, numbers = 0, []
    for item in root.items:
        number = number if item.step is None else item.step // every
        numbers.append(number)
    pairs = zip(root.items, numbers, strict=True)
    return tuple(tuple(item for item, _ in group) for _, group in groupby(pairs, lambda pair: pair[1]))


def block_segments(root: ModuleUse) -> tuple[Segment, ...]:
    """A part for each block, with the merges, projections and single layers before it; the last has all after it."""
    segments: list[list[Call | ModuleUse]] = [[]]
    for item in _without_stages(root):
        segments[-1].append(item)
        if isinstance(item, ModuleUse) and item.node and item.items:
            segments.append([])
    *blocks, rest = segments
    if rest and blocks:
        blocks[-1] += rest
    return tuple(map(tuple, blocks or [rest]))


def calls_by_block(plan: Plan) -> tuple[tuple[Call, ...], ...]:
    """The calls of a plan, in the parts of `block_segments`."""
    return _calls_by_segment(plan, block_segments(make_tree(plan).root))


def calls_by_step(plan: Plan, every: int) -> tuple[tuple[Call, ...], ...]:
    """The calls of a plan, in the parts of `step_segments`."""
    return _calls_by_segment(plan, step_segments(make_tree(plan).root, every))


def _calls_by_segment(plan: Plan, segments: Sequence[Segment]) -> tuple[tuple[Call, ...], ...]:
    number = {call.name: i for i, segment in enumerate(segments) for call in _calls(segment)}
    groups = groupby(plan.calls, lambda call: number[call.name])
    return tuple(tuple(calls) for _, calls in groups)


def _without_stages(module: ModuleUse) -> Iterator[Call | ModuleUse]:
    """The items of a module, with those of a stage in place of it."""
    for item in module.items:
        is_stage = isinstance(item, ModuleUse) and not item.node and any(inner.node for inner in item.all())
        if isinstance(item, ModuleUse) and is_stage:
            yield from _without_stages(item)
        else:
            yield item


def _calls(items: Iterable[Call | ModuleUse]) -> Iterator[Call]:
    for item in items:
        if isinstance(item, ModuleUse):
            yield from _calls(item.items)
        else:
            yield item
