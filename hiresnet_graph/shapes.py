"""Sizes of one sample, without the batch axis."""

from __future__ import annotations

from typing import NamedTuple


class Map(NamedTuple):
    """A feature map: channels x height x width."""

    channels: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.channels}x{self.height}x{self.width}"

    @property
    def elements(self) -> int:
        """Number of values in one sample."""
        return self.channels * self.height * self.width


class Vector(NamedTuple):
    """A flat vector of features."""

    channels: int

    def __str__(self) -> str:
        return f"{self.channels}"

    @property
    def elements(self) -> int:
        """Number of values in one sample."""
        return self.channels


class Clip(NamedTuple):
    """Feature maps in time: steps x channels x height x width."""

    steps: int
    channels: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.steps}x{self.frame}"

    @property
    def frame(self) -> Map:
        """The shape at one step."""
        return Map(self.channels, self.height, self.width)

    @property
    def elements(self) -> int:
        """Number of values in one sample."""
        return self.steps * self.frame.elements


class Series(NamedTuple):
    """Vectors in time: steps x features."""

    steps: int
    channels: int

    def __str__(self) -> str:
        return f"{self.steps}x{self.channels}"

    @property
    def frame(self) -> Vector:
        """The shape at one step."""
        return Vector(self.channels)

    @property
    def elements(self) -> int:
        """Number of values in one sample."""
        return self.steps * self.channels


Shape = Map | Vector | Clip | Series


def in_time(frame: Shape, steps: int) -> Clip | Series:
    """The shape of `steps` values of one shape."""
    assert isinstance(frame, Map | Vector)
    return Clip(steps, *frame) if isinstance(frame, Map) else Series(steps, *frame)
