"""Emitted source: bitwise equal outputs and the same `state_dict` as other lowerings, and readable text."""

from __future__ import annotations

import ast
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import hiresnet_graph as hrg
from hiresnet_graph.blocks import BLOCKS, Block
from hiresnet_graph.emit import emit
from hiresnet_graph.errors import SpecError, UsageError
from hiresnet_graph.identifiers import class_name
from hiresnet_graph.lower import build, interpret
from hiresnet_graph.ops import OPS, Apply, Arg, Layer, Op
from hiresnet_graph.plan import Plan
from hiresnet_graph.shapes import Shape
from hiresnet_graph.shipped import spec_names
from hiresnet_graph.wire import Wire
from tests.recurrent.graphs import make


def load_source(text: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(text, "model.py", "exec"), names)
    return names


def values(output: torch.Tensor | dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return output if isinstance(output, dict) else {"": output}


def assert_equal_tensors(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def assert_same(plan: Plan) -> str:
    """Interpreter, fx module and emitted source have equal outputs and running statistics, in both modes."""
    text = emit(plan)
    assert emit(plan) == text
    emitted: nn.Module = load_source(text)[class_name(plan.name)]()
    built, reference = build(plan, 1), build(plan, 1)
    assert list(emitted.state_dict()) == list(built.state_dict())
    emitted.load_state_dict(built.state_dict())
    built.load_state_dict(emitted.state_dict())
    torch.manual_seed(0)
    inputs = [torch.randn(2, *shape) for shape in plan.inputs.values()]
    for training in (True, False):
        outputs = []
        for module in (emitted, built, reference):
            module.train(training)
            torch.manual_seed(1)
            with torch.no_grad():
                run = interpret(plan, module, *inputs) if module is reference else module(*inputs)
            outputs.append(values(run))
        assert_equal_tensors(outputs[0], outputs[1])
        assert_equal_tensors(outputs[0], outputs[2])
        assert_equal_tensors(emitted.state_dict(), built.state_dict())
        assert_equal_tensors(emitted.state_dict(), reference.state_dict())
    return text


def assert_well_written(text: str) -> None:
    ruff = [sys.executable, "-m", "ruff"]
    options = ["--isolated", "--line-length", "120", "--stdin-filename", "model.py", "-"]
    for command in (["check", "--select", "E,F,I"], ["format", "--diff"]):
        done = subprocess.run([*ruff, *command, *options], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    imported = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports(text)}
    assert imported <= {"torch", "torch.nn"}


def imports(text: str) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]


def network(nodes: str, flow: str, more: str = "", size: int = 8) -> hrg.Architecture:
    shape = f"{{channels: 8, height: {size}, width: {size}}}"
    return hrg.loads(f"name: net\ninput: {shape}\nnodes:\n{nodes}\nflow: {flow}\n{more}")


# The shipped specs


def small(name: str) -> hrg.Architecture:
    """A shipped spec, with a smaller input if it is for large images."""
    architecture = hrg.load(name)
    (shape,) = architecture.plan.inputs.values()
    if max(shape.spatial, default=0) < 224:
        return architecture
    own_size = "size" in architecture.tree.get("params", {})  # then the shapes of states depend on it
    return architecture.override({"size": 64} if own_size else {"input.height": 64, "input.width": 64})


LARGE = {"vgg16", "wide_resnet50_2", "resnet101", "densenet121"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in spec_names()]
)
def test_shipped_specs_give_equal_bits(name: str) -> None:
    assert_well_written(assert_same(small(name).plan))


@pytest.mark.parametrize("name", sorted(LARGE))
def test_large_specs_are_well_written(name: str) -> None:
    assert_well_written(emit(hrg.load(name).plan))


def test_variants_of_hiresnet18_give_equal_bits() -> None:
    for variant in ("original", "in", "out", "p1"):
        assert_same(hrg.load("hiresnet18").variant(variant).plan)
    for block in ("plain", "resnext", "preact_basic", "bottleneck"):
        assert_same(hrg.load("hiresnet18").override({"block": block}).variant("full").plan)


# Every kind

VECTOR_ONLY = {"linear", "to_map"}


def kind_network(kind: str, fields: Mapping[str, Any], height: int = 7) -> hrg.Architecture:
    """A network of one node, after a flattening if the height is 1."""
    nodes: dict[str, Any] = {"f": "flatten"} if height == 1 else {}
    nodes["a"] = {"block": kind, **fields}
    shape = {"channels": 8, "height": height, "width": 9 if height > 1 else 1}
    return hrg.from_dict({"name": "net", "input": shape, "nodes": nodes, "flow": " -> ".join(["input", *nodes])})


@pytest.mark.parametrize("kind", [kind for kind in BLOCKS if kind not in OPS])
def test_blocks_give_equal_bits(kind: str) -> None:
    for example in BLOCKS.get(kind).examples:
        text = assert_same(kind_network(kind, example).plan)
        assert_well_written(text)
        if example.get("width") == 8:
            assert_well_written(assert_same(kind_network(kind, {**example, "depth": 3}).plan))


@pytest.mark.parametrize("kind", sorted(set(OPS) - VECTOR_ONLY))
def test_operations_give_equal_bits(kind: str) -> None:
    for example in OPS.get(kind).examples:
        assert_well_written(assert_same(kind_network(kind, example).plan))


@pytest.mark.parametrize("kind", ["affine", "linear", "to_map", "batch_norm", "layer_norm", "scale"])
def test_operations_on_vectors_give_equal_bits(kind: str) -> None:
    assert_well_written(assert_same(kind_network(kind, OPS.get(kind).examples[-1], height=1).plan))


# Special cases

CELL = """
blocks:
  cell:
    params: {width: 8}
    nodes:
      a: {block: conv, width: $width}
      b: {block: basic, width: $width}
      out: {block: identity, merge: concat}
    flow: input -> a -> b -> out
    edges: [{from: input, to: out, block: conv, width: 4}, {from: a, to: out}]
  twice:
    params: {width: 8}
    nodes: {one: {block: cell, width: $width}, fit: {block: conv2d, width: $width, kernel_size: 1}}
    flow: one -> fit
"""
CASES = {
    "shared weights with another stride": network(
        "  a: {block: conv, width: 8, weights: w}\n  b: {block: conv, width: 8, stride: 2, weights: w}",
        "input -> a -> b",
    ),
    "shared weights, called alike": network(
        "  a: {block: conv, width: 8, weights: w}\n  b: {block: conv, width: 8, weights: w}", "input -> a -> b"
    ),
    "shared weights at another size": network(
        "  a: {block: basic, width: 8, weights: w}\n  p: {block: pool}\n  b: {block: basic, width: 8, weights: w}",
        "input -> a -> p -> b",
    ),
    "weights below other weights": network(
        "  a: {block: conv, width: 8, weights: w}\n  b: {block: conv2d, width: 8, weights: w}", "input -> a -> b"
    ),
    "tied stage": network("  s: {block: bottleneck, width: 8, depth: 3, weights: shared}", "input -> s"),
    "tied stage with one set of norms": network(
        "  s: {block: basic, width: 8, depth: 3, weights: shared, per_step: none}", "input -> s"
    ),
    "tied stage with a stride": network(
        "  s: {block: bottleneck, width: 8, stride: 2, depth: 2, weights: shared, shortcut: {when: always}}",
        "input -> s",
    ),
    "nested blocks": network(
        "  s: {block: twice, depth: 2}\n  t: {block: twice, width: 12}\n  h: {block: classifier, classes: 2}",
        "input -> s -> t -> h",
        CELL,
    ),
    "nested blocks with shared weights": network(
        "  s: {block: twice, weights: w}\n  t: {block: twice, weights: w}", "input -> s -> t", CELL
    ),
    "edges with blocks": network(
        "  a: {block: conv, width: 8}\n  b: {block: basic, width: 8}\n  c: {block: plain, width: 8}",
        "input -> a -> b -> c",
        CELL
        + """
edges:
  - {from: a, to: c, slot: output, block: basic, width: 8}
  - {from: a, to: b, slot: residual, block: basic, width: 8}
  - {from: input, to: c, slot: residual, block: cell, projection: {spatial: avg}}
""",
    ),
    "gates": network(
        "  g: sigmoid\n  a: {block: conv, width: 8}\n  b: {block: basic, width: 8}\n  c: {block: basic, width: 8}",
        "[input -> a -> b -> c, input -> g]",
        """
edges:
  - {from: a, to: c, slot: output, gate: g}
  - {from: a, to: b, slot: residual, gate: g, block: conv, width: 8}
""",
    ),
    "weighted, gated and mean": network(
        "  a: {block: conv, width: 8}\n  b: {block: basic, width: 12, stride: 2}\n  c: {block: basic, width: 8}\n"
        "  d: {block: conv, width: 8}",
        "input -> a -> b -> c -> d",
        """
edges:
  - {from: a, to: b, slot: output, merge: weighted, projection: {spatial: avg}}
  - {from: a, to: c, slot: output, merge: gated, projection: {spatial: avg}}
  - {from: b, to: c, slot: output, merge: gated, projection: {spatial: avg}}
  - {from: a, to: d, slot: output, merge: mean, projection: {spatial: max}}
  - {from: b, to: d, slot: output, merge: mean, projection: {spatial: max}}
""",
    ),
    "scales of edges": network(
        "  a: {block: conv, width: 8}\n  b: {block: basic, width: 8}\n  c: {block: basic, width: 8}\n  g: sigmoid",
        "[input -> a -> b -> c, a -> g]",
        """
edges:
  - {from: input, to: b, slot: residual, scale: learned, projection: {channels: pad}}
  - {from: input, to: c, slot: output, scale: {init: 0.25}, projection: {channels: pad}}
  - {from: a, to: c, slot: output, scale: {gate: true, init: -2}}
  - {from: a, to: b, slot: output, scale: -0.5, gate: g}
  - {from: a, to: c, slot: residual, scale: gate, name: other}
outputs: c
""",
    ),
    "concat": network(
        "  a: {block: conv, width: 8}\n  b: {block: conv, width: 4}\n  c: {block: conv, width: 4}",
        "input -> a -> b -> c",
        "skips: {levels: [input, a, b, c], edges: full - p1, merge: concat}",
    ),
    "multiply": network(
        "  a: {block: conv, width: 8}\n  b: {block: conv, width: 8}",
        "input -> a -> b",
        "edges: [{from: input, to: b, slot: output, merge: multiply}]",
    ),
    "edge from inside a block": network(
        "  a: {block: basic, width: 8}\n  b: {block: conv, width: 8}",
        "input -> a -> b",
        "edges: [{from: a.conv1, to: b, slot: output}]",
    ),
    "edges that pool one value alike": network(
        "  a: {block: conv, width: 8}\n  b: {block: conv, width: 12, stride: 2}\n  c: {block: conv, width: 16}",
        "input -> a -> b -> c",
        "skips: {levels: [a, b, c], edges: full}",
    ),
    "edges in groups": network(
        "  a: {block: conv, width: 8}\n  b: {block: conv, width: 8}\n  c: {block: conv, width: 8}",
        "input -> a -> b -> c",
        """
skips:
  near: {levels: [a, b, c], edges: p1, projection: {when: always}}
  far: {levels: [a, b, c], edges: p2, projection: {when: always}}
""",
    ),
    "names of methods": network(
        "  a: {block: conv, width: 8}\n  b: {block: conv, width: 8}\n  pop: {block: conv, width: 8}",
        "input -> a -> b -> pop",
        """
edges:
  - {from: a, to: b, slot: output, name: update, projection: {when: always}}
  - {from: a, to: pop, slot: output, name: keys, projection: {when: always}}
""",
    ),
    "names that Python uses": network(
        "  F: {block: conv, width: 8}\n  nn: {block: basic, width: 8}\n  x: {block: conv, width: 8}\n"
        "  torch: {block: conv, width: 8}\n  Tensor: {block: conv2d, width: 8}\n  ConvBlock: {block: conv, width: 8}",
        "input -> F -> nn -> x -> torch -> Tensor -> ConvBlock",
        "skips: {levels: [F, nn, x, torch, Tensor, ConvBlock], edges: full}",
    ),
    "dropout on two ways": network(
        "  a: {block: conv, width: 8}\n  d: {block: dropout, p: 0.5}\n"
        "  b: {block: dense_layer, growth: 8, dropout: 0.5}\n"
        "  c: {block: basic, width: 8}\n  e: {block: dropout, p: 0.5}",
        "[input -> a -> b -> c, input -> d -> e]",
        """
edges:
  - {from: a, to: c, slot: residual, block: dropout, p: 0.4}
  - {from: d, to: b, slot: output, block: dropout, p: 0.4, projection: {channels: pad, norm: none}}
  - {from: e, to: c, slot: output}
""",
    ),
    "long sums": network(
        "  a_node_with_a_long_name: {block: conv, width: 8}\n"
        "  another_node_with_a_long_name: {block: conv, width: 8, stride: 2}\n"
        "  the_last_node_with_a_long_name: {block: conv, width: 8, stride: 2}\n"
        "  all_of_the_nodes_in_one_place: {block: conv, width: 8, merge: concat}",
        "input -> a_node_with_a_long_name -> another_node_with_a_long_name -> the_last_node_with_a_long_name -> "
        "all_of_the_nodes_in_one_place",
        """
skips:
  sums:
    levels: [a_node_with_a_long_name, another_node_with_a_long_name, the_last_node_with_a_long_name]
    edges: full
  rows:
    levels: [input, "*_node_with*", all_of_the_nodes_in_one_place]
    edges: in + out - p1
    slot: input
    merge: concat
""",
    ),
    "only an input": network("  a: identity", "input -> a"),
    "several inputs and outputs": hrg.loads(
        """
name: net
input: {left: {channels: 2, height: 8, width: 8}, right: {channels: 3, height: 4, width: 4}, F: {channels: 4}}
nodes:
  a: {block: conv, width: 4}
  b: {block: conv, width: 4}
  c: {block: basic, width: 4}
  d: {block: linear, width: 4}
  m: to_map
  one: {block: classifier, classes: 3}
  two: {block: classifier, classes: 2}
flow: [left -> a -> c -> one, right -> b, c -> two, F -> d -> m]
edges:
  - {from: b, to: c, merge: concat, projection: {spatial: nearest, channels: none, norm: none}}
  - {from: m, to: c, slot: output, merge: multiply}
outputs: [one, two, c]
"""
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_cases_give_equal_bits(case: str) -> None:
    assert_well_written(assert_same(CASES[case].plan))


@pytest.mark.parametrize("seed", range(40))
def test_random_specs_give_equal_bits(seed: int) -> None:
    plan = None
    draw = random.Random(seed)
    while plan is None:
        try:
            plan = hrg.loads(random_spec(draw)).plan
        except SpecError:
            continue
    assert_same(plan)


def random_spec(draw: random.Random) -> str:
    """A chain of nodes with all kinds of edges; not every such spec is valid."""
    kinds = ["basic", "plain", "preact_basic", "mbconv", "conv", "cell", "twice", "dense_layer", "dropout", "conv2d"]
    merges = ["add", "mean", "weighted", "gated", "concat", "multiply"]
    names = [f"n{k}" for k in range(draw.randint(2, 5))]
    nodes: dict[str, Any] = {}
    for name in names:
        kind = draw.choice(kinds)
        node: dict[str, Any] = {"block": kind}
        if kind == "dense_layer":
            node |= {"growth": 4, "dropout": draw.choice([0, 0.3])}
        elif kind != "dropout":
            node |= {"width": draw.choice([8, 8, 8, 12])}
        if kind != "dropout" and draw.random() < 0.4:
            node |= {"depth": draw.randint(1, 3), **({"weights": "shared"} if draw.random() < 0.3 else {})}
        elif kind != "dropout" and draw.random() < 0.3:
            node["weights"] = draw.choice(["w1", "w2"])
        if kind in ("basic", "plain", "preact_basic", "mbconv", "conv") and draw.random() < 0.3:
            node["stride"] = 2
        nodes[name] = node
    edges = []
    merge_at: dict[tuple[str, str], str] = {}
    for k in range(draw.randint(0, 6)):
        source, target = sorted(draw.sample(range(-1, len(names)), 2))
        slot = draw.choice(["input", "output", "output", "residual"])
        merge = merge_at.setdefault((names[target], slot), draw.choice(merges))
        edge: dict[str, Any] = {"from": "input" if source < 0 else names[source], "to": names[target], "slot": slot}
        edge |= {"merge": merge, "name": f"e{k}", "projection": {"spatial": draw.choice(["avg", "stride", "adaptive"])}}
        if merge == "concat":
            edge["projection"] |= {"channels": "none"}
        if source >= 0 and draw.random() < 0.2:
            edge["from"] += draw.choice([".conv", ".conv1", ".norm1", ".a.conv"])
        if draw.random() < 0.3:
            block = draw.choice(["conv", "basic", "cell", "dropout"])
            edge |= {"block": block, **({} if block == "dropout" else {"width": 8})}
        edges.append(edge)
    spec = {
        "name": "random",
        "input": {"channels": 8, "height": 8, "width": 8},
        "nodes": {**nodes, "head": {"block": "classifier", "classes": 3}},
        "flow": " -> ".join(["input", *names, "head"]),
        "edges": edges,
    }
    return "\n".join(f"{key}: {json.dumps(value)}" for key, value in spec.items()) + CELL


# Networks in time

STATES = """
name: net
input: {channels: 2, height: 8, width: 8}
nodes:
  pre: {block: conv, width: 4}
  s1: {block: state, shape: [4, 8, 8]}
  s2: {block: state, shape: [6, 4, 4]}
  post: {block: classifier, classes: 3}
flow: [pre -> s1, s2 -> post]
transitions:
  s1: {s1: {block: brc2, identity: true}, s2: brc2}
  s2: {s1: brd2, s2: {block: brc2, identity: true}}
time: {steps: 5, input: first}
"""


def timed(changes: str = "", **time: Any) -> hrg.Architecture:
    """Two states with other fields of `time`, and with changes (a variant in YAML)."""
    net = hrg.loads(STATES + f"variants: {{v: {{{changes}}}}}\n").variant("v")
    return net.override({f"time.{key}": value for key, value in time.items()})


IN_TIME = {
    "several steps": timed(),
    "one step": hrg.loads("name: net\ninput: {channels: 2, height: 8, width: 8}\nnodes: {a: relu}\ntime: {steps: 1}"),
    "a sequence, read at all steps": timed(input="sequence", readout="all"),
    "a series of vectors": hrg.loads(
        """
name: net
input: {channels: 4}
nodes: {h: {block: state, shape: [4]}, norm: batch_norm, out: {block: linear, width: 2}}
flow: input -> h -> norm -> out
transitions: {h: {h: {block: linear, width: 4}}}
time: {steps: 4, input: sequence, readout: all, per_step: norm_stats}
"""
    ),
    "zeros": timed(empty="zeros", input="every"),
    "no copies": timed(per_step="none"),
    "statistics apart": timed(per_step="norm_stats", input="every"),
    "all weights apart": timed(per_step="all"),
    "scaled norms": timed(norm_scale=0.1),
    "a readout before the end": timed(steps=9, readout=6),
    "copies of some": timed(
        "transitions: {s1: {s1: {per_step: all}, s2: {per_step: none}}, s2: {s1: {per_step: norm_stats}}}"
    ),
    "windows": timed("transitions: {s1: {s1: {at: [1, 3]}, s2: {at: [2, 4]}}, s2: {s1: null}}"),
    "long delays": timed("transitions: {s1: {s1: {delay: 2}}}", steps=6, input="every"),
    "weights shared by transitions": timed(
        "nodes: {s2: {shape: [4, 8, 8]}}, "
        "transitions: {s1: {s1: {weights: own}}, s2: {s1: {block: brc2}, s2: {weights: own}}}"
    ),
    "residual blocks with copies": timed(
        "nodes: {mid: {block: basic, width: 8, depth: 2, stride: 2}}, flow: [pre -> s1, s2 -> mid -> post]",
        readout="all",
    ),
    "a tied stage": timed(
        "nodes: {mid: {block: basic, width: 6, depth: 2, weights: shared}}, flow: [pre -> s1, s2 -> mid -> post]",
        readout="all",
    ),
    "time in a block": hrg.loads(
        """
name: net
input: {channels: 4, height: 8, width: 8}
blocks:
  loop:
    nodes: {c: {block: conv, width: 4}}
    edges: [{from: c, to: c, delay: 1}]
    time: {steps: 3, per_step: norm_stats, empty: zeros}
nodes: {a: {block: loop, depth: 2}, b: loop, head: {block: classifier, classes: 2}}
flow: input -> a -> b -> head
edges: [{from: b, to: b, delay: 1}]
time: {steps: 3, per_step: norm}
"""
    ),
    "gates and weighted sums": timed(
        """nodes: {pool: {block: adaptive_avg_pool}, g: {block: conv, width: 4, kernel_size: 1, norm: none}},
        flow: [pre -> s1, s2 -> post, pre -> pool -> g],
        transitions: {s1: {s1: {merge: weighted, gate: g}}}""",
        input="every",
    ),
    "scales of transitions": timed(
        "transitions: {s1: {s1: {scale: {init: 0.5}, per_step: all}, s2: {scale: gate}}, s2: {s1: {scale: 0.5}}}",
        input="every",
    ),
    "concatenation with zeros for what is not there": hrg.loads(
        """
name: net
input: {channels: 2, height: 4, width: 4}
nodes: {a: {block: conv, width: 4}, b: {block: conv, width: 4}, c: {block: conv, width: 4, merge: concat}}
flow: [input -> a -> b -> c]
edges: [{from: a, to: c, delay: 1, projection: {norm: none}}, {from: c, to: a, delay: 1, slot: output}]
time: {steps: 4, readout: all}
"""
    ),
}


@pytest.mark.parametrize("case", IN_TIME)
def test_networks_in_time_give_equal_bits(case: str) -> None:
    assert_well_written(assert_same(IN_TIME[case].plan))


@pytest.mark.parametrize("seed", range(5000, 5040))
def test_random_networks_in_time_give_equal_bits(seed: int) -> None:
    text = assert_same(make(seed).arch.plan)
    if seed % 4 == 0:
        assert_well_written(text)


def test_the_source_of_a_network_in_time_is_readable() -> None:
    text = emit(IN_TIME["several steps"].plan)
    assert text.startswith('"""net: 2,173 parameters, 151,506 multiply-adds for one sample in 5 steps.')
    assert (
        """
        self.norm1 = nn.ModuleDict({f"step{t}": nn.BatchNorm2d(channels) for t in steps})
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
"""
        in text
    )
    assert (
        """
    def forward(self, x: Tensor, step: int) -> Tensor:
        out = F.relu(self.norm1[f"step{step}"](x))
        out = F.relu(self.norm2[f"step{step}"](self.conv1(out)))
        return self.conv2(out) + x
"""
        in text
    )
    assert (
        """
    def forward(self, x: Tensor) -> Tensor:
        # step 0
        pre = self.pre(x, step=0)
        # step 1
        s1_step1 = self.edges["s1__s1"](pre, step=1)
        s2_step1 = self.edges["s1__s2"](pre, step=1)
        # step 2
        s1_step2 = self.edges["s1__s1"](s1_step1, step=2) + self.edges["s2__s1"](s2_step1, step=2)
        s2_step2 = self.edges["s1__s2"](s1_step1, step=2) + self.edges["s2__s2"](s2_step1, step=2)
"""
        in text
    )


def test_copies_of_one_layer_are_written_in_one_line() -> None:
    text = emit(timed(per_step="norm_stats").plan)
    assert "        self.norm1 = Affine(channels)\n" in text
    copies = '{f"step{t}": nn.BatchNorm2d(channels, affine=False) for t in steps}'
    assert f"        self.norm1.stats = nn.ModuleDict({copies})\n" in text
    assert '        out = F.relu(self.norm1(self.norm1.stats[f"step{step}"](x)))\n' in text
    assert 'edges["s1__s1"] = BRC2Block(4, steps=range(1, 4))' in text


def test_each_step_adds_the_same_lines_to_the_source() -> None:
    lines = {steps: emit(timed(steps=steps).plan).count("\n") for steps in (20, 50, 80)}
    assert lines[80] - lines[50] == lines[50] - lines[20] <= 30 * 9


@pytest.mark.parametrize("case", ["several steps", "statistics apart", "a sequence, read at all steps", "zeros"])
def test_the_source_of_a_network_in_time_traces_compiles_and_exports(case: str) -> None:
    plan = IN_TIME[case].plan
    module = load_source(emit(plan))["Net"]().eval()
    inputs = tuple(torch.randn(2, *shape) for shape in plan.inputs.values())
    ways: list[Any] = [
        torch.fx.symbolic_trace(module),
        torch.export.export(module, inputs).module(),
        torch.compile(module, fullgraph=True, backend="eager"),
        torch.fx.symbolic_trace(build(plan).eval()),
    ]
    ways[-1].load_state_dict(module.state_dict())
    with torch.no_grad():
        expected = module(*inputs)
        for way in ways:
            assert torch.equal(way(*inputs), expected)


def test_initial_scales_are_written() -> None:
    nodes = (
        "  a: {block: conv, width: 8}\n  b: {block: batch_norm, scale: 0}\n  c: {block: batch_norm, scale: 0}\n"
        "  d: {block: group_norm, scale: 0.5}\n  e: {block: batch_norm, affine: false}\n"
        "  f: {block: conv, width: 8}\n  g: {block: affine, scale: 0.25}"
    )
    plain = network(nodes, "input -> a -> b -> c -> d -> e -> f -> g").plan
    for plan in (plain, *(timed(norm_scale=0.1, per_step=copies).plan for copies in ("norm", "norm_stats"))):
        emitted, built = load_source(emit(plan))["Net"]().state_dict(), build(plan).state_dict()
        fixed = [name for name, value in built.items() if value.dim() == 1 and "linear" not in name]
        assert len(fixed) > 6
        assert_equal_tensors({name: emitted[name] for name in fixed}, {name: built[name] for name in fixed})


# The text


def test_the_source_of_hiresnet18_is_readable() -> None:
    text = emit(hrg.load("hiresnet18").variant("full").plan)
    assert text.startswith('"""hiresnet18: 273,466 parameters, 36,618,880 multiply-adds for one sample.\n')
    classes = [node.name for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    assert sorted(classes) == [
        "BasicBlock",
        "ClassifierBlock",
        "ConvBlock",
        "ConvNormShortcut",
        "Hiresnet18",
        "NormShortcut",
        "Projection",
    ]
    assert (
        """
    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        return F.relu(out + self.shortcut(x))
"""
        in text
    )
    assert (
        """
        self.stage2["block1"] = BasicBlock(16, 32, stride=2, shortcut=ConvNormShortcut(16, 32))
        self.stage2["block2"] = BasicBlock(32, 32)
"""
        in text
    )
    assert (
        """
        x = self.stage2["block1"](stage1)
        x = self.stage2["block2"](x)
        stage2 = self.stage2["block3"](x) + self.edges["stage1__stage2"](stage1) + self.edges["stem__stage2"](stem)
"""
        in text
    )


def test_blocks_of_one_form_share_a_class() -> None:
    text = emit(hrg.load("resnet110").plan)
    assert text.count("class BasicBlock") == 1
    assert text.count("BasicBlock(64, 64)") == 17


def test_shared_weights_are_created_once() -> None:
    text = emit(CASES["shared weights at another size"].plan)
    assert text.count("BasicBlock(8)") == 1
    assert text.count("self.w(") == 2


def test_layers_of_the_package_are_copied_once() -> None:
    text = emit(CASES["weighted, gated and mean"].plan)
    assert text.count("class Scale(nn.Module):") == 1
    assert "hiresnet_graph" not in text


PLUGIN = """
from torch import Tensor, nn
from torch.nn import functional as F


def softly(x: Tensor, beta: float) -> Tensor:
    return F.softplus(x, beta)


class Offset(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x) + self.channels
"""


class Softly(Op):
    """A function of a plug-in."""

    kind: ClassVar[str] = "softly"
    part: ClassVar[str] = "softly"
    module: ClassVar[str] = "hrg_test_plugin"

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0]

    def apply(self, *inputs: Shape) -> Apply:
        return Apply(f"{self.module}.softly", (Arg(0),), {"beta": 2.0})


class Offset(Softly):
    """A layer of a plug-in."""

    kind: ClassVar[str] = "offset"
    part: ClassVar[str] = "offset"
    pure: ClassVar[bool] = False

    def layer(self, *inputs: Shape) -> Layer:
        return Layer(f"{self.module}.Offset", (inputs[0].channels,))


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "hrg_test_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    for kind in (Softly, Offset):
        OPS.register(kind)
    yield
    for kind in (Softly, Offset):
        OPS.discard(kind.kind)
    sys.modules.pop("hrg_test_plugin", None)


@pytest.mark.usefixtures("plugin")
def test_layers_of_a_plugin_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = network("  a: softly\n  b: offset\n  c: offset", "input -> a -> b -> c").plan
    text = assert_same(plan)
    assert_well_written(text)
    assert text.count("def softly") == text.count("class Offset") == 1
    monkeypatch.setattr(Softly, "module", "__main__")
    with pytest.raises(UsageError, match=r"the source of '__main__\.softly'"):
        emit(plan)


class DroppedBlock(Block):
    """A convolution with dropout before edges arrive."""

    kind: ClassVar[str] = "dropped"
    slots: ClassVar[tuple[str, ...]] = ("input", "residual", "output")

    def expand(self, x: Wire) -> Wire:
        return x.conv2d(8, 3).dropout(0.5).join("residual").activation("relu")


@pytest.fixture
def dropped() -> Iterator[None]:
    BLOCKS.register(DroppedBlock)
    yield
    BLOCKS.discard(DroppedBlock.kind)


@pytest.mark.usefixtures("dropped")
@pytest.mark.parametrize("edge", ["block: dropout, p: 0.4", "block: dense_layer, growth: 4, dropout: 0.4"])
def test_the_source_draws_dropouts_in_the_order_of_the_plan(edge: str) -> None:
    """That of the block comes first, although a call of the block as one piece would follow the edge."""
    fit = ", projection: {channels: slice, norm: none}" if "growth" in edge else ""
    edges = f"edges: [{{from: a, to: b, slot: residual, {edge}{fit}}}, {{from: a, to: c, slot: residual, {edge}{fit}}}]"
    plan = network("  a: {block: conv, width: 8}\n  b: dropped\n  c: dropped", "input -> a -> b -> c", edges).plan
    drawn = [call.owner for call in plan.calls if call.op.kind == "dropout"]
    assert drawn == ["b", "edges.a__b", "c", "edges.a__c"]
    assert_well_written(assert_same(plan))


@pytest.mark.parametrize(
    "name", ["scale", "f", "nn", "tensor", "none", "true", "conv block", "3d", "a²", 'a "b" \\ c\n"""', "x" * 300]
)
def test_a_network_can_have_any_name(name: str) -> None:
    plan = replace(CASES["weighted, gated and mean"].plan, name=name)
    text = emit(plan)
    ast.parse(text)
    module = next(value for key, value in reversed(load_source(text).items()) if isinstance(value, type))()
    assert set(module.state_dict()) == set(build(plan).state_dict())


def test_initial_weights_have_the_same_distributions() -> None:
    plan = network(
        "  a: {block: conv, width: 64, norm: none}\n  b: {block: conv, width: 64, groups: 4}\n"
        "  u: {block: upsample, mode: deconv, width: 32}\n  h: {block: classifier, classes: 400}",
        "input -> a -> b -> u -> h",
    ).plan
    torch.manual_seed(0)
    emitted = load_source(emit(plan))["Net"]().state_dict()
    for name, value in build(plan).state_dict().items():
        if value.is_floating_point():
            assert emitted[name].std().item() == pytest.approx(value.std().item(), rel=0.2, nan_ok=True), name
            assert emitted[name].abs().max().item() == pytest.approx(value.abs().max().item(), rel=0.35), name


def test_emitting_does_not_import_torch() -> None:
    program = """
import sys
import hiresnet_graph as hrg
assert "class Scale" in hrg.load("hiresnet18").override({"skips.merge": "weighted"}).variant("full").source()
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parent)


@pytest.mark.timeout(120)  # linear in the calls: a second or two
def test_a_stage_of_a_thousand_blocks_compiles() -> None:
    text = emit(network("  s: {block: plain, width: 8, depth: 1000}", "input -> s").plan)
    compile(text, "model.py", "exec")
    assert text.count("PlainBlock(8)") == 1000
