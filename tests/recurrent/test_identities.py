"""Identities of recurrent networks: pairs of specs that define one function."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import hiresnet_graph as hrg
from hiresnet_graph.cost import count_parts
from tests.recurrent.compare import COPY, built, carry, equal, near, near_all, outcome, same, summed, with_copies
from tests.recurrent.graphs import chosen, make
from tests.recurrent.modules import images, scrambled

# A shallow recurrent network is a deep residual one

BLOCKS = 4
ONE_STATE = """
name: one_state
input: {channels: 2, height: 6, width: 5}
nodes:
  pre: {block: conv, width: 4}
  h: {block: state, shape: [4, 6, 5]}
  post: {block: classifier, classes: 3}
flow: [pre -> h, h -> post]
transitions: {h: {h: {block: brc2, identity: true, norm: NORM, per_step: PER_STEP}}}
time: {steps: 5, input: first, empty: skip, per_step: none}
"""
RESIDUAL = """
name: residual
input: {channels: 2, height: 6, width: 5}
nodes:
  pre: {block: conv, width: 4}
  h: {block: preact_basic, width: 4, norm: NORM, depth: 4, weights: shared, per_step: PER_STEP}
  post: {block: classifier, classes: 3}
flow: pre -> h -> post
"""


def residual_name(name: str) -> str:
    """The tensor of the residual network that corresponds to this one of the recurrent network."""
    copy = re.fullmatch(r"edges\.h__h\.(.*?)(\.stats)?\.step(\d+)\.(\w+)", name)
    if copy:
        part, stats, step, tensor = copy.groups()
        return f"h.block{step}.{part}{stats or ''}.{tensor}"
    return name.replace("edges.h__h.", "h.")


@pytest.mark.parametrize("per_step", ["none", "norm_stats", "norm", "all"])
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_one_state_with_identity_is_a_residual_network_with_shared_blocks(norm: str, per_step: str) -> None:
    fields = (("NORM", norm), ("PER_STEP", per_step))
    texts = []
    for text in (ONE_STATE, RESIDUAL):
        for key, value in fields:
            text = text.replace(key, value)
        texts.append(text)
    equal(texts[0], texts[1], residual_name)


def test_without_sharing_one_state_is_a_residual_network() -> None:
    """The blocks of the second share nothing."""
    plain = RESIDUAL.replace(", weights: shared, per_step: PER_STEP", "").replace("NORM", "batch")
    equal(ONE_STATE.replace("NORM", "batch").replace("PER_STEP", "all"), plain, residual_name)


def test_a_residual_network_of_one_repeated_module_in_torch() -> None:
    """The same with a handwritten loop over one module."""
    arch, module = built(ONE_STATE.replace("NORM", "batch").replace("PER_STEP", "none"))
    (x,) = images(arch)
    for training in (True, False):
        module.train(training)

        def loop(held: nn.Module, x: torch.Tensor) -> torch.Tensor:
            part = held.get_submodule
            h = torch.relu(part("pre.norm")(part("pre.conv")(x)))
            for _ in range(BLOCKS):
                inner = part("edges.h__h.conv1")(torch.relu(part("edges.h__h.norm1")(h)))
                h = part("edges.h__h.conv2")(torch.relu(part("edges.h__h.norm2")(inner))) + h
            out: torch.Tensor = part("post.linear")(h.mean((2, 3)))
            return out

        same(outcome(module, (x,)), outcome(module, (x,), loop))


# Sharing in time

UNTIED = chosen(12, lambda sample: "tied stage" not in sample.features, start=1000)


def test_the_gradient_of_a_shared_weight_is_the_sum_over_its_unshared_copies() -> None:
    text = ONE_STATE.replace("NORM", "group")
    unshared, shared = text.replace("PER_STEP", "all"), text.replace("PER_STEP", "none")
    equal(unshared, shared, lambda name: COPY.sub("", name))


@pytest.mark.parametrize("seed", UNTIED)
def test_gradients_of_copies_add_up_on_random_graphs(seed: int) -> None:
    sample = make(seed)
    shared, unshared = with_copies(sample, "none"), with_copies(sample, "all")
    arch, module = built(unshared)
    _, source = built(shared, seed=1)

    def names(name: str) -> str:
        return COPY.sub("", name)

    carry(module, source, names)
    xs = images(arch)
    for training in (True, False):
        module.train(training), source.train(training)
        mine, other = summed(outcome(module, xs), names), outcome(source, xs)
        near(mine.output, other.output, "output")
        near_all(mine.gradients, other.gradients)


# Delays

CHAIN = """
name: chain
input: {channels: 2, height: 6, width: 6}
nodes:
  a: {block: conv, width: 3}
  b: {block: basic, width: 4, stride: 2}
  c: {block: conv, width: 4, bias: true}
  head: {block: classifier, classes: 3}
flow: a -> b -> c -> head
"""


@pytest.mark.parametrize("input_", ["first", "every"])
@pytest.mark.parametrize("empty", ["skip", "zeros"])
def test_a_delayed_chain_read_after_its_delays_is_the_chain(input_: str, empty: str) -> None:
    """a -> b -> c have a delay of one step each, input and output none; running statistics see each layer once."""
    time = f"time: {{steps: 3, delay: 1, input: {input_}, empty: {empty}, per_step: none}}"
    equal(CHAIN + time, CHAIN)


def test_each_edge_may_have_its_own_delay() -> None:
    edges = """
flow: a -> b
edges:
  - {from: b, to: c, delay: 3}
  - {from: c, to: head, delay: 2}
time: {steps: 7, delay: 1, input: first, per_step: none}
"""
    flow = "flow: a -> b -> c -> head\n"
    assert flow in CHAIN
    equal(CHAIN.replace(flow, edges), CHAIN)


def test_the_edges_that_take_the_delay_of_time() -> None:
    """`time.delay` applies to edges between nodes: not from the input, not into the output, not inside a stage."""
    arch = hrg.loads(CHAIN.replace("b: {block: basic,", "b: {block: basic, depth: 2,") + "time: {steps: 3, delay: 1}")
    delays = {(edge.source, edge.target): edge.delay for edge in arch.graph.edges}
    assert delays == {
        ("input", "a"): 0,
        ("a", "b.block1"): 1,
        ("b.block1", "b.block2"): 0,
        ("b.block2", "c"): 1,
        ("c", "head"): 0,
    }


@pytest.mark.parametrize(("delay", "expected"), [("", 1), ("delay: 0, ", 0), ("delay: 2, ", 2)])
def test_a_skip_with_a_delay_does_not_take_that_of_time(delay: str, expected: int) -> None:
    skips = f"skips: {{{delay}levels: [a, b, c], edges: p2, projection: {{norm: none}}}}\n"
    arch = hrg.loads(CHAIN + skips + "time: {steps: 4, delay: 1, input: sequence, per_step: none}")
    assert {edge.name: edge.delay for edge in arch.graph.edges if edge.family == "skip"} == {"edges.a__c": expected}
    reads = {call.name: call.inputs for call in arch.plan.calls}
    assert reads["edges.a__c.pool.step3"] == (f"a.relu.step{3 - expected}",)


def test_a_graph_of_vectors_is_the_recurrent_layer_of_torch() -> None:
    arch, module = built("""
name: elman
input: {channels: 3}
nodes: {h: tanh}
edges:
  - {from: input, to: h, block: linear, width: 5}
  - {from: h, to: h, delay: 1, block: linear, width: 5, bias: false}
outputs: h
time: {steps: 6, input: sequence, readout: all}
""")
    (x,) = images(arch)
    layer = nn.RNN(3, 5, batch_first=True).double()
    held = module.state_dict()
    names = {
        "weight_ih_l0": held["edges.input__h.linear.weight"],
        "bias_ih_l0": held["edges.input__h.linear.bias"],
        "weight_hh_l0": held["edges.h__h.linear.weight"],
        "bias_hh_l0": torch.zeros(5),
    }
    layer.load_state_dict(names)
    near(module(x), layer(x)[0])


# Transitions that change with time

THREE_STATES = """
name: three_states
input: {channels: 2, height: 8, width: 8}
nodes:
  pre: {block: conv, width: 3}
  s1: {block: state, shape: [3, 8, 8]}
  s2: {block: state, shape: [4, 4, 4]}
  s3: {block: state, shape: [6, 2, 2]}
  post: {block: classifier, classes: 3}
flow: [pre -> s1, s3 -> post]
"""


def test_a_constant_matrix_is_a_changing_one_with_shared_weights() -> None:
    constant = """
transitions:
  s1: {s1: {block: brc2, identity: true, weights: k11}, s2: {block: brc2, weights: k12}}
  s2: {s1: {block: brd2, weights: k21}, s3: {block: brc2, weights: k23}}
  s3: {s3: {block: brc2, weights: k33}}
time: {steps: 5, input: every, per_step: PER_STEP}
"""
    in_time = """
transitions:
  s1:
    s1:
      - {block: brc2, identity: true, weights: k11, at: [1, 3], name: odd}
      - {block: brc2, identity: true, weights: k11, at: [2, 4], name: even}
    s2:
      - {block: brc2, weights: k12, at: 1, name: first}
      - {block: brc2, weights: k12, at: [2, 3, 4], name: later}
  s2:
    s1: [{block: brd2, weights: k21, at: [2, 4], name: back1}, {block: brd2, weights: k21, at: 3, name: back2}]
    s3: {block: brc2, weights: k23}
  s3: {s3: [{block: brc2, weights: k33, at: 3, name: x}, {block: brc2, weights: k33, at: 4, name: y}]}
time: {steps: 5, input: every, per_step: PER_STEP}
"""
    for per_step in ("none", "norm_stats", "norm", "all"):
        texts = [THREE_STATES + part.replace("PER_STEP", per_step) for part in (in_time, constant)]
        equal(texts[0], texts[1])


def test_a_residual_network_of_three_stages_is_a_graph_of_three_states_with_windows() -> None:
    windows = """
transitions:
  s1: {s1: {block: brc2, identity: true, at: [1, 2]}, s2: {block: brc2, at: 3}}
  s2: {s2: {block: brc2, identity: true, at: 4}, s3: {block: brc2, at: 5}}
  s3: {s3: {block: brc2, identity: true, at: 6}}
time: {steps: 7, input: first, empty: skip, per_step: norm}
"""
    stages = """
name: three_stages
input: {channels: 2, height: 8, width: 8}
nodes:
  pre: {block: conv, width: 3}
  s1: {block: preact_basic, width: 3, depth: 2, weights: shared, per_step: norm}
  in2: {block: state, shape: [4, 4, 4]}
  s2: {block: preact_basic, width: 4}
  in3: {block: state, shape: [6, 2, 2]}
  s3: {block: preact_basic, width: 6}
  post: {block: classifier, classes: 3}
flow: [pre -> s1, in2 -> s2, in3 -> s3 -> post]
edges:
  - {from: s1, to: in2, block: brc2}
  - {from: s2, to: in3, block: brc2}
"""

    def names(name: str) -> str:
        name = re.sub(r"^edges\.s1__s1\.(\w+)\.step(\d)", r"s1.block\2.\1", name)
        name = name.replace("edges.s1__s1", "s1").replace("edges.s2__s2", "s2").replace("edges.s3__s3", "s3")
        name = name.replace("edges.s1__s2", "edges.s1__in2").replace("edges.s2__s3", "edges.s2__in3")
        return COPY.sub("", name)

    equal(THREE_STATES + windows, stages, names)


# Edges and blocks

SKIPS = """
name: with_skips
input: {channels: 2, height: 8, width: 8}
nodes:
  stem: {block: conv, width: 3}
  stage1: {block: basic, width: 3, depth: 2}
  stage2: {block: basic, width: 4, depth: 2, stride: 2}
  stage3: {block: basic, width: 6, depth: 1, stride: 2}
  head: {block: classifier, classes: 3}
flow: stem -> stage1 -> stage2 -> stage3 -> head
skips: {levels: [stem, stages], edges: full}
"""


@pytest.mark.parametrize("time", ["", "time: {steps: 2, per_step: all}", "time: {steps: 4, delay: 1, per_step: none}"])
def test_without_its_projections_a_hierarchical_network_is_its_base(time: str) -> None:
    """Parameter for parameter: its only other parameters are its projections, and with these at 0 it computes the same.

    (An edge without projection, where shapes agree, is left out: there is nothing to set to 0.)
    """
    full = hrg.loads(SKIPS + time).with_edges("full - stem>stage1")
    base = full.with_edges("none")
    module, other = scrambled(full.build()), scrambled(base.build(), seed=1)
    own = dict(other.named_parameters())
    added = {name: tensor for name, tensor in module.named_parameters() if name not in own}
    assert added and all(name.startswith("edges.") for name in added)
    parts = count_parts(full.plan)
    projections = [parts[edge.name].parameters for edge in full.plan.edges if edge.family == "skip"]
    assert len(projections) == 5 and all(projections)
    assert full.cost().parameters - base.cost().parameters == sum(projections)
    assert sum(projections) == sum(tensor.numel() for tensor in added.values())
    with torch.no_grad():
        for tensor in added.values():
            tensor.zero_()
    carry(other, module, lambda name: name)
    for training in (True, False):
        mine, bare = (outcome(net.train(training), images(full)) for net in (module, other))
        near(mine.output, bare.output)
        near_all({name: mine.gradients[name] for name in bare.gradients}, bare.gradients)


NESTED = """
name: nested
input: {channels: 2, height: 6, width: 6}
blocks:
  cell:
    params: {width: null}
    nodes:
      a: {block: conv, width: $width}
      b: {block: conv, width: $width, kernel_size: 1, norm: none}
      out: {block: identity, merge: add}
    flow: [input -> a -> out, input -> b -> out]
nodes:
  n: {block: cell, width: 3}
  head: {block: classifier, classes: 3}
flow: n -> head
edges: [{from: n, to: n, delay: 2, projection: {norm: batch, channels: conv1x1}}]
time: {steps: 5, input: every, empty: EMPTY, per_step: PER_STEP}
"""
INLINED = """
name: inlined
input: {channels: 2, height: 6, width: 6}
nodes:
  n: identity
  a: {block: conv, width: 3}
  b: {block: conv, width: 3, kernel_size: 1, norm: none}
  out: {block: identity, merge: add}
  head: {block: classifier, classes: 3}
flow: [input -> n -> a -> out -> head, n -> b -> out]
edges: [{from: out, to: n, delay: 2, projection: {norm: batch, channels: conv1x1}}]
time: {steps: 5, input: every, empty: EMPTY, per_step: PER_STEP}
"""


@pytest.mark.parametrize("per_step", ["none", "norm_stats", "norm", "all"])
@pytest.mark.parametrize("empty", ["skip", "zeros"])
def test_a_nested_block_equals_its_definition_written_out(empty: str, per_step: str) -> None:
    texts = [text.replace("EMPTY", empty).replace("PER_STEP", per_step) for text in (NESTED, INLINED)]
    equal(texts[0], texts[1], lambda name: re.sub(r"^n\.", "", name).replace("edges.n__n", "edges.out__n"))


LAYER = """
name: layer
input: {channels: 2, height: 6, width: 6}
blocks:
  recurrent:
    params: {width: null}
    nodes:
      drive: {block: conv2d, width: $width, bias: false}
      held: {block: batch_norm}
      out: relu
      value: identity
    flow: input -> drive -> held -> out -> value
    edges: [{from: out, to: held, delay: 1, block: conv2d, width: $width, bias: false}]
    time: {steps: 3, input: every, per_step: PER_STEP}
nodes:
  one: {block: recurrent, width: 3}
  two: {block: recurrent, width: 4}
  head: {block: classifier, classes: 3}
flow: one -> two -> head
"""


@pytest.mark.parametrize("per_step", ["none", "norm_stats", "norm", "all"])
def test_a_layer_with_its_own_time_equals_a_loop_over_it(per_step: str) -> None:
    """A layer of Liang & Hu's recurrent convolutional network: its steps end before the next layer begins."""
    arch, module = built(LAYER.replace("PER_STEP", per_step))
    (x,) = images(arch)
    assert isinstance(module, torch.fx.GraphModule)

    def loop(held: nn.Module, x: torch.Tensor) -> torch.Tensor:
        part = held.get_submodule

        def norm(name: str, t: int, value: torch.Tensor) -> torch.Tensor:
            if per_step in ("norm", "all"):
                out: torch.Tensor = part(f"{name}.step{t}")(value)
                return out
            if per_step == "none":
                out = part(name)(value)
                return out
            out = part(f"{name}.stats.step{t}")(value)
            out = part(name)(out)
            return out

        def conv(name: str, t: int) -> nn.Module:
            return part(f"{name}.step{t}" if per_step == "all" else name)

        for layer in ("one", "two"):
            value = None
            for t in range(3):
                total = conv(f"{layer}.drive", t)(x)
                if value is not None:
                    total = total + conv(f"{layer}.edges.out__held.conv", t)(value)
                value = torch.relu(norm(f"{layer}.held", t, total))
            assert value is not None
            x = value
        out: torch.Tensor = part("head.linear")(x.mean((2, 3)))
        return out

    for training in (True, False):
        module.train(training)
        same(outcome(module, (x,)), outcome(module, (x,), loop))


@pytest.mark.parametrize("seed", range(3000, 3025))
def test_a_spec_survives_json_and_yaml(seed: int) -> None:
    sample = make(seed)
    arch = sample.arch
    json = hrg.loads(arch.to_json(), "sample.json")
    back = hrg.loads(json.to_yaml(), "sample.yaml")
    assert back.tree == arch.tree
    assert back.plan.digest() == json.plan.digest() == arch.plan.digest()
