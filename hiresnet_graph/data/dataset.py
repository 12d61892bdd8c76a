"""Labelled 8-bit images, and their split into training, validation and test set.

Axes: N images of the data set, B images of a batch, C channels, H height, W width.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch

from hiresnet_graph.data.duplicates import count_duplicates, describe_duplicates
from hiresnet_graph.data.files import ImageFiles
from hiresnet_graph.data.split import Split
from hiresnet_graph.errors import UsageError
from hiresnet_graph.shapes import Map

_CHUNK = 1000  # images that are processed together
# Streamed training images that the channel statistics are computed from: enough for three digits, quickly read.
_SAMPLE = 2000


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """All images of a data set with their labels, in memory or in files.

    Attributes:
        classes: Number of classes; labels count from 0.
        images: A uint8 tensor (N, C, H, W), or files that are read when needed.
        labels_N: As int64.
        class_names: Of all classes; empty if they have no names.
        standard_augmentation: Meaning of the recipe's `augment: standard`.
        target_shape: The shape that images are converted to, if it is not their own.
        normalization: Mean and standard deviation of each channel, of pixels from 0 to 1, with which images are
            normalised; None for those of the training images.
        skipped: What was found beside the images and is not read; empty if there is nothing.
    """

    name: str
    classes: int
    images: torch.Tensor | ImageFiles
    labels_N: torch.Tensor
    split: Split
    class_names: tuple[str, ...] = ()
    standard_augmentation: str = "none"
    target_shape: Map | None = None
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    skipped: str = ""
    _converted: dict[Map, Dataset] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.labels_N)

    def __repr__(self) -> str:
        parts = {name: len(getattr(self.split, name)) for name in ("train", "validation", "test")}
        counts = ", ".join(f"{count:,} {name}" for name, count in parts.items())
        return f"<Dataset {self.name}: {len(self):,} images of {self.shape} ({counts}), {self.classes} classes>"

    @property
    def stored_shape(self) -> Map:
        """Shape of an image before conversion."""
        return self.images.shape if isinstance(self.images, ImageFiles) else Map(*self.images.shape[1:])

    @property
    def shape(self) -> Map:
        """Shape of an image as the network sees it."""
        return self.target_shape or self.stored_shape

    @property
    def is_streamed(self) -> bool:
        """Whether the images are in files, not in memory."""
        return isinstance(self.images, ImageFiles)

    def with_shape(self, shape: Map) -> Dataset:
        """The same images in another shape: resized bilinearly, grey repeated.

        Raises:
            UsageError: The number of channels differs, and the images are not grey.
        """
        if shape == self.shape:
            return self
        own = self.stored_shape
        if shape.channels != own.channels and own.channels != 1:
            raise UsageError(
                f"data '{self.name}': the images have {own.channels} channels, the network expects "
                f"{shape.channels}. Set 'input.channels={own.channels}'."
            )
        # Cached, so that its fingerprint and statistics are computed once.
        if shape not in self._converted:
            self._converted[shape] = dataclasses.replace(self, target_shape=None if shape == own else shape)
        return self._converted[shape]

    @cached_property
    def untrained_classes(self) -> tuple[int, ...]:
        """The classes without training images."""
        counts_K = self.labels_N[torch.tensor(self.split.train, dtype=torch.long)].bincount(minlength=self.classes)
        return tuple((counts_K == 0).nonzero().flatten().tolist())

    @cached_property
    def duplicates(self) -> dict[str, int] | None:
        """How many held-out images have the pixels of an image in another part, as in the record of a run.

        Pixels are compared as they are stored. None for streamed images, which are not compared.
        """
        return None if isinstance(self.images, ImageFiles) else count_duplicates(self.images, self.split)

    def remarks(self) -> tuple[str, ...]:
        """What is valid and possibly unintended, in sentences: skipped files, conversion, images in several parts."""
        found = [f"Data '{self.name}': skipped {self.skipped}."] if self.skipped else []
        own, shape = self.stored_shape, self.shape
        if shape != own:
            how = ["resized bilinearly"] if (shape.height, shape.width) != (own.height, own.width) else []
            how += ["grey repeated"] if shape.channels != own.channels else []
            found.append(f"Data '{self.name}': images of {own} are converted to {shape} ({', '.join(how)}).")
        if self.duplicates and (text := describe_duplicates(self.duplicates, self.split)):
            found.append(f"Warning: data '{self.name}': {text}")
        return tuple(found)

    @cached_property
    def images_NCHW(self) -> torch.Tensor:
        """All images in the shape that the network sees, uint8; streamed ones are read."""
        if self.target_shape is None and isinstance(self.images, torch.Tensor):
            return self.images
        return torch.cat(list(self._chunks(range(len(self)))))

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        """Images by index, in the shape that the network sees, uint8 (B, C, H, W).

        Raises:
            RunError: A file is missing, or is not an image.
        """
        if isinstance(self.images, ImageFiles):
            images_BCHW = self.images.read(indices)
        else:
            images_BCHW = self.images[torch.as_tensor(indices)]
        return images_BCHW if self.target_shape is None else resize(images_BCHW, self.target_shape)

    def fingerprint(self) -> str:
        """Hash of the images, the classes and the split: equal for data sets with which runs give the same results.

        Of streamed images, the names and sizes of the files are hashed, not their content.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        parts = (
            tuple(self.stored_shape),
            None if self.target_shape is None else tuple(self.target_shape),
            self.classes,
            *([] if self.normalization is None else [self.normalization]),
        )
        digest = hashlib.sha256(repr(parts).encode())
        for indices in self.split:
            digest.update(hashlib.sha256(np.array(indices, np.int64).data).digest())
        digest.update(self.labels_N.contiguous().numpy().data)
        if isinstance(self.images, ImageFiles):
            for stamp in self.images.stamps():
                digest.update(stamp)
        else:
            digest.update(self.images.contiguous().numpy().reshape(-1).data)
        return digest.hexdigest()

    @cached_property
    def channel_stats(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation with which each channel is normalised, in grey levels; (C, 1, 1) both.

        They are `normalization`, or those of the training images. Of streamed images, at most 2,000 are read, spread
        evenly over the training images.

        Raises:
            UsageError: `normalization` has another number of channels.
        """
        if self.normalization is not None:
            mean_C11, std_C11 = (self._levels(*pair) for pair in zip(("mean", "std"), self.normalization, strict=True))
            return mean_C11, std_C11
        indices = self.split.train
        if self.is_streamed:
            indices = indices[:: math.ceil(len(indices) / _SAMPLE)]
        # Integer counts, not sums of floats: the same bits with any number of threads.
        counts_CL = torch.zeros(self.shape.channels, 256, dtype=torch.int64)
        for images_BCHW in self._chunks(indices):
            for count_L, channel_BHW in zip(counts_CL, images_BCHW.unbind(1), strict=True):
                count_L += torch.bincount(channel_BHW.flatten(), minlength=256)
        means, stds = [], []
        for count_L in counts_CL:
            total, first, second = (int((count_L * torch.arange(256) ** power).sum()) for power in range(3))
            means.append(first / total)
            # At least one grey level, so that a constant channel stays finite.
            stds.append(max(1.0, math.sqrt(total * second - first * first) / total))
        return torch.tensor(means).view(-1, 1, 1), torch.tensor(stds).view(-1, 1, 1)

    def _levels(self, field: str, levels: Sequence[float]) -> torch.Tensor:
        """A part of `normalization` in grey levels (C, 1, 1)."""
        channels = self.shape.channels
        if len(levels) not in (1, channels):
            raise UsageError(
                f"data '{self.name}': '{field}' must have one number, or one for each of {channels} channels, "
                f"got {len(levels)}."
            )
        return torch.tensor(levels).mul(255).expand(channels).view(-1, 1, 1)

    def _chunks(self, indices: Sequence[int]) -> Iterator[torch.Tensor]:
        for start in range(0, len(indices), _CHUNK):
            yield self.read(indices[start : start + _CHUNK])


def resize(images_BCHW: torch.Tensor, shape: Map) -> torch.Tensor:
    """8-bit images in another shape: resized bilinearly, grey repeated."""
    if images_BCHW.shape[2:] != (shape.height, shape.width):
        resized_BCHW = torch.nn.functional.interpolate(
            images_BCHW.float(), size=(shape.height, shape.width), mode="bilinear", antialias=True
        )
        images_BCHW = resized_BCHW.round().clamp(0, 255).to(torch.uint8)
    if images_BCHW.shape[1] != shape.channels:
        images_BCHW = images_BCHW.repeat(1, shape.channels, 1, 1)
    return images_BCHW
