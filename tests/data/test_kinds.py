"""Every kind of data set: what it loads, and its errors."""

import hashlib
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms as transforms
from PIL import Image
from sklearn.datasets import load_digits

from hiresnet_graph.data import DATASETS, ImageFolderData, SyntheticData, TinyImagenetData, load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.errors import HrgError, RunError, UsageError
from hiresnet_graph.shapes import Map


def sizes(dataset: Dataset) -> list[int]:
    return [len(part) for part in dataset.split]


def check_stratified(dataset: Dataset) -> None:
    """Each held-out part has every class in its share, up to one image."""
    labels = dataset.labels_N.tolist()
    held_out = [dataset.split.train, dataset.split.validation]
    whole = Counter(labels[place] for part in held_out for place in part)
    for part in held_out:
        counts = Counter(labels[place] for place in part)
        for label, number in whole.items():
            assert abs(counts[label] - number * len(part) / sum(whole.values())) <= 1.5
    assert sorted(place for part in dataset.split for place in part) == list(range(len(dataset)))


# ---------------------------------------------------------------------------------------------------- digits, synthetic


def test_digits_are_the_images_of_scikit_learn() -> None:
    digits = load_dataset("digits")
    assert digits.shape == Map(1, 8, 8)
    assert digits.classes == 10
    assert digits.images.dtype == torch.uint8
    assert (int(digits.images.min()), int(digits.images.max())) == (0, 255)
    assert sizes(digits) == [1294, 144, 359]
    theirs = load_digits()
    assert torch.equal(digits.images, torch.from_numpy(theirs.images * (255 / 16)).round().to(torch.uint8).unsqueeze(1))
    assert digits.labels_N.tolist() == theirs.target.tolist()
    # the first image is a zero: dark in the middle, bright beside it
    assert digits.labels_N[0] == 0
    assert digits.images[0, 0, 3].tolist() == [0, 64, 191, 0, 0, 128, 128, 0]
    check_stratified(digits)


def test_digits_are_read_without_importing_scikit_learn() -> None:
    program = (
        "import sys; import hiresnet_graph.data as data; data.load_dataset('digits'); print('sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_split_depends_on_the_fields_of_the_kind_only() -> None:
    first, again = load_dataset("digits"), load_dataset("digits")
    assert first.split == again.split
    other, larger = load_dataset("digits:split_seed=1"), load_dataset("digits:validation_share=0.25")
    assert other.split.validation != first.split.validation
    assert sizes(larger) == [1438 - 360, 360, 359] and larger.split.test == first.split.test
    assert len({data.fingerprint() for data in (first, other, larger)}) == 3


@pytest.mark.parametrize("share", [1e-6, 0.9999])
@pytest.mark.parametrize("kind", ["digits", "synthetic"])
def test_a_split_with_an_empty_part_is_refused(kind: str, share: float) -> None:
    part = "validation" if share < 0.5 else "train"
    with pytest.raises(UsageError, match=rf"are too few for the split: none is left for {part}\. .*'validation_share'"):
        load_dataset(f"{kind}:validation_share={share:f}")


def test_synthetic_images_are_reproducible_and_learnable() -> None:
    data = load_dataset("synthetic:classes=4,images=402,channels=1,size=10")
    assert (data.shape, data.classes, sizes(data)) == (Map(1, 10, 10), 4, [290, 32, 80])
    assert sorted(Counter(data.labels_N.tolist()).values()) == [100, 100, 101, 101]
    assert data.fingerprint() == load_dataset("synthetic:classes=4,images=402,channels=1,size=10").fingerprint()
    # Recorded values: a new version of any library must give the same images.
    assert data.images[0, 0, 0].tolist() == [172, 53, 52, 120, 206, 114, 177, 114, 68, 80]
    assert load_dataset(SyntheticData(seed=1)).fingerprint() != load_dataset(SyntheticData()).fingerprint()
    # nearest class mean classifies the test images
    train, test = torch.tensor(data.split.train), torch.tensor(data.split.test)
    x_ND, labels_N = data.images.float().flatten(1), data.labels_N
    means_KD = torch.stack([x_ND[train][labels_N[train] == label].mean(0) for label in range(4)])
    is_correct = torch.cdist(x_ND[test], means_KD).argmin(1) == labels_N[test]
    assert 0.5 < is_correct.float().mean() < 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("images=12,classes=12", r"class '\d' has too few images for the split: 1 in total, none of them for t"),
        ("images=3,classes=2", r"3 images are too few for the split: none is left for validation"),
        ("images=1000000,size=64", r"the images take 11\.4 GiB, more than the limit of 2\. Lower 'images' or 'size'"),
    ],
)
def test_invalid_synthetic_images(fields: str, message: str) -> None:
    with pytest.raises(UsageError, match=rf"^data 'synthetic': .*{message}"):
        load_dataset(f"synthetic:{fields}")


# ---------------------------------------------------------------------------------------------------------- imagefolder


def picture(path: Path, width: int = 10, height: int = 10, seed: int = 0, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels_HWC = np.random.RandomState(seed).randint(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels_HWC).convert(mode).save(path)


def folder(root: Path, classes: str = "ab", images: int = 10) -> Path:
    for name in classes:
        for number in range(images):
            picture(root / name / f"{number}.png", seed=number)
    return root


def test_imagefolder_of_classes(tmp_path: Path) -> None:
    folder(tmp_path / "pets", "ba", 20)
    picture(tmp_path / "pets" / "a" / "more" / "x.JPG")
    (tmp_path / "pets" / "a" / "notes.txt").write_text("not an image")
    (tmp_path / "pets" / ".cache").mkdir()
    data = load_dataset(f"imagefolder:{tmp_path / 'pets'}")
    assert (data.name, data.classes, data.class_names) == ("imagefolder:pets", 2, ("a", "b"))
    assert (data.shape, sizes(data), data.standard_augmentation) == (Map(3, 10, 10), [30, 3, 8], "flip")
    assert data.labels_N.tolist() == [0] * 21 + [1] * 20
    check_stratified(data)
    expected = np.asarray(Image.open(tmp_path / "pets" / "a" / "0.png"))
    assert torch.equal(data.images[0], torch.tensor(expected).permute(2, 0, 1))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("train", "test"), [18, 2, 6]),
        (("train", "val"), [18, 2, 6]),
        (("train", "val", "test"), [20, 6, 6]),
    ],
)
def test_imagefolder_with_its_own_split(tmp_path: Path, parts: tuple[str, ...], expected: list[int]) -> None:
    for part in parts:
        folder(tmp_path / part, "ab", 10 if part == "train" else 3)
    data = load_dataset(ImageFolderData(dir=tmp_path))
    assert sizes(data) == expected
    files = load_dataset(ImageFolderData(dir=tmp_path, stream=True)).images.names
    assert {files[index].split("/")[0] for index in data.split.test} == {parts[-1]}
    assert {files[index].split("/")[0] for index in data.split.train} == {"train"}
    if len(parts) == 3:
        assert {files[index].split("/")[0] for index in data.split.validation} == {"val"}


@pytest.mark.parametrize("size", [(20, 31), (31, 20), (7, 12), (16, 16), (16, 17), (5, 5)])
@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_images_are_resized_and_cropped_as_in_torchvision(tmp_path: Path, size: tuple[int, int], mode: str) -> None:
    for name in "ab":
        for number in range(5):
            picture(tmp_path / name / f"{number}.png", *size, mode=mode)
    image = Image.open(tmp_path / "a" / "0.png").convert("RGB")
    expected = transforms.Compose([transforms.Resize(16), transforms.CenterCrop(16), transforms.PILToTensor()])(image)
    data = load_dataset(ImageFolderData(dir=tmp_path, size=16))
    assert torch.equal(data.images[0], expected)
    grey = load_dataset(ImageFolderData(dir=tmp_path, size=16, channels=1))
    assert grey.shape == Map(1, 16, 16)
    assert load_dataset(ImageFolderData(dir=tmp_path)).shape == Map(3, min(size), min(size))


def test_the_default_size_is_at_most_64_pixels(tmp_path: Path) -> None:
    for name in "ab":
        for number in range(5):
            picture(tmp_path / name / f"{number}.png", 100, 80)
    assert load_dataset(ImageFolderData(dir=tmp_path)).shape == Map(3, 64, 64)


def test_many_images_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path)
    assert not load_dataset(ImageFolderData(dir=tmp_path)).is_streamed
    monkeypatch.setattr("hiresnet_graph.data.files.MAX_BYTES_IN_MEMORY", 20 * 300 - 1)
    assert load_dataset(ImageFolderData(dir=tmp_path)).is_streamed
    assert not load_dataset(ImageFolderData(dir=tmp_path, stream=False)).is_streamed


def truncated(root: Path) -> None:
    path = folder(root) / "b" / "3.png"
    path.write_bytes(path.read_bytes()[:200])


def not_an_image(root: Path) -> None:
    (folder(root) / "b" / "3.png").write_text("words")


def only_loose(root: Path) -> None:
    picture(root / "0.png")


def one_class(root: Path) -> None:
    folder(root, ["a"])


def empty_class(root: Path) -> None:
    (folder(root) / "c").mkdir()


def class_of_one(root: Path) -> None:
    picture(folder(root, images=8) / "c" / "0.png")


def unknown_test_class(root: Path) -> None:
    folder(root / "train", ["cats", "dogs"])
    folder(root / "test", ["cats", "dog"])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda root: None, UsageError, r"the folder ROOT does not exist\."),
        (
            Path.mkdir,
            UsageError,
            r"ROOT must contain at least two class folders, and contains none\. Create a folder for",
        ),
        (only_loose, UsageError, r"ROOT must contain at least two class folders, and contains none"),
        (one_class, UsageError, r"ROOT must contain at least two class folders, and contains 'a'\."),
        (empty_class, RunError, r"the folder ROOT/c contains no images"),
        (unknown_test_class, RunError, r"ROOT/test/dog: this class has no training images\. Did you mean 'dogs'\?"),
        (
            lambda root: folder(root, images=1),
            UsageError,
            r"2 images are too few for the split: none is left for validation",
        ),
        (class_of_one, UsageError, r"class 'c' has too few images for the split: 1 in total, none of them for test"),
        (truncated, RunError, r"ROOT/b/3\.png: this image cannot be read: .*truncated"),
        (not_an_image, RunError, r"ROOT/b/3\.png: this image cannot be read: it is not a BMP, GIF,"),
    ],
)
def test_an_invalid_imagefolder_is_refused(
    tmp_path: Path, make: Callable[[Path], object], error: type[HrgError], message: str
) -> None:
    root = tmp_path / "pictures"
    make(root)
    with pytest.raises(error, match=message.replace("ROOT", re.escape(str(root)))):
        load_dataset(ImageFolderData(dir=root))


# -------------------------------------------------------------------------------------------------------- tiny-imagenet


def tiny(root: Path, classes: tuple[str, ...] = ("n02", "n01")) -> Path:
    """Ten training images and three test images in each class, in the published format."""
    base = root / "tiny-imagenet-200"
    lines = []
    for label, id_ in enumerate(classes):
        for number in range(10):
            picture(base / "train" / id_ / "images" / f"{id_}_{number}.JPEG", 64, 64, seed=number)
        (base / "train" / id_ / f"{id_}_boxes.txt").write_text("")
        for number in range(3):
            name = f"val_{len(classes) * number + label}.JPEG"
            picture(base / "val" / "images" / name, 64, 64, seed=number)
            lines.append(f"{name}\t{id_}\t0\t0\t62\t62\n")
    (base / "val" / "val_annotations.txt").write_text("".join(lines))
    return base


def test_tiny_imagenet_of_two_classes(tmp_path: Path) -> None:
    base = tiny(tmp_path)
    data = load_dataset(f"tiny-imagenet:root={tmp_path}")
    assert (data.shape, data.classes, sizes(data)) == (Map(3, 64, 64), 2, [18, 2, 6])
    assert data.class_names == ("n01", "n02") and data.standard_augmentation == "crop+flip"
    assert data.labels_N.tolist() == [0] * 10 + [1] * 10 + [1] * 3 + [0] * 3
    check_stratified(data)
    (base / "words.txt").write_text("n02\tgoldfish, Carassius auratus\nn03\tray\n")
    named = load_dataset(TinyImagenetData(root=base))
    assert named.class_names == ("n01", "goldfish, Carassius auratus")
    assert named.fingerprint() == data.fingerprint()


def drop(name: str) -> Callable[[Path], object]:
    return lambda base: shutil.rmtree(base / name) if (base / name).is_dir() else (base / name).unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("train"), r"the folder BASE/train cannot be read: No such file"),
        (
            drop("train/n01"),
            r"BASE/val/val_annotations\.txt:4: class 'n01' has no folder in BASE/train\. .*fewer classes",
        ),
        (drop("train/n01/images"), r"the folder BASE/train/n01 contains no images"),
        (drop("val/val_annotations.txt"), r"BASE/val/val_annotations\.txt cannot be read: No such file"),
        (drop("val/images/val_3.JPEG"), r"BASE/val/images/val_3\.JPEG: this image of the data set is missing"),
        (lambda base: (base / "val/val_annotations.txt").write_bytes(b"\xff\xfe"), r"cannot be read: it is not text"),
    ],
)
def test_a_damaged_tiny_imagenet_is_reported(tmp_path: Path, change: Callable[[Path], object], message: str) -> None:
    base = tiny(tmp_path)
    change(base)
    with pytest.raises(RunError, match=message.replace("BASE", re.escape(str(base)))):
        load_dataset(TinyImagenetData(root=tmp_path))


# --------------------------------------------------------------------------------------- search of published data sets


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "tiny-imagenet"])
def test_a_missing_data_set_names_the_searched_folders_and_how_to_get_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HRG_DATA", raising=False)
    kind = DATASETS.get(name)
    get = "Unpack" if name == "tiny-imagenet" else r"Get it with '--download' \(in Python: download=True\), or unpack"
    message = (
        rf"no folder '{kind.folder}' in FOLDERS\. {get} {kind.address} there; or .*HRG_DATA=DIR.* '{name}:root=DIR'\.$"
    )
    with pytest.raises(UsageError, match=message.replace("FOLDERS", f"{tmp_path}/data")):
        load_dataset(name)
    monkeypatch.setenv("HRG_DATA", "sets")
    with pytest.raises(UsageError, match=message.replace("FOLDERS", f"{tmp_path}/sets or {tmp_path}/data")):
        load_dataset(name)
    with pytest.raises(UsageError, match=message.replace("FOLDERS", f"{tmp_path}/here")):
        load_dataset(f"{name}:root=here")


def test_folders_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HRG_DATA", str(tmp_path / "sets"))
    found = [TinyImagenetData().find()]
    for parent in ("data", "sets", "here"):
        (tmp_path / parent / "tiny-imagenet-200").mkdir(parents=True)
        found.append(TinyImagenetData().find())
    assert found == [None, *(tmp_path / parent / "tiny-imagenet-200" for parent in ("data", "sets", "sets"))]
    assert TinyImagenetData(root="here").find() == tmp_path / "here" / "tiny-imagenet-200"
    assert TinyImagenetData(root="here/tiny-imagenet-200").find() == tmp_path / "here" / "tiny-imagenet-200"
    assert TinyImagenetData(root="there").find() is None, "only the given folder is searched"


def test_a_failed_download_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refuse)
    with pytest.raises(RunError, match=rf"cifar-10-python.tar.gz cannot be downloaded to {tmp_path}: no route to host"):
        load_dataset(f"cifar10:root={tmp_path},download=true")


def test_a_damaged_cifar_is_reported(tmp_path: Path) -> None:
    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()
    with pytest.raises(RunError, match=rf"{base}/data_batch_1 is missing\. Delete the folder and get it again"):
        load_dataset(f"cifar10:root={tmp_path}")
    (base / "data_batch_1").write_bytes(b"truncated")
    with pytest.raises(RunError, match=r"data_batch_1 is not the published file \(perhaps truncated\)"):
        load_dataset(f"cifar10:root={tmp_path}")


# ------------------------------------------------------------------------------------------------------------ real data


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


# Checksums of another copy of the same images, which was not read by torchvision.
@pytest.mark.parametrize(
    ("name", "classes", "names", "pixels", "labels"),
    [
        ("cifar10", 10, ("airplane", "truck"), "2ae5d6db04537538", "5083e6dd0895f949"),
        ("cifar100", 100, ("apple", "worm"), "7fd4455e5b9d53c1", "909ea1aa2cb4bc2f"),
    ],
)
def test_real_cifar(real_data: Path, name: str, classes: int, names: tuple[str, str], pixels: str, labels: str) -> None:
    data = load_dataset(f"{name}:root={real_data}")
    assert (data.shape, data.classes, data.standard_augmentation) == (Map(3, 32, 32), classes, "crop+flip")
    assert (data.class_names[0], data.class_names[-1]) == names
    assert digest(data.images.numpy().tobytes()) == pixels
    assert digest(data.labels_N.numpy().tobytes()) == labels
    assert sizes(data) == [45000, 5000, 10000]
    for part, size in zip(data.split, (45000, 5000, 10000), strict=True):
        assert data.labels_N[torch.tensor(part)].bincount().tolist() == [size // classes] * classes


def test_real_tiny_imagenet(real_data: Path) -> None:
    data = load_dataset(f"tiny-imagenet:root={real_data},stream=true")
    assert (data.shape, data.classes, data.is_streamed) == (Map(3, 64, 64), 57, True)
    assert (data.class_names[0], data.class_names[-1]) == ("goldfish, Carassius auratus", "baboon")
    assert sizes(data) == [25650, 2850, 2850]
    for part, size in zip(data.split, (450, 50, 50), strict=True):
        assert data.labels_N[torch.tensor(part)].bincount().tolist() == [size] * 57
    names = [Path(data.images.names[index]) for index in data.split.train]
    assert [name.parts[1] for name in names] == [name.name.partition("_")[0] for name in names]
    # in any order: ours is that of the annotations
    test = zip(data.read(data.split.test), data.labels_N[torch.tensor(data.split.test)], strict=True)
    marks = sorted(hashlib.sha256(image.numpy().tobytes() + bytes([int(label)])).digest() for image, label in test)
    assert digest(b"".join(marks)) == "e175a9ed0ce6cf95"


@pytest.mark.slow
def test_real_tiny_imagenet_is_equal_in_memory_and_streamed(real_data: Path) -> None:
    source = TinyImagenetData(root=real_data)
    memory, streamed = load_dataset(source), load_dataset(source.changed({"stream": True}))
    indices = range(0, len(memory), 7)
    assert not memory.is_streamed and memory.split == streamed.split
    assert torch.equal(memory.read(indices), streamed.read(indices))
