"""Processes that read the images of a streamed data set ahead of training.

Not torch's DataLoader: if one of its workers is killed, it raises at an arbitrary point of the training process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor

import numpy as np
import numpy.typing as npt
import torch

from hiresnet_graph.data.dataset import Dataset

_Pixels = npt.NDArray[np.uint8]
_AHEAD = 2  # batches for each process
_dataset: Dataset | None = None


def read_ahead(dataset: Dataset, batches: Sequence[Sequence[int]], workers: int) -> Generator[torch.Tensor, None, None]:
    """The images of each batch of indices, in order; the processes end with the generator.

    Raises:
        RunError: A file is missing, or is not an image.
        BrokenProcessPool: A process was killed.
        OSError: A process cannot start.
    """
    waiting: deque[Future[_Pixels]] = deque()
    pool = ProcessPoolExecutor(min(workers, len(batches)), initializer=_initialize, initargs=(dataset,))
    try:
        for indices in batches:
            with warnings.catch_warnings():
                # The processes only read files, so they need no lock that a thread of ours may hold.
                warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
                waiting.append(pool.submit(_read, indices))
            if len(waiting) > _AHEAD * workers:
                yield torch.from_numpy(waiting.popleft().result())
        while waiting:
            yield torch.from_numpy(waiting.popleft().result())
    finally:
        pool.shutdown(cancel_futures=True)


def _initialize(dataset: Dataset) -> None:
    """Initialize a process."""
    global _dataset
    _dataset = dataset
    torch.set_num_threads(1)
    # Ctrl-C is handled by the training process, which ends this one; its handler of SIGTERM is not for this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(0)


def _read(indices: Sequence[int]) -> _Pixels:
    assert _dataset is not None
    return _dataset.read(indices).numpy()
