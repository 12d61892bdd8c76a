"""What a kind of data set must give, where published sets are looked for, and the table of the kinds."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from hiresnet_graph.errors import UsageError
from hiresnet_graph.registry import Kind, Registry

if TYPE_CHECKING:
    from hiresnet_graph.data.dataset import Dataset

DATA_FOLDER = "HRG_DATA"
"""The environment variable that names the folder of published data sets."""


def _absolute(path: Path) -> Path:
    return Path(os.path.expanduser(path)).absolute()


# Absolute, because a run may be computed by a process that stands in another folder.
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
# In the text of a command line, a number is a text, too.
GreyOrColour = Annotated[Literal[1, 3], BeforeValidator(lambda given: {"1": 1, "3": 3}.get(str(given), given))]


class DatasetKind(Kind):
    """A data set that can be loaded.

    Class attributes:
        argument: The field whose value may stand right behind the name, as in `npz:FILE`; none if empty.

    Attributes:
        split_seed: Chooses which images are held out; one number for all runs that are compared.
        validation_share: Of the images that are not for the test, how many are held out for validation.
    """

    argument: ClassVar[str] = ""

    split_seed: int = 0
    validation_share: float = Field(default=0.1, gt=0, lt=1)

    @abstractmethod
    def load(self) -> Dataset:
        """The images, the labels and the split."""

    @classmethod
    def usage(cls) -> str:
        """How it is asked for: its name, with what it cannot do without."""
        return f"{cls.kind}:{cls.argument.upper()}" if cls.argument else cls.kind

    @classmethod
    def downloads(cls) -> bool:
        """Whether it can be fetched from the internet."""
        return "download" in cls.model_fields

    def as_data(self) -> dict[str, Any]:
        """Name and fields as JSON data, from which `data_source` makes an equal one."""
        return {"kind": self.kind, **self.model_dump(mode="json", exclude_defaults=True)}

    def __str__(self) -> str:
        """The text from which `data_source` makes an equal one."""
        fields = {name: value for name, value in self.as_data().items() if name != "kind"}
        parts = [str(fields.pop(self.argument))] if self.argument in fields else []
        parts += [
            f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in fields.items()
        ]
        return ":".join([self.kind, ",".join(parts)]) if parts else self.kind


class PublishedData(DatasetKind):
    """A data set that others have published, as a folder that is found by its name.

    Class attributes:
        folder: The name of the folder, as it is published.
        address: Where the archive can be had.

    Attributes:
        root: The folder that holds it. If left out: that of the environment variable HRG_DATA, then `./data`.
    """

    folder: ClassVar[str]
    address: ClassVar[str]

    root: AbsolutePath | None = None

    def places(self) -> list[Path]:
        """Where it is looked for, in this order."""
        if self.root is not None:
            return [self.root]
        named = os.environ.get(DATA_FOLDER)
        return [*([_absolute(Path(named))] if named else []), _absolute(Path("data"))]

    def found(self) -> Path | None:
        """The folder itself, or None if it is in none of the places."""
        for place in self.places():
            for folder in (place / self.folder, place):
                if folder.name == self.folder and folder.is_dir():
                    return folder
        return None

    def missing(self) -> UsageError:
        """The error that says where it was looked for and how to get it."""
        way = "Get it with '--download' (in Python: download=True), or unpack" if self.downloads() else "Unpack"
        return UsageError(
            f"data '{self.kind}': there is no folder '{self.folder}' in {' or '.join(map(str, self.places()))}. "
            f"{way} {self.address} there; or name the folder that holds it, with "
            f"{DATA_FOLDER}=DIR in the environment or as '{self.kind}:root=DIR'."
        )


DATASETS: Registry[DatasetKind] = Registry("data set", dashes=True)
