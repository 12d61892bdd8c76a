"""The search space and settings of a search: the key `search` of a study."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from hiresnet_graph.float32 import Float32Model
from hiresnet_graph.seeding import MAX_SEED
from hiresnet_graph.spec.model import Count

RandomSeed = Annotated[int, Field(ge=0, le=MAX_SEED, strict=True)]
_MAX_TRIED = 10_000
_MAX_VALUE = 10**15
_TEXTS = {"edges": "an edge set, like 'full'", "prune": "'dead'"}
"""The keys of a search space that are no choices of values, and what they must be."""
Objective = Literal["accuracy", "parameters", "macs"]


class ValueRange(Float32Model):
    """Numbers from `low` to `high`, bounds included; whole numbers if both bounds are whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not all(abs(bound) <= _MAX_VALUE for bound in (self.low, self.high)):
            raise ValueError(f"low and high must be numbers from -{_MAX_VALUE:,} to {_MAX_VALUE:,}")
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"low ({self.low}) must be above 0 for a logarithm")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are in the range."""
        return isinstance(self.low, int) and isinstance(self.high, int)


class Limit(BaseModel):
    """Upper limits for networks that are trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parameters: PositiveInt | None = None
    macs: PositiveInt | None = None


class Halving(BaseModel):
    """Successive halving: after `first` epochs the best 1/factor of a batch continues to factor x `first`, and so on.

    Source: Jamieson & Talwalkar (2016), arXiv:1502.07943.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: Count
    factor: int = Field(default=2, ge=2, le=1_000, strict=True)

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """The epochs below `epochs` after which networks are pruned, in order."""
        found, rung = [], self.first
        while rung < epochs:
            found.append(rung)
            rung *= self.factor
        return tuple(found)

    def kept(self, networks: int) -> int:
        """The number of networks, of those of a batch, that are trained on after a rung."""
        return max(1, networks // self.factor)


class SearchSettings(BaseModel):
    """How a sampler chooses the networks of a study.

    Attributes:
        space: `edges` -> an edge set, each edge of which is present or absent; `prune` -> `dead`, to leave out nodes
            that no input reaches; a key of `changes`, or a field of the recipe, -> its values, or a `ValueRange`.
        objectives: Validation accuracy at its best epoch is maximized; parameters or multiply-adds are minimized.
        runs: Budget: number of runs, pruned ones included.
        limit: Larger networks are not trained.
        batch: Networks proposed at a time. Proposals depend on it, and on no property of the machine.
        halving: Successive halving inside a batch.
        seed: Random seed of the sampler.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: dict[str, str | tuple[Any, ...] | ValueRange]
    sampler: Literal["tpe", "nsga2", "random", "brute-force"] = "tpe"
    objectives: tuple[Objective, ...] = ("accuracy",)
    runs: int = Field(default=50, ge=1, le=100_000, strict=True)
    limit: Limit = Limit()
    batch: int = Field(default=4, ge=1, le=1_000, strict=True)
    halving: Halving | None = None
    seed: RandomSeed = 0

    def batch_epochs(self, networks: int, epochs: int) -> int:
        """The epochs of a batch of networks of one seed, if no run ends early; halving prunes most of them.

        Args:
            epochs: Epochs of a run to its end.
        """
        if not networks:
            return 0
        total = done = 0
        if self.halving is not None:
            for rung in self.halving.rungs(epochs):
                total += networks * (rung - done)
                networks, done = self.halving.kept(networks), rung
        return total + networks * (epochs - done)

    @field_validator("space")
    @classmethod
    def _some_space(cls, space: dict[str, Any]) -> dict[str, Any]:
        if not space:
            raise ValueError("at least one key is required, like 'edges: full'")
        for key, values in space.items():
            if (key in _TEXTS) != isinstance(values, str) or (key == "prune" and values != "dead"):
                expected = _TEXTS.get(key, "a list of values, or {low: ..., high: ...}")
                raise ValueError(f"'{key}' must be {expected}")
            if isinstance(values, tuple) and (not values or len({repr(value) for value in values}) < len(values)):
                raise ValueError(f"'{key}' must have at least one value, and none twice")
        return space

    @field_validator("objectives")
    @classmethod
    def _accuracy_first(cls, objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
        if objectives[:1] != ("accuracy",) or len(objectives) > 2 or len(set(objectives)) < len(objectives):
            raise ValueError("the objectives must be [accuracy], [accuracy, parameters] or [accuracy, macs]")
        return objectives

    @model_validator(mode="after")
    def _countable(self) -> Self:
        for key, values in self.space.items() if self.sampler == "brute-force" else ():
            if isinstance(values, ValueRange) and not values.is_whole:
                raise ValueError(
                    f"the sampler 'brute-force' cannot try every number of '{key}': give it a list of values"
                )
            if isinstance(values, ValueRange) and values.high - values.low >= _MAX_TRIED:
                raise ValueError(
                    f"the sampler 'brute-force' tries every value of '{key}', {values.high - values.low + 1:,} here; "
                    f"the limit is {_MAX_TRIED:,}. Choose a smaller range, or another sampler"
                )
        return self

    @model_validator(mode="after")
    def _halved(self) -> Self:
        if self.halving is not None and self.batch < self.halving.factor:
            raise ValueError(f"batch ({self.batch}) must be at least halving.factor ({self.halving.factor})")
        return self
