"""Shapes: the sizes of one sample, without the batch axis.

A shape knows its axes, and code that depends on them asks the shape, never its class: a new family of shapes is one
class here, and the operations made for it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Self


@dataclass(frozen=True, slots=True)
class Shape(ABC):
    """The sizes of one sample; iterating gives them in the order of the axes.

    Any shape can have an axis of time steps in front: `in_time` adds it, `frame` removes it.

    Class attributes:
        noun: Name of the family in messages.
        kinds: Its names in JSON, without and with an axis of steps.
        feature_noun: Name of the elements along the feature axis.
        feature_index: Index of the feature axis among the axes of one step.

    Attributes:
        steps: Length of the axis of steps; None if there is none.
    """

    noun: ClassVar[str]
    kinds: ClassVar[tuple[str, str]]
    feature_noun: ClassVar[str]
    feature_index: ClassVar[int] = 0
    steps: int | None = field(default=None, kw_only=True)

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, ...]:
        """Lengths of the axes of one step."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """Length of the feature axis."""

    @abstractmethod
    def with_channels(self, channels: int) -> Self:
        """The same shape with another number of channels (or features)."""

    @property
    def spatial(self) -> tuple[int, ...]:
        """Lengths of the spatial axes; empty if there are none."""
        return ()

    @property
    def feature_axis(self) -> int:
        """Index of the feature axis, without the batch axis."""
        return self.feature_index + (self.steps is not None)

    @property
    def trailing(self) -> int:
        """Number of axes after the feature axis."""
        return len(self) - self.feature_axis - 1

    @property
    def frame(self) -> Self:
        """The shape at one step."""
        return replace(self, steps=None)

    def in_time(self, steps: int) -> Self:
        """The shape of a sequence of values of this shape."""
        return replace(self, steps=steps)

    def fields(self) -> dict[str, Any]:
        """Its fields by name, without those that are not set."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def elements(self) -> int:
        """Number of elements of one sample."""
        total = 1 if self.steps is None else self.steps
        for size in self.sizes:
            total *= size
        return total

    @property
    def kind(self) -> str:
        """Its name in JSON."""
        return self.kinds[self.steps is not None]

    def describe(self) -> str:
        """The shape in a message, like `a vector of 10`."""
        return f"{self.noun if self.steps is None else 'a sequence'} of {self}"

    def broadcasts_to(self, other: Shape) -> bool:
        """Whether each axis has length 1 or the length in `other`, a shape of the same family."""
        return self.kind == other.kind and all(size in (1, full) for size, full in zip(self, other, strict=True))

    def __iter__(self) -> Iterator[int]:
        return iter(self.sizes if self.steps is None else (self.steps, *self.sizes))

    def __len__(self) -> int:
        return len(self.sizes) + (self.steps is not None)

    def __str__(self) -> str:
        return "x".join(map(str, self))


@dataclass(frozen=True, slots=True)
class Map(Shape):
    """A feature map: channels x height x width."""

    noun: ClassVar[str] = "a feature map"
    kinds: ClassVar[tuple[str, str]] = ("map", "clip")
    feature_noun: ClassVar[str] = "channels"
    channels: int = field()
    height: int
    width: int

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.height, self.width

    @property
    def spatial(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    def with_channels(self, channels: int) -> Self:
        """The same height and width with another number of channels."""
        return replace(self, channels=channels)


@dataclass(frozen=True, slots=True)
class Vector(Shape):
    """A vector of features."""

    noun: ClassVar[str] = "a vector"
    kinds: ClassVar[tuple[str, str]] = ("vector", "series")
    feature_noun: ClassVar[str] = "features"
    channels: int = field()

    @property
    def sizes(self) -> tuple[int]:
        """The number of features."""
        return (self.channels,)

    def with_channels(self, channels: int) -> Self:
        """A vector with another number of features."""
        return replace(self, channels=channels)


@dataclass(frozen=True, slots=True)
class Tokens(Shape):
    """A sequence of tokens: length x features.

    Attributes:
        length: Number of tokens.
        channels: Features of a token (the width of a transformer).
        grid: Height and width of the feature map that the tokens came from, row by row; None if unknown.
        prefix: Number of class and register tokens before those of the grid.

    Raises:
        ValueError: The length is not that of the prefix and the grid.
    """

    noun: ClassVar[str] = "tokens"
    kinds: ClassVar[tuple[str, str]] = ("tokens", "token_series")
    feature_noun: ClassVar[str] = "features"
    feature_index: ClassVar[int] = 1
    length: int
    channels: int = field()
    grid: tuple[int, int] | None = None
    prefix: int = 0

    def __post_init__(self) -> None:
        if self.prefix > self.length or (self.grid is not None and self.length != self.prefix + math.prod(self.grid)):
            raise ValueError(f"{self.length} tokens are not {self.prefix} and a grid of {self.grid}.")

    @property
    def sizes(self) -> tuple[int, int]:
        """Length and features."""
        return self.length, self.channels

    def with_channels(self, channels: int) -> Self:
        """The same tokens with another number of features."""
        return replace(self, channels=channels)

    def describe(self) -> str:
        """The sizes with grid and prefix, like `tokens of 65x192 (grid 8x8, 1 before it)`."""
        grid = "grid unknown" if self.grid is None else f"grid {self.grid[0]}x{self.grid[1]}"
        before = f", {self.prefix} before it" if self.prefix else ""
        noun = self.noun if self.steps is None else "a sequence"
        return f"{noun} of {self} ({grid}{before})"


def shape_of(sizes: Sequence[int]) -> Shape:
    """The shape of these sizes: [channels, height, width], or [features].

    Raises:
        ValueError: There are neither three nor one of them.
    """
    if len(sizes) == 3:
        return Map(*sizes)
    if len(sizes) == 1:
        return Vector(*sizes)
    raise ValueError(f"a shape is [channels, height, width] or [features], not {len(sizes)} numbers.")
