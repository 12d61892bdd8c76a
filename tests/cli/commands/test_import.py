"""`hrg import`."""

import networkx as nx
import pytest
import torch

import hiresnet_graph as hg

pytestmark = pytest.mark.usefixtures("folder")

NETS = """
import torch
from torch import nn


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


class Odd(nn.Module):
    def forward(self, x):
        return torch.fft.fft2(x).real


def broken():
    raise ValueError("no such option")


def wide(width):
    return nn.Linear(3, width)


Linear = nn.Linear
number = 3
"""


@pytest.fixture
def nets(folder):
    (folder / "some_nets.py").write_text(NETS)
    return folder


def test_a_network_and_its_weights(hrg, nets):
    result = hrg("import", "python:some_nets:small", "--input", "3x8x8", "-o", "net.yaml", "--weights", "w.safetensors")
    assert result.exit_code == 0 and result.stdout == ""
    assert "largest difference 0.0e+00 in evaluation mode" in result.stderr
    assert "Wrote net.yaml: small, 7 lines, 122 parameters." in result.stderr
    assert (nets / "net.yaml").read_text().startswith("# Imported from python:some_nets:small.\n")
    assert hrg("compile", "net.yaml", "-o", "net.pt2", "--weights", "w.safetensors").exit_code == 0
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    names = {}
    exec(NETS, names)
    assert torch.equal(torch.export.load("net.pt2").module()(images), names["small"]()(images))
    assert hrg("import", "python:some_nets:small", "--input=3x8x9", "-o", "net.yaml").exit_code == 0, "its own file"
    assert hg.load("net.yaml").plan.inputs["input"].spatial == (8, 9)
    (nets / "net.yaml").write_text((nets / "net.yaml").read_text().replace("small", "mine"))
    again = hrg("import", "python:some_nets:small", "--input=3x8x9", "-o", "net.yaml")
    assert again.exit_code == 2 and "'net.yaml' was edited since hrg wrote it." in again.stderr


def test_nothing_is_written_if_something_cannot_be_expressed(hrg, nets):
    result = hrg("import", "python:some_nets:Odd", "--input", "3x8x8", "-o", "net.yaml", "--weights", "w.safetensors")
    assert result.exit_code == 1
    assert "there is no operation for 'fft_fft2'" in result.stderr and "some_nets.py:13" in result.stderr
    assert sorted(path.name for path in nets.iterdir() if path.is_file()) == ["some_nets.py"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["resnet18"], "or a file .onnx, .pt2 or .graphml."),
        (["torchvision:resnet1"], "torchvision has no classification model 'resnet1'. Did you mean 'resnet18'?"),
        (["torchvision:resnet18@NONE"], "torchvision has no weights 'NONE' of resnet18"),
        (["timm:resnet1"], "timm has no model 'resnet1'"),
        (["timm:resnet18@best"], "timm models take 'pretrained' alone"),
        (["python:some_nets"], "must be python:MODULE:FUNCTION"),
        (["python:no_such_module:f"], "there is no module 'no_such_module' in the folder '"),
        (["python:some_nets.py:small"], "names a file, not a module. Write 'python:some_nets:small'"),
        (["python:some_nets:wide"], "must take no arguments, but requires 'width'. Write a function without arguments"),
        (["python:some_nets:Sequential"], "has no 'Sequential'. Known: Odd, broken, small, wide."),
        (["nets/some_nets.py"], "Name the function in it: 'python:nets.some_nets:FUNCTION'"),
        (["whole.pt"], "not the graph of a network. Write a function without arguments that builds the module"),
        (["python:some_nets:smal"], "'some_nets' has no 'smal'. Did you mean 'small'?"),
        (["python:some_nets:number"], "is a int, not a module or a function"),
        (["python:some_nets:broken", "--input", "3"], "cannot be loaded: ValueError: no such option ("),
        (["python:some_nets:small"], "does not give the shape of its input. Set '--input'"),
        (["python:some_nets:small", "--input", "3,8,8"], "is no shape. Write it like 3x224x224"),
        (["python:some_nets:small", "--input", "3x8x8", "--input", "3"], "several inputs require different names"),
        (["python:some_nets:small", "--input", "5x8x8"], "does not accept an input of 5x8x8"),
        (
            ["python:some_nets:small", "--weights", "w.pt"],
            "a command that takes the spec: 'hrg train net.yaml --weights w",
        ),
        (["python:some_nets:small", "-o", "some_nets.py"], "exists already. Choose another name with '-o'"),
        (["python:some_nets:small", "--weights", "own.safetensors"], "Choose another name with '--weights'"),
    ],
)
def test_wrong_usage(hrg, nets, args, message):
    (nets / "own.safetensors").write_text("of another program")
    result = hrg("import", *args, *([] if "-o" in args else ["-o", "net.yaml"]))
    assert result.exit_code == 2, result.stderr
    assert message in " ".join(result.stderr.split())
    assert not (nets / "net.yaml").exists()


@pytest.fixture
def areas(folder):
    graph = nx.DiGraph([("V1", "V2"), ("V2", "V4 (ventral)"), ("V4 (ventral)", "V1"), ("V1", "V4 (ventral)")])
    graph.nodes["V1"]["colour"] = "red"
    graph.nodes["V2"].update(block="basic", width=8)
    nx.write_graphml(graph, folder / "areas.graphml")
    return folder


def test_a_graph(hrg, areas):
    given = ("--input", "3x8x8", "--block", "conv width=16", "--head", "classifier classes=10")
    result = hrg("import", "areas.graphml", "-o", "net.yaml", *given, "--steps", "3")
    assert result.exit_code == 0, result.output
    assert "Wrote net.yaml: areas, 4 nodes, 7 edges, 4,182 parameters." in result.stderr
    network = hg.load("net.yaml")
    assert [(edge.source, edge.target) for edge in network.plan.edges if edge.delay] == [("V4_ventral", "V1")]
    assert network.build()(torch.rand(2, 3, 8, 8)).shape == (2, 10)
    result = hrg("import", "areas.graphml", "-o", "net.yaml", *given)
    assert result.exit_code == 2 and "the graph has a cycle" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("areas.graphml", "Set '--input'"),
        ("areas.graphml --weights w.safetensors", "a graph without weights"),
        ("damaged.graphml --input 3x8x8", "is no GraphML file, or is damaged"),
        ("none.graphml --input 3x8x8", "cannot be read"),
        ("areas.graphml --input 3x8x8 --block conv,16 --steps 3", "conv,16"),
        ("areas.graphml --input 3x8x8 --block conv=16", "Write it like 'conv width=16'"),
        ("python:some_nets:small --input 3x8x8 --steps 3", "'--steps' is for GraphML files"),
    ],
)
def test_graphs_that_cannot_be_imported(hrg, areas, arguments, message):
    (areas / "damaged.graphml").write_text("<graphml><node")
    result = hrg("import", *arguments.split(), "-o", "net.yaml")
    assert result.exit_code != 0 and message in result.output
    assert not (areas / "net.yaml").exists()
