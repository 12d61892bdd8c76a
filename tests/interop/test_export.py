"""Exported files: what is in them, equal outputs, and the errors when one cannot be written."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import hiresnet_graph as hrg
from hiresnet_graph.errors import MissingToolError, UsageError
from hiresnet_graph.identifiers import class_name
from hiresnet_graph.interop import export

TWO = """
name: two heads
input: {left: {channels: 2, height: 8, width: 8}, right: {channels: 3, height: 8, width: 8}}
nodes:
  a: {block: conv, width: 4}
  b: {block: conv, width: 4, stride: 2}
  both: {block: basic, width: 4}
  one: {block: classifier, classes: 3}
  two: {block: classifier, classes: 2}
flow: [left -> a -> both -> two, right -> b, both -> one]
edges: [{from: b, to: both, merge: concat, projection: {spatial: nearest, channels: none, norm: none}}]
outputs: [one, two]
"""

STATES = """
name: states
input: {channels: 2, height: 8, width: 8}
nodes:
  pre: {block: conv, width: 4}
  s1: {block: state, shape: [4, 8, 8]}
  s2: {block: state, shape: [6, 4, 4]}
  post: {block: classifier, classes: 3}
flow: [pre -> s1, s2 -> post]
transitions: {s1: {s1: {block: brc2, identity: true}, s2: brc2}, s2: {s1: brd2, s2: brc2}}
time: {steps: 4, input: first}
variants:
  copied: {time: {per_step: norm_stats, readout: all}}
  film: {time: {input: sequence, readout: all, per_step: all}}
  zeros: {time: {input: every, empty: zeros, per_step: none}}
"""
FOREIGN = """
name: foreign
input: {channels: 4, height: 9, width: 8}
norms: {eps: 0.001}
nodes:
  stem: {block: conv, width: 8, norm: layer2d, activation: gelu_tanh}
  lrn: local_response_norm
  shuffle: {block: channel_shuffle, groups: 4}
  pad: {block: pad, padding: [0, 1, 0, 1]}
  mirror: {block: pad, padding: 1, mode: reflect}
  pool: {block: avg_pool, kernel_size: 3, stride: 2, padding: 1, count_include_pad: false}
  scale: {block: layer_scale, init: 0.5}
  mish: mish
  hard: hardsigmoid
  elu: elu
  drop: {block: drop_path, p: 0.1}
  bias: {block: constant, learned: true, value: 0.25}
  odd: {block: subsample, start: 1}
  end: {block: pad_channels, width: 11, side: end}
  head: {block: classifier, classes: 3}
flow:
  - stem -> lrn -> shuffle -> pad -> mirror -> pool -> scale -> mish -> hard -> elu -> drop -> odd -> end -> head
  - drop -> bias -> odd
"""
TOKENS = """
name: tokens
input: {channels: 3, height: 16, width: 16}
nodes:
  patches: {block: patch_embed, width: 12, patch: 2}
  class_token: {block: class_token, count: 2}
  learned: {block: position_embedding, grid: [4, 4], antialias: false}
  encoder: {block: encoder, heads: 3, layer_scale: 0.5, drop_path: 0.1}
  alone: drop_prefix
  waves: {block: position_embedding, encoding: sincos}
  windows: {block: swin, heads: 3, window: 3, shift: 1}
  merging: patch_merging
  mixer: mixer
  back: to_map
  conv: {block: convnext, kernel_size: 3}
  again: to_tokens
  head: {block: token_head, classes: 5, pool: mean}
flow:
  - patches -> class_token -> learned -> encoder -> alone -> waves -> windows -> merging -> mixer -> back -> conv
  - conv -> again -> head
skips: {levels: [patches, encoder, windows, conv], edges: p2}
"""
NETWORKS = {
    "tokens": hrg.loads(TOKENS),
    "foreign": hrg.loads(FOREIGN),
    "hiresnet18": hrg.load("hiresnet18").variant("full"),
    "two": hrg.loads(TWO),
    "states": hrg.loads(STATES),
    **{name: hrg.loads(STATES).variant(name) for name in ("copied", "film", "zeros")},
}


def outputs(module: torch.nn.Module, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        out = module(*inputs)
    return out if isinstance(out, dict) else {"": out}


def batches(network: hrg.Architecture, size: int) -> list[torch.Tensor]:
    torch.manual_seed(size)
    return [torch.randn(size, *shape) for shape in network.plan.inputs.values()]


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("size", [1, 5])
def test_an_exported_program_gives_equal_bits_at_any_batch_size(
    network: hrg.Architecture, size: int, tmp_path: Path
) -> None:
    module = network.build(seed=3).eval()
    program = torch.export.load(network.export(tmp_path / "model.pt2", seed=3)).module()
    inputs = batches(network, size)
    expected, got = outputs(module, *inputs), outputs(program, *inputs)
    assert list(got) == list(expected)
    assert all(torch.equal(got[key], expected[key]) for key in expected)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_onnx_gives_equal_outputs(network: hrg.Architecture, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = network.export(tmp_path / "model.onnx", seed=3)
    assert b"site-packages" not in path.read_bytes()
    session = runtime.InferenceSession(path)
    module = network.build(seed=3).eval()
    assert [entry.name for entry in session.get_inputs()] == list(network.plan.inputs)
    assert [entry.name for entry in session.get_outputs()] == list(network.plan.outputs)
    for size in (1, 5):
        inputs = batches(network, size)
        names = zip(network.plan.inputs, inputs, strict=True)
        got = session.run(None, {name: value.numpy() for name, value in names})
        for one, expected in zip(got, outputs(module, *inputs).values(), strict=True):
            np.testing.assert_allclose(one, expected.numpy(), atol=1e-5, rtol=0)


def test_onnx_without_its_packages_says_what_to_install(
    tiny: hrg.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingToolError, match=r"pip install onnx onnxscript\."):
        tiny.export(tmp_path / "model.onnx")


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_source_stands_alone(network: hrg.Architecture, tmp_path: Path) -> None:
    path = network.export(tmp_path / "model.py")
    spec = importlib.util.spec_from_file_location("model", path)
    assert spec is not None and spec.loader is not None
    model = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(model)
    module = getattr(model, class_name(network.name))()
    built = network.build(seed=3)
    module.load_state_dict(built.state_dict())
    inputs = batches(network, 2)
    for key, expected in outputs(built.eval(), *inputs).items():
        assert torch.equal(outputs(module.eval(), *inputs)[key], expected)
    assert "hiresnet_graph" not in path.read_text()


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_json_is_the_plan(network: hrg.Architecture, tmp_path: Path) -> None:
    assert json.loads(network.export(tmp_path / "plan.json").read_text()) == network.plan.to_json()
    assert json.loads(export(network.plan, tmp_path / "plan.JSON").read_text()) == network.plan.to_json()


def test_the_json_of_a_network_in_time_has_its_steps_and_copies(tmp_path: Path) -> None:
    data = json.loads(NETWORKS["film"].export(tmp_path / "plan.json").read_text())
    assert data["inputs"] == {"input": [4, 2, 8, 8]} and data["input_kinds"] == {"input": "clip"}
    calls = {call["name"]: call for call in data["calls"]}
    assert calls["input.step2"]["op"] == "frame" and calls["input.step2"]["fields"] == {"step": 2}
    assert calls["edges.s1__s2.conv1.step3"]["weights"] == "edges.s1__s2.conv1.step3"
    assert calls["post.steps"]["op"] == "stack" and calls["post.steps"]["shape"] == [3, 3]
    assert data["outputs"] == {"post": "post.steps"}


def test_weights_come_from_a_file(tiny: hrg.Architecture, tmp_path: Path) -> None:
    trained = tiny.build(seed=7)
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    path = tiny.export(tmp_path / "model.pt2", weights=tmp_path / "model.safetensors")
    program = torch.export.load(path).module()
    x = batches(tiny, 2)
    assert torch.equal(outputs(program, *x)[""], outputs(trained.eval(), *x)[""])


def test_weights_of_another_network_are_refused(tiny: hrg.Architecture, tmp_path: Path) -> None:
    wide = tiny.override({"width": 5}).build()
    save_file(wide.state_dict(), tmp_path / "wide.safetensors")
    with pytest.raises(UsageError, match=r"another network: 'stem.conv.weight' is \[5, 1, 3, 3\], not \[4, 1, 3, 3\]"):
        tiny.export(tmp_path / "model.pt2", weights=tmp_path / "wide.safetensors")
    plain = tiny.variant("original").build()
    save_file(plain.state_dict(), tmp_path / "plain.safetensors")
    with pytest.raises(UsageError, match=r"edges that the weights lack: 'edges\..* and \d+ more"):
        tiny.export(tmp_path / "model.pt2", weights=tmp_path / "plain.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(UsageError, match="not a safetensors file"):
        tiny.export(tmp_path / "model.pt2", weights=tmp_path / "text.safetensors")
    with pytest.raises(UsageError, match="cannot be read"):
        tiny.export(tmp_path / "model.pt2", weights=tmp_path / "none.safetensors")
    assert not (tmp_path / "model.pt2").exists()


@pytest.mark.parametrize("suffix", [".py", ".json"])
def test_files_without_weights_take_none(tiny: hrg.Architecture, tmp_path: Path, suffix: str) -> None:
    with pytest.raises(UsageError, match="holds no weights"):
        tiny.export(tmp_path / f"model{suffix}", weights=tmp_path / "model.safetensors")


def test_an_unknown_suffix_lists_the_known(tiny: hrg.Architecture, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"one of \.py, \.pt2, \.onnx, \.json\. Did you mean '\.onnx'"):
        tiny.export(tmp_path / "model.onx")
    with pytest.raises(UsageError, match="has no suffix"):
        tiny.export(tmp_path / "model")


def test_a_path_that_cannot_be_written_is_refused(tiny: hrg.Architecture, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        tiny.export(tmp_path / "none" / "model.py")
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        tiny.export(tmp_path / "folder.py")


def test_a_failed_write_leaves_the_old_file(
    tiny: hrg.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.py"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UsageError, match=r"cannot be written: No space left on device\."):
        tiny.export(path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.py"]


def test_a_folder_without_permission_is_refused(
    tiny: hrg.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="no permission"):
        tiny.export(tmp_path / "model.py")
