"""Nested modules: one for each node, stage and block, with straight-line code at every level."""

from __future__ import annotations

import copy
import io
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx, nn

import hiresnet_graph as hrg
from hiresnet_graph.lower.interpreter import Interpreter
from hiresnet_graph.shipped import spec_names
from hiresnet_graph.tree import make_tree

TIED = """
name: tied
input: {channels: 2, height: 8, width: 8}
nodes:
  area_in: {block: conv2d, width: 8, kernel_size: 1}
  area: {block: bottleneck, width: 8, hidden: 4, depth: 3, stride: 2, weights: shared}
  a: {block: basic, width: 8, weights: common}
  b: {block: basic, width: 8, weights: common}
  head: {block: classifier, classes: 3}
flow: area_in -> area -> a -> b -> head
"""
SMALL: tuple[tuple[str, str | None, dict[str, Any]], ...] = (
    ("hiresnet18", "full", {"width": 4, "input.height": 16, "input.width": 16}),
    ("ror3_56", None, {"n": 2}),
    ("unet", None, {"width": 4, "input.height": 16, "input.width": 16}),
    ("densenet40", None, {"n": 2, "growth": 4}),
    (TIED, None, {}),
    ("blt", "biological", {"width": 4, "size": 16}),
    ("frnn3", None, {"width": 4, "size": 8, "steps": 4}),
    ("rcnn", None, {"width": 4, "size": 16}),
)
"""A projection at `output`, one at `residual`, concatenations, shared weights, delays, states, and inner time."""


def network(name: str, variant: str | None, changes: dict[str, Any]) -> hrg.Architecture:
    arch = (hrg.loads(name) if "\n" in name else hrg.load(name)).override(changes)
    return arch if variant is None else arch.variant(variant)


COMPILED = {0: "hiresnet18", 4: "tied", 6: "frnn3"}
NO_INPUT_GRADIENTS = "ignore:Full backward hook is firing"
ARCHS = [pytest.param(network(*given), id=given[0] if given[0] != TIED else "tied") for given in SMALL]


def inputs(arch: hrg.Architecture, batch: int = 2, **options: Any) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(batch, *shape, **options) for shape in arch.plan.inputs.values()]


def total(output: Any) -> torch.Tensor:
    found: torch.Tensor = sum(value.sum() for value in (output.values() if isinstance(output, dict) else [output]))
    return found


def modules_of_spec(arch: hrg.Architecture) -> dict[str, int]:
    """The nodes, blocks and stages of a network, and how often each is called: once, or once for each step."""
    nodes = [record for record in arch.plan.nodes if record.block != "input"]
    stages = {record.stage: len(record.at_steps) or 1 for record in nodes if record.stage}
    return {**{record.name: len(record.at_steps) or 1 for record in nodes}, **stages}


def all_networks() -> Iterator[tuple[str, hrg.Architecture]]:
    for name in spec_names():
        arch = hrg.load(name)
        yield name, arch
        for variant in arch.variants:
            yield f"{name}@{variant}", arch.variant(variant)


def assert_hooks_fire_once(arch: hrg.Architecture) -> None:
    """On the meta device, which computes shapes alone."""
    with torch.device("meta"):
        module = arch.build()
        images = inputs(arch)
    forward: Counter[str] = Counter()
    backward: Counter[str] = Counter()
    expected = modules_of_spec(arch)
    for path in expected:
        part = module.get_submodule(path)
        part.register_forward_hook(lambda *_, path=path: forward.update([path]))
        part.register_full_backward_hook(lambda *_, path=path: backward.update([path]))
    total(module(*images)).backward()
    assert forward == expected
    assert backward == expected


@pytest.mark.filterwarnings(NO_INPUT_GRADIENTS)
@pytest.mark.parametrize("arch", ARCHS)
def test_hooks_fire_once_on_each_node_and_block(arch: hrg.Architecture) -> None:
    assert_hooks_fire_once(arch)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings(NO_INPUT_GRADIENTS)
def test_hooks_fire_once_on_each_node_and_block_of_the_shipped_specs() -> None:
    names = [name for name, arch in all_networks() if not assert_hooks_fire_once(arch)]
    assert len(names) > 70


@pytest.mark.parametrize("arch", ARCHS)
def test_a_hook_sees_the_value_of_the_node(arch: hrg.Architecture) -> None:
    plan, module = arch.plan, arch.build().eval()
    images = inputs(arch)
    values = Interpreter(plan, module).run(dict(zip(plan.inputs, images, strict=True)))
    held: dict[str, list[torch.Tensor]] = {}
    records = {record.name: record for record in plan.nodes if record.block != "input"}
    for name in records:
        module.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: held.setdefault(name, []).append(out)
        )
    module(*images)
    for name, record in records.items():
        expected = [value for _, value in record.at_steps] or [record.value]
        assert all(map(torch.equal, held[name], [values[value] for value in expected])), name


@pytest.mark.parametrize("arch", ARCHS)
def test_code_is_straight_line_at_every_level(arch: hrg.Architecture) -> None:
    module = arch.build().eval()
    images = inputs(arch)
    flat = fx.symbolic_trace(module)
    assert torch.equal(flat(*images), module(*images))
    calls = {node.target for node in flat.graph.nodes if node.op == "call_module"}
    assert calls == {path for path, part in module.named_modules() if path in calls}
    assert all("torch.nn" in type(module.get_submodule(path)).__module__ for path in calls)


@pytest.mark.parametrize("arch", [pytest.param(network(*SMALL[k]), id=name) for k, name in COMPILED.items()])
def test_the_whole_network_is_compiled_and_exported(arch: hrg.Architecture) -> None:
    module = arch.build().eval()
    images = inputs(arch)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    assert torch.equal(compiled(*images), module(*images))
    program = torch.export.export(module, tuple(images))
    assert torch.equal(program.module()(*images), module(*images))


@pytest.mark.parametrize("arch", ARCHS)
def test_copies_have_the_same_tensors_in_the_same_order(arch: hrg.Architecture) -> None:
    module = arch.build().eval()
    assert sorted(module.state_dict()) == sorted(arch.plan.tensors())
    images = inputs(arch)
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(module), torch.load(buffer, weights_only=False)):
        assert torch.equal(other(*images), module(*images))
        assert list(other.state_dict()) == list(module.state_dict())
        assert [name for name, _ in other.named_parameters()] == [name for name, _ in module.named_parameters()]
        with torch.no_grad():
            for value in other.parameters():
                value.mul_(1.5)
        assert not torch.equal(other(*images), module(*images))  # nothing is shared with the original


def test_a_block_can_be_called_and_copied_alone() -> None:
    module = network(*SMALL[0]).build().eval()
    images = torch.randn(2, 3, 16, 16)
    held: list[torch.Tensor] = []
    module.get_submodule("stage2.block1").register_forward_hook(lambda _, args, out: held.extend([args[0], out]))
    module(images)
    given, expected = held
    assert torch.equal(module.get_submodule("stage2.block1")(given), expected)
    assert torch.equal(copy.deepcopy(module.get_submodule("stage2.block1"))(given), expected)
    assert torch.equal(module.get_submodule("stem")(images), module.get_submodule("stem")(images))


class Doubled(nn.Module):
    """A layer in place of another, which counts its calls."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.calls = layer, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        out: torch.Tensor = 2 * self.layer(x)
        return out


def test_replaced_layers_are_used_at_all_steps() -> None:
    """As LoRA and quantization do it."""
    arch = network("blt", None, {"width": 4, "size": 16})
    for module in (arch.build().eval(), copy.deepcopy(arch.build().eval())):
        images = inputs(arch)
        before = module(*images)
        edge = module.get_submodule("edges.V1__V1")
        edge.conv = doubled = Doubled(edge.get_submodule("conv"))
        assert not torch.equal(module(*images), before)
        assert doubled.calls == 5


def test_a_saved_module_does_not_need_this_package(tmp_path: Path) -> None:
    arch = network(TIED, None, {})
    module = arch.build().eval()
    images = inputs(arch)
    torch.save({"module": module, "images": images, "output": module(*images)}, tmp_path / "module.pt")
    code = (
        "import sys, torch; sys.modules['hiresnet_graph'] = None\n"
        f"held = torch.load({str(tmp_path / 'module.pt')!r}, weights_only=False)\n"
        "print(torch.equal(held['module'](*held['images']), held['output']))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout.strip() == "True", done.stderr


def test_the_meta_device_is_respected() -> None:
    arch = network(*SMALL[0])
    with torch.device("meta"):
        module = arch.build()
    assert all(value.is_meta for value in module.state_dict().values())
    module.load_state_dict(arch.build(3).state_dict(), assign=True)
    images = inputs(arch)
    assert torch.equal(module.eval()(*images), arch.build(3).eval()(*images))


def test_blocks_that_the_plan_mixes_are_flat() -> None:
    """A value leaves the stage, goes through a node, and comes back: the stage is not called, its blocks are."""
    arch = hrg.loads("""
name: mixed
input: {channels: 2, height: 4, width: 4}
nodes:
  s: {block: conv, width: 3, depth: 2}
  side: {block: conv, width: 3}
  head: {block: classifier, classes: 2}
flow: s -> head
edges: [{from: s.block1, to: side}, {from: side, to: s, slot: output}]
""")
    module = arch.build().eval()
    called = {call.path for call in make_tree(arch.plan).root.all()}
    assert called == {"", "s.block1", "s.block2", "side", "head"}
    with pytest.raises(NotImplementedError):
        module.get_submodule("s")(torch.zeros(1, 2, 4, 4))
    images = inputs(arch)
    values = Interpreter(arch.plan, module).run(dict(zip(arch.plan.inputs, images, strict=True)))
    assert torch.equal(module(*images), values["head.linear"])


def test_an_inner_value_that_is_read_outside_is_a_second_output() -> None:
    arch = hrg.loads("""
name: inner
input: {channels: 2, height: 4, width: 4}
nodes:
  a: {block: conv, width: 3}
  b: {block: conv, width: 3, merge: add}
  head: {block: classifier, classes: 2}
flow: a -> b -> head
edges: [{from: a.conv, to: b}]
""")
    module = arch.build().eval()
    images = inputs(arch)
    own, conv = module.get_submodule("a")(*images)
    assert torch.equal(own, torch.relu(module.get_submodule("a.norm")(conv)))
    assert torch.equal(module(*images), module.get_submodule("head")(module.get_submodule("b")(own + conv)))


def test_a_state_is_called_with_its_value_and_can_change_it() -> None:
    """A node that computes nothing: those who read it see what a hook returns, others do not."""
    arch = hrg.loads("""
name: passing
input: {channels: 2, height: 4, width: 4}
nodes:
  a: {block: conv, width: 3}
  same: identity
  b: {block: conv, width: 3}
  c: {block: conv, width: 3}
  out: {block: identity, merge: concat}
flow: [a -> same -> b -> out, a -> c -> out]
""")
    module = arch.build().eval()
    images = inputs(arch)
    before = module(*images)
    module.get_submodule("same").register_forward_hook(lambda _, __, out: 0 * out)
    after = module(*images)
    zeros = torch.zeros(2, 3, 4, 4)
    assert torch.equal(after[:, :3], module.get_submodule("b")(zeros))
    assert not torch.equal(before[:, :3], after[:, :3])
    assert torch.equal(before[:, 3:], after[:, 3:])


@pytest.mark.parametrize("arch", [network(*SMALL[0]), network(*SMALL[4])], ids=["hiresnet18", "tied"])
def test_activation_checkpointing_by_block(arch: hrg.Architecture) -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing

    images = inputs(arch)
    blocks = [record.name for record in arch.plan.nodes if record.stage]
    gradients = []
    for wrapped in (False, True):
        module = arch.build().eval()
        if wrapped:
            found = {module.get_submodule(name) for name in blocks}
            apply_activation_checkpointing(module, check_fn=lambda part, found=found: part in found)
        runs: Counter[str] = Counter()
        layer = module.get_submodule(blocks[0])
        layer.register_forward_pre_hook(lambda *_, runs=runs: runs.update(["block"]))
        next(part for part in layer.modules() if isinstance(part, nn.BatchNorm2d)).register_forward_pre_hook(
            lambda *_, runs=runs: runs.update(["norm"])
        )
        total(module(*images)).backward()
        assert runs == {"block": 1, "norm": 2 if wrapped else 1}
        gradients.append([value.grad for value in module.parameters()])
    for one, two in zip(*gradients, strict=True):
        assert one is not None and two is not None and torch.equal(one, two)
    assert sorted(module.state_dict()) == sorted(arch.plan.tensors())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_wrapping_by_block_on_two_processes() -> None:
    """Each block is a unit of FSDP2, also when it is recomputed; the gradients are those of DistributedDataParallel."""
    script = Path(__file__).with_name("two_processes.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["hiresnet18", "equal", "cornet_s", "equal", "frnn3", "equal"]
