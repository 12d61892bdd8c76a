"""Handwritten digits: images that are part of scikit-learn and need no download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from hiresnet_graph.data.kind import DATASETS, DatasetKind
from hiresnet_graph.data.split import TEST_SHARE, check_split, hold_out

if TYPE_CHECKING:
    import numpy as np

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

        from hiresnet_graph.data.dataset import Dataset

        rows_NC = torch.from_numpy(_read_rows())
        levels_NHW, labels_N = rows_NC[:, :-1].view(-1, 8, 8), rows_NC[:, -1].long()
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


def _read_rows() -> np.ndarray:
    """The grey levels of each image and its label, 65 numbers a row.

    They are read from scikit-learn's file: importing scikit-learn takes longer than training a small network.
    """
    import numpy as np

    found = find_spec("sklearn")
    path = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz" if found and found.origin else None
    if path is None or not path.is_file():  # as in a release that keeps it elsewhere
        from sklearn.datasets import load_digits

        digits = load_digits()
        return np.column_stack([digits.data, digits.target])
    return np.loadtxt(path, delimiter=",")
