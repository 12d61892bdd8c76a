"""Images in files, read when needed.

Axes: B images of a batch, C channels, H height, W width.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from hiresnet_graph.errors import RunError
from hiresnet_graph.shapes import Map

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# Larger data sets are streamed: their images are read again in every epoch.
MAX_BYTES_IN_MEMORY = 2**31
_CHUNK = 64  # images that a thread reads at a time


@dataclass(frozen=True)
class ImageFiles:
    """The files of a data set, in its order.

    Attributes:
        folder: The folder that the names are relative to.
        names: Relative paths, with `/`.
        shape: Shape of every image: the shorter side is resized bilinearly, then the centre is cropped.
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
            image_CHW[:] = self._pixels(self.folder / self.names[index])
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
                _raise_unreadable(path, error)

    def _pixels(self, path: Path) -> npt.NDArray[np.uint8]:
        channels, height, width = self.shape
        try:
            with Image.open(path) as opened:
                image = opened.convert("RGB" if channels == 3 else "L")
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            _raise_unreadable(path, error)
        if image.size != (width, height):
            image = _crop_center(image, width, height)
        return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)


def _crop_center(image: Image.Image, width: int, height: int) -> Image.Image:
    """Resize(size) and CenterCrop(size) of torchvision."""
    short, long = sorted(image.size)
    size = max(width, height)
    sides = (size, int(size * long / short)) if image.size[0] <= image.size[1] else (int(size * long / short), size)
    image = image.resize(sides, Image.Resampling.BILINEAR)
    left, top = round((sides[0] - width) / 2), round((sides[1] - height) / 2)
    return image.crop((left, top, left + width, top + height))


def class_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted.

    Raises:
        RunError: It cannot be read.
    """
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise RunError(f"data: the folder {folder} cannot be read: {error.strerror}.") from None


def image_names(folder: Path, inside: str) -> list[str]:
    """Paths of the images below `folder`/`inside`, relative to `folder`, sorted.

    Raises:
        RunError: There are none, or a folder cannot be read.
    """

    def stop(error: OSError) -> NoReturn:
        raise RunError(f"data: the folder {error.filename} cannot be read: {error.strerror}.")

    found = []
    for directory, _, files in os.walk(folder / inside, onerror=stop, followlinks=True):
        start = Path(directory).relative_to(folder).as_posix()
        found += [f"{start}/{name}" for name in files if Path(name).suffix.lower() in SUFFIXES and name[0] != "."]
    if not found:
        raise RunError(
            f"data: the folder {folder / inside} contains no images ({', '.join(sorted(SUFFIXES))}). "
            "Put images of this class into it, or delete it."
        )
    return sorted(found)


def shorter_side(path: Path) -> int:
    """The shorter side of an image, in pixels.

    Raises:
        RunError: The file is missing, or is not an image.
    """
    try:
        with Image.open(path) as image:
            return min(image.size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        _raise_unreadable(path, error)


def _raise_unreadable(path: Path, error: Exception) -> NoReturn:
    if isinstance(error, FileNotFoundError):
        raise RunError(f"{path}: this image of the data set is missing. Restore it, then resume.") from None
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error).split(" (")[0]
    raise RunError(f"{path}: this image cannot be read: {why}. Repair it, or delete it and start again.") from None
