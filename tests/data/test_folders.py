"""Which files of a folder are images of which class: hidden files, links, parts of the data, names."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hiresnet_graph.data import ImageFolderData, TinyImagenetData, load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.errors import HrgError, RunError, UsageError
from hiresnet_graph.train.record import read_record


def picture(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4), level, np.uint8)).save(path)


def write(root: Path, classes: str = "abc", images: int = 8, first: int = 0) -> Path:
    """Images whose grey level is 10 times their class, plus `first`, plus their number."""
    for label, name in enumerate(classes):
        for number in range(images):
            picture(root / name / f"{number}.png", first + 10 * label + number)
    return root


def load(root: Path, **fields: object) -> Dataset:
    return load_dataset(ImageFolderData(dir=root, channels=1, **fields))


def levels(data: Dataset, part: str) -> list[int]:
    return sorted(data.images[torch.tensor(getattr(data.split, part)), 0, 0, 0].tolist())


def all_levels(data: Dataset) -> dict[int, list[int]]:
    return {label: data.images[data.labels_N == label, 0, 0, 0].tolist() for label in range(data.classes)}


PLAIN = {label: [10 * label + number for number in range(8)] for label in range(3)}
ALL = [level for levels in PLAIN.values() for level in levels]


# -------------------------------------------------------------------------------------------------- hidden, other files


def test_hidden_files_and_folders_are_skipped_and_counted(tmp_path: Path) -> None:
    root = write(tmp_path)
    for name in (
        "a/.ipynb_checkpoints/0-checkpoint.png",
        "a/._0.png",
        "b/__MACOSX/x.png",
        "b/deep/@eaDir/x.png",
        "c/lost+found/x.png",
        ".cache/x.png",
        "__MACOSX/x.png",
        ".Trash/x.png",
    ):
        picture(root / name, 255)
    (root / "a" / "Thumbs.db").write_bytes(b"\0")
    (root / "a" / ".DS_Store").write_bytes(b"\0")
    for name in ("a/x.heic", "b/notes.txt", "c/y.txt", "c/README"):
        (root / name).write_text("other")
    os.mkfifo(root / "c" / "pipe.png")
    data = load(root)
    assert (data.class_names, all_levels(data)) == (("a", "b", "c"), PLAIN)
    assert data.skipped == (
        "7 hidden files and folders, 5 files that are no images (without suffix, .heic, .txt, a pipe or device)"
    )


def test_nothing_is_said_where_nothing_is_skipped(tmp_path: Path) -> None:
    assert load(write(tmp_path)).skipped == ""


def test_images_and_folders_beside_those_of_classes_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "classes")
    for name in ("0.png", "1.JPG", "notes.txt", ".hidden.png"):
        picture(tmp_path / "classes" / name, 0) if name.endswith(".png") else (tmp_path / "classes" / name).touch()
    data = load(tmp_path / "classes")
    assert (all_levels(data), data.skipped) == (PLAIN, "2 images outside the folders of classes")
    for part in ("train", "test"):
        write(tmp_path / "parts" / part)
        picture(tmp_path / "parts" / part / "loose.png", 0)
    (
        write(tmp_path / "parts" / "extra"),
        write(tmp_path / "parts" / "unlabelled" / "b"),
        write(tmp_path / "parts" / ".x"),
    )
    assert load(tmp_path / "parts").skipped == (
        "2 images outside the folders of classes, 2 folders beside the parts of the data ('extra', 'unlabelled')"
    )


def test_one_skipped_file_is_one(tmp_path: Path) -> None:
    (write(tmp_path) / "a" / "x.heic").touch()
    assert load(tmp_path).skipped == "1 file that is no image (.heic)"


# ---------------------------------------------------------------------------------------------------------------- links


def link_up(root: Path) -> None:
    (root / "a" / "again").symlink_to("..", target_is_directory=True)


def link_to_itself(root: Path) -> None:
    (root / "a" / "again").symlink_to(".", target_is_directory=True)


def link_far_up(root: Path) -> None:
    (root / "a" / "again").symlink_to("/", target_is_directory=True)


def link_to_a_sibling(root: Path) -> None:
    (root / "a" / "again").symlink_to("../b", target_is_directory=True)


def links_in_a_circle(root: Path) -> None:
    for name, other in ("ab", "bc", "ca"):
        (root / name / "next").symlink_to(root / other, target_is_directory=True)


def link_to_a_file_of_the_class(root: Path) -> None:
    (root / "a" / "00.png").symlink_to("0.png")


def link_to_a_file_of_another_class(root: Path) -> None:
    (root / "a" / "00.png").symlink_to("../b/0.png")


def hard_link(root: Path) -> None:
    os.link(root / "a" / "0.png", root / "a" / "9.png")


@pytest.mark.parametrize(
    ("link", "links"),
    [
        (link_up, "1 link"),
        (link_to_itself, "1 link"),
        (link_far_up, "1 link"),
        (link_to_a_sibling, "8 links"),
        (links_in_a_circle, "51 links"),
        (link_to_a_file_of_the_class, "1 link"),
        (link_to_a_file_of_another_class, "1 link"),
        (hard_link, "1 link"),
    ],
)
def test_each_real_file_is_read_once(tmp_path: Path, link: Callable[[Path], None], links: str) -> None:
    root = write(tmp_path / "data")
    link(root)
    data = load(root)
    assert all_levels(data) == PLAIN
    assert data.skipped == f"{links} to images that are read elsewhere"
    assert data.fingerprint() == load(write(tmp_path / "plain")).fingerprint()


def test_images_that_are_all_links_are_read(tmp_path: Path) -> None:
    """As in a folder of git-annex, or one that selects from a store."""
    store, root = write(tmp_path / "store"), tmp_path / "data"
    for name in ("b", "c", ".annex"):
        (root / name).mkdir(parents=True)
    (root / "a").symlink_to(store / "a", target_is_directory=True)
    (root / "b" / "more").symlink_to(store / "b", target_is_directory=True)
    for number in range(8):
        (store / "c" / f"{number}.png").rename(root / ".annex" / f"{number}")
        (root / "c" / f"{number}.png").symlink_to(f"../.annex/{number}")
    data = load(root)
    assert (all_levels(data), data.skipped) == (PLAIN, "")
    linked = tmp_path / "linked"
    linked.symlink_to(root, target_is_directory=True)
    assert load(linked).fingerprint() == data.fingerprint()


@pytest.mark.parametrize("target", ["../..", "../../test", "../../test/a", "ROOT/test"])
def test_test_images_do_not_enter_training_through_links(tmp_path: Path, target: str) -> None:
    root = tmp_path / "data"
    write(root / "train"), write(root / "test", images=2, first=100)
    (root / "train" / "a" / "x").symlink_to(target.replace("ROOT", str(root)))
    data = load(root)
    assert sorted(levels(data, "train") + levels(data, "validation")) == ALL
    assert levels(data, "test") == [100, 101, 110, 111, 120, 121]


def test_a_stored_file_linked_in_training_and_test_is_a_test_image(tmp_path: Path) -> None:
    store, root = write(tmp_path / "store"), tmp_path / "data"
    for part, numbers in (("train", range(8)), ("val", (2, 3)), ("test", (3, 4))):
        for name in "abc":
            (root / part / name).mkdir(parents=True)
            for number in numbers:
                (root / part / name / f"{number}.png").symlink_to(store / name / f"{number}.png")
    data = load(root)
    assert levels(data, "test") == [3, 4, 13, 14, 23, 24]
    assert levels(data, "validation") == [2, 12, 22]
    assert levels(data, "train") == [level for level in ALL if level % 10 not in (2, 3, 4)]
    assert data.skipped == "12 links to images that are read elsewhere"


def test_links_to_test_images_of_tiny_imagenet_are_no_training_images(tmp_path: Path) -> None:
    base = tmp_path / "tiny-imagenet-200"
    for label, name in enumerate(("n1", "n2")):
        for number in range(10):
            picture(base / "train" / name / "images" / f"{number}.JPEG", 20 * label + number)
    for number in range(4):
        picture(base / "val" / "images" / f"v{number}.JPEG", 100 + number)
    lines = (f"v{number}.JPEG\tn{number % 2 + 1}\t0\n" for number in range(4))
    (base / "val" / "val_annotations.txt").write_text("".join(lines))
    before = load_dataset(TinyImagenetData(root=tmp_path)).fingerprint()
    (base / "train" / "n1" / "images" / "more").symlink_to(base / "val", target_is_directory=True)
    data = load_dataset(TinyImagenetData(root=tmp_path))
    assert [len(part) for part in data.split] == [18, 2, 4] and data.fingerprint() == before


def alias(root: Path) -> None:
    (root / "d").symlink_to("a", target_is_directory=True)


def stored_in_two_classes(root: Path) -> None:
    picture(root.parent / "store.png", 7)
    for name in "ab":
        (root / name / "x.png").symlink_to(root.parent / "store.png")


def broken(root: Path) -> None:
    (root / "a" / "x.png").symlink_to("nowhere.png")


def circular(root: Path) -> None:
    (root / "a" / "x.png").symlink_to("x.png")


@pytest.mark.parametrize(
    ("link", "message"),
    [
        (alias, r"the folder ROOT/d contains no images of its own: its 8 are links into other folders \(\.bmp, "),
        (stored_in_two_classes, r"ROOT/a/x\.png and ROOT/b/x\.png are links to the same file, in two classes\. Delete"),
        (broken, r"ROOT/a/x\.png: this image .* is a link that leads to no file \(No such file or directory\)\. Res"),
        (circular, r"ROOT/a/x\.png: this image .* is a link that leads to no file \(Too many levels of symbolic"),
    ],
)
def test_links_without_a_clear_meaning_are_refused(tmp_path: Path, link: Callable[[Path], None], message: str) -> None:
    root = write(tmp_path / "data")
    link(root)
    with pytest.raises(RunError, match=message.replace("ROOT", re.escape(str(root)))):
        load(root)


# ---------------------------------------------------------------------------------------------------- parts of the data


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("Train", "VALIDATION", "Test"),
        ("training", "valid", "testing"),
        ("TRAIN", "dev", "eval"),
        ("train", "Validation", "evaluation"),
    ],
)
def test_the_usual_names_of_parts(tmp_path: Path, train: str, validation: str, test: str) -> None:
    for number, part in enumerate((train, validation, test)):
        write(tmp_path / part, images=3, first=50 * number)
    data = load(tmp_path)
    assert data.class_names == ("a", "b", "c")
    expected = [[50 * number + level for level in (0, 1, 2, 10, 11, 12, 20, 21, 22)] for number in range(3)]
    assert [levels(data, part) for part in ("train", "validation", "test")] == expected


@pytest.mark.parametrize("held_out", ["validation", "Valid", "dev", "testing"])
def test_training_and_one_held_out_part(tmp_path: Path, held_out: str) -> None:
    write(tmp_path / "training"), write(tmp_path / held_out, images=2, first=100)
    data = load(tmp_path)
    assert data.class_names == ("a", "b", "c")
    assert levels(data, "test") == [100, 101, 110, 111, 120, 121]
    assert sorted(levels(data, "train") + levels(data, "validation")) == ALL


def test_a_training_folder_alone_is_split(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train"), write(tmp_path / "plain")
    data = load(tmp_path / "data")
    assert data.class_names == ("a", "b", "c")
    assert data.fingerprint() == load(tmp_path / "plain").fingerprint()


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for label, name in enumerate(("bus", "car", "train")):
        for number in range(8):
            picture(tmp_path / name / f"{number}.png", 10 * label + number)
    assert (load(tmp_path).class_names, all_levels(load(tmp_path))) == (("bus", "car", "train"), PLAIN)


def test_classes_called_like_parts_may_have_folders_of_their_own(tmp_path: Path) -> None:
    for label, names in enumerate((("bus/red", "bus/blue"), ("car/suv", "car/van"), ("train/fast", "train/slow"))):
        for number in range(8):
            picture(tmp_path / names[number // 4] / f"{number}.png", 10 * label + number)
    data = load(tmp_path)
    assert data.class_names == ("bus", "car", "train")
    assert {label: sorted(found) for label, found in all_levels(data).items()} == PLAIN


@pytest.mark.parametrize(
    ("parts", "beside"),
    [(("train", "holdout"), ""), (("test", "trainval"), ""), (("Train", "fold2"), ""), (("train",), "unlabelled")],
)
def test_parts_with_other_names_are_not_taken_for_classes(tmp_path: Path, parts: tuple[str, ...], beside: str) -> None:
    for part in parts:
        write(tmp_path / part)
    if beside:
        picture(tmp_path / beside / "0.png", 0)
    shown = ", ".join(map(repr, sorted((*parts, *([beside] if beside else [])))))
    with pytest.raises(UsageError, match=rf"the folders {shown} in .* seem to be parts of the data, not classes\."):
        load(tmp_path)


@pytest.mark.parametrize("is_empty", [True, False])
def test_a_part_without_classes_is_refused(tmp_path: Path, is_empty: bool) -> None:
    for part in ("train", "val"):
        write(tmp_path / part)
    (tmp_path / "test").mkdir()
    if not is_empty:
        picture(tmp_path / "test" / "0.png", 0)
    with pytest.raises(UsageError, match=rf"{tmp_path}/test contains no class folders, so its images have no classes"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            ("train", "val", "valid"),
            r"ROOT has several folders for validation: 'val', 'valid'\. Keep one of them there",
        ),
        (
            ("train", "Train", "test"),
            r"ROOT has several folders for train: 'Train', 'train'\. Keep one of them there\.",
        ),
        (("train", "test", "eval"), r"ROOT has several folders for test: 'eval', 'test'\."),
        (("val", "test"), r"ROOT has folders for test and validation, but none for training\. Add a folder 'train'"),
        (
            ("train2017", "val2017"),
            r"the folders 'train2017', 'val2017' in ROOT seem to be parts .* Name them 'train',",
        ),
        (
            ("trainset", "test-set"),
            r"the folders 'test-set', 'trainset' in ROOT seem to be parts of the data, not class",
        ),
        (
            ("train", "test_images"),
            r"the folders 'test_images', 'train' in ROOT seem to be parts of the data, not class",
        ),
        (("images", "Masks"), r"the folders 'Masks', 'images' in ROOT seem to contain images and their masks or annot"),
    ],
)
def test_ambiguous_parts_are_refused(tmp_path: Path, parts: tuple[str, ...], message: str) -> None:
    for part in parts:
        write(tmp_path / part)
    with pytest.raises(UsageError, match=message.replace("ROOT", re.escape(str(tmp_path)))):
        load(tmp_path)


# ---------------------------------------------------------------------------------------------------------------- names


def odd_class(root: Path) -> None:
    picture(root / "caf\udce9" / "0.png", 1)


def odd_folder_in_a_class(root: Path) -> None:
    picture(root / "a" / "caf\udce9" / "0.png", 1)


def odd_file(root: Path) -> None:
    picture(root / "a" / "0.png", 1)
    (root / "a" / "0.png").rename(root / "a" / "caf\udce9.png")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("make", "shown"),
    [(odd_class, r"caf\\xe9"), (odd_folder_in_a_class, r"a/caf\\xe9"), (odd_file, r"a/caf\\xe9\.png")],
)
def test_names_that_are_not_utf8_are_refused(
    tmp_path: Path, make: Callable[[Path], None], shown: str, stream: bool
) -> None:
    make(write(tmp_path))
    with pytest.raises(HrgError, match=rf"^data: the name of {tmp_path}/{shown} is not UTF-8\. Rename it\.$") as caught:
        load(tmp_path, stream=stream)
    str(caught.value).encode()


def hrg(*words: str | bytes) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from hiresnet_graph.cli import main; main()", *words]
    return subprocess.run(command, capture_output=True, text=True, errors="surrogateescape", timeout=300)


SMALL = ("hiresnet18", "width=2", "classes=3", "input.channels=1", "input.height=8", "input.width=8")


def test_training_refuses_names_that_are_not_utf8_before_it_starts(tmp_path: Path) -> None:
    odd_class(write(tmp_path / "data"))
    data, out = f"imagefolder:{tmp_path}/data,channels=1", str(tmp_path / "run")
    done = hrg("train", *SMALL, "--data", data, "--epochs", "1", "--batch-size", "4", "-o", out)
    assert done.returncode not in (0, -6) and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith(rf"the name of {tmp_path}/data/caf\xe9 is not UTF-8. Rename it.")
    assert not (tmp_path / "run").exists()
    named = f"imagefolder:{tmp_path}/caf".encode() + b"\xe9"
    done = hrg("ablate", *SMALL, "--variants", "none,full", "--data", named, "--dry-run")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert rf"dir: expected a path in UTF-8, got '{tmp_path}/caf\udce9'. Rename the file" in done.stderr


def test_training_with_names_in_any_script_is_recorded(tmp_path: Path) -> None:
    names = ("a\nb", "caf\u00e9", "\u732b=\U0001f408,x:y")
    for label, name in enumerate(names):
        for number in range(8):
            picture(tmp_path / "da=ta,x=y" / name / f"{number}\u00e9.png", 10 * label + number)
    data, out = f"imagefolder:{tmp_path}/da=ta,x=y,channels=1,stream=true", tmp_path / "run"
    done = hrg("train", *SMALL, "--data", data, "--epochs", "1", "--batch-size", "4", "-o", str(out))
    assert done.returncode == 0, done.stderr
    record = read_record(out)
    assert record is not None and record.preprocessing is not None
    assert (record.outcome, record.preprocessing.class_names) == ("complete", names)
