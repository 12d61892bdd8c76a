"""What is checked of any data set before training, also of one in memory."""

import dataclasses
from pathlib import Path

import pytest
import torch

from hiresnet_graph import load
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.data.split import Split
from hiresnet_graph.errors import UsageError
from hiresnet_graph.train import Recipe, train


def small(classes: int, names: tuple[str, ...] = ()) -> Dataset:
    labels_N = torch.arange(12) % classes
    split = Split(tuple(range(6)), (6, 7, 8), (9, 10, 11))
    return Dataset("small", classes, torch.zeros(12, 1, 8, 8, dtype=torch.uint8), labels_N, split, names)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (small(1), r"^data 'small' has 1 class, and training requires two or more\. Add images of another class\.$"),
        (
            dataclasses.replace(small(3), classes=5),
            r"^data 'small': 2 of 5 classes have no training images: 3, 4\. Add images, or omit the classes\.$",
        ),
        (
            dataclasses.replace(small(3, ("ant", "bee", "cat")), split=Split((0, 1, 3, 4), (2, 5), (6, 7, 8))),
            r"^data 'small': 1 of 3 classes have no training images: cat\. Add images",
        ),
    ],
)
def test_every_class_requires_training_images(tmp_path: Path, data: Dataset, message: str) -> None:
    network = load("hiresnet18").override(
        {"width": 2, "classes": max(2, data.classes), "input.channels": 1, "input.height": 8, "input.width": 8}
    )
    with pytest.raises(UsageError, match=message):
        train(network, out=tmp_path / "run", data=data, recipe=Recipe(epochs=1, batch_size=2))
    assert not (tmp_path / "run").exists()


def test_all_classes_of_a_shipped_data_set_are_trained() -> None:
    assert load_dataset("digits").untrained_classes == ()
