"""What one run of a module did: its calls of torch functions, in order, and the values between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch

from hiresnet_graph.errors import first_line

T = TypeVar("T")
_LONGEST = 120
"""Characters of an address in a message."""
_LONGEST_LINE = 300
"""Characters of the message of another library."""

ATTENTION_WEIGHTS = (
    "the weights of attention, which a spec can neither use nor return. Use the first result of nn.MultiheadAttention, "
    "or the product with the values, alone"
)
GRADIENT_STOPS = {
    "detach": "detach",
    "detach_": "detach_",
    "get data": "data",
    "aten::detach": "detach",
    "aten::detach_": "detach_",
}
"""Functions that stop gradients -> how code calls them."""


class ModuleCall(NamedTuple):
    """One call of a module.

    Attributes:
        path: Address of the module in the network; empty for the network itself.
        kind: Name of its class.
        number: Counts all calls of modules, from 0.
        is_standard: Whether it is a layer of torch itself.
        is_sequence: Whether it calls its parts one after another, and nothing else.
    """

    path: str
    kind: str
    number: int
    is_standard: bool
    is_sequence: bool = False


@dataclass(eq=False, slots=True)
class TracedTensor:
    """A tensor that the run made or read.

    Attributes:
        tensor: The tensor, with its batch axis.
        name: Its name in the `state_dict`; empty if it has none.
        is_input: It is an argument of the network.
        depends: It depends on an argument of the network.
        base: The value of which it is a view, if it depends on no argument.
        stale: Where its memory was overwritten through another tensor; empty if it was not.
        refusal: Why a spec can neither use nor return it; empty for others.
    """

    tensor: torch.Tensor
    name: str = ""
    is_input: bool = False
    depends: bool = False
    base: TracedTensor | None = None
    stale: str = ""
    refusal: str = ""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Lengths of its axes, with the batch."""
        return tuple(self.tensor.shape)

    @property
    def root(self) -> TracedTensor:
        """The value of which it is a view, or itself."""
        return self if self.base is None else self.base.root

    @property
    def whole_refusal(self) -> str:
        """Its refusal, or that of a value of which it is a view."""
        return self.refusal or ("" if self.base is None else self.base.whole_refusal)


@dataclass(eq=False, slots=True)
class Recorded:
    """One call of a torch function.

    Attributes:
        function: Its name, like `conv2d`; or `class:` and the dotted path of a module's class that is known as a whole.
        args, kwargs: Its arguments, with a `TracedTensor` for each tensor.
        frames: The calls of modules in which it happened, from the outside in.
        location: File and line of the code outside of torch that led to it.
        module: The module, for a module's class.
    """

    function: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[TracedTensor, ...]
    frames: tuple[ModuleCall, ...]
    location: str
    module: torch.nn.Module | None = None

    @property
    def operands(self) -> Iterator[TracedTensor]:
        """The values among its arguments."""
        return values_in((self.args, self.kwargs), TracedTensor)


class ModuleInputs(NamedTuple):
    """The arguments of one call of a module.

    Attributes:
        tensors: By name, in the order of the inputs of the spec.
        keywords: Names of those that are passed by keyword; the others come first, and are passed by position.
    """

    tensors: Mapping[str, torch.Tensor]
    keywords: frozenset[str] = frozenset()

    def copy(self) -> ModuleInputs:
        """With tensors of its own, since a module may change its arguments in place."""
        return self._replace(tensors={name: tensor.clone() for name, tensor in self.tensors.items()})

    def run(self, module: torch.nn.Module) -> Any:
        """What the module returns."""
        named = {name: tensor for name, tensor in self.tensors.items() if name in self.keywords}
        return module(*(tensor for name, tensor in self.tensors.items() if name not in named), **named)


class Fault(NamedTuple):
    """Something in a module that no spec can express.

    Attributes:
        what: One sentence without a period.
        path: Address of the module in which it happens.
        location: File and line.
    """

    what: str
    path: str
    location: str

    @property
    def where(self) -> str:
        """Where it happens, as a text."""
        path = self.path if len(self.path) <= _LONGEST else f"{self.path[:_LONGEST]}..."
        return f"'{path}' at {self.location}" if path else self.location

    def __str__(self) -> str:
        return f"{self.what} (in {self.where})"


@dataclass(slots=True)
class ModuleTrace:
    """A run of a module.

    Attributes:
        inputs: The values of the arguments, by name.
        outputs: The values of the results, by name; one alone is called `output`.
        faults: What happened that no spec can express.
        called: Addresses of the modules that were called.
        names: Identity of each tensor of the `state_dict` -> its name.
        autocast: Locations within `torch.autocast` that changes nothing in this run, in order.
    """

    inputs: dict[str, TracedTensor]
    calls: list[Recorded] = field(default_factory=list)
    outputs: dict[str, TracedTensor] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    called: set[str] = field(default_factory=set)
    names: dict[int, str] = field(default_factory=dict)
    autocast: dict[str, None] = field(default_factory=dict)


def stored_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of the `state_dict`, which may have other things, too; the parameters themselves."""
    state = module.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def foreign_message(error: BaseException) -> str:
    """The first line of the message of an error of others, shortened; the name of its class if there is none."""
    line = first_line(error) or type(error).__name__
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..."


def values_in(argument: Any, kind: type[T]) -> Iterator[T]:
    """The values of a type in an argument, which may be nested."""
    if isinstance(argument, kind):
        yield argument
    elif isinstance(argument, list | tuple):
        for item in argument:
            yield from values_in(item, kind)
    elif isinstance(argument, dict):
        for item in argument.values():
            yield from values_in(item, kind)
