"""Output files and folders of commands: what is replaced, and what never is."""

import os

import pytest

import hiresnet_graph as hg

pytestmark = pytest.mark.usefixtures("folder")

NET = """name: net
input: {channels: 1, height: 8, width: 8}
nodes: {a: {block: basic, width: 4, depth: 2}, head: {block: classifier, classes: 10}}
flow: a -> head
"""


@pytest.fixture
def specs(folder):
    """`net.yaml`, and `child.yaml` and `child.json` that extend it."""
    (folder / "net.yaml").write_text(NET)
    (folder / "child.yaml").write_text("name: child\nextends: net.yaml\n")
    (folder / "child.json").write_text('{"name": "child", "extends": "net.yaml"}')
    os.symlink("net.yaml", folder / "link.yaml")
    os.link(folder / "child.json", folder / "hard.json")
    os.symlink(".", folder / "here")
    return {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("force", [[], ["--force"]], ids=["", "force"])
@pytest.mark.parametrize(
    "args",
    [
        ["adjust", "net.yaml", "-p", "9000", "-o", "net.yaml"],
        ["adjust", "net.yaml", "-p", "9000", "-o", "./here/./net.yaml"],
        ["adjust", "net.yaml", "-p", "9000", "-o", "here/net.yaml"],
        ["adjust", "link.yaml", "-p", "9000", "-o", "net.yaml"],
        ["adjust", "net.yaml", "-p", "9000", "-o", "link.yaml"],
        ["adjust", "child.yaml", "-p", "9000", "-o", "net.yaml"],
        ["compile", "child.json", "-o", "child.json"],
        ["compile", "child.json", "-o", "hard.json"],
    ],
    ids=" ".join,
)
def test_no_command_writes_over_what_it_reads(hrg, specs, args, force):
    result = hrg(*args, *force)
    assert result.exit_code == 2 and "is read by this command" in result.stderr, result.stderr
    assert {path: path.read_bytes() for path in specs} == specs


@pytest.mark.parametrize(
    ("args", "name", "text"),
    [
        (["adjust", "net.yaml", "-p", "9000"], "mine.yaml", "name: mine\n"),
        (["compile", "net.yaml"], "mine.py", "print('mine')\n"),
        (["compile", "net.yaml"], "mine.json", '{"name": "mine"}'),
        (["render", "net.yaml"], "mine.dot", "mine"),
        (["render", "net.yaml"], "mine.svg", "mine"),
        (["schema"], "package.json", '{"name": "mine"}'),
        (["init"], "mine.yaml", "name: mine\n"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_of_another_kind_is_replaced_with_force_only(hrg, folder, specs, args, name, text):
    (folder / name).write_text(text)
    result = hrg(*args, "-o", name)
    assert result.exit_code == 2
    assert result.stderr == (
        f"hrg {args[0]}: '{name}' exists already. Choose another name with '-o', or replace it with '--force'.\n"
    )
    assert (folder / name).read_text() == text
    assert hrg(*args, "-o", name, "--force").exit_code == 0
    written = (folder / name).read_text()
    assert written != text
    if args[0] != "init":  # which may have been edited since
        assert hrg(*args, "-o", name).exit_code == 0
        assert (folder / name).read_text() == written


@pytest.mark.parametrize(
    ("args", "name"), [(["adjust", "net.yaml", "-p", "9000"], "out.yaml"), (["compile", "net.yaml"], "out.py")]
)
def test_an_edited_spec_or_source_is_replaced_with_force_only(hrg, folder, specs, args, name):
    path = folder / "new" / "folder" / name
    assert hrg(*args, "-o", path).exit_code == 0, "the folder is created"
    written = path.read_text()
    for edited in (written.replace("net", "nett", 1), f"{written}# mine\n", written.replace("\n", "\n\n", 1)):
        path.write_text(edited)
        result = hrg(*args, "-o", path)
        assert result.exit_code == 2 and f"'{path}' was edited since hrg wrote it." in result.stderr
        assert path.read_text() == edited
    assert hrg(*args, "-o", path, "--force").exit_code == 0 and path.read_text() == written
    assert hrg(*args, "-o", path).exit_code == 0 and path.read_text() == written


def test_folders_of_output_files_are_created(hrg, folder, specs):
    assert hrg("render", "net.yaml", "-o", "docs/images/net.svg").exit_code == 0
    assert (folder / "docs" / "images" / "net.svg").exists()
    result = hrg("render", "net.yaml", "-o", "net.yaml/net.svg")
    assert result.exit_code == 1 and "net.yaml is a file" in result.stderr


@pytest.mark.parametrize("command", ["train", "ablate"])
def test_training_does_not_replace_the_spec_that_it_reads(hrg, folder, specs, command):
    (folder / "spec.yaml").write_text(NET)
    (folder / "runs").mkdir()
    os.link(folder / "spec.yaml", folder / "runs" / "spec.yaml")
    what = ["--variants", "none"] if command == "ablate" else []
    for spec, out in (("spec.yaml", "."), ("child2.yaml", "."), ("runs/spec.yaml", ".")):
        (folder / "child2.yaml").write_text("extends: spec.yaml\nname: child\n")
        if command == "ablate" and spec != "runs/spec.yaml":
            continue  # a study writes no file of this name
        result = hrg(command, spec, *what, "--epochs", "1", "-o", out)
        assert result.exit_code == 2 and "is read by this command" in result.stderr, result.stderr
    assert (folder / "spec.yaml").read_text() == NET


def test_training_does_not_replace_files_of_others(hrg, folder, specs):
    (folder / "out").mkdir()
    (folder / "out" / "model.safetensors").write_text("mine")
    for fresh in ([], ["--fresh"]):
        result = hrg("train", "net.yaml", "--epochs", "1", "-o", "out", *fresh)
        assert result.exit_code == 2
        assert "out holds no run, but a file 'model.safetensors', which a run would replace." in result.stderr
    assert (folder / "out" / "model.safetensors").read_text() == "mine"


@pytest.mark.parametrize("name", ["hiresnet18", "hiresnet18@full"])
def test_a_folder_named_like_a_shipped_spec_does_not_hide_it(hrg, folder, name):
    (folder / name).mkdir()
    result = hrg("show", name, "--json")
    assert result.exit_code == 0, result.stderr
    assert hg.load("hiresnet18").name == "hiresnet18"
    (folder / "child.yaml").write_text("name: child\nextends: hiresnet18\n")
    assert hrg("show", "child.yaml").exit_code == 0
    (folder / "digits").mkdir()
    assert hrg("validate", "digits").exit_code == 0
    (folder / "width=8").mkdir()
    assert hrg("diff", "hiresnet18", "width=8").exit_code == 0
    assert "extends: hiresnet18\n" in hrg("adjust", "hiresnet18", "--edges", "none", "-p", "280000").stdout


def test_a_folder_is_not_a_spec(hrg, folder):
    (folder / "mine").mkdir()
    result = hrg("show", "mine")
    assert result.exit_code == 1 and "expected a file, got a folder." in result.stderr
