"""ONNX files that this package exports, imported again."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

import hiresnet_graph as hrg
from hiresnet_graph.errors import UnsupportedNetwork
from hiresnet_graph.importing import Imported, from_module
from hiresnet_graph.importing.sources import read_source
from hiresnet_graph.shipped import spec_names
from tests.importing.round_trips import small
from tests.importing.test_compiled import onnx_file

TOKENS = """\
name: net
input: {channels: 3, height: 8, width: 8}
norms: {eps: 1e-06}
nodes:
  stem: {block: conv, width: 8, norm: group}
  constant: {block: constant, sizes: [8, 8, 8], value: 0.5}
  patches: {block: patch_embed, width: 12, patch: 4, norm: layer}
  class_token: class_token
  positions: {block: position_embedding, grid: [2, 2]}
  encoder: {block: encoder, heads: 2, layer_scale: 1e-06, depth: 2}
  head: {block: token_head, classes: 3}
flow: [input -> stem -> patches -> class_token -> positions -> encoder -> head, input -> constant -> patches]
"""
GATE = """\
name: net
input: {channels: 3, height: 8, width: 8}
nodes:
  stem: {block: conv, width: 8, norm: none}
  pool: {block: pool, pool: adaptive, size: 1}
  flatten: flatten
  sigmoid: sigmoid
  to_map: to_map
  multiply: {block: identity, merge: multiply}
flow: [stem -> pool -> flatten -> sigmoid -> to_map -> multiply, stem -> multiply]
"""
WINDOWS = """\
name: net
input: {channels: 3, height: 28, width: 24}
nodes:
  patches: {block: patch_embed, width: 8, patch: 2, norm: layer}
  block1: {block: swin, heads: 2, window: [2, 3]}
  block2: {block: swin, heads: 1, shift: 3}
  merge: patch_merging
  head: {block: token_head, classes: 3, pool: mean}
flow: patches -> block1 -> block2 -> merge -> head
"""
"""Grids are padded for windows of 7x7 and for pairs of rows; the mask is large enough to be computed in the file."""


def imported_again(network: hrg.Architecture, path: Path) -> Imported:
    """The import of the ONNX file of a network, after a comparison of outputs in float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network.export(path)
    found = read_source(str(path))
    imported = from_module(found.module, input=found.shapes, name=network.name)
    images = torch.rand(2, *next(iter(found.shapes.values())), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, result = network.build().eval()(images), imported.build()(images)
    if not isinstance(expected, dict):
        expected, result = {"output": expected}, {"output": result}
    for one, other in zip(expected.values(), result.values(), strict=True):
        assert torch.allclose(one, other, atol=1e-5 * max(1.0, float(one.abs().max())))
    return imported


def test_layers_that_onnx_writes_as_several_nodes_are_found_again(tmp_path: Path) -> None:
    network = hrg.loads(TOKENS)
    imported = imported_again(network, tmp_path / "net.onnx")
    assert imported.text == TOKENS
    assert imported.network.plan.digest() == network.plan.digest()
    assert imported.names == {name: name for name in imported.weights}


def test_attention_in_windows_is_found_again(tmp_path: Path) -> None:
    network = hrg.loads(WINDOWS)
    imported = imported_again(network, tmp_path / "net.onnx")
    assert imported.text == WINDOWS
    assert imported.network.plan.digest() == network.plan.digest()
    assert imported.names == {name: name for name in imported.weights}
    weights = network.build().state_dict()
    assert torch.equal(imported.weights["block2.attention.product.weight"], weights["block2.attention.product.weight"])


def test_attention_in_windows_of_one_batch_size(tmp_path: Path) -> None:
    module = hrg.loads(WINDOWS).build().eval()
    path = tmp_path / "net.onnx"
    torch.onnx.export(module, (torch.rand(1, 3, 28, 24),), path, dynamo=True, verbose=False, external_data=False)
    imported = from_module(read_source(str(path)).module, input=(3, 28, 24), name="net")
    assert imported.text == WINDOWS
    images = torch.rand(3, 3, 28, 24)
    assert torch.allclose(imported.build()(images), module(images), atol=1e-6)


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    path = tmp_path_factory.mktemp("windows") / "net.onnx"
    hrg.loads(WINDOWS).export(path)
    return onnx.load(path)


def softmaxes_named(model: onnx.ModelProto, path: Path) -> list[str]:
    """The softmaxes that the error of an import names."""
    onnx.save(model, path)
    with pytest.raises(UnsupportedNetwork) as caught:
        read_source(str(path))
    return [fault for fault in caught.value.faults if fault.startswith("Softmax (node '")]


def _is_scale(array: np.ndarray) -> bool:
    return array.dtype == np.float32 and array.size == 1 and 0 < array.item() < 1


def _with_last(array: np.ndarray, value: Any) -> np.ndarray:
    array.flat[-1] = value
    return array


@pytest.mark.parametrize(
    ("is_changed", "change", "softmaxes"),
    [
        (lambda one: one.shape == (1, 49, 49), lambda one: _with_last(one, 1.0), 1),  # one bias of a pair
        (lambda one: one.dtype == bool, lambda one: _with_last(one, not one.flat[-1]), 1),  # one pair of the mask
        (lambda one: one.size == 1 and one == -100, lambda one: -50, 1),  # the mask is weaker
        (lambda one: one.size == 1 and one == 11, lambda one: 10, 1),  # shifted back by another number of rows
        (_is_scale, lambda one: 1.001 * one, 2),
        (lambda one: one.shape == (8,) and one[1] == 2 and one[5] == 3, lambda one: one[[0, 1, 2, 4, 3, 5, 6, 7]], 1),
    ],
)
def test_what_is_no_attention_in_windows_is_named(
    windows: onnx.ModelProto, tmp_path: Path, is_changed: Any, change: Any, softmaxes: int
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(windows)
    arrays = [(tensor, numpy_helper.to_array(tensor).copy()) for tensor in model.graph.initializer]
    changed = [(tensor, array) for tensor, array in arrays if is_changed(array)]
    assert len(changed) in (1, softmaxes)
    for tensor, array in changed:
        new = np.asarray(change(array), array.dtype).reshape(array.shape)
        tensor.CopyFrom(numpy_helper.from_array(new, tensor.name))
    assert len(softmaxes_named(model, tmp_path / "net.onnx")) == softmaxes


def test_a_softmax_over_queries_is_no_attention(windows: onnx.ModelProto, tmp_path: Path) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(windows)
    for node in model.graph.node:
        if node.op_type == "Softmax":
            node.attribute[0].i = 2
    assert len(softmaxes_named(model, tmp_path / "net.onnx")) == 2


def test_gates_of_channels_are_found_again(tmp_path: Path) -> None:
    network = hrg.loads(GATE)
    assert imported_again(network, tmp_path / "net.onnx").text == GATE


def test_a_vector_becomes_a_map_by_one_axis_at_a_time() -> None:
    class Gate(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.sigmoid(x.mean((2, 3))).unsqueeze(-1).unsqueeze(-1)

    imported = from_module(Gate(), input=(3, 4, 5))
    images = torch.rand(2, 3, 4, 5)
    assert torch.equal(imported.build()(images), Gate()(images))
    assert "to_map" in imported.text


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(spec_names()))
def test_every_shipped_spec(name: str, tmp_path: Path) -> None:
    imported_again(small(name), tmp_path / "net.onnx")


def test_an_operation_that_fails_is_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["y"], name="product")]
    path = onnx_file(tmp_path / "net.onnx", nodes, weight=np.ones((3, 4, 4), np.float32))
    with pytest.raises(UnsupportedNetwork, match=r"'MatMul' cannot be computed \(node 'product'\)"):
        read_source(str(path))
