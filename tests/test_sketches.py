"""The networks in which the language was tried on paper: they must stay about this short, and mean what is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import hiresnet_graph as hrg
from tests.recurrent.compare import near
from tests.recurrent.definition import run
from tests.recurrent.modules import images, scrambled

SKETCHES = Path(__file__).parent / "sketches"
KNOWN = {
    "hiresnet18": 273_466,
    "resnet20": 269_722,
    "ror3_56": 762_746,
    "nasbench101_cell": 2_694_282,
}
"""Parameters: docs/explanation.md, He et al. 2016, pytorchcv 0.0.74, the API documentation of NAS-Bench-101."""


@pytest.mark.parametrize("name", KNOWN)
def test_known_counts(name: str) -> None:
    assert hrg.load(SKETCHES / f"{name}.yaml").cost().parameters == KNOWN[name]


def test_an_adjusted_file_extends_a_shipped_spec() -> None:
    net = hrg.load(SKETCHES / "hiresnet18_plain_adjusted.yaml")
    assert net.cost().parameters == 265_050 + 290 + 578


@pytest.mark.parametrize("name", ["densenet121", "unet"])
def test_the_rest_builds_and_runs(name: str) -> None:
    net = hrg.load(SKETCHES / f"{name}.yaml").override({"input.height": 32, "input.width": 32})
    out = net.build()(torch.randn(2, 3, 32, 32))
    (value,) = net.plan.outputs.values()
    shape = next(call.shape for call in net.plan.calls if call.name == value)
    assert out.shape == (2, *shape)


def test_a_gated_skip() -> None:
    """The fragment, between an encoder and a decoder: enc1 is multiplied by the one-channel map of att."""
    text = (SKETCHES / "attention_gate.yaml").read_text()
    text = "name: gate\ninput: {channels: 3, height: 8, width: 8}\n" + text.replace(
        "nodes:\n",
        "nodes:\n  enc1: {block: conv, width: 4}\n  up1: {block: conv, width: 4}\n  dec1: {block: conv, width: 4}\n",
    ).replace("flow: [", "flow: [enc1 -> up1 -> dec1, ")
    net = hrg.loads(text)
    module = net.build().eval()
    calls = {call.name: call for call in net.plan.calls}
    assert calls["dec1.input.concat"].inputs == ("up1.relu", "edges.enc1__dec1.gate")
    assert calls["edges.enc1__dec1.gate"].inputs == ("enc1.relu", "att")
    assert module(torch.randn(1, 3, 8, 8)).shape == (1, 4, 8, 8)


def test_an_area_of_cornet_s_is_a_tied_stage() -> None:
    """Weights once, norms for each call, stride and projection in the first alone: V2 has 2,519,808 parameters.

    The published count is that of the area with its input convolution, without a decoder.
    """
    text = (SKETCHES / "cornet_s_area.yaml").read_text()
    head = "name: area\ninput: {channels: 64, height: 56, width: 56}\nflow: V2_in -> V2\n"
    net = hrg.loads(head + text)
    assert net.cost().parameters == 2_519_808
    names = net.build().state_dict()
    assert "V2.conv2.weight" in names and "V2.block1.norm2.weight" in names and "V2.block2.norm2.weight" in names
    assert "V2.block2.conv2.weight" not in names
    assert {name for name in names if "shortcut" in name and name.endswith("weight")} == {
        "V2.shortcut.conv.weight",
        "V2.block1.shortcut.norm.weight",
    }


def test_cornet_rt_is_the_shipped_one() -> None:
    """Delays, blocks on edges, zeros at the merge."""
    net = hrg.load(SKETCHES / "cornet_rt.yaml")
    assert net.plan.digest() == hrg.load("cornet_rt").plan.digest()
    assert net.warnings == ()


def test_states_and_transitions() -> None:
    """A matrix of transitions between states of three sizes, those that lead further than one state taken away."""
    net = hrg.load(SKETCHES / "three_states.yaml")
    net.validate()
    assert net.timing is not None and net.timing.unrolling == ("biological",)
    assert net.timing.holds["s3"] == (1, 2, 3, 4, 5)
    assert net.variant("adjacent").plan.digest() == net.with_edges("adjacent", "transitions").plan.digest()
    assert net.variant("adjacent").cost().parameters < net.cost().parameters == 281_898
    for variant in (None, "adjacent"):
        arch = net.variant(variant)
        module = scrambled(arch.build())
        (x,) = images(arch, batch=2)
        with torch.no_grad():
            near(module(x), run(arch, module, x).output)


def test_time_windows_make_three_stages() -> None:
    """Two residual blocks; one that leads to the next state, and one; again."""
    net = hrg.load(SKETCHES / "three_states.yaml").variant("three_stages")
    assert net.timing is not None
    assert [net.timing.holds[state] for state in ("s1", "s2", "s3")] == [(0, 1, 2), (3, 4), (5, 6)]
    assert net.warnings == ()
    module = scrambled(net.build()).eval()
    part = module.get_submodule

    def block(name: str, step: int, h: torch.Tensor) -> torch.Tensor:
        for i in (1, 2):
            h = part(f"edges.{name}.conv{i}")(torch.relu(part(f"edges.{name}.norm{i}.step{step}")(h)))
        return h

    (x,) = images(net)
    h = torch.relu(part("pre.norm.step0")(part("pre.conv")(x)))
    for step, name in enumerate(("s1__s1", "s1__s1", "s1__s2", "s2__s2", "s2__s3", "s3__s3"), 1):
        h = block(name, step, h) + (h if name[:2] == name[4:] else 0)
    near(module(x), part("post.linear")(h.mean((2, 3))))
