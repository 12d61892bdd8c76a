"""A trained network on a device, with the images that it is evaluated on: what every analysis starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.data.loader import Loader
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.train.checks import match_input
from hiresnet_graph.train.environment import choose_device, torch_settings
from hiresnet_graph.train.evaluation import BATCH, Output, Part
from hiresnet_graph.train.prepare import stored_source
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import RunRecord, read_settings
from hiresnet_graph.train.trainer import Batch, compute_logits, image_format, memory_errors, move_to


class TrainedNetwork(NamedTuple):
    """A network with its weights, and its images.

    Attributes:
        module: In evaluation mode, on the device.
    """

    arch: Architecture
    module: nn.Module
    loader: Loader
    recipe: Recipe

    def batches(self, part: Part, size: int | None = None, *, is_shuffled: bool = False) -> Iterator[Batch]:
        """The images of a part of the data, as in the test after training, and their labels.

        Args:
            size: Images of a batch (default: as in the test after training).
            is_shuffled: In a random order, always the same.

        Raises:
            UsageError: The part has no images.
        """
        if not len(self.loader.indices[part]):
            raise UsageError(
                f"data '{self.loader.dataset.name}' has no {part} images to evaluate the network on. Use another part "
                "('--part'), or data with one."
            )
        loader = self.loader.shuffled(part) if is_shuffled else self.loader
        return loader.evaluation(part, size or BATCH[loader.device.type])

    def count_images(self, part: Part) -> int:
        """Number of images of a part of the data."""
        return len(self.loader.indices[part])

    def logits(self, forward: Callable[[torch.Tensor], Output], x_BCHW: torch.Tensor) -> torch.Tensor:
        """The main output of a form of the network, in the precision of its recipe, as float32."""
        return compute_logits(forward, x_BCHW, self.recipe)[0]


@contextmanager
def open_trained(
    where: str,
    arch: Architecture,
    load: Callable[[Architecture], nn.Module],
    dataset: Dataset,
    recipe: Recipe,
    *,
    device: str,
    threads: int,
) -> Iterator[TrainedNetwork]:
    """Within, the network is on a device, and torch has the settings of its run and computes no gradients.

    Args:
        where: What is computed, for messages.
        load: Builds the network with its weights, in evaluation mode.
        dataset: With images in the input shape of the network.
        device: As for `train`.
    """
    target = choose_device(device)
    layout = image_format(recipe, arch.plan)
    with memory_errors(where), torch.no_grad(), torch_settings(target, threads, recipe.precision == "tf32"):
        module = move_to(load(arch), target, layout)
        yield TrainedNetwork(arch, module, Loader(dataset, device=target, memory_format=layout), recipe)


def dataset_of_run(folder: Path, record: RunRecord, arch: Architecture, data: Dataset | None = None) -> Dataset:
    """The data of a run with images in the input shape of the network, checked to be those of its training.

    Args:
        data: Those that the run was trained on, if they were passed in memory.

    Raises:
        RunError: They have changed, or were passed in memory.
        UsageError: They cannot be found.
    """
    dataset = match_input(data or stored_dataset(folder), arch.plan, record.recipe.outputs)
    if dataset.fingerprint() != record.data_fingerprint:
        raise RunError(
            f"{folder}: data '{dataset.name}' are not what this run was trained on: images, split or size differ."
        )
    return dataset


def stored_dataset(folder: Path) -> Dataset:
    """The data that the run in a folder was trained on.

    Raises:
        RunError: They were passed in memory, or the folder does not name them.
        UsageError: They cannot be found.
    """
    source = stored_source(read_settings(folder))
    if source is None:
        raise RunError(f"{folder}: this run was trained on images in memory. Pass them again: 'data=...'.")
    return load_dataset(source)
