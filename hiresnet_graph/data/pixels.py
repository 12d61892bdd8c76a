"""One image file as 8-bit pixels.

Axes: C channels, H height, W width.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from hiresnet_graph.errors import RunError
from hiresnet_graph.shapes import Map

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# No other format is tried, whatever the name of a file: Pillow passes PostScript to Ghostscript, an interpreter.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_EIGHT_BIT = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})
_FLOAT, _INTEGER = "F", "I"
# Formats whose pixels of mode `I` have 16 bits. In TIFF files they have a sign or 32 bits.
_UNSIGNED = ("PNG", "PPM")
_ORIENTATION, _BITS, _PHOTOMETRIC, _NUMBERS = 0x0112, 0x0102, 0x0106, 0x0153  # tags of EXIF and TIFF
_SIGNED = 2  # of the tag `_NUMBERS`
_TIFF_STARTS = (b"II*\0", b"MM\0*")
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_pixels(path: Path, shape: Map) -> npt.NDArray[np.uint8]:
    """The image in a file, upright, resized bilinearly until it just covers the shape, and cropped to its centre.

    Of 16 bits, the upper 8 are used. Transparency is ignored, as in torchvision.

    Args:
        path: A file of any of the formats BMP, GIF, JPEG, PNG, PPM, TIFF and WebP, whatever its suffix.
        shape: With 3 channels (RGB), or 1 (grey).

    Shape: (C, H, W).

    Raises:
        RunError: The file is missing, is not an image, has several frames, or has pixels without a known range.
    """
    try:
        with Image.open(path, formats=_FORMATS) as opened:
            _check_single(opened)
            opened.load()
            image = _upright(_convert(opened, shape.channels), opened)
    except MemoryError:
        raise
    except Exception as error:  # the decoders raise errors of many types for damaged files
        raise_unreadable(path, error)
    if image.size != (shape.width, shape.height):
        image = _crop_center(image, shape.width, shape.height)
    return np.asarray(image).reshape(shape.height, shape.width, shape.channels).transpose(2, 0, 1)


def shorter_side(path: Path) -> int:
    """The shorter side of an image, in pixels.

    Raises:
        RunError: The file is missing, or is not an image.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return min(image.size)
    except Exception as error:  # as above
        raise_unreadable(path, error)


def raise_unreadable(path: Path, error: Exception) -> NoReturn:
    """Raise the error of a file that cannot be read.

    Raises:
        RunError: Always.
    """
    if isinstance(error, FileNotFoundError):
        raise RunError(f"{path}: this image of the data set is missing. Restore it, then resume.") from None
    if isinstance(error, RunError):
        raise RunError(f"{path}: {error}") from None
    if isinstance(error, UnidentifiedImageError):
        why = _why_unidentified(path)
    elif isinstance(error, OSError) and error.strerror:
        why = error.strerror
    else:
        why = str(error).split(" (")[0] or type(error).__name__
    raise RunError(f"{path}: this image cannot be read: {why}. Repair it, or delete it and start again.") from None


def _why_unidentified(path: Path) -> str:
    """Why Pillow does not know what a file is."""
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        return "the file is empty"
    if start in _TIFF_STARTS:
        return "it is a TIFF file of a kind that Pillow does not read, such as signed colours or 64-bit levels"
    return "it is not a BMP, GIF, JPEG, PNG, PPM, TIFF or WebP file"


def _check_single(image: Image.Image) -> None:
    # Photographs of some cameras ("MPO") contain a preview as a second frame.
    if image.format != "MPO" and (frames := getattr(image, "n_frames", 1)) > 1:
        raise RunError(f"this image has {frames} frames or pages. Save each that you need as a file of its own.")


def _convert(image: Image.Image, channels: int) -> Image.Image:
    """The image as grey or RGB."""
    mode = image.mode
    if mode.startswith("I;16") or (mode == _INTEGER and image.format in _UNSIGNED):
        image = Image.fromarray(_upper_bits(image))
    elif mode in (_INTEGER, _FLOAT) or _has_sign(image):
        kind = "floating-point" if mode == _FLOAT else "signed or 32-bit"
        raise RunError(f"this image has {kind} pixels, whose range is unknown. Save it with 8 or 16 bits, unsigned.")
    elif mode not in _EIGHT_BIT:
        raise RunError(f"images of Pillow's mode '{mode}' are not supported. Save it as RGB or grey.")
    elif mode in ("P", "PA"):
        image = image.convert("RGBA")
    elif mode == "LAB":
        image = image.convert("RGB")
    return image.convert("RGB" if channels == 3 else "L")


def _has_sign(image: Image.Image) -> bool:
    """Whether the pixels of a TIFF file are signed; Pillow reads signed 8 bits as if they were not."""
    return _SIGNED in getattr(image, "tag_v2", {}).get(_NUMBERS, ())


def _upper_bits(image: Image.Image) -> npt.NDArray[np.uint8]:
    """The upper 8 bits of 16-bit grey, as Pillow takes them of 16-bit colour."""
    tags = getattr(image, "tag_v2", {})
    bits = 12 if tags.get(_BITS) == (12,) else 16
    levels_HW = np.asarray(image).astype(np.int64) >> (bits - 8)
    if not 0 <= levels_HW.min() <= levels_HW.max() <= 255:
        raise RunError("this image has pixels outside 0 to 65,535. Save it with 8 or 16 bits, unsigned.")
    # Pillow inverts TIFF files in which 0 is white only if they have 8 bits.
    return (255 - levels_HW if tags.get(_PHOTOMETRIC) == 0 else levels_HW).astype(np.uint8)


def _upright(image: Image.Image, opened: Image.Image) -> Image.Image:
    """The image turned as the camera noted it. Pillow has done this for TIFF files."""
    try:
        turn = None if opened.format == "TIFF" else _UPRIGHT.get(opened.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged notes do not make the pixels unreadable
        turn = None
    return image if turn is None else image.transpose(turn)


def _crop_center(image: Image.Image, width: int, height: int) -> Image.Image:
    """Resize and CenterCrop of torchvision; the side that is shorter, relative to the target, is resized to it."""
    own_width, own_height = image.size
    if own_width * height <= own_height * width:
        sides = (width, max(height, int(width * own_height / own_width)))
    else:
        sides = (max(width, int(height * own_width / own_height)), height)
    image = image.resize(sides, Image.Resampling.BILINEAR)
    left, top = round((sides[0] - width) / 2), round((sides[1] - height) / 2)
    return image.crop((left, top, left + width, top + height))
