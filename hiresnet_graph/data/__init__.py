"""Data sets: labelled images with a fixed split, in memory or streamed from files.

A data set is a kind in a registry, like a block; naming and listing data sets imports neither torch nor scikit-learn.
"""

from __future__ import annotations

from hiresnet_graph.data.cifar import Cifar10Data, Cifar100Data
from hiresnet_graph.data.digits import DigitsData
from hiresnet_graph.data.imagefolder import ImageFolderData
from hiresnet_graph.data.kind import DATASETS, DatasetKind, PublishedData
from hiresnet_graph.data.npz import NpzData
from hiresnet_graph.data.source import data_source, load_dataset
from hiresnet_graph.data.synthetic import SyntheticData
from hiresnet_graph.data.tiny_imagenet import TinyImagenetData

__all__ = [
    "DATASETS",
    "Cifar10Data",
    "Cifar100Data",
    "DatasetKind",
    "DigitsData",
    "ImageFolderData",
    "NpzData",
    "PublishedData",
    "SyntheticData",
    "TinyImagenetData",
    "data_source",
    "load_dataset",
]
