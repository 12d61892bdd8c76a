import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.optimize import brentq
from statsmodels.formula.api import ols
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from hiresnet_graph.errors import UsageError
from hiresnet_graph.report import Contrast, compare, fit
from hiresnet_graph.train.record import Seeds
from tests.report.studies import Net, study

ONE, TWO, THREE = (90.0, 91.0, 93.0, 92.0), (91.5, 91.5, 94.5, 93.5), (89.0, 92.5, 92.0, 90.5)


def test_a_difference_computed_by_hand() -> None:
    # Rows 1 2 3 and 3 3 6: means 2 and 4, of the seeds 2 2.5 4.5. Residuals of row 1: 0, 0.5, -0.5; of row 2 the
    # opposite. Sum of squares 1, df 2, so the variance is 0.5 and that of the difference 0.5 * 2/3 = 1/3.
    (comparison,) = compare(study(Net("a", (1.0, 2.0, 3.0)), Net("b", (3.0, 3.0, 6.0))))
    (found,) = comparison.differences
    assert found.estimate is not None and found.is_pooled
    assert (found.n, found.baseline_n, found.estimate.df) == (3, 3, 2)
    assert found.estimate.value == pytest.approx(2)
    half = 4.302652729911275 * math.sqrt(1 / 3)  # 97.5 % of Student's t with 2 degrees of freedom
    assert found.estimate.interval == (pytest.approx(2 - half), pytest.approx(2 + half))
    assert found.estimate.p == pytest.approx(1 - math.sqrt(12 / 14))  # t = 2 sqrt 3; df 2: p = 1 - t / sqrt(2 + t^2)
    assert found.p_holm == found.estimate.p


def test_for_two_complete_networks_the_pooled_test_is_the_paired_test() -> None:
    (found,) = compare(study(Net("a", ONE), Net("b", TWO)))[0].differences
    test = stats.ttest_rel(TWO, ONE)
    assert found.estimate is not None
    assert found.estimate.p == pytest.approx(test.pvalue)
    assert found.estimate.df == test.df == 3
    assert found.estimate.interval == pytest.approx(tuple(test.confidence_interval()))


def test_networks_of_clearly_different_spread_are_compared_by_welchs_test() -> None:
    rng = np.random.default_rng(3)
    calm, also, wild = (list(90 + spread * rng.normal(size=8)) for spread in (0.1, 0.1, 9.0))
    first, second = compare(study(Net("calm", calm), Net("also", also), Net("wild", wild)))[0].differences
    for found, values in ((first, also), (second, wild)):
        test = stats.ttest_ind(values, calm, equal_var=False)
        assert found.estimate is not None and not found.is_pooled
        assert found.estimate.value == pytest.approx(np.mean(values) - np.mean(calm))
        assert found.estimate.interval == pytest.approx(tuple(test.confidence_interval()))
        assert (found.estimate.p, found.estimate.df) == (pytest.approx(test.pvalue), pytest.approx(test.df))


@pytest.mark.parametrize("gaps", [0, 3])
def test_the_model_is_network_plus_seed(gaps: int) -> None:
    rng = np.random.default_rng(7)
    values = 90 + rng.normal(size=(5, 6)) + rng.normal(size=6)
    left_out = {(0, 1), (2, 4), (3, 4)} if gaps else set()
    nets = [
        Net(f"n{i}", ["diverged" if (i, j) in left_out else values[i, j] for j in range(6)], validations=[0.0] * 6)
        for i in range(5)
    ]
    comparison = compare(study(*nets), "n1")[0]
    cells = [(i, j) for i in range(5) for j in range(6) if (i, j) not in left_out]
    data = pd.DataFrame(
        {
            "accuracy": [values[cell] for cell in cells],
            "network": [f"n{i}" for i, _ in cells],
            "seed": [str(j) for _, j in cells],
        }
    )
    model = ols("accuracy ~ C(network, Treatment('n1')) + C(seed)", data).fit()
    assert [one.variants for one in comparison.differences] == [("n0",), ("n2",), ("n3",), ("n4",)]
    names = [f"C(network, Treatment('n1'))[T.{one.variants[0]}]" for one in comparison.differences]
    for name, one in zip(names, comparison.differences, strict=True):
        found = one.estimate
        assert found is not None and found.detectable is not None and one.is_pooled
        assert found.value == pytest.approx(model.params[name])
        assert found.interval == pytest.approx(tuple(model.conf_int().loc[name]))
        assert found.p == pytest.approx(model.pvalues[name])
        assert found.df == model.df_resid == 20 - gaps
        # A true difference of this size is found with 80 % power among four tests, by the noncentral t distribution.
        critical = stats.t.ppf(1 - 0.025 / 4, found.df)
        assert stats.nct.sf(critical, found.df, found.detectable / model.bse[name]) == pytest.approx(0.8, abs=1e-6)
    holm = multipletests([model.pvalues[name] for name in names], method="holm")[1]
    assert [one.p_holm for one in comparison.differences] == pytest.approx(list(holm))
    assert comparison.tests == 4


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_the_detectable_difference_of_one_pair_is_that_of_the_paired_test(n: int) -> None:
    noise = np.random.default_rng(n).normal(size=n)
    (found,) = compare(study(Net("a", [90.0] * n), Net("b", list(91 + noise))))[0].differences
    size = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8)
    assert found.estimate is not None
    assert found.estimate.detectable == pytest.approx(size * np.std(noise, ddof=1), rel=1e-5)


def test_equal_networks_are_compared_once_and_not_with_the_baseline() -> None:
    nets = [
        Net("a", ONE),
        Net("b", TWO),
        Net("b again", TWO, same_as="b"),
        Net("a again", ONE, same_as="a"),
        Net("c", THREE),
    ]
    for baseline in ("a", "a again"):
        (comparison,) = compare(study(*nets, baseline=baseline))
        assert comparison.baseline == baseline
        assert comparison.equal == ({"a": "a again", "a again": "a"}[baseline],)
        assert [one.variants for one in comparison.differences] == [("b", "b again"), ("c",)]
        assert comparison.tests == 2
    without = compare(study(nets[0], nets[1], nets[4]))[0].differences
    assert [one[1:] for one in without] == [one[1:] for one in comparison.differences]


def test_without_spread_there_are_no_intervals() -> None:
    (one,) = compare(study(Net("a", (90.0,)), Net("b", (91.0,))))[0].differences
    assert (one.estimate, one.p_holm) == (Contrast(pytest.approx(1), None, 0, None, None), None)
    (one,) = compare(study(Net("a", (90.1,) * 3), Net("b", (91.2,) * 3)))[0].differences
    assert one.estimate == Contrast(pytest.approx(1.1), None, 2, None, None)
    (one, two) = compare(study(Net("a", (90.0, 91.0)), Net("b", ("diverged",) * 2), Net("c", (92.0, 92.5))))[
        0
    ].differences
    assert (one.n, one.estimate) == (0, None)
    assert two.estimate is not None and two.p_holm == two.estimate.p is not None
    nothing = compare(study(Net("a", ("waiting", "failed")), Net("b", (90.0, 91.0))))[0]
    assert nothing.tests == 0 and nothing.differences[0].estimate is None


def test_networks_are_compared_over_the_seeds_that_connect_them() -> None:
    nets = [
        Net("a", (90.0, 91.0, "waiting", "waiting", "waiting")),
        Net("b", ("waiting", 92.0, 91.0, "waiting", "waiting")),
        Net("c", ("waiting", "waiting", 95.0, 94.5, "waiting")),
        Net("far", ("waiting", "waiting", "waiting", "waiting", 99.0)),
    ]
    b, c, far = compare(study(*nets))[0].differences
    assert b.estimate is not None and b.estimate.value == pytest.approx(1)
    assert c.estimate is not None and c.estimate.value == pytest.approx(1 + 4)  # c - b, and b - a
    assert far.estimate is None


def test_grids_are_compared_at_equal_settings_and_at_the_best() -> None:
    low, high = {"recipe.lr": 0.001}, {"recipe.lr": 0.01}
    nets = [
        Net("a", (90.0, 91.0, 92.0), (80.0, 80.0, 80.0), low),
        Net("b", (93.0, 93.5, 93.0), (85.0, 85.0, 85.0), low),
        Net("a", (94.0, 95.5, 95.0), (81.0, 81.0, 81.0), high),
        # Better in validation, but one run diverged: a setting must not gain by that.
        Net("b", (99.0, "diverged", 99.0), (99.0, 99.0, 99.0), high),
    ]
    equal, best = compare(study(*nets))
    assert [(one.setting, one.baseline_setting) for one in equal.differences] == [(low, low), (high, high)]
    assert equal.tests == 2
    alone = [compare(study(*(replace(net, setting={}) for net in pair)))[0] for pair in (nets[:2], nets[2:])]
    p_values = [one.differences[0].estimate.p for one in alone if one.differences[0].estimate]
    assert [one.estimate and one.estimate.p for one in equal.differences] == p_values
    assert [one.p_holm for one in equal.differences] == pytest.approx(list(multipletests(p_values, method="holm")[1]))
    (one,) = best.differences
    assert best.at_best and (one.setting, one.baseline_setting) == (low, high)
    test = stats.ttest_rel((93.0, 93.5, 93.0), (94.0, 95.5, 95.0))
    assert one.estimate is not None and one.estimate.p == pytest.approx(test.pvalue)


def test_variants_may_be_the_same_network_at_one_setting_only() -> None:
    one, two = {"depth": 1}, {"depth": 2}
    nets = [
        Net("a", ONE, (50.0,) * 4, one),
        Net("b", ONE, (50.0,) * 4, one, same_as="a"),
        Net("a", TWO, (60.0,) * 4, two),
        Net("b", THREE, (40.0,) * 4, two),
    ]
    equal, best = compare(study(*nets))
    assert [(found.variants, found.setting) for found in equal.differences] == [(("b",), two)]
    assert [(found.variants, found.setting, found.baseline_setting) for found in best.differences] == [
        (("b",), one, two)
    ]


def test_an_unknown_baseline_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"no variant 'ful' to compare with\. Did you mean 'full'"):
        compare(study(Net("none", ONE), Net("full", TWO)), "ful")


def test_the_type_i_error_of_the_pooled_test_is_5_percent() -> None:
    """Type-I error and coverage of the pooled test, with seed effects."""
    rng = np.random.default_rng(20)
    found, covered, studies = 0, 0, 600
    for _ in range(studies):
        values = 90 + 3 * rng.normal(size=5) + 0.4 * rng.normal(size=(4, 5))
        values[1] += 0.7
        runs = [{Seeds(j, j): float(value) for j, value in enumerate(row)} for row in values]
        model = fit(runs)
        other, same = (model.contrast({i: 1.0, 0: -1.0}) for i in (1, 2))
        assert other is not None and other.interval is not None and same is not None and same.p is not None
        found += same.p < 0.05
        covered += other.interval.low < 0.7 < other.interval.high
    assert stats.binomtest(found, studies, 0.05).pvalue > 0.01
    assert stats.binomtest(covered, studies, 0.95).pvalue > 0.01


def test_a_detectable_difference_is_found_with_80_percent_power_after_the_correction() -> None:
    rng, studies, found = np.random.default_rng(4), 400, 0
    error = 0.8  # of a difference between two means of five runs
    critical = stats.t.ppf(1 - 0.025 / 7, 28)  # one of seven tests; the error of eight networks is pooled
    size = error * brentq(lambda distance: stats.nct.sf(critical, 28, distance) - 0.8, 0, 10)
    limits = []
    for _ in range(studies):
        values = rng.normal(scale=error * math.sqrt(5 / 2), size=(8, 5)) + 80
        values[1] += size
        nets = [Net(f"n{i}", list(row)) for i, row in enumerate(values)]
        one = compare(study(*nets))[0].differences[0]
        assert one.estimate is not None and one.estimate.detectable is not None and one.p_holm is not None
        found += one.p_holm < 0.05
        limits.append(one.estimate.detectable)
    assert np.mean(limits) == pytest.approx(size, rel=0.02)
    assert stats.binomtest(found, studies, 0.8).pvalue > 0.01


def test_the_detectable_difference_is_found_with_80_percent_power() -> None:
    rng, studies = np.random.default_rng(3), 600
    critical = float(TTestPower().solve_power(nobs=5, alpha=0.05, power=0.8))  # in standard deviations of the pairs
    found = 0
    for _ in range(studies):
        values = rng.normal(size=(2, 5)) / math.sqrt(2)
        values[1] += critical
        runs = [{Seeds(j, j): float(value) for j, value in enumerate(row)} for row in values]
        one = fit(runs).contrast({1: 1.0, 0: -1.0})
        assert one is not None and one.p is not None
        found += one.p < 0.05
    assert stats.binomtest(found, studies, 0.8).pvalue > 0.01


def test_among_thousands_of_tests_with_one_degree_of_freedom_nothing_is_called_detectable() -> None:
    model = fit([{Seeds(0, 0): 80.0, Seeds(1, 1): 81.0}, {Seeds(0, 0): 82.0, Seeds(1, 1): 84.0}])
    contrast = model.contrast({0: -1.0, 1: 1.0})
    assert contrast is not None and contrast.detectable is not None
    few, many = contrast.among(1_000), contrast.among(6_000)
    assert few.detectable is not None and many.detectable is None and many.p == contrast.p
