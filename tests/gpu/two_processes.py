"""Two processes that train one network on one device, over gloo: `python -m tests.gpu.two_processes FOLDER DEVICE`."""

from __future__ import annotations

import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import hiresnet_graph as hrg
from hiresnet_graph.train.parallel import Processes
from tests.conftest import TINY
from tests.train.runs import RunRequest, events_of, request


def without_norm(device: str) -> RunRequest:
    """A network without batch norm, whose statistics are those of one process."""
    changes = {"stem.norm": "none", "stage*.norm": "none", "skips.projection": {"norm": "none"}}
    arch = hrg.loads(TINY, "tiny.yaml").override(changes)
    return request(arch, device=device, batch_size=431, optimizer="sgd", lr=0.05, clip_norm=1.0)


def train(rank: int, store: str, folder: str, device: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{store}", timeout=timedelta(seconds=120), rank=rank, world_size=2)
    events_of(without_norm(device), Path(folder), processes=Processes(rank, 2, local=0))
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        mp.spawn(train, (str(Path(place) / "store"), *sys.argv[1:]), 2)  # type: ignore[no-untyped-call]
