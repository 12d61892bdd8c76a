"""`hrg compile`."""

import json

import pytest
import torch
from safetensors.torch import save_file

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


def test_compile_takes_the_weights_of_a_run(hrg, folder):
    spec = ["unet", "classes=10", "width=2", "input.channels=1", "input.height=8", "input.width=8"]
    sizes = {"input.channels": 1, "input.height": 8, "input.width": 8}
    network = hg.load("unet").override({"classes": 10, "width": 2, **sizes})
    (folder / "run").mkdir()
    weights = {f"module.{name}": value for name, value in network.build(seed=5).state_dict().items()}
    save_file(weights, folder / "run" / "model.safetensors")
    result = hrg("compile", *spec, "-o", "net.pt2", "--weights", "run")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith("Removed the prefix 'module.' from the names of the weights in run/model.safet")
    found = torch.export.load(folder / "net.pt2").state_dict
    assert all(torch.equal(found[name.removeprefix("module.")], value) for name, value in weights.items())
    result = hrg("compile", *spec, "-o", "net.pt2", "--weights", ".")
    assert result.exit_code == 2 and "there is no file 'model.safetensors' in this folder." in result.stderr


def test_compile_leaves_random_what_does_not_fit(hrg, folder):
    spec = ["hiresnet18", "width=2", "input.channels=1", "input.height=8", "input.width=8"]
    sizes = {"width": 2, "input.channels": 1, "input.height": 8, "input.width": 8}
    state = hg.load("hiresnet18").with_edges("none").override(sizes).build(seed=5).state_dict()
    torch.save(state, folder / "w.pth")
    refused = hrg("compile", *spec, "-o", "net.pt2", "--weights", "w.pth")
    assert refused.exit_code == 2 and "To keep initial values for what does not fit: '--reinit'." in refused.stderr
    result = hrg("compile", *spec, "-o", "net.pt2", "--weights", "w.pth", "--reinit")
    assert result.exit_code == 0 and "w.pth lacks 'edges." in result.stderr
    found = torch.export.load(folder / "net.pt2").state_dict
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_initial_weights_are_said_to_be_initial(hrg, folder):
    small = ["hiresnet18", "width=4", "input.channels=1", "input.height=8", "input.width=8"]
    done = hrg("compile", *small, "-o", "net.pt2", "--seed", "3")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.endswith("Its weights are initial ones, of seed 3. '--weights RUN' takes trained ones.\n")
    network = hg.load("hiresnet18").override({"width": 4, "input.channels": 1, "input.height": 8, "input.width": 8})
    save_file(network.build().state_dict(), "w.safetensors")
    assert "initial" not in hrg("compile", *small, "-o", "own.pt2", "--weights", "w.safetensors").stderr
    assert "initial" not in hrg("compile", *small, "-o", "net.py").stderr


def test_the_folder_of_a_run_is_no_spec(hrg, folder):
    (folder / "run").mkdir()
    assert "hint" not in hrg("compile", "run/", "-o", "net.onnx").stderr
    (folder / "run" / "spec.yaml").write_text("name: x")
    message = hrg("compile", "run/", "-o", "net.onnx").stderr
    assert "expected a file, got a folder." in message
    assert "The spec of the run in it is 'run/spec.yaml', its weights are '--weights run'." in " ".join(message.split())


@pytest.mark.parametrize("command", [["train", "-o", "x"], ["compile", "-o", "x.onnx"], ["diff", "unet"]], ids=" ".join)
def test_a_study_is_no_network(hrg, folder, command):
    (folder / "study.yaml").write_text("name: x\nnetwork: hiresnet18\nvariants: [none, full]\n")
    done = hrg(command[0], "study.yaml", *command[1:])
    assert done.exit_code == 2, done.stderr
    message = " ".join(done.stderr.split())
    assert "'study.yaml' is a study, which has several networks, and one is required here." in message
    assert "'hrg ablate study.yaml -o DIR' trains the study." in message and "problem" not in message
