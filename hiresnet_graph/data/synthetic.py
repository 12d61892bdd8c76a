"""Generated images: for tests, benchmarks and first steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from hiresnet_graph.data.kind import DATASETS, DatasetKind, GreyOrColour
from hiresnet_graph.data.split import TEST_SHARE, check_split, hold_out
from hiresnet_graph.errors import UsageError

if TYPE_CHECKING:
    from hiresnet_graph.data.dataset import Dataset

_CELLS = 4  # of a pattern, in each direction
_CONTRAST = 24  # grey levels of a pattern around the middle
_NOISE = 96
_MAX_BYTES = 2**31


@DATASETS.register
class SyntheticData(DatasetKind):
    """Noisy patterns, one for each class, generated with any number of images, classes and pixels.

    A pattern has 4x4 cells of random grey. 20 % of the images are held out for the test.

    Attributes:
        images: Number of images.
        classes: Number of classes; all have the same number of images, up to one.
        channels: 1 (grey) or 3 (colour).
        size: Height and width.
        seed: Random seed of patterns and noise.
    """

    kind: ClassVar[str] = "synthetic"

    images: int = Field(default=1000, ge=1, le=1_000_000)
    classes: int = Field(default=10, ge=2, le=1_000_000)
    channels: GreyOrColour = 3
    size: int = Field(default=32, ge=1, le=1_000_000)
    seed: int = Field(default=0, ge=0, le=1_000_000)

    def load(self) -> Dataset:
        """The images, the labels and the split; the same bits with every version of every library."""
        import numpy as np
        import torch

        from hiresnet_graph.data.dataset import Dataset

        if (needed := self.images * self.channels * self.size**2) > _MAX_BYTES:
            raise UsageError(
                f"data 'synthetic': the images take {needed / 2**30:.1f} GiB, more than the limit of "
                f"{_MAX_BYTES / 2**30:.0f}. Lower 'images' or 'size'."
            )
        # The legacy generator of numpy, whose stream is frozen.
        random = np.random.RandomState(self.seed)
        cells = random.randint(-_CONTRAST, _CONTRAST + 1, (self.classes, self.channels, _CELLS, _CELLS))
        to_cell = np.arange(self.size) * _CELLS // self.size
        patterns = (128 + cells[:, :, to_cell][:, :, :, to_cell]).astype(np.int16)
        labels = np.arange(self.images) % self.classes
        shape = (self.channels, self.size, self.size)
        images = np.empty((self.images, *shape), np.uint8)
        for index, label in enumerate(labels):
            noise = random.randint(-_NOISE, _NOISE + 1, shape, np.int16)
            images[index] = (patterns[label] + noise).clip(0, 255)
        split = hold_out(labels.tolist(), TEST_SHARE, self.validation_share, self.split_seed)
        names = tuple(str(label) for label in range(self.classes))
        check_split("synthetic", split, labels.tolist(), names)
        return Dataset(
            name="synthetic",
            classes=self.classes,
            images=torch.from_numpy(images),
            labels_N=torch.from_numpy(labels).long(),
            split=split,
            class_names=names,
        )
