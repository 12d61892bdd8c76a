"""What a block is: a macro that, knowing the shape of its input, expands into primitive operations."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, SerializeAsAny, ValidationError

from hiresnet_graph.errors import RegistryError
from hiresnet_graph.projections import PROJECTIONS, Projection
from hiresnet_graph.registry import Kind, KindError, Registry
from hiresnet_graph.shapes import Shape
from hiresnet_graph.wire import Wire


class Block(Kind):
    """A node's computation, as fields that a spec sets and an expansion into operations.

    Class attributes:
        slots: Where edges may arrive. Every block has `input` and `output`; `residual` is where a residual block adds
            its own shortcut, before its last activation.
    """

    slots: ClassVar[tuple[str, ...]] = ("input", "output")

    def describe(self) -> str:
        """What tables and diagrams call it."""
        return self.kind

    @property
    def declared(self) -> Shape | None:
        """The shape that its value has whatever arrives, if the spec says one."""
        return None

    @abstractmethod
    def expand(self, x: Wire) -> Wire:
        """Apply the block's operations to a value.

        Raises:
            ShapeError: An operation cannot take its input.
        """

    def expand_to(self, x: Wire, want: Shape | None) -> Wire:
        """The same on an edge whose target wants a shape (None: any); for blocks that fit themselves to it.

        Raises:
            ShapeError: An operation cannot take its input, or the wanted shape cannot be reached.
        """
        return self.expand(x)


BLOCKS: Registry[Block] = Registry("block")


def shortcut_projection(value: Any, **defaults: str | bool) -> Any:
    """A block's shortcut from a mapping, a name, or a projection; `defaults` for what a mapping leaves out."""
    if isinstance(value, str):
        return _projection(value, {})
    if isinstance(value, dict):
        fields = {key: field for key, field in value.items() if key != "kind"}
        return (
            _projection(value["kind"], fields) if "kind" in value else _projection("standard", {**defaults, **fields})
        )
    return value


def _projection(name: object, fields: dict[str, Any]) -> Projection:
    # What goes wrong has to be a ValueError, which pydantic collects with the other mistakes.
    try:
        kind = PROJECTIONS.get(str(name))
    except RegistryError as error:
        raise ValueError(str(error)) from None
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise KindError(error, kind) from None


def _post(value: Any) -> Any:
    return shortcut_projection(value, spatial="stride")


def _pre(value: Any) -> Any:
    return shortcut_projection(value, spatial="stride", norm="none", bias=False)


Shortcut = Annotated[SerializeAsAny[Projection], BeforeValidator(_post)]
"""A shortcut that takes every n-th pixel through a 1x1 convolution and batch norm where shapes differ (option B)."""
PreactShortcut = Annotated[SerializeAsAny[Projection], BeforeValidator(_pre)]
"""The same without norm and bias, as pre-activation networks have it."""


def identity_if_same(wire: Wire, want: Shape) -> Wire:
    """The value itself, for shortcuts that exist only where shapes agree."""
    return wire
