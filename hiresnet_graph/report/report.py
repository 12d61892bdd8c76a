"""All that a report says of a study, before it is text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hiresnet_graph.errors import UsageError, did_you_mean
from hiresnet_graph.report.curves import CurvePoint, learning_curves
from hiresnet_graph.report.effects import Effects, edge_effects
from hiresnet_graph.report.pareto import Point, pareto_front
from hiresnet_graph.report.scores import test_scores, unique_networks
from hiresnet_graph.report.statistics import Comparison, compare
from hiresnet_graph.report.table import Table, make_table
from hiresnet_graph.sweep.results import Results

PARTS = ("table", "differences", "effects", "pareto", "curves")


@dataclass(frozen=True)
class Report:
    """A table, and what else was asked for.

    Attributes:
        parts: Those of `PARTS` that are here, in the order of the text.
    """

    table: Table
    parts: tuple[str, ...] = ("table",)
    differences: tuple[Comparison, ...] = ()
    effects: tuple[Effects, ...] = ()
    pareto: tuple[Point, ...] = ()
    curves: tuple[CurvePoint, ...] = ()


def make_report(results: Results, baseline: str | None = None, parts: Sequence[str] | None = None) -> Report:
    """The report of a study.

    Args:
        baseline: Label of the variant that differences are from; the study's own if left out, or else its first.
        parts: Some of `PARTS`. If left out, all that say something: the table; differences, if there are several
            networks and seeds, or a baseline is given; effects, if the variants are subsets of edges; for a search the
            Pareto front instead of differences, which are not tested there.

    Raises:
        UsageError: There is no such variant or part, or the study cannot have it.
    """
    if parts is None:
        parts = _usual_parts(results, baseline)
    if unknown := [part for part in parts if part not in PARTS]:
        raise UsageError(f"a report has no part '{unknown[0]}'. {did_you_mean(unknown[0], PARTS)}")
    if "effects" in parts and not results.subsets_of:
        raise UsageError(
            f"'{results.name}' has no effects of edges: its variants were not made by a rule for subsets, like 'all'."
        )
    if "differences" in parts and results.is_search:
        raise UsageError(
            f"'{results.name}' is a search: its networks were chosen by their accuracy, so differences between them "
            "are not tested. Its Pareto front says which are worth a study of their own, with seeds that chose nothing "
            "('hrg ablate')."
        )
    if "differences" in parts and len(unique_networks(results)) < 2:
        raise UsageError(f"'{results.name}' has one network, so there is nothing to compare it with.")
    return Report(
        table=make_table(results),
        parts=tuple(part for part in PARTS if part in parts),
        differences=compare(results, baseline) if "differences" in parts else (),
        effects=edge_effects(results) if "effects" in parts else (),
        pareto=pareto_front(results) if "pareto" in parts else (),
        curves=tuple(learning_curves(results)) if "curves" in parts else (),
    )


def _usual_parts(results: Results, baseline: str | None) -> list[str]:
    runs = test_scores(results)
    parts = ["table"]
    several = len(unique_networks(results)) > 1 and any(len(scores) > 1 for scores in runs)
    if baseline is not None or (several and not results.is_search):
        parts.append("differences")
    if results.subsets_of and any(runs):
        parts.append("effects")
    if results.is_search and any(runs):
        parts.append("pareto")
    return parts
