"""The conformance checks accept sound kinds, and each of them finds the violation that it is for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import hiresnet_graph as hrg
from hiresnet_graph.blocks import BLOCKS, Block
from hiresnet_graph.data import DATASETS, DatasetKind, load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.merges import Merge
from hiresnet_graph.ops import OPS, Apply, Arg, Layer, Op, Tensor
from hiresnet_graph.projections import PROJECTIONS
from hiresnet_graph.registry import Registry
from hiresnet_graph.shapes import Map, Shape, Vector
from hiresnet_graph.testing import check_kind, check_network
from hiresnet_graph.wire import Wire

counter = itertools.count()


class Forgetful(nn.Module):
    """A learned constant that is not used."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x."""
        return x


def counting(x: torch.Tensor) -> torch.Tensor:
    """Another result at each call."""
    return x + next(counter)


def in_batch(x: torch.Tensor) -> torch.Tensor:
    """One channel too many."""
    return torch.cat([x, x[:, :1]], 1)


class Double(Op):
    """Twice the value."""

    kind: ClassVar[str] = "double"

    def shape(self, *inputs: Shape) -> Shape:
        """That of the input."""
        return inputs[0]

    def apply(self, *inputs: Shape) -> Apply | None:
        """x + x."""
        return Apply("torch.add", (Arg(0), Arg(0)))


class Longer(Double):
    """A wrong shape rule."""

    kind: ClassVar[str] = "longer"

    def apply(self, *inputs: Shape) -> Apply | None:
        """One channel more than the rule says."""
        return Apply(f"{__name__}.in_batch", (Arg(0),))


class Random(Double):
    """No function of its input."""

    kind: ClassVar[str] = "random_"

    def apply(self, *inputs: Shape) -> Apply | None:
        """Another value at each call."""
        return Apply(f"{__name__}.counting", (Arg(0),))


class Learned(Double):
    """A layer with a parameter that it ignores."""

    kind: ClassVar[str] = "learned"

    def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
        """A bias."""
        return (Tensor("bias", (inputs[0].channels, 1, 1), "zeros"),)

    def layer(self, *inputs: Shape) -> Layer | None:
        """The layer."""
        return Layer(f"{__name__}.Forgetful", (inputs[0].channels,))

    def apply(self, *inputs: Shape) -> Apply | None:
        """Nothing beside the layer."""
        return None


class Nothing(Block):
    """no sentence"""

    kind: ClassVar[str] = "nothing"

    def expand(self, x: Wire) -> Wire:
        """The value."""
        return x.relu()


class First(Merge):
    """The first value, whatever else arrives."""

    kind: ClassVar[str] = "first"

    def combine(self, wires: tuple[Wire, ...]) -> Wire:
        """The first."""
        return wires[0].relu()


class Unstable(DatasetKind):
    """Other labels at each load."""

    kind: ClassVar[str] = "unstable"

    def load(self) -> Dataset:
        """Synthetic images with a seed that changes."""
        return load_dataset(f"synthetic:images=100,seed={next(counter)}")


@pytest.fixture
def registered() -> Iterator[Callable[[Registry[Any], type[hrg.Kind]], hrg.Kind]]:
    """Register a kind for one test."""
    names: list[tuple[Registry[Any], str]] = []

    def register(registry: Registry[Any], kind: type[hrg.Kind]) -> hrg.Kind:
        registry.register(kind)
        names.append((registry, kind.kind))
        return kind()

    yield register
    for registry, name in names:
        registry.discard(name)


Register = Callable[[Registry[Any], type[hrg.Kind]], hrg.Kind]


@pytest.mark.parametrize("shape", [Map(4, 7, 9), Vector(6)])
def test_a_sound_operation_passes(registered: Register, shape: Shape) -> None:
    check_kind(registered(OPS, Double), shape)


@pytest.mark.parametrize("source", ["digits", "synthetic"])
def test_a_data_set_passes(source: str) -> None:
    check_kind(DATASETS.get(source)())


@pytest.mark.parametrize(
    ("registry", "kind", "message"),
    [
        (OPS, Longer, r"the shape rule gives \(3, 4, 7, 9\), the output has \(3, 5, 7, 9\)"),
        (OPS, Random, "the outputs of the module in training mode: 'output' differs"),
        (OPS, Learned, "no gradient reaches .'node.bias'."),
        (BLOCKS, Nothing, "its docstring must begin with one sentence, not 'no sentence'"),
        (DATASETS, Unstable, "two loads of the data set differ"),
    ],
)
def test_a_violation_is_found(
    registered: Register, registry: Registry[Any], kind: type[hrg.Kind], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        check_kind(registered(registry, kind))


def test_a_kind_that_is_not_registered_is_found() -> None:
    with pytest.raises(AssertionError, match="First is not registered: there is no merge 'first'"):
        check_kind(First())


def test_a_projection_of_fields_is_checked_with_them() -> None:
    check_kind(PROJECTIONS.get("standard")(spatial="adaptive", norm="group"))  # type: ignore[call-arg]


def test_a_whole_network_is_checked() -> None:
    check_network(hrg.load("unet"))


def test_what_is_no_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="Kind is no block, operation, merge, projection or data set"):
        check_kind(hrg.Kind())
