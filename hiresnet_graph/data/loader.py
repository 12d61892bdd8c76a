"""Batches for training and evaluation: normalised, augmented, and on the device.

Images in memory are moved to the device once, as 8-bit integers; streamed ones are read by worker processes, batch by
batch. Augmentation and normalisation are a few operations on full batches, without waiting for the device.

Axes: N images of the data set, B images of a batch, C channels, H height, W width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial

import torch

from hiresnet_graph.data.augmentation import Augmentation
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.data.readers import read_ahead
from hiresnet_graph.errors import RunError
from hiresnet_graph.seeding import derive_seed


class Loader:
    """Batches of a data set in the order of a seed.

    Args:
        dataset: With images in the input shape of the network.
        device: Device of the batches.
        augment, crop_padding, rand_augment, random_erasing: Random changes of training images; see `Augmentation`.
        seed: Of the order of the images and of their augmentation.
        workers: Processes that read streamed images; with 0 the training process reads them.
        memory_format: Of the batches.

    Raises:
        UsageError: A setting of the random changes is invalid.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        device: torch.device,
        augment: str = "none",
        crop_padding: int | None = None,
        rand_augment: int | None = None,
        random_erasing: float = 0.0,
        seed: int = 0,
        workers: int = 0,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.dataset, self.device, self.seed, self.workers = dataset, device, seed, workers
        self.memory_format = memory_format
        self.augmentation = Augmentation(dataset.shape, augment, crop_padding, rand_augment, random_erasing)
        self.indices = {part: torch.tensor(indices) for part, indices in dataset.split._asdict().items()}
        self.labels_N = dataset.labels_N.to(device)
        mean_C11, std_C11 = dataset.channel_stats
        self.mean_C11, self.scale_C11 = mean_C11.to(device), (1 / std_C11).to(device)
        self.images_NCHW = None if dataset.is_streamed else dataset.images_NCHW.to(device)

    def with_seed(self, seed: int) -> Loader:
        """The same images in the order of another seed; they are on the device only once."""
        other = copy.copy(self)
        other.seed = seed
        return other

    def shuffled(self, part: str) -> Loader:
        """The same images, those of one part in another order: that of the seed."""
        other = copy.copy(self)
        order_N = torch.randperm(len(self.indices[part]), generator=_generator(self.seed, "shuffled", 0))
        other.indices = {**self.indices, part: self.indices[part][order_N]}
        return other

    def steps(self, batch_size: int, drop_last: bool = False) -> int:
        """Number of training steps of an epoch."""
        images = len(self.indices["train"])
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
        """All training images once, augmented, and their labels.

        The augmentation of an image depends on the seed, the epoch and the image; not on its batch or its process.

        Args:
            batch_size: Images of a batch, over all processes.
            drop_last: Omit a last batch that is not full.
            first_step: Number of batches to skip, for resuming within an epoch.
            rank: Which slice of every batch is returned, counted from 0.
            world: Number of slices. Their sizes differ by at most one image; slices of small batches may be empty.

        Raises:
            RunError: A file of the data set is missing, or is not an image.
        """
        train_N = self.indices["train"]
        order_N = train_N[torch.randperm(len(train_N), generator=_generator(self.seed, "order", epoch))]
        augmentation = self.augmentation
        draws = augmentation.draws(partial(_generator, self.seed, epoch=epoch), len(self.dataset), self.device)
        steps = range(first_step, self.steps(batch_size, drop_last))
        batches = [order_N[step * batch_size : (step + 1) * batch_size] for step in steps]
        slices = [_slice(batch, rank, world) for batch in batches]
        for (images_BCHW, on_device_B), indices_B in zip(self._raw(slices), slices, strict=True):
            own = draws.of_batch(indices_B, on_device_B)
            x_BCHW = self._normalize(augmentation.change(images_BCHW, own))
            yield augmentation.erase(x_BCHW, own), self.labels_N[on_device_B]

    def evaluation(self, part: str, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All images of a part of the data in order, not augmented, and their labels.

        Args:
            part: `train`, `validation` or `test`.

        Raises:
            RunError: A file of the data set is missing, or is not an image.
        """
        for images_BCHW, indices_B in self._raw(list(torch.split(self.indices[part], batch_size))):
            yield self._normalize(images_BCHW), self.labels_N[indices_B]

    def _raw(self, batches: list[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The 8-bit images of each batch, and their indices; on the device."""
        if not batches:
            return
        # One transfer for all batches.
        on_device = torch.split(torch.cat(batches).to(self.device), [len(batch) for batch in batches])
        if self.images_NCHW is not None:
            for indices_B in on_device:
                yield self.images_NCHW.index_select(0, indices_B), indices_B
            return
        for images_BCHW, indices_B in zip(self._read([batch.tolist() for batch in batches]), on_device, strict=True):
            yield images_BCHW.to(self.device, non_blocking=True), indices_B

    def _read(self, batches: list[list[int]]) -> Iterator[torch.Tensor]:
        """The images of each batch, from files."""
        if not self.workers:
            yield from map(self.dataset.read, batches)
            return
        try:
            with closing(read_ahead(self.dataset, batches, self.workers)) as found:
                for images_BCHW in found:
                    yield images_BCHW.pin_memory() if self.device.type == "cuda" else images_BCHW
        except (BrokenProcessPool, OSError) as error:  # one was killed, perhaps for lack of memory, or cannot start
            raise RunError(
                f"data '{self.dataset.name}': a data worker has ended: {error} "
                "Try fewer data workers; with 0 the training process reads the images."
            ) from error

    def _normalize(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        x_BCHW = normalize(images_BCHW, self.mean_C11, self.scale_C11)
        return x_BCHW.contiguous(memory_format=self.memory_format)


def normalize(images_BCHW: torch.Tensor, mean_C11: torch.Tensor, scale_C11: torch.Tensor) -> torch.Tensor:
    """8-bit images as the network sees them; the scale is one over the standard deviation."""
    # Two operations, each rounded: a single one would be fused on some machines, and round differently.
    return images_BCHW.float().sub_(mean_C11).mul_(scale_C11)


def _generator(seed: int, stream: str, epoch: int) -> torch.Generator:
    """A generator of the CPU, so that the draws are the same on every device."""
    return torch.Generator().manual_seed(derive_seed(seed, stream, epoch))


def _slice(indices_B: torch.Tensor, rank: int, world: int) -> torch.Tensor:
    return indices_B[len(indices_B) * rank // world : len(indices_B) * (rank + 1) // world]
