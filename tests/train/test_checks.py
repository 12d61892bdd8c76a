"""What is checked of a data set before training, also of one in memory, and whether it fits a network."""

import dataclasses
from pathlib import Path

import pytest
import torch

from hiresnet_graph import load, loads
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.data.split import Split
from hiresnet_graph.errors import UsageError
from hiresnet_graph.train import Recipe, train
from hiresnet_graph.train.checks import match_input


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


HEAD = "name: net\ninput: {channels: 1, height: 8, width: 8}\n"
ENDS = {
    "nodes: {a: {block: conv, width: 4}, b: {block: classifier, classes: 5}}\nflow: a -> b\n": (
        "5",
        "Set 'b.classes=10'.",
    ),
    "nodes: {a: flatten, b: {block: linear, width: 5}}\nflow: a -> b\n": ("5", "Set 'b.width=10'."),
    "nodes: {a: flatten, b: {block: linear, width: 5}, c: {block: fixed_scale, factor: 2.0}}\nflow: a -> b -> c\n": (
        "5",
        "Set 'b.width=10'.",
    ),
    "nodes: {a: {block: conv, width: 4}}\n": (
        "4x8x8",
        "End the spec with a node like 'head: {block: classifier, classes: 10}'.",
    ),
    "nodes: {a: {block: classifier, classes: 10}, b: {block: classifier, classes: 5}}\n"
    "flow: [input -> a, input -> b]\noutputs: [a, b]\n": (
        "10, 5",
        "End the spec with a node like 'head: {block: classifier, classes: 10}'.",
    ),
    "nodes: {a: {block: classifier, classes: 5}}\nedges: [{from: a, to: a, slot: output, delay: 1}]\n"
    "time: {steps: 3, readout: all}\n": ("3x5", "Set 'a.classes=10'."),
}


@pytest.mark.parametrize("text", ENDS)
def test_a_network_for_other_classes_is_refused_with_the_field_to_change(text: str) -> None:
    shapes, hint = ENDS[text]
    with pytest.raises(UsageError) as error:
        match_input(load_dataset("digits"), loads(HEAD + text).plan)
    assert str(error.value) == (
        f"'net' gives {shapes}, but data 'digits' has 10 classes: training requires one output of 10 values. {hint}"
    )


def test_a_network_of_other_inputs_is_refused() -> None:
    two = "name: net\ninput: {x: {channels: 1, height: 8, width: 8}, y: {channels: 2}}\nnodes:\n"
    two += "  a: {block: classifier, classes: 10}\n  b: {block: linear, width: 10}\n  c: identity\n"
    two += "flow: [x -> a -> c, y -> b -> c]\n"
    with pytest.raises(UsageError) as error:
        match_input(load_dataset("digits"), loads(two).plan)
    message = "'net' takes x (1x8x8), y (2); training requires one input of channels x height x width."
    assert str(error.value) == message
    vector = "name: net\ninput: {channels: 64}\nnodes: {a: {block: linear, width: 10}}\n"
    with pytest.raises(UsageError) as error:
        match_input(load_dataset("digits"), loads(vector).plan)
    assert str(error.value) == "'net' takes input (64); training requires one input of channels x height x width."


def test_images_take_the_shape_of_the_network() -> None:
    text = "name: net\ninput: {channels: 3, height: 12, width: 12}\nnodes: {a: {block: classifier, classes: 10}}\n"
    assert match_input(load_dataset("digits"), loads(text).plan).shape == loads(text).plan.inputs["input"]
