"""A network that was built, imported as a module: the spec describes the same network again."""

from __future__ import annotations

import pytest

from hiresnet_graph.shipped import spec_names
from tests.importing.round_trips import round_trip

OTHER_NAMES = {
    *("blt", "cornet_r", "cornet_rt", "frnn2", "frnn3", "frnn4", "frnn4_imagenet", "rcnn"),
    *("rnn_resnet1", "rnn_resnet2", "rnn_resnet3"),
}
"""Networks in time are unrolled: a module has no steps."""
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


def expected(name: str) -> str:
    return "wiring" if name in OTHER_NAMES else "digest"


@pytest.mark.parametrize("name", QUICK)
def test_a_shipped_spec_is_found_again(name: str) -> None:
    assert round_trip(name) == expected(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(spec_names()) - set(QUICK)))
def test_every_shipped_spec_is_found_again(name: str) -> None:
    assert round_trip(name) == expected(name)


def test_most_have_all_their_names() -> None:
    assert set(spec_names()) >= OTHER_NAMES
    assert len(set(spec_names()) - OTHER_NAMES) == 32
