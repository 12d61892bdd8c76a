"""What a kind of data set must give, and the table of the kinds."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from hiresnet_graph.registry import Kind, Registry

if TYPE_CHECKING:
    from hiresnet_graph.data.dataset import Dataset


class DatasetKind(Kind):
    """A data set that can be loaded.

    Attributes:
        split_seed: Chooses which images are held out; one number for all runs that are compared.
    """

    split_seed: int = 0

    @abstractmethod
    def load(self) -> Dataset:
        """The images, the labels and the split."""


DATASETS: Registry[DatasetKind] = Registry("data set")
