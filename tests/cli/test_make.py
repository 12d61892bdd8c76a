import json

import jsonschema
import pytest

import hiresnet_graph as hg
from hiresnet_graph.shipped import spec_names
from hiresnet_graph.spec.schema import schema
from hiresnet_graph.spec.source import read

SCHEMA_LINE = "# yaml-language-server: $schema=hrg.schema.json"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_init_writes_a_spec_that_is_right_and_its_schema(hrg, folder):
    result = hrg("init")
    assert result.exit_code == 0 and "hrg show network.yaml" in result.stderr
    text = (folder / "network.yaml").read_text()
    assert text.splitlines()[0] == SCHEMA_LINE
    assert "hrg validate network.yaml" in text
    hg.load("network.yaml").validate()
    jsonschema.validate(read(folder / "network.yaml"), json.loads((folder / "hrg.schema.json").read_text()))


@pytest.mark.parametrize("template", ["hiresnet", "resnet", "unet", "densenet", *spec_names()])
def test_init_copies_templates(hrg, folder, template):
    assert hrg("init", "--template", template, "-o", "copy.yaml").exit_code == 0
    assert (folder / "copy.yaml").read_text().startswith(SCHEMA_LINE + "\n#")
    hg.load("copy.yaml").validate()


def test_init_never_overwrites_without_force(hrg, folder):
    (folder / "network.yaml").write_text("mine")
    (folder / "hrg.schema.json").write_text("also mine")
    result = hrg("init")
    assert result.exit_code == 2 and "--force" in result.stderr
    assert (folder / "network.yaml").read_text() == "mine"
    assert hrg("init", "-o", "other.yaml").exit_code == 0
    assert (folder / "hrg.schema.json").read_text() == "also mine"
    assert hrg("init", "--force").exit_code == 0
    assert (folder / "network.yaml").read_text().startswith(SCHEMA_LINE)


def test_init_to_stdout_writes_no_file(hrg, folder):
    result = hrg("init", "-t", "unet", "-o", "-")
    assert result.stdout.startswith(SCHEMA_LINE) and list(folder.iterdir()) == []
    hg.loads(result.stdout).validate()


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["-t", "vg"], 2, "there is no template 'vg'. Did you mean 'vgg'?"),
        (["-o", "no/net.yaml"], 1, "no/net.yaml: there is no folder 'no'. Make it first."),
        (["-o", "."], 2, "'.' is there already"),
    ],
)
def test_init_mistakes(hrg, args, code, message):
    result = hrg("init", *args)
    assert result.exit_code == code and message in result.stderr


def test_schema_goes_to_stdout_or_a_file(hrg, folder):
    assert json.loads(hrg("schema").stdout) == schema()
    assert hrg("schema", "-o", "s.json").exit_code == 0
    assert json.loads((folder / "s.json").read_text()) == schema()
    result = hrg("schema", "-o", "no/s.json")
    assert result.exit_code == 1 and "Make it first." in result.stderr


def test_compile_writes_source_that_needs_torch_alone(hrg, folder):
    result = hrg("compile", "hiresnet18", "block=plain", "--edges", "in", "-o", "model.py", "--seed", "3")
    assert result.exit_code == 0, result.stderr
    assert "model.py" in result.stderr
    source = (folder / "model.py").read_text()
    assert "hiresnet_graph" not in "".join(line for line in source.splitlines() if "import" in line)
    compile(source, "model.py", "exec")


def test_compile_writes_the_plan(hrg, folder):
    assert hrg("compile", "unet", "-o", "plan.json").exit_code == 0
    plan = json.loads((folder / "plan.json").read_text())
    assert [call["name"] for call in plan["calls"]] == [call.name for call in hg.load("unet").plan.calls]


@pytest.mark.parametrize("args", [["-o", "model.txt"], ["-o", "model"]])
def test_compile_to_an_unknown_format_is_wrong_usage(hrg, folder, args):
    result = hrg("compile", "unet", *args)
    assert result.exit_code == 2 and ".onnx" in result.stderr and list(folder.iterdir()) == []


def test_mistakes_of_the_spec_are_told_before_a_file_is_written(hrg, folder):
    for command in ("compile", "render"):
        result = hrg(command, "unet", "width=0", "-o", "x.dot" if command == "render" else "x.py")
        assert result.exit_code == 1 and "nodes.enc1.width" in result.stderr
    assert list(folder.iterdir()) == []


def test_render_writes_a_diagram(hrg, folder):
    result = hrg("render", "hiresnet18@full", "-o", "fig.dot", "--level", "stages", "--direction", "TB")
    assert result.exit_code == 0, result.stderr
    text = (folder / "fig.dot").read_text()
    assert text.lstrip().startswith("digraph") and "stage3" in text and "hiresnet18, full" in text


@pytest.mark.parametrize(
    "args", [["-o", "f.xyz"], ["-o", "f.dot", "--level", "x"], ["-o", "f.dot", "--direction", "x"]]
)
def test_render_mistakes_are_wrong_usage(hrg, args):
    result = hrg("render", "unet", *args)
    assert result.exit_code == 2 and result.stderr.startswith("hrg render: ")


def test_render_unrolls_a_network_in_time(hrg, folder):
    assert hrg("render", "frnn2", "-o", "rolled.dot").exit_code == 0
    assert hrg("render", "frnn2", "-o", "flat.dot", "--unrolled").exit_code == 0
    rolled, flat = ((folder / name).read_text() for name in ("rolled.dot", "flat.dot"))
    assert "t+1" in rolled and "s1.step1" not in rolled
    assert "s1.step1" in flat and "t = 1" in flat and "t+1" not in flat
    result = hrg("render", "unet", "-o", "x.dot", "--unrolled")
    assert result.exit_code == 2 and "'unet' has no 'time', so there is nothing to unroll." in result.stderr


def test_adjust_reaches_the_target_and_writes_an_extension(hrg, folder):
    result = hrg("adjust", "hiresnet18", "block=plain", "--edges", "none", "-p", "270682")
    text = result.stdout
    assert "extends: hiresnet18" in text and "hidden" in text and "0 off the target" in result.stderr
    assert hg.loads(text).cost().parameters == 270_682
    assert hrg("adjust", "hiresnet18", "block=plain", "--edges=none", "-p", "270682", "-o", "adj.yaml").exit_code == 0
    assert hg.load("adj.yaml").cost().parameters == 270_682 and hg.load("adj.yaml").name == "adj"


def test_adjust_of_a_file_extends_it_from_where_it_is_written(hrg, folder):
    (folder / "sub").mkdir()
    assert hrg("init", "-o", "net.yaml").exit_code == 0
    assert hrg("adjust", "net.yaml", "-p", "200000", "-o", "sub/adj.yaml").exit_code == 0
    assert abs(hg.load("sub/adj.yaml").cost().parameters - 200_000) < 50


@pytest.mark.parametrize("args", [["hiresnet18", "-p", "5"], ["hiresnet18@full", "-p", "300000"], ["vgg16", "-p", "9"]])
def test_adjust_mistakes_are_wrong_usage(hrg, args):
    result = hrg("adjust", *args)
    assert result.exit_code == 2 and result.stderr.startswith("hrg adjust: ")
