"""Base class of primitive operations: a shape rule, a cost rule, tensors, and the torch form as data.

Nothing here imports torch. `Layer` and `Apply` name torch objects by dotted path; `lower` resolves them and `emit`
writes them out, so both always compute the same.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.registry import Kind, Registry
from hiresnet_graph.shapes import Map, Shape, Tokens

if TYPE_CHECKING:
    import torch

Count = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
"""A positive integer: channels, kernel sizes, strides."""
Factor = Annotated[float, Field(ge=-1e6, le=1e6, strict=True)]
"""A factor, or the initial value of one."""
Padding = Annotated[int, Field(ge=0, le=1_000_000, strict=True)]


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of a field that may hold one number for both."""
    return (value, value) if isinstance(value, int) else value


def compact(value: int | tuple[int, int]) -> int | tuple[int, int]:
    """One number if height and width are equal."""
    height, width = pair(value)
    return height if height == width else (height, width)


def size_label(size: int | tuple[int, int]) -> str:
    """Height and width in a label: `3x3`."""
    return "x".join(map(str, pair(size)))


def stride_label(stride: int | tuple[int, int]) -> str:
    """A stride in a label, with a space before it: ` /2`, ` /2x1`, or nothing."""
    height, width = pair(stride)
    if height == width:
        return f" /{height}" if height > 1 else ""
    return f" /{height}x{width}"


Pair = Annotated[Count | tuple[Count, Count], AfterValidator(compact)]
"""One number for height and width, or two; two equal numbers become one, so both spellings give the same network."""
PaddingPair = Annotated[Padding | tuple[Padding, Padding], AfterValidator(compact)]
"""The same of numbers that may be 0."""


@dataclass(frozen=True, slots=True)
class Arg:
    """The k-th input of a call."""

    index: int


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor of a call's weights, like `weight` of a convolution."""

    name: str


class Signature:
    """The parameters of a torch class or function, as far as operations set them.

    Attributes:
        positional: Names of the positional parameters.
        keywords: Keyword parameters and their defaults.
        roles: Parameter -> its name in the classes of emitted source, if another; all that count `channels` are alike.
    """

    __slots__ = ("keywords", "positional", "roles")

    def __init__(self, positional: str, *, roles: dict[str, str] | None = None, **keywords: Any) -> None:
        self.positional, self.keywords, self.roles = tuple(positional.split()), keywords, roles or {}

    def role(self, parameter: str) -> str:
        """The name of a parameter in emitted source."""
        return self.roles.get(parameter, parameter)

    def kwargs(self, **values: Any) -> dict[str, Any]:
        """The keyword arguments that differ from their defaults."""
        return {name: value for name, value in values.items() if value != self.keywords[name]}


@dataclass(frozen=True, slots=True)
class Apply:
    """A function applied to inputs, weights, constants and other applications.

    Attributes:
        target: Dotted path of the function (`torch.cat`), or `.name` for a method of the first argument.
        signature: For readable emitted source.
    """

    target: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    signature: Signature | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ChainedApply(Apply):
    """A function of two values applied from the first of `args` to the last: f(f(a, b), c).

    It is flat, since nested applications of hundreds of values would exceed the recursion limit of Python.
    """


@dataclass(frozen=True, slots=True)
class Layer:
    """A torch module as data.

    Attributes:
        target: Dotted path of the class.
        args, kwargs: Arguments of its constructor.
        signature: For readable emitted source.
    """

    target: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    signature: Signature | None = field(default=None, compare=False)


Saves = Literal["operands", "result", "nothing"]
"""What most operations store for the backward pass."""
Init = Literal["he_normal", "normal", "zeros", "ones", "constant", "linear_uniform"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One parameter or buffer of an operation.

    Attributes:
        init: `he_normal`: normal, variance 2 / fan-out (He et al. 2015, the mode of torchvision's ResNets);
            `linear_uniform`: uniform in +-1/sqrt(`fan`), torch's rule for linear layers and biases;
            `normal`: normal, standard deviation `value`; `constant`: `value`.
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


def constant_tensor(name: str, shape: tuple[int, ...], value: float) -> Tensor:
    """A parameter whose initial elements are all `value`."""
    known: dict[float, Init] = {0.0: "zeros", 1.0: "ones"}
    init = known.get(value)
    return Tensor(name, shape, init) if init else Tensor(name, shape, "constant", value=value)


class Remark(NamedTuple):
    """What is valid but probably unintended, in one sentence.

    Attributes:
        hint: What to do, one sentence; `{fields}` stands for the way to set `fields` in the spec.
        fields: The field to set and its value, as YAML.
    """

    message: str
    hint: str
    fields: str = ""


class SavedValues(NamedTuple):
    """What an operation stores of one sample for its backward pass, besides its weights.

    Attributes:
        operands: Indices of the operands that the backward pass reads.
        result: Whether it reads the result.
        elements: Number of further values, in the precision of the result.
        size_bytes: Size of what has the same size in every precision: indices, and numbers that are always float32.
    """

    operands: tuple[int, ...] = ()
    result: bool = False
    elements: int = 0
    size_bytes: int = 0


class Op(Kind):
    """A primitive operation.

    Class attributes:
        part: Default name of its calls inside a block; by default the kind.
        arity: Number of inputs; None for one or more.
        pure: Equal inputs always give equal outputs and no state changes, so equal calls can be merged.
        random: It draws random numbers in training mode.
        normalizes: A norm (blocks of a tied stage have their own norms).
        parameter_group: What its parameters are, for recipes: `norms`, `tokens`, `positions` or `scales`; "" if they
            are the weights of a linear map.
        channelwise: It treats every channel alike and separately.
        is_affine: In evaluation mode it is an affine function of its operands.
        maps_channels: In evaluation mode it multiplies each channel by a factor and adds a shift: `channel_map`.
        absorbs_maps: A linear operation that can take such a map into its weights: `absorb`.
        has_inplace: Its torch function has an argument `inplace`, and its backward pass reads the result alone.
        overwritable: Its result is a new tensor (no view of an input) that its own backward pass does not read.
        is_view: Its result shares the memory of its first operand.
        shares_gradient: The gradients of its operands are views of that of its result.
        saves: What it stores for its backward pass, if that is one of these: `saved`.
        is_low_precision: Mixed precision computes it with 16-bit numbers, whatever its operands are.
        keeps_precision: Mixed precision computes it with 16-bit numbers if all its operands have 16 bits.
        counts_activations: Its output counts as activations, as in pycls (Radosavovic et al. 2020).
        short_name: Its name in diagrams; by default its kind.
        classes_field: The field with the number of classes, if its output can be the scores of a classifier.
    """

    part: ClassVar[str] = ""
    arity: ClassVar[int | None] = 1
    pure: ClassVar[bool] = True
    random: ClassVar[bool] = False
    normalizes: ClassVar[bool] = False
    parameter_group: ClassVar[str] = ""
    channelwise: ClassVar[bool] = False
    is_affine: ClassVar[bool] = False
    maps_channels: ClassVar[bool] = False
    absorbs_maps: ClassVar[bool] = False
    has_inplace: ClassVar[bool] = False
    overwritable: ClassVar[bool] = False
    is_view: ClassVar[bool] = False
    shares_gradient: ClassVar[bool] = False
    is_low_precision: ClassVar[bool] = False
    keeps_precision: ClassVar[bool] = False
    saves: ClassVar[Saves] = "operands"
    counts_activations: ClassVar[bool] = False
    short_name: ClassVar[str] = ""
    classes_field: ClassVar[str] = ""

    @abstractmethod
    def shape(self, *inputs: Shape) -> Shape:
        """Shape of the output.

        Raises:
            ShapeError: The operation does not accept these inputs.
        """

    def canonical(self, *inputs: Shape) -> Self:
        """The same operation on inputs of these shapes, without fields that are written but change nothing."""
        return self

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """Parameters and buffers for inputs of these shapes."""
        return ()

    def macs(self, *inputs: Shape) -> int:
        """Multiply-adds for one sample; 0 for norms, activations and pooling, as in published tables."""
        return 0

    def saved(self, *inputs: Shape) -> SavedValues:
        """What it stores for its backward pass."""
        operands = tuple(range(len(inputs))) if self.saves == "operands" else ()
        return SavedValues(operands, result=self.saves == "result")

    def backward_workspace(self, *inputs: Shape) -> int:
        """Number of values that its backward pass needs for a moment, besides gradients, on a CPU."""
        return 0

    def split(self) -> tuple[Op, Op] | None:
        """A norm with running statistics as the norm without scale and shift, and these; None for other operations."""
        return None

    def channel_map(self, tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor | float, torch.Tensor | float]:
        """Factor and shift of each channel, or of all, in evaluation mode; of operations with `maps_channels`.

        Args:
            tensors: Its parameters and buffers by name.
        """
        raise NotImplementedError

    def absorb(
        self, tensors: Mapping[str, torch.Tensor], factor: torch.Tensor, shift: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Weight and bias of the operation with a channel map after it; of operations with `absorbs_maps`.

        Args:
            tensors: Its parameters by name.
            factor: One number for each channel [width].
            shift: Likewise.
        """
        raise NotImplementedError

    def smallest_batch(self, *inputs: Shape) -> int:
        """The number of samples of the smallest batch that it can be trained on."""
        return 1

    def remark(self, *inputs: Shape) -> Remark | None:
        """A warning for inputs of these shapes, if what the operation does with them is probably unintended."""
        return None

    def trains_in_channels_last(self, *inputs: Shape) -> bool:
        """Whether its backward pass can be computed in the memory format channels-last."""
        return True

    def layer(self, *inputs: Shape) -> Layer | None:
        """The torch module with the operation's tensors or state; None if it has none."""
        return None

    def apply(self, *inputs: Shape) -> Apply | None:
        """The operation as a function of its inputs and weights; None if it exists only as a layer."""
        return None

    def label(self, *, brief: bool = False) -> str:
        """A description for diagrams, like `3x3 conv /2`.

        Args:
            brief: Without the size of a pooling window.
        """
        return self.short_name or self.kind.replace("_", " ")


OPS: Registry[Op] = Registry("operation")


def require_map(op: str, shape: Shape) -> Map:
    """The shape, if it is a feature map.

    Raises:
        ShapeError: It is not.
    """
    if not isinstance(shape, Map) or shape.steps is not None:
        raise ShapeError(
            f"{op} requires a feature map (channels x height x width), not {shape.describe()}.",
            _to_map_hint(shape),
        )
    return shape


def _to_map_hint(shape: Shape) -> str:
    """How a value becomes a feature map."""
    if not isinstance(shape, Tokens) or shape.steps is not None:
        return "Place it before the flattening."
    if shape.grid is None:
        return "Tokens of a known grid become a feature map with 'to_map': give the input a 'grid'."
    return "Place 'drop_prefix' and 'to_map' before it." if shape.prefix else "Place 'to_map' before it."


def require_tokens(op: str, shape: Shape) -> Tokens:
    """The shape, if it is a sequence of tokens.

    Raises:
        ShapeError: It is not.
    """
    if not isinstance(shape, Tokens) or shape.steps is not None:
        raise ShapeError(
            f"{op} requires tokens (length x features), not {shape.describe()}.",
            "Place 'patch_embed' or 'to_tokens' before it."
            if isinstance(shape, Map)
            else "Place it before the pooling.",
        )
    return shape


def require_grid(op: str, shape: Shape, *, prefix: bool = False) -> tuple[Tokens, tuple[int, int]]:
    """The shape and its grid, if it is tokens of a known grid.

    Args:
        prefix: Whether class and register tokens may stand before those of the grid.

    Raises:
        ShapeError: It is not.
    """
    x = require_tokens(op, shape)
    if x.grid is None:
        raise ShapeError(
            f"{op} requires tokens of a known grid, not {x.describe()}.",
            "Give the input a 'grid', or make the tokens with 'patch_embed' or 'to_tokens'.",
        )
    if x.prefix and not prefix:
        raise ShapeError(
            f"{op} requires the tokens of a grid alone, not {x.describe()}.",
            "Remove the class token with 'drop_prefix' before it.",
        )
    return x, x.grid
