"""Layers of custom operations: their tensors are those that the operation declares, and their source is complete."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import UsageError
from hiresnet_graph.ops import OPS, Layer, Op, Tensor
from hiresnet_graph.shapes import Shape
from hiresnet_graph.testing import check_network


@pytest.fixture
def own() -> Iterator[type[Op]]:
    class OwnLayer(Op):
        """A layer of the tests."""

        kind: ClassVar[str] = "own_layer"
        layer_class: str = "Derived"

        def shape(self, *inputs: Shape) -> Shape:
            return inputs[0]

        def tensors(self, *inputs: Shape) -> tuple[Tensor, ...]:
            return (Tensor("weight", (inputs[0].channels,), "ones"),)

        def layer(self, *inputs: Shape) -> Layer:
            return Layer(f"tests.own_layers.{self.layer_class}", (inputs[0].channels,))

    yield OPS.register(OwnLayer)
    OPS.discard("own_layer")


def network(**fields: Any) -> hrg.Architecture:
    data = {"name": "own", "input": {"channels": 3, "height": 4, "width": 4}, "flow": "input -> a"}
    return hrg.from_dict({**data, "nodes": {"a": {"block": "own_layer", **fields}}})


@pytest.mark.parametrize(
    ("layer", "fault"),
    [
        ("WithBuffer", "its buffer 'mask' [3] is not declared"),
        ("WithHiddenBuffer", "its buffer 'mask' [3] is not declared"),
        ("WithParameter", "its parameter 'inner.weight' [2, 2] is not declared"),
        ("WithAttribute", "its attribute 'table' is a tensor outside the state_dict"),
        ("OfAnotherShape", "its parameter 'weight' is [4], but declared as [3]"),
        ("WithoutWeight", "it lacks the declared 'weight'"),
        ("WeightAsBuffer", "'weight' is a buffer, but declared as trainable"),
    ],
)
def test_a_tensor_without_a_value_is_refused(own: type[Op], layer: str, fault: str) -> None:
    with pytest.raises(UsageError) as error:
        network(layer_class=layer).build()
    assert str(error.value).startswith(
        f"the layer 'tests.own_layers.{layer}' of the operation 'own_layer' (in 'a') does not fit the tensors of the "
        f"operation: {fault}. Only tensors that 'tensors' of the operation returns get values"
    )


def test_emitted_source_has_base_classes_helpers_and_imports(own: type[Op]) -> None:
    net = network()
    check_network(net)
    source = net.source()
    assert "tests" not in source and "import math\n" in source and "from math import pi as HALF_TURN\n" in source
    assert source.index("OFFSET = 0.5") < source.index("def shifted") < source.index("class Base")
    assert source.index("class Base") < source.index("class Derived") and "WithBuffer" not in source
