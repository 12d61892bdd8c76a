"""What a newcomer reads: the nature of a wrong argument, widths, counts."""

import pytest

from hiresnet_graph.cli.progress import Meter

pytestmark = pytest.mark.usefixtures("folder")

NET = "name: net\ninput: {channels: 1, height: 8, width: 8}\nnodes: {head: {block: classifier, classes: 3}}\n"


@pytest.fixture
def net(folder):
    """A spec in the current folder."""
    (folder / "net.yaml").write_text(NET)
    return "net.yaml"


@pytest.mark.parametrize("command", [["report"], ["status"]], ids=" ".join)
def test_a_file_is_not_the_folder_of_a_study(hrg, net, command):
    result = hrg(*command, net)
    assert result.exit_code == 1
    assert result.stderr == (
        f"hrg {' '.join(command)}: net.yaml is a file, and not the folder of a study or a run. "
        "'hrg ablate net.yaml ... -o DIR' and 'hrg train net.yaml -o DIR' create one; give DIR.\n"
    )


@pytest.mark.parametrize("name", ["net.yaml", "hiresnet18"])
def test_a_search_of_a_spec_is_one_error(hrg, net, name):
    result = hrg("search", name, "-o", "out")
    assert result.exit_code == 2
    assert result.stderr == (
        f"hrg search: '{name}' is a spec, and a search requires a study: a file with 'network: {name}' and "
        "'search: {space: {edges: full}, runs: 20}'.\n"
    )


def test_an_unknown_level_lists_the_levels_once(hrg, net):
    result = hrg("render", net, "-o", "x.dot", "--level", "foo")
    assert result.stderr == "hrg render: there is no level 'foo' of detail. Known: stages, blocks, ops.\n"


def test_the_bar_shows_the_total_from_the_start():
    moves = []
    Meter("run", lambda *move: moves.append(move)).start(1, 6)
    assert moves == [(1, 6, "", "")]


def test_sentences_fit_the_terminal(hrg, net, folder, monkeypatch):
    args = ["train", net, "--data", "synthetic:classes=3", "--epochs", "1", "-o", "run"]
    (folder / "net.yaml").write_text(NET.replace("channels: 1", "channels: 3"))
    result = hrg(*args)
    assert result.exit_code == 0, result.stderr
    monkeypatch.setenv("COLUMNS", "60")
    result = hrg("report", "run")
    assert max(map(len, (result.stdout + result.stderr).splitlines())) <= 60, result.stdout + result.stderr
    text = " ".join(result.stdout.split())
    assert "1 epoch, batch 100" in text and "seed 0." in text and "Omitted at 60 columns: " in result.stderr
    for command in (["show", "hiresnet18"], ["doctor"]):
        result = hrg(*command)
        words = [line for line in result.stdout.splitlines() if line.split("  ")[0] not in ("hiresnet18", "ok", "flow")]
        assert max(map(len, words)) <= 60, words
    assert "% of memory" in " ".join(hrg("show", "hiresnet18").stderr.split())
    monkeypatch.setenv("COLUMNS", "200")
    wide = hrg("report", "run").stdout
    assert "top-5" not in wide and "validation" in wide  # of three classes, the top 5 contain every one
