"""The accuracy of networks in time at other readout steps than in training: a table and a curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hiresnet_graph.errors import UsageError
from hiresnet_graph.formats import Column, number_column
from hiresnet_graph.report.figure_data import FigureRow, labels_of
from hiresnet_graph.report.figures import (
    DASHES,
    FIGURE_SHAPE,
    Figure,
    Look,
    draw_chart,
    finish_figure,
    label_color,
    label_cycle,
    order_of,
)
from hiresnet_graph.report.formats import records_csv, records_json, table_latex, table_markdown
from hiresnet_graph.report.scores import (
    Setting,
    Spread,
    format_setting,
    percent,
    setting_columns,
    spread,
    spread_record,
)
from hiresnet_graph.report.tables import Record, ReportTable, fill, grid_cells, is_certain
from hiresnet_graph.sweep.results import read_results

if TYPE_CHECKING:
    from hiresnet_graph.data.dataset import Dataset
    from hiresnet_graph.train.evaluation import Part
    from hiresnet_graph.train.readout import Past, ReadoutPoint
    from hiresnet_graph.train.run_folder import Run

_READ, _NOT_READ = "read out in training", "not read out in training"
_MAX_TICKS = 12  # of the axis of steps


class ReadoutRow(NamedTuple):
    """A variant at one readout step. Accuracies are in percent; None if the step cannot be read out.

    Attributes:
        setting: Setting of the grid; empty without a grid.
        step: Readout step, counted from 0.
        trained: Whether training read out this step.
        n: Number of runs, one for each pair of seeds.
        accuracy: With the weights of the epoch of best validation.
        last: With the weights of the last epoch.
        top_k: Counting the `top_k` most probable classes; with the weights of the epoch of best validation.
        loss: Mean cross-entropy at this step; with the weights of the epoch of best validation.
        reason: Why the step cannot be read out; empty if it can.
    """

    variant: str
    setting: Setting
    step: int
    trained: bool
    n: int
    accuracy: Spread | None
    last: Spread | None
    top_k: Spread | None
    loss: Spread | None
    reason: str


class Readouts(NamedTuple):
    """The rows of all networks, in the order of the study.

    Attributes:
        part: Part of the data set.
        settings: The fields of the grid, with their column headers.
        left_out: Variants that do not run in time.
        networks: Names of all networks of the study, whose places give the colours of a figure.
    """

    name: str
    architecture: str
    data: str
    part: str
    top_k: int
    rows: tuple[ReadoutRow, ...]
    settings: Mapping[str, str]
    left_out: tuple[str, ...]
    networks: tuple[str, ...]


def make_readouts(
    folder: Path | str,
    steps: Sequence[int] | None = None,
    *,
    part: Part = "test",
    past: Past | None = None,
    device: str = "auto",
) -> Readouts:
    """Evaluate the networks in the folder of a run or a study at several readout steps.

    Args:
        steps: Counted from 0. By default those of training, from the first step at which the output depends on the
            input.
        part: Part of the data set.
        past: With `last`, a norm beyond its copies uses the last one (default: as in the spec).
        device: As in `train`.

    Raises:
        UsageError: None of the networks runs in time.
        RunError: There is no finished run, its weights are missing, or its data have changed.
    """
    from hiresnet_graph.analysis.sources import finished_runs
    from hiresnet_graph.train.trained import stored_dataset

    results = read_results(folder)
    data: Dataset | None = None
    rows: list[ReadoutRow] = []
    left_out: list[str] = []
    for index, runs in finished_runs(Path(folder), results).items():
        network = results.networks[index]
        if runs[0].architecture.plan.folded is None:
            left_out.append(network.label)
            continue
        data = data or stored_dataset(runs[0].folder)
        points_by_run = [_best_and_last(run, steps, part, past, data, device) for run in runs]
        for points in zip(*points_by_run, strict=True):
            rows.append(_row(network.label, network.setting, points))
    if left_out and not rows:
        raise UsageError(f"{folder}: '{results.architecture}' does not run in time, so it has no readout steps.")
    return Readouts(
        name=results.name,
        architecture=results.architecture,
        data=results.data,
        part=part,
        top_k=int(str(results.recipe.get("top_k", 5))),
        rows=tuple(rows),
        settings=setting_columns(results),
        left_out=tuple(dict.fromkeys(left_out)),
        networks=tuple(labels_of(results)),
    )


Pair = tuple["ReadoutPoint", "ReadoutPoint"]
"""A step with the weights of the epoch of best validation, and with those of the last."""


def _best_and_last(
    run: Run, steps: Sequence[int] | None, part: Part, past: Past | None, data: Dataset, device: str
) -> list[Pair]:
    best = run.readout(steps, part=part, past=past, data=data, device=device)
    if run.record.best_epoch == len(run.record.epochs):  # the same weights
        return list(zip(best, best, strict=True))
    last = run.readout(steps, part=part, which="last", past=past, data=data, device=device)
    return list(zip(best, last, strict=True))


def _row(label: str, setting: Setting, points: Sequence[Pair]) -> ReadoutRow:
    """The row of a network at one step."""
    best, last = [one.scores for one, _ in points], [one.scores for _, one in points]
    first = points[0][0]
    return ReadoutRow(
        variant=label,
        setting=setting,
        step=first.step,
        trained=first.trained,
        n=sum(scores is not None for scores in best),
        accuracy=spread(scores and percent(scores.accuracy) for scores in best),
        last=spread(scores and percent(scores.accuracy) for scores in last),
        top_k=spread(scores and percent(scores.top_k) for scores in best),
        loss=spread(scores and scores.loss for scores in best),
        reason=first.reason,
    )


# ------------------------------------------------------------------------------------------------------------ as text


def readout_table(readouts: Readouts) -> ReportTable:
    """The table: one row per network and step."""
    has_several, has_reasons = len(_labels(readouts.rows)) > 1, any(row.reason for row in readouts.rows)
    has_top_k = readouts.top_k > 1 and not all(is_certain(row.top_k) for row in readouts.rows)
    has_n = has_several or any(row.n > 1 for row in readouts.rows)
    columns, rows = fill(
        readouts.rows,
        [
            *([(Column("variant"), lambda row: row.variant), *grid_cells(readouts.settings)] if has_several else []),
            (number_column("step"), lambda row: f"{row.step} *" if row.trained else f"{row.step}  "),
            *([(number_column("n", 7), lambda row: str(row.n))] if has_n else []),
            (number_column(f"{readouts.part} accuracy"), lambda row: _cell(row.accuracy)),
            (number_column("at last epoch", 5), lambda row: _cell(row.last)),
            *([(number_column(f"top-{readouts.top_k}", 3), lambda row: _cell(row.top_k))] if has_top_k else []),
            (number_column("loss", 4), lambda row: _cell(row.loss, ".4f")),
            *([(Column("why not", 6, wraps=True), lambda row: row.reason)] if has_reasons else []),
        ],
    )
    records = tuple(_record(row) for row in readouts.rows)
    return ReportTable("readout", f"{readouts.name}, readout", columns, rows, _caption(readouts), records)


def readouts_csv(readouts: Readouts) -> str:
    """The rows with all digits, one per line."""
    return records_csv(map(_record, readouts.rows))


def readouts_json(readouts: Readouts) -> str:
    """All data with all digits; missing numbers are null."""
    data: Record = {
        "name": readouts.name,
        "architecture": readouts.architecture,
        "data": readouts.data,
        "part": readouts.part,
        "top_k": readouts.top_k,
        "rows": [_record(row) for row in readouts.rows],
        "left_out": list(readouts.left_out),
    }
    return records_json(data)


READOUT_FORMATS: Mapping[str, Callable[[Readouts], str]] = {
    "json": readouts_json,
    "csv": readouts_csv,
    "md": lambda readouts: table_markdown(readout_table(readouts)),
    "tex": lambda readouts: table_latex(readout_table(readouts), f"{readouts.name}-readout"),
}


def readout_figure(readouts: Readouts, look: Look | None = None) -> Figure:
    """Accuracy against step: a line for each network, with filled dots at the steps of training.

    Error bars are one standard deviation over seeds. Lines have gaps at steps that are missing.

    Raises:
        UsageError: No step can be read out.
    """
    import altair as alt

    look, rows = (look or Look())._replace(networks=readouts.networks), _figure_rows(readouts)
    if not rows:
        raise UsageError("no step can be read out, so there is no curve to draw.")
    steps = [row.step for row in readouts.rows if row.accuracy is not None]
    ticks = list(range(min(steps), max(steps) + 1, math.ceil((max(steps) - min(steps) + 1) / _MAX_TICKS)))
    has_bars = any(row["low"] != row["high"] for row in rows)
    unit = "%, mean ± standard deviation" if has_bars else "%"
    title = f"{readouts.part} accuracy ({unit})"
    color = label_color(look, rows, "stroke") if len(order_of(rows)) > 1 else label_color(look, rows)
    x = alt.X("step:Q").title("readout step (counted from 0)").axis(values=ticks, format="d")
    base = draw_chart(look).encode(x=x.scale(domain=[min(steps) - 0.5, max(steps) + 0.5], nice=False), color=color)
    y = alt.Y("accuracy:Q").title(title).scale(zero=False)
    line = base.mark_line(strokeWidth=1.4).encode(
        y=y, detail="piece:N", strokeDash=label_cycle(look, rows, alt.StrokeDash, DASHES, "")
    )
    bars = base.mark_rule().encode(y=alt.Y("low:Q").title(title), y2="high:Q")
    marks = alt.Scale(domain=[_READ, _NOT_READ], range=["circle", "diamond"])
    key = alt.Legend(title=None, orient="bottom", labelLimit=0)
    is_mixed = len({row["read"] for row in rows}) > 1
    dots = base.mark_point(size=40, opacity=1, strokeWidth=1.4).encode(
        y=y,
        shape=alt.Shape("read:N", scale=marks).legend(key if is_mixed else None),
        fill=alt.condition(f"datum.read == '{_READ}'", color, alt.value("white")),
        tooltip=["label:N", "step:Q", "accuracy:Q", "low:Q", "high:Q", "read:N"],
    )
    return finish_figure(rows, alt.layer(line, bars, dots).properties(height=look.width_px * FIGURE_SHAPE), look)


def _figure_rows(readouts: Readouts) -> list[FigureRow]:
    found: list[FigureRow] = []
    pieces: dict[str, tuple[int, int]] = {}  # network -> its last step, and the number of its line
    for row in readouts.rows:
        if row.accuracy is None:
            continue
        label, std = _label(row), row.accuracy.std or 0.0
        last, piece = pieces.get(label, (row.step - 1, 0))
        piece += row.step != last + 1
        pieces[label] = row.step, piece
        mean = row.accuracy.mean
        values = {"step": row.step, "accuracy": mean, "low": mean - std, "high": mean + std}
        found.append({"label": label, "piece": piece, "read": _READ if row.trained else _NOT_READ, **values})
    return found


def _label(row: ReadoutRow) -> str:
    return ", ".join([row.variant, *([format_setting(row.setting)] if row.setting else [])])


def _labels(rows: Iterable[ReadoutRow]) -> list[str]:
    return list(dict.fromkeys(map(_label, rows)))


def _cell(spread: Spread | None, form: str = ".2f") -> str:
    if spread is None:
        return "-"
    return f"{spread.mean:{form}}" + ("" if spread.std is None else f" ({spread.std:{form}})")


def _record(row: ReadoutRow) -> Record:
    return {
        "variant": row.variant,
        "setting": dict(row.setting),
        "step": row.step,
        "trained": row.trained,
        "n": row.n,
        **spread_record("accuracy", row.accuracy),
        **spread_record("last", row.last),
        **spread_record("top_k", row.top_k),
        **spread_record("loss", row.loss),
        "reason": row.reason or None,
    }


def _caption(readouts: Readouts) -> str:
    has_spread = any(row.accuracy is not None and row.accuracy.std is not None for row in readouts.rows)
    sentences = [
        f"{readouts.architecture} on {readouts.data}: {readouts.part} accuracy in percent with the weights of the "
        "epoch of best validation, and with those of the last"
        + ("; mean (standard deviation, ddof 1) over seeds." if has_spread else "."),
        "*: read out in training; at other steps the network was never trained to answer.",
    ]
    if readouts.left_out:
        sentences.append(f"Excluded, as they do not run in time: {', '.join(readouts.left_out)}.")
    return " ".join(sentences)
