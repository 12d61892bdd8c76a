"""Writes results/README.md and its figures from the ledgers of the studies beside it.

    python results/make.py [--check]

Each study is a folder with `study.yaml` and `ledger.sqlite`; analyses of its networks lie in `analyses`. The page is
made of README.md.jinja, in which every number is computed here. `--check` writes nothing, and ends with 1 if a file
differs from what would be written.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

import jinja2

from hiresnet_graph.figure_style import WIDTHS_CM
from hiresnet_graph.files import write_atomic
from hiresnet_graph.formats import format_count
from hiresnet_graph.report import Difference, Report, compare, conclude, make_report, make_table, report_tables
from hiresnet_graph.report.analyses import Analysis, analysis_table
from hiresnet_graph.report.analysis_figures import analysis_figure
from hiresnet_graph.report.figure_data import validation_curves
from hiresnet_graph.report.figures import Look, figure_bytes, make_figure
from hiresnet_graph.report.formats import table_markdown
from hiresnet_graph.report.questions import saved_analyses
from hiresnet_graph.report.tables import format_p
from hiresnet_graph.sweep.results import Results, read_results
from hiresnet_graph.sweep.study import read_study
from hiresnet_graph.train.record import LEDGER

HERE = Path(__file__).parent
FIGURES = ("accuracy", "curves")


@dataclass(frozen=True, eq=False)
class StudyPage:
    """The results of one study, as the page shows them."""

    folder: Path

    @cached_property
    def results(self) -> Results:
        """All runs of the ledger."""
        return read_results(self.folder)

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def title(self) -> str:
        """What is trained, in a few words: the description in the study file."""
        return read_study(self.folder / "study.yaml").description.rstrip(".")

    @cached_property
    def finished(self) -> int:
        """Number of finished runs."""
        return len({row.key for row in self.results.rows if row.record is not None})

    @property
    def planned(self) -> int:
        """Number of runs of the study."""
        return len({row.key for row in self.results.rows})

    def runs_of(self, label: str) -> str:
        """How many finished runs a network has: `1 run`."""
        rows = self.results.rows
        keys = {row.key for row in rows if row.record is not None and self.results.networks[row.network].label == label}
        return format_count(len(keys), "run")

    @property
    def hours(self) -> float:
        """Wall time of the finished runs, added up, in hours."""
        times = {row.key: row.record.time_s for row in self.results.rows if row.record is not None}
        return sum(times.values()) / 3600

    @property
    def continued(self) -> str:
        """How many of the finished runs were interrupted and taken up again: `2 runs were`; empty if none."""
        rows = self.results.rows
        count = len({row.key for row in rows if row.record is not None and row.attempts > 1})
        return f"{format_count(count, 'run')} {'was' if count == 1 else 'were'}" if count else ""

    def table(self) -> str:
        """Accuracies with the published ones, in Markdown."""
        return table_markdown(report_tables(Report(make_table(self.results)))[0])

    def comparison(self) -> str:
        """Differences from the baseline, beside the published ones if there are any, in Markdown."""
        if self.results.published is None:
            return self._table("differences")
        head = "| variant | published | here | 95 % CI | p (Holm) | detectable | agreement |"
        lines = [head, "| --- | ---: | ---: | ---: | ---: | ---: | --- |"]
        comparison = compare(self.results)[0]
        for one in comparison.differences:
            lines.append(f"| {self._difference_cells(one.variants[0], comparison.baseline, one)} |")
        return "\n".join(lines)

    def difference(self, label: str, baseline: str) -> str:
        """One difference beside the published one, as cells of a Markdown table: what is compared, and the rest."""
        one = next(one for one in compare(self.results, baseline)[0].differences if label in one.variants)
        return self._difference_cells(f"{label} - {baseline}", baseline, one)

    def _difference_cells(self, name: str, baseline: str, one: Difference) -> str:
        known = None
        if published := self.results.published:
            theirs = published.value_for(one.variants[0], one.setting)
            base = published.value_for(baseline, one.baseline_setting)
            known = theirs.mean - base.mean if theirs is not None and base is not None else None
        cells = [name, "" if known is None else f"{known:+.2f}"]
        found = one.estimate
        if found is None:
            return " | ".join([*cells, "", "", "", "", "no runs yet"])
        cells.append(f"{found.value:+.2f}")
        if found.interval is None or found.detectable is None or one.p_holm is None:
            return " | ".join([*cells, "", "", "", "too few runs"])
        low, high = found.interval
        cells += [f"[{low:+.2f}, {high:+.2f}]", format_p(one.p_holm), f"{found.detectable:.2f}"]
        return " | ".join([*cells, _agreement(known, found.value, low, high, one.p_holm)])

    def conclusion(self) -> str:
        """What may be concluded, in one or two sentences."""
        return conclude(self.results)

    def effects(self) -> str:
        """What each edge is worth over all sets of the others, in Markdown."""
        return self._table("effects")

    def _table(self, part: str) -> str:
        return table_markdown(report_tables(make_report(self.results, parts=(part,)))[0])

    def epochs_to(self, *levels: float) -> str:
        """Epochs until a validation accuracy is reached, in Markdown: the mean over seeds, if all reach it."""
        head = " | ".join(f"{level:g} %" for level in levels)
        lines = [f"| variant | {head} |", "| --- |" + " ---: |" * len(levels)]
        for label, curves in validation_curves(self.results).items():
            if curves:
                lines.append(f"| {label} | {' | '.join(_epochs_to(curves, level) for level in levels)} |")
        return "\n".join(lines)

    @cached_property
    def analyses(self) -> dict[str, Analysis]:
        """The analyses in the folder, by name."""
        return {analysis.name: analysis for analysis in saved_analyses(self.folder, self.results)}

    def analysis(self, name: str) -> str:
        """An analysis in Markdown."""
        return table_markdown(analysis_table(self.analyses[name]))

    def skip_ratios(self) -> str:
        """The activation of each skip divided by that of the function at its target, in Markdown: mean over seeds."""
        lines = ["| network | at | skip | skip / function |", "| --- | --- | --- | ---: |"]
        return "\n".join([*lines, *(f"| {' | '.join(keys)} | {ratio:.2f} |" for *keys, ratio in self._skip_ratios)])

    def skip_range(self) -> str:
        """The smallest and the largest of these ratios: `0.37 to 0.51`."""
        ratios = [ratio for *_, ratio in self._skip_ratios]
        return f"{min(ratios):.2f} to {max(ratios):.2f}"

    @cached_property
    def _skip_ratios(self) -> list[tuple[str, str, str, float]]:
        analysis = self.analyses["contributions"]
        keys = list(analysis.question.keys)
        activation = [quantity.name for quantity in analysis.question.quantities].index("mean_abs")
        functions: dict[tuple[object, ...], float] = {}
        ratios = []
        for row in analysis.rows:
            key = dict(zip(keys, row.keys, strict=True))
            at = (row.variant, key["target"], key["slot"])
            mean = fmean(value for value in row.values[activation] if value is not None)
            if key["kind"] == "function":
                functions[at] = mean
            elif key["kind"] == "skip":
                ratios.append((row.variant, str(key["target"]), str(key["edge"]), mean / functions[at]))
        return ratios

    def figures(self) -> dict[Path, bytes]:
        """The figures of the study by path."""
        look = Look(WIDTHS_CM["double"])
        found = {kind: make_figure(self.results, kind, look) for kind in FIGURES if self.finished > 1}
        found |= {name: analysis_figure(analysis, look) for name, analysis in self.analyses.items()}
        return {self.folder / f"{name}.svg": figure_bytes(figure, "svg") for name, figure in found.items()}


def _agreement(known: float | None, value: float, low: float, high: float, p: float) -> str:
    """Whether a difference is found, and what that says about a published one."""
    is_found = p < 0.05
    if known is None:
        return "a difference is found" if is_found else "no difference found"
    if is_found:
        return "yes: found, same direction" if value * known > 0 else "no: found in the other direction"
    inside = "within" if low <= known <= high else "outside"
    return f"open: no difference found, the published one is {inside} the interval"


def _epochs_to(curves: list[list[float]], level: float) -> str:
    epochs = [next((i for i, value in enumerate(curve, start=1) if value >= level), None) for curve in curves]
    never = epochs.count(None)
    return f"{never} of {len(epochs)} never" if never else f"{fmean(epoch or 0 for epoch in epochs):.1f}"


def make_files() -> dict[Path, bytes]:
    """The page and its figures by path."""
    with contextlib.chdir(HERE.parent):  # commands in the page name folders of the repository
        return {HERE.parent / path: content for path, content in _make_files(Path(HERE.name)).items()}


def _make_files(folder: Path) -> dict[Path, bytes]:
    planned = [StudyPage(path.parent) for path in sorted(folder.glob("*/study.yaml"))]
    studies = {study.name: study for study in planned if (study.folder / LEDGER).is_file() and study.finished}
    open_studies = [study for study in planned if study.name not in studies]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown
    )
    page = environment.get_template("README.md.jinja").render(studies=studies, open_studies=open_studies)
    files = {folder / "README.md": page.encode()}
    for study in studies.values():
        files |= study.figures()
    return files


def main() -> None:
    """Write the files that differ, or tell whether there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if a file is out of date")
    is_check = parser.parse_args().check
    files = make_files()
    stale = [path for path, content in files.items() if not path.is_file() or path.read_bytes() != content]
    for path in stale:
        print(f"{'out of date' if is_check else 'wrote'}: {path.relative_to(HERE.parent)}")
        if not is_check:
            write_atomic(path, files[path])
    sys.exit(1 if is_check and stale else 0)


if __name__ == "__main__":
    main()
