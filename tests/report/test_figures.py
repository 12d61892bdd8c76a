"""Figures: their data are the results, and their files are those that papers take."""

import html
import re
from pathlib import Path
from typing import Any

import pytest

from hiresnet_graph.errors import UsageError
from hiresnet_graph.figure_style import WIDTHS_CM
from hiresnet_graph.report import pareto_front
from hiresnet_graph.report.figure_data import FigureRow, distinguishing_edges
from hiresnet_graph.report.figures import (
    COLORS,
    FIGURES,
    LOOKS,
    Look,
    figure_bytes,
    figure_captions,
    label_color,
    make_figure,
    make_figures,
)
from hiresnet_graph.report.files import make_page, write_report
from hiresnet_graph.sweep.results import Results
from tests.report.studies import Net, study
from tests.report.test_page import factorial


def rows(kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = make_figure(factorial(), kind)["datasets"]["rows"]
    return found


def test_the_data_of_figures_are_those_of_the_report() -> None:
    assert [(row["label"], row["accuracy"]) for row in rows("accuracy")][:3] == [
        ("none", pytest.approx(80.0)),
        ("none", pytest.approx(81.0)),
        ("none", pytest.approx(82.5)),
    ]
    curve = [(row["epoch"], row["mean"], row["n"]) for row in rows("curves") if row["label"] == "a>b"]
    assert curve == [(1, pytest.approx(12.5), 3), (2, pytest.approx(25.0), 3)]
    sizes = {row["label"]: (row["mean"], row["on_front"]) for row in rows("pareto")}
    assert sizes["a>b"] == (pytest.approx(258.5 / 3), True) and sizes["a>c"][1] is False
    assert [(row["edge"], row["kind"]) for row in rows("effects")][:2] == [
        ("a>b", "main effect"),
        ("a>b", "Shapley value"),
    ]


def test_the_front_in_the_figure_is_that_of_the_table() -> None:
    nets = [
        Net("small", (80.0, 80.0), (90.0, 92.0), parameters=1),
        Net("lucky on the test set", (99.0, 99.0), (85.0, 85.0), parameters=2),
        Net("large", (70.0, 70.0), (95.0, 95.0), parameters=3),
        Net("larger", (98.0, 98.0), (95.0, 95.0), parameters=4),
    ]
    found = study(*nets)
    figure = make_figure(found, "pareto")
    assert [row["label"] for row in figure["datasets"]["rows"] if row["on_front"]] == ["small", "large"]
    assert {point.variant for point in pareto_front(found) if "parameters" in point.fronts} == {"small", "large"}
    svg = figure_bytes(figure, "svg").decode()
    assert len(re.findall(r'aria-roledescription="point"[^>]* stroke="#222222"', svg)) == 2
    assert "by validation accuracy" in figure_captions(found)["pareto"]


def test_looks_beyond_the_colours_are_dashes_and_shapes() -> None:
    nets = [Net(f"n{i}", (80.0 + i, 81.0)) for i in range(9)]
    for kind, channel, layer in (("curves", "strokeDash", 1), ("accuracy", "shape", 0)):
        encoding = make_figure(study(*nets), kind)["layer"][layer]["encoding"]
        colors, others = encoding["color"]["scale"]["range"], encoding[channel]["scale"]["range"]
        looks = {(color, str(other)) for color, other in zip(colors, others, strict=True)}
        assert len(looks) == 9 and colors[7] == colors[0] and others[7] != others[0], kind


def test_legends_have_columns_for_the_width_of_the_figure_and_of_the_page() -> None:
    nets = [Net(f"network {i}", (80.0 + i, 81.0)) for i in range(8)]
    for look, columns in (
        (Look(WIDTHS_CM["single"]), 2),
        (Look(WIDTHS_CM["double"]), 5),
        (Look(24.0, is_interactive=True), {"expr": "max(1, floor(width / 94))"}),
    ):
        encoding = make_figure(study(*nets), "curves", look)["layer"][1]["encoding"]
        assert encoding["color"]["legend"]["columns"] == encoding["strokeDash"]["legend"]["columns"] == columns


def test_figures_have_the_width_of_a_column() -> None:
    for width, centimetres in WIDTHS_CM.items():
        for kind in FIGURES:
            svg = figure_bytes(make_figure(factorial(), kind, Look(centimetres)), "svg").decode()
            pixels = float(svg.split('width="')[1].split('"')[0])
            assert pixels == pytest.approx(centimetres * 72 / 2.54, abs=1), (kind, width)


def test_intervals_lie_in_the_middle_of_their_bars() -> None:
    svg = figure_bytes(make_figure(factorial(), "effects"), "svg").decode()
    bars = re.findall(r'aria-roledescription="rect mark" d="M[-\d.]+,([-\d.]+)h[-\d.]+v([-\d.]+)h', svg)
    lines = re.findall(
        r'high: [^"]+" role="graphics-symbol" aria-roledescription="rule mark" transform="[^,]+,([-\d.]+)', svg
    )
    assert len(bars) == len(lines) > 2
    assert [float(line) for line in lines] == pytest.approx([float(top) + float(height) / 2 for top, height in bars])


def test_colours_belong_to_the_places_of_networks_in_the_study() -> None:
    figure = make_figure(study(Net("a", ("waiting",)), Net("b", (80.0, 81.0)), Net("c", (82.0, 83.0))), "accuracy")
    scale = figure["layer"][0]["encoding"]["color"]["scale"]
    assert (scale["domain"], scale["range"]) == (["b", "c"], list(COLORS[1:3]))


def test_equal_figures_have_equal_files() -> None:
    for format in ("svg", "png"):
        first, second = (figure_bytes(make_figure(factorial(), "pareto"), format) for _ in range(2))  # type: ignore[arg-type]
        assert first == second
    assert figure_bytes(make_figure(factorial(), "pareto"), "pdf").startswith(b"%PDF")


def test_figures_that_a_study_has_no_data_for() -> None:
    nothing = study(Net("a", ("waiting",)))
    assert make_figures(nothing) == {}
    with pytest.raises(UsageError, match="has no finished run, so there are no learning curves"):
        make_figure(nothing, "curves")
    with pytest.raises(UsageError, match=r"not generated by a subset rule\. .* 'hrg ablate SPEC --subsets all'"):
        make_figure(study(Net("a", (80.0, 81.0))), "effects")
    with pytest.raises(UsageError, match=r"no effects of edges to draw: no run is finished\."):
        make_figure(study(Net("none", ("waiting",)), subsets_of=("a>b",)), "effects")
    with pytest.raises(UsageError, match=r"no figure 'bars'\. Figures: accuracy, curves, effects, pareto"):
        make_figure(nothing, "bars")


def test_a_report_as_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hiresnet_graph.report import files

    monkeypatch.setattr(files, "read_results", lambda folder: factorial())
    names = {path.relative_to(tmp_path / "out").as_posix() for path in write_report(tmp_path, tmp_path / "out")}
    figures = {
        f"figures/{kind}-{width}.{format}"
        for kind in FIGURES
        for width in WIDTHS_CM
        for format in ("svg", "pdf", "png")
    }
    tables = {"table.csv", "differences.csv", "effects.csv", "curves.csv", "table.md", "table.tex", "report.json"}
    assert names == figures | tables
    assert all((tmp_path / "out" / name).stat().st_size > 100 for name in names)
    assert "The edge a&gt;b" in make_page(tmp_path, factorial()) or "The edge a\\u003eb" in make_page(
        tmp_path, factorial()
    )


def subsets_of(edges: tuple[str, ...]) -> Results:
    """A study of all subsets of some edges, in which each edge adds as many points as its place."""
    nets = []
    for i in range(2 ** len(edges)):
        own = tuple(edge for place, edge in enumerate(edges) if i >> place & 1)
        value = 50.0 + sum(1 + edges.index(edge) for edge in own)
        nets.append(Net(" + ".join(own) or "none", (value, value + 0.5), edges=own))
    return study(*nets, subsets_of=edges, baseline="none")


def test_more_networks_than_looks_are_coloured_by_their_number_of_skips() -> None:
    edges = tuple(f"stage{i}>stage{j}" for i, j in ((1, 2), (1, 3), (1, 4), (2, 3), (2, 4)))
    results = subsets_of(edges)
    assert len(results.networks) == 32 > LOOKS
    (line,) = make_figure(results, "curves")["layer"]
    assert line["encoding"]["color"]["field"] == "skips" and line["encoding"]["detail"]["field"] == "label"
    svg = figure_bytes(make_figure(results, "curves"), "svg").decode()
    assert len(re.findall(r'aria-roledescription="line mark"', svg)) == 32
    assert re.findall(r">(\d)</text>", svg[svg.index("skips") :]) == ["0", "1", "2", "3", "4", "5"]
    assert "band" not in figure_captions(results)["curves"] and "band" in figure_captions(factorial())["curves"]


def test_subsets_with_long_names_are_drawn_as_a_matrix() -> None:
    edges = ("stage1>stage2", "stage1>stage3", "stage2>stage3")
    results = subsets_of(edges)
    svg = html.unescape(figure_bytes(make_figure(results, "accuracy"), "svg").decode())
    assert sorted(re.findall(r">(stage[^<]*)</text>", svg)) == sorted(edges)
    # Of each network a dot for every edge that it has, and a faint one for every edge of the study.
    dots = re.findall(r'aria-label="edge: ([^;]+); label: ([^"]+)"[^>]*translate\((-[\d.]+),([\d.]+)\)', svg)
    assert sorted((label, edge) for edge, label, _, _ in dots) == sorted(
        (network.label, edge) for network in results.networks for edge in (*edges, *network.edges)
    )
    assert [float(x) for x in dict.fromkeys(x for _, _, x, _ in dots)] == sorted({float(x) for _, _, x, _ in dots})
    heights = {label: float(y) for _, label, _, y in dots}
    assert sorted(heights, key=heights.__getitem__)[0] == " + ".join(edges)
    assert sorted(heights, key=heights.__getitem__)[-1] == "none"
    assert "the best one first" in figure_captions(results)["accuracy"]
    wide = Look(24.0)
    assert "the best one first" not in figure_captions(results, wide)["accuracy"]
    svg = html.unescape(figure_bytes(make_figure(results, "accuracy", wide), "svg").decode())
    assert ">stage1>stage2 + stage1>stage3</text>" in svg


def test_networks_that_edges_do_not_tell_apart_keep_their_names() -> None:
    edges = ("stage1>stage2", "stage1>stage3", "stage2>stage3")
    label = "stage1>stage2 + stage1>stage3"
    settings = [Net(label, (80.0,), edges=edges[:2], setting={"recipe.lr": lr}) for lr in (0.1, 0.2)]
    assert distinguishing_edges(study(*settings, subsets_of=edges)) == ()
    assert distinguishing_edges(study(Net(label, (80.0,), edges=edges[:2]))) == ()
    assert distinguishing_edges(study(Net("other", (80.0,), edges=("a>b",)), subsets_of=edges)) == ()
    assert distinguishing_edges(subsets_of(edges)) == edges


def test_every_one_of_few_epochs_has_a_tick() -> None:
    """Vega's own ticks would be halves of epochs, rounded: 1, 2, 2."""
    axis = re.search(
        r'aria-label="X-axis titled \'epoch\'.*?role-axis-title',
        figure_bytes(make_figure(factorial(), "curves"), "svg").decode(),
        re.DOTALL,
    )
    assert axis is not None and re.findall(r">(\d+)</text>", axis[0]) == ["1", "2"]


def test_legends_have_the_order_of_the_study() -> None:
    """In the rows of an analysis, a network may come first that is not the first of the study."""
    look = Look(networks=("full", "in", "out", "p1"))
    rows: list[FigureRow] = [{"label": label} for label in ("in", "p1", "full", "new")]
    scale = label_color(look, rows, "square").to_dict()["scale"]
    assert scale == {"domain": ["full", "in", "p1", "new"], "range": [COLORS[0], COLORS[1], COLORS[3], COLORS[4]]}
