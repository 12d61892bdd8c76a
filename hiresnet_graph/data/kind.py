"""The base class of data sets, the search for published ones, and the registry."""

from __future__ import annotations

import math
import os
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from hiresnet_graph.errors import MissingDataError
from hiresnet_graph.registry import Kind, Registry

if TYPE_CHECKING:
    from hiresnet_graph.data.dataset import Dataset

DATA_FOLDER = "HRG_DATA"
"""Environment variable with the folder of published data sets."""


def _absolute(path: Path) -> Path:
    return Path(os.path.expanduser(path)).absolute()


def _read_path(value: object) -> object:
    """The absolute path of a text or path; refuses what no record could hold."""
    if not isinstance(value, str | Path):
        return value
    path = _absolute(Path(value))
    try:
        str(path).encode()
        is_text = "\0" not in str(path)
    except UnicodeEncodeError:
        is_text = False
    if not is_text:
        shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(path))
        raise ValueError(f"expected a path in UTF-8, got '{shown}'. Rename the file or folder.")
    return path


# Absolute, because a run may be computed by a process in another folder.
AbsolutePath = Annotated[Path, BeforeValidator(_read_path)]
# On the command line, a number is given as text.
GreyOrColour = Annotated[Literal[1, 3], BeforeValidator(lambda value: {"1": 1, "3": 3}.get(str(value), value))]


def _read_levels(value: object) -> object:
    """A level for each channel, from a number, a sequence, or text like `0.485,0.456,0.406`."""
    given = value.strip("[]").split(",") if isinstance(value, str) else value
    numbers = tuple(given) if isinstance(given, list | tuple) else (given,)
    try:
        levels = tuple(float(number) for number in numbers)
    except (TypeError, ValueError):
        levels = ()
    if not levels or any(isinstance(number, bool) for number in numbers) or not all(map(math.isfinite, levels)):
        raise ValueError(f"expected a number, or one for each channel, got {value!r}")
    return levels


Levels = Annotated[tuple[float, ...], BeforeValidator(_read_levels)]


class DatasetKind(Kind):
    """A data set that can be loaded.

    Class attributes:
        argument: The field whose value may directly follow the name, as in `npz:FILE`; none if empty.
        known_classes: Number of classes, if it is known before the data are loaded.

    Attributes:
        split_seed: Random seed of the split; equal for all runs that are compared.
        validation_share: Fraction of the images outside the test set that is held out for validation.
        mean: Subtracted from the pixels, which are scaled to 0 to 1; one number, or one for each channel. By default
            the mean of the training images.
        std: What they are divided by then; given together with `mean`.
    """

    argument: ClassVar[str] = ""
    known_classes: ClassVar[int | None] = None
    takes_texts: ClassVar[bool] = True

    split_seed: int = 0
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    mean: Levels | None = None
    std: Levels | None = None

    @model_validator(mode="after")
    def _check_normalization(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("'mean' and 'std' go together: give both, or neither")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"'std' must be greater than 0, got {min(self.std):g}")
        return self

    @abstractmethod
    def load(self) -> Dataset:
        """The images, the labels and the split."""

    @classmethod
    def usage(cls) -> str:
        """How it is written: its name and its required argument."""
        return f"{cls.kind}:{cls.argument.upper()}" if cls.argument else cls.kind

    @classmethod
    def can_download(cls) -> bool:
        """Whether it can be downloaded."""
        return "download" in cls.model_fields

    def as_data(self) -> dict[str, Any]:
        """Name and fields as JSON data, from which `data_source` creates an equal one."""
        return {"kind": self.kind, **self.model_dump(mode="json", exclude_defaults=True)}

    def __str__(self) -> str:
        """Text from which `data_source` creates an equal one."""
        fields = {name: value for name, value in self.as_data().items() if name != "kind"}
        parts = [str(fields.pop(self.argument))] if self.argument in fields else []
        parts += [f"{name}={_as_text(value)}" for name, value in fields.items()]
        return ":".join([self.kind, ",".join(parts)]) if parts else self.kind


def _as_text(value: Any) -> str:
    """A field of a data set on the command line."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


class PublishedData(DatasetKind):
    """A published data set, as a folder that is found by its name.

    Class attributes:
        folder: The published name of the folder.
        address: Where the archive can be downloaded.

    Attributes:
        root: The parent folder (default: that of the environment variable HRG_DATA, then `./data`).
    """

    folder: ClassVar[str]
    address: ClassVar[str]

    root: AbsolutePath | None = None

    def search_folders(self) -> list[Path]:
        """Where the folder is searched, in order."""
        if self.root is not None:
            return [self.root]
        named = os.environ.get(DATA_FOLDER)
        return [*([_absolute(Path(named))] if named else []), _absolute(Path("data"))]

    def find(self) -> Path | None:
        """The folder of the data set; None if it is not found."""
        for parent in self.search_folders():
            for folder in (parent / self.folder, parent):
                if folder.name == self.folder and os.path.isdir(folder):
                    return folder
        return None

    def not_found(self) -> MissingDataError:
        """The error if it is not found: where it was searched, and how to get it."""
        get = "Get it with '--download' (in Python: download=True), or unpack" if self.can_download() else "Unpack"
        searched = " or ".join(map(str, self.search_folders()))
        return MissingDataError(
            f"data '{self.kind}': there is no folder '{self.folder}' in {searched}. "
            f"{get} {self.address} there; or give its parent folder, with "
            f"{DATA_FOLDER}=DIR in the environment or as '{self.kind}:root=DIR'."
        )


DATASETS: Registry[DatasetKind] = Registry("data set", dashes=True)
