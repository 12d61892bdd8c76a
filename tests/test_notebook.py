"""What a notebook shows: short texts, and tables that hold the numbers."""

from pathlib import Path

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.data import load_dataset
from hiresnet_graph.report import make_report, make_table, report_tables
from hiresnet_graph.sweep.prepare import prepare_study
from hiresnet_graph.sweep.study import read_study
from tests.report.studies import Net, study

NETS = (Net("a<b", (80.0, 81.0)), Net("c", (82.0, "waiting")))


def test_texts_are_short() -> None:
    results, net = study(*NETS), hrg.load("hiresnet18")
    prepared = prepare_study("digits", None, calibrates=False)
    shown: list[tuple[object, str]] = [
        (results, "<Results skips on digits: 2 networks, 3 of 4 runs finished>"),
        (make_table(results), "<Table skips on digits: 2 rows>"),
        (make_report(results), "<Report skips: table, differences>"),
        (report_tables(make_report(results))[0], "<ReportTable table: skips, 2 rows>"),
        (net, "<Architecture hiresnet18>"),
        (net.plan, f"<Plan hiresnet18: {len(net.plan.calls)} calls, 11 nodes, {len(net.plan.edges)} edges>"),
        (read_study("table2"), "<Study table2 on cifar10>"),
        (prepared, f"<PreparedStudy digits: {len(prepared.missing)} of {len(prepared.plan.requests)} runs to train>"),
        (results.rows[0].record, "<RunRecord a<b on digits, seed 0: complete, test accuracy 80.00 %>"),
    ]
    assert [repr(one) for one, _ in shown] == [text for _, text in shown]
    data = repr(load_dataset("digits"))
    assert data.startswith("<Dataset digits: 1,797 images of ") and data.endswith(" 10 classes>") and len(data) < 120
    assert len(repr(prepared.plan)) < 120 and len(repr(net.graph)) < 120


def test_tables_hold_the_numbers_and_names_are_text() -> None:
    results = study(*NETS)
    text = results._repr_html_()
    assert "a&lt;b" in text and "a<b" not in text
    assert "80.50 (0.71)" in text and "82.00 (-)" in text
    assert "80.50 (0.71)" in report_tables(make_report(results))[0]._repr_html_()
    assert "network: hiresnet18" in read_study("table2")._repr_html_()
    assert hrg.load("hiresnet18")._repr_svg_().startswith("<svg")


def test_results_as_a_data_frame() -> None:
    pandas = pytest.importorskip("pandas")
    frame = study(*NETS).to_frame()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 4
    assert list(frame["variant"]) == ["a<b", "a<b", "c", "c"]
    assert frame["test_accuracy"][0] == pytest.approx(0.80) and frame["test_accuracy"].isna()[3]
    assert list(frame["state"]) == ["complete", "complete", "complete", "waiting"]


def test_a_run(tmp_path: Path) -> None:
    record = study(*NETS).rows[0].record
    assert record is not None
    (tmp_path / "result.json").write_text(record.model_dump_json())
    run = hrg.load_run(tmp_path)
    assert len(repr(run)) < 80 + len(str(tmp_path)) and "80.00 %" in run._repr_html_()
