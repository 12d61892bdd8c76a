import math
from itertools import chain, combinations, permutations

import numpy as np
import pytest
from scipy import stats

from hiresnet_graph.report import edge_effects, shapley_values
from hiresnet_graph.sweep.results import Results
from tests.report.studies import Ending, Net, study

EDGES = ("x0>x1", "x0>x2", "x1>x2")


def subsets(edges: tuple[str, ...] = EDGES) -> list[tuple[str, ...]]:
    return list(chain.from_iterable(combinations(edges, size) for size in range(len(edges) + 1)))


def factorial(scores: dict[tuple[str, ...], list[Ending]], *others: Net) -> Results:
    nets = [Net(" + ".join(edges) or "none", found, [50.0] * 9, edges=edges) for edges, found in scores.items()]
    return study(*nets, *others, subsets_of=EDGES)


def test_shapley_values_of_a_sum_are_its_terms() -> None:
    terms = np.array([1.0, -2.0, 4.0, 0.5])
    game = np.array([[10 + sum(terms[i] for i in range(4) if one >> i & 1) for one in range(16)]])
    assert shapley_values(game)[0] == pytest.approx(list(terms))


def test_shapley_values_are_means_over_orders() -> None:
    players = 5
    games = np.random.default_rng(1).normal(size=(3, 2**players))
    expected = np.zeros((3, players))
    for order in permutations(range(players)):
        before = 0
        for player in order:
            expected[:, player] += games[:, before | 1 << player] - games[:, before]
            before |= 1 << player
    np.testing.assert_allclose(shapley_values(games), expected / math.factorial(players), atol=1e-12)


@pytest.mark.parametrize("players", [1, 2, 6, 10])
def test_shapley_values_sum_to_all_minus_none(players: int) -> None:
    games = np.random.default_rng(players).normal(size=(4, 2**players))
    np.testing.assert_allclose(shapley_values(games).sum(axis=1), games[:, -1] - games[:, 0], rtol=0, atol=1e-12)


def test_equal_players_have_equal_shares_and_players_without_effect_have_none() -> None:
    # Players 0 and 1 count alike, and gain only together; player 2 adds nothing.
    game = np.array([[[0.0, 1.0, 5.0][(one & 1) + (one >> 1 & 1)] for one in range(8)]])
    assert shapley_values(game)[0] == pytest.approx([2.5, 2.5, 0])


def test_effects_on_the_complete_factorial() -> None:
    rng = np.random.default_rng(5)
    scores = {edges: [float(x) for x in 90 + rng.normal(size=4)] for edges in subsets()}
    # Controls with the skips of a subset, or with others, are no cells of the factorial.
    controls = [Net("wider", (99.0,) * 4, edges=()), Net("random", (99.0,) * 4, edges=("x0>x1", "x0>x3"))]
    (effects,) = edge_effects(factorial(scores, *controls))
    assert effects.missing == ""
    assert effects.total is not None
    shares = []
    for edge, found in zip(EDGES, effects.edges, strict=True):
        assert (found.edge, found.pairs) == (edge, 4)
        has, lacks = ([scores[one] for one in scores if (edge in one) == wanted] for wanted in (True, False))
        by_seed = np.mean(has, axis=0) - np.mean(lacks, axis=0)
        assert found.main is not None and found.shapley is not None
        assert list(found.main.values.values()) == pytest.approx(list(by_seed))
        assert found.main.spread == (pytest.approx(by_seed.mean()), pytest.approx(by_seed.std(ddof=1)))
        assert found.main.interval == pytest.approx(tuple(stats.ttest_1samp(by_seed, 0).confidence_interval()))
        shares.append(list(found.shapley.values.values()))
    gain = np.array(scores[EDGES]) - np.array(scores[()])
    np.testing.assert_allclose(np.sum(shares, axis=0), gain, rtol=0, atol=1e-12)
    assert list(effects.total.values.values()) == pytest.approx(list(gain))


def test_a_wider_control_that_comes_first_is_not_a_subset() -> None:
    scores: dict[tuple[str, ...], list[Ending]] = {edges: [90.0 + len(edges), 91.0] for edges in subsets()}
    plain = edge_effects(factorial(scores))
    found = study(Net("wider", (99.0, 99.0), edges=()), *_nets(factorial(scores)), subsets_of=EDGES)
    assert edge_effects(found) == plain


def _nets(results: Results) -> list[Net]:
    nets = []
    for i, network in enumerate(results.networks):
        tests = [100 * row.record.test_accuracy for row in results.rows if row.network == i and row.record]  # type: ignore[operator]
        nets.append(Net(network.label, tests, edges=network.edges))
    return nets


def test_a_subset_may_be_the_same_network_as_another() -> None:
    nets = [
        Net("none", (90.0, 91.0), edges=()),
        Net("a", (90.0, 91.0), edges=("a",), same_as="none"),
        Net("b", (92.0, 92.0), edges=("b",)),
        Net("a + b", (92.0, 92.0), edges=("a", "b"), same_as="b"),
    ]
    (effects,) = edge_effects(study(*nets, subsets_of=("a", "b")))
    a, b = effects.edges
    assert a.main is not None and a.main.spread == (0, 0) and a.main.interval is None
    assert b.shapley is not None and b.shapley.spread == (pytest.approx(1.5), pytest.approx(0.5**0.5))


def test_without_every_subset_there_are_only_main_effects() -> None:
    scores: dict[tuple[str, ...], list[Ending]] = {
        EDGES: [95.0, 96.0],
        EDGES[:2]: [94.0, 94.0],
        EDGES[1:]: [95.5, 95.0],
    }
    (effects,) = edge_effects(factorial(scores))
    assert effects.total is None
    assert effects.missing == "Shapley values require all 8 subsets of the 3 edges; the study has 3."
    first, second, third = effects.edges
    assert first.main is not None and list(first.main.values.values()) == pytest.approx([-0.5, 1.0])
    assert (second.pairs, second.main) == (0, None)
    assert third.main is not None and third.main.spread.mean == pytest.approx(1.5)
    assert all(edge.shapley is None for edge in effects.edges)


def test_seeds_without_all_runs_are_excluded_and_reported() -> None:
    scores: dict[tuple[str, ...], list[Ending]] = {edges: [90.0 + len(edges), 91.0, 92.0] for edges in subsets()}
    scores[EDGES][1] = "diverged"
    scores[EDGES[:1]][2] = "waiting"
    (effects,) = edge_effects(factorial(scores))
    assert effects.missing == "Shapley values require a finished run of all 8 subsets: seed 1 lacks 1; seed 2 lacks 1."
    assert effects.total is not None and list(map(str, effects.total.values)) == ["0"]
    assert effects.total.interval is None
    nothing = edge_effects(factorial({edges: ["waiting"] for edges in subsets()}))[0]
    assert nothing.missing == "Shapley values require a finished run of all 8 subsets; there is none yet."
    assert all(edge.main is None for edge in nothing.edges)


def test_each_setting_has_its_effects() -> None:
    nets = [
        Net(label, (90.0 + gain * width, 91.0), edges=edges, setting={"width": width})
        for width in (1, 2)
        for label, edges, gain in (("none", (), 0), ("a", ("a",), 3))
    ]
    one, two = edge_effects(study(*nets, subsets_of=("a",)))
    assert (one.setting, two.setting) == ({"width": 1}, {"width": 2})
    assert one.total is not None and one.total.spread.mean == pytest.approx(1.5)
    assert two.total is not None and two.total.spread.mean == pytest.approx(3)


def test_without_subsets_there_are_no_effects() -> None:
    assert edge_effects(study(Net("a", (90.0,)))) == ()
