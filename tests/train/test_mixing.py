"""Mixup and CutMix. Axes: B images of a batch, C channels, H height, W width, K classes."""

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torchvision.transforms import v2

from hiresnet_graph.train import Recipe
from hiresnet_graph.train.mixing import Mixing, main_labels


def batch(size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size, 2, 8, 9, generator=generator), torch.arange(size) % 4


def mixed(step: int = 0, epoch: int = 0, seed: int = 0, **fields: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return Mixing(Recipe(**fields), 4, seed)(*batch(), epoch, step)


def test_mixup_is_that_of_torchvision() -> None:
    for step in range(5):
        x_BCHW, targets_BK = mixed(step, mixup=0.4)
        share = targets_BK[0, 0].item()  # the images before and after the first have other labels
        with patch.object(v2.MixUp, "make_params", lambda *_, share=share: {"lam": share}):
            expected_BCHW, expected_BK = v2.MixUp(num_classes=4)(*batch())
        torch.testing.assert_close(x_BCHW, expected_BCHW)
        torch.testing.assert_close(targets_BK, expected_BK)


def test_cutmix_is_that_of_torchvision() -> None:
    old_BCHW = batch()[0]
    sizes = set()
    for step in range(20):
        x_BCHW, targets_BK = mixed(step, cutmix=1.0)
        changed_HW = (x_BCHW != old_BCHW).any(1).any(0)
        rows, columns = (changed_HW.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if rows else (0, 0, 0, 0)
        sizes.add(len(rows) * len(columns))
        made = {"box": box, "lam_adjusted": 1 - len(rows) * len(columns) / 72}
        with patch.object(v2.CutMix, "make_params", lambda *_, made=made: made):
            expected_BCHW, expected_BK = v2.CutMix(num_classes=4)(*batch())
        assert torch.equal(x_BCHW, expected_BCHW)
        torch.testing.assert_close(targets_BK, expected_BK)
    assert len(sizes) > 8


def test_shares_are_distributed_as_those_of_torchvision() -> None:
    torch.manual_seed(0)
    up, cut = v2.MixUp(alpha=0.4, num_classes=4), v2.CutMix(alpha=1.0, num_classes=4)
    image = torch.zeros(1, 2, 8, 9)
    theirs = {"mixup": [up.make_params([image])["lam"] for _ in range(800)]}
    theirs["cutmix"] = [cut.make_params([image])["lam_adjusted"] for _ in range(800)]
    for name, alpha in (("mixup", 0.4), ("cutmix", 1.0)):
        ours = [mixed(step, **{name: alpha})[1][0, 0].item() for step in range(800)]
        assert kstest(np.round(ours, 4), np.round(theirs[name], 4)).pvalue > 1e-3


def test_a_batch_is_mixed_by_its_seed_epoch_and_step() -> None:
    both: dict[str, Any] = {"mixup": 0.4, "cutmix": 1.0}
    assert all(torch.equal(*pair) for pair in zip(mixed(3, 1, 2, **both), mixed(3, 1, 2, **both), strict=True))
    for other in ((4, 1, 2), (3, 2, 2), (3, 1, 3)):
        assert not torch.equal(mixed(3, 1, 2, **both)[0], mixed(*other, **both)[0])
    same_HW = [(mixed(step, **both)[0] == batch()[0]).flatten(0, 1).all(0) for step in range(200)]
    assert np.mean([bool(one_HW.any()) for one_HW in same_HW]) == pytest.approx(0.5, abs=0.12)  # those of CutMix


def test_mixing_keeps_what_is_not_mixed() -> None:
    x_BCHW, labels_B = batch()
    assert mixed()[0].equal(x_BCHW) and mixed()[1].equal(labels_B)
    last_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
    for fields in ({"mixup": 1.0}, {"cutmix": 1.0}):
        found_BCHW, _ = Mixing(Recipe(**fields), 4, 0)(last_BCHW, labels_B, 0, 0)
        assert found_BCHW.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(last_BCHW, x_BCHW)
    assert main_labels(torch.tensor([[0.3, 0.7], [0.6, 0.4]])).tolist() == [1, 0]
    assert main_labels(labels_B) is labels_B
