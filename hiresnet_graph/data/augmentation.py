"""Random changes of training images, a few operations on full batches, without waiting for the device.

What is drawn for an image depends on the seed, the epoch and the image; not on its batch or its process.

Axes: N images of the data set, B images of a batch, C channels, H height, W width, R rounds, T tries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch

from hiresnet_graph.errors import UsageError
from hiresnet_graph.shapes import Map

AUGMENTATIONS = ("none", "flip", "crop", "crop+flip")
MAX_MAGNITUDE = 30
"""The largest magnitude of RandAugment."""

_ROUNDS = 2
_TRIES = 10
_AREA, _RATIO = (0.02, 0.33), (0.3, 3.3)

Operation = Callable[[torch.Tensor], torch.Tensor]
"""A function of 8-bit images [B, C, H, W]."""


class Draws(NamedTuple):
    """What is drawn for each image of the data set in one epoch, or for each of a batch.

    Attributes:
        top_N, left_N: Position of the crop in the padded image.
        mirrored_N: Whether it is mirrored.
        operations_RN: Indices of the operations of RandAugment; on the CPU.
        boxes_N4: Top, bottom, left and right of what is erased.
    """

    top_N: torch.Tensor
    left_N: torch.Tensor
    mirrored_N: torch.Tensor
    operations_RN: torch.Tensor | None
    boxes_N4: torch.Tensor | None

    def of_batch(self, indices_B: torch.Tensor, on_device_B: torch.Tensor) -> Draws:
        """Those of some images, by their indices on the CPU and on the device."""
        top_B, left_B, mirrored_B = (drawn_N[on_device_B] for drawn_N in self[:3])
        operations_RB = None if self.operations_RN is None else self.operations_RN[:, indices_B]
        boxes_B4 = None if self.boxes_N4 is None else self.boxes_N4[on_device_B]
        return Draws(top_B, left_B, mirrored_B, operations_RB, boxes_B4)


class Augmentation:
    """The random changes of the training images of a data set.

    Args:
        shape: Of the images.
        augment: `none`, `flip`, `crop` or `crop+flip`.
        crop_padding: Black pixels on each side before a crop (default: an eighth of the height).
        rand_augment: Magnitude of RandAugment, from 0 to 30: two random operations on each image, with black where
            nothing is left. None omits it.
        random_erasing: Probability that a rectangle of an image is erased, after normalisation: set to 0, the mean.

    Raises:
        UsageError: A setting is invalid, or the images have too few pixels or the wrong number of channels for it.

    Source: Cubuk et al. 2020 (RandAugment), arXiv:1909.13719; Zhong et al. 2020 (random erasing), arXiv:1708.04896;
    both with the operations and the ranges of `torchvision.transforms.v2`.
    """

    def __init__(
        self,
        shape: Map,
        augment: str = "none",
        crop_padding: int | None = None,
        rand_augment: int | None = None,
        random_erasing: float = 0.0,
    ) -> None:
        if augment not in AUGMENTATIONS:
            raise UsageError(f"augment: expected one of {', '.join(AUGMENTATIONS)}, not '{augment}'.")
        self.shape, self.flips, self.padding, self.erasing = shape, "flip" in augment, 0, random_erasing
        least = min(shape.height, shape.width)
        if "crop" in augment:
            self.padding = max(1, shape.height // 8) if crop_padding is None else crop_padding
            if not 0 < self.padding < least:
                raise UsageError(
                    f"crop_padding: expected a number from 1 to {least - 1} for images of "
                    f"{shape.height}x{shape.width}, not {self.padding}."
                )
        if rand_augment is not None and shape.channels not in (1, 3):
            raise UsageError(
                f"rand_augment: requires grey or colour images (1 or 3 channels), not {shape.channels} channels. "
                "Omit it."
            )
        self.operations = () if rand_augment is None else rand_augment_operations(rand_augment, shape)

    def draws(self, generator_of: Callable[[str], torch.Generator], images: int, device: torch.device) -> Draws:
        """The draws of an epoch.

        Args:
            generator_of: A generator of the CPU by the name of its use.
            images: Number of images of the data set.
        """
        generator = generator_of("augment")
        # All numbers are always drawn, so that one augmentation does not change another.
        mirrored_N = torch.rand(images, generator=generator) < 0.5
        offset_2N = torch.randint(2 * self.padding + 1, (2, images), generator=generator)
        top_N, left_N = offset_2N.to(device)
        operations_RN = boxes_N4 = None
        if self.operations:
            generator = generator_of("rand_augment")
            operations_RN = torch.randint(len(self.operations), (_ROUNDS, images), generator=generator)
        if self.erasing:
            boxes_N4 = erased_boxes(generator_of("random_erasing"), images, self.shape, self.erasing).to(device)
        return Draws(top_N, left_N, mirrored_N.to(device), operations_RN, boxes_N4)

    def change(self, images_BCHW: torch.Tensor, draws: Draws) -> torch.Tensor:
        """The 8-bit images of a batch, cropped, mirrored and changed by RandAugment."""
        if self.padding:
            batch, channels, height, width = images_BCHW.shape
            edge = self.padding
            padded_BCHW = images_BCHW.new_zeros(batch, channels, height + 2 * edge, width + 2 * edge)
            padded_BCHW[:, :, edge : edge + height, edge : edge + width] = images_BCHW
            # All windows of all images, as a view: one index selects one for each image.
            windows_BCyxHW = padded_BCHW.unfold(2, height, 1).unfold(3, width, 1)
            rows_B = torch.arange(batch, device=images_BCHW.device)
            images_BCHW = windows_BCyxHW[rows_B, :, draws.top_N, draws.left_N]
        if self.flips:
            images_BCHW = torch.where(draws.mirrored_N.view(-1, 1, 1, 1), images_BCHW.flip(3), images_BCHW)
        if draws.operations_RN is not None:
            for operations_B in draws.operations_RN:
                images_BCHW = apply_each(self.operations, operations_B, images_BCHW)
        return images_BCHW

    def erase(self, x_BCHW: torch.Tensor, draws: Draws) -> torch.Tensor:
        """The normalised images of a batch, with what is erased set to 0, in place."""
        if draws.boxes_N4 is None:
            return x_BCHW
        top_B1, bottom_B1, left_B1, right_B1 = torch.split(draws.boxes_N4, 1, dim=1)
        y_H, x_W = (torch.arange(size, device=x_BCHW.device) for size in x_BCHW.shape[2:])
        rows_BH, columns_BW = (y_H >= top_B1) & (y_H < bottom_B1), (x_W >= left_B1) & (x_W < right_B1)
        return x_BCHW.masked_fill_(rows_BH[:, None, :, None] & columns_BW[:, None, None, :], 0)


def apply_each(operations: Sequence[Operation], indices_B: torch.Tensor, images_BCHW: torch.Tensor) -> torch.Tensor:
    """Each image changed by an operation of its own; images with the same operation are computed together.

    Args:
        indices_B: Of the operation of each image, on the CPU.
    """
    if not len(indices_B):
        return images_BCHW
    order_B = indices_B.argsort(stable=True).to(images_BCHW.device)
    parts = torch.split(images_BCHW[order_B], indices_B.bincount(minlength=len(operations)).tolist())
    changed_BCHW = torch.cat([operation(part) for operation, part in zip(operations, parts, strict=True) if len(part)])
    return torch.empty_like(changed_BCHW).index_copy_(0, order_B, changed_BCHW)


def rand_augment_operations(magnitude: int, shape: Map) -> tuple[Operation, ...]:
    """The operations of RandAugment, equally probable: those with a direction once for each, others twice."""
    from torchvision.transforms.v2 import functional  # takes longer to import than torch

    def scaled(largest: float) -> float:
        # In float32, as in torchvision: a blend of two images is cut off to whole grey levels.
        return torch.linspace(0, largest, MAX_MAGNITUDE + 1)[magnitude].item()

    factor, degrees = scaled(0.9), scaled(30)
    shear = math.degrees(math.atan(scaled(0.3)))
    across, down = (int(scaled(150 / 331 * size)) for size in (shape.width, shape.height))

    affine = partial(functional.affine, angle=0.0, scale=1.0)
    moved, sheared = partial(affine, shear=[0.0, 0.0]), partial(affine, translate=[0, 0], center=[0, 0])
    directed: tuple[Callable[[torch.Tensor, int], torch.Tensor], ...] = (
        lambda x, sign: sheared(x, shear=[sign * shear, 0.0]),
        lambda x, sign: sheared(x, shear=[0.0, sign * shear]),
        lambda x, sign: moved(x, translate=[sign * across, 0]),
        lambda x, sign: moved(x, translate=[0, sign * down]),
        lambda x, sign: functional.rotate(x, sign * degrees),
        lambda x, sign: functional.adjust_brightness(x, 1 + sign * factor),
        lambda x, sign: functional.adjust_saturation(x, 1 + sign * factor),
        lambda x, sign: functional.adjust_contrast(x, 1 + sign * factor),
        lambda x, sign: functional.adjust_sharpness(x, 1 + sign * factor),
    )
    undirected: tuple[Operation, ...] = (
        lambda x: x,
        lambda x: functional.posterize(x, 8 - round(scaled(4))),
        lambda x: functional.solarize(x, 255 - scaled(255)),
        functional.autocontrast,
        functional.equalize,
    )

    def signed(operation: Callable[[torch.Tensor, int], torch.Tensor], sign: int) -> Operation:
        return lambda x: operation(x, sign)

    return (*(signed(operation, sign) for operation in directed for sign in (1, -1)), *undirected, *undirected)


def erased_boxes(generator: torch.Generator, images: int, shape: Map, probability: float) -> torch.Tensor:
    """Top, bottom, left and right of the random rectangles of images [N, 4]; those of the others are empty.

    A rectangle has 2 to 33 % of the area and an aspect ratio from 0.3 to 3.3; of ten tries, the first one counts that
    is smaller than the image.
    """
    height, width = shape.spatial
    share_TN, log_TN = (
        low + (high - low) * torch.rand(_TRIES, images, generator=generator)
        for low, high in (_AREA, map(math.log, _RATIO))
    )
    tall_TN = (height * width * share_TN * log_TN.exp()).sqrt().round()
    wide_TN = (height * width * share_TN / log_TN.exp()).sqrt().round()
    fits_TN = (tall_TN < height) & (wide_TN < width)
    first_1N = fits_TN.byte().argmax(0, keepdim=True)
    chance_N, down_N, across_N = torch.rand(3, images, generator=generator)
    is_erased_N = (chance_N < probability) & fits_TN.any(0)
    tall_N, wide_N = (size_TN.gather(0, first_1N)[0] * is_erased_N for size_TN in (tall_TN, wide_TN))
    top_N, left_N = (down_N * (height + 1 - tall_N)).floor(), (across_N * (width + 1 - wide_N)).floor()
    return torch.stack([top_N, top_N + tall_N, left_N, left_N + wide_N], dim=1).to(torch.int64)
