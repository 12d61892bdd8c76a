"""What a primitive operation is: a shape rule, a cost rule, its tensors, and its torch form as data.

Nothing here imports torch. `Layer` and `Apply` name torch objects by their dotted path; `lower` looks them up and
`emit` writes them down, so both always do the same thing.
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
"""A positive whole number: channels, kernel sizes, strides."""
Padding = Annotated[int, Field(ge=0, le=1_000_000, strict=True)]


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of a field that may give one number for both."""
    return (value, value) if isinstance(value, int) else value


def compact(value: int | tuple[int, int]) -> int | tuple[int, int]:
    """One number where height and width agree."""
    height, width = pair(value)
    return height if height == width else (height, width)


Pair = Annotated[Count | tuple[Count, Count], AfterValidator(compact)]
"""One number for height and width, or two; two equal ones are kept as one, so that both spellings are one network."""


@dataclass(frozen=True, slots=True)
class Arg:
    """The k-th input of a call."""

    index: int


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor that belongs to the weights of a call, like `weight` of a convolution."""

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
    """A torch module as data: class path and constructor arguments."""

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
        fan: Fan-in that `linear_uniform` uses.
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
    """A primitive operation; one of about twenty.

    Class attributes:
        part: Name that its calls get inside a block when none is given.
        arity: Number of inputs; None for one or more.
        pure: Equal inputs always give equal outputs, and nothing is remembered: two such calls may be one.
        partial: It can do without some of its inputs: where a value is not there at a time step, it is left out.
        normalizes: It is a norm (blocks of a tied stage keep their own).
        counts_activations: Its output counts where activations are reported; convolutions, linear maps and pooling
            windows, as in pycls (Radosavovic et al. 2020).
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
            ShapeError: The operation cannot take these inputs.
        """

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """Parameters and buffers for inputs of these shapes."""
        return ()

    def macs(self, *inputs: Shape) -> int:
        """Multiply-adds for one sample. Norms, activations and pooling count none, as in the published tables."""
        return 0

    def split(self) -> tuple[Op, Op] | None:
        """For a norm with running statistics: the norm without scale and shift, and these; None for others."""
        return None

    def layer(self, *inputs: Shape) -> Layer | None:
        """The torch module that holds this operation's tensors or state; None if it needs none."""
        return None

    def apply(self, *inputs: Shape) -> Apply | None:
        """The operation as a function of its inputs and weights; None if it can only run as a layer."""
        return None


OPS: Registry[Op] = Registry("operation")


def want_map(op: str, shape: Shape) -> Map:
    """The shape, if it is a feature map.

    Raises:
        ShapeError: It is something else.
    """
    if not isinstance(shape, Map):
        raise ShapeError(
            f"{op} wants a feature map (channels x height x width), but gets a vector of {shape}.",
            "Put it before the flattening.",
        )
    return shape
