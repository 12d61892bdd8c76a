"""Shapes of convolutions and pooling, compared with torch for random sizes, kernels, strides and paddings."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops import AvgPool, Conv2d, ConvTranspose2d, MaxPool, Op, Subsample, transposed_geometry
from hiresnet_graph.shapes import Map


def pair(draw: random.Random, low: int, high: int) -> tuple[int, int]:
    return draw.randint(low, high), draw.randint(low, high)


def convolution(draw: random.Random, size: Map) -> tuple[Op, nn.Module]:
    fields: dict[str, Any] = {"kernel_size": pair(draw, 1, 5), "stride": pair(draw, 1, 3), "dilation": pair(draw, 1, 2)}
    if draw.random() < 0.7:
        fields["padding"] = pair(draw, 0, 2)
    else:  # our default: half of the dilated kernel
        sizes = zip(fields["kernel_size"], fields["dilation"], strict=True)
        return Conv2d(width=4, **fields), nn.Conv2d(
            size.channels, 4, **fields, padding=tuple((kernel - 1) * dilation // 2 for kernel, dilation in sizes)
        )
    fields["groups"] = draw.choice([1, 2])
    return Conv2d(width=4, **fields), nn.Conv2d(size.channels, 4, **fields)


def transposed(draw: random.Random, size: Map) -> tuple[Op, nn.Module]:
    fields = {
        "kernel_size": pair(draw, 1, 4),
        "stride": pair(draw, 1, 3),
        "padding": pair(draw, 0, 3),
        "output_padding": pair(draw, 0, 2),
    }
    return ConvTranspose2d(width=4, **fields), nn.ConvTranspose2d(size.channels, 4, **fields)


def pooling(draw: random.Random, size: Map) -> tuple[Op, nn.Module]:
    fields: dict[str, Any] = {"kernel_size": pair(draw, 1, 4), "padding": pair(draw, 0, 2)}
    fields["ceil_mode"] = draw.random() < 0.5
    if draw.random() < 0.7:
        fields["stride"] = pair(draw, 1, 5)
    if draw.random() < 0.5:
        return MaxPool(**fields), nn.MaxPool2d(**fields)
    return AvgPool(**fields), nn.AvgPool2d(**fields)


@pytest.mark.parametrize("make", [convolution, transposed, pooling])
def test_shapes_are_those_of_torch(make: Callable[[random.Random, Map], tuple[Op, nn.Module]]) -> None:
    """And what torch refuses is refused."""
    draw, refused = random.Random(make.__name__), 0
    for _ in range(600):
        size = Map(2, *pair(draw, 1, 9))
        op, module = make(draw, size)
        try:
            expected: tuple[int, ...] | None = tuple(module(torch.zeros(1, *size)).shape[1:])
        except RuntimeError:
            expected = None
        try:
            found: tuple[int, ...] | None = tuple(op.shape(size))
        except ShapeError:
            found, refused = None, refused + 1
        # A result without elements is none, in torch before it is used.
        assert found == (None if expected is not None and 0 in expected else expected), (op, size)
    assert 20 < refused < 500


@pytest.mark.parametrize("stride", [1, 2, 3, (2, 3)])
def test_subsampling_rounds_up(stride: int | tuple[int, int]) -> None:
    rows, columns = (stride, stride) if isinstance(stride, int) else stride
    for size in (Map(2, 1, 2), Map(3, 5, 6), Map(2, 7, 9)):
        expected = torch.zeros(1, *size)[:, :, ::rows, ::columns].shape[1:]
        assert tuple(Subsample(stride=stride).shape(size)) == tuple(expected)


@pytest.mark.parametrize("kernel", [None, 1, 2, 3, 4])
def test_a_transposed_geometry_reaches_its_target_and_reads_all_of_its_input(kernel: int | None) -> None:
    found = 0
    for before in range(1, 8):
        for after in range(before, 20):
            geometry = transposed_geometry((before, before), (after, after), kernel)
            if geometry is None:
                continue
            found += 1
            fields = geometry._asdict()
            assert tuple(ConvTranspose2d(width=1, **fields).shape(Map(1, before, before))) == (1, after, after)
            assert geometry.kernel_size[0] == max(kernel or 1, geometry.stride[0])
            x = torch.ones(1, 1, before, before, requires_grad=True)
            functional.conv_transpose2d(x, torch.ones(1, 1, *fields.pop("kernel_size")), **fields).sum().backward()
            assert x.grad is not None and bool((x.grad > 0).all()), (before, after)
    assert found > 20


@pytest.mark.parametrize("kernel", [None, 3])
def test_whole_factors_and_the_sizes_of_strided_convolutions_have_a_transposed_geometry(kernel: int | None) -> None:
    for before in range(1, 9):
        for factor in range(1, 5):
            geometry = transposed_geometry((before, before), (before * factor, before * factor), kernel)
            assert geometry is not None and geometry.stride == (factor, factor)
        for after in (2 * before - 1, 2 * before):  # sizes that a convolution of stride 2 halves
            assert transposed_geometry((before, before), (after, after), kernel) is not None
