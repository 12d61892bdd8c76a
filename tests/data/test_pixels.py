"""Image files as people have them: every mode of Pillow, orientation, damage, other formats under the same names."""

import io
import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torchvision.transforms as transforms
from PIL import Image, ImageCms

from hiresnet_graph.data import ImageFolderData, load_dataset
from hiresnet_graph.data.pixels import read_pixels, shorter_side
from hiresnet_graph.errors import RunError
from hiresnet_graph.shapes import Map

COLOUR, GREY = Map(3, 6, 9), Map(1, 6, 9)


@pytest.fixture
def colour() -> Image.Image:
    return Image.fromarray(np.random.RandomState(0).randint(0, 256, (6, 9, 3), np.uint8))


def to_lab(image: Image.Image) -> Image.Image:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.applyTransform(image, ImageCms.buildTransform(srgb, lab, "RGB", "LAB"))


def with_alpha(image: Image.Image) -> Image.Image:
    image.putalpha(40)
    return image


# How each mode is made of a colour image, the suffix of a lossless format that holds it, and the largest difference.
@pytest.mark.parametrize(
    ("make", "suffix", "mode", "tolerance"),
    [
        (lambda image: image.convert("1"), "png", "1", 0),
        (lambda image: image.convert("L"), "png", "L", 0),
        (lambda image: with_alpha(image.convert("L")), "png", "LA", 0),
        (lambda image: image.quantize(), "png", "P", 0),
        (lambda image: image.quantize().convert("PA"), "tiff", "PA", 0),
        (lambda image: image, "png", "RGB", 0),
        (with_alpha, "png", "RGBA", 0),
        (lambda image: image.convert("RGBX"), "tiff", "RGB", 0),
        (lambda image: image.convert("CMYK"), "tiff", "CMYK", 0),
        (lambda image: image.convert("YCbCr"), "tiff", "YCbCr", 3),
        (to_lab, "tiff", "LAB", 20),  # some colours are outside
    ],
)
def test_every_mode_is_converted(
    tmp_path: Path,
    colour: Image.Image,
    make: Callable[[Image.Image], Image.Image],
    suffix: str,
    mode: str,
    tolerance: int,
) -> None:
    made = make(colour.copy())
    path = tmp_path / f"a.{suffix}"
    made.save(path)
    with Image.open(path) as opened:
        assert opened.mode == mode
    expected = {"1": made.convert("RGB"), "L": colour.convert("L").convert("RGB")}
    expected["LA"] = expected["L"]
    reference = expected.get(mode, colour)
    for shape, channels in ((COLOUR, "RGB"), (GREY, "L")):
        wanted = np.asarray(reference.convert(channels)).reshape(6, 9, -1).transpose(2, 0, 1).astype(int)
        assert np.abs(read_pixels(path, shape) - wanted).max() <= tolerance


def test_a_transparent_palette_is_read_without_transparency(tmp_path: Path, colour: Image.Image) -> None:
    palette = colour.quantize()
    palette.save(tmp_path / "a.png", transparency=bytes(range(54)))
    palette.save(tmp_path / "a.gif", transparency=3)
    for name in ("a.png", "a.gif"):
        assert np.array_equal(read_pixels(tmp_path / name, COLOUR), np.asarray(colour).transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm", "big-endian tiff", "tiff with a palette of grey inverted"])
def test_16_bit_grey_keeps_its_upper_bits(tmp_path: Path, suffix: str) -> None:
    levels_HW = np.arange(54, dtype=np.uint16).reshape(6, 9) * 1213 + 7
    image, path = Image.fromarray(levels_HW), tmp_path / f"a.{suffix.split()[-1]}"
    if suffix == "big-endian tiff":
        image = image.convert("I").convert("I;16B")
    if suffix.endswith("inverted"):
        path = tmp_path / "a.tiff"
        image.save(path, tiffinfo={262: 0})
    else:
        image.save(path)
    expected_HW = levels_HW >> 8
    if suffix.endswith("inverted"):
        expected_HW = 255 - expected_HW
    assert np.array_equal(read_pixels(path, GREY)[0], expected_HW)
    assert np.array_equal(read_pixels(path, COLOUR), np.stack([expected_HW] * 3))


def test_16_bit_grey_equals_16_bit_colour(tmp_path: Path) -> None:
    levels_HW = np.arange(54, dtype=np.uint16).reshape(6, 9) * 1213 + 7
    Image.fromarray(levels_HW).save(tmp_path / "grey.png")
    header = b"P6 9 6 65535\n"
    (tmp_path / "colour.ppm").write_bytes(header + np.stack([levels_HW] * 3, 2).astype(">u2").tobytes())
    grey, rgb = (read_pixels(tmp_path / name, COLOUR).astype(int) for name in ("grey.png", "colour.ppm"))
    assert np.abs(grey - rgb).max() <= 1  # Pillow rounds PPM


@pytest.mark.parametrize(
    ("image", "name", "why"),
    [
        (Image.new("F", (9, 6), 0.5), "a.tif", "this image has floating-point pixels, whose range is unknown"),
        (Image.new("I", (9, 6), 70_000), "a.tif", "this image has signed or 32-bit pixels, whose range is unknown"),
        (Image.new("F", (9, 6), 0.5), "a.ppm", "this image has floating-point pixels, whose range is unknown"),
    ],
)
def test_pixels_without_a_known_range_are_refused(tmp_path: Path, image: Image.Image, name: str, why: str) -> None:
    image.save(tmp_path / name)
    with pytest.raises(RunError, match=rf"^{tmp_path / name}: {why}\. Save it with 8 or 16 bits, unsigned\.$"):
        read_pixels(tmp_path / name, GREY)


def tiff_of(levels_HW: np.ndarray, path: Path, numbers: int) -> Path:
    """A TIFF file of grey levels of 8 or 64 bits whose tag `SampleFormat` says what kind of numbers they are."""
    Image.fromarray(np.zeros(levels_HW.shape, np.uint8)).save(path, tiffinfo={339: numbers})
    content, width, bits = path.read_bytes(), levels_HW.shape[1], 8 * levels_HW.itemsize
    assert content[:4] == b"II*\0" and content.endswith(bytes(levels_HW.size))
    tag = struct.pack("<HHI", 258, 3, 1)  # BitsPerSample
    content = content.replace(tag + struct.pack("<I", 8), tag + struct.pack("<I", bits))
    path.write_bytes(content[: -levels_HW.size] + levels_HW.tobytes())
    assert width == 9
    return path


@pytest.mark.parametrize("channels", [1, 3])
def test_signed_8_bits_are_not_read_as_unsigned(tmp_path: Path, channels: int) -> None:
    levels_HW = np.arange(-27, 27, dtype=np.int8).reshape(6, 9)
    path = tiff_of(levels_HW, tmp_path / "a.tif", numbers=2)
    with pytest.raises(RunError, match=rf"^{path}: this image has signed or 32-bit pixels, whose range is unknown\."):
        read_pixels(path, Map(channels, 6, 9))
    path = tiff_of(levels_HW.view(np.uint8), tmp_path / "b.tif", numbers=1)
    assert np.array_equal(read_pixels(path, GREY)[0], levels_HW.view(np.uint8))


def test_a_tiff_file_that_pillow_cannot_read_is_called_one(tmp_path: Path) -> None:
    path = tiff_of(np.zeros((6, 9)), tmp_path / "a.tif", numbers=3)
    with pytest.raises(RunError, match="it is a TIFF file of a kind that Pillow does not read, such as"):
        read_pixels(path, GREY)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    upright = np.zeros((6, 9, 3), np.uint8)
    upright[:3], upright[:, :4, 0] = (0, 200, 90), 250
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"a.{suffix}", exif=exif, **options)
    found = read_pixels(tmp_path / f"a.{suffix}", COLOUR).transpose(1, 2, 0).astype(int)
    assert np.abs(found - upright).max() <= (60 if suffix == "jpg" else 0)
    assert np.abs(found - upright).mean() <= 6
    assert shorter_side(tmp_path / f"a.{suffix}") == 6


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_several_frames_are_refused(tmp_path: Path, suffix: str, colour: Image.Image) -> None:
    path = tmp_path / f"a.{suffix}"
    colour.save(path, save_all=True, append_images=[colour.rotate(180)])
    with pytest.raises(RunError, match=rf"^{path}: this image has 2 frames or pages\. Save each .* file of its own\.$"):
        read_pixels(path, COLOUR)


def test_the_preview_in_a_photograph_is_no_frame(tmp_path: Path, colour: Image.Image) -> None:
    colour.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[colour.resize((3, 2))], quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        assert (image.format, image.n_frames) == ("MPO", 2)
    colour.save(tmp_path / "b.jpg", quality=95)
    assert np.array_equal(*(read_pixels(tmp_path / name, COLOUR) for name in ("a.jpg", "b.jpg")))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty"),
        (b"words", "it is not a BMP, GIF, JPEG, PNG, PPM, TIFF or WebP file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), ".+"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for read in (lambda: read_pixels(path, GREY), lambda: shorter_side(path)):
        with pytest.raises(RunError, match=rf"^{path}: this image cannot be read: {why}\. Repair it, or delete it"):
            read()


@pytest.mark.parametrize("save_as", ["EPS", "PCX", "ICO", "TGA", "JPEG2000", "SGI", "PDF", "DDS"])
def test_formats_that_the_docs_do_not_name_are_not_opened(
    tmp_path: Path, colour: Image.Image, save_as: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(ghostscript.parent), prepend=":")
    colour.resize((32, 32)).save(tmp_path / "a.png", save_as)
    with pytest.raises(RunError, match=rf"^{tmp_path}/a\.png: this image cannot be read: it is not a BMP, GIF, "):
        read_pixels(tmp_path / "a.png", COLOUR)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("suffix", ["bmp", "gif", "jpg", "png", "ppm", "tif", "webp"])
def test_damaged_images_are_read_or_named(tmp_path: Path, colour: Image.Image, suffix: str) -> None:
    colour.save(tmp_path / f"whole.{suffix}")
    whole, draw = (tmp_path / f"whole.{suffix}").read_bytes(), random.Random(0)
    path, refused = tmp_path / f"a.{suffix}", 0
    for number in range(150):
        damaged = bytearray(whole[: draw.randrange(len(whole))] if number % 2 else whole)
        for _ in range(draw.randrange(4)):
            if damaged:
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            assert read_pixels(path, COLOUR).shape == (3, 6, 9)
        except RunError as error:
            refused += 1
            assert str(error).startswith(f"{path}: this image ") and "\n" not in str(error)
    assert refused > 30


def test_damaged_notes_of_the_camera_are_ignored(tmp_path: Path, colour: Image.Image) -> None:
    buffer = io.BytesIO()
    colour.save(buffer, "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    assert np.array_equal(read_pixels(tmp_path / "a.png", COLOUR), np.asarray(colour).transpose(2, 0, 1))


@pytest.mark.parametrize("own", [(20, 31), (31, 20), (7, 12), (48, 16), (60, 20), (200, 20), (5, 5), (16, 48)])
@pytest.mark.parametrize("target", [(16, 48), (48, 16), (16, 16), (5, 7)])
def test_images_cover_the_size_as_in_torchvision(tmp_path: Path, own: tuple[int, int], target: tuple[int, int]) -> None:
    """The side that is shorter, relative to the target, is resized to that of the target; then CenterCrop."""
    image = Image.fromarray(np.random.RandomState(1).randint(0, 256, (*own[::-1], 3), np.uint8))
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(5):
            image.save(tmp_path / name / f"{number}.png")
    (width, height), (rows, columns) = own, target
    if width / columns <= height / rows:
        resize = (int(columns * height / width), columns)
    else:
        resize = (rows, int(rows * width / height))
    steps = [transforms.Resize(resize), transforms.CenterCrop(target), transforms.PILToTensor()]
    expected = transforms.Compose(steps)(image)
    data = load_dataset(ImageFolderData(dir=tmp_path, size=f"{rows}x{columns}"))
    assert data.shape == Map(3, rows, columns)
    assert np.array_equal(data.images[0], expected)
    # The shorter side alone decides where the longer side of the image is the longer side of the target.
    if width * rows == height * columns or rows == columns:
        short = [transforms.Resize(min(target)), transforms.CenterCrop(target), transforms.PILToTensor()]
        assert np.array_equal(data.images[0], transforms.Compose(short)(image))


@pytest.mark.parametrize("size", ["0", "16x0", "16x48x3", "x", "-1", "16 x 48", "5000", 1.5, True, [16, 48]])
def test_an_invalid_size_is_refused(tmp_path: Path, size: object) -> None:
    with pytest.raises(Exception, match=r"size: expected one number, or height x width like '16x48', each from 1 to"):
        load_dataset({"kind": "imagefolder", "dir": str(tmp_path), "size": size})
