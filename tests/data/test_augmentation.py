"""Random changes of training images, compared with torchvision's. Axes: N images, C channels, H height, W width."""

import itertools

import pytest
import torch
from scipy.stats import chisquare, kstest
from torchvision.transforms import v2

from hiresnet_graph.data.augmentation import Augmentation, apply_each, erased_boxes, rand_augment_operations
from hiresnet_graph.shapes import Map

NAMES = {
    **dict.fromkeys(
        ["ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness"], 2
    ),
    **dict.fromkeys(["Identity", "Posterize", "Solarize", "AutoContrast", "Equalize"], 1),
}
"""The operations of torchvision's RandAugment, with their numbers of directions."""


def images(count: int, shape: Map) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, *shape), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(("shape", "magnitude"), [(Map(3, 20, 33), 9), (Map(1, 8, 8), 17), (Map(3, 16, 16), 30)])
def test_the_operations_of_rand_augment_are_those_of_torchvision(shape: Map, magnitude: int) -> None:
    x_NCHW, operations = images(4, shape), rand_augment_operations(magnitude, shape)
    expected: dict[str, set[bytes]] = {}
    torch.manual_seed(0)
    for name in NAMES:
        one = type("One", (v2.RandAugment,), {"_AUGMENTATION_SPACE": {name: v2.RandAugment._AUGMENTATION_SPACE[name]}})
        outcomes = [one(num_ops=1, magnitude=magnitude)(x_NCHW) for _ in range(16)]
        expected[name] = {outcome.numpy().tobytes() for outcome in outcomes}
    found = [operation(x_NCHW).numpy().tobytes() for operation in operations]
    names = [*itertools.chain(*([name] * count for name, count in NAMES.items()))]
    names += [name for name, count in NAMES.items() if count == 1]  # twice, so that all are equally probable
    for name, outcome in zip(names, found, strict=True):
        assert outcome in expected[name], name
    assert {*found} == set().union(*expected.values())


def test_each_image_has_operations_of_its_own() -> None:
    shape = Map(3, 12, 12)
    x_NCHW, operations = images(60, shape), rand_augment_operations(9, shape)
    indices_N = torch.arange(60) * 7 % len(operations)
    changed_NCHW = apply_each(operations, indices_N, x_NCHW)
    assert all(torch.equal(changed_NCHW[k : k + 1], operations[indices_N[k]](x_NCHW[k : k + 1])) for k in range(60))
    assert apply_each(operations, indices_N[:0], x_NCHW[:0]).shape == (0, *shape)
    draws = Augmentation(shape, rand_augment=9).draws(lambda _: torch.Generator().manual_seed(0), 9000, x_NCHW.device)
    assert draws.operations_RN is not None and draws.boxes_N4 is None
    pairs_N = draws.operations_RN[0] * len(operations) + draws.operations_RN[1]
    assert chisquare(pairs_N.bincount(minlength=len(operations) ** 2)).pvalue > 1e-3


@pytest.mark.parametrize("shape", [Map(1, 24, 24), Map(1, 16, 40)])
def test_erased_rectangles_are_distributed_as_those_of_torchvision(shape: Map) -> None:
    boxes_N4 = erased_boxes(torch.Generator().manual_seed(1), 4000, shape, 1.0)
    torch.manual_seed(2)
    theirs = v2.RandomErasing(p=1)
    drawn = [theirs.make_params([torch.zeros(*shape)]) for _ in range(1500)]
    for i, (start, size) in enumerate([("i", "h"), ("j", "w")]):
        low_N, high_N = boxes_N4[:, 2 * i], boxes_N4[:, 2 * i + 1]
        assert kstest(low_N.numpy(), [one[start] for one in drawn]).pvalue > 1e-3
        assert kstest((high_N - low_N).numpy(), [one[size] for one in drawn]).pvalue > 1e-3
        assert int(low_N.min()) == 0 and int(high_N.max()) == shape.spatial[i]


def test_what_is_erased_is_the_mean() -> None:
    shape, device = Map(2, 9, 10), torch.device("cpu")
    augmentation = Augmentation(shape, random_erasing=0.3)
    draws = augmentation.draws(lambda _: torch.Generator().manual_seed(0), 2000, device)
    x_NCHW = augmentation.erase(torch.ones(2000, *shape), draws)
    assert draws.boxes_N4 is not None
    for one_CHW, (top, bottom, left, right) in zip(x_NCHW, draws.boxes_N4.tolist(), strict=True):
        assert one_CHW.sum() == 2 * (90 - (bottom - top) * (right - left))
        assert not one_CHW[:, top:bottom, left:right].any()
    share = (x_NCHW == 0).any(3).any(2).any(1).float().mean().item()
    assert share == pytest.approx(0.3, abs=0.04)
