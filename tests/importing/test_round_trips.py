"""A network that was built, imported as a module: the spec describes the same network again."""

from __future__ import annotations

import copy

import pytest
import torch

from hiresnet_graph.importing import from_module
from hiresnet_graph.shipped import spec_names
from tests.importing.round_trips import round_trip, small

IN_TIME = {
    *("blt", "cornet_r", "cornet_rt", "frnn2", "frnn3", "frnn4", "frnn4_imagenet", "rcnn"),
    *("rnn_resnet1", "rnn_resnet2", "rnn_resnet3"),
}
"""Their code is unrolled, and has no steps: without the spec that their modules know, names and digests are others."""
QUICK = (
    "resnet20",
    "densenet40",
    "cornet_z",
    "unet",
    "hiresnet18",
    "hiresnet18_resnext_adjusted",
    "rnn_resnet3",
    "cornet_s",
)


@pytest.mark.parametrize("name", QUICK)
def test_a_shipped_spec_is_found_again(name: str) -> None:
    assert round_trip(name) == "digest"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(spec_names()) - set(QUICK)))
def test_every_shipped_spec_is_found_again(name: str) -> None:
    assert round_trip(name) == "digest"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(IN_TIME))
def test_unrolled_code_has_the_same_operations(name: str) -> None:
    assert round_trip(name, unrolled=True) == "wiring"


def test_networks_in_time_are_those_of_the_list() -> None:
    with torch.device("meta"):
        assert {name for name in spec_names() if "spec" in small(name).build().meta} == IN_TIME


def test_a_network_in_time_that_was_changed_is_traced() -> None:
    network = small("rnn_resnet3")
    shapes = {key: tuple(shape.frame) for key, shape in network.plan.inputs.items()}
    module = network.build().eval()
    imported = from_module(module, input=shapes, name="renamed")
    assert imported.network.name == "renamed" and imported.network.plan.folded is not None
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in imported.weights.items())
    other = copy.deepcopy(module)
    other.set_submodule("head.linear", torch.nn.Linear(module.head.linear.in_features, 3))
    assert from_module(other, input=shapes).network.plan.folded is None
    other = module.at(past="last")
    assert from_module(other, input=shapes).network.plan.folded is None
