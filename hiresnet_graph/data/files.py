"""Images that stay in their files until they are asked for.

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
# Above this, images are read again in every epoch.
MOST_BYTES_IN_MEMORY = 2**31
_CHUNK = 64  # images that a thread reads at a time


@dataclass(frozen=True)
class ImageFiles:
    """The files of a data set, in its order.

    Attributes:
        folder: What the names start from.
        names: Paths inside it, with `/`.
        shape: What every image is brought to: its shorter side bilinearly to the size, then the middle cut out.
    """

    folder: Path
    names: tuple[str, ...]
    shape: Map

    def read(self, places: Sequence[int]) -> torch.Tensor:
        """The images at these places, uint8 (B, C, H, W).

        Raises:
            RunError: A file is gone, or is no image.
        """
        images = torch.empty(len(places), *self.shape, dtype=torch.uint8)
        for image_CHW, place in zip(images.numpy(), places, strict=True):
            image_CHW[:] = self._pixels(self.folder / self.names[place])
        return images

    def loaded(self, stream: bool | None) -> ImageFiles | torch.Tensor:
        """All images in memory; or these files, if they are to be streamed or are too many."""
        needed = len(self.names) * self.shape.channels * self.shape.height * self.shape.width
        if stream or (stream is None and needed > MOST_BYTES_IN_MEMORY):
            return self
        images = torch.empty(len(self.names), *self.shape, dtype=torch.uint8)
        chunks = [range(start, min(start + _CHUNK, len(images))) for start in range(0, len(images), _CHUNK)]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2) as pool:
            for chunk, read in zip(chunks, pool.map(self.read, chunks), strict=True):
                images[chunk.start : chunk.stop] = read
        return images

    def marks(self) -> Iterator[bytes]:
        """What tells one set of files from another without reading them: names and sizes."""
        for name in self.names:
            path = self.folder / name
            try:
                yield f"{name}:{path.stat().st_size}\n".encode()
            except OSError as error:
                _unreadable(path, error)

    def _pixels(self, path: Path) -> npt.NDArray[np.uint8]:
        channels, height, width = self.shape
        try:
            with Image.open(path) as opened:
                image = opened.convert("RGB" if channels == 3 else "L")
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            _unreadable(path, error)
        if image.size != (width, height):
            image = _middle(image, width, height)
        return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)


def _middle(image: Image.Image, width: int, height: int) -> Image.Image:
    """As torchvision's Resize(size) and CenterCrop(size) do it."""
    short, long = sorted(image.size)
    size = max(width, height)
    sides = (size, int(size * long / short)) if image.size[0] <= image.size[1] else (int(size * long / short), size)
    image = image.resize(sides, Image.Resampling.BILINEAR)
    left, top = round((sides[0] - width) / 2), round((sides[1] - height) / 2)
    return image.crop((left, top, left + width, top + height))


def class_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, in their order.

    Raises:
        RunError: It cannot be read.
    """
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise RunError(f"data: the folder {folder} cannot be read: {error.strerror}.") from None


def image_names(folder: Path, inside: str) -> list[str]:
    """Paths of the images below `folder`/`inside`, as names from `folder`, in their order.

    Raises:
        RunError: There is none, or a folder cannot be read.
    """

    def stop(error: OSError) -> NoReturn:
        raise RunError(f"data: the folder {error.filename} cannot be read: {error.strerror}.")

    found = []
    for place, _, files in os.walk(folder / inside, onerror=stop, followlinks=True):
        start = Path(place).relative_to(folder).as_posix()
        found += [f"{start}/{name}" for name in files if Path(name).suffix.lower() in SUFFIXES and name[0] != "."]
    if not found:
        raise RunError(
            f"data: the folder {folder / inside} holds no image ({', '.join(sorted(SUFFIXES))}). "
            "Put images of this class into it, or delete it."
        )
    return sorted(found)


def shorter_side(path: Path) -> int:
    """Pixels of the shorter side of an image.

    Raises:
        RunError: The file is gone, or is no image.
    """
    try:
        with Image.open(path) as image:
            return min(image.size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        _unreadable(path, error)


def _unreadable(path: Path, error: Exception) -> NoReturn:
    if isinstance(error, FileNotFoundError):
        raise RunError(f"{path}: this image is gone; the data set had it. Put it back, then go on.") from None
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error).split(" (")[0]
    raise RunError(f"{path}: this image cannot be read: {why}. Mend it, or delete it and start anew.") from None
