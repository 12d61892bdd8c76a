"""Recurrent networks agree with the definition, executed literally (see `definition`)."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import hiresnet_graph as hrg
from hiresnet_graph.shipped import spec_names
from tests.recurrent.compare import carry, near, outcome, same
from tests.recurrent.definition import Trace, run
from tests.recurrent.graphs import LONG, make
from tests.recurrent.modules import images, scrambled

MODES = {"train": True, "eval": False}


def agrees(arch: hrg.Architecture) -> None:
    """Outputs, gradients and running statistics of the module equal those of the definition, in both modes."""
    module = scrambled(arch.build(seed=3))
    xs = images(arch)
    for training in MODES.values():
        module.train(training)
        same(outcome(module, xs), outcome(module, xs, lambda held, *ys: run(arch, held, *ys).output))


@pytest.mark.parametrize("seed", range(40))
def test_a_random_graph_agrees_with_the_definition(seed: int) -> None:
    agrees(make(seed).arch)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(100, 600, 50))
def test_many_random_graphs_agree_with_the_definition(start: int) -> None:
    for seed in range(start, start + 50):
        agrees(make(seed).arch)


SMALL: dict[str, dict[str, object]] = {
    "blt": {"size": 16, "width": 2},
    "cornet_r": {"input.height": 24, "input.width": 32, "classes": 3},
    "cornet_rt": {"input.height": 24, "input.width": 32, "classes": 3},
    "cornet_s": {
        "input.height": 64,
        "input.width": 64,
        "classes": 3,
        "V1_in.width": 4,
        "V1.width": 4,
        "V2_in.width": 6,
        "V2.width": 6,
        "V2.hidden": 8,
        "V4_in.width": 8,
        "V4.width": 8,
        "V4.hidden": 6,
        "IT_in.width": 6,
        "IT.width": 6,
        "IT.hidden": 4,
    },
    "frnn2": {"size": 8, "width": 3},
    "frnn3": {"size": 8, "width": 3},
    "frnn4": {"size": 16, "width": 2},
    "frnn4_imagenet": {"size": 64, "width": 2, "classes": 3},
    "rcnn": {"size": 16, "width": 3},
    "rnn_resnet1": {"size": 6, "width": 3, "steps": 5},
    "rnn_resnet2": {"size": 8, "width": 3, "n": 2},
    "rnn_resnet3": {"size": 8, "width": 3, "n": 2},
}
"""Small versions of the shipped networks in time and with tied stages."""


@pytest.mark.parametrize("name", SMALL)
def test_a_shipped_network_agrees_with_the_definition(name: str) -> None:
    """With random norms, since with initial ones a wrong rule could pass."""
    agrees(hrg.load(name).override(SMALL[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_the_variants_of_a_shipped_network_agree_with_the_definition(name: str) -> None:
    arch = hrg.load(name).override(SMALL[name])
    for variant in arch.variants:
        agrees(arch.variant(variant))


def test_three_schedules_of_the_same_areas_are_three_networks() -> None:
    """CORnet-RT, CORnet-R, and a full sweep from step 0 on: equal tensors, different outputs."""
    archs = [hrg.load("cornet_rt"), hrg.load("cornet_r"), hrg.load("cornet_r").variant("full_sweep")]
    assert [arch.cost().parameters for arch in archs] == [5_208_936] * 3
    archs = [arch.override(SMALL["cornet_r"]) for arch in archs]
    first = scrambled(archs[0].build())
    outputs = []
    for arch in archs:
        module = scrambled(arch.build(), seed=1)
        carry(module, first, lambda name: name)
        (x,) = images(arch)
        outputs.append(module(x))
        near(outputs[-1], run(arch, module, x).output)
    pairs = [(0, 1), (0, 2), (1, 2)]
    assert all((outputs[i] - outputs[j]).norm() > 1e-2 * outputs[i].norm() for i, j in pairs)


def test_every_shipped_network_in_time_is_compared_with_the_definition() -> None:
    inner = [name for name in spec_names() if "time:" in hrg.load(name).to_yaml()]
    assert set(inner) <= set(SMALL)


@pytest.mark.parametrize("seed", range(40, 80))
def test_steps_at_which_nodes_hold_values(seed: int) -> None:
    sample = make(seed)
    arch, trace = sample.arch, Trace(sample.arch)
    timing = arch.timing
    assert timing is not None
    nodes = [node.name for node in arch.graph.nodes]
    assert {name: timing.holds[name] for name in nodes} == {name: trace.reached(name) for name in nodes}
    assert timing.readouts == trace.readouts
    (head,) = arch.graph.outputs.values()
    longer = Trace(arch, steps=LONG, readout="all")
    assert timing.smallest == longer.reached(head)[0] + 1


@pytest.mark.parametrize("seed", range(40, 80))
def test_edges_that_do_not_reach_the_readout(seed: int) -> None:
    arch = make(seed).arch
    timing = arch.timing
    assert timing is not None
    silent = {edge.name for edge in timing.silent}
    reaching = Trace(arch).reaching()
    assert {name for name, reaches in reaching.items() if not reaches} == silent & reaching.keys()
    time = arch.graph.time
    assert time is not None
    if time.readout in ("last", "all") and timing.complete is not None and timing.complete < 3 * LONG:
        assert all(Trace(arch, steps=timing.complete).reaching().values())


@pytest.mark.parametrize("seed", range(80, 100))
def test_every_parameter_moves_the_output(seed: int) -> None:
    """Parameters that reach no readout do not exist, and all others get a gradient."""
    arch = make(seed).arch
    module = scrambled(arch.build())
    assert outcome(module, images(arch)).gradients.keys() >= dict(module.named_parameters()).keys()


GATED = """
name: gated
input: {channels: 2, height: 4, width: 4}
nodes:
  a: {block: conv, width: 3}
  g: {block: conv, width: 1, kernel_size: 1, norm: none, activation: sigmoid}
  b: {block: conv, width: 3}
  head: {block: classifier, classes: 2}
flow: [input -> a -> b -> head, a -> g]
edges: [{from: input, to: b, slot: output, projection: {}, gate: g}]
outputs: head
time: {steps: 2, delay: 1, empty: EMPTY}
"""


@pytest.mark.parametrize(("empty", "first"), [("skip", 1), ("zeros", 0)])
def test_a_gate_is_open_when_its_node_holds_a_value(empty: str, first: int) -> None:
    """With zeros, every node does from step 0 on, even if the value does not depend on the input."""
    arch = hrg.loads(GATED.replace("EMPTY", empty))
    timing = arch.timing
    assert timing is not None and timing.smallest == first + 1 and timing.holds["b"] == tuple(range(first, 2))
    agrees(arch.override({"time.steps": first + 1}))


PART = """
name: part
input: {channels: 2, height: 4, width: 4}
nodes:
  a: {block: conv, width: 3}
  b: {block: conv, width: 3}
  head: {block: classifier, classes: 2}
flow: input -> a -> b -> head
edges:
  - {from: input, to: a, slot: output, delay: 1, projection: {}}
  - {from: a.conv, to: b, slot: output, delay: 1, name: e}
time: {steps: 4, input: first, readout: all}
"""


def test_a_part_of_a_node_may_be_empty_when_the_node_is_not() -> None:
    """At step 1, `a` holds only what arrives at its output; its convolution is empty."""
    arch = hrg.loads(PART)
    (x,) = images(arch)
    module = scrambled(arch.build())
    assert Trace(arch).readouts == module.readouts == (0, 1)
    assert module(x).shape == (3, 2, 2)
    agrees(arch)


# The definition itself, compared with loops over torch's layers.

LOOP = """
name: loop
input: {channels: 2, height: 4, width: 4}
nodes:
  a: {block: conv, width: 3, norm: none}
  b: {block: conv, width: 3, norm: none, stride: 2}
  head: {block: classifier, classes: 2}
flow: [a -> b -> head]
edges:
  - {from: b, to: a, delay: 2, slot: output, projection: {spatial: nearest, channels: conv1x1, norm: none}}
  - {from: b, to: b, delay: 1, slot: output, block: conv, width: 3, norm: none, activation: tanh}
time: {steps: 6, input: first, empty: EMPTY, delay: 1, per_step: none, readout: all}
"""


class Loop(nn.Module):
    """Two areas with feedback, written by hand. The input is present only at step 0."""

    def __init__(self, held: nn.Module) -> None:
        super().__init__()
        self.held = held

    def forward(self, x: torch.Tensor, zeros: bool) -> torch.Tensor:
        part = self.held.get_submodule
        nothing = x.new_zeros(len(x), 3, 2, 2) if zeros else None
        a: list[torch.Tensor | None] = []
        b: list[torch.Tensor | None] = []
        out = []
        for t in range(6):
            own = torch.relu(part("a.conv")(x if t == 0 else 0 * x)) if t == 0 or zeros else None
            last = b[t - 2] if t >= 2 else None
            back = None
            if last is not None:
                back = nn.functional.interpolate(part("edges.b__a.conv")(last), size=(4, 4))
            a.append(own if back is None else back if own is None else own + back)
            before = a[t - 1] if t >= 1 else (x.new_zeros(len(x), 3, 4, 4) if zeros else None)
            held = None if before is None else torch.relu(part("b.conv")(before))
            last = b[t - 1] if t >= 1 else None
            again = nothing if last is None else torch.tanh(part("edges.b__b.conv")(last))
            b.append(held if again is None else again if held is None else held + again)
            if b[t] is not None:
                out.append(part("head.linear")(b[t].mean((2, 3))))
        return torch.stack(out, 1)


@pytest.mark.parametrize("empty", ["skip", "zeros"])
def test_the_definition_agrees_with_a_handwritten_loop(empty: str) -> None:
    arch = hrg.loads(LOOP.replace("EMPTY", empty))
    module = scrambled(arch.build())
    (x,) = images(arch)
    expected = Loop(module)(x, empty == "zeros")
    assert expected.shape == (3, 6 if empty == "zeros" else 5, 2)
    near(run(arch, module, x).output, expected)
    near(module(x), expected)


SEVERAL = """
name: several
input:
  left: {channels: 2, height: 4, width: 4}
  right: {channels: 5}
nodes:
  a: {block: conv, width: 3}
  h: {block: state, shape: [4]}
  act: tanh
  flat: flatten
  read: {block: linear, width: 2}
  image: {block: conv, width: 2, activation: none}
flow: [left -> a -> flat, act -> read, a -> image]
edges:
  - {from: right, to: h, block: linear, width: 4}
  - {from: flat, to: h, block: linear, width: 4, delay: 1}
  - {from: h, to: act}
  - {from: act, to: h, block: linear, width: 4, delay: 2}
  - {from: image, to: a, delay: 1, projection: {}}
outputs: [read, image]
time: {steps: 4, input: INPUT, empty: EMPTY, readout: READOUT}
"""


@pytest.mark.parametrize("readout", ["last", "all", "2"])
@pytest.mark.parametrize("empty", ["skip", "zeros"])
@pytest.mark.parametrize("input_", ["every", "sequence"])
def test_several_inputs_and_outputs_and_vectors(input_: str, empty: str, readout: str) -> None:
    text = SEVERAL.replace("INPUT", input_).replace("EMPTY", empty).replace("READOUT", readout)
    arch = hrg.loads(text)
    module = scrambled(arch.build())
    xs = images(arch)
    for training in MODES.values():
        module.train(training)
        expected = run(arch, copy.deepcopy(module), *xs).output
        mine = module(*xs)
        assert mine.keys() == expected.keys() == {"read", "image"}
        for name in mine:
            near(mine[name], expected[name], name)
        if readout == "all":
            state, outputs = None, []
            for t in range(4):
                shown = [x[:, t] if input_ == "sequence" else x for x in xs]
                output, state = module.step(dict(zip(("left", "right"), shown, strict=True)), state)
                outputs.append(output)
            for name in mine:
                assert torch.equal(torch.stack([output[name] for output in outputs], 1), module(*xs)[name])
