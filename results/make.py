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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import jinja2
from scipy.stats import t

from hiresnet_graph.figure_style import WIDTHS_CM
from hiresnet_graph.files import write_atomic
from hiresnet_graph.formats import format_count
from hiresnet_graph.report import Difference, Report, compare, conclude, make_report, make_table, report_tables
from hiresnet_graph.report.analyses import Analysis, analysis_table
from hiresnet_graph.report.analysis_figures import analysis_figure
from hiresnet_graph.report.effects import edge_effects
from hiresnet_graph.report.figures import Look, figure_bytes, figure_captions, make_figure
from hiresnet_graph.report.formats import table_markdown
from hiresnet_graph.report.model import ALPHA, as_family, fit
from hiresnet_graph.report.questions import saved_analyses
from hiresnet_graph.report.scores import finished, unique_networks
from hiresnet_graph.report.tables import correction_sentence, error_sentence, format_p
from hiresnet_graph.sweep.database import open_for_reading
from hiresnet_graph.sweep.results import Results, read_results
from hiresnet_graph.sweep.study import read_study
from hiresnet_graph.train.record import LEDGER, RunRecord, Seeds

HERE = Path(__file__).parent
FIGURES = ("accuracy", "curves")
LOOK = Look(WIDTHS_CM["double"])
CONTROLLED = ("full", "adjusted")
"""A network, and the one without skips that was widened to as many parameters."""
PAIR_HEAD = ["compared", "published", "here", "95 % CI", "p", "p (Holm)", "detectable", "difference found"]
EQUAL_ERRORS = "With so few seeds, that the networks have equal errors is an assumption."


class SkipRatios(NamedTuple):
    """Mean absolute activation of each skip divided by that of the function at its target.

    Attributes:
        by_skip: Target and name of a skip -> the ratio in each network.
    """

    by_skip: dict[tuple[str, str], list[float]]

    @property
    def means(self) -> list[float]:
        """The mean over the networks for each skip."""
        return [fmean(ratios) for ratios in self.by_skip.values()]

    @property
    def range(self) -> str:
        """The smallest and the largest mean: `0.35 to 0.74`."""
        return f"{min(self.means):.2f} to {max(self.means):.2f}"

    def table(self, untrained: SkipRatios) -> str:
        """All ratios in Markdown, beside those of networks that were not trained."""
        lines = [
            "| at | skip | skip / function | in each network | before training |",
            "| --- | --- | ---: | ---: | ---: |",
        ]
        for (target, skip), ratios in self.by_skip.items():
            each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            before = fmean(untrained.by_skip[target, skip])
            lines.append(f"| {target} | {skip} | {fmean(ratios):.2f} | {each} | {before:.2f} |")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class StudyPage:
    """The results of one study, as the page shows them."""

    folder: Path

    @cached_property
    def results(self) -> Results:
        """All runs of the ledger; what is published is that of the study file."""
        return replace(read_results(self.folder), published=read_study(self.folder / "study.yaml").published)

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
        """Number of finished runs; 0 without a ledger."""
        if not (self.folder / LEDGER).is_file():
            return 0
        return len({row.key for row in self.results.rows if row.record is not None})

    @property
    def is_shown(self) -> bool:
        """Whether each network has a finished run."""
        if self.finished == 0:
            return False
        runs = finished(self.results)
        return all(runs[one.position] for one in unique_networks(self.results))

    @property
    def planned(self) -> int:
        """Number of runs of the study."""
        return len({row.key for row in self.results.rows})

    def networks_of(self, name: str, label: str) -> str:
        """Of how many trained networks an analysis is: `1 trained network`."""
        return format_count(len(self.analyses[name].seeds[label]), "trained network")

    def seeds_of(self, name: str, label: str) -> str:
        """The seeds of the networks of an analysis: `1 and 2`."""
        return " and ".join(self.analyses[name].seeds[label])

    @property
    def hours(self) -> float:
        """Wall time of the finished runs, added up, in hours."""
        times = {row.key: row.record.time_s for row in self.results.rows if row.record is not None}
        return sum(times.values()) / 3600

    @property
    def continued(self) -> str:
        """How many of the finished runs were taken up again: `2 runs were interrupted (1 killed)`; empty if none."""
        rows = self.results.rows
        count = len({row.key for row in rows if row.record is not None and row.attempts > 1})
        with open_for_reading(self.folder / LEDGER) as database:
            killed = database.execute("SELECT count(DISTINCT key) FROM attempts WHERE state = 'lost'").fetchone()[0]
        those = f" ({killed} killed)" if killed else ""
        return f"{format_count(count, 'run')} {'was' if count == 1 else 'were'} interrupted{those}" if count else ""

    def table(self) -> str:
        """Accuracies with the published ones, in Markdown."""
        return table_markdown(report_tables(Report(make_table(self.results)))[0])

    @cached_property
    def differences(self) -> dict[tuple[str, str], Difference]:
        """All differences on the page, by the two networks: one family of tests.

        They are from the baseline of the study; and of the network with all skips from the one that was widened to as
        many parameters.
        """
        first, (controlled, control) = compare(self.results)[0], CONTROLLED
        found = {(one.variants[0], first.baseline): one for one in first.differences}
        if {controlled, control} <= {network.label for network in self.results.networks}:
            others = compare(self.results, control)[0].differences
            found[controlled, control] = next(one for one in others if controlled in one.variants)
        family = as_family([one.estimate for one in found.values()])
        return {
            pair: one._replace(estimate=estimate, p_holm=p)
            for (pair, one), (estimate, p) in zip(found.items(), family, strict=True)
        }

    def comparison(self) -> str:
        """All differences, beside the published ones if there are any, in Markdown."""
        has_published = self.results.published is not None
        lines = [_line(PAIR_HEAD, has_published), _line(["---", *["---:"] * 6, "---"], has_published)]
        lines += [_line(self._cells(*pair), has_published) for pair in self.differences]
        tests = next((one.estimate.tests for one in self.differences.values() if one.estimate is not None), 0)
        pooled = all(one.is_pooled for one in self.differences.values())
        caption = [
            "In points of test accuracy at the epoch of best validation.",
            error_sentence(pooled, "networks"),
            *([EQUAL_ERRORS] if pooled and min(one.n for one in self.differences.values()) < 4 else []),
            correction_sentence(tests),
        ]
        return "\n".join([*lines, "", " ".join(caption)])

    def is_found(self, label: str, baseline: str) -> bool:
        """Whether one of the differences is significant after the correction."""
        p = self.differences[label, baseline].p_holm
        return p is not None and p < ALPHA

    def seeds(self, label: str, baseline: str) -> str:
        """The number of seeds of two networks: `5`, or `3 and 2`."""
        one = self.differences.get((label, baseline)) or self.differences[baseline, label]
        return " and ".join(dict.fromkeys(map(str, (one.n, one.baseline_n))))

    def difference(self, label: str, baseline: str) -> str:
        """One of the differences, as cells of a Markdown table."""
        return " | ".join(self._cells(label, baseline))

    def _cells(self, label: str, baseline: str) -> list[str]:
        one, sign = self.differences.get((label, baseline)), 1
        if one is None:
            one, sign = self.differences[baseline, label], -1
        known, published = self._published(label, baseline)
        cells = [f"{label} - {baseline}", published]
        found = one.estimate
        if found is None or found.interval is None or found.detectable is None or one.p_holm is None:
            return [*cells, "" if found is None else f"{sign * found.value:+.2f}", "", "", "", "", "too few runs"]
        value, (low, high) = sign * found.value, sorted(sign * end for end in found.interval)
        cells += [f"{value:+.2f}", f"[{low:+.2f}, {high:+.2f}]", format_p(found.p), format_p(one.p_holm)]
        return [*cells, f"{found.detectable:.2f}", _verdict(known, value, low, high, one.p_holm)]

    def _published(self, label: str, baseline: str) -> tuple[float | None, str]:
        """The published difference between two networks, also as a cell with the interval of Welch's test."""
        published = self.results.published
        pair = [published.value_for(name, {}) for name in (label, baseline)] if published is not None else []
        known = [value for value in pair if value is not None]
        if len(known) < 2:
            return None, ""
        value = known[0].mean - known[1].mean
        shares = [(one.std**2 / one.n, one.n - 1) for one in known if one.std is not None and one.n is not None]
        variance = sum(share for share, _ in shares)
        df = variance**2 / sum(share**2 / df for share, df in shares)
        half = float(t.ppf(0.975, df)) * variance**0.5
        return value, f"{value:+.2f} [{value - half:+.2f}, {value + half:+.2f}]"

    @property
    def conclusion(self) -> str:
        """What may be concluded, as `hrg report` says it."""
        return conclude(self.results)

    def effects(self) -> str:
        """What each edge is worth over all sets of the others, in Markdown."""
        return self._table("effects")

    def worths(self) -> str:
        """The edges with a main effect that is found, and those without, each with its number; empty before."""
        edges = edge_effects(self.results)[0].edges
        values = {edge.edge: (f"`{edge.edge}` {edge.main.value:+.2f}", edge.p_holm) for edge in edges if edge.main}
        if len(values) < len(edges) or any(p is None for _, p in values.values()):
            return ""
        found = [text for text, p in values.values() if p is not None and p < ALPHA]
        others = [text for text, p in values.values() if p is None or p >= ALPHA]
        kinds = [("Found", found), ("Not found", others)]
        return " ".join(f"{word}: {', '.join(texts)}." for word, texts in kinds if texts)

    def _table(self, part: str) -> str:
        return table_markdown(report_tables(make_report(self.results, parts=(part,)))[0])

    def epochs_to(self, *levels: float) -> str:
        """Epochs until a validation accuracy is reached, in Markdown: means over seeds, and differences with intervals.

        There is no mean if a seed never reaches it.
        """
        columns = [self._epochs_at(level) for level in levels]
        labels = list(columns[0])
        rows = [[label, *(_mean_epochs(column[label]) for column in columns)] for label in labels]
        rows.append([" - ".join(self._fast_pair), *(self.epochs_between(level) for level in levels)])
        head = ["variant", *(f"{level:g} %" for level in levels)]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---", *["---:"] * len(levels)], *rows])

    def epochs_between(self, level: float) -> str:
        """Epochs that the network with all skips needs more than the baseline: `-2.4 [-3.5, -1.3]`; negative if fewer.

        Without a number if a seed never reaches the level.
        """
        column = self._epochs_at(level)
        reached = [{seeds: epoch for seeds, epoch in column[label].items() if epoch is not None} for label in column]
        if any(None in column[label].values() for label in self._fast_pair):
            return "-"
        pair = {list(column).index(label): sign for label, sign in zip(self._fast_pair, (1.0, -1.0), strict=True)}
        found = fit(reached).contrast(pair)
        if found is None or found.interval is None:
            return "-" if found is None else f"{found.value:+.1f}"
        return f"{found.value:+.1f} [{found.interval.low:+.1f}, {found.interval.high:+.1f}]"

    @property
    def _fast_pair(self) -> tuple[str, str]:
        """The network with all skips, and the baseline."""
        assert self.results.baseline is not None
        return CONTROLLED[0], self.results.baseline

    def _epochs_at(self, level: float) -> dict[str, dict[Seeds, float | None]]:
        """The epoch at which each run of each network reaches a validation accuracy in percent; None if never."""
        runs, networks = finished(self.results), unique_networks(self.results)
        labels = [self.results.networks[one.position].label for one in networks]
        return {label: _epochs_to(runs[one.position], level) for label, one in zip(labels, networks, strict=True)}

    @cached_property
    def analyses(self) -> dict[str, Analysis]:
        """The analyses in the folder, by name."""
        return {analysis.name: analysis for analysis in saved_analyses(self.folder, self.results)}

    def analysis(self, name: str) -> str:
        """An analysis in Markdown; of the runs whose weights were there, as its column `n` says."""
        return table_markdown(analysis_table(replace(self.analyses[name], warning="")))

    def skip_ratios(self, block: str) -> SkipRatios:
        """How active the skips of the networks with all of them are.

        Args:
            block: The setting of the networks, where the study has a grid of blocks.
        """
        analysis = self.analyses["contributions"]
        activation = [quantity.name for quantity in analysis.question.quantities].index("mean_abs")
        functions: dict[object, Sequence[float]] = {}
        ratios: dict[tuple[str, str], list[float]] = {}
        for row in analysis.rows:
            key = dict(zip(analysis.question.keys, row.keys, strict=True))
            if row.variant != CONTROLLED[0] or key["slot"] != "output" or row.setting.get("block", block) != block:
                continue
            values = [value for value in row.values[activation] if value is not None]
            if key["kind"] == "function":
                functions[key["target"]] = values
            elif key["kind"] == "skip":
                pairs = zip(values, functions[key["target"]], strict=True)
                ratios[str(key["target"]), str(key["edge"])] = [skip / function for skip, function in pairs]
        return SkipRatios(ratios)

    @property
    def captions(self) -> dict[str, str]:
        """What the marks of its figures are."""
        return figure_captions(self.results, LOOK)

    def figures(self) -> dict[Path, bytes]:
        """The figures of the study by path; none if there is one network to be seen."""
        if len({network.label for network in self.results.networks}) < 2:
            return {}
        kinds = (*FIGURES, "effects") if self.results.subsets_of else FIGURES
        found = {kind: make_figure(self.results, kind, LOOK) for kind in kinds if self.finished > 1}
        found |= {name: analysis_figure(analysis, LOOK) for name, analysis in self.analyses.items()}
        return {self.folder / f"{name}.svg": figure_bytes(figure, "svg") for name, figure in found.items()}


def _line(cells: Sequence[str], has_published: bool) -> str:
    """A line of a table of differences, whose second cell is published."""
    return f"| {' | '.join(cells if has_published else [cells[0], *cells[2:]])} |"


def _verdict(known: float | None, value: float, low: float, high: float, p: float) -> str:
    """Whether a difference is found, and what that says about a published one."""
    contains = known is not None and low <= known <= high
    if p >= ALPHA:
        text = "no" if low <= 0 <= high else "no, but 0 is outside the interval"
        return text if known is None else f"{text}; published {'not ' if contains else ''}excluded"
    if known is None:
        return f"yes, {'higher' if value > 0 else 'lower'}"
    if value * known < 0:
        return "yes, opposite to published"
    if contains:
        return "yes; published not excluded"
    return f"yes, {'larger' if abs(value) > abs(known) else 'smaller'} than published"


def _epochs_to(runs: Mapping[Seeds, RunRecord], level: float) -> dict[Seeds, float | None]:
    """The epoch at which each run reaches a validation accuracy in percent; None if it never does."""
    curves = {seeds: [100 * epoch.validation_accuracy for epoch in run.epochs] for seeds, run in runs.items()}
    return {
        seeds: next((float(i) for i, value in enumerate(curve, start=1) if value >= level), None)
        for seeds, curve in curves.items()
    }


def _mean_epochs(found: Mapping[Seeds, float | None]) -> str:
    reached = [epoch for epoch in found.values() if epoch is not None]
    never = len(found) - len(reached)
    return f"{never} of {len(found)} never" if never else f"{fmean(reached):.1f}"


def make_files() -> dict[Path, bytes]:
    """The page and its figures by path."""
    with contextlib.chdir(HERE.parent):  # commands in the page name folders of the repository
        return {HERE.parent / path: content for path, content in _make_files(Path(HERE.name)).items()}


def _make_files(folder: Path) -> dict[Path, bytes]:
    planned = [StudyPage(path.parent) for path in sorted(folder.glob("*/study.yaml"))]
    studies = {study.name: study for study in planned if study.is_shown}
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
