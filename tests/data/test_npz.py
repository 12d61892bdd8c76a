"""Data in .npz files: what is read, and every file that people or programs get wrong."""

import io
import os
import random
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.errors import HrgError, RunError, UsageError
from hiresnet_graph.shapes import Map


def sizes(dataset: Dataset) -> list[int]:
    return [len(part) for part in dataset.split]


def arrays(images: int = 40, channels: int = 3) -> dict[str, Any]:
    """Images whose first pixel is their index; four alternating classes."""
    x = np.zeros((images, 5, 6, channels), np.uint8)
    x[:, 0, 0, 0] = np.arange(images)
    return {"x_train": x, "y_train": np.arange(images) % 4}


def test_npz_with_a_test_set(tmp_path: Path) -> None:
    names = np.array(["ant", "bee", "cat", "dog"])
    test = {"x_test": arrays(8)["x_train"] + 100, "y_test": np.arange(8, dtype=np.uint8)[:, None] % 4}
    np.savez(tmp_path / "a.npz", **arrays(), **test, class_names=names, other=np.arange(3))
    data = load_dataset(f"npz:{tmp_path / 'a.npz'}")
    assert (data.name, data.classes, data.class_names) == ("npz:a.npz", 4, tuple(names))
    assert (data.shape, sizes(data)) == (Map(3, 5, 6), [36, 4, 8])
    assert data.split.test == tuple(range(40, 48))
    assert data.images[:, 0, 0, 0].tolist() == [*range(40), *range(100, 108)]
    assert data.labels_N.tolist() == [index % 4 for index in range(48)]


def test_npz_of_grey_images_without_a_test_set(tmp_path: Path) -> None:
    given = arrays(channels=1)
    np.savez_compressed(tmp_path / "b.npz", x=given["x_train"][..., 0], y=given["y_train"])
    data = load_dataset({"kind": "npz", "file": str(tmp_path / "b.npz")})
    assert (data.shape, data.classes, sizes(data)) == (Map(1, 5, 6), 4, [29, 3, 8])
    assert data.images[:, 0, 0, 0].tolist() == list(range(40))


def test_arrays_that_are_not_read_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays(), x_val=arrays(4)["x_train"], y_val=np.arange(4))
    data = load_dataset(f"npz:{tmp_path / 'a.npz'}")
    assert data.skipped == "2 arrays ('x_val', 'y_val')"
    assert data.remarks() == ("Data 'npz:a.npz': skipped 2 arrays ('x_val', 'y_val').",)


def without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda given: given.pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda g: g.clear() or g.update(images=np.zeros(1)),
            r"there is no array 'x_train' or 'x' among its arrays: images",
        ),
        (without("x_train"), r"there is no array 'x_train' or 'x' among its arrays: y_train"),
        (without("y_train"), r"there is no array 'y_train'"),
        (lambda g: g.update(x=g["x_train"][::-1]), r"it contains both x and x_train, which mean the same: save one of"),
        (lambda g: g.update(y=g["y_train"][::-1]), r"it contains both y and y_train, which mean the same: save one of"),
        (lambda g: g.update(x_test=g["x_train"]), r"there is no array 'y_test'"),
        (
            lambda g: g.update(x_test=g["x_train"][:, 1:], y_test=g["y_train"]),
            r"images of x_test are 4 x 6 x 3, .* 5 x 6 x 3",
        ),
        (
            lambda g: g.update(x_train=g["x_train"] / 255),
            r"x_train must be uint8 .* is float64\. If .*\. The file must contain x_train \(or x\): uint8, N x H x W",
        ),
        (lambda g: g.update(y_train=g["y_train"] + 1), r"its labels are 1 to 4: labels count from 0"),
        (lambda g: g.update(x_train=g["x_train"].reshape(40, -1)), r"x_train must be images x .*, and is 40 x 90"),
        (
            lambda g: g.update(x_train=np.zeros((40, 3, 32, 32), np.uint8)),
            r"x_train is 40 x 3 x 32 x 32\. Are these N x C x H x W\? They must be N x H x W x C",
        ),
        (
            lambda g: g.update(x_train=np.zeros((40, 5, 32, 32), np.uint8)),
            r"x_train .* at most 16 channels, and is 40 x 5 x 32 x 32",
        ),
        (lambda g: g.update(y_train=g["y_train"] / 1), r"y_train must be whole numbers, and is float64"),
        (
            lambda g: g.update(y_train=g["y_train"][1:]),
            r"y_train must have one label for each of the 40 images, and is 39",
        ),
        (lambda g: g.update(y_train=g["y_train"] - 1), r"label -1 is out of range: labels count from 0"),
        (lambda g: g["y_train"].__setitem__(0, 10**9), r"label 1000000000 is out of range"),
        (
            lambda g: g.update(class_names=np.array(["a", "b", "c"])),
            r"label 3 is out of range: .* there are 3 class_names",
        ),
        (
            lambda g: g.update(y_train=np.array([None] * 40)),
            r"array 'y_train' cannot be read: it contains Python objects",
        ),
    ],
)
def test_an_invalid_npz_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    given = arrays()
    change(given)
    np.savez(tmp_path / "a.npz", **given)
    with pytest.raises(RunError, match=rf"^data 'npz': {tmp_path}/a\.npz: {message}"):
        load_dataset(f"npz:{tmp_path / 'a.npz'}")


def test_an_npz_with_a_class_without_training_images(tmp_path: Path) -> None:
    given = arrays()
    given["y_train"][given["y_train"] == 2] = 1
    np.savez(tmp_path / "a.npz", **given)
    with pytest.raises(UsageError, match=r"data 'npz:a.npz': class '2' has too few images for the split: 0 in total"):
        load_dataset(f"npz:{tmp_path / 'a.npz'}")


def test_a_damaged_npz_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(UsageError, match=rf"^data 'npz': the file {path} does not exist\.$"):
        load_dataset(f"npz:{path}")
    np.savez(path, **arrays())
    whole = path.read_bytes()
    for content, message in (
        (whole[: len(whole) // 2], "is damaged, perhaps truncated"),
        (b"", "is damaged, perhaps truncated"),
        (whole[:2000] + bytes(200) + whole[2200:], "is damaged, perhaps truncated: Bad CRC-32"),
        (b"no arrays at all", r"is not an \.npz file\. Save the arrays with 'numpy\.savez'"),
    ):
        path.write_bytes(content)
        with pytest.raises(RunError, match=rf"^data 'npz': {path}:? {message}"):
            load_dataset(f"npz:{path}")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(RunError, match=r"contains a single array without a name\."):
        load_dataset(f"npz:{tmp_path / 'one.npy'}")
    with pytest.raises(RunError, match="cannot be read: Is a directory"):
        load_dataset(f"npz:{tmp_path}")


# -------------------------------------------------------------------------------------------- numbers of the wrong kind


@pytest.mark.parametrize(
    ("images", "remedy"),
    [
        (
            np.zeros((40, 5, 6)),
            r"float64\. If its levels are 0 to 1, save \(255 \* x\)\.round\(\)\.astype\('uint8'",
        ),
        (np.full((40, 5, 6), np.nan, np.float32), r"float32\. If its levels are 0 to 1, "),
        (np.full((40, 5, 6), 300, np.int64), r"int64\. If its levels are 0 to 255, save x\.astype\('uint8'\)\."),
        (np.full((40, 5, 6), 300, np.uint16), r"uint16\. If its levels are 0 to 65,535, save \(x >> 8\)\.astype"),
        (np.ones((40, 5, 6), bool), r"bool\. Save 255 \* x\.astype\('uint8'\)\."),
        (np.full((40, 5, 6), "a"), r"<U1\. The file must contain"),
        (np.zeros((40, 5, 6), "M8[s]"), r"datetime64\[s\]\. The file must contain"),
        (np.zeros((40, 5, 6), [("r", "u1")]), r"\[\('r', 'u1'\)\]\. The file must contain"),
    ],
)
def test_images_of_other_numbers_are_refused(tmp_path: Path, images: np.ndarray, remedy: str) -> None:
    np.savez(tmp_path / "a.npz", x=images, y=np.arange(40) % 4)
    with pytest.raises(RunError, match=rf"^data 'npz': .*/a\.npz: x must be uint8 \(0 to 255\), and is {remedy}"):
        load_dataset(f"npz:{tmp_path}/a.npz")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(40), r"y must be whole numbers, and is float64"),
        (np.full(40, np.nan), r"y must be whole numbers, and is float64"),
        (np.full(40, "cat"), r"y must be whole numbers, and is <U3"),
        (np.arange(40) % 2 == 0, r"y must be whole numbers, and is bool"),
        (np.eye(40, 4, dtype=int), r"y must have one label for each of the 40 images, and is 40 x 4"),
        (np.arange(40)[None], r"y must have one label for each of the 40 images, and is 1 x 40"),
        (np.array(3), r"y must have one label for each of the 40 images, and is a single value"),
        (np.arange(40) - 1, r"label -1 is out of range"),
        (np.full(40, 2**64 - 1, np.uint64), r"label 18446744073709551615 is out of range"),
    ],
)
def test_invalid_labels_are_refused(tmp_path: Path, labels: np.ndarray, message: str) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((40, 5, 6), np.uint8), y=labels)
    with pytest.raises(RunError, match=rf"^data 'npz': {tmp_path}/a\.npz: {message}"):
        load_dataset(f"npz:{tmp_path}/a.npz")


@pytest.mark.parametrize("dtype", [np.uint8, ">i2", np.int64, np.uint64])
def test_labels_of_any_whole_numbers(tmp_path: Path, dtype: Any) -> None:
    np.savez(tmp_path / "a.npz", x=arrays(channels=1)["x_train"], y=(np.arange(40) % 4).astype(dtype))
    assert load_dataset(f"npz:{tmp_path}/a.npz").labels_N.tolist() == [index % 4 for index in range(40)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (np.array([b"ant", "b\u00e9".encode()]), ("ant", "b\u00e9")),
        (np.array([7, 9]), ("7", "9")),
        (np.array([b"ant", b"b\xe9"]), r"class_names must be UTF-8 text, and a name is not"),
        (np.array(["ant", "b\udce9"]), r"class_names must be UTF-8 text, and a name is not"),
        (np.array([["ant", "bee"]]), r"class_names must be a list of texts, and is 1 x 2 of type <U3"),
        (np.array([0.5, 1.5]), r"class_names must be a list of texts, and is 2 of type float64"),
        (np.array("ant"), r"class_names must be a list of texts, and is a single value of type <U3"),
    ],
)
def test_class_names_are_texts(tmp_path: Path, names: np.ndarray, expected: tuple[str, ...] | str) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((40, 5, 6), np.uint8), y=np.arange(40) % 2, class_names=names)
    if isinstance(expected, tuple):
        assert load_dataset(f"npz:{tmp_path}/a.npz").class_names == expected
    else:
        with pytest.raises(RunError, match=rf"^data 'npz': {tmp_path}/a\.npz: {expected}\. The file must contain"):
            load_dataset(f"npz:{tmp_path}/a.npz")


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((40, 5, 6), np.uint8), y=np.zeros(40, int))
    message = r"^data 'npz:a\.npz': there is a single class, '0', and training requires two or more\. Add images of an"
    with pytest.raises(UsageError, match=message):
        load_dataset(f"npz:{tmp_path}/a.npz")


# --------------------------------------------------------------------------------------------- files with a lie in them


def header(shape: str, dtype: str = "|u1") -> bytes:
    """The header of an array in numpy's format 1.0."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def pack(path: Path, x: bytes, method: int = zipfile.ZIP_STORED, **options: Any) -> bytes:
    """A file with these bytes as array `x`, and valid labels."""
    buffer = io.BytesIO()
    np.save(buffer, np.arange(40) % 4)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(options.get("name", "x.npy"), x)
        archive.writestr("y.npy", buffer.getvalue())
    return path.read_bytes()


def claim_size(whole: bytes, size: int) -> bytes:
    """The archive with another uncompressed size of its first member, in both places that state it."""
    start = whole.index(b"PK\x01\x02")
    return whole[:22] + struct.pack("<I", size) + whole[26 : start + 24] + struct.pack("<I", size) + whole[start + 28 :]


def set_method(whole: bytes, method: int, flags: int = 0) -> bytes:
    start = whole.index(b"PK\x01\x02")
    code = struct.pack("<HH", flags, method)
    return whole[:6] + code + whole[10 : start + 8] + code + whole[start + 12 :]


PIXELS = header("(40, 5, 6)") + bytes(1200)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"raw bytes", r"it is not an array of numpy"),
        (b"", r"it is not an array of numpy"),
        (PIXELS[:-1], r"its header claims 40 x 5 x 6 of type uint8 \(1\.17 KiB\), and the file has 1\.17 KiB"),
        (PIXELS + b"more", r"its header claims 40 x 5 x 6 of type uint8 \(1\.17 KiB\), and the file has 1\.18 KiB"),
        (header("(8000000, 2000000, 4)"), r"its header claims 8000000 x 2000000 x 4 of type uint8 \(58\.2 TiB\), and"),
        (
            header("(40, 5, 6)", "<f8"),
            r"its header claims 40 x 5 x 6 of type float64 \(9\.38 KiB\), and the file",
        ),
        (header(f"({2**62}, {2**62}, {2**62})"), r"its header claims 46\d+ x 46\d+ x 46.* \(8\.19e\+03 PiB\), and the"),
        (header(f"({10**400}, 5)"), r"its header is broken: it claims an impossible shape or type"),
        (header("(-40, -30)"), r"its header is broken: it claims an impossible shape or type"),
        (header("(" + "1, " * 40 + ")"), r"its header is broken: it claims an impossible shape or type"),
        (header("(40,)", "<U0"), r"its header is broken: it claims an impossible shape or type"),
        (header("'40'"), r"its header is broken: "),
        (header("(" * 3000 + ")" * 3000), r"its header is broken: "),
        (header("__import__('os').abort()"), r"its header is broken: "),
        (header("(40, 5, 6)", "no type"), r"its header is broken: "),
        (header("(40, 5, 6)")[:40], r"its header is broken: "),
        (header("(40,)", "|O") + bytes(320), r"it contains Python objects, which could run any program"),
        (b"\x93NUMPY\x03\x00" + bytes(200), r"its format 3\.0 is for arrays with fields"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b"(" * 90_000, r"its header is broken: "),
    ],
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_array_that_its_header_does_not_fit_is_refused(
    tmp_path: Path, content: bytes, message: str, method: int
) -> None:
    pack(tmp_path / "a.npz", content, method)
    with pytest.raises(RunError, match=rf"^data 'npz': .*/a\.npz: array 'x' cannot be read: {message}") as caught:
        load_dataset(f"npz:{tmp_path}/a.npz")
    assert "\n" not in str(caught.value)


def test_the_valid_file_of_these_tests_is_read(tmp_path: Path) -> None:
    for name in ("x.npy", "x"):
        pack(tmp_path / "a.npz", PIXELS, name=name)
        assert load_dataset(f"npz:{tmp_path}/a.npz").shape == Map(1, 5, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda whole: set_method(whole, 0, flags=1), r"it is encrypted\. Save it without a password"),
        (lambda whole: set_method(whole, 98), r"numpy does not write its method of compression \(98\)\. Use 'numpy\.s"),
        (lambda whole: set_method(whole, 14), r"numpy does not write its method of compression \(14\)\. Use 'numpy\.s"),
        (lambda whole: claim_size(whole, 2**32 - 2), r"it claims 4\.00 GiB, of which the file has 1\.\d+ KiB"),
    ],
)
def test_an_archive_that_claims_what_it_does_not_hold_is_refused(
    tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(change(pack(path, PIXELS)))
    with pytest.raises(RunError, match=rf"^data 'npz': {path}: array 'x' cannot be read: {message}"):
        load_dataset(f"npz:{path}")


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npz")
    with pytest.raises(RunError, match=rf"^data 'npz': {tmp_path}/a\.npz is a pipe or device\. Save the arrays in"):
        load_dataset(f"npz:{tmp_path}/a.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_files_are_read_or_refused(tmp_path: Path, save: Callable[..., None]) -> None:
    path, draw, refused = tmp_path / "a.npz", random.Random(0), 0
    save(path, x=arrays()["x_train"][:, :2, :2, 0], y=arrays()["y_train"], class_names=np.array(["a", "b", "c", "d"]))
    whole = path.read_bytes()
    for number in range(400):
        damaged = bytearray(whole[: draw.randrange(len(whole))] if number % 4 == 0 else whole)
        for _ in range(draw.randrange(1, 4)):
            if damaged:
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            load_dataset(f"npz:{path}")
        except HrgError as error:
            refused += 1
            assert re.match(rf"data 'npz(:a\.npz)?': ({path}|class|there)", str(error)) and "\n" not in str(error)
    assert refused > 200
