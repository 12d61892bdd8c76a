"""A run that is killed in its second epoch: `python -m tests.gpu.killed FOLDER DEVICE`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

import hiresnet_graph as hrg
from tests.conftest import TINY
from tests.train.runs import events_of, request, stop_after

if __name__ == "__main__":
    torch.backends.cudnn.deterministic = True
    is_due = stop_after(10)

    def kill() -> bool:
        if is_due():
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    events_of(request(hrg.loads(TINY, "tiny.yaml"), device=sys.argv[2]), Path(sys.argv[1]), stop=kill)
