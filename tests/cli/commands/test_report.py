import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from hiresnet_graph.cli.commands.report import ReportPart
from hiresnet_graph.report import PARTS
from hiresnet_graph.sweep import results
from tests.report.studies import Net, study

Call = Callable[..., Result]

STUDY = study(
    Net("none", (90.0, 92.0, 94.0), parameters=1234),
    Net("a>b", (95.5, 96.5, 98.0), edges=("a>b",), parameters=5678),
    Net("again", (95.5, 96.5, 98.0), same_as="a>b", parameters=5678),
    subsets_of=("a>b",),
)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that `hrg report` reads the study from."""
    monkeypatch.setattr(results, "read_results", lambda folder: STUDY)
    return Path("runs")


def test_the_tables_have_titles_and_captions(hrg: Call, folder: Path) -> None:
    result = hrg("report", folder)
    assert result.exit_code == 0
    lines = [line for line in result.stdout.splitlines() if line.strip()]
    header = "variant parameters MACs n test accuracy at last epoch top-5 validation"
    assert " ".join(lines[0].split()) == header
    assert lines[2].split()[:6] == ["none", "1,234", "5.000", "M", "3", "92.00"]
    assert "again (= a>b)" in result.stdout
    assert "Differences from none" not in lines and "Effects of the edges" in lines
    text = hrg("report", folder, "--baseline", "none").stdout
    assert "Differences from none" in text
    (row,) = (line for line in text.splitlines() if line.startswith("a>b = again"))
    assert row.split()[3:5] == ["3", "+4.67"]
    assert "These results hold for one split and one test set" in lines[-2]
    assert lines[-1].startswith("The edge a>b matters most: with it accuracy is 4.67 points higher (95 % CI")


def test_one_part_alone_and_another_baseline(hrg: Call, folder: Path) -> None:
    text = hrg("report", folder, "--what", "differences", "--baseline", "again").stdout
    assert text.split()[:2] == ["variant", "n"]
    (row,) = (line for line in text.splitlines() if line.startswith("none"))
    assert "-4.67" in row
    assert "The same network as the baseline, so not compared: a>b." in text
    result = hrg("report", folder, "--baseline", "agian")
    assert result.exit_code == 2
    assert "no variant 'agian' to compare with. Did you mean 'again'?" in result.stderr


def test_a_narrow_terminal_omits_columns(hrg: Call, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    result = hrg("report", folder, "--what", "differences")
    table = [line for line in result.stdout.splitlines() if line.startswith(("variant", "a>b"))]
    assert all(len(line) <= 60 for line in table)
    assert table[0].split() == ["variant", "n", "difference", "95", "%", "CI", "p", "(Holm)"]
    assert "Omitted at 60 columns: df, p, detectable." in result.stderr
    monkeypatch.setenv("COLUMNS", "50")
    effects = hrg("report", folder, "--what", "effects").stdout.splitlines()[0]
    assert effects.split() == ["edge", "main", "effect", "95", "%", "CI", "p", "(Holm)"]  # no interval without its p


def test_formats_for_programs_and_papers(hrg: Call, folder: Path) -> None:
    data = json.loads(hrg("report", folder, "--json").stdout)
    assert data == json.loads(hrg("report", folder, "--format", "json").stdout)
    assert len(data["rows"]) == 3 and len(data["differences"]) == 1 and len(data["effects"]) == 2
    rows = list(csv.DictReader(io.StringIO(hrg("report", folder, "--format", "csv").stdout)))
    assert [row["variant"] for row in rows] == ["none", "a>b", "again"]
    curves = list(csv.DictReader(io.StringIO(hrg("report", folder, "-w", "curves", "-f", "csv").stdout)))
    assert len(curves) == 2 * 3 * 2 * 2  # networks, seeds, epochs, splits
    assert hrg("report", folder, "--format", "tex").stdout.count(r"\begin{table}") == 2
    assert hrg("report", folder, "--format", "md").stdout.count("## ") == 2


def test_the_folder_of_one_run(hrg: Call, tmp_path: Path) -> None:
    (row, *_) = STUDY.rows
    assert row.record is not None
    (tmp_path / "result.json").write_text(row.record.model_dump_json())
    (found,) = json.loads(hrg("report", tmp_path, "--json").stdout)["rows"]
    assert (found["variant"], found["n"], found["test_mean"], found["test_std"]) == ("none", 1, 90, None)
    result = hrg("report", tmp_path, "--what", "effects")
    assert result.exit_code == 2
    assert "no effects of edges" in result.stderr


@pytest.mark.parametrize("name", ["nowhere", "", "file"])
def test_a_folder_without_results(hrg: Call, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    result = hrg("report", tmp_path / name)
    assert result.exit_code == 1
    assert str(tmp_path / name) in result.stderr


@pytest.mark.parametrize("file", ["ledger.sqlite", "table.md"])
def test_a_file_of_a_study(hrg: Call, tmp_path: Path, file: str) -> None:
    for name in ("ledger.sqlite", "table.md"):
        (tmp_path / name).touch()
    result = hrg("report", tmp_path / file)
    assert result.exit_code == 1
    expected = f"is a file, and not the folder of a study or a run. Give the folder that it is in: {tmp_path}"
    assert expected in " ".join(result.stderr.split())


@pytest.mark.parametrize(("more", "command"), [("", "ablate"), ("search: {space: {edges: full}}\n", "search")])
def test_a_study_that_was_not_started(hrg: Call, tmp_path: Path, more: str, command: str) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(f"network: hiresnet18\ndata: digits\n{more}")
    (tmp_path / "broken.yaml").write_text("network: [")
    for verb in ("report", "status"):
        result = hrg(verb, tmp_path)
        assert result.exit_code == 1
        expected = f"the study in it has not been started. Start it with: hrg {command} {study} -o {tmp_path}"
        assert expected in " ".join(result.stderr.split())
    (tmp_path / "other.yaml").write_text("network: hiresnet18\ndata: digits\n")
    assert "holds no study and no finished run" in " ".join(hrg("report", tmp_path).stderr.split())


def test_every_part_of_a_report_can_be_chosen() -> None:
    assert tuple(part.value for part in ReportPart) == PARTS


def test_a_page_a_folder_and_a_figure(hrg: Call, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hiresnet_graph.report.files.read_results", lambda folder: STUDY)
    page, figure = tmp_path / "report.html", tmp_path / "curves.pdf"
    assert f"Wrote {page}." in hrg("report", folder, "--html", page).stderr
    assert page.read_text().startswith("<!DOCTYPE html>")
    both = hrg("report", folder, "--html", page, "--json")
    assert "Wrote" in both.stderr and json.loads(both.stdout)["conclusion"]
    assert f"Wrote {figure}." in hrg("report", folder, "--plot", "curves", "-o", figure).stderr
    assert figure.read_bytes().startswith(b"%PDF")
    assert "Wrote 31 files into" in hrg("report", folder, "-o", tmp_path / "paper").stderr.replace("\n", " ")
    assert (tmp_path / "paper" / "figures" / "effects-single.svg").exists()
    again = hrg("report", folder, "--html", page)  # its own file is replaced
    assert again.exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plot", "curves"], "--plot: name the file with '-o', like '-o figure.pdf' (.svg, .pdf or .png)."),
        (["--watch"], "--watch: name the page with '--html', like '--html report.html'."),
        (["--plot", "curves", "-o", "figure.gif"], "'figure.gif': a figure is written as .svg, .pdf or .png."),
        (["--plot", "curve"], "is not one of 'accuracy', 'curves', 'effects', 'pareto'. Did you mean 'curves'?"),
        (["--what", "effect"], "Did you mean 'effects'?"),
        (
            ["--what", "table", "--format", "csv", "-o", "foo.csv"],
            "'-o foo.csv': a folder is expected, for all tables and figures. One table is redirected: '--what table "
            "--format csv > foo.csv'.",
        ),
        (["-o", "x.svg"], "One figure is written with '--plot KIND -o x.svg', where KIND is accuracy, curves, effects"),
        (["-o", "x.html"], "The page is written with '--html x.html'."),
        (["-o", "x.txt"], "One table is redirected: '--what table > x.txt'."),
    ],
)
def test_mistakes_with_files(hrg: Call, folder: Path, words: list[str], message: str) -> None:
    result = hrg("report", folder, *words)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_a_file_of_others_is_not_replaced(hrg: Call, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "thesis.html"
    other.write_text("my notes")
    refused = hrg("report", folder, "--html", other).stderr
    assert "exists already. Choose another name with '--html', or replace it with '--force'." in refused
    result = hrg("report", folder, "--html", other)
    assert result.exit_code == 2 and "exists already" in result.stderr
    assert other.read_text() == "my notes"
