"""Elementwise activations without parameters."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops.base import (
    OPS,
    Apply,
    Arg,
    Factor,
    Layer,
    Op,
    Saves,
    Signature,
    Tensor,
    constant_tensor,
)
from hiresnet_graph.shapes import Shape

_LEAKY_RELU = Signature("input slope")
_ELU = Signature("input alpha")
_PRELU = Signature("", num_parameters=1, init=0.25)


class Activation(Op):
    """An elementwise function.

    Class attributes:
        function: Dotted path of the torch function.
        transcendental: It is computed by approximations, which CPU kernels round differently in full vectors and in the
            elements left over at the end.
    """

    channelwise: ClassVar[bool] = True
    keeps_precision: ClassVar[bool] = True
    function: ClassVar[str] = ""
    transcendental: ClassVar[bool] = False

    def shape(self, *inputs: Shape) -> Shape:
        """Same as the input."""
        return inputs[0]

    def apply(self, *inputs: Shape) -> Apply:
        """The torch function."""
        return Apply(self.function, (Arg(0),))


@OPS.register
class ReLU(Activation):
    """max(0, x)."""

    kind: ClassVar[str] = "relu"
    saves: ClassVar[Saves] = "result"
    has_inplace: ClassVar[bool] = True
    short_name: ClassVar[str] = "ReLU"
    function: ClassVar[str] = "torch.nn.functional.relu"


@OPS.register
class ReLU6(Activation):
    """min(max(0, x), 6)."""

    kind: ClassVar[str] = "relu6"
    short_name: ClassVar[str] = "ReLU6"
    function: ClassVar[str] = "torch.nn.functional.relu6"


@OPS.register
class LeakyReLU(Activation):
    """x for positive x, `slope` x for negative x.

    Attributes:
        slope: The factor of negative values.
    """

    kind: ClassVar[str] = "leaky_relu"
    examples = ({"slope": 0.2},)
    short_name: ClassVar[str] = "leaky ReLU"
    slope: Annotated[float, Field(ge=0, le=1)] = 0.01

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.nn.functional.leaky_relu`."""
        return Apply("torch.nn.functional.leaky_relu", (Arg(0), self.slope), signature=_LEAKY_RELU)


@OPS.register
class PReLU(Op):
    """x for positive x, a learned slope times x for negative x (He et al. 2015).

    Attributes:
        per_channel: Whether each channel has a slope of its own.
        init: Initial value of the slopes.
    """

    kind: ClassVar[str] = "prelu"
    parameter_group: ClassVar[str] = "scales"
    examples = ({"per_channel": True, "init": 0.1}, {})
    short_name: ClassVar[str] = "PReLU"
    per_channel: bool = False
    init: Factor = 0.25

    def shape(self, *inputs: Shape) -> Shape:
        """Same as the input."""
        if self.per_channel and inputs[0].feature_axis:
            raise ShapeError("PReLU cannot have a slope for each feature of tokens.", "Set 'per_channel: false'.")
        return inputs[0]

    def _count(self, shape: Shape) -> int:
        return shape.channels if self.per_channel else 1

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """One slope, or one for each channel."""
        return (constant_tensor("weight", (self._count(inputs[0]),), self.init),)

    def layer(self, *inputs: Shape) -> Layer:
        """`torch.nn.PReLU`."""
        kwargs = _PRELU.kwargs(num_parameters=self._count(inputs[0]), init=self.init)
        return Layer("torch.nn.PReLU", (), kwargs, _PRELU)


@OPS.register
class Abs(Activation):
    """The absolute value."""

    kind: ClassVar[str] = "abs"
    function: ClassVar[str] = "torch.abs"


@OPS.register
class GELU(Activation):
    """x times the normal cumulative distribution function of x (Hendrycks & Gimpel 2016)."""

    kind: ClassVar[str] = "gelu"
    transcendental: ClassVar[bool] = True
    short_name: ClassVar[str] = "GELU"
    function: ClassVar[str] = "torch.nn.functional.gelu"


@OPS.register
class GELUTanh(Activation):
    """The approximation of GELU with tanh: x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2."""

    kind: ClassVar[str] = "gelu_tanh"
    transcendental: ClassVar[bool] = True
    short_name: ClassVar[str] = "GELU (tanh)"

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.nn.functional.gelu` with `approximate="tanh"`."""
        return Apply("torch.nn.functional.gelu", (Arg(0),), {"approximate": "tanh"})


@OPS.register
class ELU(Activation):
    """x for positive x, `alpha` (exp(x) - 1) for negative x (Clevert et al. 2016).

    Attributes:
        alpha: The limit for large negative values is `-alpha`.
    """

    kind: ClassVar[str] = "elu"
    examples = ({"alpha": 0.5},)
    transcendental: ClassVar[bool] = True
    short_name: ClassVar[str] = "ELU"
    alpha: Annotated[float, Field(gt=0, le=1000)] = 1.0

    def apply(self, *inputs: Shape) -> Apply:
        """`torch.nn.functional.elu`."""
        return Apply("torch.nn.functional.elu", (Arg(0), self.alpha), signature=_ELU)


@OPS.register
class Mish(Activation):
    """x tanh(log(1 + exp(x))) (Misra 2019)."""

    kind: ClassVar[str] = "mish"
    transcendental: ClassVar[bool] = True
    short_name: ClassVar[str] = "Mish"
    function: ClassVar[str] = "torch.nn.functional.mish"


@OPS.register
class SiLU(Activation):
    """x sigmoid(x), also known as swish."""

    kind: ClassVar[str] = "silu"
    transcendental: ClassVar[bool] = True
    short_name: ClassVar[str] = "SiLU"
    function: ClassVar[str] = "torch.nn.functional.silu"


@OPS.register
class Hardswish(Activation):
    """x relu6(x + 3) / 6 (Howard et al. 2019)."""

    kind: ClassVar[str] = "hardswish"
    function: ClassVar[str] = "torch.nn.functional.hardswish"


@OPS.register
class Hardsigmoid(Activation):
    """relu6(x + 3) / 6 (Howard et al. 2019)."""

    kind: ClassVar[str] = "hardsigmoid"
    function: ClassVar[str] = "torch.nn.functional.hardsigmoid"


@OPS.register
class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    kind: ClassVar[str] = "sigmoid"
    saves: ClassVar[Saves] = "result"
    transcendental: ClassVar[bool] = True
    function: ClassVar[str] = "torch.sigmoid"


@OPS.register
class Tanh(Activation):
    """The hyperbolic tangent."""

    kind: ClassVar[str] = "tanh"
    saves: ClassVar[Saves] = "result"
    transcendental: ClassVar[bool] = True
    function: ClassVar[str] = "torch.tanh"
