"""Images in one folder for each class."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import BeforeValidator

from hiresnet_graph.data.kind import DATASETS, AbsolutePath, DatasetKind, GreyOrColour
from hiresnet_graph.data.split import TEST_SHARE, Split, check_split, hold_out, keep_test
from hiresnet_graph.errors import MissingDataError, RunError, UsageError, did_you_mean
from hiresnet_graph.shapes import Map

if TYPE_CHECKING:
    from hiresnet_graph.data.dataset import Dataset
    from hiresnet_graph.data.folders import ImageFolder

_LARGEST_DEFAULT = 64  # chosen by us; larger images only on request
_LARGEST = 4096


def _read_size(value: object) -> object:
    """32, '32' or '16x48' as a whole number, or as text if height and width differ."""
    found = re.fullmatch(r"(\d{1,9})(?:x(\d{1,9}))?", str(value), re.ASCII) if not isinstance(value, bool) else None
    height, width = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not (0 < height <= _LARGEST and 0 < width <= _LARGEST):
        raise ValueError(
            f"expected one number, or height x width like '16x48', each from 1 to {_LARGEST}, got {value!r}."
        )
    return height if height == width else f"{height}x{width}"


ImageSize = Annotated[int | str, BeforeValidator(_read_size)]


@DATASETS.register
class ImageFolderData(DatasetKind):
    """Images in a folder for each class: `DIR/CLASS/*`, or `DIR/train/CLASS/*` with `DIR/val` or `DIR/test` beside it.

    Classes are numbered in the order of their names. If there is a folder `test`, its images are the test set, and
    those of `val` the validation set; without `val`, validation images are held out of `train`. With `val` alone, its
    images are the test set (as is usual for ImageNet). Without both, 20 % are held out for the test. In any case of
    letters, `training` is accepted for `train`; `valid`, `validation` and `dev` for `val`; `testing`, `eval` and
    `evaluation` for `test`.

    Files are BMP, GIF, JPEG, PNG, PPM, TIFF or WebP images at any depth in the folder of their class, with the usual
    suffixes. Hidden files and folders are skipped, as are images and folders beside the ones named above. Each file is
    read once: it counts where it lies, not where links to it are. The EXIF orientation is applied. Transparency is
    ignored. Of 16 bits, the upper 8 are used. Files with several frames, and signed, 32-bit or floating-point pixels,
    are refused.

    Each image is resized bilinearly so that it just covers `size`, and its centre is cropped: for squares, `Resize` and
    `CenterCrop` of torchvision. Default augmentation: flip.

    Attributes:
        dir: The folder.
        size: Height and width of all images, as one number or like `16x48` (default: the shorter side of the first
            image, at most 64).
        channels: 3 (colour) or 1 (grey).
        stream: Read the files in every epoch instead of once (default: only above 2 GiB).
    """

    kind: ClassVar[str] = "imagefolder"
    argument: ClassVar[str] = "dir"

    dir: AbsolutePath
    size: ImageSize | None = None
    channels: GreyOrColour = 3
    stream: bool | None = None

    def load(self) -> Dataset:
        """The images, the labels and the split: the training images come first."""
        import torch

        from hiresnet_graph.data.dataset import Dataset
        from hiresnet_graph.data.files import ImageFiles
        from hiresnet_graph.data.folders import class_folders, describe_unread, find_images, part_folders

        if not os.path.isdir(self.dir):  # unlike Path.is_dir, without an error for names that are too long
            raise MissingDataError(f"data 'imagefolder': the folder {self.dir} does not exist.")
        parts = list(part_folders(self.dir, class_folders(self.dir)).values()) or ["."]
        classes = class_folders(self.dir / parts[0])
        label_of = self._label_folders(parts, classes)
        found = find_images(self.dir, tuple(label_of))
        labels, sizes = [], [0] * len(parts)
        for folder, names in zip(label_of, found.names, strict=True):
            labels += [label_of[folder]] * len(names)
            sizes[folder.part] += len(names)
        names = tuple(name for names in found.names for name in names)
        split = self._split(labels, sizes)
        name = f"imagefolder:{self.dir.name}"
        check_split(name, split, labels, classes, ("train", "test") if len(parts) == 1 else ("train",))
        return Dataset(
            name=name,
            classes=len(classes),
            images=ImageFiles(self.dir, names, self._shape(self.dir / names[0])).load(self.stream),
            labels_N=torch.tensor(labels),
            split=split,
            class_names=tuple(classes),
            standard_augmentation="flip",
            skipped=", ".join(filter(None, (found.skipped, describe_unread(self.dir, tuple(label_of))))),
        )

    def _label_folders(self, parts: list[str], classes: list[str]) -> dict[ImageFolder, int]:
        """The label of each class folder of each part."""
        from hiresnet_graph.data.folders import ImageFolder, class_folders

        if len(classes) < 2:
            raise UsageError(
                f"data 'imagefolder': {self.dir / parts[0]} must contain at least two class folders, and contains "
                f"{', '.join(map(repr, classes)) or 'none'}. Create a folder for each class in it, named after the "
                "class, with its images."
            )
        label_of = {}
        for number, part in enumerate(parts):
            if not (names := class_folders(self.dir / part)):
                raise UsageError(
                    f"data 'imagefolder': {self.dir / part} contains no class folders, so its images have no classes. "
                    f"Sort them into folders named like those in {self.dir / parts[0]}, or move it elsewhere."
                )
            for name in names:
                if name not in classes:
                    raise RunError(
                        f"data 'imagefolder': {self.dir / part / name}: this class has no training images. "
                        f"{did_you_mean(name, classes)}".strip()
                    )
                label_of[ImageFolder(name if part == "." else f"{part}/{name}", number)] = classes.index(name)
        return label_of

    def _shape(self, first: Path) -> Map:
        """The shape of all images, from the first one if it is not given."""
        from hiresnet_graph.data.pixels import shorter_side

        height, _, width = str(self.size or min(_LARGEST_DEFAULT, shorter_side(first))).partition("x")
        return Map(self.channels, int(height), int(width or height))

    def _split(self, labels: list[int], sizes: list[int]) -> Split:
        """The split of images in the order train, val, test, from the sizes of these parts."""
        if len(sizes) == 1:
            return hold_out(labels, TEST_SHARE, self.validation_share, self.split_seed)
        if len(sizes) == 2:
            return keep_test(labels, sizes[1], self.validation_share, self.split_seed)
        train, validation, _ = sizes
        indices, ends = range(sum(sizes)), (train, train + validation)
        return Split(tuple(indices[: ends[0]]), tuple(indices[ends[0] : ends[1]]), tuple(indices[ends[1] :]))
