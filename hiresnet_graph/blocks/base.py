"""Base class of blocks: macros that expand into primitive operations, given the shape of their input."""

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
    """The computation of a node: fields that a spec sets, and an expansion into operations.

    Class attributes:
        slots: Where edges may end. Every block has `input` and `output`; `residual` is where a residual block adds its
            own shortcut, before its last activation.
        classes_field: The field with the number of classes, if its output can be the scores of a classifier.
    """

    classes_field: ClassVar[str] = ""
    slots: ClassVar[tuple[str, ...]] = ("input", "output")

    def describe(self) -> str:
        """Its name in tables and diagrams."""
        return self.kind

    @property
    def declared(self) -> Shape | None:
        """The shape that the spec declares for its value, if any."""
        return None

    def hidden_channels(self, shape: Shape) -> int | None:
        """The inner channels that the field `hidden` sets, which baselines are widened by; None without such a field.

        Args:
            shape: Of its output.
        """
        return None

    @property
    def hidden_step(self) -> int:
        """What the inner channels are a multiple of."""
        return 1

    @abstractmethod
    def expand(self, x: Wire) -> Wire:
        """Apply the block's operations to a value.

        Raises:
            ShapeError: An operation does not accept its input.
        """

    def expand_to(self, x: Wire, target: Shape | None) -> Wire:
        """As `expand`, on an edge with a target shape (None: any), which some blocks adapt to.

        Raises:
            ShapeError: An operation does not accept its input, or the target shape cannot be reached.
        """
        return self.expand(x)


BLOCKS: Registry[Block] = Registry("block")


def shortcut_projection(value: Any, **defaults: str | bool) -> Any:
    """A projection from a mapping, a name, or a projection; `defaults` are the defaults of a mapping's fields."""
    if isinstance(value, str):
        return _projection(value, {})
    if isinstance(value, dict):
        fields = {key: field for key, field in value.items() if key != "kind"}
        return (
            _projection(value["kind"], fields) if "kind" in value else _projection("standard", {**defaults, **fields})
        )
    return value


def _projection(name: object, fields: dict[str, Any]) -> Projection:
    # Errors must be ValueErrors, which pydantic collects.
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
"""The shortcut of option B: where shapes differ, a 1x1 convolution with stride, and batch norm."""
PreactShortcut = Annotated[SerializeAsAny[Projection], BeforeValidator(_pre)]
"""The same without norm and bias, as in pre-activation networks."""


def identity_if_same(wire: Wire, target: Shape) -> Wire:
    """The value itself, for shortcuts between equal shapes."""
    return wire
