"""`hrg compile`."""

import json

import pytest

import hiresnet_graph as hg

pytestmark = pytest.mark.usefixtures("folder")


def test_compile_writes_source_that_requires_torch_alone(hrg, folder):
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


def test_errors_of_the_spec_are_reported_before_a_file_is_written(hrg, folder):
    for command in ("compile", "render"):
        result = hrg(command, "unet", "width=0", "-o", "x.dot" if command == "render" else "x.py")
        assert result.exit_code == 1 and "nodes.enc1.width" in result.stderr
    assert list(folder.iterdir()) == []
