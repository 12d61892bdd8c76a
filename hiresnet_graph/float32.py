"""Base of the models whose numbers a network or its training computes with, in float32."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

LARGEST = 3.4028234663852886e38
SMALLEST = 1.1754943508222875e-38
"""The smallest number above 0 with all digits of float32; many kernels take a smaller one for 0."""


def _fields(schema: Any) -> list[dict[str, Any]]:
    """The fields of a model's schema, below definitions and validators of the whole model."""
    while schema["type"] != "model-fields":
        if "schema" not in schema:
            return []
        schema = schema["schema"]
    return list(schema["fields"].values())


def _may_hold_floats(schema: Any) -> bool:
    """Whether a value may be a float, or a list with one. Models check their own fields."""
    if isinstance(schema, list | tuple):
        return any(map(_may_hold_floats, schema))
    if not isinstance(schema, dict) or schema.get("type") in ("model", "dict", "definition-ref"):
        return False
    if schema.get("type") in ("float", "any") or schema.get("type", "").startswith("function"):
        return True
    return any(map(_may_hold_floats, schema.values()))


def _make_strict(schema: Any) -> None:
    """Make a field of numbers or of `true` and `false` alone strict: texts are none. Fields of several types stay."""
    if schema["type"] in ("float", "bool"):
        schema["strict"] = True
    elif schema["type"] in ("default", "nullable"):
        _make_strict(schema["schema"])


def _check(value: Any) -> Any:
    for number in _numbers(value):
        if number and not SMALLEST <= abs(number) <= LARGEST:
            raise ValueError(
                f"expected a number that float32 can represent (0, or from {SMALLEST:.2g} to {LARGEST:.2g} in size), "
                f"got {number!r}"
            )
    return value


def _numbers(value: Any) -> list[float]:
    """The floats of a field: itself, or the entries of its lists. Mappings are checked where their entries are used."""
    if isinstance(value, float):
        return [value]
    if isinstance(value, list | tuple):
        return [number for item in value for number in _numbers(item)]
    return []


class Float32Model(BaseModel):
    """A model whose numbers are finite and stay what they are in float32; `true` and texts are none, nor is `on` true.

    A larger number would become infinite, a smaller one 0, and the result would be another one without a message. All
    fields are checked, so that a new field, or one of a kind of your own, needs no check.

    Class attributes:
        takes_texts: Whether a number, or `true`, may be given as text, as on a command line.
    """

    takes_texts: ClassVar[bool] = False

    model_config = ConfigDict(allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The schema of the model, with the check in each field that may hold a float: the others cost no time."""
        schema = handler(source)
        for field in _fields(schema):
            inner = field["schema"]
            if not cls.takes_texts:
                _make_strict(inner)
            owner = inner if inner["type"] == "default" else field
            if _may_hold_floats(owner["schema"]):
                owner["schema"] = core_schema.no_info_after_validator_function(_check, owner["schema"])
        return schema
