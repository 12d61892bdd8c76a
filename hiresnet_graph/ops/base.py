"""Base class of primitive operations: a shape rule, a cost rule, tensors, and the torch form as data.

Nothing here imports torch. `Layer` and `Apply` name torch objects by dotted path; `lower` resolves them and `emit`
writes them out, so both always compute the same.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.registry import Kind, Registry
from hiresnet_graph.shapes import Map, Shape

Count = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
"""A positive integer: channels, kernel sizes, strides."""
Padding = Annotated[int, Field(ge=0, le=1_000_000, strict=True)]


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of a field that may hold one number for both."""
    return (value, value) if isinstance(value, int) else value


def compact(value: int | tuple[int, int]) -> int | tuple[int, int]:
    """One number if height and width are equal."""
    height, width = pair(value)
    return height if height == width else (height, width)


Pair = Annotated[Count | tuple[Count, Count], AfterValidator(compact)]
"""One number for height and width, or two; two equal numbers become one, so both spellings give the same network."""


@dataclass(frozen=True, slots=True)
class Arg:
    """The k-th input of a call."""

    index: int


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor of a call's weights, like `weight` of a convolution."""

    name: str


@dataclass(frozen=True, slots=True)
class Apply:
    """A function applied to inputs, weights, constants and other applications.

    Attributes:
        target: Dotted path of the function (`torch.cat`), or `.name` for a method of the first argument.
    """

    target: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Layer:
    """A torch module as data: dotted path of the class, and constructor arguments."""

    target: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


Init = Literal["he_normal", "zeros", "ones", "constant", "linear_uniform"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One parameter or buffer of an operation.

    Attributes:
        init: `he_normal`: normal, variance 2 / fan-out (He et al. 2015, the mode of torchvision's ResNets);
            `linear_uniform`: uniform in +-1/sqrt(`fan`), torch's rule for linear layers and biases;
            `constant`: `value`.
        trainable: False for buffers.
        fan: Fan-in for `linear_uniform`.
    """

    name: str
    shape: tuple[int, ...]
    init: Init
    trainable: bool = True
    fan: int = 1
    value: float = 1.0

    @property
    def elements(self) -> int:
        """Number of values."""
        total = 1
        for size in self.shape:
            total *= size
        return total


class Op(Kind):
    """A primitive operation.

    Class attributes:
        part: Default name of its calls inside a block.
        arity: Number of inputs; None for one or more.
        pure: Equal inputs always give equal outputs and no state changes, so equal calls can be merged.
        partial: Inputs that are missing at a time step can be left out.
        normalizes: A norm (blocks of a tied stage have their own norms).
        counts_activations: Its output counts as activations, as in pycls (Radosavovic et al. 2020).
    """

    part: ClassVar[str] = ""
    arity: ClassVar[int | None] = 1
    pure: ClassVar[bool] = True
    partial: ClassVar[bool] = False
    normalizes: ClassVar[bool] = False
    counts_activations: ClassVar[bool] = False

    @abstractmethod
    def shape(self, *inputs: Shape) -> Shape:
        """Shape of the output.

        Raises:
            ShapeError: The operation does not accept these inputs.
        """

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """Parameters and buffers for inputs of these shapes."""
        return ()

    def macs(self, *inputs: Shape) -> int:
        """Multiply-adds for one sample; 0 for norms, activations and pooling, as in published tables."""
        return 0

    def split(self) -> tuple[Op, Op] | None:
        """A norm with running statistics as the norm without scale and shift, and these; None for other operations."""
        return None

    def layer(self, *inputs: Shape) -> Layer | None:
        """The torch module with the operation's tensors or state; None if it has none."""
        return None

    def apply(self, *inputs: Shape) -> Apply | None:
        """The operation as a function of its inputs and weights; None if it exists only as a layer."""
        return None


OPS: Registry[Op] = Registry("operation")


def require_map(op: str, shape: Shape) -> Map:
    """The shape, if it is a feature map.

    Raises:
        ShapeError: It is not.
    """
    if not isinstance(shape, Map):
        raise ShapeError(
            f"{op} requires a feature map (channels x height x width), not a vector of {shape}.",
            "Place it before the flattening.",
        )
    return shape
