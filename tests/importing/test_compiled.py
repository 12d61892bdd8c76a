"""Exported programs and ONNX files as specs, and files that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import hiresnet_graph as hrg
from hiresnet_graph.errors import UnsupportedNetwork, UsageError
from hiresnet_graph.importing import from_module
from hiresnet_graph.importing.onnx_graph import largest_difference, read_onnx
from hiresnet_graph.importing.sources import read_source
from tests.importing import networks
from tests.importing.test_import import computed, trained


def exported(module: torch.nn.Module, path: Path, *shape: int) -> Path:
    batch = torch.export.Dim("batch")
    program = torch.export.export(module.eval(), (torch.rand(2, *shape),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return path


def onnx_file(path: Path, nodes: list[onnx.NodeProto], *, batch: str | int = "batch", **arrays: np.ndarray) -> Path:
    """A file with one input `x` [batch, 3, 8, 8] and one output `y`."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, "features"])],
        [numpy_helper.from_array(array, name.replace("__", ".")) for name, array in arrays.items()],
    )
    path.write_bytes(
        helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()
    )
    return path


def test_an_exported_program_is_the_spec_of_its_module(tmp_path: Path) -> None:
    module = trained(networks.HandWritten())
    found = read_source(str(exported(module, tmp_path / "net.pt2", 3, 8, 8)))
    assert list(found.shapes.values()) == [(3, 8, 8)]
    imported = from_module(found.module, input=found.shapes, name="HandWritten")
    direct = from_module(module, input=(3, 8, 8))
    assert computed(imported.network.plan) == computed(direct.network.plan)
    assert "blocks_0: {block: residual, width: 4, depth: 2}" in imported.text
    assert imported.comparison.training is None
    images = torch.rand(3, 3, 8, 8)
    assert torch.equal(imported.build()(images), module.eval()(images))


def test_what_an_exported_program_cannot_express_has_the_place_in_the_code_of_its_author(tmp_path: Path) -> None:
    found = read_source(str(exported(networks.Unsupported(), tmp_path / "net.pt2", 3, 8, 8)))
    with pytest.raises(UnsupportedNetwork, match=r"(?s)'cumsum'.*networks\.py:\d+"):
        from_module(found.module, input=(3, 8, 8))


@pytest.mark.parametrize("spec", ["resnet20", "densenet40"])
def test_a_network_that_was_built_is_found_again(spec: str) -> None:
    shipped = hrg.load(spec).override({"params.n" if spec == "resnet20" else "dense1.depth": 2})
    imported = from_module(shipped.build().eval(), input=(3, 32, 32), name=spec)
    assert computed(imported.network.plan) == computed(shipped.plan)
    assert set(imported.weights) == set(shipped.plan.tensors())
    assert len(imported.text.splitlines()) < 40


def test_an_onnx_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def values(*shape: int) -> np.ndarray:
        return rng.random(shape, dtype=np.float32) + 0.1

    nodes = [
        helper.make_node("Conv", ["x", "stem.conv.weight"], ["a"], kernel_shape=[3, 3], pads=[0, 0, 1, 1]),
        helper.make_node(
            "BatchNormalization", ["a", *(f"stem.norm.{n}" for n in ("weight", "bias", "mean", "var"))], ["b"]
        ),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("AveragePool", ["c"], ["d"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["d", "block.conv.weight", "block.conv.bias"], ["e"], group=4, kernel_shape=[1, 1]),
        helper.make_node("Sigmoid", ["e"], ["f"]),
        helper.make_node("Mul", ["f", "d"], ["g"]),
        helper.make_node("Add", ["g", "d"], ["h"]),
        helper.make_node("ReduceMean", ["h", "axes"], ["i"], keepdims=0),
        helper.make_node("Gemm", ["i", "head.weight", "head.bias"], ["y"], transB=1),
    ]
    path = onnx_file(
        tmp_path / "net.onnx",
        nodes,
        axes=np.array([2, 3]),
        stem__conv__weight=values(4, 3, 3, 3),
        stem__norm__weight=values(4),
        stem__norm__bias=values(4),
        stem__norm__mean=values(4),
        stem__norm__var=values(4),
        block__conv__weight=values(4, 1, 1, 1),
        block__conv__bias=values(4),
        head__weight=values(5, 4),
        head__bias=values(5),
    )
    module = read_onnx(path)
    images = torch.rand(2, 3, 8, 8)
    assert largest_difference(path, module, [images]) < 1e-5
    found = read_source(str(path))
    imported = from_module(found.module, input=found.shapes, name="net")
    assert "{block: pad, padding: [0, 1, 0, 1]}" in imported.text
    assert "{block: pool, pool: avg, kernel_size: 3, stride: 2, padding: 1, count_include_pad: false}" in imported.text
    assert imported.names["head.linear.weight"] == "head.weight"
    assert torch.allclose(imported.build()(images), module(images), atol=1e-6)


def test_equal_tensors_of_batch_norms_that_an_onnx_file_stores_once(tmp_path: Path) -> None:
    norms = [
        helper.make_node("BatchNormalization", ["x", "one.weight", "one.bias", "one.bias", "one.weight"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "one.weight", "one.bias", "one.bias", "one.weight"], ["y"]),
    ]
    ones, zeros = np.ones(3, np.float32), np.zeros(3, np.float32)
    path = onnx_file(tmp_path / "net.onnx", norms, one__weight=ones, one__bias=zeros)
    found = read_source(str(path))
    imported = from_module(found.module, input=found.shapes, name="net")
    assert imported.network.cost().parameters == 12
    images = torch.rand(2, 3, 8, 8)
    assert torch.allclose(imported.build()(images), images, atol=1e-4)


def test_all_unknown_operations_of_an_onnx_file_are_listed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Erf", ["x"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("CumSum", ["b", "axis"], ["y"], name="second"),
    ]
    path = onnx_file(tmp_path / "net.onnx", nodes, axis=np.array(1))
    with pytest.raises(UnsupportedNetwork) as caught:
        read_onnx(path)
    assert caught.value.faults == ("Erf (node 'first')", "CumSum (node 'second')")


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("damage", ["missing", "empty", "text", "truncated"])
def test_damaged_files(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"net{suffix}"
    if damage == "truncated":
        if suffix == ".pt2":
            exported(torch.nn.Conv2d(3, 4, 3), path, 3, 8, 8)
        else:
            onnx_file(path, [helper.make_node("Relu", ["x"], ["y"])])
        path.write_bytes(path.read_bytes()[:-20])
    elif damage != "missing":
        path.write_text("" if damage == "empty" else "no network\n" * 100)
    with pytest.raises(UsageError, match="cannot be read" if damage == "missing" else "is damaged"):
        read_source(str(path))


def test_a_damaged_program_is_one_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(b"\x80\x04}\x94.")  # a pickle
    with pytest.raises(UsageError, match="is no exported program"):
        read_source(str(path))
    assert not caplog.records


def test_long_names_are_shortened(tmp_path: Path) -> None:
    name = "x" * 10_000_000
    path = onnx_file(tmp_path / "net.onnx", [helper.make_node("Erf", ["x"], ["y"], name=name)])
    with pytest.raises(UnsupportedNetwork) as caught:
        read_onnx(path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_program_of_one_size_of_the_batch(tmp_path: Path, batch: int) -> None:
    module = trained(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2))).eval()
    path, images = tmp_path / "net.pt2", torch.rand(3, 3, 8, 8)
    torch.export.save(torch.export.export(module, (torch.rand(batch, 3, 8, 8),)), path)
    found = read_source(str(path))
    assert torch.allclose(from_module(found.module, input=found.shapes).build()(images), module(images), atol=1e-6)
    nodes, sizes = [helper.make_node("Reshape", ["x", "sizes"], ["y"])], np.array([batch, 192], np.int64)
    found = read_source(str(onnx_file(tmp_path / "net.onnx", nodes, batch=batch, sizes=sizes)))
    assert from_module(found.module, input=found.shapes).build()(images).shape == (3, 192)


def test_inputs_of_a_program_belong_together_by_name(tmp_path: Path) -> None:
    class Difference(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return torch.relu(a) - b

    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(Difference(), (torch.rand(2, 6), torch.rand(2, 6))), path)
    found = read_source(str(path))
    assert found.shapes == {"a": (6,), "b": (6,)}
    a, b = torch.rand(2, 3, 6)
    for shapes in (found.shapes, {"b": (6,), "a": (6,)}):
        assert torch.equal(from_module(found.module, input=shapes).build()(a, b), torch.relu(a) - b)
    with pytest.raises(UsageError, match=r"has no input 'c'\. Its inputs are 'a', 'b'"):
        from_module(found.module, input={"a": (6,), "c": (6,)})


def test_operations_of_onnx_with_two_factors_and_constants(tmp_path: Path) -> None:
    scales = numpy_helper.from_array(np.array([1, 1, 2, 3], np.float32))
    nodes = [
        helper.make_node("Constant", [], ["scales"], value=scales),
        helper.make_node("Resize", ["x", "", "scales"], ["a"], mode="linear"),
        helper.make_node("Split", ["a"], ["b", "c"], axis=1, num_outputs=2),
        helper.make_node("Neg", ["c"], ["d"]),
        helper.make_node("Concat", ["d", "b"], ["e"], axis=1),
        helper.make_node("GlobalMaxPool", ["e"], ["f"]),
        helper.make_node("Flatten", ["f"], ["y"]),
    ]
    path = onnx_file(tmp_path / "net.onnx", nodes)
    module, images = read_onnx(path), torch.rand(2, 3, 8, 8)
    difference = largest_difference(path, module, [images])
    assert difference is not None and difference < 1e-5
    assert torch.allclose(from_module(module, input=(3, 8, 8)).build()(images), module(images), atol=1e-6)


KERNEL = {"kernel_shape": [2, 2]}


@pytest.mark.parametrize(
    ("kind", "inputs", "fields", "message"),
    [
        ("Resize", ["x", "", "s"], {"coordinate_transformation_mode": "align_corners"}, "align_corners"),
        ("Resize", ["x", "", "s"], {"nearest_mode": "ceil"}, "'half_pixel', ceil"),
        ("ConvTranspose", ["x", "w"], {**KERNEL, "dilations": [2, 2]}, "'conv_transpose2d' with a dilation"),
        ("AveragePool", ["x"], {**KERNEL, "pads": [0, 0, 1, 1]}, "different padding of both ends"),
        ("AveragePool", ["x"], {**KERNEL, "dilations": [2, 2]}, "'AveragePool' with a dilation"),
        ("Flatten", ["x"], {"axis": 2}, "which changes the batch axis"),
    ],
)
def test_fields_of_onnx_operations_are_not_dropped(
    tmp_path: Path, kind: str, inputs: list[str], fields: dict[str, Any], message: str
) -> None:
    arrays = {"s": np.array([1, 1, 2, 2], np.float32), "w": np.ones((3, 4, 2, 2), np.float32)}
    used = {name: array for name, array in arrays.items() if name in inputs}
    path = onnx_file(tmp_path / "net.onnx", [helper.make_node(kind, inputs, ["y"], **fields)], **used)
    with pytest.raises(UnsupportedNetwork, match=message):
        from_module(read_onnx(path), input=(3, 8, 8))


class OneOutput(torch.nn.Module):
    """Layers and norms with one output, learned factors, and plain numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 4, 3, padding=1)
        self.narrow, self.again, self.head = torch.nn.Conv2d(4, 1, 3), torch.nn.Conv2d(1, 1, 1), torch.nn.Linear(36, 1)
        self.alpha = torch.nn.Parameter(torch.tensor(0.3))
        self.beta = torch.nn.Parameter(torch.full((1,), 0.7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = x + self.alpha * self.conv(x).relu()
        y: torch.Tensor = self.head(self.again(self.narrow(x * self.beta) * 0.5).flatten(1))
        return y


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("settings", [{"dynamo": False}, {"external_data": False}, {}])
def test_weights_of_one_element_in_an_onnx_file(tmp_path: Path, settings: dict[str, bool]) -> None:
    torch.manual_seed(0)
    module = OneOutput().eval()
    path = tmp_path / "net.onnx"
    torch.onnx.export(module, (torch.rand(2, 3, 8, 8),), path, **{"dynamo": True, "verbose": False, **settings})
    found = read_source(str(path))
    imported = from_module(found.module, input=found.shapes)
    assert imported.network.cost().parameters == sum(value.numel() for value in module.parameters())
    assert {"alpha", "beta", "narrow.bias", "head.weight"} <= set(imported.names.values())
    assert "{block: scale, init: 0.3}" in imported.text and "{block: fixed_scale, factor: 0.5}" in imported.text
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(imported.build()(images), module(images))


@pytest.mark.parametrize(
    "module", [torch.nn.Linear(4, 1), torch.nn.Sequential(torch.nn.Conv2d(4, 1, 1), torch.nn.Conv2d(1, 1, 1))]
)
def test_layers_with_one_output_in_an_onnx_file(tmp_path: Path, module: torch.nn.Module) -> None:
    path = tmp_path / "net.onnx"
    shape = (4,) if isinstance(module, torch.nn.Linear) else (4, 5, 5)
    torch.onnx.export(module.eval(), (torch.rand(2, *shape),), path, dynamo=True, verbose=False)
    imported = from_module(read_source(str(path)).module, input=shape)
    assert imported.network.cost().parameters == sum(value.numel() for value in module.parameters())


def test_a_division_by_a_weight_of_an_onnx_file(tmp_path: Path) -> None:
    node = helper.make_node("Div", ["x", "temperature"], ["y"])
    path = onnx_file(tmp_path / "net.onnx", [node], temperature=np.float32(2).reshape(()))
    with pytest.raises(UnsupportedNetwork, match="a division by a tensor"):
        from_module(read_source(str(path)).module, input=(3, 8, 8))
