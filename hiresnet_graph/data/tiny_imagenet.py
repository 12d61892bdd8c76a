"""Tiny-ImageNet, in its published folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from hiresnet_graph.data.kind import DATASETS, PublishedData
from hiresnet_graph.data.split import check_split, keep_test
from hiresnet_graph.errors import RunError
from hiresnet_graph.shapes import Map

if TYPE_CHECKING:
    from hiresnet_graph.data.dataset import Dataset


@DATASETS.register
class TinyImagenetData(PublishedData):
    """Tiny-ImageNet: colour images, 64x64, 500 for training and 50 for the test in each of 200 classes.

    Any number of class folders in `train/` is accepted. The labels of the test images are not public: as is usual, the
    published validation set is our test set, and our validation images are held out of the training set. Default
    augmentation: crop and flip.

    Source: Y. Le, X. Yang: Tiny ImageNet Visual Recognition Challenge (Stanford CS 231N, 2015).

    Attributes:
        stream: Read the files in every epoch instead of once (default: only above 2 GiB).
    """

    kind: ClassVar[str] = "tiny-imagenet"
    folder: ClassVar[str] = "tiny-imagenet-200"
    address: ClassVar[str] = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"

    stream: bool | None = None

    def load(self) -> Dataset:
        """The images, the labels and the split: the training images come first, class by class."""
        import torch

        from hiresnet_graph.data.dataset import Dataset
        from hiresnet_graph.data.files import ImageFiles
        from hiresnet_graph.data.folders import ImageFolder, class_folders, find_images

        folder = self.find()
        if folder is None:
            raise self.not_found()
        ids = class_folders(folder / "train")
        # The test images are found, too, so that none of them enters training through a link.
        parts = [*(ImageFolder(f"train/{id_}", 0) for id_ in ids), ImageFolder("val/images", 1)]
        *training, _ = find_images(folder, parts).names
        names = [name for group in training for name in group]
        labels = [label for label, group in enumerate(training) for _ in group]
        annotated = self._annotated(folder, ids)
        names += [f"val/images/{name}" for name in annotated]
        labels += annotated.values()
        split = keep_test(labels, len(annotated), self.validation_share, self.split_seed)
        check_split(self.kind, split, labels, ids, ("train",))
        files = ImageFiles(folder, tuple(names), Map(3, 64, 64))
        return Dataset(
            name=self.kind,
            classes=len(ids),
            images=files.load(self.stream),
            labels_N=torch.tensor(labels),
            split=split,
            class_names=_words(folder, ids),
            standard_augmentation="crop+flip",
        )

    def _annotated(self, folder: Path, ids: list[str]) -> dict[str, int]:
        """File name -> label of the published validation images."""
        path = folder / "val" / "val_annotations.txt"
        label_of = {id_: label for label, id_ in enumerate(ids)}
        found: dict[str, int] = {}
        for number, line in enumerate(_lines(path), 1):
            name, _, rest = line.partition("\t")
            id_ = rest.partition("\t")[0]
            if id_ not in label_of:
                raise RunError(
                    f"data '{self.kind}': {path}:{number}: class '{id_}' has no folder in {folder / 'train'}. "
                    "Unpack the archive again; or for fewer classes also delete their lines here."
                )
            found[name] = label_of[id_]
        return found


def _words(folder: Path, ids: list[str]) -> tuple[str, ...]:
    """The names of the classes; their ids where the names are missing."""
    path = folder / "words.txt"
    names = dict(line.split("\t", 1) for line in _lines(path) if "\t" in line) if path.exists() else {}
    return tuple(names.get(id_, id_) for id_ in ids)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise RunError(f"data 'tiny-imagenet': {path} cannot be read: {why}. Unpack the archive again.") from None
