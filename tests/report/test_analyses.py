"""Analyses over the seeds of a study: tables, formats, the files in its folder, and the figures."""

import csv
import html
import itertools
import json
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.analysis import ProbedNetwork, lesion, measure_contributions
from hiresnet_graph.analysis.sources import find_networks, network_with_weights
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.report.analyses import FORMATS, Analysis, analysis_table, read_analysis, save_analysis
from hiresnet_graph.report.analysis_figures import analysis_figure
from hiresnet_graph.report.figures import Look, figure_bytes
from hiresnet_graph.report.files import make_page, old_analyses, write_report
from hiresnet_graph.report.questions import (
    CONTRIBUTIONS,
    make_attributions,
    make_contributions,
    make_gradients,
    make_lesions,
    make_similarities,
    saved_analyses,
)
from hiresnet_graph.sweep.results import read_results


def test_contributions_are_means_over_seeds_of_each_variant(small_study: Path) -> None:
    found = make_contributions(find_networks(small_study))
    assert found.seeds == {"original": ("0", "1"), "full": ("0", "1")} and found.images == 359
    row = next(row for row in found.rows if row.keys == ("stage2.block1", "output", None, "stem>stage2", "skip"))
    expected = []
    for seed in (0, 1):
        run = hrg.load_run(small_study / "runs" / f"full-seed{seed}")
        single = make_contributions(find_networks(run.folder))
        expected += [one.values[0][0] for one in single.rows if one.keys == row.keys]
    assert row.variant == "full" and list(row.values[0]) == expected and len(expected) == 2
    table = analysis_table(found)
    assert [column.header for column in table.columns] == [
        *("variant", "at", "slot", "from", "kind", "n", "share", "mean |x|")
    ]
    assert {cells[0] for cells in table.rows} == {"original", "full"}


def test_a_variant_without_edges_is_left_out_of_lesions(small_study: Path) -> None:
    found = make_lesions(find_networks(small_study), draws=2)
    assert [row.keys for row in found.rows] == [
        ("intact", 0),
        *((edge, 1) for edge in ("stem>stage1", "stage1>stage2", "stem>stage2")),
        ("random (2 draws)", 1),
    ]
    assert found.left_out == ("original (has no edges beside the flow, so there is nothing to lesion)",)
    records = [hrg.load_run(small_study / "runs" / f"full-seed{seed}").record for seed in (0, 1)]
    assert found.rows[0].values[1] == pytest.approx([100 * (record.test_accuracy or 0) for record in records])
    for row in found.rows[1:]:
        for difference, accuracy, intact in zip(*row.values[:2], found.rows[0].values[1], strict=True):
            assert difference is not None and accuracy is not None and intact is not None
            assert difference == pytest.approx(accuracy - intact)
    with pytest.raises(UsageError, match="'small' has no edges beside the flow, so there is nothing to lesion"):
        make_lesions(find_networks(small_study / "runs" / "original-seed0"))


def test_pairs_sets_and_replacements_have_files_of_their_own(small_study: Path) -> None:
    source = find_networks(small_study / "runs" / "full-seed0")
    pairs = make_lesions(source, pairs=True, replacement="mean", part="validation")
    assert pairs.name == "lesion-pairs-mean-validation"
    assert [row.keys[0] for row in pairs.rows[1:]] == [
        "stem>stage1 + stage1>stage2",
        "stem>stage1 + stem>stage2",
        "stage1>stage2 + stem>stage2",
    ]
    random = make_lesions(source, draws=2, seed=3)
    assert (random.name, random.title) == ("lesion-random-2-seed-3", "lesions of edges: with 2 random sets, seed 3")
    assert (random.options, pairs.options) == ("--random 2 --seed 3", "--pairs --with mean --part validation")
    one = make_lesions(source, edges="full - p1", replacement="resample")
    assert one.options == "--edges 'full - p1' --with resample"
    assert one.name == "lesion-edges-full-p1-resample" and one.title == "lesions of edges: full - p1, resample"
    assert [row.keys for row in one.rows] == [("intact", 0), ("full - p1", 1)]
    assert one.rows[1].values == make_lesions(source, edges="stem>stage2", replacement="resample").rows[1].values
    with pytest.raises(UsageError, match=r"no set 'foo'.* The edges beside the flow of 'small': stem>stage1, "):
        make_lesions(find_networks(small_study), edges="foo")  # also where the first variant has none
    with pytest.raises(UsageError, match="both select what is replaced"):
        make_lesions(source, edges="full", pairs=True)
    plain = find_networks(small_study / "runs" / "original-seed0")
    assert len(make_lesions(plain, edges="stem>stage1").rows) == 2  # an edge of the flow
    with pytest.raises(UsageError, match="has 0 edges beside the flow, too few for random sets of 1"):
        make_lesions(plain, edges="stem>stage1", draws=5)


def test_names_of_files_are_no_longer_than_file_systems_allow(small_study: Path, tmp_path: Path) -> None:
    source = find_networks(small_study / "runs" / "full-seed0")
    edges = " + ".join(["stem>stage1", "stage1>stage2", "stem>stage2"] * 8)
    found = [make_lesions(source, edges=edges + end) for end in ("", " - stem>stage2")]
    study = shutil.copytree(small_study, tmp_path / "study")
    before = len(saved_analyses(study, read_results(study)))
    paths = [save_analysis(one, study) for one in found]
    assert len(set(paths)) == 2 and all(len(path.name) < 200 for path in paths)
    assert len(saved_analyses(study, read_results(study))) == before + 2


def test_formats_have_all_numbers_and_a_saved_analysis_is_read_again(small_study: Path, tmp_path: Path) -> None:
    study = tmp_path
    found = make_contributions(find_networks(small_study))
    path = save_analysis(found, study)
    assert path == study / "analysis" / "contributions.json"
    assert analysis_table(read_analysis(path, CONTRIBUTIONS)) == analysis_table(found)
    assert [one.name for one in saved_analyses(study, read_results(small_study))] == ["contributions"]
    data = json.loads(FORMATS["json"](found))
    rows = list(csv.DictReader(FORMATS["csv"](found).splitlines()))
    assert len(rows) == len(data["rows"]) == len(found.rows)
    assert data["rows"][3]["share_runs"] == list(found.rows[3].values[0])
    assert float(rows[3]["share_mean"]) == pytest.approx(sum(data["rows"][3]["share_runs"]) / 2)
    assert "| full | stage1.block1 | output | stem>stage1 | skip | 2 |" in FORMATS["md"](found)
    assert r"\label{tab:small-contributions}" in FORMATS["tex"](found)
    (study / "analysis" / "lesion.json").write_text("{}")
    with pytest.raises(RunError, match=r"lesion\.json: is no analysis of this version .*hrg analyze lesion' again"):
        saved_analyses(study, read_results(small_study))


def test_an_analysis_that_lacks_runs_of_its_study_says_so(small_study: Path, tmp_path: Path) -> None:
    study, results = tmp_path / "study", read_results(small_study)
    shutil.copytree(small_study, study)
    found = make_lesions(find_networks(small_study), draws=2)
    save_analysis(found, study)
    assert saved_analyses(study, results)[0].warning == "" and old_analyses(study) == []
    save_analysis(replace(found, seeds={"full": ("1",)}), study)
    sentence = f"made of 1 of 2 finished runs: run 'hrg analyze lesion {study} --random 2' again."
    assert sentence in analysis_table(saved_analyses(study, results)[0]).caption
    assert [text.split(": ", 1)[0] for text in old_analyses(study)] == ["analysis/lesion-random-2.json"]
    (lacking,) = (study / "runs").glob("full-seed0/model.safetensors")
    lacking.rename(study / "elsewhere")
    assert saved_analyses(study, results)[0].warning == (
        "This analysis was made of 1 of 2 finished runs; the weights of the others are not in the folder."
    )
    (study / "elsewhere").rename(lacking)
    write_report(study, tmp_path / "paper")
    for suffix in ("md", "json", "tex"):
        assert "1 of 2 finished runs" in (tmp_path / "paper" / "analysis" / f"lesion-random-2.{suffix}").read_text()
    assert "1 of 2 finished runs" in make_page(study, results)


def test_a_variant_has_its_colour_where_others_are_left_out(small_study: Path) -> None:
    def colors(analysis: Analysis) -> dict[str, str]:
        figure = analysis_figure(analysis)
        bars = figure["layer"][0].get("layer", figure["layer"])[0]
        scale = bars["encoding"]["color"]["scale"]
        return dict(zip(scale["domain"], scale["range"], strict=True))

    source = find_networks(small_study)
    both, one = colors(make_attributions(source)), colors(make_lesions(source, draws=2))
    assert one == {"full": both["full"]} and both["full"] != both["original"]


def test_a_figure_has_a_bar_for_each_row(small_study: Path) -> None:
    found = make_contributions(find_networks(small_study))
    figure = analysis_figure(found)
    rows = figure["datasets"]["rows"]
    # Only merges where a skip arrives in some network: not those of a function and its shortcut.
    assert [(row["label"], row["name"]) for row in rows] == [
        ("full", "stage1.block1 output: function"),
        ("full", "stage1.block1 output: stem>stage1"),
        ("full", "stage2.block1 output: function"),
        ("full", "stage2.block1 output: stage1>stage2"),
        ("full", "stage2.block1 output: stem>stage2"),
    ]
    original = analysis_figure(replace(found, rows=tuple(row for row in found.rows if row.variant == "original")))
    assert [row["name"] for row in original["datasets"]["rows"]][1] == "stage1.block1 residual: shortcut"
    root = ET.fromstring(figure_bytes(figure, "svg").decode())
    words = {part.text for kind in ("text", "tspan") for part in root.iter(f"{{http://www.w3.org/2000/svg}}{kind}")}
    assert {"share", "(mean ± standard deviation)", "stage1.block1 output", "function", "stem>stage1"} <= words


def test_bars_of_a_line_have_no_gaps_and_stand_around_its_name(small_study: Path) -> None:
    found = make_attributions(find_networks(small_study))
    figure = analysis_figure(found)
    by_name: dict[str, list[tuple[float, float]]] = {}
    for row in figure["datasets"]["rows"]:
        by_name.setdefault(row["name"], []).append((row["top"], row["bottom"]))
    assert {len(bars) for bars in by_name.values()} == {1, 2}
    for bars in by_name.values():
        assert all(one[1] == two[0] for one, two in itertools.pairwise(sorted(bars)))
    svg = figure_bytes(figure, "svg").decode()
    texts = re.findall(r'translate\(-?[\d.]+,([\d.]+)\)"[^>]*>([^<]+)</text>', svg)
    places = {html.unescape(text): float(place) for place, text in texts}
    centres = {name: (min(bars)[0] + max(bars)[1]) / 2 for name, bars in by_name.items()}
    offsets = {round(places[name] - centre, 1) for name, centre in centres.items()}
    assert len(offsets) == 1 and 0 < min(offsets) < 6  # from the middle of a text to its base line


def test_a_figure_for_a_page_has_the_largest_rows(small_study: Path) -> None:
    found = make_lesions(find_networks(small_study), draws=2)
    row = found.rows[1]
    many = [row._replace(keys=(f"a>b{i}", 1), values=((float(i), float(i)), *row.values[1:])) for i in range(100)]
    figure = analysis_figure(replace(found, rows=tuple(many)))
    names = [row["name"] for row in figure["datasets"]["rows"]]
    assert names == [f"a>b{i}" for i in range(60, 100)] and figure["height"] == 40 * 16
    assert "(the 40 largest of 100 rows)" in figure_bytes(figure, "svg").decode()
    assert len(analysis_figure(replace(found, rows=tuple(many)), Look(24, True))["datasets"]["rows"]) == 100


def test_random_edges_are_a_line_across_the_lesions(small_study: Path) -> None:
    figure = analysis_figure(make_lesions(find_networks(small_study), draws=2))
    rows = figure["datasets"]["rows"]
    assert [row["name"] for row in rows if row["is_reference"]] == ["random edges"]
    assert "intact" not in [row["name"] for row in rows]
    filters = [part["filter"] for layer in figure["layer"] for part in layer.get("transform", [])]
    assert filters == ["datum.is_reference"]
    assert not any(
        row["is_reference"] for row in analysis_figure(make_lesions(find_networks(small_study)))["datasets"]["rows"]
    )


def test_a_file_of_weights_gives_the_numbers_of_its_run(small_study: Path, tmp_path: Path) -> None:
    from tests.analysis.small import TEXT

    folder = small_study / "runs" / "full-seed1"
    (tmp_path / "small.yaml").write_text(TEXT)
    source = network_with_weights(hrg.load(tmp_path / "small.yaml").variant("full"), folder / "model.safetensors")
    ours, runs = make_contributions(source), make_contributions(find_networks(folder))
    assert [row.values for row in ours.rows] == [row.values for row in runs.rows]
    assert (ours.source, ours.architecture, ours.data) == ("model.safetensors", "small, full", "digits")


def test_the_public_functions_take_any_module(small_study: Path) -> None:
    import torch

    arch = hrg.load(small_study / "runs" / "full-seed0" / "spec.yaml")
    network = ProbedNetwork(arch, arch.build(seed=5).eval())
    x, labels = torch.randn(4, 1, 8, 8), torch.zeros(4, dtype=torch.long)
    with torch.no_grad():
        assert len(measure_contributions(network, [x])) == 9
        assert len(lesion(network, lambda: [(x, labels)], [network.skips])) == 1


def test_the_page_of_a_study_has_a_section_for_each_saved_analysis(small_study: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    shutil.copytree(small_study, study)
    assert "analysis-" not in make_page(study, read_results(study))
    save_analysis(make_contributions(find_networks(study)), study)
    page = make_page(study, read_results(study))
    text = page.split('id="data">', 1)[1].split("</script>", 1)[0]
    data = json.loads(text)
    assert data["titles"]["analysis-contributions"] == "Contributions of edges"
    assert len(data["tables"]["analysis-contributions"]["rows"]) == 13
    assert data["tables"]["analysis-contributions"]["columns"][6] == ["share", True]
    values, index = data["charts"]["analysis-contributions"]["datasets"]["rows"]["value"]
    cells = [row[6].split(" ")[0] for row in data["tables"]["analysis-contributions"]["rows"]]
    assert len(index) == 5 and {f"{values[i]:.3f}" for i in index} <= set(cells)


def test_similarities_are_within_runs_and_between_the_runs_of_a_network(small_study: Path) -> None:
    found = make_similarities(find_networks(small_study))
    pairs = [row for row in found.rows if row.variant == "full"]
    assert [row.keys for row in pairs][:5] == [("stem", name) for name in ("stem", "stage1", "stage2", "head")] + [
        ("stage1", "stage1")
    ]
    assert len(pairs) == 10 and all(len(row.values[0]) == 2 and len(row.values[1]) == 1 for row in pairs)
    own = pairs[0]
    assert own.values[0] == pytest.approx((1, 1)) and own.values[1][0] is not None and 0 < own.values[1][0] < 1
    single = make_similarities(find_networks(small_study / "runs" / "full-seed1"))
    assert [row.values[0][0] for row in single.rows] == [row.values[0][1] for row in pairs]
    assert [column.header for column in analysis_table(single).columns] == ["level", "and level", "CKA"]
    rows = analysis_figure(found)["datasets"]["rows"]
    assert len(rows) == 2 * 16 and rows[1]["row"] == "original: stem" and rows[2]["row"] == "original: stage1"
    assert figure_bytes(analysis_figure(found), "png").startswith(b"\x89PNG")


def test_attributions_end_with_the_constant_and_the_logit(small_study: Path) -> None:
    found = make_attributions(find_networks(small_study))
    rows = [row for row in found.rows if row.variant == "full"]
    assert [row.keys[0] for row in rows] == ["stage2.block1", "stage1>stage2", "stem>stage2", "constant", "logit"]
    for seed in (0, 1):
        *parts, logit = (row.values[0][seed] or 0 for row in rows)
        assert sum(parts) == pytest.approx(logit, abs=1e-5)
    assert rows[-1].values[1][0] is not None and rows[-1].values[1][0] < 1e-5
    assert "integrated gradients" in found.note  # the variant without skips ends with a shortcut before a ReLU
    single = make_attributions(find_networks(small_study / "runs" / "full-seed0"))
    assert "each part is exact" in single.note


def test_gradients_are_those_of_the_records_at_each_epoch(small_study: Path) -> None:
    found = make_gradients(find_networks(small_study))
    epochs = [hrg.load_run(small_study / "runs" / f"full-seed{seed}").record.epochs for seed in (0, 1)]
    rows = {row.keys: row.values[0] for row in found.rows if row.variant == "full"}
    assert len(rows) == 3 * len(epochs[0][0].gradient_norms or {})
    for (block, epoch), values in rows.items():
        assert isinstance(block, str) and isinstance(epoch, int)
        norms = [one[epoch - 1].gradient_norms or {} for one in epochs]
        name = {"stem>stage2": "edges.stem__stage2", "stage1>stage2": "edges.stage1__stage2"}.get(block, block)
        assert list(values) == [one[name] for one in norms] and all(value and value > 0 for value in values)
    assert ("stem>stage2", 3) in rows and found.note == "Edges without parameters have no norm: stem>stage1."
    table = analysis_table(found)
    assert [column.header for column in table.columns] == ["variant", "block or edge", "epoch", "n", "gradient norm"]
    assert "small on digits, along training; mean" in table.caption
    figure = analysis_figure(found)
    assert len(figure["datasets"]["rows"]) == len(found.rows)
    assert figure["encoding"]["y"]["scale"]["domain"][:2] == ["stem", "stage1.block1"]
    norms = [row["value"] for row in figure["datasets"]["rows"]]
    ticks = figure["encoding"]["color"]["legend"]["values"]
    assert 2 <= len(ticks) <= 5 and all(min(norms) <= tick <= max(norms) for tick in ticks)
    assert figure_bytes(figure, "png").startswith(b"\x89PNG")


def test_the_table_of_a_series_has_three_of_its_values(small_study: Path) -> None:
    found = make_gradients(find_networks(small_study))
    row = found.rows[0]
    longer = replace(found, rows=tuple(row._replace(keys=("stem", epoch)) for epoch in range(1, 81)))
    table = analysis_table(longer)
    assert [cells[1] for cells in table.rows] == ["1", "40", "80"] and len(table.records) == 80


def test_a_report_folder_has_the_analyses(small_study: Path, tmp_path: Path) -> None:
    study, target = tmp_path / "study", tmp_path / "paper"
    shutil.copytree(small_study, study)
    save_analysis(make_lesions(find_networks(study), edges="full - p1"), study)
    written = {str(path.relative_to(target)) for path in write_report(study, target)}
    name = "lesion-edges-full-p1"
    assert {f"analysis/{name}.{suffix}" for suffix in ("csv", "json", "md", "tex")} <= written
    assert {f"figures/analysis-{name}-{width}.pdf" for width in ("single", "double")} <= written
    assert (target / f"analysis/{name}.json").read_bytes() == (study / f"analysis/{name}.json").read_bytes()
