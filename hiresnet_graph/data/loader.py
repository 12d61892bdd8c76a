"""Batches for training and evaluation: normalised, augmented, and on the device where they are used.

Images in memory are put on the device once, as 8-bit whole numbers; streamed ones come from worker processes batch by
batch. Either way augmentation and normalisation are a few operations on whole batches, without waiting for the device.

Axes: N images of the data set, B images of a batch, C channels, H height, W width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from typing import NamedTuple

import torch

from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.data.readers import read_ahead
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.seeding import derive_seed

AUGMENTATIONS = ("none", "flip", "crop", "crop+flip")


class _Draws(NamedTuple):
    """What chance says of each image of the data set in one epoch."""

    top_N: torch.Tensor
    left_N: torch.Tensor
    mirrored_N: torch.Tensor


class Loader:
    """Gives the batches of a data set in the order that a seed says.

    Args:
        dataset: Fitted to the network.
        device: Where the batches are wanted.
        augment: `none`, `flip`, `crop` or `crop+flip`: what changes training images at random.
        crop_padding: Black pixels on each side before a crop; an eighth of the height, if left out.
        seed: Of the order of the images and of their augmentation.
        workers: Processes that read streamed images; with 0 the training process reads them.
        memory_format: Of the batches.

    Raises:
        UsageError: The augmentation cannot be.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        device: torch.device,
        augment: str = "none",
        crop_padding: int | None = None,
        seed: int = 0,
        workers: int = 0,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        if augment not in AUGMENTATIONS:
            raise UsageError(f"augment: one of {', '.join(AUGMENTATIONS)} is wanted, not '{augment}'.")
        self.dataset, self.device, self.seed, self.workers = dataset, device, seed, workers
        self.memory_format = memory_format
        _, self.height, self.width = dataset.shape
        self.flips, self.padding = "flip" in augment, 0
        if "crop" in augment:
            self.padding = max(1, self.height // 8) if crop_padding is None else crop_padding
            if not 0 < self.padding < min(self.height, self.width):
                raise UsageError(
                    f"crop_padding: a number from 1 to {min(self.height, self.width) - 1} is wanted for images of "
                    f"{self.height}x{self.width}, not {self.padding}."
                )
        self.places = {part: torch.tensor(places) for part, places in dataset.split._asdict().items()}
        self.labels_N = dataset.labels_N.to(device)
        mean_C11, std_C11 = dataset.levels
        self.mean_C11, self.scale_C11 = mean_C11.to(device), (1 / std_C11).to(device)
        self.images_NCHW = None if dataset.is_streamed else dataset.images_NCHW.to(device)

    def with_seed(self, seed: int) -> Loader:
        """The same images, which are on the device once, in the order of another seed."""
        other = copy.copy(self)
        other.seed = seed
        return other

    def steps(self, batch_size: int, drop_last: bool = False) -> int:
        """Batches of one epoch of training."""
        images = len(self.places["train"])
        return images // batch_size if drop_last else -(-images // batch_size)

    def training(
        self,
        epoch: int,
        batch_size: int,
        *,
        drop_last: bool = False,
        first_step: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Every training image once, changed at random, and its label.

        What happens to an image depends on the seed, the epoch and the image; not on its batch or its process.

        Args:
            batch_size: Images of a batch, over all processes.
            drop_last: Leave out a last batch that is not full.
            first_step: Batches that are skipped: those that were seen before an interruption.
            rank: Which stretch of every batch is given, counted from 0.
            world: Number of stretches. Those of a batch differ by one image at most, and may be empty if it is small.

        Raises:
            RunError: A file of the data set is gone, or is no image.
        """
        places_N = self.places["train"]
        order_N = places_N[torch.randperm(len(places_N), generator=_generator(self.seed, "order", epoch))]
        draws = self._draws(epoch)
        steps = range(first_step, self.steps(batch_size, drop_last))
        batches = [order_N[step * batch_size : (step + 1) * batch_size] for step in steps]
        for images_BCHW, places_B in self._raw([_stretch(batch, rank, world) for batch in batches]):
            yield self._normalised(self._augmented(images_BCHW, places_B, draws)), self.labels_N[places_B]

    def evaluation(
        self, part: str, batch_size: int, *, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Every image of a part of the data in its order, unchanged, and its label.

        Args:
            part: `train`, `validation` or `test`.
            rank: As for `training`.
            world: As for `training`.

        Raises:
            RunError: A file of the data set is gone, or is no image.
        """
        batches = [_stretch(batch, rank, world) for batch in torch.split(self.places[part], batch_size)]
        for images_BCHW, places_B in self._raw(batches):
            yield self._normalised(images_BCHW), self.labels_N[places_B]

    def _raw(self, batches: list[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The images of each batch as they are, and their places; on the device."""
        if not batches:
            return
        # One transfer for all batches.
        on_device = torch.split(torch.cat(batches).to(self.device), [len(batch) for batch in batches])
        if self.images_NCHW is not None:
            for places_B in on_device:
                yield self.images_NCHW.index_select(0, places_B), places_B
            return
        for images_BCHW, places_B in zip(self._read([batch.tolist() for batch in batches]), on_device, strict=True):
            yield images_BCHW.to(self.device, non_blocking=True), places_B

    def _read(self, batches: list[list[int]]) -> Iterator[torch.Tensor]:
        """The images of each batch from the files."""
        if not self.workers:
            yield from map(self.dataset.read, batches)
            return
        try:
            with closing(read_ahead(self.dataset, batches, self.workers)) as found:
                for images_BCHW in found:
                    yield images_BCHW.pin_memory() if self.device.type == "cuda" else images_BCHW
        except (BrokenProcessPool, OSError) as error:  # one was killed, perhaps for its memory; or cannot start
            raise RunError(
                f"data '{self.dataset.name}': a process that reads images has ended: {error} "
                "Try fewer of them; with 0 the training process reads the images."
            ) from error

    def _draws(self, epoch: int) -> _Draws:
        chance, images = _generator(self.seed, "augment", epoch), len(self.dataset)
        # All are drawn whatever is used, so that one augmentation does not change another.
        mirrored_N = torch.rand(images, generator=chance) < 0.5
        place_2N = torch.randint(2 * self.padding + 1, (2, images), generator=chance)
        top_N, left_N = place_2N.to(self.device)
        return _Draws(top_N, left_N, mirrored_N.to(self.device))

    def _augmented(self, images_BCHW: torch.Tensor, places_B: torch.Tensor, draws: _Draws) -> torch.Tensor:
        if self.padding:
            batch, channels, height, width = images_BCHW.shape
            edge = self.padding
            padded_BCHW = images_BCHW.new_zeros(batch, channels, height + 2 * edge, width + 2 * edge)
            padded_BCHW[:, :, edge : edge + height, edge : edge + width] = images_BCHW
            # Every window of every image, as a view: one index picks one for each image.
            windows_BCyxHW = padded_BCHW.unfold(2, height, 1).unfold(3, width, 1)
            rows_B = torch.arange(batch, device=self.device)
            images_BCHW = windows_BCyxHW[rows_B, :, draws.top_N[places_B], draws.left_N[places_B]]
        if self.flips:
            mirrored_B111 = draws.mirrored_N[places_B].view(-1, 1, 1, 1)
            images_BCHW = torch.where(mirrored_B111, images_BCHW.flip(3), images_BCHW)
        return images_BCHW

    def _normalised(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        x_BCHW = normalised(images_BCHW, self.mean_C11, self.scale_C11)
        return x_BCHW.contiguous(memory_format=self.memory_format)


def normalised(images_BCHW: torch.Tensor, mean_C11: torch.Tensor, scale_C11: torch.Tensor) -> torch.Tensor:
    """8-bit images as a network sees them; the scale is one over the standard deviation."""
    # Two operations, each rounded: one would be fused on some machines, and round differently.
    return images_BCHW.float().sub_(mean_C11).mul_(scale_C11)


def _generator(seed: int, stream: str, epoch: int) -> torch.Generator:
    """A generator of the CPU, so that the draws are the same on every device."""
    return torch.Generator().manual_seed(derive_seed(seed, stream, epoch))


def _stretch(places_B: torch.Tensor, rank: int, world: int) -> torch.Tensor:
    return places_B[len(places_B) * rank // world : len(places_B) * (rank + 1) // world]
