"""Networks in two processes (gloo): sharded by block with FSDP2, and replicated with DistributedDataParallel.

The sharded networks also recompute each block in the backward pass, by activation checkpointing.
"""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    _CHECKPOINT_PREFIX,
    apply_activation_checkpointing,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import hiresnet_graph as hrg

NETWORKS: dict[str, dict[str, Any]] = {
    "hiresnet18": {"width": 8, "input.height": 16, "input.width": 16},
    "cornet_s": {"input.height": 32, "input.width": 32, "classes": 10},
    "frnn3": {"size": 8, "width": 4},
}


def compare(name: str, rank: int) -> None:
    arch = hrg.load(name).override(NETWORKS[name])
    images = torch.randn(4, *arch.plan.inputs["input"], generator=torch.Generator().manual_seed(rank))
    labels = torch.arange(4)
    replicated = DistributedDataParallel(arch.build().eval())
    cross_entropy(replicated(images), labels).backward()  # type: ignore[no-untyped-call]
    gradients = {name: value.grad for name, value in replicated.module.named_parameters()}
    mesh = init_device_mesh("cpu", (2,))
    blocks = [record.name for record in arch.plan.nodes if record.block != "input"]
    for is_checkpointed in (False, True):
        sharded = arch.build().eval()
        if is_checkpointed:
            parts = {sharded.get_submodule(path) for path in blocks}
            apply_activation_checkpointing(sharded, check_fn=parts.__contains__)
        for path in [*blocks, ""]:
            fully_shard(sharded.get_submodule(path), mesh=mesh)
        cross_entropy(sharded(images), labels).backward()  # type: ignore[no-untyped-call]
        held = {key.replace(_CHECKPOINT_PREFIX, ""): value for key, value in sharded.named_parameters()}
        assert held.keys() == gradients.keys()
        for key, value in held.items():
            torch.testing.assert_close(value.grad.full_tensor(), gradients[key])  # type: ignore[union-attr]
    if rank == 0:
        print(name, "equal", flush=True)


def run(rank: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{store}", timeout=timedelta(seconds=240), rank=rank, world_size=2)
    for name in NETWORKS:
        compare(name, rank)
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(run, (str(Path(folder) / "store"),), 2)  # type: ignore[no-untyped-call]
