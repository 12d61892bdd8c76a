"""`hrg init` and `hrg schema`."""

import json

import jsonschema
import pytest

import hiresnet_graph as hg
from hiresnet_graph.shipped import spec_names
from hiresnet_graph.spec.reader import read
from hiresnet_graph.spec.schema import schema

pytestmark = pytest.mark.usefixtures("folder")

SCHEMA_LINE = "# yaml-language-server: $schema=hrg.schema.json"


def test_init_writes_a_valid_spec_and_its_schema(hrg, folder):
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
        (["-t", "foo"], 2, "there is no template 'foo'. Templates: starter, hiresnet, resnet, densenet, vgg, ror, and"),
        (["-o", "."], 2, "'.' is a folder. Give the name of a file."),
    ],
)
def test_init_errors(hrg, args, code, message):
    result = hrg("init", *args)
    assert result.exit_code == code and message in result.stderr


def test_schema_goes_to_stdout_or_a_file(hrg, folder):
    assert json.loads(hrg("schema").stdout) == schema()
    assert hrg("schema", "-o", "s.json").exit_code == 0
    assert json.loads((folder / "s.json").read_text()) == schema()
    assert hrg("schema", "-o", "no/s.json").exit_code == 0 and (folder / "no" / "s.json").exists()


@pytest.mark.parametrize("command", [["init"], ["adjust", "hiresnet18", "-p", "280000"]])
def test_yaml_is_not_written_into_a_file_of_json(hrg, folder, command):
    refused = hrg(*command, "-o", "my net.json")
    assert refused.exit_code == 2 and "this command writes YAML. Name the file 'my net.yaml'" in refused.stderr
    assert not (folder / "my net.json").exists()
