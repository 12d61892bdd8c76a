"""The topological sort."""

from __future__ import annotations

import random

import pytest

from hiresnet_graph.traversal import topological_order


def test_the_smallest_free_index_comes_first() -> None:
    assert list(topological_order([[], [], []])) == [0, 1, 2]
    assert list(topological_order([[], [0], []])) == [1, 0, 2]
    assert list(topological_order([[1], [], [0, 1], []])) == [2, 0, 1, 3]


def test_several_edges_between_two_indices_count_each() -> None:
    assert list(topological_order([[], [0, 0]])) == [1, 0]


def test_indices_on_and_behind_a_cycle_are_left_out() -> None:
    assert list(topological_order([[1], [2], [1, 3], []])) == [0]


def test_unblock_chooses_where_every_index_waits_for_another() -> None:
    assert list(topological_order([[1], [2], [1, 3], []], lambda: 2)) == [0, 2, 1, 3]


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs(seed: int) -> None:
    rng = random.Random(seed)
    names = list(range(30))
    rng.shuffle(names)
    successors: list[list[int]] = [[] for _ in names]
    for _ in range(60):
        source, target = sorted(rng.sample(range(30), 2))
        successors[names[source]].append(names[target])
    order = list(topological_order(successors))
    position = {index: i for i, index in enumerate(order)}
    assert sorted(order) == list(range(30))
    assert all(position[source] < position[target] for source in order for target in successors[source])
