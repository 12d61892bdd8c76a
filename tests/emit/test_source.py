"""The text of emitted source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import hiresnet_graph as hrg
from hiresnet_graph.blocks import BLOCKS, Block
from hiresnet_graph.emit import emit
from hiresnet_graph.errors import UsageError
from hiresnet_graph.identifiers import class_name
from hiresnet_graph.lower import build
from hiresnet_graph.ops import OPS, Apply, Arg, Layer, Op
from hiresnet_graph.shapes import Shape
from hiresnet_graph.shipped import spec_names
from hiresnet_graph.wire import Wire
from tests.emit.compare import assert_equal_tensors, assert_same, assert_well_written, load_source
from tests.emit.networks import CASES, IN_TIME, network, timed


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
        "Stage1",
        "Stage2",
        "Stage3",
    ]
    assert (
        """
    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu(out + shortcut)
"""
        in text
    )
    assert (
        """
        self.block2 = BasicBlock(out_channels, out_channels)
        self.block3 = BasicBlock(out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor, skip2: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(x)))
        return x + skip + skip2
"""
        in text
    )
    assert (
        """
        stage1 = self.stage1(stem)
        x = self.stage2(stage1, self.edges["stage1__stage2"](stage1), self.edges["stem__stage2"](stem))
"""
        in text
    )


def test_blocks_of_one_form_share_a_class() -> None:
    text = emit(hrg.load("resnet110").plan)
    assert text.count("class BasicBlock") == 1
    assert text.count("BasicBlock(out_channels, out_channels)") == 17  # stages 2 and 3 share a class
    assert text.count("class Stage(nn.Module)") == 1


def test_stages_are_modules_with_the_value_that_the_built_network_has() -> None:
    plan = hrg.load("hiresnet18").variant("full").override({"width": 4}).plan
    emitted, built = load_source(emit(plan))["Hiresnet18"](), build(plan).eval()
    emitted.load_state_dict(built.state_dict())
    held: dict[str, list[torch.Tensor]] = {}
    for path in ("stem", "stage1", "stage2", "stage3", "stage2.block1", "head"):
        for module in (emitted.eval(), built):
            module.get_submodule(path).register_forward_hook(
                lambda _, __, out, path=path: held.setdefault(path, []).append(out)
            )
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(emitted(images), built(images))
    assert len(held) == 6 and all(len(pair) == 2 and torch.equal(*pair) for pair in held.values())


# What the source writes out in networks with `time`: states, a norm with copies as a node, and blocks of tied stages.
WRITTEN_OUT = {
    "cornet_s": {
        f"{area}{part}"
        for area, depth in (("V2", 2), ("V4", 4), ("IT", 2))
        for part in ("", ".block1.shortcut", *(f".block{i + 1}" for i in range(depth)))
    },
    **{name: {"s1", "s2", "norm"} for name in ("frnn2", "rnn_resnet2")},
    **{name: {"s1", "s2", "s3", "norm"} for name in ("frnn3", "rnn_resnet3")},
    **{name: {"s1", "s2", "s3", "s4", "norm"} for name in ("frnn4", "frnn4_imagenet")},
    "rnn_resnet1": {"h", "norm"},
}


def modules_with_code(module: nn.Module) -> set[str]:
    """The addresses of all modules that have a `forward`."""
    return {path for path, one in module.named_modules() if one.forward.__name__ != "_forward_unimplemented"}


@pytest.mark.parametrize("name", spec_names())
def test_the_tree_of_modules_is_that_of_the_built_network(name: str) -> None:
    arch = hrg.load(name)
    with torch.device("meta"):
        built, emitted = arch.build(), load_source(emit(arch.plan))[class_name(arch.plan.name)]()
    assert modules_with_code(built) - modules_with_code(emitted) == WRITTEN_OUT.get(name, set())
    assert {path for path, _ in emitted.named_modules()} <= {path for path, _ in built.named_modules()}


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
    assert text.count("PlainBlock(channels)") == 1000


# Networks in time


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
