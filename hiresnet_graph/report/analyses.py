"""Analyses of the networks of a run, a study or a file of weights: rows over seeds, tables, and files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.files import make_folder, write_atomic
from hiresnet_graph.formats import Column, format_command, format_count, number_column
from hiresnet_graph.report.figure_data import label_of, labels_of
from hiresnet_graph.report.formats import records_csv, records_json, table_latex, table_markdown
from hiresnet_graph.report.scores import (
    Setting,
    finished,
    format_setting,
    setting_columns,
    spread,
    spread_record,
    unique_networks,
)
from hiresnet_graph.report.tables import Record, ReportTable, fill, grid_cells
from hiresnet_graph.sweep.results import Results
from hiresnet_graph.sweep.status import run_folders
from hiresnet_graph.train.record import BEST

if TYPE_CHECKING:
    from hiresnet_graph.analysis.sources import AnalysisSource, Subject
    from hiresnet_graph.train.evaluation import Part
    from hiresnet_graph.train.trained import TrainedNetwork

T = TypeVar("T")
FOLDER = "analysis"
"""Folder of a study with the analyses of its networks, which its report shows."""
Key = str | int | None


class Quantity(NamedTuple):
    """A number of each row.

    Attributes:
        name: In data.
        header: Of its column.
        form: Format in tables.
        axis: Title in a figure (default: the header).
    """

    name: str
    header: str
    form: str = ".3f"
    axis: str = ""


class Question(NamedTuple):
    """What an analysis asks.

    Attributes:
        keys: What identifies a row: name in data -> column.
        unnamed: Keys that are not part of the names in a figure.
        not_drawn: Rows that a figure leaves out, by their first key.
        plain_kinds: Kinds of rows without which a figure leaves out a merge, if other merges have more than these.
        reference: Beginning of the first key of rows that the others are compared with.
        is_matrix: The two keys are drawn as a matrix.
        series: The key along which numbers are a series: drawn from left to right, and in tables only at three values.
        curve: The key along which numbers are drawn as a line for each network, with filled dots where the key after
            it is true.
        quantities: What is measured. The first one is drawn.
        caption: What the numbers are, in sentences.
    """

    name: str
    title: str
    keys: Mapping[str, Column]
    quantities: tuple[Quantity, ...]
    caption: str
    unnamed: tuple[str, ...] = ()
    not_drawn: tuple[str, ...] = ()
    plain_kinds: tuple[str, ...] = ()
    reference: str = ""
    is_matrix: bool = False
    series: str = ""
    curve: str = ""


class MeasuredRow(NamedTuple):
    """A row of one run: the values of keys and of quantities, in the order of the question."""

    keys: tuple[Key, ...]
    values: tuple[float | None, ...]


CombinedRow = tuple[tuple[Key, ...], tuple[tuple[float | None, ...], ...]]
"""Keys, and for each quantity its values."""


class AnalysisRow(NamedTuple):
    """A row of a network, over its runs.

    Attributes:
        setting: Setting of the grid; empty without a grid.
        values: For each quantity, the value of each run, or of each pair of runs.
    """

    variant: str
    setting: Setting
    keys: tuple[Key, ...]
    values: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class Analysis:
    """The answers for all networks of a source, in the order of the study.

    Attributes:
        name: Of its file: that of the question and of options that change the numbers.
        detail: What distinguishes it from other answers to the question: options, in a few words.
        part: Part of the data set, with its number of images; empty for numbers that were recorded in training.
        seeds: Network -> the seeds of its runs, in the order of the values.
        settings: The fields of the grid, with their column headers.
        note: What the options were, in sentences.
        left_out: Networks that the question does not apply to, each with the reason.
        options: Those of the command that gave these numbers, as typed.
        networks: Names of all networks of the study in figures, whose places give their colours.
        warning: Why the numbers may not be those of the study, in a sentence.
    """

    question: Question
    name: str
    source: str
    architecture: str
    data: str
    part: str
    images: int
    seeds: Mapping[str, tuple[str, ...]]
    rows: tuple[AnalysisRow, ...]
    settings: Mapping[str, str]
    note: str = ""
    left_out: tuple[str, ...] = ()
    detail: str = ""
    options: str = ""
    networks: tuple[str, ...] = ()
    warning: str = ""

    @property
    def title(self) -> str:
        """The question, with the detail."""
        return f"{self.question.title}: {self.detail}" if self.detail else self.question.title


def combine_runs(runs: Sequence[Sequence[MeasuredRow]]) -> list[CombinedRow]:
    """The rows of several runs, which have the same keys."""
    return [(rows[0].keys, tuple(zip(*(row.values for row in rows), strict=True))) for rows in zip(*runs, strict=True)]


def analyse(
    source: AnalysisSource,
    question: Question,
    measure: Callable[[TrainedNetwork], T],
    combine: Callable[[Sequence[T]], Sequence[CombinedRow]],
    *,
    part: Part,
    name: str = "",
    note: str = "",
    options: str = "",
) -> Analysis:
    """The answer to a question about trained weights for each network of a source.

    A network that the question does not apply to (`measure` raises a UsageError) is left out.

    Args:
        measure: What is measured on one run.
        combine: The rows of a network, from all of its runs.

    Raises:
        UsageError: It applies to none of them.
    """
    images = 0

    def rows_of(subject: Subject) -> Sequence[CombinedRow]:
        nonlocal images
        found = []
        for open_network in subject.networks:
            with open_network() as network:
                images = network.count_images(part)
                found.append(measure(network))
        return combine(found)

    found = answer(source, question, rows_of, name=name, note=note)
    options = " ".join(word for word in (options, "" if part == "test" else f"--part {part}") if word)
    return replace(found, part=part, images=images, options=options)


def answer(
    source: AnalysisSource,
    question: Question,
    rows_of: Callable[[Subject], Sequence[CombinedRow]],
    *,
    name: str = "",
    note: str = "",
) -> Analysis:
    """The answer to a question for each network of a source.

    Args:
        rows_of: The rows of a network; raises a UsageError if the question does not apply to it.

    Raises:
        UsageError: It applies to none of them.
    """
    rows: list[AnalysisRow] = []
    seeds: dict[str, tuple[str, ...]] = {}
    left_out: dict[str, str] = {}
    for subject in source.subjects:
        label = f"{subject.label}, {format_setting(subject.setting)}" if subject.setting else subject.label
        try:
            found = rows_of(subject)
        except UsageError as error:
            left_out[label] = str(error)
            continue
        seeds[label] = subject.seeds
        rows += [AnalysisRow(subject.label, subject.setting, *row) for row in found]
    if not rows:
        if not left_out:
            raise UsageError(f"{source.name}: there is nothing to analyse.")
        # The longest one lists the edges of a network; those without edges have shorter ones.
        label = max(left_out, key=lambda label: len(left_out[label]))
        raise UsageError(left_out[label] if len(left_out) == 1 else f"'{label}': {left_out[label]}")
    return Analysis(
        question,
        name or question.name,
        source.name,
        source.architecture,
        source.data,
        "",
        0,
        seeds,
        tuple(rows),
        {} if source.results is None else setting_columns(source.results),
        note,
        tuple(f"{label} ({_short_reason(reason, source.architecture)})" for label, reason in left_out.items()),
        networks=() if source.results is None else tuple(labels_of(source.results)),
    )


def _short_reason(reason: str, name: str) -> str:
    """The first sentence of an error, without the name of the architecture, which all networks of a study have."""
    return reason.split(". ")[0].rstrip(".").removeprefix(f"'{name}' ")


def _has_weights(folder: Path, results: Results, runs: Set[tuple[str, str]]) -> bool:
    """Whether the weights of one of some runs, by label and seeds, are in the folder of their study."""
    folders = run_folders(folder)
    return any(
        (folders[row.key] / BEST).is_file()
        for row in results.rows
        if row.key in folders and (label_of(results.networks[row.network]), str(row.seeds)) in runs
    )


def within_study(analysis: Analysis, results: Results, folder: Path) -> Analysis:
    """An analysis with the networks of its study, and a warning if the study has finished runs that it lacks."""
    runs = finished(results)
    names = {label_of(results.networks[one.position]): runs[one.position] for one in unique_networks(results)}
    left_out = tuple(label for label in names if any(text.startswith(f"{label} (") for text in analysis.left_out))
    now = {(label, str(seeds)) for label, found in names.items() if label not in left_out for seeds in found}
    then = {(label, seeds) for label, found in analysis.seeds.items() for seeds in found}
    warning = ""
    if now - then:
        warning = f"This analysis was made of {len(now & then)} of {format_count(len(now), 'finished run')}"
        command = f"{format_command('analyze', analysis.question.name, folder)} {analysis.options}".rstrip()
        has_weights = _has_weights(folder, results, now - then)
        warning += f": run '{command}' again." if has_weights else "; the weights of the others are not in the folder."
    return replace(analysis, networks=tuple(names), warning=warning)


# ------------------------------------------------------------------------------------------------------------ as text


def analysis_table(analysis: Analysis) -> ReportTable:
    """The table: one row per network and key. Columns that are empty everywhere are omitted."""
    question = analysis.question
    shown_keys = [i for i, _ in enumerate(question.keys) if any(row.keys[i] is not None for row in analysis.rows)]
    shown = [i for i, _ in enumerate(question.quantities) if any(_is_known(row.values[i]) for row in analysis.rows)]
    has_several = len({label_of_row(row) for row in analysis.rows}) > 1
    has_n = any(len(values) > 1 for row in analysis.rows for values in row.values)
    columns = list(question.keys.values())

    def key_cell(i: int) -> Callable[[AnalysisRow], str]:
        return lambda row: _key_cell(row.keys[i])

    def cell(i: int) -> Callable[[AnalysisRow], str]:
        return lambda row: _cell(row.values[i], question.quantities[i].form)

    cells: list[tuple[Column, Callable[[Any], str]]] = [
        *([(Column("variant"), lambda row: row.variant), *grid_cells(analysis.settings)] if has_several else []),
        *((columns[i], key_cell(i)) for i in shown_keys),
        *([(number_column("n", 7), lambda row: str(_count(row)))] if has_n else []),
        *((number_column(question.quantities[i].header), cell(i)) for i in shown),
    ]
    headers, rows = fill(_shown_rows(analysis), cells)
    title = f"{analysis.source}, {analysis.title}"
    return ReportTable(analysis.name, title, headers, rows, _caption(analysis, has_n), tuple(_records(analysis)))


def _shown_rows(analysis: Analysis) -> list[AnalysisRow]:
    """The rows of a table: of a series, those at its first, middle and last value."""
    if not analysis.question.series:
        return list(analysis.rows)
    i = list(analysis.question.keys).index(analysis.question.series)
    values = list(dict.fromkeys(row.keys[i] for row in analysis.rows))
    shown = {values[0], values[(len(values) - 1) // 2], values[-1]}
    return [row for row in analysis.rows if row.keys[i] in shown]


def analysis_json(analysis: Analysis) -> str:
    """All data with all digits; missing numbers are null."""
    data: Record = {
        "analysis": analysis.question.name,
        "name": analysis.name,
        "source": analysis.source,
        "architecture": analysis.architecture,
        "data": analysis.data,
        "part": analysis.part,
        "images": analysis.images,
        "seeds": {label: list(seeds) for label, seeds in analysis.seeds.items()},
        "rows": _records(analysis),
        "settings": dict(analysis.settings),
        "note": analysis.note,
        "left_out": list(analysis.left_out),
        "detail": analysis.detail,
        "options": analysis.options,
        **({"warning": analysis.warning} if analysis.warning else {}),
    }
    return records_json(data)


FORMATS: Mapping[str, Callable[[Analysis], str]] = {
    "json": analysis_json,
    "csv": lambda analysis: records_csv(_records(analysis)),
    "md": lambda analysis: table_markdown(analysis_table(analysis)),
    "tex": lambda analysis: table_latex(analysis_table(analysis), f"{analysis.source}-{analysis.name}"),
}


def save_analysis(analysis: Analysis, study: Path) -> Path:
    """Write an analysis into the folder of its study, where the report finds it; returns the path.

    Raises:
        RunError: It cannot be written.
    """
    path = study / FOLDER / f"{analysis.name}.json"
    make_folder(path.parent)
    write_atomic(path, analysis_json(analysis).encode())
    return path


def read_analysis(path: Path, question: Question) -> Analysis:
    """The analysis in a file.

    Raises:
        RunError: It cannot be read.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Analysis(
            question,
            data["name"],
            data["source"],
            data["architecture"],
            data["data"],
            data["part"],
            int(data["images"]),
            {label: tuple(seeds) for label, seeds in data["seeds"].items()},
            tuple(_row(record, question) for record in data["rows"]),
            data["settings"],
            data["note"],
            tuple(data["left_out"]),
            data["detail"],
            data.get("options", ""),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path}: is no analysis of this version ({type(error).__name__}: {error}). Delete it, and run "
            f"'hrg analyze {question.name}' again."
        ) from None


def label_of_row(row: AnalysisRow) -> str:
    """Name of the network of a row in figures: the variant, and its setting of the grid."""
    return f"{row.variant}, {format_setting(row.setting)}" if row.setting else row.variant


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean over runs; None if no run has a value."""
    found = spread(values)
    return None if found is None else found.mean


def _row(record: Mapping[str, Any], question: Question) -> AnalysisRow:
    return AnalysisRow(
        record["variant"],
        record["setting"],
        tuple(record[name] for name in question.keys),
        tuple(tuple(record[f"{one.name}_runs"] or (None,) * record["n"]) for one in question.quantities),
    )


def _records(analysis: Analysis) -> list[Record]:
    question = analysis.question
    return [
        {
            "variant": row.variant,
            "setting": dict(row.setting),
            **dict(zip(question.keys, row.keys, strict=True)),
            "n": _count(row),
            **{
                name: value
                for one, values in zip(question.quantities, row.values, strict=True)
                for name, value in {
                    **spread_record(one.name, spread(values)),
                    f"{one.name}_runs": list(values) if _is_known(values) else None,
                }.items()
            },
        }
        for row in analysis.rows
    ]


def _count(row: AnalysisRow) -> int:
    """Number of runs with a value of the first quantity."""
    return sum(value is not None for value in row.values[0])


def _is_known(values: Sequence[float | None]) -> bool:
    return any(value is not None for value in values)


def _key_cell(key: Key) -> str:
    if isinstance(key, bool):
        return "yes" if key else "no"
    return "" if key is None else str(key)


def _cell(values: Sequence[float | None], form: str) -> str:
    found = spread(values)
    if found is None:
        return "-"
    return f"{found.mean:{form}}" + ("" if found.std is None else f" ({found.std:{form.lstrip('+')}})")


def _caption(analysis: Analysis, has_n: bool) -> str:
    is_trained_here = any(analysis.seeds.values())
    weights = "the weights of the epoch of best validation" if is_trained_here else f"the weights of {analysis.source}"
    how = f"{analysis.images:,} {analysis.part} images, with {weights}" if analysis.part else "along training"
    sentences = [
        analysis.warning,
        f"{analysis.architecture} on {analysis.data}, {how}"
        f"{'; mean (standard deviation, ddof 1) over seeds' if has_n else ''}.",
        analysis.question.caption,
        analysis.note,
    ]
    if analysis.left_out:
        sentences.append(f"Left out: {'; '.join(analysis.left_out)}.")
    return " ".join(sentence for sentence in sentences if sentence)
