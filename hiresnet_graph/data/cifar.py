"""CIFAR-10 and CIFAR-100, read by torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hiresnet_graph.data.kind import DATASETS, PublishedData
from hiresnet_graph.data.split import check_split, keep_test
from hiresnet_graph.errors import RunError

if TYPE_CHECKING:
    from hiresnet_graph.data.dataset import Dataset


class _CifarData(PublishedData):
    """The published test images are the test set; validation is held out of the 50,000 training images.

    Class attributes:
        reader: The name of the class in `torchvision.datasets`.

    Attributes:
        download: Download the data set if it is not found.
    """

    reader: ClassVar[str]

    download: bool = False

    def load(self) -> Dataset:
        """The images, the labels and the split: the training images come first."""
        import torch
        import torchvision.datasets

        from hiresnet_graph.data.dataset import Dataset

        reader = getattr(torchvision.datasets, self.reader)
        folder = self.find() or self._download(reader)
        self._check(folder, reader)
        # The files are checked already; the reader would check them again for each of the two parts.
        unchecked = type(self.reader, (reader,), {"_check_integrity": lambda _: True})
        parts = [unchecked(folder.parent, train=train) for train in (True, False)]
        labels = [label for part in parts for label in part.targets]
        split = keep_test(labels, len(parts[1]), self.validation_share, self.split_seed)
        check_split(self.kind, split, labels, parts[0].classes, ("train",))
        return Dataset(
            name=self.kind,
            classes=len(parts[0].classes),
            images=torch.cat([torch.from_numpy(part.data).permute(0, 3, 1, 2) for part in parts]).contiguous(),
            labels_N=torch.tensor(labels),
            split=split,
            class_names=tuple(parts[0].classes),
            standard_augmentation="crop+flip",
        )

    def _download(self, reader: Any) -> Path:
        if not self.download:
            raise self.not_found()
        root = self.search_folders()[0]
        try:
            reader(root, download=True)
        except (OSError, RuntimeError, EOFError) as error:  # no network, no space, a truncated archive
            raise RunError(
                f"data '{self.kind}': {self.address} cannot be downloaded to {root}: {error}. "
                "Try again, or unpack it there by hand."
            ) from None
        return root / self.folder

    def _check(self, folder: Path, reader: Any) -> None:
        """Compare the files with the checksums in torchvision: they are pickles, and must be the published ones."""
        from torchvision.datasets.utils import check_integrity

        meta = (reader.meta["filename"], reader.meta["md5"])
        for name, md5 in [*reader.train_list, *reader.test_list, meta]:
            path = folder / name
            try:
                if check_integrity(path, md5):
                    continue
                fault = "is not the published file (perhaps truncated)" if path.exists() else "is missing"
            except OSError as error:
                fault = f"cannot be read: {error.strerror}"
            raise RunError(
                f"data '{self.kind}': {path} {fault}. Delete the folder and get it again: with '--download' (in "
                f"Python: download=True), or unpack {self.address}."
            )


@DATASETS.register
class Cifar10Data(_CifarData):
    """CIFAR-10: 60,000 colour images, 32x32, in 10 classes; 10,000 of them are the test set.

    Default augmentation: crop and flip.

    Source: A. Krizhevsky: Learning Multiple Layers of Features from Tiny Images (University of Toronto, 2009).
    """

    kind: ClassVar[str] = "cifar10"
    known_classes: ClassVar[int | None] = 10
    reader: ClassVar[str] = "CIFAR10"
    folder: ClassVar[str] = "cifar-10-batches-py"
    address: ClassVar[str] = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"


@DATASETS.register
class Cifar100Data(_CifarData):
    """CIFAR-100: 60,000 colour images, 32x32, in 100 classes; 10,000 of them are the test set.

    Default augmentation: crop and flip.

    Source: A. Krizhevsky: Learning Multiple Layers of Features from Tiny Images (University of Toronto, 2009).
    """

    kind: ClassVar[str] = "cifar100"
    known_classes: ClassVar[int | None] = 100
    reader: ClassVar[str] = "CIFAR100"
    folder: ClassVar[str] = "cifar-100-python"
    address: ClassVar[str] = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
