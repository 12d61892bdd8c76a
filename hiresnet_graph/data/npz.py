"""Images and labels in an .npz file of numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from hiresnet_graph.data.kind import DATASETS, AbsolutePath, DatasetKind
from hiresnet_graph.data.split import TEST_SHARE, check_split, hold_out, keep_test
from hiresnet_graph.errors import MissingDataError, RunError, did_you_mean
from hiresnet_graph.formats import format_count

if TYPE_CHECKING:
    from hiresnet_graph.data.arrays import Array
    from hiresnet_graph.data.dataset import Dataset

_KEYS = ("x_train", "y_train", "x_test", "y_test", "x", "y", "class_names")
_MAX_CHANNELS = 16
# How images of each kind of number become uint8.
_CONVERSIONS = {
    "f": ". If its levels are 0 to 1, save (255 * {}).round().astype('uint8')",
    "i": ". If its levels are 0 to 255, save {}.astype('uint8')",
    "u": ". If its levels are 0 to 65,535, save ({} >> 8).astype('uint8')",
    "b": ". Save 255 * {}.astype('uint8')",
}
_EXPECTED = (
    "The file must contain x_train (or x): uint8, N x H x W x C or N x H x W; and y_train (or y): whole numbers from "
    "0. It may contain x_test, y_test and class_names."
)


@DATASETS.register
class NpzData(DatasetKind):
    """Arrays in an .npz file: images `x_train`, labels `y_train`, and optionally `x_test`, `y_test`, `class_names`.

    Images are N x H x W x C, or N x H x W for grey, as 8-bit integers (`uint8`). Labels are whole numbers from 0, one
    for each image. `class_names[k]` names class k; without it, the highest label determines the number of classes.
    Instead of `x_train` and `y_train`, `x` and `y` are accepted. Without test images, 20 % are held out for the test.
    Other arrays are skipped and named; there is no name for a validation set. Arrays of Python objects are refused,
    since reading them could run any program; so are arrays whose header claims more than the file holds.

    Attributes:
        file: A file that `numpy.savez` or `numpy.savez_compressed` has written.
    """

    kind: ClassVar[str] = "npz"
    argument: ClassVar[str] = "file"

    file: AbsolutePath

    def load(self) -> Dataset:
        """The images, the labels and the split: the training images come first."""
        import numpy as np
        import torch

        from hiresnet_graph.data.dataset import Dataset

        arrays, skipped = self._read()
        train = self._part(
            arrays, *(("x", "y") if "x" in arrays and "x_train" not in arrays else ("x_train", "y_train"))
        )
        parts = [train]
        if "x_test" in arrays or "y_test" in arrays:
            parts.append(self._part(arrays, "x_test", "y_test"))
            if parts[1][0].shape[1:] != train[0].shape[1:]:
                raise self._error(f"images of x_test are {_sizes(parts[1][0])}, those of x_train {_sizes(train[0])}")
        labels = [label for _, labels in parts for label in labels.tolist()]
        names = self._class_names(arrays, labels)
        name = f"npz:{self.file.name}"
        if len(parts) == 2:
            split = keep_test(labels, len(parts[1][1]), self.validation_share, self.split_seed)
            check_split(name, split, labels, names, ("train",))
        else:
            split = hold_out(labels, TEST_SHARE, self.validation_share, self.split_seed)
            check_split(name, split, labels, names)
        return Dataset(
            name=name,
            classes=len(names),
            images=torch.from_numpy(np.concatenate([images.transpose(0, 3, 1, 2) for images, _ in parts])).contiguous(),
            labels_N=torch.tensor(labels),
            split=split,
            class_names=names,
            skipped=skipped,
        )

    def _read(self) -> tuple[dict[str, Array], str]:
        """The arrays by their names, and which others there are."""
        from hiresnet_graph.data.arrays import read_arrays

        try:
            found, names = read_arrays(self.file, _KEYS)
        except (MissingDataError, RunError) as error:
            raise type(error)(f"data 'npz': {error}") from None
        if "x_train" not in found and "x" not in found:
            raise self._error(f"there is no array 'x_train' or 'x' among its arrays: {', '.join(sorted(names)[:20])}")
        for short in ("x", "y"):
            if short in found and f"{short}_train" in found:
                raise self._error(f"it contains both {short} and {short}_train, which mean the same: save one of them")
        others = sorted(set(names) - set(_KEYS))
        shown = ", ".join(map(repr, others[:5]))
        return found, format_count(len(others), "array") + f" ({shown})" if others else ""

    def _part(self, arrays: dict[str, Array], x: str, y: str) -> tuple[Array, Array]:
        """Images N x H x W x C and labels of one part."""
        import numpy as np

        for key in (x, y):
            if key not in arrays:
                raise self._error(f"there is no array '{key}'. {did_you_mean(key, arrays)}".rstrip(". "))
        images, labels = arrays[x], arrays[y]
        if images.dtype != np.uint8:
            how = _CONVERSIONS.get(images.dtype.kind, "")
            raise self._error(f"{x} must be uint8 (0 to 255), and is {images.dtype}{how.format(x)}")
        if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] > 4:
            raise self._error(
                f"{x} is {_sizes(images, 0)}. Are these N x C x H x W? They must be N x H x W x C: "
                f"{x}.transpose(0, 2, 3, 1)"
            )
        if images.ndim == 3:
            images = images[..., None]
        if images.ndim != 4 or 0 in images.shape[1:] or images.shape[3] > _MAX_CHANNELS:
            raise self._error(
                f"{x} must be images x height x width x channels (or without channels), with at most {_MAX_CHANNELS} "
                f"channels, and is {_sizes(arrays[x], 0)}"
            )
        if not np.issubdtype(labels.dtype, np.integer):
            raise self._error(f"{y} must be whole numbers, and is {labels.dtype}")
        if labels.shape not in ((len(images),), (len(images), 1)):
            raise self._error(
                f"{y} must have one label for each of the {len(images):,} images, and is {_sizes(labels, 0)}"
            )
        return images, labels.reshape(-1)

    def _class_names(self, arrays: dict[str, Array], labels: list[int]) -> tuple[str, ...]:
        named = self._named(arrays["class_names"]) if "class_names" in arrays else ()
        classes = len(named) or max(labels, default=0) + 1
        # A label far out is an error, not a class: it would create a list of that length.
        if wrong := next((label for label in labels if not 0 <= label < min(classes, len(labels))), None):
            limit = f"{len(named)} class_names" if named else f"{len(labels):,} images"
            raise self._error(f"label {wrong} is out of range: labels count from 0, and there are {limit}")
        if not named and labels and min(labels) > 0:
            raise self._error(f"its labels are {min(labels)} to {max(labels)}: labels count from 0")
        return named or tuple(str(label) for label in range(classes))

    def _named(self, names: Array) -> tuple[str, ...]:
        if names.ndim != 1 or names.dtype.kind not in "USiu":
            raise self._error(f"class_names must be a list of texts, and is {_sizes(names, 0)} of type {names.dtype}")
        try:
            texts = [name.decode() if isinstance(name, bytes) else str(name) for name in names.tolist()]
            "".join(texts).encode()
        except (UnicodeDecodeError, UnicodeEncodeError):
            raise self._error("class_names must be UTF-8 text, and a name is not") from None
        return tuple(texts)

    def _error(self, fact: str) -> RunError:
        return RunError(f"data 'npz': {self.file}: {fact}. {_EXPECTED}")


def _sizes(array: Any, first: int = 1) -> str:
    return " x ".join(str(size) for size in array.shape[first:]) or "a single value"
