"""The parts of a report as tables of text for people, and as records with all digits for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from hiresnet_graph.report.effects import Effect, Effects
from hiresnet_graph.report.report import Report
from hiresnet_graph.report.scores import Setting, Spread, setting_text, spread_record, value_text
from hiresnet_graph.report.statistics import Comparison, Estimate, Interval
from hiresnet_graph.report.table import Row, Table

SCOPE = "For one split and one test set: other images could give other differences."
Record = dict[str, object]


class Heading(NamedTuple):
    """A column.

    Attributes:
        keep: Where there is little room, columns with the lowest number are left out first.
        is_number: Its cells are set to the right.
        in_paper: LaTeX tables have it.
        wraps: Long texts go on in the next line.
    """

    text: str
    keep: int = 9
    is_number: bool = True
    in_paper: bool = True
    wraps: bool = False


class Sheet(NamedTuple):
    """A table of text.

    Attributes:
        part: Of the report.
        rows: Cells as people read them.
        records: The same with all digits; None where there is no number.
        caption_for_paper: Of the columns that LaTeX tables have; empty if the caption serves.
    """

    part: str
    title: str
    headings: tuple[Heading, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    records: tuple[Record, ...]
    caption_for_paper: str = ""


def sheets(report: Report) -> tuple[Sheet, ...]:
    """The tables that a report is printed as."""
    makers: dict[str, Callable[[], list[Sheet]]] = {
        "table": lambda: [_table(report.table)],
        "differences": lambda: [_differences(comparison, report.table) for comparison in report.differences],
        "effects": lambda: [_effects(effects) for effects in report.effects],
        "pareto": lambda: [_pareto(report)],
        "curves": lambda: [_curves(report)],
    }
    found = tuple(sheet for part in report.parts for sheet in makers[part]())
    if "table" in report.parts or not report.table.mixed:
        return found
    # The caption of the table says it, if it is there.
    mixed = f"Mixed: {'; '.join(report.table.mixed)}."
    return tuple(sheet._replace(caption=f"{sheet.caption} {mixed}") for sheet in found)


def _table(table: Table) -> Sheet:
    top_k = table.recipe.top_k
    headings = (
        Heading("variant", is_number=False),
        *_setting_headings(table),
        Heading("parameters", 3),
        Heading("MACs", 2, in_paper=False),
        Heading("n", 8),
        Heading("test accuracy"),
        Heading("at last epoch", 5, in_paper=False),
        *([Heading(f"top-{top_k}", 1, in_paper=False)] if top_k > 1 else []),
        Heading("validation", 4 if not table.is_search else 9, in_paper=False),
    )
    rows = tuple(
        (
            _label(row),
            *_setting_cells(table, row.setting),
            f"{row.parameters:,}",
            _macs(row.macs),
            _count(row),
            _spread(row.test),
            _spread(row.last),
            *([_spread(row.test_top_k)] if top_k > 1 else []),
            _spread(row.validation),
        )
        for row in table.rows
    )
    records = tuple(map(_row_record, table.rows))
    return Sheet("table", table.name, headings, rows, table.caption, records, table.caption_for_paper)


def _row_record(row: Row) -> Record:
    return {
        "variant": row.variant,
        "setting": dict(row.setting),
        "same_as": row.same_as or None,
        "isomorphic_to": row.isomorphic_to or None,
        "parameters": row.parameters,
        "macs": row.macs,
        "runs": row.runs,
        "n": row.n,
        "diverged": row.diverged,
        "failed": row.failed,
        "pruned": row.pruned,
        "missing": row.missing,
        **spread_record("test", row.test),
        **spread_record("test_top_k", row.test_top_k),
        **spread_record("last", row.last),
        **spread_record("last_top_k", row.last_top_k),
        **spread_record("validation", row.validation),
    }


def _differences(comparison: Comparison, table: Table) -> Sheet:
    headings = (
        Heading("variant", is_number=False),
        *_setting_headings(table),
        Heading("n", 8, in_paper=False),
        Heading("difference"),
        Heading("95 % CI"),
        Heading("df", 3, in_paper=False),
        Heading("p", 5, in_paper=False),
        Heading("p (Holm)", 7),
        Heading("paired", 4, in_paper=False),
        Heading("Welch", 2, in_paper=False),
        Heading("r", 1, in_paper=False),
        Heading("detectable", 6, in_paper=False),
    )
    rows = tuple(
        (
            " = ".join(one.variants),
            *_setting_cells(table, one.setting),
            str(one.n) if one.n == one.baseline_n else f"{one.n} vs {one.baseline_n}",
            "-" if one.pooled is None else f"{one.pooled.difference:+.2f}",
            _interval(one.pooled and one.pooled.interval),
            str(one.df) if one.df else "-",
            _p(one.p),
            _p(one.p_holm),
            _interval(one.paired and one.paired.interval),
            _interval(one.welch and one.welch.interval),
            "-" if one.correlation is None else f"{one.correlation:.2f}",
            "-" if one.detectable is None else f"{one.detectable:.2f}",
        )
        for one in comparison.differences
    )
    records = tuple(
        {
            "at": "best setting" if comparison.at_best else "equal settings",
            "baseline": comparison.baseline,
            "variant": one.variants[0],
            "also": list(one.variants[1:]),
            "setting": dict(one.setting),
            "baseline_setting": dict(one.baseline_setting),
            "n": one.n,
            "baseline_n": one.baseline_n,
            **_estimate_record("", one.pooled),
            "df": one.df or None,
            "p": one.p,
            "p_holm": one.p_holm,
            "tests": comparison.tests,
            "detectable": one.detectable,
            "pairs": one.pairs,
            **_estimate_record("paired_", one.paired),
            **_estimate_record("welch_", one.welch),
            "correlation": one.correlation,
        }
        for one in comparison.differences
    )
    title = f"Differences from {comparison.baseline}"
    if table.settings:
        title += ", each network at its best setting" if comparison.at_best else ", at equal settings"
    caption, for_paper = (_differences_caption(comparison, has_all) for has_all in (True, False))
    return Sheet("differences", title, headings, rows, caption, records, for_paper)


def _differences_caption(comparison: Comparison, has_all: bool) -> str:
    """What the columns are: all of them, or those of LaTeX tables."""
    holm = f"Holm: corrected for {comparison.tests} test{'s' if comparison.tests != 1 else ''}."
    sentences = [
        f"Each network minus {comparison.baseline}, in points of test accuracy at the epoch of best validation.",
        "95 % CI and p: accuracy modelled as network + seed, with the error pooled over the networks"
        + (" (df)." if has_all else "."),
        *(["paired, Welch: intervals of this pair alone, seeds taken as pairs and as unrelated."] if has_all else []),
        holm,
    ]
    if has_all:
        sentences += [
            "r: correlation with the baseline over seeds.",
            "detectable: the smallest true difference that would be found with 80 % power at alpha 0.05 (uncorrected).",
        ]
    if comparison.at_best:
        at = next((setting_text(one.baseline_setting) for one in comparison.differences), "")
        sentences.insert(
            1,
            "Each at the setting with its highest mean validation accuracy"
            + (f"; that of {comparison.baseline} is {at}." if at else "."),
        )
    if comparison.equal:
        sentences.append(f"The same network as the baseline, so not compared: {', '.join(comparison.equal)}.")
    return " ".join([*sentences, SCOPE])


def _effects(effects: Effects) -> Sheet:
    has_shapley = effects.total is not None
    headings = (
        Heading("edge", is_number=False),
        Heading("pairs", 3, in_paper=False),
        Heading("n", 5),
        Heading("main effect"),
        Heading("95 % CI", 7),
        *([Heading("Shapley"), Heading("95 % CI", 6)] if has_shapley else []),
    )

    def cells(effect: Effect | None) -> tuple[str, str]:
        return ("-", "-") if effect is None else (_spread(effect.spread, "+.2f"), _interval(effect.interval))

    rows = [
        (
            one.edge,
            str(one.pairs),
            str(len(one.main.values)) if one.main else "0",
            *cells(one.main),
            *(cells(one.shapley) if has_shapley else ()),
        )
        for one in effects.edges
    ]
    if effects.total is not None:
        rows.append(("all - none", "", str(len(effects.total.values)), "", "", *cells(effects.total)))
    sentences = [
        "Points of test accuracy at the epoch of best validation: mean (standard deviation) over seeds.",
        "main effect: with the edge minus without it, over all pairs of subsets that differ by it alone.",
    ]
    if has_shapley:
        sentences.append("Shapley: shares of the edges in what all of them gain over none, which they sum to.")
    if effects.missing:
        sentences.append(effects.missing)
    title = "Effects of the edges" + (f" at {setting_text(effects.setting)}" if effects.setting else "")
    return Sheet(
        "effects", title, headings, tuple(rows), " ".join([*sentences, SCOPE]), tuple(_effect_records(effects))
    )


def _effect_records(effects: Effects) -> list[Record]:
    records: list[Record] = [
        {
            "edge": one.edge,
            "setting": dict(effects.setting),
            "pairs": one.pairs,
            **_effect_record("main", one.main),
            **_effect_record("shapley", one.shapley),
        }
        for one in effects.edges
    ]
    total = {"edge": None, "setting": dict(effects.setting), "pairs": None, **_effect_record("main", None)}
    return [*records, {**total, **_effect_record("shapley", effects.total)}] if effects.total else records


def _pareto(report: Report) -> Sheet:
    table = report.table
    headings = (
        Heading("variant", is_number=False),
        *_setting_headings(table),
        Heading("parameters", 7),
        Heading("MACs", 6),
        Heading("n", 5),
        Heading("validation"),
        Heading("test accuracy", 4),
        Heading("best for its", 8, is_number=False),
    )
    names = {"parameters": "parameters", "macs": "MACs"}
    rows = tuple(
        (
            point.variant,
            *_setting_cells(table, point.setting),
            f"{point.parameters:,}",
            _macs(point.macs),
            str(point.n),
            _spread(point.validation),
            _spread(point.test),
            ", ".join(names[front] for front in point.fronts),
        )
        for point in report.pareto
    )
    records = tuple(
        {
            "variant": point.variant,
            "setting": dict(point.setting),
            "parameters": point.parameters,
            "macs": point.macs,
            "fronts": list(point.fronts),
            "n": point.n,
            **spread_record("validation", point.validation),
            **spread_record("test", point.test),
        }
        for point in report.pareto
    )
    caption = (
        "Networks that no other beats: none is as accurate with less, or more accurate with as little. They were "
        "compared by mean accuracy on the validation images, in percent; chance favours what was chosen there, so the "
        "test accuracy is the one to report."
    )
    return Sheet("pareto", "Pareto front", headings, rows, caption, records)


def _curves(report: Report) -> Sheet:
    table = report.table
    headings = (
        Heading("variant", is_number=False),
        *_setting_headings(table),
        Heading("seed"),
        Heading("epoch"),
        Heading("split", is_number=False),
        Heading("loss"),
        Heading("accuracy"),
    )
    rows = tuple(
        (
            point.variant,
            *_setting_cells(table, point.setting),
            str(point.seeds),
            str(point.epoch),
            point.split,
            f"{point.loss:.4f}",
            f"{point.accuracy:.2f}",
        )
        for point in report.curves
    )
    records = tuple(
        {
            "run": point.run,
            "variant": point.variant,
            "setting": dict(point.setting),
            "init_seed": point.seeds.init,
            "data_seed": point.seeds.data,
            "epoch": point.epoch,
            "split": point.split,
            "loss": point.loss,
            "accuracy": point.accuracy,
        }
        for point in report.curves
    )
    caption = "Mean loss and accuracy in percent; of training images as they were seen, in the course of the epoch."
    return Sheet("curves", "Learning curves", headings, rows, caption, records)


def _label(row: Row) -> str:
    if row.same_as:
        return f"{row.variant} (= {row.same_as})"
    return f"{row.variant} (~ {row.isomorphic_to})" if row.isomorphic_to else row.variant


def _setting_headings(table: Table) -> list[Heading]:
    return [Heading(text, 8) for text in table.settings.values()]


def _setting_cells(table: Table, setting: Setting) -> list[str]:
    return [value_text(setting[name]) if name in setting else "-" for name in table.settings]


def _count(row: Row) -> str:
    counts = {"diverged": row.diverged, "failed": row.failed, "pruned": row.pruned, "missing": row.missing}
    number = str(row.n) if row.n == row.runs else f"{row.n} of {row.runs}"
    return ", ".join([number, *(f"{count} {what}" for what, count in counts.items() if count)])


def _macs(macs: int) -> str:
    """MACs as all commands write them: `141.7 k`."""
    value, unit = float(macs), ""
    for unit in ("", "k", "M", "G", "T"):
        if value < 999.95 or unit == "T":
            break
        value /= 1000
    return f"{value:#.4g}".rstrip(".") + f" {unit}" if unit else str(macs)


def _spread(spread: Spread | None, form: str = ".2f") -> str:
    if spread is None:
        return "-"
    return f"{spread.mean:{form}} ({'-' if spread.std is None else f'{spread.std:.2f}'})"


def _interval(interval: Interval | None) -> str:
    return "-" if interval is None else f"[{interval.low:.2f}, {interval.high:.2f}]"


def _p(p: float | None) -> str:
    if p is None:
        return "-"
    return f"{p:.3f}" if p >= 0.0005 else "<0.001"


def _estimate_record(prefix: str, estimate: Estimate | None) -> Record:
    interval = estimate and estimate.interval
    return {
        f"{prefix}difference": estimate and estimate.difference,
        f"{prefix}low": interval and interval.low,
        f"{prefix}high": interval and interval.high,
    }


def _effect_record(name: str, effect: Effect | None) -> Record:
    interval = effect and effect.interval
    values: Mapping[str, float] = {str(seeds): value for seeds, value in effect.values.items()} if effect else {}
    return {
        f"{name}_n": len(values),
        f"{name}_mean": effect and effect.spread.mean,
        f"{name}_std": effect and effect.spread.std,
        f"{name}_low": interval and interval.low,
        f"{name}_high": interval and interval.high,
        f"{name}_values": values,
    }
