"""Handwritten digits: images that are part of scikit-learn and need no download."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from hiresnet_graph.data.kind import DATASETS, DatasetKind
from hiresnet_graph.data.split import TEST_SHARE, check_split, hold_out

if TYPE_CHECKING:
    from hiresnet_graph.data.dataset import Dataset


@DATASETS.register
class DigitsData(DatasetKind):
    """1,797 grey images of handwritten digits, 8x8, in 10 classes.

    There is no published test set: 20 % are held out for the test (chosen by us). The grey levels 0 to 16 are scaled
    to 0 to 255.

    Source: E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits (UCI, 1998), as in scikit-learn.
    """

    kind: ClassVar[str] = "digits"

    def load(self) -> Dataset:
        """The images, the labels and the split."""
        import torch
        from sklearn.datasets import load_digits

        from hiresnet_graph.data.dataset import Dataset

        digits = load_digits()
        levels_NHW = torch.from_numpy(digits.images)
        labels_N = torch.from_numpy(digits.target).long()
        split = hold_out(labels_N.tolist(), TEST_SHARE, self.validation_share, self.split_seed)
        names = tuple(str(digit) for digit in range(10))
        check_split(self.kind, split, labels_N.tolist(), names)
        return Dataset(
            name="digits",
            classes=10,
            images=(levels_NHW * (255 / 16)).round().to(torch.uint8).unsqueeze(1),
            labels_N=labels_N,
            split=split,
            class_names=names,
        )
