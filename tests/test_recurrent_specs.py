"""The shipped recurrent networks: counts, timing, and outputs against networks written by hand or by others.

That each is what the definition of a recurrent graph says is shown in `tests/recurrent/test_definition.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

import hiresnet_graph as hrg
from hiresnet_graph.cost import count_parts
from tests.recurrent.compare import carry, near, outcome, renamed, same
from tests.recurrent.definition import run
from tests.recurrent.modules import images, scrambled

PARAMETERS = {
    "cornet_z": 2_071_656,
    "cornet_s": 53_416_616,
    "cornet_rt": 5_208_936,
    "cornet_r": 5_208_936,
    "cornet_r@full_sweep": 5_208_936,
    "rcnn": 674_986,
    "blt": 393_978,
    "blt@engineering": 393_978,
    "blt@biological": 392_538,
    "blt@b": 98_970,
    "blt@bl": 297_210,
    "blt@bt": 198_138,
    "rnn_resnet1": 20_842,
    "rnn_resnet1@shared": 20_842,
    "rnn_resnet1@unshared": 168_298,
    "rnn_resnet1@shared_norm": 19_818,
    "rnn_resnet2": 38_938,
    "rnn_resnet2@shared": 38_938,
    "rnn_resnet2@unshared": 89_626,
    "rnn_resnet2@shared_norm": 38_490,
    "rnn_resnet3": 170_906,
    "rnn_resnet3@shared": 170_906,
    "rnn_resnet3@unshared": 272_282,
    "rnn_resnet3@shared_norm": 170_394,
    "frnn2": 46_106,
    "frnn2@no_feedback": 35_402,
    "frnn2@no_lateral": 22_026,
    "frnn2@unshared": 177_434,
    "frnn2@shared_norm": 44_986,
    "frnn3": 281_994,
    "frnn3@adjacent": 204_634,
    "frnn3@no_feedback": 181_802,
    "frnn3@no_lateral": 183_098,
    "frnn3@unshared": 1_021_706,
    "frnn3@shared_norm": 278_522,
    "frnn4": 1_913_402,
    "frnn4@adjacent": 833_498,
    "frnn4@no_feedback": 856_458,
    "frnn4@no_lateral": 1_517_178,
    "frnn4@unshared": 6_516_282,
    "frnn4@shared_norm": 1_904_058,
    "frnn4_imagenet": 7_881_608,
    "frnn4_imagenet@adjacent": 3_579_592,
    "frnn4_imagenet@no_feedback": 3_664_680,
    "frnn4_imagenet@no_lateral": 6_305_800,
    "frnn4_imagenet@unshared": 26_293_128,
    "frnn4_imagenet@shared_norm": 7_862_920,
}
"""Those of CORnet: the published networks. That of `rnn_resnet3@unshared`: pytorchcv's pre-activation ResNet-20."""

TIMING = {
    "cornet_rt": (("biological",), 4, 5),
    "cornet_r": (("engineering",), 2, 3),
    "cornet_r@full_sweep": (("engineering",), 1, 2),
    "blt": (("engineering",), 1, 2),
    "blt@biological": (("biological",), 4, 6),
    "blt@b": (("biological", "engineering"), 1, 1),
    "blt@bl": (("engineering",), 1, 2),
    "blt@bt": (("engineering",), 1, 2),
    "rnn_resnet1": (("biological", "engineering"), 1, 2),
    "rnn_resnet2": (("biological",), 6, 7),
    "rnn_resnet3": (("biological",), 8, 9),
    "frnn2": (("biological",), 2, 4),
    "frnn2@no_feedback": (("biological",), 2, 3),
    "frnn2@no_lateral": (("biological",), 2, 4),
    "frnn3": (("biological",), 2, 4),
    "frnn3@adjacent": (("biological",), 3, 5),
    "frnn3@no_feedback": (("biological",), 2, 4),
    "frnn3@no_lateral": (("biological",), 2, 4),
    "frnn4": (("biological",), 2, 4),
    "frnn4@adjacent": (("biological",), 4, 6),
    "frnn4@no_feedback": (("biological",), 2, 4),
    "frnn4@no_lateral": (("biological",), 2, 4),
    "frnn4_imagenet": (("biological",), 2, 4),
    "frnn4_imagenet@adjacent": (("biological",), 4, 6),
}
"""Unrolling; the smallest number of steps; that with which every edge reaches the readout."""

SMALL: dict[str, dict[str, object]] = {
    "cornet_z": {"input.height": 64, "input.width": 64},
    "cornet_s": {
        "input.height": 64,
        "input.width": 64,
        **{f"{area}{end}.width": 8 for area in ("V2", "V4", "IT") for end in ("", "_in")},
        **{f"{area}.hidden": 16 for area in ("V2", "V4", "IT")},
    },
    "cornet_rt": {"input.height": 32, "input.width": 32},
    "cornet_r": {"input.height": 32, "input.width": 32},
    "rcnn": {"size": 16, "width": 8},
    "blt": {"size": 16, "width": 4},
    "rnn_resnet1": {"size": 8, "width": 4},
    "rnn_resnet2": {"size": 8, "width": 4},
    "rnn_resnet3": {"size": 8, "width": 4},
    "frnn2": {"size": 8, "width": 4},
    "frnn3": {"size": 8, "width": 4},
    "frnn4": {"size": 16, "width": 4},
    "frnn4_imagenet": {"size": 64, "width": 4},
}


def shipped(key: str) -> hrg.Architecture:
    name, _, variant = key.partition("@")
    return hrg.load(name).variant(variant or None)


# -------------------------------------------------------------------------------------------------------- what they are


@pytest.mark.parametrize("key", PARAMETERS)
def test_parameters(key: str) -> None:
    assert shipped(key).cost().parameters == PARAMETERS[key]


def test_all_variants_are_counted() -> None:
    for name in SMALL:
        listed = {key.partition("@")[2] for key in PARAMETERS if key.partition("@")[0] == name}
        assert listed == {"", *hrg.load(name).variants}


def test_the_areas_of_cornet_s() -> None:
    parts = count_parts(hrg.load("cornet_s").plan)
    areas = {"V1": 46_528, "V2": 2_519_808, "V4": 10_078_720, "IT": 40_258_560, "decoder": 513_000}
    found = {area: sum(c.parameters for part, c in parts.items() if re.match(area, part)) for area in areas}
    assert found == areas


@pytest.mark.parametrize("key", TIMING)
def test_timing(key: str) -> None:
    net = shipped(key)
    timing = net.timing
    assert timing is not None
    assert (timing.unrolling, timing.smallest, timing.complete) == TIMING[key]
    assert timing.steps >= TIMING[key][2]
    assert timing.readouts == (timing.steps - 1,)
    assert (timing.silent, timing.unfilled, net.warnings) == ((), (), ())


@pytest.mark.parametrize("name", ["cornet_z", "cornet_s", "rcnn"])
def test_what_runs_area_after_area_has_no_time(name: str) -> None:
    assert hrg.load(name).timing is None


def test_steps_at_which_areas_hold_values() -> None:
    """As published: in CORnet-RT a value needs a step to each area, in CORnet-R it waits at step 0 alone."""

    def first(key: str) -> list[int]:
        timing = shipped(key).timing
        assert timing is not None
        assert all(timing.holds[area][-1] == timing.steps - 1 for area in ("V1", "V2", "V4", "IT"))
        return [timing.holds[area][0] for area in ("V1", "V2", "V4", "IT")]

    assert first("cornet_rt") == first("blt@biological") == [0, 1, 2, 3]
    assert first("cornet_r") == [0, 1, 1, 1]
    assert first("cornet_r@full_sweep") == first("blt@engineering") == [0, 0, 0, 0]


def test_the_file_of_blt_is_its_engineering_unrolling() -> None:
    assert shipped("blt").plan.digest() == shipped("blt@engineering").plan.digest()


@pytest.mark.parametrize(
    ("key", "kinds"),
    [
        ("blt", {"forward", "lateral", "feedback"}),
        ("blt@biological", {"forward", "lateral", "feedback"}),
        ("blt@b", {"forward"}),
        ("blt@bl", {"forward", "lateral"}),
        ("blt@bt", {"forward", "feedback"}),
        ("frnn2", {"forward", "lateral", "feedback"}),
        ("frnn3", {"forward", "lateral", "feedback", "bypass"}),
        ("frnn3@adjacent", {"forward", "lateral", "feedback"}),
        ("frnn4@no_feedback", {"forward", "lateral", "bypass"}),
        ("frnn4@no_lateral", {"forward", "feedback", "bypass"}),
    ],
)
def test_kinds_of_connections(key: str, kinds: set[str]) -> None:
    names = ["V1", "V2", "V4", "IT"] if key.startswith("blt") else ["s1", "s2", "s3", "s4"]
    ways = [
        names.index(edge.target) - names.index(edge.source)
        for edge in shipped(key).plan.edges
        if edge.source in names and edge.target in names
    ]
    found = {"forward" if way > 0 else "feedback" if way < 0 else "lateral" for way in ways}
    assert found | ({"bypass"} if any(abs(way) > 1 for way in ways) else set()) == kinds


def test_adjacent_is_what_no_bypass_would_be() -> None:
    for name in ("frnn3", "frnn4"):
        net = hrg.load(name)
        expected = net.with_edges("all - bypass", "transitions").plan.digest()
        assert net.variant("adjacent").plan.digest() == expected


@pytest.mark.parametrize("name", SMALL)
def test_one_step_of_training_and_the_source(name: str) -> None:
    """Gradients reach every parameter, a step along them lowers the loss, and the emitted source has equal outputs."""
    net = hrg.load(name).override(SMALL[name])
    module = net.build()
    x = torch.randn(4, *net.plan.inputs["input"], generator=torch.Generator().manual_seed(0))
    labels = torch.arange(4)
    loss = functional.cross_entropy(module(x), labels)
    grads = torch.autograd.grad(loss, list(module.parameters()))
    length = math.sqrt(sum(grad.double().square().sum().item() for grad in grads))
    with torch.no_grad():
        for parameter, grad in zip(module.parameters(), grads, strict=True):
            parameter -= 0.01 * grad / length
        assert 0 < functional.cross_entropy(module(x), labels) < loss
        names: dict[str, type[nn.Module]] = {}
        exec(compile(net.source(), "model.py", "exec"), names)
        emitted = names["".join(word.capitalize() for word in re.split("_", net.name))]()
        emitted.load_state_dict(module.state_dict())
        assert torch.equal(emitted.eval()(x), module.eval()(x))


# ----------------------------------------------------------------------------------------------- CORnet-RT and CORnet-R

AREAS = ("V1", "V2", "V4", "IT")
SWEEPS = {"cornet_rt": "biological", "cornet_r": "published", "cornet_r@full_sweep": "full"}


def cornet(module: nn.Module, x: torch.Tensor, sweep: str) -> torch.Tensor:
    """Five steps, as the papers describe them. The tensors are those of a module of ours."""
    part = module.get_submodule

    def enter(area: str, value: torch.Tensor) -> torch.Tensor:
        source = "input" if area == "V1" else AREAS[AREAS.index(area) - 1]
        edge = f"edges.{source}__{area}"
        return torch.relu(part(f"{edge}.norm")(part(f"{edge}.conv")(value)))

    size = x.shape[-1] // 4
    empty = {area: x.new_zeros(len(x), 64 * 2**i, size >> i, size >> i) for i, area in enumerate(AREAS)}
    state: dict[str, torch.Tensor] = {}
    for step in range(5):
        before = dict(state)
        for i, area in enumerate(AREAS):
            given = x if area == "V1" else (before if sweep == "biological" else state).get(AREAS[i - 1])
            if area != "V1" and step == 0 and sweep != "full":
                given = None
            arrived = empty[area] if given is None else enter(area, given)
            total = arrived + before[area] if area in before else arrived
            state[area] = torch.relu(part(f"{area}.norm")(part(f"{area}.conv")(total)))
    out: torch.Tensor = part("decoder.linear")(state["IT"].mean((2, 3)))
    return out


def test_three_schedules_of_the_same_tensors_are_three_networks() -> None:
    """CORnet-RT, CORnet-R and the full sweep: each is what its paper says and what the definition says.

    With random norm shifts: with fresh norms (shift 0) a wrong rule passes.
    """
    small = {"input.height": 32, "input.width": 32}
    held = scrambled(hrg.load("cornet_rt").override(small).build(seed=1)).state_dict()
    outputs = []
    for key, sweep in SWEEPS.items():
        net = shipped(key).override(small)
        assert net.cost().parameters == 5_208_936
        module = net.build().double()
        module.load_state_dict(held)
        (x,) = images(net, batch=2)
        with torch.no_grad():
            outputs.append(module(x))
            near(outputs[-1], cornet(module, x, sweep), key)
            near(outputs[-1], run(net, module, x).output, key)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert (outputs[i] - outputs[j]).norm() > 1e-3 * outputs[i].norm()


# ------------------------------------------------------------------------------------------------------------- CORnet-S


class Area(nn.Module):
    """An area of CORnet-S by its description: a bottleneck whose weights run several times, with norms for each."""

    def __init__(self, in_channels: int, channels: int, times: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.shortcut = nn.Conv2d(channels, channels, 1, stride=2, bias=False)
        self.shortcut_norm = nn.BatchNorm2d(channels)
        inner = 4 * channels
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(inner, channels, 1, bias=False)
        widths = (inner, inner, channels)
        self.norms = nn.ModuleList(nn.ModuleList(nn.BatchNorm2d(n) for n in widths) for _ in range(times))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        for time, norms in enumerate(self.norms):
            assert isinstance(norms, nn.ModuleList)
            skip = self.shortcut_norm(self.shortcut(x)) if time == 0 else x
            x = torch.relu(norms[0](self.conv1(x)))
            x = functional.conv2d(x, self.conv2.weight, stride=2 if time == 0 else 1, padding=1)
            x = norms[2](self.conv3(torch.relu(norms[1](x))))
            x = torch.relu(x + skip)
        return x


class CORnetS(nn.Module):
    """V1, which runs once; three areas; the decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(64)
        self.conv2, self.norm2 = nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.V2, self.V4, self.IT = Area(64, 128, 2), Area(128, 256, 4), Area(256, 512, 2)
        self.decoder = nn.Linear(512, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(torch.relu(self.norm1(self.conv1(x))), 3, stride=2, padding=1)
        x = torch.relu(self.norm2(self.conv2(x)))
        out: torch.Tensor = self.decoder(self.IT(self.V4(self.V2(x))).mean((2, 3)))
        return out


def ours_of_cornet_s(name: str) -> str:
    """Our name of a tensor of `CORnetS`."""
    name = re.sub(r"^(conv|norm)1", r"V1_in.\1", name)
    name = re.sub(r"^(conv|norm)2", r"V1.\1", name)
    name = name.replace(".enter", "_in").replace("shortcut.weight", "shortcut.conv.weight")
    name = name.replace("shortcut_norm", "block1.shortcut.norm").replace("decoder", "decoder.linear")
    return re.sub(r"norms\.(\d)\.(\d)", lambda found: f"block{int(found[1]) + 1}.norm{int(found[2]) + 1}", name)


@pytest.fixture(scope="module")
def cornet_s() -> nn.Module:
    """Random norms in float32."""
    net = hrg.load("cornet_s").override({"input.height": 64, "input.width": 64})
    return scrambled(net.build(seed=2)).float()


def test_cornet_s_is_its_description(cornet_s: nn.Module) -> None:
    theirs = CORnetS()
    carry(theirs, cornet_s, ours_of_cornet_s)
    assert len(theirs.state_dict()) == len(cornet_s.state_dict())
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for training in (True, False):
        with torch.no_grad():
            found, expected = cornet_s.train(training)(x), theirs.train(training)(x)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    for name, value in theirs.named_buffers():
        torch.testing.assert_close(cornet_s.get_buffer(ours_of_cornet_s(name)), value)


@pytest.mark.slow
def test_cornet_s_traces_exports_and_compiles(cornet_s: nn.Module) -> None:
    """Equal outputs, bit for bit, of the module, its trace, its export, the compiled one and the emitted source."""
    net = hrg.load("cornet_s").override({"input.height": 64, "input.width": 64})
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    cornet_s.eval()
    torch._dynamo.reset()
    names: dict[str, type[nn.Module]] = {}
    exec(compile(net.source(), "model.py", "exec"), names)
    emitted = names["CornetS"]()
    emitted.load_state_dict(cornet_s.state_dict())
    with torch.no_grad():
        expected = cornet_s(x)
        for form in (
            torch.fx.symbolic_trace(cornet_s),
            torch.export.export(cornet_s, (x,)).module(),
            torch.compile(cornet_s, backend="aot_eager", fullgraph=True),
            emitted.eval(),
        ):
            assert torch.equal(form(x), expected)


# ----------------------------------------------------------------------------- residual networks in one to three states


def in_stages(states: int, n: int, width: int, size: int, *, shared: bool) -> hrg.Architecture:
    """The residual network that a network of states unfolds into: `into2` leads to stage 2, `own2` are its blocks."""
    tie = ", weights: shared" if shared else ""
    nodes = [f"pre: {{block: conv2d, width: {width}, kernel_size: 3, bias: false}}"]
    for i in range(states):
        if i > 0:
            nodes.append(f"into{i + 1}: {{block: preact_basic, width: {width << i}, stride: 2}}")
        depth = n if i == 0 else n - 1
        nodes.append(f"own{i + 1}: {{block: preact_basic, width: {width << i}, depth: {depth}{tie}}}")
    nodes += ["norm: batch_norm", "relu: relu", "head: {block: classifier, classes: 10}"]
    flow = " -> ".join(node.partition(":")[0] for node in nodes)
    shape = f"{{channels: 3, height: {size}, width: {size}}}"
    return hrg.loads(f"name: stages\ninput: {shape}\nnodes: {{{', '.join(nodes)}}}\nflow: {flow}\n")


def stage_names(n: int) -> Callable[[str], str]:
    """For a name of a tensor of the network of states, that of the network of stages."""

    def name_of(name: str) -> str:
        copy = re.search(r"\.step(\d+)", name)
        name = re.sub(r"\.step\d+", "", name)
        found = re.match(r"edges\.(h|s\d)__(h|s\d)\.(.*)", name)
        if found is None:
            return name
        stage = 1 if found[2] == "h" else int(found[2][1])
        if found[1] != found[2]:
            return f"into{stage}.{found[3]}"
        before = 0 if stage == 1 else (stage - 1) * n + 1
        block = f"block{int(copy[1]) - before}." if copy else ""
        return f"own{stage}.{block}{found[3]}"

    return name_of


@pytest.mark.parametrize("variant", [None, "unshared"])
@pytest.mark.parametrize(("name", "states", "n"), [("rnn_resnet1", 1, 9), ("rnn_resnet2", 2, 4), ("rnn_resnet3", 3, 3)])
def test_states_are_stages_of_residual_blocks(name: str, states: int, n: int, variant: str | None) -> None:
    """Outputs, gradients and running statistics, in train and in eval mode."""
    net = hrg.load(name).variant(variant).override({"width": 4, "size": 8})
    stages = in_stages(states, n, 4, 8, shared=variant is None)
    assert net.cost().parameters == stages.cost().parameters
    assert net.cost().macs == stages.cost().macs
    expected, module, names = scrambled(stages.build()), net.build().double(), stage_names(n)
    carry(module, expected, names)
    xs = images(net)
    for training in (True, False):
        same(renamed(outcome(module.train(training), xs), names), outcome(expected.train(training), xs))


def test_three_states_without_sharing_are_the_resnet_20_of_pytorchcv() -> None:
    from pytorchcv.model_provider import get_model

    theirs, stages = get_model("preresnet20_cifar10"), in_stages(3, 3, 16, 32, shared=False).build()
    ordered = zip(stages.state_dict(), theirs.state_dict().values(), strict=True)
    stages.load_state_dict(dict(ordered))
    ours = shipped("rnn_resnet3@unshared").build()
    carry(ours, stages, stage_names(3))
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for training in (True, False):
        torch.testing.assert_close(ours.train(training)(x), theirs.train(training)(x), rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------- recurrent convolutional layers, BLT


def test_rcnn_has_the_published_parameters_with_biases_in_place_of_norms() -> None:
    tensors = hrg.load("rcnn").build().state_dict()
    others = sum(value.numel() for name, value in tensors.items() if "norm" not in name or "conv" in name)
    assert others + 5 * 96 == 672_202  # 0.67 M


def test_rcnn_is_its_layers_one_after_another() -> None:
    net = hrg.load("rcnn").override(SMALL["rcnn"])
    module = scrambled(net.build())
    part = module.get_submodule

    def halved(x: torch.Tensor) -> torch.Tensor:
        return functional.max_pool2d(x, 3, stride=2, padding=1)

    def layer(name: str, u: torch.Tensor) -> torch.Tensor:
        drive = part(f"{name}.drive")(u)
        x = torch.relu(part(f"{name}.norm.step0")(drive))
        for t in (1, 2, 3):
            x = torch.relu(part(f"{name}.norm.step{t}")(drive + part(f"{name}.edges.relu__norm.conv")(x)))
        return x

    (x,) = images(net)
    for training in (True, False):
        module.train(training)
        found = module(x)
        y = halved(torch.relu(part("stem.norm")(part("stem.conv")(x))))
        y = halved(layer("layer2", layer("layer1", y)))
        y = layer("layer4", layer("layer3", y)).amax((2, 3))
        near(found, part("head.linear")(y))


@pytest.mark.parametrize("variant", ["engineering", "biological"])
def test_blt_is_its_description(variant: str) -> None:
    """x_l[t] = relu(norm_t(bottom-up of x_(l-1) + lateral of x_l[t-1] + top-down of x_(l+1)[t-1]))."""
    net = hrg.load("blt").variant(variant).override(SMALL["blt"])
    module = scrambled(net.build()).eval()
    part = module.get_submodule
    (image,) = images(net)
    delay = 1 if variant == "biological" else 0
    x: list[dict[str, torch.Tensor]] = []
    for t in range(6):
        now: dict[str, torch.Tensor] = {}
        x.append(now)
        before = x[t - 1] if t else {}
        for i, area in enumerate(AREAS):
            arriving = [part("edges.input__V1.conv")(image)] if i == 0 else []
            below, above = AREAS[i - 1] if i else "", AREAS[i + 1] if i < 3 else ""
            if below in (before if delay else now):
                value = functional.max_pool2d((before if delay else now)[below], 2)
                arriving.append(part(f"edges.{below}__{area}.conv")(value))
            if area in before:
                arriving.append(part(f"edges.{area}__{area}.conv")(before[area]))
            if above in before:
                arriving.append(part(f"edges.{above}__{area}.deconv")(before[above]))
            norm = f"{area}.norm.step{t}"
            if arriving and norm in dict(module.named_modules()):  # what does not reach the readout is not there
                now[area] = torch.relu(part(norm)(torch.stack(arriving).sum(0)))
    near(module(image), part("head.linear")(x[5]["IT"].mean((2, 3))))
