"""Images in files, read when needed.

Axes: B images of a batch, C channels, H height, W width.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from hiresnet_graph.data.pixels import raise_unreadable, read_pixels
from hiresnet_graph.shapes import Map

# Larger data sets are streamed: their images are read again in every epoch.
MAX_BYTES_IN_MEMORY = 2**31
_CHUNK = 64  # images that a thread reads at a time


@dataclass(frozen=True)
class ImageFiles:
    """The files of a data set, in its order.

    Attributes:
        folder: The folder that the names are relative to.
        names: Relative paths, with `/`.
        shape: Shape that every image is resized and cropped to.
    """

    folder: Path
    names: tuple[str, ...]
    shape: Map

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        """Images by index, uint8 (B, C, H, W).

        Raises:
            RunError: A file is missing, or is not an image.
        """
        images = torch.empty(len(indices), *self.shape, dtype=torch.uint8)
        for image_CHW, index in zip(images.numpy(), indices, strict=True):
            image_CHW[:] = read_pixels(self.folder / self.names[index], self.shape)
        return images

    def load(self, stream: bool | None) -> ImageFiles | torch.Tensor:
        """All images in memory; or these files, if `stream` is True, or is None and the images are too large."""
        needed = len(self.names) * self.shape.channels * self.shape.height * self.shape.width
        if stream or (stream is None and needed > MAX_BYTES_IN_MEMORY):
            return self
        images = torch.empty(len(self.names), *self.shape, dtype=torch.uint8)
        chunks = [range(start, min(start + _CHUNK, len(images))) for start in range(0, len(images), _CHUNK)]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2) as pool:
            for chunk, read in zip(chunks, pool.map(self.read, chunks), strict=True):
                images[chunk.start : chunk.stop] = read
        return images

    def stamps(self) -> Iterator[bytes]:
        """Names and sizes, which distinguish sets of files without reading them."""
        for name in self.names:
            path = self.folder / name
            try:
                yield f"{name}:{path.stat().st_size}\n".encode()
            except OSError as error:
                raise_unreadable(path, error)
