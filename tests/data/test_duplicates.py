"""Images whose pixels are in several parts of the data are counted, and reported in one line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hiresnet_graph.data import data_source, load_dataset
from hiresnet_graph.shapes import Map


def save(path: Path, same: bool = True) -> Path:
    """30 training and 10 test images, of which two are training images; one training image is there twice."""
    random = np.random.RandomState(0)
    x, x_test = random.randint(0, 256, (30, 8, 8), np.uint8), random.randint(0, 256, (10, 8, 8), np.uint8)
    if same:
        x_test[:2] = x[:2]
        x[5] = x[4]
    np.savez(path, x_train=x, y_train=np.arange(30) % 2, x_test=x_test, y_test=np.arange(10) % 2)
    return path


def test_equal_images_in_different_parts_are_counted(tmp_path: Path) -> None:
    data = load_dataset(f"npz:{save(tmp_path / 'a.npz')},validation_share=0.5")
    part_of = {index: part for part, indices in data.split._asdict().items() for index in indices}
    test = [part_of[index] for index in (0, 1)]  # of the training images that are test images
    expected = {
        "validation_in_train": int(part_of[4] != part_of[5]),
        "test_in_train": test.count("train"),
        "test_in_validation": test.count("validation"),
    }
    assert data.duplicates == expected and sum(expected.values()) >= 2
    assert data.with_shape(Map(1, 16, 16)).duplicates == expected


def test_the_report_is_one_line(tmp_path: Path) -> None:
    save(tmp_path / "a.npz")
    found = set()
    for seed in range(20):  # other images are held out
        data = load_dataset(f"npz:{tmp_path}/a.npz,validation_share=0.2,split_seed={seed}")
        assert len(data.remarks()) == 1 and "\n" not in data.remarks()[0]
        found.add(data.remarks()[0].removeprefix("Warning: data 'npz:a.npz': equal pixels in several parts: "))
    assert found >= {
        "2 of 10 test images are also in training.",
        "1 of 10 test images is also in training, 1 of 10 test images is also in validation.",
        "1 of 6 validation images is also in training, 2 of 10 test images are also in training.",
    }
    assert load_dataset(f"npz:{save(tmp_path / 'b.npz', same=False)}").remarks() == ()


@pytest.mark.parametrize("source", ["digits", "synthetic:images=50,classes=2,size=8"])
def test_data_sets_without_equal_images(source: str) -> None:
    data = load_dataset(source)
    assert data.duplicates == {"validation_in_train": 0, "test_in_train": 0, "test_in_validation": 0}
    assert data.remarks() == ()


def test_equal_images_in_a_folder_are_counted_whatever_their_files(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    for part, first, suffix in (("train", 0, "png"), ("val", 9, "bmp"), ("test", 8, "tif")):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(first, first + 10):
                image.point(lambda level, number=number: level + number + 100).save(
                    tmp_path / part / name / f"{number}.{suffix}"
                )
    data = load_dataset(f"imagefolder:{tmp_path},channels=1")
    # Levels 0 to 9, 9 to 18 and 8 to 17, twice each.
    assert data.duplicates == {"validation_in_train": 2, "test_in_train": 4, "test_in_validation": 18}
    streamed = load_dataset(data_source(f"imagefolder:{tmp_path},channels=1,stream=true"))
    assert (streamed.duplicates, streamed.remarks()) == (None, ())
