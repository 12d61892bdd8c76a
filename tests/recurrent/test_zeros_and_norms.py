"""Identities of recurrent networks: empty values and zeros, and norms with copies for each step."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import hiresnet_graph as hrg
from tests.recurrent.compare import COPY, Rename, built, carry, equal, near, near_all, outcome, same, with_copies
from tests.recurrent.graphs import Sample, chosen, make
from tests.recurrent.modules import images

# Skip and zeros

ZEROS = """
name: zeros
input: {channels: 2, height: 4, width: 4}
nodes:
  a: {block: conv, width: 3, norm: none, bias: false}
  b: {block: conv, width: 3, norm: none, bias: false}
  head: {block: classifier, classes: 2}
flow: [a -> b -> head]
edges:
  - {from: b, to: b, delay: 1, block: conv, width: 3, norm: NORM, bias: BIAS, activation: none}
  - {from: b, to: a, delay: 1, slot: output, block: conv, width: 3, norm: NORM, bias: BIAS, activation: none}
time: {steps: 5, input: every, empty: EMPTY, per_step: none, delay: 1}
"""


def skip_and_zeros(norm: str, *, bias: bool, training: bool, means: bool = False) -> float:
    """The difference of the outputs, with norms without a shift."""
    outputs = []
    held = None
    for empty in ("skip", "zeros"):
        text = ZEROS.replace("NORM", norm).replace("BIAS", str(bias).lower()).replace("EMPTY", empty)
        arch, module = built(text)
        if held is not None:
            carry(module, held, lambda name: name)
        held = module.train(training)
        with torch.no_grad():
            for name, tensor in module.state_dict().items():
                if name.endswith("norm.bias") or (name.endswith("running_mean") and not means):
                    tensor.zero_()
        outputs.append(outcome(module, images(arch)).output)
    return (outputs[0] - outputs[1]).norm().item() / outputs[0].norm().item()


def test_skip_equals_zeros_for_networks_that_map_zeros_to_zeros() -> None:
    for training in (True, False):
        assert skip_and_zeros("batch", bias=False, training=training) < 1e-10
        assert skip_and_zeros("none", bias=False, training=training) < 1e-10


def test_batch_statistics_cancel_a_bias() -> None:
    assert skip_and_zeros("batch", bias=True, training=True) < 1e-10


def test_skip_differs_from_zeros_with_a_bias_in_eval_mode() -> None:
    assert skip_and_zeros("batch", bias=True, training=False) > 1e-3


def test_skip_differs_from_zeros_with_a_bias_and_no_batch_norm() -> None:
    assert skip_and_zeros("none", bias=True, training=True) > 1e-3
    assert skip_and_zeros("group", bias=True, training=True) > 1e-3


def test_skip_differs_from_zeros_with_running_means() -> None:
    assert skip_and_zeros("batch", bias=False, training=False, means=True) > 1e-3


def is_linear_at_zero(sample: Sample) -> bool:
    """Whether every operation without biases maps 0 to 0, merges are sums, and the output is read at one step."""
    averages = "mean" in sample.yaml
    return not averages and not sample.features & {"gate", "readout all"}


@pytest.mark.parametrize("seed", chosen(12, is_linear_at_zero, start=2000))
def test_skip_equals_zeros_on_random_graphs(seed: int) -> None:
    """Without biases, shifts and running means, whose gradients differ: zeros pass where values are missing."""
    sample = make(seed)
    found = []
    held: dict[str, torch.Tensor] = {}
    for empty in ("zeros", "skip"):
        arch, module = built(with_copies(sample, "norm", empty=empty))
        with torch.no_grad():
            for name, tensor in module.state_dict().items():
                if name.endswith(("bias", "running_mean")):
                    tensor.zero_()
        if held:
            module.load_state_dict({name: held[name] for name in module.state_dict()})
        held = module.state_dict()
        found.append({mode: outcome(module.train(mode), images(arch)) for mode in (True, False)})
    for mode in (True, False):
        zeros, skip = (outcomes[mode] for outcomes in found)
        near(zeros.output, skip.output, "output")
        compared = {name: value for name, value in skip.gradients.items() if not name.endswith("bias")}
        near_all({name: zeros.gradients[name] for name in compared}, compared)
        # Layers through which only zeros pass get no gradient.
        for name in zeros.gradients.keys() - skip.gradients.keys():
            assert name.endswith("bias") or not zeros.gradients[name].any(), name


# Norms

NORMED = """
name: normed
input: {channels: 2, height: 5, width: 4}
nodes:
  a: {block: conv, width: 3, per_step: PER_STEP}
  head: {block: classifier, classes: 3}
flow: a -> head
edges: [{from: a, to: a, delay: 1, projection: {norm: batch, when: always}, per_step: none}]
time: {steps: STEPS, input: every, per_step: none}
"""


def test_a_norm_for_each_step_is_separate_layers() -> None:
    arch, module = built(NORMED.replace("STEPS", "3").replace("PER_STEP", "norm"))
    (x,) = images(arch)

    def loop(held: nn.Module, x: torch.Tensor) -> torch.Tensor:
        part = held.get_submodule
        norms = nn.ModuleList([part(f"a.norm.step{t}") for t in range(3)])
        project = nn.Sequential(part("edges.a__a.conv"), part("edges.a__a.norm"))
        value = torch.relu(norms[0](part("a.conv")(x)))
        for t in (1, 2):
            value = torch.relu(norms[t](part("a.conv")(x + project(value))))
        out: torch.Tensor = part("head.linear")(value.mean((2, 3)))
        return out

    for training in (True, False):
        module.train(training)
        same(outcome(module, (x,)), outcome(module, (x,), loop))


def test_statistics_for_each_step_share_scale_and_shift() -> None:
    _, module = built(NORMED.replace("STEPS", "3").replace("PER_STEP", "norm_stats"))
    names = {name for name in module.state_dict() if name.startswith("a.norm")}
    tensors = {f"a.norm.stats.step{t}.{part}" for t in range(3) for part in ("running_mean", "running_var")}
    tensors |= {f"a.norm.stats.step{t}.num_batches_tracked" for t in range(3)}
    assert names == {"a.norm.weight", "a.norm.bias", *tensors}
    # In train mode norms use the statistics of the batch, so those with other running statistics compute the same.
    shared = NORMED.replace("STEPS", "3").replace("PER_STEP", "none")
    arch, plain = built(shared)
    for name, tensor in plain.state_dict().items():
        tensor.copy_(module.state_dict().get(name, tensor))
    mine, other = (outcome(net.train(), images(arch)) for net in (module, plain))
    near(mine.output, other.output)
    near_all(mine.gradients, other.gradients)


@pytest.mark.parametrize("per_step", ["norm_stats", "norm", "all", "none"])
def test_norms_of_each_step_have_the_given_momentum_and_epsilon(per_step: str) -> None:
    arch, module = built(
        f"""
name: momentum
input: {{channels: 3, height: 4, width: 4}}
nodes: {{n: {{block: batch_norm, momentum: 0.3, eps: 0.5, per_step: {per_step}}}}}
time: {{steps: 2, input: sequence, readout: all}}
"""
    )
    (x,) = images(arch)
    held = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    y = module.train()(x)
    after = module.state_dict()
    for step in range(2):
        value = x[:, step]
        mean, var = value.mean((0, 2, 3)), value.var((0, 2, 3), unbiased=False)
        scale, shift = (
            next(held[name] for name in (f"n.step{step}.{part}", f"n.{part}") if name in held)
            for part in ("weight", "bias")
        )
        normed = (value - mean[:, None, None]) / (var + 0.5).sqrt()[:, None, None]
        near(y[:, step], normed * scale[:, None, None] + shift[:, None, None])
    prefixes = [name.removesuffix("running_mean") for name in held if name.endswith("running_mean")]
    assert len(prefixes) == (1 if per_step == "none" else 2)
    for i, prefix in enumerate(prefixes):
        mean, var = held[f"{prefix}running_mean"], held[f"{prefix}running_var"]
        for step in range(2) if per_step == "none" else [i]:
            mean = 0.7 * mean + 0.3 * x[:, step].mean((0, 2, 3))
            var = 0.7 * var + 0.3 * x[:, step].var((0, 2, 3))
        near(after[f"{prefix}running_mean"], mean)
        near(after[f"{prefix}running_var"], var)


@pytest.mark.parametrize("per_step", ["norm_stats", "norm", "all"])
def test_with_one_step_a_norm_for_each_step_is_a_plain_norm(per_step: str) -> None:
    text = NORMED.replace("STEPS", "1")
    names: Rename = lambda name: COPY.sub("", name).replace(".stats", "")  # noqa: E731
    equal(text.replace("PER_STEP", per_step), text.replace("PER_STEP", "none"), names)


def test_all_norms_start_at_the_given_scale() -> None:
    arch = hrg.loads(
        NORMED.replace("STEPS", "3").replace("PER_STEP", "norm").replace("input: every", "norm_scale: 0.1")
    )
    scales = {name: tensor for name, tensor in arch.build().state_dict().items() if re.search(r"norm.*weight", name)}
    assert len(scales) == 4
    assert all((tensor == torch.tensor(0.1)).all() for tensor in scales.values())
