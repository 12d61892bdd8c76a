import numpy as np

from hiresnet_graph.report import pareto_front
from tests.report.studies import Net, study


def test_no_network_dominates_one_on_the_front() -> None:
    rng = np.random.default_rng(2)
    nets = [
        Net(f"n{i}", (90.0,), (float(rng.integers(80, 90)),), parameters=int(p), macs=int(m))
        for i, (p, m) in enumerate(rng.integers(1, 12, size=(60, 2)))
    ]
    points = [(net.parameters, net.macs, (net.validations or [0])[0]) for net in nets]

    def best(cost: int) -> set[str]:
        return {
            net.label
            for net, one in zip(nets, points, strict=True)
            if not any(
                other[cost] <= one[cost] and other[2] >= one[2] and (other[cost], other[2]) != (one[cost], one[2])
                for other in points
            )
        }

    found = pareto_front(study(*nets, is_search=True))
    assert {point.variant for point in found if "parameters" in point.fronts} == best(0)
    assert {point.variant for point in found if "macs" in point.fronts} == best(1)
    assert [point.parameters for point in found] == sorted(point.parameters for point in found)


def test_test_accuracy_has_no_influence_and_networks_without_runs_are_excluded() -> None:
    nets = [
        Net("small", (80.0, 80.0), (90.0, 92.0), parameters=1, macs=2),
        Net("large", (99.0,), (90.0,), parameters=2, macs=3),
        Net("pruned", ("pruned",), (0.0,), parameters=0, macs=0),
        Net("small again", (80.0, 80.0), (90.0, 92.0), parameters=1, macs=2, same_as="small"),
    ]
    (point,) = pareto_front(study(*nets, is_search=True))
    assert (point.variant, point.fronts, point.n) == ("small", ("parameters", "macs"), 2)
    assert point.test is not None and (point.validation.mean, point.test.mean) == (91, 80)


def test_means_that_differ_by_rounding_are_equal() -> None:
    nets = [
        Net("small", (0.0,) * 3, (90.1, 90.2, 90.3), parameters=1),
        Net("large", (0.0,) * 3, (90.2, 90.2 + 1e-13, 90.2), parameters=2),
    ]
    assert [point.variant for point in pareto_front(study(*nets))] == ["small", "large"]  # of equal MACs
    assert [point.fronts for point in pareto_front(study(*nets))] == [("parameters", "macs"), ("macs",)]
