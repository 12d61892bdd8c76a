"""Single steps, other numbers of steps, and checkpointing: the same network with the same tensors."""

from __future__ import annotations

import gc
import re
import weakref
from typing import Any

import pytest
import torch
from torch import nn

import hiresnet_graph as hrg
from hiresnet_graph.errors import SpecError, UsageError
from tests.recurrent.compare import carry, near, outcome, same
from tests.recurrent.definition import NoOutput, Trace, run
from tests.recurrent.graphs import chosen, make
from tests.recurrent.modules import images, scrambled

LOOP = """
name: loop
input: {channels: 2, height: 6, width: 6}
nodes:
  a: {block: conv, width: 3}
  b: {block: conv, width: 4, stride: 2}
  head: {block: conv, width: 2, activation: none}
flow: a -> b -> head
edges:
  - {from: b, to: a, delay: 3, slot: output, projection: {spatial: nearest}}
  - {from: b, to: b, delay: 1, slot: output, block: conv, width: 4}
  - {from: a, to: a, delay: 2, slot: output, projection: {when: always}}
time: {steps: 6, delay: 1, readout: all, per_step: PER_STEP, past: PAST}
"""


def loop(per_step: str = "norm", past: str = "error", **time: object) -> hrg.Architecture:
    arch = hrg.loads(LOOP.replace("PER_STEP", per_step).replace("PAST", past))
    return arch.override({f"time.{key}": value for key, value in time.items()}) if time else arch


def frames(arch: hrg.Architecture, x: torch.Tensor) -> list[torch.Tensor]:
    """The input at each step."""
    time = arch.graph.time
    assert time is not None
    return [x[:, t] if time.input == "sequence" else x for t in range(time.steps)]


def streamed(module: nn.Module, shown: list[torch.Tensor]) -> tuple[list[torch.Tensor | None], Any]:
    """The outputs step by step, and the last state."""
    outputs, state = [], None
    for x in shown:
        output, state = module.step(x, state)
        outputs.append(output)
    return outputs, state


@pytest.mark.parametrize("seed", range(4000, 4030))
def test_single_steps_equal_the_unrolled_network_bit_for_bit(seed: int) -> None:
    arch = make(seed).arch.override({"time.readout": "all"})
    module = scrambled(arch.build())
    (x,) = images(arch)
    for dtype in (torch.float64, torch.float32):
        module, x = module.to(dtype), x.to(dtype)
        for training in (True, False):
            module.train(training)
            outputs, state = streamed(module, frames(arch, x))
            expected = module(x)
            there = [t for t, output in enumerate(outputs) if output is not None]
            assert tuple(there) == module.readouts
            assert torch.equal(torch.stack([outputs[t] for t in there], 1), expected)
            assert state.t == len(outputs)


@pytest.mark.parametrize("seed", range(4030, 4036))
def test_gradients_of_single_steps_equal_those_of_the_unrolled_network(seed: int) -> None:
    arch = make(seed).arch.override({"time.readout": "all"})
    module = scrambled(arch.build())

    def stepped(held: nn.Module, x: torch.Tensor) -> torch.Tensor:
        outputs, _ = streamed(held, frames(arch, x))
        return torch.stack([output for output in outputs if output is not None], 1)

    xs = images(arch)
    same(outcome(module, xs, stepped), outcome(module, xs), buffers=False)


def test_a_step_may_have_no_values() -> None:
    arch = hrg.loads("""
name: once
input: {channels: 2, height: 4, width: 4}
nodes: {a: {block: conv, width: 3}, head: {block: classifier, classes: 2}}
flow: a -> head
time: {steps: 3, input: first, readout: all}
""")
    module = scrambled(arch.build())
    (x,) = images(arch)
    outputs, _ = streamed(module, [x, x, x])
    assert [output is None for output in outputs] == [False, True, True]
    near(outputs[0], module(x)[:, 0])


def elements(state: Any) -> int:
    held = [value for values in state.past.values() for value in values if value is not None]
    return sum(value.numel() for value in held)


def test_the_state_never_grows() -> None:
    """It holds t and, for each value that is read later, as many past values as its longest delay requires."""
    arch = loop(past="last")
    module = scrambled(arch.build()).eval()
    (x,) = images(arch)
    state = None
    first = weakref.ref(x)
    sizes, keys = [], []
    with torch.no_grad():
        for t in range(40):
            _, state = module.step(x, state)
            assert state.t == t + 1
            sizes.append(elements(state))
            keys.append({name: len(values) for name, values in state.past.items()})
            x = torch.roll(x, 1, -1)
    assert len(set(map(str, keys))) == 1 and sorted(keys[0].values()) == [2, 3]
    assert len(set(sizes[5:])) == 1 and sizes[0] < sizes[5]
    gc.collect()
    assert first() is None


def test_a_detached_state_blocks_gradients() -> None:
    arch = loop()
    module = scrambled(arch.build())
    (x,) = images(arch)
    x.requires_grad_()
    _, state = streamed(module, [x, x, x])
    cut = state.detach()
    assert cut.t == state.t and cut.past.keys() == state.past.keys()
    held = [value for values in cut.past.values() for value in values if value is not None]
    assert held and not any(value.requires_grad for value in held)
    mine, other = (module.step(x, each)[0] for each in (cut, state))
    assert torch.equal(mine, other)


# Other steps, inputs and readouts


@pytest.mark.parametrize("seed", range(4100, 4125))
def test_other_settings_over_the_same_tensors_on_random_graphs(seed: int) -> None:
    """They agree with the definition, or the error names the call and the step whose tensor is missing."""
    arch = make(seed).arch
    time = arch.graph.time
    assert time is not None
    module = scrambled(arch.build()).eval()
    settings: list[dict[str, Any]] = [
        {"steps": time.steps + 2},
        {"steps": time.steps + 1, "readout": "all"},
        {"readout": 0},
        {"readout": max(0, time.steps - 2)},
        {"readout": "all"},
        {"input": "every"},
        {"input": "first", "readout": "all"},
    ]
    for setting in settings:
        trace = Trace(arch, **setting)
        try:
            missing = trace.missing(module)
        except NoOutput:
            with pytest.raises((SpecError, UsageError)):
                module.at(**setting)
            continue
        if missing:
            with pytest.raises(UsageError) as refused:
                module.at(**setting)
            message = str(refused.value)
            assert re.search(r"\bstep ?\d", message)
            # Of equal calls on equal values, only one is computed.
            assert any(f"'{each.call}" in message or f"'{each.weights}'" in message for each in missing), message
            continue
        xs = images(arch, steps=trace.steps, sequence=trace.input == "sequence")
        expected = trace.run(module, *xs).output
        other = module.at(**setting)
        assert other.readouts == trace.readouts
        near(other(*xs), expected, str(setting))
        for name, tensor in other.named_parameters():
            assert tensor is module.get_parameter(name)


@pytest.mark.parametrize("per_step", ["none", "norm_stats", "norm", "all"])
@pytest.mark.parametrize("setting", [{"steps": 4}, {"readout": 2}, {"readout": "last"}, {"steps": 5, "input": "first"}])
def test_other_settings_equal_a_spec_with_those_settings(per_step: str, setting: dict[str, Any]) -> None:
    arch = loop(per_step)
    module = scrambled(arch.build())
    written = loop(per_step, **setting)
    other = scrambled(written.build(), seed=1)
    carry(other, module, lambda name: name)
    xs = images(arch)
    for training in (True, False):
        at = module.train(training).at(**setting)
        assert at.training == training
        mine, expected = outcome(at, xs), outcome(other.train(training), xs)
        buffers = {name: value for name, value in mine.buffers.items() if name in expected.buffers}
        grads = {name: value for name, value in mine.gradients.items() if name in expected.gradients}
        same(mine._replace(buffers=buffers, gradients=grads), expected)
        assert at.readouts == other.readouts


@pytest.mark.parametrize("per_step", ["norm_stats", "norm"])
def test_beyond_the_copies_norms_use_the_last_one(per_step: str) -> None:
    arch = loop(per_step, past="last")
    module = scrambled(arch.build()).eval()
    longer = loop(per_step, past="last", steps=9)
    other = scrambled(longer.build(), seed=1)
    held = module.state_dict()

    def latest(name: str) -> str:
        while name not in held:
            head, _, tail = name.partition(".step")
            step, _, rest = tail.partition(".")
            assert int(step) > 0
            name = f"{head}.step{int(step) - 1}.{rest}"
        return name

    carry(other, module, latest)
    (x,) = images(longer)
    assert torch.equal(module.at(steps=9)(x), other(x))
    outputs, _ = streamed(module, [x] * 9)
    assert torch.equal(torch.stack([output for output in outputs if output is not None], 1), other(x))
    near(run(arch, module, x, steps=9).output, other(x))


@pytest.mark.parametrize(("per_step", "past"), [("norm", "error"), ("norm_stats", "error"), ("all", "last")])
def test_a_missing_copy_is_an_error_that_names_the_call_and_the_step(per_step: str, past: str) -> None:
    arch = loop(per_step, past=past)
    module = scrambled(arch.build()).eval()
    (x,) = images(arch)
    with pytest.raises(UsageError, match=r"^'[\w.]+' .* for step [56]\b"):
        module.at(steps=7)
    with pytest.raises(UsageError, match=r"^'[\w.]+' .* for step [56]\b"):
        streamed(module, [x] * 7)
    # Trained with `last`, the head has a copy only for the last step.
    last = loop(per_step, past=past, readout="last")
    module = scrambled(last.build()).eval()
    with pytest.raises(UsageError) as refused:
        module.at(readout="all")
    assert "step" in str(refused.value) and "'head." in str(refused.value)


def test_without_copies_any_number_of_steps_works() -> None:
    arch = loop("none")
    module = scrambled(arch.build()).eval()
    (x,) = images(arch)
    longer = module.at(steps=12)
    assert longer.readouts == tuple(range(1, 12))
    near(longer(x), run(arch, module, x, steps=12).output)
    assert torch.equal(longer(x)[:, :5], module(x))


# Checkpointing


@pytest.mark.parametrize("every", [1, 2, 5])
@pytest.mark.parametrize("seed", chosen(8, lambda sample: len(sample.features) > 12, start=4200))
def test_checkpointing_changes_nothing(seed: int, every: int) -> None:
    """Outputs, gradients, and running statistics, which must be updated once."""
    arch = make(seed).arch
    module = scrambled(arch.build())
    xs = images(arch)
    for training in (True, False):
        module.train(training)
        mine = outcome(module, xs, lambda held, *ys: held.checkpointed(every=every)(*ys))
        same(mine, outcome(module, xs))


def test_a_sequence_of_another_length_is_refused() -> None:
    arch = loop(input="sequence")
    module = arch.build().eval()
    with pytest.raises(UsageError) as error:
        module(torch.zeros(3, 5, 2, 6, 6))
    assert str(error.value) == (
        "the input must be a sequence of 6 steps on axis 1, got [3, 5, 2, 6, 6]. Use 'at(steps=5)' for this length."
    )
    x = torch.randn(3, 5, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    assert module(torch.cat([x, x[:, :1]], 1)).shape[:2] == (3, len(module.readouts))
    shorter = module.at(steps=5)
    assert torch.equal(shorter(x), module(torch.cat([x, x[:, :1]], 1))[:, : len(shorter.readouts)])


def test_a_readout_after_the_last_step_is_refused() -> None:
    module = loop().build()
    for readout in (6, 9):
        with pytest.raises(UsageError) as error:
            module.at(readout=readout)
        assert str(error.value) == f"the readout is step {readout}, but steps go from 0 to 5. Set 'steps', too."
    assert module.at(readout=5).readouts == (5,)
    with pytest.raises(UsageError, match=r"steps.*expected a number"):
        module.at(steps=0)


def test_a_step_takes_each_input_by_its_name() -> None:
    two = "name: two\ninput: {x: {channels: 2, height: 4, width: 4}, y: {channels: 2, height: 4, width: 4}}\n"
    two += "nodes: {a: relu}\nflow: [x -> a, y -> a]\nedges: [{from: a, to: a, delay: 1}]\ntime: {steps: 3}\n"
    module, image = hrg.loads(two).build(), torch.randn(1, 2, 4, 4)
    for wrong in (image, None):
        with pytest.raises(UsageError) as error:
            module.step(wrong)
        assert str(error.value) == "step 0 requires a mapping with x, y."
    output, _ = module.step({"y": image, "x": image})
    assert torch.equal(output, (2 * image).relu())
    with pytest.raises(UsageError) as error:
        loop(input="every").build().step(None)
    assert str(error.value) == "step 0 requires an input [B, ...]."


def test_the_name_of_an_edge_may_begin_with_step() -> None:
    text = """name: n
input: {channels: 3, height: 8, width: 8}
nodes: {a: {block: conv, width: 4}, b: {block: conv, width: 4}, head: {block: classifier, classes: 3}}
flow: input -> a -> head
edges: [{from: a, to: b, delay: 1, block: conv2d, width: 4, name: step_in}, {from: b, to: head, delay: 1}]
time: {steps: 2, per_step: none}
"""
    module = hrg.loads(text).build().eval()
    with pytest.raises(UsageError, match=r"has no weights 'edges.step_in.conv': as compiled"):
        module.at(steps=4)
