import csv
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.analysis.sources import find_networks
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.report.analyses import FORMATS, Analysis, analysis_table, save_analysis
from hiresnet_graph.report.analysis_figures import analysis_figure
from hiresnet_graph.report.figures import figure_bytes
from hiresnet_graph.report.files import make_page
from hiresnet_graph.report.questions import make_readouts, saved_analyses
from hiresnet_graph.sweep import Study, ablate, read_results
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


def readouts(folder: Path, **options: Any) -> Analysis:
    return make_readouts(find_networks(folder), **options)


def test_each_network_of_a_study_is_read_out_over_its_seeds(study: Path) -> None:
    found = readouts(study)
    assert [(row.variant, *row.keys[:2], len([v for v in row.values[0] if v is not None])) for row in found.rows] == [
        *(("all", step, step == 4, 2 * (step == 4)) for step in (1, 2, 3, 4)),
        *(("straight", step, True, 2) for step in (1, 2, 3, 4)),
    ]
    runs = [hrg.load_run(study / "runs" / f"straight-seed{seed}") for seed in (0, 1)]
    scores = [point.scores for run in runs for point in run.readout([2])]
    expected = [(100 * one.accuracy, 100 * one.top_k, one.loss) for one in scores if one and one.top_k is not None]
    assert list(zip(*found.rows[5].values, strict=True)) == expected and len(expected) == 2
    assert "no copy of its weights" in str(found.rows[0].keys[2]) and found.rows[0].values[0] == (None, None)


def test_formats_for_people_and_for_programs(study: Path) -> None:
    found = readouts(study, steps=[4, 3], part="validation")
    assert (found.name, found.options) == ("readout-steps-3-4-validation", "--steps 3-4 --part validation")
    assert found.title == "accuracy at other readout steps: steps 3-4, validation"
    table = analysis_table(found)
    names = [column.header for column in table.columns]
    assert names == ["variant", "step", "in training", "why not", "n", "accuracy", "top-k", "loss"]
    assert [list(row[1:3]) for row in table.rows] == [["3", "no"], ["4", "yes"], ["3", "yes"], ["4", "yes"]]
    assert list(table.rows[0][4:]) == ["0", "-", "-", "-"]
    rows = list(csv.DictReader(FORMATS["csv"](found).splitlines()))
    assert [row["accuracy_mean"] == "" for row in rows] == [True, False, False, False]
    data = json.loads(FORMATS["json"](found))
    assert data["part"] == "validation" and data["rows"][1]["accuracy_mean"] == pytest.approx(
        float(rows[1]["accuracy_mean"])
    )
    root = ET.fromstring(figure_bytes(analysis_figure(found), "svg").decode())
    words = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"all", "straight", "validation accuracy (%, mean ± standard deviation)"} <= words
    assert figure_bytes(analysis_figure(found), "png").startswith(b"\x89PNG")
    with pytest.raises(UsageError, match=r"no step can be read out: .* Train with 'time.readout=all'"):
        readouts(study, steps=[0])


def test_it_is_saved_with_the_study_and_read_again(study: Path) -> None:
    found = readouts(study)
    path = save_analysis(found, study)
    (again,) = saved_analyses(study, read_results(study))
    page = make_page(study, read_results(study))
    path.unlink()
    assert '"analysis-readout"' in page and '"Accuracy at other readout steps"' in page
    assert path.name == "readout.json" and again.warning == ""
    assert analysis_table(again) == analysis_table(found)
    assert analysis_figure(again)["datasets"] == analysis_figure(found)["datasets"]


def test_the_table_of_a_single_run_has_no_columns_for_its_network(study: Path) -> None:
    found = readouts(study / "runs" / "straight-seed0", steps=[1, 4, 5], past="last")
    assert found.options == "--steps 1,4-5 --past last" and found.name == "readout-steps-1_4-5-past-last"
    table = analysis_table(found)
    assert [column.header for column in table.columns][:3] == ["step", "in training", "accuracy"]
    assert [list(row[:2]) for row in table.rows] == [["1", "yes"], ["4", "yes"], ["5", "no"]]
    figure = analysis_figure(found)
    rows = figure["datasets"]["rows"]
    assert [(row["at"], row["piece"]) for row in rows] == [(1, 0), (4, 1), (5, 1)]  # 4 to 5 is joined, 1 to 4 is not
    assert [(row["value"],) for row in rows] == [row.values[0] for row in found.rows]
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
    found = readouts(tmp_path / "both")
    assert found.left_out == ("once (does not run in time, so it has no steps to read out)",)
    assert {row.variant for row in found.rows} == {"twice"}
    with pytest.raises(UsageError, match="'one' does not run in time"):
        readouts(tmp_path / "once")
    with pytest.raises(RunError, match="no such folder"):
        readouts(tmp_path / "nosuch")


def test_a_study_without_a_finished_run_is_an_error(tmp_path: Path) -> None:
    train(states(), out=tmp_path, recipe=Recipe(epochs=1, lr=1e30, batch_size=400))
    with pytest.raises(UsageError, match="contains no complete run"):
        readouts(tmp_path)
