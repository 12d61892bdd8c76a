from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from hiresnet_graph.data.split import hold_out, stratified_order

labels = st.lists(st.integers(0, 4), min_size=1, max_size=200)


@given(labels, st.integers(0, 3))
def test_the_parts_are_disjoint_and_complete(labels: list[int], seed: int) -> None:
    split = hold_out(labels, 0.2, 0.1, seed)
    assert sorted([*split.train, *split.validation, *split.test]) == list(range(len(labels)))
    assert len(split.test) == round(len(labels) * 0.2)
    assert len(split.validation) == round((len(labels) - len(split.test)) * 0.1)


@given(labels, st.integers(0, 3), st.floats(0, 1))
def test_every_segment_has_each_class_in_its_share(labels: list[int], seed: int, share: float) -> None:
    order = stratified_order(labels, seed)
    size = round(len(labels) * share)
    taken = Counter(labels[place] for place in order[:size])
    for label, number in Counter(labels).items():
        assert abs(taken[label] - number * size / len(labels)) <= 1.5


def test_the_split_depends_only_on_the_seed() -> None:
    labels = [place % 3 for place in range(90)]
    assert hold_out(labels, 0.2, 0.1, 0) == hold_out(labels, 0.2, 0.1, 0)
    assert hold_out(labels, 0.2, 0.1, 0).test != hold_out(labels, 0.2, 0.1, 1).test
    # Written down: a new version of any library must give the same split.
    assert stratified_order([0, 0, 0, 1, 1, 1], 0) == [4, 2, 3, 0, 5, 1]
