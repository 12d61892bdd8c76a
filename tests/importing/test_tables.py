"""All classification models of torchvision, and thirty of timm: imported with equal outputs, or named here."""

from __future__ import annotations

import pytest

from tests.importing.tables import MISSING, TIMM, outcome, torchvision_names

SHORT = ("resnet50", "densenet121", "efficientnet_b0", "vit_b_16")


@pytest.mark.slow
@pytest.mark.parametrize("name", torchvision_names())
def test_torchvision(name: str) -> None:
    _check("torchvision", name)


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str) -> None:
    _check("timm", name)


def _check(library: str, name: str) -> None:
    found = outcome(library, name)
    if name in MISSING:
        assert "there is no operation for" in found.missing or "cannot be expressed" in found.missing
        return
    assert not found.missing
    assert max(found.evaluation, found.training) <= 1e-10
    if name in SHORT:
        assert found.lines <= 80


def test_the_share_of_networks_that_can_be_imported() -> None:
    assert len(torchvision_names()) == 80 and len(TIMM) == len(set(TIMM)) == 30
    missing = [len(MISSING.keys() & names) for names in (torchvision_names(), TIMM)]
    assert missing == [4, 3] and sum(missing) == len(MISSING)
