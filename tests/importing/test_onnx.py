"""ONNX files that this package exports, imported again."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper

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
WITHOUT_ATTENTION = {"swin_tiny"}
"""Their attention is in windows, which the exporter writes with constants in place of the table of offsets."""


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
    if name in WITHOUT_ATTENTION:
        with pytest.raises(UnsupportedNetwork, match="Softmax"):
            imported_again(small(name), tmp_path / "net.onnx")
    else:
        imported_again(small(name), tmp_path / "net.onnx")


def test_an_operation_that_fails_is_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["y"], name="product")]
    path = onnx_file(tmp_path / "net.onnx", nodes, weight=np.ones((3, 4, 4), np.float32))
    with pytest.raises(UnsupportedNetwork, match=r"'MatMul' cannot be computed \(node 'product'\)"):
        read_source(str(path))
