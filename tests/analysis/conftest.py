"""A trained network, and its test images."""

from pathlib import Path

import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.data import load_dataset
from hiresnet_graph.train import Run


@pytest.fixture(scope="session")
def trained(small_study: Path) -> Run:
    """A run of the network with all skips."""
    return hrg.load_run(small_study / "runs" / "full-seed0")


@pytest.fixture(scope="session")
def images(trained: Run) -> tuple[torch.Tensor, torch.Tensor]:
    """The test images as input of the network, and their labels."""
    digits = load_dataset("digits")
    indices = list(digits.split.test)
    return trained.preprocess(digits.images_NCHW[indices]), digits.labels_N[indices]
