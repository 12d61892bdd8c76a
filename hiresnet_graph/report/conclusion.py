"""What may be concluded from a study, and what could not have been seen, in one or two sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hiresnet_graph.formats import format_count
from hiresnet_graph.report.effects import EdgeEffect, Effects, edge_effects
from hiresnet_graph.report.model import ALPHA, Contrast
from hiresnet_graph.report.scores import finished, format_setting, unique_networks
from hiresnet_graph.report.statistics import Comparison, Difference, compare
from hiresnet_graph.sweep.results import Results

_NAMED = 4  # networks or edges in a sentence
_MOST = 100.0  # points by which accuracies can differ


def conclude(
    results: Results,
    baseline: str | None = None,
    comparisons: Sequence[Comparison] = (),
    effects: Sequence[Effects] = (),
) -> str:
    """The conclusion of a study: of edges, if its variants are subsets of edges, else of differences from the baseline.

    A difference counts as found if its p value after Holm's correction is below 0.05.

    Args:
        baseline: Label of a variant (default: the baseline of the study, or its first variant).
        comparisons: The one at equal settings with this baseline, if it was made already.
        effects: Those of the edges, if they were computed already.

    Raises:
        UsageError: The variant is unknown.
    """
    runs, networks = sum(map(len, finished(results))), unique_networks(results)
    waiting = len({row.key for row in results.rows if row.state in ("waiting", "running")})
    sentences = []
    if waiting and not results.is_search:
        sentences.append(f"The study is unfinished, with {format_count(waiting, 'run')} still to be trained.")
    if not runs:
        return " ".join([*sentences, "No run is finished, so nothing can be concluded."])
    if results.is_search:
        sentences.append(
            "A search selected these networks by their accuracy, so differences between them are not tested: compare "
            "the best ones in a study with new seeds."
        )
    elif len(networks) < 2:
        sentences.append("There is one network, so there is nothing to compare.")
    elif results.subsets_of:
        sentences += _of_settings(effects or edge_effects(results))
    else:
        sentences.append(_of_differences((comparisons or compare(results, baseline))[0]))
    return " ".join(sentences)


def _of_differences(comparison: Comparison) -> str:
    tested = [one for one in comparison.differences if one.estimate is not None and one.p_holm is not None]
    if not tested:
        if any(one.estimate is not None and one.estimate.df > 0 for one in comparison.differences):
            return (
                "Nothing can be concluded about differences: each is the same with every seed, so its error cannot be "
                "estimated. Train more seeds."
            )
        return (
            "Nothing can be concluded about differences: the spread over seeds is unknown. Train at least three seeds "
            "of each network."
        )
    found = [one for one in tested if (one.p_holm or 0.0) < ALPHA]
    rest = [one for one in tested if one not in found]
    sentences = [f"{_name(one)} is {_signed(one, comparison.baseline)}." for one in sorted(found, key=_p)[:_NAMED]]
    if len(found) > _NAMED:
        number = len(found) - _NAMED
        differ = f"{number} more networks differ" if number > 1 else "1 more network differs"
        sentences.append(f"{differ} from {comparison.baseline}.")
    if rest:
        names = _list([_name(one) for one in rest])
        but = _though({_name(one): one.estimate for one in rest})
        sentences.append(
            f"No difference from {comparison.baseline} was found for {names}{but}; "
            f"{_missed('differences', [one.estimate for one in rest])}."
        )
    return " ".join(sentences)


def _of_settings(effects: Sequence[Effects]) -> list[str]:
    """What may be concluded about edges at each setting of the grid; of many settings, at the first."""
    found = [
        f"At {format_setting(one.setting)}: {_of_edges(one)}" if one.setting else _of_edges(one) for one in effects
    ]
    if len(found) > _NAMED:
        rest = format_count(len(found) - _NAMED, "more setting")
        return [*found[:_NAMED], f"The effects at {rest} are tested, too."]
    return found


def _of_edges(effects: Effects) -> str:
    tested = [one for one in effects.edges if one.main is not None and one.p_holm is not None]
    if not tested:
        if any(one.main is not None and one.main.df > 0 for one in effects.edges):
            return (
                "Nothing can be concluded about single edges: each effect is the same with every seed, so its error "
                "cannot be estimated. Train more seeds."
            )
        return (
            "Nothing can be concluded about single edges: no pair of subsets that differ by one edge has finished runs "
            "of several seeds."
        )
    found = [one for one in tested if (one.p_holm or 0.0) < ALPHA]
    rest = [one for one in tested if one not in found]
    sentences = []
    if found:
        strongest = max(found, key=lambda one: abs(one.main.value if one.main else 0.0))
        others = [one for one in found if one is not strongest]
        sentences.append(f"The edge {strongest.edge} matters most: with it accuracy is {_change(strongest)}.")
        sentences += [f"With {one.edge} it is {_change(one)}." for one in others[:_NAMED]]
        if len(others) > _NAMED:
            number = len(others) - _NAMED
            sentences.append(f"{number} more edges have an effect." if number > 1 else "1 more edge has an effect.")
    if rest:
        but = _though({one.edge: one.main for one in rest})
        sentences.append(
            f"No effect was found of {_list([one.edge for one in rest])}{but}; "
            f"{_missed('effects', [one.main for one in rest])}."
        )
    return " ".join(sentences)


def _signed(one: Difference, baseline: str) -> str:
    assert one.estimate is not None
    word = "more" if one.estimate.value > 0 else "less"
    return (
        f"{abs(one.estimate.value):.2f} points {word} accurate than {baseline} ({_evidence(one.estimate, one.p_holm)})"
    )


def _change(one: EdgeEffect) -> str:
    assert one.main is not None
    word = "higher" if one.main.value > 0 else "lower"
    return f"{abs(one.main.value):.2f} points {word} ({_evidence(one.main, one.p_holm)})"


def _evidence(contrast: Contrast, p_holm: float | None) -> str:
    low, high = sorted(abs(end) for end in contrast.interval or (0.0, 0.0))  # on one side of 0, as it is found
    p = "p < 0.001" if (p_holm or 0.0) < 0.0005 else f"p = {p_holm:.3f}"
    return f"95 % CI {low:.2f} to {high:.2f}, {p} after Holm's correction"


def _though(contrasts: Mapping[str, Contrast | None]) -> str:
    """Which of those that were not found have an interval without 0, in brackets; empty if none has."""
    intervals = {name: one.interval for name, one in contrasts.items() if one is not None and one.interval is not None}
    outside = [name for name, (low, high) in intervals.items() if low * high > 0]
    return f" (though 0 is outside the interval of {_list(outside)}, which is not corrected)" if outside else ""


def _missed(what: str, contrasts: Sequence[Contrast | None]) -> str:
    """Which of the true differences or effects are found with less than 80 % power."""
    limit = max((one.detectable or 0.0) for one in contrasts if one is not None)
    if limit > _MOST:
        return "with so few runs even the largest possible one would often be missed, so train more seeds"
    return f"true {what} below {limit:.2f} points would often be missed with these runs"


def _name(one: Difference) -> str:
    """The labels of a network; with a grid also its setting, without which rows of a variant look the same."""
    name = " = ".join(one.variants)
    return f"{name} ({format_setting(one.setting)})" if one.setting else name


def _p(one: Difference) -> float:
    return one.p_holm or 0.0


def _list(names: Sequence[str]) -> str:
    shown = list(names[:_NAMED])
    if len(names) > _NAMED:
        shown.append(format_count(len(names) - _NAMED, "other"))
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
