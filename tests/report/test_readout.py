import csv
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.report.figures import figure_bytes
from hiresnet_graph.report.readout import (
    make_readouts,
    readout_figure,
    readout_table,
    readouts_csv,
    readouts_json,
)
from hiresnet_graph.sweep import Study, ablate
from hiresnet_graph.train import Recipe, train
from tests.sweep.works import Inline
from tests.train.states import states

QUICK = Recipe(epochs=2, batch_size=400)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    variants = {"all": "all", "same": "all", "straight": {"edges": "all - feedback", "time.readout": "all"}}
    wanted = Study(network=states(), group="transitions", variants=variants, seeds=2, recipe=QUICK)
    ablate(wanted, out=folder, executor=Inline())
    return folder


def test_each_network_of_a_study_is_read_out_over_its_seeds(study: Path) -> None:
    found = make_readouts(study)
    assert [(row.variant, row.step, row.trained, row.n) for row in found.rows] == [
        *(("all", step, step == 4, 2 * (step == 4)) for step in (1, 2, 3, 4)),
        *(("straight", step, True, 2) for step in (1, 2, 3, 4)),
    ]
    runs = [hrg.load_run(study / "runs" / f"straight-seed{seed}") for seed in (0, 1)]
    values = [100 * point.scores.accuracy for run in runs for point in run.readout([2]) if point.scores]
    row = found.rows[5]
    assert row.accuracy is not None and row.accuracy.mean == pytest.approx(sum(values) / 2)
    assert row.accuracy.std == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    last = [100 * run.record.last_test_accuracy for run in runs if run.record.last_test_accuracy is not None]
    assert found.rows[7].last is not None and found.rows[7].last.mean == pytest.approx(sum(last) / 2)
    assert "no copy of its weights" in found.rows[0].reason and found.rows[0].accuracy is None


def test_formats_for_people_and_for_programs(study: Path) -> None:
    found = make_readouts(study, [3, 4], part="validation")
    table = readout_table(found)
    names = [column.header for column in table.columns]
    assert names == ["variant", "step", "n", "validation accuracy", "at last epoch", "top-5", "loss", "why not"]
    assert [row[1] for row in table.rows] == ["3  ", "4 *", "3 *", "4 *"] and table.rows[0][3] == "-"
    rows = list(csv.DictReader(readouts_csv(found).splitlines()))
    assert [row["accuracy_mean"] == "" for row in rows] == [True, False, False, False]
    data = json.loads(readouts_json(found))
    assert data["part"] == "validation" and data["rows"][1]["accuracy_mean"] == pytest.approx(
        float(rows[1]["accuracy_mean"])
    )
    root = ET.fromstring(figure_bytes(readout_figure(found), "svg").decode())
    words = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"all", "straight", "validation accuracy (%, mean ± standard deviation)"} <= words
    assert figure_bytes(readout_figure(found), "png").startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="there is no curve"):
        readout_figure(make_readouts(study, [0]))


def test_the_table_of_a_single_run_has_no_columns_for_its_network(study: Path) -> None:
    found = make_readouts(study / "runs" / "straight-seed0", [1, 4, 5], past="last")
    table = readout_table(found)
    assert [column.header for column in table.columns][:2] == ["step", "test accuracy"]
    assert [row[0] for row in table.rows] == ["1 *", "4 *", "5  "] and all(row.accuracy for row in found.rows)
    figure = readout_figure(found)
    rows = figure["datasets"]["rows"]
    assert [(row["step"], row["piece"]) for row in rows] == [(1, 0), (4, 1), (5, 1)]  # 4 to 5 is joined, 1 to 4 is not
    assert [row["accuracy"] for row in rows] == [row.accuracy.mean for row in found.rows if row.accuracy]
    root = ET.fromstring(figure_bytes(figure, "svg").decode())
    words = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"test accuracy (%)", "read out in training", "not read out in training"} <= words


ONE = """\
name: one
input: {channels: 1, height: 8, width: 8}
nodes: {head: {block: classifier, classes: 10}}
flow: input -> head
time: {steps: 2}
variants: {plain: {time: null}}
"""


def test_networks_without_time_are_excluded(tmp_path: Path) -> None:
    for name, variants in {"both": {"twice": {"head.classes": 10}, "once": "plain"}, "once": ["plain"]}.items():
        wanted = Study(network=hrg.loads(ONE), variants=variants, seeds=1, recipe=QUICK)
        ablate(wanted, out=tmp_path / name, executor=Inline())
    found = make_readouts(tmp_path / "both")
    assert found.left_out == ("once",) and {row.variant for row in found.rows} == {"twice"}
    assert readout_table(found).caption.endswith("Excluded, as they do not run in time: once.")
    with pytest.raises(UsageError, match="'one' does not run in time"):
        make_readouts(tmp_path / "once")
    with pytest.raises(RunError, match="no such folder"):
        make_readouts(tmp_path / "nosuch")


def test_a_study_without_a_finished_run_is_an_error(tmp_path: Path) -> None:
    train(states(), out=tmp_path, recipe=Recipe(epochs=1, lr=1e30, batch_size=400))
    with pytest.raises(UsageError, match="contains no complete run"):
        make_readouts(tmp_path)
