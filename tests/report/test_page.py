"""The HTML page: its numbers are those of the results, its text is safe, and it needs nothing from outside."""

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.analysis.sources import find_networks
from hiresnet_graph.errors import UsageError
from hiresnet_graph.render import RenderOptions, to_svg
from hiresnet_graph.report import compare, edge_effects
from hiresnet_graph.report.analyses import Analysis, AnalysisRow
from hiresnet_graph.report.files import make_page
from hiresnet_graph.report.page import html_page
from hiresnet_graph.report.page.data import reached_levels, rounded_down
from hiresnet_graph.report.page.lesions import lesion_conclusion
from hiresnet_graph.report.questions import LESION, QUESTIONS, make_contributions, make_lesions
from hiresnet_graph.report.stored_network import stored_network
from hiresnet_graph.sweep.published import Published
from hiresnet_graph.sweep.results import Results, read_results
from tests.report.studies import Net, study

EDGES = ("a>b", "a>c")
SUBSETS = [" + ".join(subset) or "none" for subset in chain.from_iterable(combinations(EDGES, n) for n in range(3))]


def factorial() -> Results:
    values = {
        "none": (80.0, 81.0, 82.5),
        "a>b": (85.0, 86.0, 87.5),
        "a>c": (80.5, 81.0, 82.0),
        "a>b + a>c": (85, 87, 88),
    }
    nets = [
        Net(label, values[label], edges=tuple(label.split(" + ")) if label != "none" else (), parameters=1000 + 10 * i)
        for i, label in enumerate(SUBSETS)
    ]
    return study(*nets, subsets_of=EDGES, baseline="none")


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_every_number_is_that_of_the_results() -> None:
    results = factorial()
    data = data_of(html_page(results))
    assert {one["label"]: list(one["seeds"].values()) for one in data["networks"]} == {
        network.label: [
            pytest.approx(100 * row.record.test_accuracy)
            for row in results.rows
            if row.network == i and row.record is not None and row.record.test_accuracy is not None
        ]
        for i, network in enumerate(results.networks)
    }
    assert [(one["parameters"], one["macs"]) for one in data["networks"]] == [
        (network.parameters, network.macs) for network in results.networks
    ]
    assert set(data["comparisons"]) == set(SUBSETS)
    for baseline in SUBSETS:
        for one in compare(results, baseline)[0].differences:
            assert one.estimate is not None and one.estimate.interval is not None
            found = data["comparisons"][baseline]["differences"][SUBSETS.index(one.variants[0])]
            low, high = one.estimate.interval
            assert found[:2] == [one.estimate.value, one.p_holm]
            assert found[2:4] == [f"{one.estimate.value:+.2f}", f"[{low:+.2f}, {high:+.2f}]"]
            assert found[5] == f"{one.estimate.detectable:.2f}"
    (effects,) = edge_effects(results)
    assert [(one["edge"], one["value"]) for one in data["effects"]] == [
        (one.edge, pytest.approx(one.main.value, abs=1e-4)) for one in effects.edges if one.main
    ]
    for i, network in enumerate(results.networks):
        records = [row.record for row in results.rows if row.network == i and row.record is not None]
        curves = [[100 * epoch.validation_accuracy for epoch in record.epochs] for record in records]
        assert data["curves"][network.label] == [pytest.approx(curve, abs=0.01) for curve in curves]


def test_numbers_are_rounded_once_as_in_the_report() -> None:
    results = study(Net("none", (80.0, 80.5, 81.0)), Net("in", (84.8, 85.31, 85.80503)), baseline="none")
    data = data_of(html_page(results))
    (comparison,) = compare(results)
    assert comparison.differences[0].estimate is not None
    assert 4.805 < comparison.differences[0].estimate.value < 4.80502
    assert data["comparisons"]["none"]["differences"][1][2] == "+4.81"
    assert "in is 4.81 points" in data["conclusion"]
    assert [one["accuracy"] for one in data["networks"]] == ["80.50 (0.50)", "85.31 (0.50)"]


def test_each_baseline_has_its_own_sentences_about_the_columns_that_are_shown() -> None:
    data = data_of(html_page(study(Net("a", (80.0, 81.0, 82.5)), Net("b", (86.0, 87.0, 88.4)), baseline="a")))
    a, b = data["comparisons"]["a"], data["comparisons"]["b"]
    assert a["caption"].startswith("Each network minus a, ") and b["caption"].startswith("Each network minus b, ")
    assert a["conclusion"].startswith("b is 5.97 points more accurate than a (")
    assert b["conclusion"].startswith("a is 5.97 points less accurate than b (")
    assert data["conclusion"] == a["conclusion"]
    assert "at the last epoch" not in data["captions"]["table"] and "torch 2.14.1" in data["captions"]["table"]


def test_a_curve_that_stays_just_below_an_accuracy_does_not_reach_it() -> None:
    assert [rounded_down(value) for value in (89.9999, 90.0, 100 * 0.29)] == [89.99, 90.0, 29.0]


def test_the_page_has_all_charts_and_the_conclusion() -> None:
    data = data_of(html_page(factorial()))
    assert list(data["charts"]) == ["accuracy", "curves", "effects", "pareto"]
    assert data["conclusion"].startswith("The edge a>b matters most: with it accuracy is ")
    assert data["captions"].keys() == {"table", *data["charts"]}


def test_equal_results_have_equal_pages() -> None:
    assert html_page(factorial()) == html_page(factorial())


def test_names_are_text_and_never_markup() -> None:
    label = "</script><script>alert(1)</script><!--"
    results = study(Net(label, (80.0, 81.0)), Net("b", (82.0, 84.0)), name="<b>&amp;")
    page = html_page(results)
    assert data_of(page)["networks"][0]["label"] == label
    assert label not in page and "<title>&lt;b&gt;&amp;amp;</title>" in page


def test_names_like_places_of_the_template_are_names() -> None:
    page = html_page(study(Net("@@VEGA@@", (80.0, 81.0)), Net("@@SCRIPT@@", (82.0, 84.0)), name="@@STYLE@@"))
    assert [one["label"] for one in data_of(page)["networks"]] == ["@@VEGA@@", "@@SCRIPT@@"]
    assert "<title>@@STYLE@@</title>" in page


def test_the_page_loads_nothing() -> None:
    page = html_page(factorial())
    assert not re.findall(r"<(?:link|img|iframe|script)[^>]*(?:src|href)=", page.split('id="data">')[0])
    assert re.findall(r"<script[^>]*src=", page) == [] and '"$schema"' not in page
    assert len(page) < 1_100_000


def test_unfinished_studies_searches_and_single_runs_have_pages() -> None:
    waiting = study(Net("a", (80.0, "waiting")), Net("b", ("failed", "diverged")))
    data = data_of(html_page(waiting))
    assert data["conclusion"].startswith("The study is unfinished, with 1 run still to be trained.")
    assert [one["failed"] for one in data["networks"]] == [0, 2] and len(data["provenance"]["failed"]) == 1
    assert data_of(html_page(study(Net("a", ("waiting",)))))["charts"] == {}
    search = data_of(html_page(study(Net("a", (80.0,)), Net("b", (81.0,)), is_search=True)))
    assert search["comparisons"] == {} and "A search selected" in search["conclusion"]
    assert (
        data_of(html_page(study(Net("a", (80.0,)))))["conclusion"]
        == "There is one network, so there is nothing to compare."
    )


def test_an_unknown_baseline_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"no variant 'nne' to compare with\. Did you mean 'none'"):
        html_page(factorial(), "nne")


def test_grids_compare_at_equal_settings() -> None:
    nets = [
        Net(label, (80.0 + gain + width, 81.0 + gain + 2 * width), setting={"width": width})
        for width in (1, 2)
        for label, gain in (("none", 0.0), ("full", 3.0))
    ]
    data = data_of(html_page(study(*nets, baseline="none")))
    differences = {name: one["differences"] for name, one in data["comparisons"].items()}
    assert [bool(one) for one in differences["none, width=1"]] == [False, True, False, False]
    assert differences["none, width=2"][3][0] == pytest.approx(3)
    assert "highest mean validation accuracy" not in data["comparisons"]["none, width=1"]["caption"]


def test_published_values_stand_beside_ours() -> None:
    published = Published.model_validate({"source": "a paper", "values": [{"label": "b", "mean": 88.3, "std": 0.2}]})
    data = data_of(html_page(study(Net("a", (80.0, 81.0)), Net("b", (82.0, 84.0)), published=published)))
    assert [one["published"] and one["published"]["mean"] for one in data["networks"]] == [None, 88.3]
    assert "Published: a paper." in data["captions"]["table"]


def test_random_edges_are_the_control_of_their_variant() -> None:
    nets = [
        Net("full", (80.0, 81.0)),
        Net("2 random edges (full) 1", (78.0, 79.0)),
        Net("2 random edges (full) 2", (77.0, 78.0)),
    ]
    data = data_of(html_page(study(*nets)))
    assert [one["random"] for one in data["networks"]] == [[nets[1].label, nets[2].label], [], []]


def test_the_levels_of_learning_curves_are_reached_by_half_of_the_runs() -> None:
    curves = {"a": [[20.0, 50.0, 80.0], [22.0, 55.0, 84.0]], "b": [[18.0, 30.0, 61.0]]}
    levels = reached_levels(curves)
    assert levels == [50.0, 65.0, 77.0] and reached_levels({}) == []
    assert sum(max(curve) >= levels[-1] for found in curves.values() for curve in found) == 2
    short = {"a": [[16.0, 16.84]]}
    assert max(reached_levels(short)) <= 16.84  # rounded down, as 16.8 is reached and 17 is not


def _lesions(*rows: tuple[str, str, tuple[float | None, ...]]) -> Analysis:
    found = tuple(AnalysisRow(network, {}, (edges, 1), (values, values, values)) for network, edges, values in rows)
    return Analysis(LESION, "lesion", "study", "tiny", "digits", "test", 359, {}, found, {})


def test_lesions_are_summed_up_by_the_largest_loss_of_each_network() -> None:
    rows = [
        ("in", "intact", (0.0, 0.0)),
        ("in", "a>b", (-1.0, -2.0)),
        ("full", "intact", (0.0, 0.0)),
        ("full", "a>b", (-2.0, -4.0)),
        ("full", "a>c", (-9.0, 1.0)),
        ("full", "random (2 draws)", (-50.0, -50.0)),
    ]
    assert lesion_conclusion(_lesions(*rows)) == (
        "Without training again, accuracy falls most for full without a>c, by 4.00 points (-1.00 to 9.00 in 2 runs); "
        "for in without a>b, by 1.50 points (1.00 to 2.00 in 2 runs)."
    )
    assert lesion_conclusion(_lesions(("x", "a>b", (-0.5,)))) == (
        "Without training again, accuracy falls for x without a>b, by 0.50 points."
    )
    assert lesion_conclusion(_lesions(("x", "a>b", (0.5, -0.5)))) == "No lesion lowers the mean accuracy of a network."
    assert lesion_conclusion(_lesions(("x", "intact", (0.0,)))) == ""
    many = [(f"net{i}", "a>b", (-1.0 - i,)) for i in range(6)]
    assert lesion_conclusion(_lesions(*many)).endswith("; the table has 2 other networks.")


def _with_curve(results: Results, network: int, seed: int, accuracies: tuple[float, float]) -> Results:
    """The results with other validation accuracies of a run by epoch."""

    def changed(row: Any) -> Any:
        if (row.network, row.seeds.init) != (network, seed):
            return row
        epochs = [
            epoch.model_copy(update={"validation_accuracy": value})
            for epoch, value in zip(row.record.epochs, accuracies, strict=True)
        ]
        return replace(row, record=row.record.model_copy(update={"epochs": tuple(epochs)}))

    return replace(results, rows=tuple(map(changed, results.rows)))


@contextmanager
def _browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        except sync_api.Error:
            pytest.skip("there is no /usr/bin/chromium")
        yield browser
        browser.close()


@pytest.mark.slow
def test_variants_are_explained_and_highlighted_in_a_browser(small_study: Path, tmp_path: Path) -> None:
    """In the diagram too; what is wider than a telephone says so; lesions come first, with a sentence."""
    source = find_networks(small_study)
    lesions = make_lesions(source)
    network = stored_network(small_study)
    assert network is not None
    diagram = to_svg(network.plan, RenderOptions(level="stages"), title="small")
    page_file = tmp_path / "report.html"
    page_file.write_text(
        html_page(read_results(small_study), diagram=diagram, analyses=[lesions, make_contributions(source)])
    )
    assert next(iter(QUESTIONS)) == "lesion"
    skips = "[...document.querySelectorAll('g.edge')].filter(one => !one.id.startsWith('edge.flow.'))"
    opacities = f"{skips}.map(one => one.getAttribute('opacity') ?? '1')"
    with _browser() as browser:
        page = browser.new_page(viewport={"width": 390, "height": 900}, color_scheme="dark")
        page.goto(page_file.as_uri())
        page.wait_for_function("document.documentElement.dataset.ready === 'true'")
        assert page.locator("#variants div").all_inner_texts() == [
            "original\nno skips",
            "full\nstem>stage1, stage1>stage2, stem>stage2",
        ]
        page.click("#variants div[data-variant=original]")
        assert page.evaluate(opacities) == ["0.12"] * 3
        assert page.locator("tr.chosen").get_attribute("data-label") == "original"
        page.click("#variants div[data-variant=full]")
        assert page.evaluate(opacities) == ["1"] * 3
        assert page.evaluate("getComputedStyle(document.querySelector('#diagram svg > rect')).fill") == "none"
        page.select_option("#baseline", "full")
        assert "Each network minus full, " in page.locator("#table-caption").inner_text()
        titles = page.locator("#charts h2").all_inner_texts()
        assert titles[-2:] == ["Lesions of edges", "Contributions of edges"]
        assert lesion_conclusion(lesions) in page.locator("#charts").inner_text()
        frame, hint = page.locator("#results .scroll"), page.locator("#results .hint")
        assert "more" in frame.get_attribute("class") and hint.is_visible()
        frame.evaluate("one => { one.scrollLeft = one.scrollWidth; }")
        page.wait_for_function("!document.querySelector('#results .scroll').classList.contains('more')")
        page.set_viewport_size({"width": 1280, "height": 900})
        page.wait_for_function("document.querySelector('#results .hint').hidden")


@pytest.mark.slow
def test_in_a_browser(tmp_path: Path) -> None:
    page_file = tmp_path / "report.html"
    results = _with_curve(factorial(), 0, 0, (0.5, 0.9))
    for seed in range(3):
        results = _with_curve(results, 1, seed, (0.3, 0.5))
    page_file.write_text(html_page(results))
    with _browser() as browser:
        for width, theme in ((1280, "light"), (390, "light"), (1280, "dark")):
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
            messages: list[str] = []
            addresses: list[str] = []
            page.on("console", lambda message, to=messages: to.append(message.text))
            page.on("pageerror", lambda error, to=messages: to.append(str(error)))
            page.on("request", lambda request, to=addresses: to.append(request.url))
            page.goto(page_file.as_uri())
            page.wait_for_function("document.documentElement.dataset.ready === 'true'")
            assert messages == [] and addresses == [page_file.as_uri()]
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("document.documentElement.dataset.theme") == theme
            _use(page)
            assert messages == [] and len(addresses) == 1


def _use(page: Any) -> None:
    """Sort, compare with another baseline, highlight, hide, ask for another level, and change the theme."""

    def column(name: str) -> list[str]:
        at = page.evaluate(
            "name => [...document.querySelectorAll('th')].findIndex(one => one.dataset.column === name)", name
        )
        cells: list[str] = page.locator(f"tbody tr td:nth-child({at + 1})").all_inner_texts()
        return cells

    assert len(column("variant")) == 4 and column("difference")[0] == "-"
    page.click("th[data-column=accuracy]")
    values = [float(text.split()[0]) for text in column("accuracy")]
    assert values == sorted(values, reverse=True) and column("variant")[0] == "a>b + a>c"
    page.click("th[data-column=accuracy]")
    assert [float(text.split()[0]) for text in column("accuracy")] == sorted(values)
    page.select_option("#baseline", "a>b")
    differences = dict(zip(column("variant"), column("difference"), strict=True))
    assert differences["a>b"] == "-" and differences["none"] == "-5.00"
    page.click("tbody tr[data-label=none] td:nth-child(2)")
    assert page.locator("tr.chosen").get_attribute("data-label") == "none"
    marks_of = "[...document.querySelectorAll('#chart-accuracy path')]"
    faint = f"{marks_of}.filter(one => Number(one.getAttribute('opacity')) < 0.2).length"
    page.wait_for_function(f"{faint} >= 9")
    marks = "document.querySelectorAll('#chart-accuracy .mark-symbol path').length"
    before = page.evaluate(marks)
    page.uncheck("tr[data-label=none] input")
    page.wait_for_function(f"{marks} < {before}")
    page.click("#all")
    page.wait_for_function(f"{marks} === {before}")
    page.fill("#level", "49")
    page.press("#level", "Enter")
    assert page.locator("th[data-column=epochs]").inner_text() == "epochs to 49 %"
    # One of three seeds of `none` was there after one epoch, which is no mean of one epoch.
    page.click("th[data-column=epochs]")
    page.click("th[data-column=epochs]")
    assert list(zip(column("variant"), column("epochs"), strict=True))[:3] == [
        *(("a>b", "2.0"), ("none", "2 of 3 never"), ("a>c", "3 of 3 never"))
    ]
    page.check("#log")
    theme = page.evaluate("document.documentElement.dataset.theme")
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") != theme


@pytest.mark.parametrize(
    "ledger", sorted(Path(__file__).parents[2].glob("results/*/ledger.sqlite")), ids=lambda path: path.parent.name
)
def test_the_network_of_a_study_without_runs_is_that_of_its_file(ledger: Path, tmp_path: Path) -> None:
    network = stored_network(ledger.parent)
    assert network is not None
    counted = {(one.parameters, one.macs) for one in read_results(ledger.parent).networks}
    assert (network.cost().parameters, network.cost().macs) in counted
    # A spec that has changed since then is not drawn in its place.
    shutil.copy(ledger, tmp_path)
    with closing(sqlite3.connect(tmp_path / ledger.name)) as database, database:
        database.execute("UPDATE networks SET macs = macs + 1")
    assert stored_network(tmp_path) is None


def test_a_page_shows_the_skips_of_all_variants(small_study: Path, tmp_path: Path) -> None:
    """Also if no variant has all of them."""
    folder = tmp_path / "study"
    shutil.copytree(small_study, folder)
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as database, database:
        (edges,) = database.execute("SELECT edges FROM networks ORDER BY json_array_length(edges) DESC").fetchone()
        assert json.loads(edges) == ["stem>stage1", "stage1>stage2", "stem>stage2"]
        for label, own in (("full", ["stem>stage1", "stage1>stage2"]), ("original", ["stem>stage2"])):
            database.execute("UPDATE networks SET edges = ? WHERE label = ?", (json.dumps(own), label))
    for spec in folder.glob("runs/full-*/spec.yaml"):
        fewer = hrg.load(spec).with_edges(["stem>stage1", "stage1>stage2"])
        spec.write_text(fewer.to_yaml())
    network = stored_network(folder)
    assert network is not None
    skips = [edge.name.removeprefix("edges.") for edge in network.plan.edges if edge.family == "skip"]
    assert sorted(skips) == ["stage1__stage2", "stem__stage1", "stem__stage2"]


def test_the_page_names_the_setting_of_the_effects_and_has_the_captions_of_all() -> None:
    nets: list[Net] = []
    for lr, gain in ((0.1, 5.0), (0.01, 1.0)):
        at = {"recipe.lr": lr}
        runs = [80.0 + gain + one for one in (0.0, 0.4, 0.2)]
        nets += [Net("none", (80.0, 80.3, 80.1), setting=at), Net("a>b", runs, setting=at, edges=("a>b",))]
    data = data_of(html_page(study(*nets, subsets_of=("a>b",))))
    assert data["effects_at"] == "lr=0.1" and [one["edge"] for one in data["effects"]] == ["a>b"]
    assert data["captions"]["effects"].startswith("Points of test accuracy")  # that of both
    assert "Holm: corrected for 1 test of this setting; intervals are not corrected." in data["captions"]["effects"]
    assert data["provenance"]["recipe"]["lr"] == "0.1, 0.01" and data["provenance"]["recipe"]["epochs"] == 2
    nets[-1] = replace(nets[-1], tests=("waiting", "waiting", "waiting"))
    data = data_of(html_page(study(*nets, subsets_of=("a>b",))))
    first, second = data["captions"]["effects"].split(" Effects of the edges at lr=0.01: ")
    assert first.startswith("Effects of the edges at lr=0.1: ") and "Shapley values require" in second


def test_a_spec_of_a_run_that_cannot_be_compiled_is_replaced_by_that_of_the_study(
    small_study: Path, tmp_path: Path
) -> None:
    """As that of a colleague who does not have your block."""
    folder = tmp_path / "study"
    shutil.copytree(small_study, folder)
    for spec in folder.glob("runs/*/spec.yaml"):
        spec.write_text(
            "name: own\ninput: {channels: 1, height: 8, width: 8}\nnodes: {a: {block: my_own_block}}\nflow: a\n"
        )
    network, other = stored_network(folder), stored_network(small_study)
    assert network is not None and other is not None
    assert network.plan.digest() == other.plan.digest()  # as the study describes it
    assert "test accuracy" in make_page(folder, read_results(folder))
