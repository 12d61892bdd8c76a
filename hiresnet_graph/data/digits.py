"""Handwritten digits: real images that come with scikit-learn, so that they need no download."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from hiresnet_graph.data.kind import DATASETS, DatasetKind

if TYPE_CHECKING:
    from hiresnet_graph.data.dataset import Dataset

# Chosen by us: these images come without a test set of their own.
TEST_SHARE = 0.2
VALIDATION_SHARE = 0.1  # of what is not test, as in the recipe of the paper


@DATASETS.register
class DigitsData(DatasetKind):
    """1,797 grey images of handwritten digits, 8x8, in 10 classes.

    Source: E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits (UCI, 1998), as in scikit-learn.
    """

    kind: ClassVar[str] = "digits"

    def load(self) -> Dataset:
        """The images with grey levels 0-16 stretched to 0-255; 20 % are test, 10 % of the rest validation."""
        import torch
        from sklearn.datasets import load_digits

        from hiresnet_graph.data.dataset import Dataset
        from hiresnet_graph.data.split import hold_out

        digits = load_digits()
        levels_NHW = torch.from_numpy(digits.images)
        labels_N = torch.from_numpy(digits.target).long()
        return Dataset(
            name="digits",
            classes=10,
            images_NCHW=(levels_NHW * (255 / 16)).round().to(torch.uint8).unsqueeze(1),
            labels_N=labels_N,
            split=hold_out(labels_N.tolist(), TEST_SHARE, VALIDATION_SHARE, self.split_seed),
        )
