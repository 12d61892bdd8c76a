"""The state of the optimizer in checkpoints: by names of parameters, whatever their groups."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import hiresnet_graph as hrg
from hiresnet_graph.errors import UsageError
from hiresnet_graph.stack import run_stack
from hiresnet_graph.stack.request import StackMember, StackRequest
from hiresnet_graph.train import Recipe, RunRequest
from hiresnet_graph.train.checkpoint import load_checkpoint, save_checkpoint
from hiresnet_graph.train.events import Refused, RunEvent
from hiresnet_graph.train.optimizer_state import from_tensors, load_state, state_by_name, to_tensors
from hiresnet_graph.train.trainer import make_optimizer
from tests.train.runs import events_of, finish, request, result_of, stop_after

RULES: dict[str, Any] = {"freeze": ["stem"], "lr_scale": {"stage*": 0.5, "head": 4}}


def learn(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    """One step on random images."""
    x_BCHW = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    module(x_BCHW).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_groups_in_another_order_continue_with_the_same_bits(tiny: hrg.Architecture, kind: str) -> None:
    recipe = Recipe(optimizer=kind, weight_decay=0.01)
    module, other = tiny.build(0), tiny.build(1)
    names = [name for name, _ in module.named_parameters()]
    grouped = dict.fromkeys(names, 1.0) | {name: 4.0 for name in names if name.startswith("head")}
    reverse = {name: grouped[name] for name in reversed(names)}
    optimizers = make_optimizer(recipe, module, grouped), make_optimizer(recipe, other, reverse)
    for seed in range(3):
        learn(module, optimizers[0], seed)
    other.load_state_dict(module.state_dict())
    tensors = to_tensors(state_by_name(optimizers[0], module))
    moment = "momentum_buffer" if kind == "sgd" else "exp_avg"
    assert {key for key in tensors if key.endswith(moment)} == {f"optimizer.{name}.{moment}" for name in names}
    load_state(optimizers[1], other, from_tensors(tensors))
    for seed in range(3, 6):
        learn(module, optimizers[0], seed)
        learn(other, optimizers[1], seed)
    for name, value in module.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_a_run_with_groups_resumes_with_the_same_bits(tiny: hrg.Architecture, tmp_path: Path) -> None:
    finish(request(tiny, **RULES), tmp_path / "whole")
    events_of(request(tiny, **RULES), tmp_path / "pieces", stop=stop_after(9))
    found = load_checkpoint(tmp_path / "pieces")
    trained = {name for name, _ in tiny.build().named_parameters() if not name.startswith("stem.")}
    assert found is not None and set(from_tensors(found.tensors)) == trained
    finish(request(tiny, **RULES), tmp_path / "pieces")
    assert result_of(tmp_path / "pieces") == result_of(tmp_path / "whole")


def numbered(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint as an older version wrote them: with numbers in place of names."""
    rest = {key: value for key, value in tensors.items() if not key.startswith("optimizer.")}
    state = from_tensors(tensors)
    return rest | to_tensors({str(index): entries for index, entries in enumerate(state.values())})


def alone(asked: RunRequest, folder: Path) -> None:
    finish(asked, folder)


def stacked(asked: RunRequest, folder: Path) -> None:
    """Train a stack of this run; its refusal is raised."""
    for one in run_stack(StackRequest((StackMember("run", asked, folder),), asked.spec, "branches")):
        if isinstance(one, RunEvent) and isinstance(one.event, Refused):
            assert one.event.is_final
            raise UsageError(one.event.message)


@pytest.mark.parametrize("resume", [alone, stacked])
def test_an_older_checkpoint_is_refused(
    tiny: hrg.Architecture, tmp_path: Path, resume: Callable[[RunRequest, Path], None]
) -> None:
    events_of(request(tiny), tmp_path, stop=stop_after(3))
    found = load_checkpoint(tmp_path)
    assert found is not None
    save_checkpoint(tmp_path, found.counters, numbered(found.tensors))
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UsageError) as error:
        resume(request(tiny), tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: its checkpoint has the state of the optimizer for '0', which is no parameter of the network: it "
        "was not written by this version. Choose another folder, or start over in this one with 'hrg train --fresh'."
    )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files
    finish(request(tiny), tmp_path, fresh=True)


def test_a_finished_run_of_an_older_version_is_not_continued(tiny: hrg.Architecture, tmp_path: Path) -> None:
    finish(request(tiny, epochs=1), tmp_path)
    path = tmp_path / "optimizer.safetensors"
    save_file(numbered(load_file(path)), path)
    with pytest.raises(UsageError, match=r"state of the optimizer for '0', which is no parameter of the network"):
        finish(request(tiny), tmp_path)
