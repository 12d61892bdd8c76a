import csv
import io
import json
from pathlib import Path

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import RunError
from hiresnet_graph.report import cells, summarize, to_csv, to_json, to_markdown
from hiresnet_graph.sweep import Variant, ablate
from hiresnet_graph.train import Recipe, RunRecord, read_record, train

RECIPE = Recipe(epochs=1, batch_size=500)
VARIANTS = [Variant("none", "none"), Variant("full", "full"), Variant("all three", "p1 + p2")]


@pytest.fixture
def study(tiny: hrg.Architecture, tmp_path: Path) -> Path:
    """Two networks under three labels, three seeds, with accuracies that are easy to check."""
    ablate(tiny, VARIANTS, seeds=[0, 1, 2], recipe=RECIPE, out=tmp_path, jobs=1)
    accuracies = {"none": (0.9, 0.92, 0.94), "full": (0.955, 0.965, 0.975)}
    for label, values in accuracies.items():
        for seed, value in enumerate(values):
            change(tmp_path / f"runs/{label}-seed{seed}", test_accuracy=value, last_test_accuracy=value - 0.01)
    return tmp_path


def change(folder: Path, **fields: object) -> None:
    record = read_record(folder)
    assert record is not None
    changed = RunRecord.model_validate({**record.model_dump(), **fields})
    (folder / "result.json").write_text(changed.model_dump_json())


def test_mean_and_spread_over_the_seeds(tiny: hrg.Architecture, study: Path) -> None:
    table = summarize(study)
    none, full, three = table.rows
    assert (none.variant, none.n, none.runs, none.diverged, none.same_as) == ("none", 3, 3, 0, "")
    assert none.test is not None and none.last is not None and full.test is not None
    assert none.test.mean == pytest.approx(92)
    assert none.test.std == pytest.approx(2)  # ddof 1; with ddof 0 it would be 1.63
    assert none.last.mean == pytest.approx(91)
    assert full.test == (pytest.approx(96.5), pytest.approx(1))
    assert (none.parameters, full.parameters) == (
        tiny.with_edges("none").cost().parameters,
        tiny.with_edges("full").cost().parameters,
    )
    assert three._replace(variant="full", same_as="") == full
    assert three.same_as == "full"


def test_markdown_is_for_people(tiny: hrg.Architecture, study: Path) -> None:
    text = to_markdown(summarize(study))
    lines = text.splitlines()
    assert lines[0] == "| variant | parameters | n | test accuracy | at last epoch |"
    few, many = (tiny.with_edges(edges).cost().parameters for edges in ("none", "full"))
    assert lines[2] == f"| none | {few:,} | 3 | 92.00 (2.00) | 91.00 (2.00) |"
    assert lines[3] == f"| full | {many:,} | 3 | 96.50 (1.00) | 95.50 (1.00) |"
    assert lines[4].startswith("| all three (= full) |")
    assert "tiny on digits: 1 epochs, batch 500, learning rate 0.01 halved every 20 epochs, seeds 0, 1, 2." in text
    assert "mean (standard deviation, ddof 1)" in text
    assert "Computed with hiresnet_graph " in text


def test_csv_and_json_have_all_digits(study: Path) -> None:
    table = summarize(study)
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    data = json.loads(to_json(table))
    assert [row["variant"] for row in rows] == ["none", "full", "all three"]
    assert float(rows[0]["test_mean"]) == data["rows"][0]["test_mean"] == table.rows[0].test.mean  # type: ignore[union-attr]
    assert rows[2]["same_as"] == data["rows"][2]["same_as"] == "full"
    assert rows[0]["same_as"] == ""
    assert data["recipe"] == RECIPE.model_dump()
    assert data["seeds"] == [0, 1, 2]
    assert len(data["machines"]) == 1


def test_diverged_and_missing_runs_are_shown_not_hidden(study: Path) -> None:
    nothing = {"test_accuracy": None, "last_test_accuracy": None}
    change(study / "runs/none-seed1", outcome="diverged", diverged_at=7, **nothing)
    (study / "runs/none-seed2/result.json").unlink()
    for seed in range(3):
        change(study / f"runs/full-seed{seed}", outcome="diverged", diverged_at=7, **nothing)
    table = summarize(study)
    assert [row[2:] for row in cells(table)] == [
        ("1 of 3, 1 diverged", "90.00 (-)", "89.00 (-)"),
        ("0 of 3, 3 diverged", "-", "-"),
        ("0 of 3, 3 diverged", "-", "-"),
    ]
    assert (table.rows[0].n, table.rows[0].runs, table.rows[0].diverged) == (1, 3, 1)
    row = json.loads(to_json(table))["rows"][0]
    assert (row["n"], row["test_mean"], row["test_std"]) == (1, 90.0, None)


def test_runs_of_different_machines_are_said_to_be_mixed(study: Path) -> None:
    record = read_record(study / "runs/full-seed0")
    assert record is not None
    change(study / "runs/full-seed0", machine={**record.machine.model_dump(), "torch": "9.9"})
    table = summarize(study)
    assert len(table.machines) == 2
    assert "Mixed: computed with" in table.caption and "torch 9.9" in table.caption


def test_the_folder_of_one_run_has_a_table_too(tiny: hrg.Architecture, tmp_path: Path) -> None:
    record = train(tiny.variant("full"), out=tmp_path, recipe=RECIPE)
    (row,) = summarize(tmp_path).rows
    assert (row.variant, row.n, row.runs) == ("full", 1, 1)
    assert record.test_accuracy is not None
    assert row.test == (pytest.approx(100 * record.test_accuracy), None)


@pytest.mark.parametrize("folder", ["", "nowhere", "file"])
def test_a_folder_without_results_is_told(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="holds no study and no finished run"):
        summarize(tmp_path / folder)
