"""Labelled images as 8-bit whole numbers, and which of them serve for training, validation and test.

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

from hiresnet_graph.data.files import ImageFiles
from hiresnet_graph.data.split import Split
from hiresnet_graph.errors import UsageError
from hiresnet_graph.shapes import Map

_CHUNK = 1000  # images that are looked at together
# Streamed training images whose levels are counted: enough for three digits, and few enough to be read at the start.
_SAMPLE = 2000


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """All images of a data set with their labels, in memory or in files.

    Attributes:
        classes: How many; labels count from 0.
        images: As a uint8 tensor (N, C, H, W), or as files that are read when they are needed.
        labels_N: As int64.
        class_names: Of all classes; or empty, if nobody has named them.
        standard_augmentation: What the recipe's `augment: standard` stands for.
        fit: The shape that images are brought to, if it is not their own.
    """

    name: str
    classes: int
    images: torch.Tensor | ImageFiles
    labels_N: torch.Tensor
    split: Split
    class_names: tuple[str, ...] = ()
    standard_augmentation: str = "none"
    fit: Map | None = None
    _fitted: dict[Map, Dataset] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def own_shape(self) -> Map:
        """Shape of one image as it was read."""
        return self.images.shape if isinstance(self.images, ImageFiles) else Map(*self.images.shape[1:])

    @property
    def shape(self) -> Map:
        """Shape of one image as a network sees it."""
        return self.fit or self.own_shape

    @property
    def is_streamed(self) -> bool:
        """Whether the images are in files, not in memory."""
        return isinstance(self.images, ImageFiles)

    def fitted_to(self, shape: Map) -> Dataset:
        """The same images with the shape that a network wants: grey is repeated, the size changed bilinearly.

        Raises:
            UsageError: The number of channels differs, and the images are not grey.
        """
        if shape == self.shape:
            return self
        own = self.own_shape
        if shape.channels != own.channels and own.channels != 1:
            raise UsageError(
                f"data '{self.name}': the images have {own.channels} channels, the network wants "
                f"{shape.channels}. Set 'input.channels={own.channels}'."
            )
        # Kept, so that what is known of it (its fingerprint, its statistics) is found out once.
        if shape not in self._fitted:
            self._fitted[shape] = dataclasses.replace(self, fit=None if shape == own else shape)
        return self._fitted[shape]

    @cached_property
    def images_NCHW(self) -> torch.Tensor:
        """All images in the shape that the network sees, uint8; streamed ones are read for it."""
        if self.fit is None and isinstance(self.images, torch.Tensor):
            return self.images
        return torch.cat(list(self._chunks(range(len(self)))))

    def read(self, places: Sequence[int]) -> torch.Tensor:
        """The images at these places in the shape that the network sees, uint8 (B, C, H, W).

        Raises:
            RunError: A file is gone, or is no image.
        """
        if isinstance(self.images, ImageFiles):
            images_BCHW = self.images.read(places)
        else:
            images_BCHW = self.images[torch.as_tensor(places)]
        return images_BCHW if self.fit is None else resized(images_BCHW, self.fit)

    def fingerprint(self) -> str:
        """Hash of the images, the classes and the split: data sets with equal fingerprints train alike.

        Of streamed images, the names and sizes of the files are hashed, not what is in them.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        parts = (tuple(self.own_shape), None if self.fit is None else tuple(self.fit), self.classes)
        digest = hashlib.sha256(repr(parts).encode())
        for places in self.split:
            digest.update(hashlib.sha256(np.array(places, np.int64).data).digest())
        digest.update(self.labels_N.contiguous().numpy().data)
        if isinstance(self.images, ImageFiles):
            for mark in self.images.marks():
                digest.update(mark)
        else:
            digest.update(self.images.contiguous().numpy().reshape(-1).data)
        return digest.hexdigest()

    @cached_property
    def levels(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of each channel over the training images, in grey levels; (C, 1, 1) both.

        Of streamed images, no more than 2,000 are read for it, spread evenly over the training images.
        """
        places = self.split.train
        if self.is_streamed:
            places = places[:: math.ceil(len(places) / _SAMPLE)]
        # Counted, not summed as floats: whole numbers give the same bits with any number of threads.
        counts_CL = torch.zeros(self.shape.channels, 256, dtype=torch.int64)
        for images_BCHW in self._chunks(places):
            for count_L, channel_BHW in zip(counts_CL, images_BCHW.unbind(1), strict=True):
                count_L += torch.bincount(channel_BHW.flatten(), minlength=256)
        means, stds = [], []
        for count_L in counts_CL:
            total, first, second = (int((count_L * torch.arange(256) ** power).sum()) for power in range(3))
            means.append(first / total)
            # A channel of one colour stays finite: one grey level is the least spread that 8 bits can show.
            stds.append(max(1.0, math.sqrt(total * second - first * first) / total))
        return torch.tensor(means).view(-1, 1, 1), torch.tensor(stds).view(-1, 1, 1)

    def _chunks(self, places: Sequence[int]) -> Iterator[torch.Tensor]:
        for start in range(0, len(places), _CHUNK):
            yield self.read(places[start : start + _CHUNK])


def resized(images_BCHW: torch.Tensor, shape: Map) -> torch.Tensor:
    """8-bit images brought to a shape: the size changed bilinearly, grey repeated."""
    if images_BCHW.shape[2:] != (shape.height, shape.width):
        resized_BCHW = torch.nn.functional.interpolate(
            images_BCHW.float(), size=(shape.height, shape.width), mode="bilinear", antialias=True
        )
        images_BCHW = resized_BCHW.round().clamp(0, 255).to(torch.uint8)
    if images_BCHW.shape[1] != shape.channels:
        images_BCHW = images_BCHW.repeat(1, shape.channels, 1, 1)
    return images_BCHW
