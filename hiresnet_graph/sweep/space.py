"""What a search may choose from, and how it chooses: the part of a study that a sampler works on."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, field_validator, model_validator

Objective = Literal["accuracy", "parameters", "macs"]


class Interval(BaseModel):
    """Numbers between two bounds, these included; whole ones if both bounds are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"low ({self.low}) must be above 0 for a logarithm")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)


class Limit(BaseModel):
    """The largest network that is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parameters: PositiveInt | None = None
    macs: PositiveInt | None = None


class Halving(BaseModel):
    """Successive halving: after `first` epochs the best 1/factor of a batch goes on to factor x `first`, and so on.

    Source: Jamieson & Talwalkar (2016), arXiv:1502.07943.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: PositiveInt
    factor: int = Field(default=2, ge=2)


class Search(BaseModel):
    """How a sampler chooses the networks of a study: its key `search`.

    Attributes:
        space: `edges` -> an edge set, each edge of which is there or not; a key of `changes`, or a field of the recipe,
            -> its values, or an `Interval`.
        objectives: Validation accuracy at its best epoch goes up; parameters or multiply-adds go down.
        runs: The budget: how many runs are trained in all, those that are given up included.
        limit: Larger networks are not trained.
        batch: How many networks are proposed at a time. What comes out depends on it, and on nothing about the machine.
        halving: Successive halving inside a batch.
        seed: Of the sampler.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: dict[str, str | tuple[Any, ...] | Interval]
    sampler: Literal["tpe", "nsga2", "random", "brute-force"] = "tpe"
    objectives: tuple[Objective, ...] = ("accuracy",)
    runs: PositiveInt = 50
    limit: Limit = Limit()
    batch: PositiveInt = 4
    halving: Halving | None = None
    seed: NonNegativeInt = 0

    @field_validator("space")
    @classmethod
    def _some_space(cls, space: dict[str, Any]) -> dict[str, Any]:
        if not space:
            raise ValueError("at least one key is wanted, like 'edges: full'")
        for key, values in space.items():
            if (key == "edges") != isinstance(values, str):
                wanted = "an edge set, like 'full'" if key == "edges" else "a list of values, or {low: ..., high: ...}"
                raise ValueError(f"'{key}' wants {wanted}")
            if isinstance(values, tuple) and (not values or len({repr(value) for value in values}) < len(values)):
                raise ValueError(f"'{key}' wants at least one value, and none twice")
        return space

    @field_validator("objectives")
    @classmethod
    def _accuracy_first(cls, objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
        if objectives[:1] != ("accuracy",) or len(objectives) > 2 or len(set(objectives)) < len(objectives):
            raise ValueError("[accuracy], [accuracy, parameters] or [accuracy, macs] is wanted")
        return objectives

    @model_validator(mode="after")
    def _countable(self) -> Self:
        for key, values in self.space.items() if self.sampler == "brute-force" else ():
            if isinstance(values, Interval) and not values.is_whole:
                raise ValueError(
                    f"the sampler 'brute-force' cannot try every number of '{key}': give it a list of values"
                )
        return self

    @model_validator(mode="after")
    def _halved(self) -> Self:
        if self.halving is not None and self.batch < self.halving.factor:
            raise ValueError(f"batch ({self.batch}) must be at least halving.factor ({self.halving.factor})")
        return self
