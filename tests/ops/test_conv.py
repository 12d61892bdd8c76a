"""Warnings about the default padding of convolutions."""

from __future__ import annotations

from typing import Any

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.ops import OPS, Conv2d
from hiresnet_graph.shapes import Map

PATCHES = """
name: patches
input: {channels: 3, height: 32, width: 32}
nodes:
  patch: {block: conv2d, width: 8, kernel_size: 16, stride: 16}
  head: {block: classifier, classes: 10}
flow: patch -> head
"""


@pytest.mark.parametrize(
    ("fields", "warns"),
    [
        ({"kernel_size": 16, "stride": 16}, True),
        ({"kernel_size": 3, "stride": 3}, True),
        ({"kernel_size": (1, 4), "stride": (1, 4)}, True),
        ({"kernel_size": (4, 3), "stride": (1, 3)}, True),
        ({"kernel_size": 2, "stride": 2}, False),
        ({"kernel_size": 1}, False),
        ({"kernel_size": 3}, False),
        ({"kernel_size": 3, "stride": 2}, False),
        ({"kernel_size": 16, "stride": 16, "padding": 0}, False),
        ({"kernel_size": 16, "stride": 16, "padding": 7}, False),
    ],
)
def test_default_padding_of_patches_is_a_warning(fields: dict[str, Any], warns: bool) -> None:
    op = Conv2d(width=4, **fields)
    assert (op.remark(Map(3, 32, 32)) is not None) == warns


@pytest.mark.parametrize("kind", ["max_pool", "avg_pool", "conv_transpose2d"])
def test_other_windows_have_no_padding_by_default(kind: str) -> None:
    fields = {"width": 4} if kind == "conv_transpose2d" else {}
    op = OPS.get(kind)(kernel_size=16, stride=16, **fields)
    assert op.remark(Map(3, 32, 32)) is None
    assert op.shape(Map(3, 32, 32)).sizes[1:] == ((512, 512) if fields else (2, 2))


def test_the_warning_names_the_remedy() -> None:
    (warning,) = hrg.loads(PATCHES, "p.yaml").warnings
    assert str(warning) == (
        "p.yaml:5:10: nodes.patch: 'patch': a convolution with a kernel of 16x16 and a stride of 16x16 has a padding "
        "of 7x7 by default: its windows are shifted by as many pixels, and contain a border of zeros. Set "
        "'padding: 0' for windows that begin at the border, or 'padding: 7' to keep these."
    )
    assert hrg.loads(PATCHES).override({"patch.padding": 0}).warnings == ()


def test_a_part_without_a_field_for_its_padding_is_changed_by_its_address() -> None:
    text = PATCHES.replace("conv2d, width: 8, kernel_size: 16, stride: 16", "separable_conv, width: 8, kernel_size: 4")
    text = text.replace("kernel_size: 4", "kernel_size: 4, stride: 4, depth: 1")
    (warning,) = hrg.loads(text).warnings
    assert "Set 'patch.block1.depthwise: {padding: 0}' under 'nodes'" in warning.hint
    fixed = text.replace("  head", "  patch.block1.depthwise: {padding: 0}\n  head", 1)
    assert hrg.loads(fixed).warnings == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("conv2d, width: 4, padding: 2", "conv2d, width: 4, padding: [2, 2]"),
        ("conv2d, width: 4, kernel_size: 1", "conv2d, width: 4, kernel_size: 1, dilation: 3"),
        ("max_pool, kernel_size: 3, padding: 1", "max_pool, kernel_size: 3, padding: [1, 1]"),
        ("conv_transpose2d, width: 4, output_padding: 1", "conv_transpose2d, width: 4, output_padding: [1, 1]"),
        ("subsample, start: 1", "subsample, start: [1, 1]"),
    ],
)
def test_spellings_of_a_network_are_one_network(one: str, other: str) -> None:
    text = "name: n\ninput: {{channels: 3, height: 8, width: 8}}\nnodes: {{a: {{block: {}}}}}\n"
    assert hrg.loads(text.format(one)).plan.digest() == hrg.loads(text.format(other)).plan.digest()
