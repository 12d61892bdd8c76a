"""The parts of a report as tables: formatted cells for people, records with all digits for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from hiresnet_graph.formats import Column, format_count, format_si, format_value, html_table, number_column
from hiresnet_graph.report.effects import Effects
from hiresnet_graph.report.model import Contrast
from hiresnet_graph.report.report import Report
from hiresnet_graph.report.scores import Spread, format_setting, spread_record
from hiresnet_graph.report.statistics import Comparison
from hiresnet_graph.report.table import Row, RunScores, Table
from hiresnet_graph.sweep.published import PublishedValue

_SCOPE = "These results hold for one split and one test set; other images may give other differences."
TWO_SEEDS = "Two seeds: with so few, an interval is wide, and its width uncertain; train more before you conclude."
Record = dict[str, object]


class ReportTable(NamedTuple):
    """A table of formatted cells.

    Attributes:
        part: Part of the report.
        records: The same data with all digits; missing numbers are None.
        caption_for_paper: Caption for the columns of LaTeX tables; empty if it is the same.
    """

    part: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    records: tuple[Record, ...]
    caption_for_paper: str = ""

    def __repr__(self) -> str:
        return f"<ReportTable {self.part}: {self.title}, {format_count(len(self.rows), 'row')}>"

    def _repr_html_(self) -> str:
        """The table in a notebook."""
        return html_table(self.columns, self.rows, self.title, self.caption)


Cell = tuple[Column, Callable[[Any], str]]
"""A column, and its cell for an item."""


def fill(items: Iterable[Any], cells: Sequence[Cell]) -> tuple[tuple[Column, ...], tuple[tuple[str, ...], ...]]:
    """The columns, and a row for each item."""
    return tuple(column for column, _ in cells), tuple(tuple(cell(item) for _, cell in cells) for item in items)


def grid_cells(settings: Mapping[str, str]) -> list[Cell]:
    """A column for each field of the grid; items have a `setting`."""

    def cell(name: str) -> Callable[[Any], str]:
        return lambda item: format_value(item.setting.get(name, "-"))

    return [(number_column(header), cell(name)) for name, header in settings.items()]


def is_certain(spread: Spread | None) -> bool:
    """Whether a top-k accuracy is 100 % in every run, as with at most k classes, or unknown: it says nothing."""
    return spread is None or (spread.mean == 100 and not spread.std)


def report_tables(report: Report) -> tuple[ReportTable, ...]:
    """The tables of a report."""
    makers: dict[str, Callable[[], list[ReportTable]]] = {
        "table": lambda: [_table(report.table)],
        "differences": lambda: [_differences(comparison, report.table) for comparison in report.differences],
        "effects": lambda: [_effects(effects) for effects in report.effects],
        "pareto": lambda: [_pareto(report)],
        "curves": lambda: [_curves(report)],
    }
    found = tuple(table for part in report.parts for table in makers[part]())
    if "table" in report.parts or not report.table.mixed:
        return found
    # Otherwise the caption of the table contains it.
    mixed = f"Mixed: {'; '.join(report.table.mixed)}."
    return tuple(table._replace(caption=f"{table.caption} {mixed}") for table in found)


def _table(table: Table) -> ReportTable:
    top_k = table.recipe.top_k
    has_top_k = top_k > 1 and not all(is_certain(row.test_top_k) for row in table.rows)
    columns, rows = fill(
        table.rows,
        [
            (Column("variant"), _label),
            *grid_cells(table.settings),
            (number_column("parameters", 3), lambda row: f"{row.parameters:,}"),
            (number_column("MACs", 2, in_paper=False), lambda row: format_si(row.macs)),
            (number_column("n", 8), _count),
            (number_column("test accuracy"), lambda row: _spread(row.test)),
            *([(number_column("published"), lambda row: _published(row.published))] if table.published else []),
            (number_column("at last epoch", 5, in_paper=False), lambda row: _spread(row.last)),
            *(
                [(number_column(f"top-{top_k}", 1, in_paper=False), lambda row: _spread(row.test_top_k))]
                if has_top_k
                else []
            ),
            (
                number_column("validation", 4 if not table.is_search else 9, in_paper=False),
                lambda row: _spread(row.validation),
            ),
        ],
    )
    records = tuple(map(_row_record, table.rows))
    return ReportTable("table", table.name, columns, rows, table.caption, records, table.caption_for_paper)


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
        "run_seeds": [str(seeds) for seeds in row.scores],
        **{f"{name}_runs": [getattr(one, name) for one in row.scores.values()] for name in RunScores._fields},
        **({f"published_{key}": getattr(row.published, key) for key in ("mean", "std", "n")} if row.published else {}),
    }


def _published(value: PublishedValue | None) -> str:
    return "" if value is None else _spread(Spread(value.mean, value.std))


def _differences(comparison: Comparison, table: Table) -> ReportTable:
    columns, rows = fill(
        comparison.differences,
        [
            (Column("variant"), lambda one: " = ".join(one.variants)),
            *grid_cells(table.settings),
            (
                number_column("n", 8, in_paper=False),
                lambda one: str(one.n) if one.n == one.baseline_n else f"{one.n} vs {one.baseline_n}",
            ),
            (number_column("difference"), lambda one: _number(one.estimate and one.estimate.value, "+.2f")),
            (number_column("95 % CI"), lambda one: _interval(one.estimate)),
            (number_column("p (Holm)"), lambda one: format_p(one.p_holm)),
            (number_column("df", 3, in_paper=False), lambda one: _df(one.estimate)),
            (number_column("p", 4, in_paper=False), lambda one: format_p(one.estimate and one.estimate.p)),
            (
                number_column("detectable", 6, in_paper=False),
                lambda one: _number(one.estimate and one.estimate.detectable),
            ),
        ],
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
            **contrast_record("difference", one.estimate),
            "p_holm": one.p_holm,
            "tests": comparison.tests,
            "error": "pooled" if one.is_pooled else "separate",
        }
        for one in comparison.differences
    )
    title = f"Differences from {comparison.baseline}"
    if table.settings:
        title += ", each network at its best setting" if comparison.at_best else ", at equal settings"
    caption, for_paper = (_differences_caption(comparison, has_all) for has_all in (True, False))
    return ReportTable("differences", title, columns, rows, caption, records, for_paper)


def _differences_caption(comparison: Comparison, has_all: bool) -> str:
    """A description of all columns, or of those of LaTeX tables."""
    sentences = [
        f"Each network minus {comparison.baseline}, in points of test accuracy at the epoch of best validation.",
        error_sentence(all(one.is_pooled for one in comparison.differences), "networks"),
    ]
    if comparison.tests:
        sentences.append(correction_sentence(comparison.tests))
    if has_all:
        sentences.append(
            "detectable: the smallest true difference that would be found (p (Holm) < 0.05) with at least 80 % power."
        )
    if comparison.at_best:
        at = next((format_setting(one.baseline_setting) for one in comparison.differences), "")
        sentences.insert(
            1,
            "Each at the setting with its highest mean validation accuracy"
            + (f"; that of {comparison.baseline} is {at}." if at else "."),
        )
    if comparison.equal:
        sentences.append(f"The same network as the baseline, so not compared: {', '.join(comparison.equal)}.")
    if any(min(one.n, one.baseline_n) == 2 for one in comparison.differences):
        sentences.append(TWO_SEEDS)
    return " ".join([*sentences, _SCOPE])


def error_sentence(is_pooled: bool, networks: str) -> str:
    """Which model the intervals and p values come from."""
    if is_pooled:
        return f"95 % CI and p: accuracy modelled as network + seed, with the error pooled over the {networks}."
    return (
        f"95 % CI and p: the {networks} differ in their spread (Levene's test), so each has its own error, and seeds "
        "are taken as independent (Welch)."
    )


def correction_sentence(tests: int, which: str = "") -> str:
    """For how many tests p values are corrected.

    Args:
        which: Words after their number.
    """
    return f"Holm: corrected for {format_count(tests, 'test')}{which}; intervals are not corrected."


def _effects(effects: Effects) -> ReportTable:
    has_shapley = effects.total is not None
    columns = (
        Column("edge"),
        number_column("pairs", 3, in_paper=False),
        number_column("main effect"),
        number_column("95 % CI"),
        number_column("p (Holm)"),
        *([number_column("Shapley", 6), number_column("95 % CI", 5)] if has_shapley else []),
    )

    def cells(effect: Contrast | None) -> tuple[str, str]:
        return _number(effect and effect.value, "+.2f"), _interval(effect)

    rows = [
        (one.edge, str(one.pairs), *cells(one.main), format_p(one.p_holm), *(cells(one.shapley) if has_shapley else ()))
        for one in effects.edges
    ]
    if effects.total is not None:
        rows.append(("all - none", "", "", "", "", *cells(effects.total)))
    sentences = [
        "Points of test accuracy at the epoch of best validation, with the edge minus without it, by descending "
        f"{'Shapley value' if has_shapley else 'main effect'}.",
        "main effect: mean over all pairs of subsets that differ only by the edge.",
    ]
    if has_shapley:
        sentences.append("Shapley: shares of the edges in the gain of all edges over none, to which they sum.")
    sentences.append(error_sentence(effects.is_pooled, "subsets"))
    if tests := sum(one.p_holm is not None for one in effects.edges):
        sentences.append(correction_sentence(tests, " of this setting" if effects.setting else ""))
    if effects.missing:
        sentences.append(effects.missing)
    title = "Effects of the edges" + (f" at {format_setting(effects.setting)}" if effects.setting else "")
    return ReportTable(
        "effects", title, columns, tuple(rows), " ".join([*sentences, _SCOPE]), tuple(_effect_records(effects))
    )


def _effect_records(effects: Effects) -> list[Record]:
    setting = dict(effects.setting)
    records: list[Record] = [
        {
            "edge": one.edge,
            "setting": setting,
            "pairs": one.pairs,
            **contrast_record("main", one.main),
            "p_holm": one.p_holm,
            **contrast_record("shapley", one.shapley),
        }
        for one in effects.edges
    ]
    if effects.total is not None:
        none = {"edge": None, "setting": setting, "pairs": None, **contrast_record("main", None), "p_holm": None}
        records.append({**none, **contrast_record("shapley", effects.total)})
    return records


def _pareto(report: Report) -> ReportTable:
    names = {"parameters": "parameters", "macs": "MACs"}
    columns, rows = fill(
        report.pareto,
        [
            (Column("variant"), lambda point: point.variant),
            *grid_cells(report.table.settings),
            (number_column("parameters", 7), lambda point: f"{point.parameters:,}"),
            (number_column("MACs", 6), lambda point: format_si(point.macs)),
            (number_column("n", 5), lambda point: str(point.n)),
            (number_column("validation"), lambda point: _spread(point.validation)),
            (number_column("test accuracy", 4), lambda point: _spread(point.test)),
            (Column("front of", 8), lambda point: ", ".join(names[front] for front in point.fronts)),
        ],
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
        "Networks for which no other is smaller and as accurate, or more accurate and as small. They are compared by "
        "mean validation accuracy in percent; as they were selected by it, report the test accuracy."
    )
    return ReportTable("pareto", "Pareto front", columns, rows, caption, records)


def _curves(report: Report) -> ReportTable:
    columns, rows = fill(
        report.curves,
        [
            (Column("variant"), lambda point: point.variant),
            *grid_cells(report.table.settings),
            (number_column("seed"), lambda point: str(point.seeds)),
            (number_column("epoch"), lambda point: str(point.epoch)),
            (Column("split"), lambda point: point.split),
            (number_column("loss"), lambda point: f"{point.loss:.4f}"),
            (number_column("accuracy"), lambda point: f"{point.accuracy:.2f}"),
        ],
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
    caption = "Mean loss and accuracy in percent; on training images as augmented, during the epoch."
    return ReportTable("curves", "Learning curves", columns, rows, caption, records)


def _label(row: Row) -> str:
    if row.same_as:
        return f"{row.variant} (= {row.same_as})"
    return f"{row.variant} (~ {row.isomorphic_to})" if row.isomorphic_to else row.variant


def _count(row: Row) -> str:
    counts = {"diverged": row.diverged, "failed": row.failed, "pruned": row.pruned, "missing": row.missing}
    number = str(row.n) if row.n == row.runs else f"{row.n} of {row.runs}"
    return ", ".join([number, *(f"{count} {what}" for what, count in counts.items() if count)])


def _spread(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.mean:.2f} ({_number(spread.std)})"


def _number(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else f"{value:{form}}"


def _interval(contrast: Contrast | None) -> str:
    if contrast is None or contrast.interval is None:
        return "-"
    return f"[{contrast.interval.low:+.2f}, {contrast.interval.high:+.2f}]"


def _df(contrast: Contrast | None) -> str:
    if contrast is None or not contrast.df:
        return "-"
    return f"{contrast.df:.0f}" if float(contrast.df).is_integer() else f"{contrast.df:.1f}"


def format_p(p: float | None) -> str:
    """A p value with three digits."""
    if p is None:
        return "-"
    return f"{p:.3f}" if p >= 0.0005 else "<0.001"


def contrast_record(name: str, contrast: Contrast | None) -> Record:
    """A contrast as data; missing numbers are None."""
    low, high = (contrast and contrast.interval) or (None, None)
    return {
        name: contrast and contrast.value,
        f"{name}_low": low,
        f"{name}_high": high,
        f"{name}_df": (contrast and contrast.df) or None,
        f"{name}_p": contrast and contrast.p,
        f"{name}_detectable": contrast and contrast.detectable,
    }
