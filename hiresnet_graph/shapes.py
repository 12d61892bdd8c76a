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


Shape = Map | Vector
