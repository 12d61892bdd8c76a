"""The pages of results agree with the ledgers beside them."""

from __future__ import annotations

import json
import math
import re
import runpy
import sqlite3
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hiresnet_graph.sweep.prepare import prepare_study
from hiresnet_graph.sweep.results import read_results
from hiresnet_graph.sweep.study import read_study

RESULTS = Path(__file__).parent.parent / "results"
LEDGERS = sorted(RESULTS.glob("*/ledger.sqlite"))
# Of these, the page has no accuracies: networks before training, and the effects of edges alone.
WITHOUT_ACCURACIES = ("untrained_cifar10", "subsets_cifar10")
TRAINED = [ledger for ledger in LEDGERS if ledger.parent.name not in WITHOUT_ACCURACIES]


def finished_records(ledger: Path) -> list[dict[str, Any]]:
    with sqlite3.connect(f"file:{ledger}?mode=ro&immutable=1", uri=True) as database:
        rows = database.execute("select record from runs where record is not null").fetchall()
    return [json.loads(text) for (text,) in rows]


@pytest.mark.skipif(not RESULTS.is_dir(), reason="results are not part of the installed package")
def test_pages_are_made_of_the_ledgers() -> None:
    make_files = runpy.run_path(str(RESULTS / "make.py"))["make_files"]
    stale = [path.name for path, content in make_files().items() if path.read_bytes() != content]
    assert not stale, "run 'make results'"
    assert str(RESULTS.parent) not in (RESULTS / "README.md").read_text(), "the page names a folder of this machine"


@pytest.mark.parametrize("study", sorted(RESULTS.glob("*/study.yaml")), ids=lambda path: path.parent.name)
def test_every_study_can_be_trained(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HRG_DATA", "nowhere")
    prepared = prepare_study(study, None, calibrates=False)
    assert prepared.plan.rows and prepared.knows_classes


@pytest.mark.parametrize("ledger", LEDGERS, ids=lambda path: path.parent.name)
def test_ledgers_hold_their_study_files(ledger: Path) -> None:
    """So `hrg report` of the folder says what the page says of what is published, and of the protocol."""
    study = read_study(ledger.with_name("study.yaml"))
    assert read_results(ledger.parent).published == study.published


def test_the_worth_of_each_skip_is_that_of_the_runs() -> None:
    """Main effects and Shapley values by their definitions, from the accuracy of each set of skips over the seeds."""
    ledger = RESULTS / "subsets_cifar10" / "ledger.sqlite"
    with sqlite3.connect(f"file:{ledger}?mode=ro&immutable=1", uri=True) as database:
        rows = database.execute(
            "select edges, record from networks join rows on rows.network = networks.id join runs using (key) "
            "where record is not null"
        ).fetchall()
    runs = [(frozenset(json.loads(edges)), json.loads(record)) for edges, record in rows]
    sets = list({own for own, _ in runs})
    seeds = sorted({str(record["seeds"]) for _, record in runs})
    design = np.array(
        [[*(own == one for one in sets), *(str(record["seeds"]) == seed for seed in seeds)] for own, record in runs]
    )
    accuracies = np.array([100 * record["test_accuracy"] for _, record in runs])
    mean = dict(zip(sets, np.linalg.lstsq(design.astype(float), accuracies)[0], strict=False))
    edges = max(mean, key=len)
    assert len(mean) == 2 ** len(edges) == 64
    text = (RESULTS / "README.md").read_text()
    worths, mains = [], {}
    for edge in edges:
        gains = {own: mean[own | {edge}] - mean[own] for own in mean if edge not in own}
        weights = {own: 1 / (len(edges) * math.comb(len(edges) - 1, len(own))) for own in gains}
        worths.append(sum(weights[own] * gain for own, gain in gains.items()))
        line = next(line for line in text.splitlines() if line.startswith(f"| {edge} | 32 |"))
        found = [float(line.split(" | ")[i]) for i in (2, 5)]
        mains[edge] = line.split(" | ")[2:5]
        assert found == pytest.approx([statistics.fmean(gains.values()), worths[-1]], abs=0.0051), edge
    assert sum(worths) == pytest.approx(mean[edges] - mean[frozenset()])
    total = re.search(r"^\| all - none \|[ |]* ([-+][\d.]+) \|", text, re.MULTILINE)
    assert total and float(total[1]) == pytest.approx(sum(worths), abs=0.0051)
    # What the README quotes.
    best = max(mains, key=lambda edge: float(mains[edge][0]))
    value, (low, high) = mains[best][0][1:], re.findall(r"[\d.]+", mains[best][1])
    readme = " ".join((RESULTS.parent / "README.md").read_text().split())
    assert (
        f"`{best}` adds {value} points on average over the sets of the other skips (95 % CI {low} to {high})." in readme
    )
    assert "An effect is found for every skip except `stem>stage3`." in readme
    assert [edge for edge, (*_, p) in mains.items() if float(p.lstrip("\\<")) >= 0.05] == ["stem>stage3"]


@pytest.mark.parametrize("ledger", TRAINED, ids=lambda path: path.parent.name)
def test_accuracies_are_those_of_the_runs(ledger: Path) -> None:
    text = (RESULTS / "README.md").read_text()
    by_variant: dict[str, list[float]] = {}
    for record in finished_records(ledger):
        by_variant.setdefault(record["variant"], []).append(100 * record["test_accuracy"])
    assert by_variant
    for label, values in by_variant.items():
        spread = f" ({statistics.stdev(values):.2f})" if len(values) > 1 else ""
        cell = f" {statistics.fmean(values):.2f}{spread}"
        assert any(line.startswith(f"| {label} |") and cell in line for line in text.splitlines()), (label, cell)


def test_docs_quote_the_activation_of_the_skips() -> None:
    contributions = json.loads((RESULTS / "table2_cifar10" / "analysis" / "contributions.json").read_text())
    rows = [row for row in contributions["rows"] if row["variant"] == "full" and row["slot"] == "output"]
    functions = {row["target"]: row["mean_abs_runs"] for row in rows if row["kind"] == "function"}
    ratios = [
        statistics.fmean(
            skip / function for skip, function in zip(row["mean_abs_runs"], functions[row["target"]], strict=True)
        )
        for row in rows
        if row["kind"] == "skip"
    ]
    how_to = (RESULTS.parent / "docs" / "how-to" / "analyses.md").read_text()
    assert f"{min(ratios):.2f} to {max(ratios):.2f} times as active" in how_to and len(ratios) == 6


def test_the_readme_quotes_the_results_of_plain_blocks() -> None:
    readme, page = (RESULTS.parent / "README.md").read_text(), (RESULTS / "README.md").read_text()
    rows = re.findall(r"(?m)^\| (original|adjusted|full): [^|]* \| (\d+) \| ([^|]+) \|$", readme)
    assert [label for label, _, _ in rows] == ["original", "adjusted", "full"]
    plain = page[page.index("## Plain blocks on CIFAR-10") :]
    for label, n, accuracy in rows:
        row = re.search(rf"(?m)^\| {label} \|.*$", plain)
        assert (
            row is not None
            and f"| {accuracy} |" in row[0]
            and re.search(rf"\| {n}(?: of \d+, \d+ missing)? \|", row[0])
        )
    quoted = re.findall(
        r"(full - \w+) (?:is )?(\S+)(?: points)? \(95 % CI (\S+) to (\S+), p = (\S+) after Holm", readme
    )
    assert [pair for pair, *_ in quoted] == ["full - original", "full - adjusted"] * 2
    for title, (pair, difference, low, high, p) in zip(["CIFAR-10"] * 2 + ["CIFAR-100"] * 2, quoted, strict=True):
        measured = page[page.index(f"## Plain blocks on {title}\n") :]
        assert re.search(
            rf"\| {pair} \| [^|]* \| {re.escape(difference)} \| \[\+{low}, \+{high}\] \| [^|]* \| {p} \|",
            next(line for line in measured.splitlines() if line.startswith(f"| {pair} |")),
        )


def test_the_picture_in_the_readme_shows_the_ledger() -> None:
    """Its description has the difference that is seen in it; to renew it, see CONTRIBUTING.md."""
    with Image.open(RESULTS.parent / "docs" / "images" / "report.png") as picture:
        shown = picture.info["Description"]
    pair, difference, interval = re.fullmatch(r"(.*) ([+-][\d.]+) (\[.*\])", shown).groups()  # type: ignore[union-attr]
    page = (RESULTS / "README.md").read_text()
    measured = page[page.index("## Plain blocks on CIFAR-10\n") :]
    line = next(line for line in measured.splitlines() if line.startswith(f"| {pair} |"))
    assert f"| {difference} | {interval} |" in line


def test_docs_quote_the_differences_of_the_transformer() -> None:
    page, readme = (RESULTS / "README.md").read_text(), (RESULTS.parent / "README.md").read_text()
    measured = page[page.index("## Long skips of a small vision transformer") :]
    how_to = (RESULTS.parent / "docs" / "how-to" / "transformers.md").read_text()
    quoted = re.findall(r"(?m)^\| (full|in|out) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", how_to)
    assert [label for label, *_ in quoted] == ["full", "in", "out"]
    for label, accuracy, difference, interval in quoted:
        assert re.search(rf"(?m)^\| {label} \| [^|]*\| [^|]*\| 3 \| {re.escape(accuracy)} \|", measured)
        assert f"| {label} - none | {difference} | {interval} |" in measured
    cost, low, high = re.search(r"\*cost\* ([\d.]+) points \(95 % CI ([\d.]+) to ([\d.]+)", readme).groups()  # type: ignore[union-attr]
    assert quoted[0][2:] == (f"-{cost}", f"[-{high}, -{low}]")
    assert f"of `in` {quoted[1][2][1:]} and of `out` {quoted[2][2][1:]}:" in readme


def test_docs_quote_the_interval_of_shared_norms() -> None:
    page = (RESULTS / "README.md").read_text()
    measured = page[page.index("## Shared weights and shared norms in a recurrent network") :]
    line = next(line for line in measured.splitlines() if line.startswith("| shared_norm - shared |"))
    how_to = " ".join((RESULTS.parent / "docs" / "how-to" / "time.md").read_text().split())
    low, high = re.search(r"an interval of (\S+) to (\S+) points", how_to).groups()  # type: ignore[union-attr]
    assert f"| [{low}, {high}] |" in line


def test_the_summary_says_what_is_measured() -> None:
    page = (RESULTS / "README.md").read_text()
    summary = page[page.index("## In short") : page.index("\n## ", page.index("## In short") + 1)]
    assert "improve plain blocks, CIFAR-10](#plain-blocks-on-cifar-10) | 5 | full - original | +1.77 [" in summary
    # The sentences below the table.
    rows = {
        text: line for line in summary.splitlines() if line.startswith("| [") for text in [line[3 : line.index("]")]]
    }
    sentence = re.search(r"networks of plain blocks more accurate on ([^.]+)\.", summary)
    for images in ("CIFAR-10", "CIFAR-100"):
        row = rows[f"Long skips improve plain blocks, {images}"]
        is_found = re.search(r"\| yes(; published not excluded|, (larger|smaller) than published) \|$", row) is not None
        assert is_found == (sentence is not None and images in sentence[1].split(" and on "))
    detectable = float(rows["Long skips improve residual blocks, CIFAR-10"].split(" | ")[8])
    assert detectable > 0.31  # the published gain
    assert "| no; " in rows["Long skips improve residual blocks, CIFAR-10"]
    detectable = float(rows["Long skips improve ResNeXt blocks, CIFAR-10"].split(" | ")[8])
    assert detectable > 1.06 and "| no; " in rows["Long skips improve ResNeXt blocks, CIFAR-10"]
    assert re.search(r"\| -[\d.]+ \|.*\| yes, lower \|$", rows["Do long skips help transformers? (asked in the paper)"])
    for anchor in re.findall(r"\]\(#([^)]+)\)", summary):
        assert re.search(rf"(?m)^## {anchor.replace('-', '[ ,:-]+')}$", page, re.IGNORECASE), anchor
