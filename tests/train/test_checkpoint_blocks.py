"""The recipe field `checkpoint: blocks`: less memory, the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.segments import calls_by_block
from hiresnet_graph.train import Recipe
from hiresnet_graph.train.single_trainer import training_forward
from tests.train.runs import events_of, finish, request, result_of, stop_after
from tests.train.states import states

RESIDUAL = """
name: residual
input: {channels: 1, height: 8, width: 8}
nodes:
  stem: {block: conv, width: 4}
  stage1: {block: basic, width: 4, depth: 2}
  stage2: {block: basic, width: 8, depth: 2, stride: 2}
  drop: {block: dropout, p: 0.3}
  head: {block: classifier, classes: 10}
flow: stem -> stage1 -> stage2 -> drop -> head
skips: {levels: [stem, blocks], edges: full, projection: {spatial: avg, channels: conv1x1, norm: batch}}
"""
TOKENS = """
name: tokens
input: {channels: 1, height: 8, width: 8}
nodes:
  patches: {block: patch_embed, width: 8, patch: 2}
  encoder: {block: encoder, heads: 2, depth: 3, dropout: 0.1, drop_path: 0.2}
  head: {block: token_head, classes: 10}
flow: patches -> encoder -> head
skips: {levels: [patches, blocks], edges: full}
"""
NETWORKS = {"residual": hrg.loads(RESIDUAL), "tokens": hrg.loads(TOKENS), "time": states()}


@pytest.mark.parametrize("name", NETWORKS)
def test_checkpoints_by_block_change_no_bit(tmp_path: Path, name: str) -> None:
    """Neither dropout nor the statistics of batch norms, also of a run that is resumed."""
    arch = NETWORKS[name]
    found = []
    for checkpoint in (None, "blocks"):
        asked = request(arch, epochs=1, batch_size=400, checkpoint=checkpoint)
        if checkpoint:
            events_of(asked, tmp_path / str(checkpoint), stop=stop_after(2))
        finish(asked, tmp_path / str(checkpoint))
        result = result_of(tmp_path / str(checkpoint))
        assert result["recipe"].pop("checkpoint") == checkpoint
        found.append(result)
    assert found[0] == found[1]


def test_a_segment_is_a_block_with_what_comes_before_it() -> None:
    plan = NETWORKS["residual"].plan
    segments = calls_by_block(plan)
    assert [call for calls in segments for call in calls] == list(plan.calls)
    owners = [calls[-1].owner for calls in segments]
    assert owners == ["stem", "stage1.block1", "stage1.block2", "stage2.block1", "stage2.block2", "head"]
    assert [len(calls_by_block(hrg.load(name).plan)) for name in ("vit_tiny", "hiresnet18")] == [14, 10]


def test_the_network_is_called_with_its_own_layers() -> None:
    """So that weights, modes and frozen layers are those of the network."""
    arch = NETWORKS["residual"]
    module = arch.build().train()
    forward = training_forward(module, arch.plan, Recipe(checkpoint="blocks"))
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        before = module.stem.norm.running_mean.clone()
        assert forward(x).shape == (3, 10)
        assert not torch.equal(before, module.stem.norm.running_mean)
    assert training_forward(module, arch.plan, Recipe()) is module
