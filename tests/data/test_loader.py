"""Batches. Axes: B images of a batch, C channels, H height, W width."""

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
import torchvision.transforms.functional as transforms
from PIL import Image
from scipy.stats import chisquare

from hiresnet_graph.data import SyntheticData, data_source, load_dataset
from hiresnet_graph.data.augmentation import Augmentation
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.data.loader import Loader
from hiresnet_graph.data.split import Split
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.shapes import Map

CPU = torch.device("cpu")
Batches = list[tuple[torch.Tensor, torch.Tensor]]


def noise(images: int, shape: Map, *, alike: bool = False) -> Dataset:
    """Images of noise, all for training but the last; equal if `alike`. The label of each is its index."""
    generator = torch.Generator().manual_seed(0)
    one = torch.randint(1, 256, (1 if alike else images, *shape), generator=generator, dtype=torch.uint8)
    split = Split(tuple(range(images - 1)), (images - 1,), ())
    return Dataset("noise", images, one.repeat(images if alike else 1, 1, 1, 1), torch.arange(images), split)


def levels(dataset: Dataset, x_BCHW: torch.Tensor) -> torch.Tensor:
    """The 8-bit images before normalisation."""
    mean_C11, std_C11 = dataset.channel_stats
    levels_BCHW = x_BCHW * std_C11 + mean_C11
    assert (levels_BCHW - levels_BCHW.round()).abs().max() < 1e-3
    return levels_BCHW.round().to(torch.uint8)


def equal(one: Batches, two: Batches) -> bool:
    assert one and two
    return len(one) == len(two) and all(
        torch.equal(x, y) and torch.equal(a, b) for (x, a), (y, b) in zip(one, two, strict=True)
    )


def by_label(batches: Batches) -> dict[int, bytes]:
    found = {int(k): x.numpy().tobytes() for x_BCHW, labels in batches for x, k in zip(x_BCHW, labels, strict=True)}
    assert len(found) == sum(len(labels) for _, labels in batches)
    return found


# -------------------------------------------------------------------------------------------- the same as torchvision's


@pytest.mark.parametrize(("augment", "padding"), [("crop+flip", 1), ("crop", 2), ("flip", None), ("crop+flip", None)])
def test_augmented_images_are_those_of_torchvision_and_equally_frequent(augment: str, padding: int | None) -> None:
    """RandomCrop(size, padding) and RandomHorizontalFlip() on one image of noise, whose crops all differ."""
    count, shape = 8000, Map(3, 8, 9)
    dataset = noise(count, shape, alike=True)
    image = dataset.images_NCHW[0]
    edge = 0 if "crop" not in augment else padding or 1
    padded = transforms.pad(image, [edge])
    crops = [transforms.crop(padded, y, x, 8, 9) for y in range(2 * edge + 1) for x in range(2 * edge + 1)]
    outcomes = [*crops, *(transforms.hflip(crop) for crop in crops)] if "flip" in augment else crops
    expected = {outcome.numpy().tobytes() for outcome in outcomes}
    assert len(expected) == len(outcomes)

    loader = Loader(dataset, device=CPU, augment=augment, crop_padding=padding, seed=3)
    found = Counter(one.numpy().tobytes() for x_BCHW, _ in loader.training(1, 1000) for one in levels(dataset, x_BCHW))
    assert set(found) == expected
    assert chisquare(list(found.values())).pvalue > 1e-3


def test_crop_and_flip_are_drawn_independently() -> None:
    draws = Augmentation(Map(1, 8, 8), "crop+flip").draws(lambda _: torch.Generator().manual_seed(1), 9000, CPU)
    counts = Counter(zip(*(draw.tolist() for draw in draws[:3]), strict=True))
    assert len(counts) == 3 * 3 * 2
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_normalisation_equals_that_of_torchvision() -> None:
    dataset = load_dataset(SyntheticData(images=200))
    mean_C, std_C = (level.flatten() / 255 for level in dataset.channel_stats)
    for x_BCHW, labels_B in Loader(dataset, device=CPU).evaluation("train", 50):
        assert x_BCHW.dtype == torch.float32 and labels_B.dtype == torch.int64
    test = torch.tensor(dataset.split.test)
    expected_BCHW = transforms.normalize(dataset.images_NCHW[test] / 255, mean_C.tolist(), std_C.tolist())
    ((x_BCHW, labels_B),) = Loader(dataset, device=CPU).evaluation("test", 500)
    assert torch.allclose(x_BCHW, expected_BCHW, rtol=1e-5, atol=2e-6)
    assert torch.equal(labels_B, dataset.labels_N[test])


def test_padding_is_black_before_normalisation() -> None:
    dataset = noise(500, Map(1, 8, 8))
    loader = Loader(dataset, device=CPU, augment="crop", crop_padding=4)
    darkest = -dataset.channel_stats[0].item() / dataset.channel_stats[1].item()
    assert min(x_BCHW.min().item() for x_BCHW, _ in loader.training(1, 100)) == pytest.approx(darkest)


def test_the_default_padding_is_an_eighth_of_the_height() -> None:
    def edge(height: int, given: int | None = None) -> int:
        return Augmentation(Map(1, height, 40), "crop", given).padding

    assert [edge(32), edge(8), edge(4), edge(32, 2)] == [4, 1, 1, 2]


# ------------------------------------------------------------------------------------------------------ random numbers


def test_augmentation_depends_only_on_seed_epoch_and_image() -> None:
    dataset = noise(61, Map(3, 8, 8))

    def seen(batch_size: int, epoch: int = 2, seed: int = 0, augment: str = "crop+flip") -> dict[int, bytes]:
        loader = Loader(dataset, device=CPU, augment=augment, rand_augment=9, random_erasing=0.5, seed=seed)
        return by_label(list(loader.training(epoch, batch_size)))

    assert len(seen(7)) == 60
    assert seen(7) == seen(60) == seen(1)
    assert seen(7) != seen(7, epoch=3)
    assert seen(7) != seen(7, seed=1)
    # fewer training images, another order: the same augmentation of the remaining ones
    fewer = dataclasses.replace(dataset, split=Split(tuple(range(0, 60, 2)), (60,), ()))
    loader = Loader(dataclasses.replace(fewer), device=CPU, augment="flip", rand_augment=9, random_erasing=0.5)
    loader.mean_C11, loader.scale_C11 = Loader(dataset, device=CPU).mean_C11, Loader(dataset, device=CPU).scale_C11
    every, half = seen(7, augment="flip"), by_label(list(loader.training(2, 7)))
    assert len(half) == 30 and all(every[label] == image for label, image in half.items())


def test_the_order_depends_only_on_seed_and_epoch() -> None:
    def order(seed: int, epoch: int, augment: str = "none") -> list[int]:
        loader = Loader(noise(41, Map(1, 8, 8)), device=CPU, augment=augment, seed=seed)
        return torch.cat([labels_B for _, labels_B in loader.training(epoch, 10)]).tolist()

    assert sorted(order(0, 1)) == list(range(40)) != order(0, 1)
    assert order(0, 1) == order(0, 1, "crop")
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (1, 2)}) == 4
    # Recorded values: runs of earlier versions can be repeated.
    assert order(0, 1)[:5] == [1, 17, 37, 33, 21]


def test_a_resumed_epoch_has_the_same_batches() -> None:
    loader = Loader(noise(61, Map(3, 8, 8)), device=CPU, augment="crop+flip", rand_augment=9, random_erasing=0.5)
    whole = list(loader.training(1, 7))
    assert [len(labels_B) for _, labels_B in whole] == [7] * 8 + [4]
    assert equal(list(loader.training(1, 7, first_step=5)), whole[5:])
    assert list(loader.training(1, 7, first_step=9)) == []


def test_drop_last_omits_the_last_batch() -> None:
    loader = Loader(noise(61, Map(3, 8, 8)), device=CPU, augment="crop+flip")
    assert equal(list(loader.training(1, 7, drop_last=True)), list(loader.training(1, 7))[:-1])
    assert [loader.steps(7), loader.steps(7, True), loader.steps(60, True), loader.steps(61, True)] == [9, 8, 1, 0]


@pytest.mark.parametrize("world", [2, 3])
def test_the_slices_of_all_ranks_are_the_full_batch(world: int) -> None:
    loader = Loader(noise(61, Map(3, 8, 8)), device=CPU, augment="crop+flip", rand_augment=9, random_erasing=0.5)
    ranks = [list(loader.training(1, 7, rank=rank, world=world)) for rank in range(world)]
    joined = [tuple(torch.cat(part) for part in zip(*batch, strict=True)) for batch in zip(*ranks, strict=True)]
    assert equal(joined, list(loader.training(1, 7)))


def test_batches_have_the_requested_memory_format() -> None:
    dataset = noise(11, Map(3, 8, 8))
    plain = Loader(dataset, device=CPU, augment="crop+flip")
    last = Loader(dataset, device=CPU, augment="crop+flip", memory_format=torch.channels_last)
    (x_BCHW, _), (y_BCHW, _) = next(plain.training(1, 10)), next(last.training(1, 10))
    assert x_BCHW.is_contiguous() and y_BCHW.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x_BCHW, y_BCHW)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"augment": "rotate"}, r"augment: expected one of none, flip, crop, crop\+flip, not 'rotate'"),
        ({"augment": "crop", "crop_padding": 8}, r"crop_padding: expected a number from 1 to 7 .* 8x9, not 8"),
        ({"rand_augment": 9}, r"rand_augment: requires grey or colour images .* not 2 channels\. Omit it\."),
    ],
)
def test_an_invalid_augmentation_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Loader(noise(2, Map(2, 8, 9)), device=CPU, **fields)


# -------------------------------------------------------------------------------------------------------------- streams


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of 20 images of different sizes."""
    generator = torch.Generator().manual_seed(0)
    for index in range(40):
        size = (12 + index % 3, 12 + index % 5, 3)
        pixels_HWC = torch.randint(256, size, generator=generator, dtype=torch.uint8)
        folder = tmp_path / "pictures" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels_HWC.numpy()).save(folder / f"{index:02}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_images_equal_those_in_memory(pictures: Path, workers: int) -> None:
    def loader(stream: bool, workers: int = 0) -> Loader:
        source = data_source({"kind": "imagefolder", "dir": pictures, "size": 12, "stream": stream})
        dataset = load_dataset(source).with_shape(Map(3, 9, 9))
        assert dataset.is_streamed == stream
        return Loader(dataset, device=CPU, augment="crop+flip", rand_augment=9, random_erasing=0.5, workers=workers)

    memory, stream = loader(False), loader(True, workers)
    assert equal(list(stream.training(1, 7)), list(memory.training(1, 7)))
    assert equal(
        list(stream.training(1, 7, first_step=2, rank=1, world=2)),
        list(memory.training(1, 7, first_step=2, rank=1, world=2)),
    )
    assert equal(list(stream.evaluation("test", 3)), list(memory.evaluation("test", 3)))
    # interrupted within an epoch, then started again
    next(stream.training(1, 7))
    assert equal(list(stream.training(2, 7)), list(memory.training(2, 7)))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_disappears_during_training_is_named(pictures: Path, workers: int) -> None:
    dataset = load_dataset({"kind": "imagefolder", "dir": pictures, "stream": True})
    loader = Loader(dataset, device=CPU, workers=workers)
    batches = loader.training(1, 2)
    next(batches)
    numbered = Loader(dataclasses.replace(dataset, labels_N=torch.arange(40)), device=CPU)
    *_, (_, indices_B) = numbered.training(1, 2)
    lost = pictures / dataset.images.names[int(indices_B[-1])]
    lost.unlink()
    with pytest.raises(RunError, match=rf"{lost}: this image of the data set is missing") as caught:
        list(batches)
    assert "Traceback" not in str(caught.value)
    assert not multiprocessing.active_children(), "the data workers must end with it"


def test_killed_data_workers_are_reported(pictures: Path) -> None:
    dataset = load_dataset({"kind": "imagefolder", "dir": pictures, "stream": True})
    batches = Loader(dataset, device=CPU, workers=2).training(1, 2)
    next(batches)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(RunError, match=r"a data worker has ended: .* Try fewer data workers"):
        list(batches)
    assert not multiprocessing.active_children()


def test_data_workers_end_with_a_killed_training_process(pictures: Path) -> None:
    code = f"""
import multiprocessing, os, signal, torch
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.loader import Loader

dataset = load_dataset({{"kind": "imagefolder", "dir": {str(pictures)!r}, "stream": True}})
batches = Loader(dataset, device=torch.device("cpu"), workers=2).training(1, 2)
next(batches)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    workers = [Path("/proc", pid, "status") for pid in done.stdout.split()]
    assert len(workers) == 2
    until = time.monotonic() + 20
    while any(worker.exists() and "zombie" not in worker.read_text() for worker in workers):
        assert time.monotonic() < until, "a data worker outlives its training process"
        time.sleep(0.05)
