import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiresnet_graph.errors import UsageError
from hiresnet_graph.sweep import count_subsets, subsets

ABC = ("a", "b", "c")


def test_all_goes_from_none_to_all() -> None:
    assert subsets(ABC, "all") == [(), ("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), ABC]
    assert subsets((), "all") == [()]


def test_sizes() -> None:
    assert subsets(ABC, "size:2") == [("a", "b"), ("a", "c"), ("b", "c")]
    assert subsets(ABC, "size:0-1") == [(), ("a",), ("b",), ("c",)]
    assert subsets(ABC, "size:3-3") == [ABC]


def test_the_first_subset_is_the_baseline() -> None:
    assert subsets(ABC, "leave-one-out") == [ABC, ("b", "c"), ("a", "c"), ("a", "b")]
    assert subsets(ABC, "one-at-a-time") == [(), ("a",), ("b",), ("c",)]
    assert subsets((), "leave-one-out") == subsets((), "one-at-a-time") == [()]


@given(st.integers(0, 8), st.data())
def test_subsets_are_different_ordered_and_counted(n: int, data: st.DataObject) -> None:
    edges = [f"e{i}" for i in range(n)]
    least = data.draw(st.integers(0, n))
    most = data.draw(st.integers(least, n))
    for rule in ("all", f"size:{least}-{most}", f"size:{most}", "leave-one-out", "one-at-a-time"):
        found = subsets(edges, rule)
        assert len(set(found)) == len(found) == count_subsets(n, rule)
        assert all(subset == tuple(edge for edge in edges if edge in subset) for subset in found)


@settings(max_examples=40)
@given(st.integers(0, 18), st.integers(1, 40), st.integers(0, 3))
def test_random_subsets_are_different_and_a_prefix_of_larger_draws(n: int, number: int, seed: int) -> None:
    edges, number = [f"e{i}" for i in range(n)], min(number, 2**n)
    found = subsets(edges, f"random:{number},{seed}")
    assert len(set(found)) == len(found) == number == count_subsets(n, f"random:{number}")
    assert all(subset == tuple(edge for edge in edges if edge in subset) for subset in found)
    assert subsets(edges, f"random:{min(number + 7, 2**n)}, {seed}")[:number] == found


def test_random_subsets_are_uniform_and_reproducible() -> None:
    edges = [f"e{i}" for i in range(300)]
    found = subsets(edges, "random:400")
    shares = [sum(edge in subset for subset in found) / 400 for edge in edges]
    # 0.025 is the standard deviation of each
    assert 0.49 < sum(shares) / 300 < 0.51 and all(0.38 < share < 0.62 for share in shares)
    assert subsets(ABC, "random:3") == subsets(ABC, "random:3,0") == [ABC, ("b", "c"), ("a",)]
    assert subsets(ABC, "random:3,1") != subsets(ABC, "random:3")


def test_too_many_subsets_are_counted_only() -> None:
    edges = [str(i) for i in range(33)]
    with pytest.raises(UsageError, match=r"'all' over 33 edges gives 8,589,934,592 subsets; 100,000 is the limit"):
        subsets(edges, "all")
    assert count_subsets(500, "size:250") == math.comb(500, 250)
    assert len(subsets(edges, "size:0-3")) == 1 + 33 + 528 + 5456


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("leave-one-in", "there is no subset rule 'leave-one-in'. Did you mean 'leave-one-out'?"),
        ("size", "there is no subset rule 'size'. Write 'size:2' or 'size:1-3'."),
        ("size:two", "there is no subset rule 'size:two'. Write 'size:2' or 'size:1-3'."),
        ("size:4", "rule 'size:4': sizes range from 0 to 3"),
        ("size:2-1", "rule 'size:2-1': sizes range from 0 to 3 (the number of edges), the smaller one first."),
        ("", "there is no subset rule ''."),
        ("random", "there is no subset rule 'random'. Write 'random:10', or 'random:10,3' with a seed."),
        ("random:9", "rule 'random:9': 3 edges have 1 to 8 different subsets."),
        ("random:0", "rule 'random:0': 3 edges have 1 to 8"),
    ],
)
def test_a_wrong_rule_is_reported(rule: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        subsets(ABC, rule)
    assert message in str(error.value)
