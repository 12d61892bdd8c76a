"""Data sets: labelled images in memory, with a split that never moves.

A data set is a kind in a registry, like a block; listing the kinds imports neither torch nor scikit-learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hiresnet_graph.data.digits import DigitsData
from hiresnet_graph.data.kind import DATASETS, DatasetKind
from hiresnet_graph.errors import RegistryError, UsageError

if TYPE_CHECKING:
    from hiresnet_graph.data.dataset import Dataset

__all__ = ["DATASETS", "DatasetKind", "DigitsData", "load_dataset"]


def load_dataset(name: str) -> Dataset:
    """The data set of this name, with its standard split.

    Raises:
        UsageError: There is none; the message has the closest name.
    """
    try:
        kind = DATASETS.get(name)
    except RegistryError as error:
        raise UsageError(str(error)) from None
    return kind().load()
