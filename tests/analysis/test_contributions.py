"""Contributions of edges, compared with hooks on the modules of a trained network."""

import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.analysis import ProbedNetwork, measure_contributions
from hiresnet_graph.lower.interpreter import Interpreter
from hiresnet_graph.train import Run
from tests.train.states import states


def test_they_equal_a_computation_with_hooks(trained: Run, images) -> None:
    x, _ = images
    module = trained.model()
    seen: dict[str, list[torch.Tensor]] = {}
    names = ["stem.norm", "stage2.block1.norm2", "stage2.block1.shortcut.norm", "edges.stem__stage2.norm"]
    names += ["edges.stage1__stage2.norm", "stage1.block1.norm2"]
    for name in names:
        store = seen.setdefault(name, [])
        module.get_submodule(name).register_forward_hook(lambda _, args, out, store=store: store.append(out.clone()))
    with torch.no_grad():
        for batch in x.split(100):
            module(batch)
    values = {name: torch.cat(found).double() for name, found in seen.items()}
    values["stage2 out"] = torch.relu(values["stage2.block1.norm2"] + values["stage2.block1.shortcut.norm"])
    expected = {
        ("residual", "stage2.block1"): "stage2.block1.norm2",
        ("residual", "stage2.block1.shortcut"): "stage2.block1.shortcut.norm",
        ("output", "stage2.block1"): "stage2 out",
        ("output", "stage1>stage2"): "edges.stage1__stage2.norm",
        ("output", "stem>stage2"): "edges.stem__stage2.norm",
    }
    with torch.no_grad():
        found = measure_contributions(ProbedNetwork(trained.architecture, trained.model()), x.split(70))
    at_stage2 = {(one.slot, one.edge): one for one in found if one.target == "stage2.block1"}
    assert at_stage2.keys() == expected.keys()
    for slot in ("residual", "output"):
        means = {key: values[name].abs().mean().item() for key, name in expected.items() if key[0] == slot}
        for key, mean in means.items():
            assert at_stage2[key].mean_abs == pytest.approx(mean, rel=1e-6)
            assert at_stage2[key].share == pytest.approx(mean / sum(means.values()), rel=1e-6)
    assert [one.kind for one in found if one.slot == "output"] == ["function", "skip", "function", "skip", "skip"]


def test_shares_sum_to_one_at_each_merge_and_step() -> None:
    arch = states(readout="all")
    module = arch.build(seed=3).eval()
    network = ProbedNetwork(arch, module)
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = measure_contributions(network, [x])
        seen = Interpreter(arch.plan, module).run({"input": x})
    sums: dict[tuple[str, int | None], float] = {}
    for one in found:
        assert one.share is not None
        sums[one.target, one.step] = sums.get((one.target, one.step), 0.0) + one.share
    assert sums.keys() == {("s2", 2), ("s3", 2), ("s1", 2), ("s1", 3), ("s2", 3), ("s3", 3), ("s3", 4)}
    assert all(total == pytest.approx(1) for total in sums.values())
    merges = [call for call in arch.plan.calls if call.op.kind == "add" and ".input.add" in call.name]
    assert len(merges) == len(sums)
    for call in merges:
        ours = sorted(one.mean_abs for one in found if (one.target, one.step) == (call.owner, call.step))
        assert ours == pytest.approx(sorted(seen[name].abs().mean().item() for name in call.inputs), rel=1e-5)


TWO_AREAS = """
name: two_areas
input: {channels: 1, height: 8, width: 8}
blocks:
  area: {nodes: {norm: batch_norm, relu: relu}, flow: norm -> relu}
  conv3: {block: conv2d, kernel_size: 3, bias: false, width: 4}
nodes: {V1: area, V2: area, head: {block: classifier, classes: 10}}
flow: V2 -> head
edges: [{from: input, to: V1, block: conv3}]
transitions:
  V1: {V1: conv3, V2: {block: conv3, delay: 0}}
  V2: {V1: conv3}
time: {steps: 3, input: every, readout: all}
"""


@pytest.mark.parametrize("text", [TWO_AREAS, "{name: small, extends: blt, params: {width: 4, size: 16}}"])
def test_an_input_that_is_projected_once_contributes_at_each_step(text: str) -> None:
    arch = hrg.loads(text)
    module = arch.build(seed=1).eval()
    x = torch.randn(3, *tuple(arch.plan.inputs["input"].frame), generator=torch.Generator().manual_seed(0))
    network = ProbedNetwork(arch, module)
    with torch.no_grad():
        found = measure_contributions(network, [x])
        seen = Interpreter(arch.plan, module).run({"input": x})
    merges = [call for call in arch.plan.calls if call.op.kind == "add" and ".input.add" in call.name]
    assert {call.step for call in merges if "edges.input__V1.conv.step0" in call.inputs} == {
        *range(1, arch.timing.steps)
    }
    for call in merges:
        at_call = [one for one in found if (one.target, one.step) == (call.owner, call.step)]
        ours = sorted(one.mean_abs for one in at_call)
        assert ours == pytest.approx(sorted(seen[name].abs().mean().item() for name in call.inputs), rel=1e-5)
        assert sum(one.share or 0.0 for one in at_call) == pytest.approx(1)


def test_probes_change_neither_the_function_nor_the_tensors(trained: Run, images) -> None:
    x, _ = images
    module = trained.model()
    network = ProbedNetwork(trained.architecture, module)
    assert network.plan.tensors() == trained.architecture.plan.tensors()
    with torch.no_grad():
        assert torch.equal(network.output(network.run(x)), module(x))
