"""Checks before training: the smallest batch of an epoch, compared with what torch can compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.errors import UsageError
from hiresnet_graph.lower import build
from hiresnet_graph.sweep import plan_study, read_study
from hiresnet_graph.train import Recipe, train
from hiresnet_graph.train.checks import check_smallest_batch

ONE_PIXEL = """
name: one_pixel
input: {channels: 1, height: 8, width: 8}
nodes:
  a: {block: conv, width: 4, stride: 8}
  head: {block: classifier, classes: 10}
flow: a -> head
"""


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")  # 1,294 training images


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 100, 431, 1293, 1294])
@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_the_check_fails_if_torch_would(digits: Dataset, norm: str, batch_size: int, drop_last: bool) -> None:
    plan = hrg.loads(ONE_PIXEL).override({"a.norm": norm}).plan
    sizes = {batch_size} if drop_last else {batch_size, 1294 % batch_size or batch_size}
    module = build(plan).train()
    try:
        for size in sizes:
            module(torch.randn(size, 1, 8, 8))
        can = True
    except ValueError:
        can = False
    assert (check_smallest_batch(Recipe(batch_size=batch_size, drop_last=drop_last), digits, plan) == "") == can


def test_the_remedies_are_valid(digits: Dataset) -> None:
    plan = hrg.loads(ONE_PIXEL, "one.yaml").plan
    assert check_smallest_batch(Recipe(batch_size=431), digits, plan) == (
        "the last batch of an epoch has 1 of the 1,294 training images of data 'digits'. 'a.norm' (one.yaml:5:6) "
        "requires at least 2 images in training, since each channel has one value per image. Set 'drop_last: true' "
        "('--recipe drop_last=true') to omit it, or 'batch_size: 430' ('--batch-size 430')."
    )
    assert check_smallest_batch(Recipe(batch_size=430), digits, plan) == ""
    assert check_smallest_batch(Recipe(batch_size=1, drop_last=True), digits, plan).endswith(
        "Set 'batch_size: 2' ('--batch-size 2')."
    )
    # 1,294 images in batches of 100 leave 94, of which 48 processes have 1 or 2.
    assert "shared by 48 processes" in check_smallest_batch(Recipe(), digits, plan, processes=48)
    assert check_smallest_batch(Recipe(), digits, plan, processes=47) == ""


def test_a_last_batch_of_one_is_known_before_training(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^recipe: the last batch of an epoch has 1 of the 1,294"):
        train(hrg.loads(ONE_PIXEL), out=tmp_path / "run", recipe=Recipe(batch_size=431))
    assert not (tmp_path / "run").exists()
    (tmp_path / "one.yaml").write_text(ONE_PIXEL)
    for recipe in ("recipe: {batch_size: 431}", "grid: {recipe.batch_size: [100, 431]}"):
        (tmp_path / "study.yaml").write_text(f"network: one.yaml\ndata: digits\nvariants: {{x: {{}}}}\n{recipe}\n")
        with pytest.raises(hrg.SpecError, match=r"study.yaml:4:\d+: .*: variant 'x': the last batch of an epoch has 1"):
            plan_study(read_study(tmp_path / "study.yaml"))
