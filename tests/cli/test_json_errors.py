"""Errors of commands with `--json`: one object on stdout, the text on stderr, the exit code as without it."""

import json

import pytest

pytestmark = pytest.mark.usefixtures("folder")


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["show", "nosuch"], 1, "there is no file and no shipped spec 'nosuch'."),
        (["show", "hiresnet18", "width"], 2, "'width' is not a change of the form K=V."),
        (["show"], 2, "Missing argument 'SPEC'."),
        (["show", "hiresnet18", "--nosuch"], 2, "No such option: --nosuch"),
        (["diff", "hiresnet18"], 2, "expected two networks, got 1."),
        (["enumerate", "hiresnet18", "--subsets", "some"], 2, "there is no subset rule 'some'."),
        (["list", "nosuch"], 2, "'nosuch' is not one of"),
        (["status", "nosuch"], 1, "nosuch: there is no such folder."),
        (["report", "nosuch"], 1, "nosuch: there is no such folder."),
        (["analyze", "readout", "nosuch"], 1, "nosuch: there is no such folder."),
        (["ablate", "hiresnet18", "--dry-run"], 2, "nothing to compare"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_is_one_object_on_stdout(hrg, args, code, message):
    result = hrg(*args, "--json")
    data = json.loads(result.stdout)
    assert result.exit_code == code and list(data) == ["error", "problems"]
    assert message in data["error"] and message.split(":")[0] in result.stderr
    without = hrg(*args)
    assert without.exit_code == code
    assert '"error"' not in without.stdout


def test_problems_of_a_spec_have_their_positions(hrg, folder):
    (folder / "net.yaml").write_text("name: net\ninput: {channels: 1}\nnodes: {a: {block: conv, widht: 3}}\n")
    data = json.loads(hrg("show", "net.yaml", "--json").stdout)
    assert [(one["file"], one["line"], one["path"]) for one in data["problems"]][-1] == ("net.yaml", 3, "nodes.a.widht")
    assert data["problems"][-1]["hint"] == "Did you mean 'width'?"
