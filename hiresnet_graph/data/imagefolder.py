"""Images in one folder for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from hiresnet_graph.data.kind import DATASETS, AbsolutePath, DatasetKind, GreyOrColour
from hiresnet_graph.data.split import TEST_SHARE, Split, check_split, hold_out, keep_test
from hiresnet_graph.errors import RunError, UsageError, did_you_mean
from hiresnet_graph.shapes import Map

if TYPE_CHECKING:
    from hiresnet_graph.data.dataset import Dataset

_LARGEST_DEFAULT = 64  # chosen by us; larger images only on request


@DATASETS.register
class ImageFolderData(DatasetKind):
    """Images in a folder for each class: `DIR/CLASS/*`, or `DIR/train/CLASS/*` with `DIR/val` or `DIR/test` beside it.

    Classes are numbered in the order of their names. If there is a folder `test`, its images are the test set, and
    those of `val` the validation set; without `val`, validation images are held out of `train`. With `val` alone, its
    images are the test set (as is usual for ImageNet). Without both, 20 % are held out for the test.

    The shorter side of each image is resized bilinearly to `size`, and the centre is cropped. Default augmentation:
    flip.

    Attributes:
        dir: The folder.
        size: Height and width of all images (default: the shorter side of the first image, at most 64).
        channels: 3 (colour) or 1 (grey).
        stream: Read the files in every epoch instead of once (default: only above 2 GiB).
    """

    kind: ClassVar[str] = "imagefolder"
    argument: ClassVar[str] = "dir"

    dir: AbsolutePath
    size: int | None = Field(default=None, ge=1, le=4096)
    channels: GreyOrColour = 3
    stream: bool | None = None

    def load(self) -> Dataset:
        """The images, the labels and the split: the training images come first."""
        import torch

        from hiresnet_graph.data.dataset import Dataset
        from hiresnet_graph.data.files import ImageFiles, class_folders, image_names, shorter_side

        if not self.dir.is_dir():
            raise UsageError(f"data 'imagefolder': the folder {self.dir} does not exist.")
        beside = [part for part in ("val", "test") if (self.dir / part).is_dir()]
        parts = ["train", *beside] if beside and (self.dir / "train").is_dir() else ["."]
        classes = class_folders(self.dir / parts[0])
        if len(classes) < 2:
            raise UsageError(
                f"data 'imagefolder': {self.dir / parts[0]} must contain at least two class folders, and contains "
                f"{', '.join(map(repr, classes)) or 'none'}. Create a folder for each class in it, named after the "
                "class, with its images."
            )
        names: list[str] = []
        labels: list[int] = []
        sizes: list[int] = []
        for part in parts:
            for class_name in class_folders(self.dir / part):
                if class_name not in classes:
                    raise RunError(
                        f"data 'imagefolder': {self.dir / part / class_name}: this class has no training images. "
                        f"{did_you_mean(class_name, classes)}".strip()
                    )
                found = image_names(self.dir, class_name if part == "." else f"{part}/{class_name}")
                names += found
                labels += [classes.index(class_name)] * len(found)
            sizes.append(len(names) - sum(sizes))
        split = self._split(labels, sizes)
        name = f"imagefolder:{self.dir.name}"
        check_split(name, split, labels, classes, ("train", "test") if len(parts) == 1 else ("train",))
        size = self.size or min(_LARGEST_DEFAULT, shorter_side(self.dir / names[0]))
        return Dataset(
            name=name,
            classes=len(classes),
            images=ImageFiles(self.dir, tuple(names), Map(self.channels, size, size)).load(self.stream),
            labels_N=torch.tensor(labels),
            split=split,
            class_names=tuple(classes),
            standard_augmentation="flip",
        )

    def _split(self, labels: list[int], sizes: list[int]) -> Split:
        """The split of images in the order train, val, test, from the sizes of these parts."""
        if len(sizes) == 1:
            return hold_out(labels, TEST_SHARE, self.validation_share, self.split_seed)
        if len(sizes) == 2:
            return keep_test(labels, sizes[1], self.validation_share, self.split_seed)
        train, validation, _ = sizes
        indices, ends = range(sum(sizes)), (train, train + validation)
        return Split(tuple(indices[: ends[0]]), tuple(indices[ends[0] : ends[1]]), tuple(indices[ends[1] :]))
