"""Exported files that accept other heights and widths, and networks that cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.errors import UsageError
from hiresnet_graph.interop.dynamic import SizeRange, size_range

SIZES = ((24, 40), (64, 32), (8, 12))


def exported(network: hrg.Architecture, path: Path, **fields: Any) -> tuple[Callable[[torch.Tensor], Any], list[str]]:
    """The exported program as a function, and the messages of the export."""
    messages: list[str] = []
    network.export(path, dynamic="hw", message=messages.append, **fields)
    if path.suffix == ".pt2":
        return torch.export.load(path).module(), messages
    session = onnxruntime.InferenceSession(path)
    return lambda x: torch.from_numpy(np.asarray(session.run(None, {"input": x.numpy()})[0])), messages


def assert_equal(program: Callable[[torch.Tensor], Any], network: hrg.Architecture, height: int, width: int) -> None:
    x = torch.randn(3, 3, height, width)
    with torch.no_grad():
        torch.testing.assert_close(program(x), network.build().eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("suffix", "inference"), [(".pt2", False), (".onnx", True)])
def test_other_sizes_give_the_outputs_of_the_module(suffix: str, inference: bool, tmp_path: Path) -> None:
    network = hrg.load("hiresnet18").variant("full").override({"width": 4, "stage*.depth": 1})
    program, messages = exported(network, tmp_path / f"net{suffix}", inference=inference)
    assert messages[0] == "Height and width of the inputs must be multiples of 4, at least 8."
    assert len(messages) == 1 + inference
    for height, width in SIZES:
        assert_equal(program, network, height, width)


POOLED = """
name: pooled
input: {channels: 3, height: 16, width: 16}
nodes: {a: {block: conv2d, width: 4}, p: POOL, h: {block: classifier, classes: 5}}
flow: a -> p -> h
"""


@pytest.mark.parametrize(
    ("pool", "least"),
    [
        ("{block: max_pool, kernel_size: 2}", 4),
        ("{block: max_pool, kernel_size: 3, stride: 2, ceil_mode: true}", 4),
        ("{block: subsample, stride: 3, start: 1}", 5),
        ("{block: conv2d, width: 4, kernel_size: 4, stride: 4, padding: 0}", 8),
        ("{block: adaptive_avg_pool, size: 3}", 2),
    ],
    ids=["max pool", "ceil", "subsample", "patches", "adaptive"],
)
def test_programs_accept_all_sizes_at_which_no_map_is_one_pixel(pool: str, least: int, tmp_path: Path) -> None:
    network = hrg.loads(POOLED.replace("POOL", pool))
    program, messages = exported(network, tmp_path / "net.pt2")
    assert messages == ([f"Height and width of the inputs must be at least {least}."] if least > 2 else [])
    for height, width in ((least, least), (least, 33), (17, 24)):
        assert_equal(program, network, height, width)
    if least == 2:
        return
    with pytest.raises(AssertionError, match=rf"input\.size\(\)\[3\] >= {least}"):
        program(torch.zeros(3, 3, least, least - 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes", "least"),
    [
        ("resnet18", {"stage*.width": 4, "input.height": 32, "input.width": 32}, 33),  # at 32, stage 4 has one pixel
        ("vgg16", {"stage*.width": 4, "hidden": 8, "input.height": 64, "input.width": 64}, 64),
    ],
)
def test_programs_of_deep_networks(name: str, changes: dict[str, Any], least: int, tmp_path: Path) -> None:
    network = hrg.load(name).override(changes)
    program, messages = exported(network, tmp_path / "net.pt2")
    assert messages == [f"Height and width of the inputs must be at least {least}."]
    for height, width in ((least, least), (96, 70)):
        assert_equal(program, network, height, width)


@pytest.mark.parametrize("size", ["3", "[1, 2]"])
def test_onnx_files_keep_the_windows_of_pooling_to_several_pixels(size: str, tmp_path: Path) -> None:
    network = hrg.loads(POOLED.replace("POOL", f"{{block: adaptive_avg_pool, size: {size}}}"))
    with pytest.raises(UsageError, match=r"keeps the windows of 'p' \(avg pool to .*\) for .* 4x16x16\. Write a \.pt2"):
        network.export(tmp_path / "net.onnx", dynamic="hw")
    assert not (tmp_path / "net.onnx").exists()
    exported(network, tmp_path / "net.pt2")


def test_onnx_files_may_pool_maps_of_a_fixed_size_and_to_one_pixel(tmp_path: Path) -> None:
    text = POOLED.replace("p: POOL", "r: {block: resize, size: 9}, q: {block: adaptive_avg_pool, size: 3}").replace(
        "a -> p", "a -> r -> q"
    )
    program, messages = exported(hrg.loads(text), tmp_path / "net.onnx")
    assert messages == []
    for height, width in ((16, 16), (21, 34), (8, 5)):
        assert_equal(program, hrg.loads(text), height, width)


SMALL = {"input.height": 64, "input.width": 96}


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("hiresnet18", {}, SizeRange(4, (8, 8), (32, 32))),
        ("hiresnet18", {"input.height": 4, "input.width": 8}, SizeRange(4, (8, 8), (8, 16))),
        ("resnet50", SMALL, SizeRange(1, (33, 33), (64, 96))),
        ("resnet50", {"stem.stride": [2, 1], **SMALL}, SizeRange(1, (33, 17), (64, 96))),
        ("unet", {}, SizeRange(8, (16, 16), (64, 64))),
        ("frnn2", {}, SizeRange(2, (4, 4), (32, 32))),
        ("vgg16", {}, SizeRange(1, (64, 64), (224, 224))),
        ("blt", {}, SizeRange(8, (16, 16), (32, 32))),
    ],
)
def test_ranges_of_sizes(name: str, changes: dict[str, Any], expected: SizeRange) -> None:
    assert size_range(hrg.load(name).override(changes).plan) == expected


def test_vgg_has_no_other_sizes_in_onnx_files() -> None:
    with pytest.raises(UsageError, match=r"keeps the windows of '.*pool' "):
        size_range(hrg.load("vgg16").plan, onnx=True)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (SizeRange(1, (2, 2), (8, 8)), ""),
        (SizeRange(1, (5, 5), (8, 8)), "Height and width of the inputs must be at least 5."),
        (SizeRange(4, (4, 4), (8, 8)), "Height and width of the inputs must be multiples of 4."),
        (SizeRange(4, (8, 4), (8, 8)), "Height and width of the inputs must be multiples of 4, at least 8 and 4."),
    ],
)
def test_descriptions_of_ranges(found: SizeRange, text: str) -> None:
    assert found.describe() == text


FLAT = """
name: flat
input: {channels: 3, height: 8, width: 8}
nodes: {a: {block: conv, width: 4}, b: flatten, c: {block: linear, width: 3}}
flow: a -> b -> c
"""
STRIDED = """
name: strided
input: {channels: 3, height: 32, width: 32}
nodes: {a: {block: conv2d, width: 4, kernel_size: 32, stride: 32, padding: 0}, b: flatten, c: {block: linear, width: 3}}
flow: a -> b -> c
"""
VECTOR = """
name: vector
input: {channels: 3}
nodes: {c: {block: linear, width: 3}}
flow: c
"""
TWO = """
name: two
input: {left: {channels: 3, height: 8, width: 8}, right: {channels: 3, height: 4, width: 4}}
nodes: {a: {block: conv, width: 4}, c: {block: classifier, classes: 3}}
flow: left -> a -> c
edges: [{from: right, to: a, projection: {spatial: nearest}}]
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FLAT, r"height and width cannot be dynamic: 'c' \(linear\) is made for a vector of 256\. Omit 'dyn"),
        (STRIDED, r"'c' \(linear\) is made for a vector of 4\."),
        (VECTOR, "have no height and width"),
        (TWO, "differ in height and width"),
    ],
    ids=["flattened", "large strides", "vector", "two sizes"],
)
def test_networks_made_for_one_size_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        hrg.loads(text).export(tmp_path / "net.pt2", dynamic="hw")
    assert not (tmp_path / "net.pt2").exists()


def test_formats_without_weights_have_no_form() -> None:
    network = hrg.load("hiresnet18")
    with pytest.raises(UsageError, match=r"'dynamic' does not apply to \.py files\. Omit it, or"):
        network.export("net.py", dynamic="hw")
    with pytest.raises(UsageError, match=r"'inference' does not apply to \.json files"):
        network.export("net.json", inference=True)
