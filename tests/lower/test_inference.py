"""The inference form: equal outputs in evaluation mode, fewer calls."""

from __future__ import annotations

import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.lower.inference import inference_form
from hiresnet_graph.ops import OPS
from hiresnet_graph.shapes import Map, Vector
from hiresnet_graph.shipped import spec_names

MANY = """
name: many
input: {channels: 3, height: 12, width: 12}
nodes:
  a: {block: conv, width: 6, norm: batch}
  up: {block: conv_transpose2d, width: 8, groups: 2}
  norm: batch_norm
  plain: {block: conv2d, width: 8, stride: 2, bias: false}
  fixed: {block: fixed_scale, factor: 0.5}
  b: {block: basic, width: 8, stride: 2}
  pool: adaptive_avg_pool
  flat: flatten
  hidden: {block: linear, width: 5, bias: false}
  norm1d: {block: batch_norm, affine: false}
  head: {block: linear, width: 4}
flow: input -> a -> up -> norm -> plain -> fixed -> b -> pool -> flat -> hidden -> norm1d -> head
edges:
  - {from: a, to: b, slot: output, projection: {}, scale: learned}
  - {from: input, to: b, slot: output, projection: {norm: none}}
  - {from: plain, to: b, slot: output, projection: {}, scale: {gate: true}}
"""
SHARED = """
name: shared
input: {channels: 2, height: 6, width: 6}
nodes:
  a: {block: conv, width: 4}
  b: {block: conv, width: 4, weights: w}
  c: {block: conv, width: 4, weights: w}
  d: {block: classifier, classes: 2}
flow: a -> b -> c -> d
"""
SIZES = """
name: sizes
input: {channels: 3, height: 28, width: 28}
nodes:
  stem: {block: conv, width: 8, stride: 2}
  same: {block: conv, width: 8}
  c1: {block: conv, width: 8, kernel_size: 2, padding: 0}
  c2: {block: conv, width: 16, stride: 2}
  head: {block: classifier, classes: 3}
flow: stem -> same -> c1 -> c2 -> head
skips: {edges: [stem>c2, same>c2, c1>c2], projection: {spatial: stride}}
"""


def trained(network: hrg.Architecture) -> torch.nn.Module:
    """A module whose norms and biases have values of their own, in float64."""
    module = network.build().double()
    generator = torch.Generator().manual_seed(1)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        elif tensor.ndim < 2 and tensor.is_floating_point():
            tensor.add_(0.3 * torch.randn(tensor.shape, generator=generator))
    return module.eval()


def largest_difference(network: hrg.Architecture) -> float:
    module = trained(network)
    form = network.build_inference(module).double()
    form.load_state_dict(inference_form(network.plan).weights(module.state_dict()))
    inputs = [torch.randn(2, *shape, dtype=torch.float64) for shape in network.plan.inputs.values()]
    with torch.no_grad():
        expected, found = module(*inputs), form(*inputs)
    if isinstance(expected, torch.Tensor):
        expected, found = {"": expected}, {"": found}
    return max(float((expected[name] - found[name]).abs().max() / expected[name].abs().max()) for name in expected)


@pytest.mark.parametrize(
    ("network", "absorbed", "joined"),
    [
        # 24 norms: of the stem, of two convolutions in each of eight blocks, of two shortcuts, of five projections. Of
        # the projections, two meet at the end of stage 2, three at that of stage 3.
        (hrg.load("hiresnet18").variant("full"), 24, 3),
        (hrg.load("hiresnet18").variant("original"), 19, 0),
        (hrg.load("rnn_resnet3"), 2, 0),
        (hrg.loads(MANY), 10, 2),
        (hrg.loads(SHARED), 3, 0),
        # Of three projections to 7x7, two are from maps of 14x14, one from a map of 13x13.
        (hrg.loads(SIZES), 7, 1),
    ],
    ids=["full", "original", "in time", "many", "shared", "maps of several sizes"],
)
def test_outputs_are_equal(network: hrg.Architecture, absorbed: int, joined: int) -> None:
    form = inference_form(network.plan)
    assert (form.absorbed, form.joined) == (absorbed, joined)
    assert largest_difference(network) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("name", spec_names())
def test_outputs_of_shipped_specs_are_equal(name: str) -> None:
    assert largest_difference(hrg.load(name)) < 1e-12


def test_the_trained_module_keeps_its_weights_and_mode() -> None:
    network = hrg.load("hiresnet18")
    module = network.build()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    form = network.build_inference(module)
    assert module.training and not form.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert next(form.parameters()).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_type_of_numbers_is_that_of_the_trained_module(dtype: torch.dtype) -> None:
    network = hrg.loads(SHARED)
    module = network.build().to(dtype)
    form = inference_form(network.plan).build(module)
    assert form(torch.rand(2, 2, 6, 6).to(dtype)).dtype == dtype
    assert {value.dtype for value in form.state_dict().values() if value.is_floating_point()} == {dtype}


def test_a_norm_that_others_read_is_not_folded() -> None:
    text = MANY.replace("flow:", "outputs: [up, head]\nflow:")
    network = hrg.loads(text)
    assert inference_form(network.plan).absorbed == 9
    assert largest_difference(network) < 1e-12


@pytest.mark.parametrize("kind", [name for name in OPS if OPS.get(name).maps_channels])
def test_channel_maps_are_what_their_operation_computes(kind: str) -> None:
    for shape in (Map(5, 3, 2), Vector(5)):
        for fields in OPS.get(kind).examples or ({},):
            op = OPS.get(kind)(**fields)
            spec = {
                "name": "one",
                "input": {"channels": 5, **({"height": 3, "width": 2} if isinstance(shape, Map) else {})},
                "nodes": {"a": {"block": kind, **fields}},
                "flow": "a",
            }
            module = trained(hrg.from_dict(spec))
            x = torch.randn(3, *shape, dtype=torch.float64)
            tensors = {name.removeprefix("a."): value for name, value in module.state_dict().items()}
            factor, shift = (value * torch.ones(5, dtype=torch.float64) for value in op.channel_map(tensors))
            axes = (-1, *(1 for _ in shape.spatial))
            torch.testing.assert_close(
                module(x), factor.reshape(axes) * x + shift.reshape(axes), rtol=1e-13, atol=1e-13
            )
