import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image

from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.data.files import ImageFiles
from hiresnet_graph.data.split import Split
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.shapes import Map


def colours() -> Dataset:
    """Four 2x2 images in three channels; the first channel of the training images is 10 and 30."""
    images_NCHW = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    images_NCHW[0, 0], images_NCHW[1, 0], images_NCHW[2, 0] = 10, 30, 250
    return Dataset("colours", 2, images_NCHW, torch.tensor([0, 1, 0, 1]), Split((0, 1), (2,), (3,)))


def test_channel_statistics_use_only_the_training_images() -> None:
    mean_C11, std_C11 = colours().channel_stats
    assert mean_C11.flatten().tolist() == [20, 0, 0]
    # a channel without spread stays finite
    assert std_C11.flatten().tolist() == [10, 1, 1]


def test_channel_statistics_are_exact() -> None:
    digits = load_dataset("digits").with_shape(Map(3, 12, 10))
    std_C, mean_C = torch.std_mean(
        digits.images_NCHW[torch.tensor(digits.split.train)].double(), (0, 2, 3), correction=0
    )
    assert torch.equal(digits.channel_stats[0].flatten(), mean_C.float())
    assert torch.allclose(digits.channel_stats[1].flatten(), std_C.float(), rtol=1e-7)


def test_a_given_normalization_replaces_the_statistics() -> None:
    """In the units of torchvision's `Normalize` after `ToTensor`."""
    plain, given = load_dataset("digits"), load_dataset("digits:mean=0.5,std=0.25")
    assert [level.flatten().tolist() for level in given.with_shape(Map(3, 8, 8)).channel_stats] == [
        [127.5] * 3,
        [63.75] * 3,
    ]
    assert given.fingerprint() != plain.fingerprint()
    wrong = load_dataset("digits:mean=0,0,std=1")
    with pytest.raises(UsageError, match=r"^data 'digits': 'mean' must have one number, or one for each of 1 channels"):
        wrong.channel_stats  # noqa: B018


def test_grey_is_repeated_for_a_colour_network() -> None:
    digits = load_dataset("digits")
    assert digits.with_shape(Map(1, 8, 8)) is digits
    colour = digits.with_shape(Map(3, 8, 8))
    assert colour.shape == Map(3, 8, 8)
    assert all(torch.equal(colour.images_NCHW[:, c], digits.images_NCHW[:, 0]) for c in range(3))
    assert digits.with_shape(Map(3, 16, 16)).shape == Map(3, 16, 16)
    assert digits.remarks() == ()
    assert colour.remarks() == ("Data 'digits': images of 1x8x8 are converted to 3x8x8 (grey repeated).",)
    wide = digits.with_shape(Map(1, 8, 16))
    assert wide.remarks() == ("Data 'digits': images of 1x8x8 are converted to 1x8x16 (resized bilinearly).",)


def test_conversion_starts_from_the_stored_images() -> None:
    digits = load_dataset("digits")
    small = digits.with_shape(Map(1, 2, 2))
    assert small.with_shape(Map(1, 16, 16)).fingerprint() == digits.with_shape(Map(1, 16, 16)).fingerprint()
    assert torch.equal(small.with_shape(Map(1, 8, 8)).images_NCHW, digits.images_NCHW)
    assert digits.with_shape(Map(1, 2, 2)) is small, "fingerprint and statistics must not be computed again"


def test_images_are_resized_bilinearly() -> None:
    images_NCHW = torch.tensor([[[[0, 100], [0, 100]]]], dtype=torch.uint8)
    ramp = Dataset("ramp", 1, images_NCHW, torch.tensor([0]), Split((0,), (), ()))
    assert ramp.with_shape(Map(1, 4, 4)).images_NCHW.tolist() == [[[[0, 25, 75, 100]] * 4]]
    assert ramp.with_shape(Map(1, 1, 1)).images_NCHW.tolist() == [[[[50]]]]
    assert ramp.with_shape(Map(1, 2, 4)).images_NCHW.tolist() == [[[[0, 25, 75, 100]] * 2]]


def test_colour_is_not_converted_to_grey() -> None:
    with pytest.raises(UsageError, match=r"3 channels, the network expects 1\. Set 'input.channels=3'"):
        colours().with_shape(Map(1, 2, 2))


def test_the_fingerprint_depends_on_images_labels_and_split() -> None:
    base = colours()
    others = [
        dataclasses.replace(base, split=Split((0, 2), (1,), (3,))),
        dataclasses.replace(base, labels_N=1 - base.labels_N),
        dataclasses.replace(base, images=base.images + 1),
        dataclasses.replace(base, images=base.images.view(4, 3, 1, 4)),
        dataclasses.replace(base, classes=3),
        base.with_shape(Map(3, 4, 4)),
        base.with_shape(Map(3, 4, 2)),
    ]
    assert len({data.fingerprint() for data in [base, *others]}) == 8
    named = dataclasses.replace(base, name="other", class_names=("a", "b"), images=base.images.clone())
    assert named.fingerprint() == base.fingerprint()


def write_images(folder: Path, count: int) -> ImageFiles:
    generator = torch.Generator().manual_seed(0)
    for index in range(count):
        pixels_HWC = torch.randint(256, (6, 6, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels_HWC.numpy()).save(folder / f"{index}.png")
    return ImageFiles(folder, tuple(f"{index}.png" for index in range(count)), Map(3, 6, 6))


def test_the_fingerprint_of_streamed_images_depends_on_their_files(tmp_path: Path) -> None:
    files = write_images(tmp_path, 4)

    def made(names: tuple[str, ...] = files.names, shape: Map = files.shape) -> Dataset:
        return dataclasses.replace(colours(), images=ImageFiles(tmp_path, names, shape))

    first = made().fingerprint()
    assert made().fingerprint() == first
    assert made(files.names[::-1]).fingerprint() != first
    assert made(shape=Map(3, 5, 5)).fingerprint() != first
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes() + b"\0")
    assert made().fingerprint() != first
    (tmp_path / "2.png").unlink()
    with pytest.raises(RunError, match=r"2\.png: this image of the data set is missing"):
        made().fingerprint()


def test_channel_statistics_of_many_streamed_images_use_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hiresnet_graph.data.dataset._SAMPLE", 4)
    files = write_images(tmp_path, 10)
    streamed = Dataset("files", 1, files, torch.zeros(10).long(), Split(tuple(range(9)), (9,), ()))
    sample = dataclasses.replace(streamed, images=files.load(False), split=Split((0, 3, 6), (9,), ()))
    assert all(torch.equal(a, b) for a, b in zip(streamed.channel_stats, sample.channel_stats, strict=True))
