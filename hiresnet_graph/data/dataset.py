"""Labelled images as 8-bit tensors; they become normalised floats one batch at a time.

Axes: N images of the data set, B images of a batch, C channels, H height, W width.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from functools import cached_property

import torch

from hiresnet_graph.data.split import Split
from hiresnet_graph.errors import UsageError
from hiresnet_graph.shapes import Map


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """All images of a data set, their classes, and which of them serve for training, validation and test."""

    name: str
    classes: int
    images_NCHW: torch.Tensor
    labels_N: torch.Tensor
    split: Split

    @property
    def shape(self) -> Map:
        """Shape of one image."""
        _, channels, height, width = self.images_NCHW.shape
        return Map(channels, height, width)

    def fitted_to(self, shape: Map) -> Dataset:
        """The same images with the shape that a network wants: grey is repeated, the size changed bilinearly.

        Raises:
            UsageError: The number of channels differs, and the images are not grey.
        """
        if shape == self.shape:
            return self
        if shape.channels != self.shape.channels and self.shape.channels != 1:
            raise UsageError(
                f"data '{self.name}': the images have {self.shape.channels} channels, the network wants "
                f"{shape.channels}. Set 'input.channels={self.shape.channels}'."
            )
        images_NCHW = self.images_NCHW
        if (shape.height, shape.width) != (self.shape.height, self.shape.width):
            resized_NCHW = torch.nn.functional.interpolate(
                images_NCHW.float(), size=(shape.height, shape.width), mode="bilinear", antialias=True
            )
            images_NCHW = resized_NCHW.round().clamp(0, 255).to(torch.uint8)
        if shape.channels != self.shape.channels:
            images_NCHW = images_NCHW.repeat(1, shape.channels, 1, 1)
        return dataclasses.replace(self, images_NCHW=images_NCHW)

    def batch(self, places_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images as floats with channel mean 0 and standard deviation 1 over the training part, and their classes."""
        mean_C11, std_C11 = self._statistics
        return (self.images_NCHW[places_B].float() - mean_C11) / std_C11, self.labels_N[places_B]

    def fingerprint(self) -> str:
        """Hash of the images, the classes and the split: data sets with equal fingerprints train alike."""
        digest = hashlib.sha256(repr((tuple(self.images_NCHW.shape), self.classes, self.split)).encode())
        digest.update(self.images_NCHW.contiguous().numpy().tobytes())
        digest.update(self.labels_N.contiguous().numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def _statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        # Counted, not summed as floats: whole numbers give the same bits with any number of threads.
        levels = torch.arange(256)
        means, stds = [], []
        for channel_NHW in self.images_NCHW[torch.tensor(self.split.train)].unbind(1):
            counts = torch.bincount(channel_NHW.flatten(), minlength=256)
            total, first, second = (int((counts * levels**power).sum()) for power in range(3))
            means.append(first / total)
            # A channel of one colour stays finite: one grey level is the least spread that 8 bits can show.
            stds.append(max(1.0, math.sqrt(total * second - first * first) / total))
        return torch.tensor(means).view(-1, 1, 1), torch.tensor(stds).view(-1, 1, 1)
