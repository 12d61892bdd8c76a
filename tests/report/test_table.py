import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hiresnet_graph.errors import UsageError
from hiresnet_graph.formats import format_si
from hiresnet_graph.report import (
    available_parts,
    learning_curves,
    make_report,
    make_table,
    report_tables,
    to_csv,
    to_json,
    to_latex,
    to_markdown,
)
from hiresnet_graph.sweep.results import Results
from hiresnet_graph.train.record import Seeds
from tests.report.studies import MACHINE, RECIPE, Net, study

NETS = (
    Net("none", (90.0, 92.0, 94.0), parameters=1234, macs=35_784_000),
    Net("full", (95.5, 96.5, 97.5), parameters=5678, edges=("a>b",)),
    Net("all three", (95.5, 96.5, 97.5), parameters=5678, same_as="full"),
)
SUBSETS = study(
    Net("none", (90.0, 92.0, 94.0)),
    Net("a>b", (95.0, 95.5, 97.5), edges=("a>b",)),
    subsets_of=("a>b",),
)
GRID = study(
    *(
        Net(label, tests, validations, {"recipe.lr": lr, "width": 8})
        for label, lr, tests, validations in (
            ("none", 0.01, (90.0, 91.0), (90.0, 90.0)),
            ("full", 0.01, (92.0, 92.5), (90.0, 90.0)),
            ("none", 0.001, (93.0, 91.5), (95.0, 95.0)),
            ("full", 0.001, (94.0, "diverged"), (95.0, 95.0)),
        )
    )
)
EVERYTHING = study(
    *NETS,
    Net("odd_50% & $x #1 ~^\\ {y} [z] | *s* `t` <u>", (91.0, "diverged", "failed"), isomorphic_to="full"),
    Net("late", ("waiting", "running", "waiting")),
)


def strict(text: str) -> Any:
    """Parse standard JSON, without NaN and infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_mean_and_standard_deviation_over_seeds() -> None:
    none, full, three = make_table(study(*NETS)).rows
    assert (none.n, none.runs, none.diverged, none.missing, none.same_as) == (3, 3, 0, 0, "")
    assert none.test == (pytest.approx(92), pytest.approx(2))  # ddof 1; with ddof 0 it would be 1.63
    assert none.last == (pytest.approx(91), pytest.approx(2))
    assert none.test_top_k == (pytest.approx(99), pytest.approx(0))
    assert full.validation == (pytest.approx(96.5), pytest.approx(1))
    assert three._replace(variant="full", same_as="") == full
    assert three.same_as == "full"


def test_markdown_is_for_people() -> None:
    lines = to_markdown(make_table(study(*NETS))).splitlines()
    assert lines[:4] == [
        "| variant | parameters | MACs | n | test accuracy | at last epoch | top-5 | validation |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| none | 1,234 | 35.78 M | 3 | 92.00 (2.00) | 91.00 (2.00) | 99.00 (0.00) | 92.00 (2.00) |",
        "| full | 5,678 | 5.000 M | 3 | 96.50 (1.00) | 95.50 (1.00) | 99.00 (0.00) | 96.50 (1.00) |",
    ]
    assert lines[4].startswith("| all three (= full) |")
    assert lines[6] == (
        "tiny on digits: 2 epochs, batch 50, adam, learning rate 0.003, halved every 20 epochs, augmentation none, "
        "seeds 0, 1, 2. Test accuracy in percent at the epoch of best validation, and at the last epoch: mean "
        "(standard deviation, ddof 1). (= X): the same network as X, so the same runs. Computed with hiresnet_graph "
        "0.1.0, commit 0123456789ab, torch 2.14.1, Python 3.11.9, device cpu, threads 1, layout channels_last, backend "
        "eager, platform Linux x86_64."
    )


@pytest.mark.parametrize("macs", [0, 640, 999, 1000, 141_700, 999_940, 999_960, 35_784_000, 4_100_000_000, 10**13])
def test_macs_are_written_as_in_other_commands(macs: int) -> None:
    (printed,) = report_tables(make_report(study(Net("a", (90.0,), macs=macs))))
    assert printed.rows[0][2] == format_si(macs)


def test_runs_without_accuracy_are_counted() -> None:
    nets = [
        Net("a", ("diverged", 90.0, "waiting", 91.0, "failed")),
        Net("b", ("diverged", "diverged")),
        Net("c", ("pruned", "running", 90.0)),
        Net("d", ("diverged", "diverged"), same_as="b", isomorphic_to="a"),
    ]
    table = make_table(study(*nets))
    (printed,) = report_tables(make_report(study(*nets), parts=["table"]))
    assert [row[3:5] for row in printed.rows] == [
        ("2 of 5, 1 diverged, 1 failed, 1 missing", "90.50 (0.71)"),
        ("0 of 2, 2 diverged", "-"),
        ("1 of 3, 1 pruned, 1 missing", "90.00 (-)"),
        ("0 of 2, 2 diverged", "-"),
    ]
    assert "3 runs diverged: they have no accuracy and are not counted in n." in table.caption
    assert "1 run failed." in table.caption and "2 runs still to be trained." in table.caption


def test_differing_conditions_are_reported() -> None:
    other = replace_machine(torch="2.12.0", threads=4, commit=None)
    table = make_table(study(Net("a", (90.0, 91.0)), Net("b", (92.0,), machine=other)))
    assert table.mixed == (
        "commit 0123456789ab (2 runs) and unknown (1 run)",
        "torch 2.14.1 (2 runs) and 2.12.0 (1 run)",
        "threads 1 (2 runs) and 4 (1 run)",
    )
    assert "Mixed: commit" in table.caption and "device cpu" in table.caption
    assert strict(to_json(table))["mixed"] == list(table.mixed)
    (alone,) = report_tables(
        make_report(study(Net("a", (90.0, 91.0)), Net("b", (92.0,), machine=other)), None, ["differences"])
    )
    assert "Mixed: commit" in alone.caption
    assert make_table(study(Net("a", (90.0,)), Net("b", (90.0,), same_as="a"))).mixed == ()
    for field in ("device", "channels_last", "backend", "platform", "python", "hiresnet_graph"):
        other = replace_machine(**{field: False if field == "channels_last" else "other"})
        assert len(make_table(study(Net("a", (90.0,)), Net("b", (92.0,), machine=other))).mixed) == 1, field


def replace_machine(**fields: object) -> Any:
    return MACHINE.model_copy(update=fields)


def test_a_grid_has_a_column_for_each_of_its_fields() -> None:
    table, equal, best = report_tables(make_report(GRID))
    assert [column.header for column in table.columns[:4]] == ["variant", "lr", "width", "parameters"]
    assert [row[:3] for row in table.rows] == [
        ("none", "0.01", "8"),
        ("full", "0.01", "8"),
        ("none", "0.001", "8"),
        ("full", "0.001", "8"),
    ]
    assert "lr by row" in table.caption and "learning rate" not in table.caption
    assert equal.title == "Differences from none, at equal settings"
    assert [row[:4] for row in equal.rows] == [("full", "0.01", "8", "2"), ("full", "0.001", "8", "1 vs 2")]
    assert best.rows[0][:4] == ("full", "0.01", "8", "2")  # its other setting has one run alone
    assert "that of none is lr=0.001, width=8." in best.caption
    assert (
        "These results hold for one split and one test set" in equal.caption
        and "These results hold for one split and one test set" in best.caption
    )
    data = strict(to_json(make_report(GRID)))
    assert data["rows"][0]["setting"] == {"recipe.lr": 0.01, "width": 8}
    assert data["varied"] == ["recipe.lr", "width"] and set(RECIPE.model_dump()) - set(data["recipe"]) == {"lr"}
    assert [record["at"] for record in data["differences"]] == ["equal settings"] * 2 + ["best setting"]
    (first, *_) = csv.DictReader(io.StringIO(to_csv(make_report(GRID, parts=["differences"]))))
    assert (first["variant"], first["setting.recipe.lr"], first["setting.width"]) == ("full", "0.01", "8")


@pytest.mark.parametrize(
    ("results", "parts"),
    [
        (study(Net("a", (90.0,))), ("table",)),
        (study(Net("a", (90.0,)), Net("b", (91.0,))), ("table",)),
        (study(*NETS), ("table", "differences")),
        (SUBSETS, ("table", "effects")),
        (study(*NETS, is_search=True), ("table", "pareto")),
        (study(Net("a", ("waiting",) * 2), Net("b", ("waiting",) * 2), subsets_of=("x",)), ("table",)),
    ],
)
def test_the_default_parts_of_a_report(results: Results, parts: tuple[str, ...]) -> None:
    assert make_report(results).parts == parts


def test_parts_that_a_study_cannot_have() -> None:
    one = study(Net("a", (90.0, 91.0)), Net("b", (90.0, 91.0), same_as="a"))
    with pytest.raises(UsageError, match="no effects of edges: its variants were not generated by a subset rule"):
        make_report(one, parts=["effects"])
    with pytest.raises(UsageError, match="has one network, so there is nothing to compare"):
        make_report(one, parts=["differences"])
    search = study(*NETS, is_search=True)
    for given in ({"parts": ["differences"]}, {"baseline": "none"}):
        with pytest.raises(UsageError, match=r"'skips' is a search: .* differences between them are not tested"):
            make_report(search, **given)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"no part 'effect'\. Did you mean 'effects'"):
        make_report(one, parts=["effect"])


def everything() -> list[tuple[Results, Any]]:
    studies = [EVERYTHING, SUBSETS, GRID, study(*NETS, is_search=True), study(Net("a", ("diverged",))), study()]
    return [(results, make_report(results, parts=available_parts(results))) for results in studies]


def test_csv_has_every_row_and_all_digits() -> None:
    table = make_table(EVERYTHING)
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert [row["variant"] for row in rows] == [row.variant for row in table.rows]
    assert float(rows[0]["test_mean"]) == table.rows[0].test.mean  # type: ignore[union-attr]
    assert (rows[0]["same_as"], rows[2]["same_as"], rows[3]["isomorphic_to"]) == ("", "full", "full")
    assert rows[4]["test_mean"] == "" and rows[4]["missing"] == "3"
    for results, _ in everything():
        for part in ("table", "pareto", "curves"):
            text = to_csv(make_report(results, parts=[part]))
            assert "nan" not in text and "None" not in text
            lines = list(csv.reader(io.StringIO(text)))
            assert len({len(line) for line in lines}) == 1


def test_json_has_all_digits_and_no_nan() -> None:
    for results, report in everything():
        data = strict(to_json(report))
        assert [row["variant"] for row in data["rows"]] == [network.label for network in results.networks]
        assert set(report.parts) - {"table"} == set(data) & {"differences", "effects", "pareto", "curves"}
    report = make_report(SUBSETS, parts=available_parts(SUBSETS))
    data = strict(to_json(report))
    assert data["recipe"] == {**RECIPE.model_dump(mode="json"), "augment": "none"}
    assert data["seeds"] == [{"init": i, "data": i} for i in range(3)]
    assert data["machines"] == [{**MACHINE.model_dump(mode="json"), "runs": 6}]
    difference, wanted = data["differences"][0], report.differences[0].differences[0]
    found = wanted.estimate
    assert found is not None and found.interval is not None
    low, high = difference["difference_low"], difference["difference_high"]
    assert (difference["difference"], low, high) == (found.value, *found.interval)
    assert [difference[f"difference_{name}"] for name in ("df", "p", "detectable")] == [2, found.p, found.detectable]
    edge, total = data["effects"]
    assert edge["shapley"] == total["shapley"] == found.value and edge["shapley_low"] == low


def test_json_has_the_values_of_each_seed_and_the_conclusion() -> None:
    results = study(Net("a", (90.0, "diverged", 92.0), (95.0, 0.0, 96.0)), Net("b", (91.0, 93.0, 95.0)))
    report = make_report(results)
    data = strict(to_json(report))
    first = data["rows"][0]
    assert (first["run_seeds"], first["test_runs"]) == (["0", "2"], [90.0, 92.0])
    assert first["validation_runs"] == [95.0, 96.0] and first["last_runs"] == pytest.approx([89.0, 91.0])
    assert data["conclusion"] == report.conclusion and "from a was found for b" in report.conclusion
    assert to_markdown(report).endswith(f"\n\n{report.conclusion}\n")
    assert next(csv.DictReader(io.StringIO(to_csv(report))))["test_runs"] == "90.0; 92.0"


def test_curves_are_rows() -> None:
    results = study(Net("a", (90.0, "diverged")), Net("b", (90.0, "diverged"), same_as="a"), Net("c", ("waiting",)))
    points = learning_curves(results)
    assert len(points) == 2 * 2 * 2
    assert points[2][1:] == ("a", {}, Seeds(0, 0), 2, "train", 0.5, 50.0)
    report = make_report(results, parts=["curves"])
    rows = list(csv.DictReader(io.StringIO(to_csv(report))))
    assert [row["loss"] for row in rows] == ["1.0", "2.0", "0.5", "1.0", "1.0", "2.0", "", "1.0"]
    assert strict(to_json(report))["curves"][6]["loss"] is None


def test_a_cell_of_markdown_is_one_cell() -> None:
    for _, report in everything():
        for table in re.findall(r"(?:^\|.*\n)+", to_markdown(report), re.MULTILINE):
            cells = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
            assert len(cells) == 1
    assert r"\*s\* \`t\` \<u>" in to_markdown(make_table(EVERYTHING))


def check_tex(text: str) -> None:
    """Check the grammar of our LaTeX: each row has a cell for each column, and special characters are escaped."""
    lines = [line for line in text.splitlines() if line and not line.startswith("%")]
    assert lines[:2] == [r"\begin{table}", r"\centering"]
    commands = r"\\(?:textbackslash|textasciitilde|textasciicircum)\{\}|\\[&%$#_{}]|\$[<>|-]\$"  # each is a letter
    letter = rf"(?:{commands}|[^\\&%$#_{{}}~^<>|])"
    columns = 0
    for line in lines:
        if begin := re.fullmatch(r"\\begin\{tabular\}\{([lr]+)\}", line):
            columns = len(begin[1])
        elif line.startswith("  "):
            row = re.fullmatch(rf"  \{{\}}({letter}*(?:&{letter}*)*) \\\\", line.replace(" & ", "&"))
            assert row is not None, line
            assert len(re.findall(r"(?<!\\)&", row[1])) == columns - 1
        elif line.startswith(r"\label"):
            assert re.fullmatch(r"\\label\{tab:[a-z0-9-]+\}", line), line
        elif line.startswith(r"\caption"):
            assert re.fullmatch(rf"\\caption\{{{letter}*\}}", line), line
        else:
            known = [rf"\{name}" for name in ("toprule", "midrule", "bottomrule", "centering")]
            assert line in [*known, r"\begin{table}", r"\end{tabular}", r"\end{table}"]
    rules = [line for line in lines if not line.startswith("  ") and "rule" in line]
    assert rules == [r"\toprule", r"\midrule", r"\bottomrule"] * text.count(r"\begin{table}")
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == text.count(r"\end{tabular}")


def test_latex_is_valid() -> None:
    for _, report in everything():
        check_tex(to_latex(report))
    text = to_latex(make_report(SUBSETS, parts=available_parts(SUBSETS)))
    assert r"  {}none & 1,000 & 3 & 92.00 (2.00) \\" in text
    assert re.findall(r"\\label\{(.*)\}", text) == ["tab:skips", "tab:skips-differences", "tab:skips-effects"]
    labels = re.findall(r"\\label\{(.*)\}", to_latex(make_report(GRID)))
    assert labels == ["tab:skips", "tab:skips-differences", "tab:skips-differences-2"]
    assert r"  {}variant & difference & 95 \% CI & p (Holm) \\" in text
    captions = [line for line in text.splitlines() if line.startswith(r"\caption")]
    assert not any("torch" in caption or "Welch" in caption or "last epoch" in caption for caption in captions)
    assert "torch 2.14.1" in " ".join(line for line in text.splitlines() if line.startswith("%"))
    assert "a$>$b" in text
    lower = study(Net("a", (90.0, 91.0, 93.0)), Net("b", (89.0, 89.5, 91.0)))
    assert re.search(r"& \$-\$1\.50 & \[\$-\$2\.74, \$-\$0\.26\] &", to_latex(make_report(lower)))
    with pytest.raises(AssertionError):
        check_tex(text.replace("a$>$b", "a_b"))


def test_labels_with_line_breaks_stay_on_one_line() -> None:
    odd = study(replace(NETS[0], label="a\nb\x1b[31m"))
    assert "a b [31m" in to_markdown(make_table(odd)) and "a b [31m" in to_latex(make_table(odd))


@pytest.mark.slow
def test_latex_compiles(tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("there is no pdflatex (Debian: texlive-latex-base, texlive-latex-recommended)")
    for i, (_, report) in enumerate(everything()):
        body = to_latex(report)
        text = "\n".join([r"\documentclass{article}\usepackage{booktabs}\begin{document}", body, r"\end{document}"])
        (tmp_path / f"{i}.tex").write_text(text)
        command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", f"{i}.tex"]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
        assert ended.returncode == 0, ended.stdout[-2000:]
        assert (tmp_path / f"{i}.pdf").stat().st_size > 5000


def test_runs_of_changed_sources_are_told_from_those_of_the_commit() -> None:
    changed = MACHINE.model_copy(update={"commit": f"{MACHINE.commit}+changes"})
    results = study(Net("a", (80.0, 81.0)), Net("b", (80.0, 81.0), machine=changed))
    caption = report_tables(make_report(results))[0].caption
    origin = make_table(results).origin
    assert "0123456789ab+changes" in f"{caption} {origin}" and "0123456789ab (2 runs)" in f"{caption} {origin}"
