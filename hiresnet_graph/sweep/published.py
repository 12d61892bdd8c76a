"""Published results that a study repeats: the key `published` of a study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from hiresnet_graph.formats import as_sentence

Percent = Annotated[float, Field(ge=0, le=100)]


class PublishedValue(BaseModel):
    """The published test accuracy of one network, in percent.

    Attributes:
        label: Label of the variant.
        setting: The fields of the grid with their values; empty without a grid.
        mean: Mean over the runs.
        std: Standard deviation over the runs.
        n: Number of runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    setting: dict[str, Any] = Field(default_factory=dict)
    mean: Percent
    std: Percent | None = None
    n: PositiveInt | None = None


class Published(BaseModel):
    """Published results, which `hrg show` and `hrg report` print beside those of the study. They affect no run.

    Attributes:
        source: Where they were published.
        values: One for each network.
        differs: What differs from the publication, or is not stated there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    values: tuple[PublishedValue, ...] = Field(min_length=1)
    differs: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_in_percent(self) -> Self:
        if all(value.mean <= 1 for value in self.values):
            raise ValueError(f"accuracies are in percent, but none is above 1. Write {100 * self.values[0].mean:g}.")
        return self

    def value_for(self, label: str, setting: Mapping[str, object]) -> PublishedValue | None:
        """The published value of a network, or None."""
        own = plain_setting(setting)
        found = (value for value in self.values if value.label == label and plain_setting(value.setting) == own)
        return next(found, None)

    def sentences(self) -> list[str]:
        """The source, and what differs from it."""
        differs = [f"Differs: {as_sentence('; '.join(self.differs))}"] if self.differs else []
        return [f"Published: {as_sentence(self.source)}", *differs]


def plain_setting(setting: Mapping[str, object]) -> dict[str, object]:
    """A setting without the prefix of fields of the recipe, which may be omitted."""
    return {key.removeprefix("recipe."): value for key, value in setting.items()}
