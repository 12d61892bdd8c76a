import math
from itertools import chain, combinations, permutations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t
from statsmodels.formula.api import ols
from statsmodels.stats.multitest import multipletests

from hiresnet_graph.report import Contrast, EdgeEffect, compare, edge_effects
from hiresnet_graph.report.figure_data import effect_rows
from hiresnet_graph.sweep.results import Results
from tests.report.studies import Ending, Net, study

EDGES = ("x0>x1", "x0>x2", "x1>x2")


def subsets(edges: tuple[str, ...] = EDGES) -> list[tuple[str, ...]]:
    return list(chain.from_iterable(combinations(edges, size) for size in range(len(edges) + 1)))


def factorial(scores: dict[tuple[str, ...], list[Ending]], *others: Net) -> Results:
    nets = [Net(" + ".join(edges) or "none", found, [50.0] * 9, edges=edges) for edges, found in scores.items()]
    return study(*nets, *others, subsets_of=EDGES)


def by_edge(results: Results) -> dict[str, EdgeEffect]:
    (effects,) = edge_effects(results)
    return {one.edge: one for one in effects.edges}


def value(contrast: Contrast | None) -> float:
    assert contrast is not None
    return contrast.value


def test_effects_of_edges_that_do_not_interact_are_their_gains_the_largest_first() -> None:
    gains = dict(zip(EDGES, (1.0, -2.0, 4.0), strict=True))
    scores: dict[tuple[str, ...], list[Ending]] = {
        edges: [80 + sum(gains[edge] for edge in edges)] * 2 for edges in subsets()
    }
    (effects,) = edge_effects(factorial(scores))
    assert [one.edge for one in effects.edges] == ["x1>x2", "x0>x1", "x0>x2"]
    assert [(value(one.main), value(one.shapley)) for one in effects.edges] == [
        (pytest.approx(gains[one.edge]), pytest.approx(gains[one.edge])) for one in effects.edges
    ]


def test_shapley_values_are_means_over_orders_and_sum_to_all_minus_none() -> None:
    rng = np.random.default_rng(1)
    scores: dict[tuple[str, ...], list[Ending]] = {
        edges: [float(x) for x in 90 + rng.normal(size=3)] for edges in subsets()
    }
    means = {frozenset(edges): float(np.mean([x for x in found])) for edges, found in scores.items()}  # type: ignore[misc]
    expected = dict.fromkeys(EDGES, 0.0)
    for order in permutations(EDGES):
        before: frozenset[str] = frozenset()
        for edge in order:
            expected[edge] += (means[before | {edge}] - means[before]) / math.factorial(3)
            before |= {edge}
    (effects,) = edge_effects(factorial({**scores}))
    assert {one.edge: value(one.shapley) for one in effects.edges} == pytest.approx(expected)
    assert value(effects.total) == pytest.approx(sum(expected.values()))


def test_effects_are_contrasts_of_the_model_with_its_pooled_error() -> None:
    rng = np.random.default_rng(5)
    scores = {edges: [float(x) for x in 90 + rng.normal(size=4)] for edges in subsets()}
    # Controls with the skips of a subset, or with others, are no cells of the factorial.
    controls = [Net("wider", (99.0,) * 4, edges=()), Net("random", (99.0,) * 4, edges=("x0>x1", "x0>x3"))]
    (effects,) = edge_effects(factorial(dict(scores), *controls))  # type: ignore[arg-type]
    assert effects.missing == "" and effects.is_pooled
    rows = [
        {"accuracy": x, "seed": str(seed), "subset": " ".join(edges) or "none"}
        for edges, found in scores.items()
        for seed, x in enumerate(found)
    ]
    model = ols("accuracy ~ 0 + C(subset) + C(seed)", pd.DataFrame(rows)).fit()
    for one in effects.edges:
        weights = np.zeros(len(model.params))
        for edges in scores:
            name = f"C(subset)[{' '.join(edges) or 'none'}]"
            weights[list(model.params.index).index(name)] = 0.25 if one.edge in edges else -0.25
        expected = model.t_test(weights)
        assert one.pairs == 4 and one.main is not None
        assert one.main.value == pytest.approx(float(expected.effect[0]))
        assert one.main.interval == pytest.approx(tuple(expected.conf_int()[0]))
        assert one.main.p == pytest.approx(float(expected.pvalue))
    holm = multipletests([one.main.p for one in effects.edges if one.main], method="holm")[1]
    assert [one.p_holm for one in effects.edges] == pytest.approx(list(holm))


def test_all_edges_minus_none_has_the_interval_of_the_difference_table() -> None:
    rng = np.random.default_rng(6)
    results = factorial({edges: [float(x) for x in 90 + rng.normal(size=4)] for edges in subsets()})
    (effects,) = edge_effects(results)
    full = " + ".join(EDGES)
    (difference,) = [one for one in compare(results, "none")[0].differences if one.variants == (full,)]
    ours, theirs = effects.total, difference.estimate
    assert ours is not None and theirs is not None
    assert (ours.value, ours.p, ours.df) == pytest.approx((theirs.value, theirs.p, theirs.df))
    assert ours.interval == pytest.approx(theirs.interval)


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
    found = by_edge(study(*nets, subsets_of=("a", "b")))
    assert value(found["a"].main) == pytest.approx(0)
    assert value(found["b"].shapley) == pytest.approx(1.5)


def test_without_every_subset_there_are_only_main_effects() -> None:
    scores: dict[tuple[str, ...], list[Ending]] = {
        EDGES: [95.0, 96.0],
        EDGES[:2]: [94.0, 94.0],
        EDGES[1:]: [95.5, 95.0],
    }
    (effects,) = edge_effects(factorial(scores))
    assert effects.total is None
    assert effects.missing == (
        "Shapley values require a finished run of all 8 subsets of the 3 edges; the study has 3."
    )
    third, first, second = effects.edges
    assert value(first.main) == pytest.approx(0.25) and value(third.main) == pytest.approx(1.5)
    assert (second.pairs, second.main, second.p_holm) == (0, None, None)
    assert all(edge.shapley is None for edge in effects.edges)


def test_missing_runs_are_accounted_for() -> None:
    scores: dict[tuple[str, ...], list[Ending]] = {edges: [90.0 + len(edges), 91.0, 92.0] for edges in subsets()}
    scores[EDGES][1] = "diverged"
    (effects,) = edge_effects(factorial(scores))
    assert effects.missing == "" and effects.total is not None
    scores[EDGES] = ["waiting"]
    (effects,) = edge_effects(factorial(scores))
    assert effects.missing.endswith("the study has 7.") and effects.total is None
    assert [one.pairs for one in effects.edges] == [3, 3, 3]
    nothing = edge_effects(factorial({edges: ["waiting"] for edges in subsets()}))[0]
    assert nothing.missing.endswith("the study has 0.") and all(edge.main is None for edge in nothing.edges)


def test_each_setting_has_its_effects() -> None:
    nets = [
        Net(label, (90.0 + gain * width, 91.0), edges=edges, setting={"width": width})
        for width in (1, 2)
        for label, edges, gain in (("none", (), 0), ("a", ("a",), 3))
    ]
    one, two = edge_effects(study(*nets, subsets_of=("a",)))
    assert (one.setting, two.setting) == ({"width": 1}, {"width": 2})
    assert value(one.total) == pytest.approx(1.5)
    assert value(two.total) == pytest.approx(3)


def test_without_subsets_there_are_no_effects() -> None:
    assert edge_effects(study(Net("a", (90.0,)))) == ()


def test_subsets_that_are_one_network_are_one_observation() -> None:
    """With their runs counted twice, the error would be too small."""
    runs: dict[str, list[Ending]] = {"none": [80.0, 81.0, 80.2], "x0>x1": [80.1, 81.9, 81.0], "all": [84.0, 84.6, 85.0]}
    edges = ("x0>x1", "x1>x2")
    nets = [
        Net("none", runs["none"]),
        Net("x0>x1", runs["x0>x1"], edges=edges[:1]),
        Net("x1>x2", runs["none"], edges=edges[1:], same_as="none"),
        Net("all", runs["all"], edges=edges),
    ]
    (effects,) = edge_effects(study(*nets, subsets_of=edges))
    by_name = {one.edge: one for one in effects.edges}
    first, second = (by_name[edge].main for edge in edges)
    assert first is not None and second is not None and first.df == second.df == 4  # 3 networks and 3 seeds
    # By hand: the design of three networks and three seeds, and the contrast of x0>x1 over both pairs.
    y = np.array([runs[name] for name in ("none", "x0>x1", "all")], float)
    rest = y - y.mean(0) - y.mean(1, keepdims=True) + y.mean()
    weights = np.array([-1.0, 0.5, 0.5])
    error = math.sqrt((rest**2).sum() / 4 * (weights**2).sum() / 3)
    assert first.value == pytest.approx(float(weights @ y.mean(1)))
    assert first.interval is not None
    assert first.interval.high - first.value == pytest.approx(float(t.ppf(0.975, 4)) * error)
    # Of x1>x2 only the pair with x0>x1 changes anything; the other is one network.
    assert second.value == pytest.approx(float((y.mean(1)[2] - y.mean(1)[1]) / 2))
    assert value(by_name[edges[0]].shapley) + value(by_name[edges[1]].shapley) == pytest.approx(value(effects.total))


def test_effects_of_every_setting_are_drawn() -> None:
    nets = [
        Net(label, [accuracy, accuracy + 1, accuracy + 0.5], setting={"recipe.lr": lr}, edges=edges)
        for lr in (0.1, 0.01)
        for label, accuracy, edges in (("none", 80.0, ()), ("x0>x1", 80.0 + 100 * lr, ("x0>x1",)))
    ]
    rows = effect_rows(edge_effects(study(*nets, subsets_of=("x0>x1",))))
    assert [(row["edge"], row["value"]) for row in rows if row["kind"] == "main effect"] == [
        ("x0>x1, lr=0.1", pytest.approx(10.0)),
        ("x0>x1, lr=0.01", pytest.approx(1.0)),
    ]
