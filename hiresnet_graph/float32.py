"""Base of the models whose numbers a network or its training computes with, in float32."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

LARGEST = 3.4028234663852886e38
SMALLEST = 1.1754943508222875e-38
"""The smallest number above 0 with all digits of float32; many kernels take a smaller one for 0."""


class Float32Model(BaseModel):
    """A model whose numbers are finite and stay what they are in float32.

    A larger number would become infinite, a smaller one 0, and the result would be another one without a message. All
    fields are checked, so that a new field, or one of a kind of your own, needs no check.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    @field_validator("*", mode="after")
    @classmethod
    def _is_representable(cls, value: Any) -> Any:
        for number in _numbers(value):
            if number and not SMALLEST <= abs(number) <= LARGEST:
                raise ValueError(
                    f"expected a number that float32 can represent (0, or from {SMALLEST:.2g} to {LARGEST:.2g} in "
                    f"size), got {number!r}"
                )
        return value


def _numbers(value: Any) -> list[float]:
    """The floats of a field: itself, or the entries of its lists. Mappings are checked where their entries are used."""
    if isinstance(value, float):
        return [value]
    if isinstance(value, list | tuple):
        return [number for item in value for number in _numbers(item)]
    return []
