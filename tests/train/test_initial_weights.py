"""Runs that start from weights: which tensors they take, their keys, and resuming them."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import hiresnet_graph as hrg
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.stack import run_stack
from hiresnet_graph.stack.request import StackMember, StackRequest
from hiresnet_graph.train import Recipe, RunRequest, Seeds, identify_request, train
from hiresnet_graph.train.identity import identify_network, identify_run
from hiresnet_graph.train.initial_weights import InitialWeights, initial_weights
from hiresnet_graph.train.single import resume_run
from tests.train.runs import finish, request, result_of, stop_after

SMALL = """\
name: tiny
input: {channels: 1, height: 4, width: 4}
nodes: {stem: {block: conv, width: 3}, head: {block: classifier, classes: 10}}
flow: stem -> head
"""
QUICK = Recipe(epochs=2, batch_size=200)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the network without skips."""
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("base")
    train(hrg.loads(TINY).with_edges("none"), out=folder, recipe=QUICK, seed=3)
    return folder


def started(arch: hrg.Architecture, source: Path, reinit: bool = False, **fields: object) -> RunRequest:
    weights, _ = initial_weights(source, reinit=reinit)
    return replace(request(arch, **fields), weights=weights)


def test_a_run_without_weights_has_the_key_that_it_always_had() -> None:
    network = identify_network(hrg.loads(SMALL).plan)
    assert identify_run(network, Recipe(), Seeds(0, 1), None).key == "809bf3faf479e2193b97d3c0"


def test_the_key_has_the_content_of_the_weights_and_nothing_else(tiny: hrg.Architecture, tmp_path: Path) -> None:
    state, other = dict(tiny.build(1).state_dict()), dict(tiny.build(2).state_dict())
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth")
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "c.pt")
    save_file(other, tmp_path / "d.safetensors")
    (tmp_path / "run").mkdir()
    save_file(state, tmp_path / "run" / "model.safetensors")
    names = ("a.safetensors", "b.pth", "c.pt", "run", "d.safetensors")
    keys = [identify_request(started(tiny, tmp_path / name)).key for name in names]
    assert keys[0] == keys[1] == keys[2] == keys[3] != keys[4]
    assert identify_request(request(tiny)).key not in keys


def test_a_run_starts_from_the_weights(tiny: hrg.Architecture, base: Path, tmp_path: Path) -> None:
    arch = tiny.with_edges("none")
    # All but the head is frozen, and its rate is next to nothing: the network stays what it was.
    recipe = Recipe(epochs=1, batch_size=200, optimizer="sgd", momentum=0.0, lr=1e-20, freeze=("stem", "stage*"))
    said: list[str] = []
    record = train(arch, out=tmp_path, recipe=recipe, seed=8, weights=base, on_weights=said.append)
    before = hrg.load_run(base).record
    assert record.validation_accuracy == before.validation_accuracy and record.test_accuracy == before.test_accuracy
    ours, theirs = load_file(tmp_path / "last.safetensors"), load_file(base / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs) and not said
    weights = record.weights
    assert weights is not None and weights.source == str(base) and weights == initial_weights(base)[0]
    assert before.weights is None


def test_what_does_not_fit_is_an_error_or_random(tiny: hrg.Architecture, base: Path, tmp_path: Path) -> None:
    full = tiny.with_edges("full").override({"head.classes": 7})
    with pytest.raises(
        UsageError,
        match=r"belong to another network: 'head\.linear\.weight' is .* To keep initial values .* '--reinit'",
    ):
        train(full, out=tmp_path, recipe=QUICK, weights=base)
    assert not list(tmp_path.iterdir())
    fit = initial_weights(base, reinit=True)[0].fit(full.plan)
    assert set(fit.reshaped) == {"head.linear.weight", "head.linear.bias"} and not fit.unused
    assert all(name.startswith("edges.") for name in fit.lacking) and fit.lacking
    assert set(fit.tensors) | set(fit.drawn) == set(full.plan.tensors())
    first, second = fit.sentences()
    assert first.startswith(f"{base / 'model.safetensors'} lacks 'edges.") and first.endswith(
        ": initial values are kept."
    )
    assert "'head.linear.weight', 'head.linear.bias' in another shape: initial values are kept." in second
    alien = hrg.loads(SMALL.replace("stem", "trunk").replace("classes: 10", "classes: 11"))
    with pytest.raises(UsageError, match="no tensor of this file fits the network"):
        initial_weights(base, reinit=True)[0].fit(alien.plan)


def test_a_network_may_lack_tensors_of_the_file(tiny: hrg.Architecture, tmp_path: Path) -> None:
    save_file(dict(tiny.with_edges("full").build(1).state_dict()), tmp_path / "w.safetensors")
    fit = initial_weights(tmp_path / "w.safetensors")[0].fit(tiny.with_edges("none").plan)
    assert not fit.drawn and fit.unused
    assert "which the network lacks: not used." in fit.sentences()[0]


def test_new_skips_with_a_scale_of_zero_change_no_bit(tiny: hrg.Architecture, base: Path) -> None:
    before = hrg.load_run(base).model().eval()
    after = tiny.with_edges("full").override({"skips.scale": {"learned": True, "init": 0.0}})
    weights, _ = initial_weights(base, reinit=True)
    module = after.build(5).eval()
    missing = module.load_state_dict(weights.fit(after.plan).tensors, strict=False).missing_keys
    assert missing and all(name.startswith("edges.") for name in missing)
    x = torch.randn(16, 1, 8, 8)
    assert torch.equal(module(x), before(x))


def test_a_resumed_run_gives_the_same_bits_and_needs_the_file_only_to_start(
    tiny: hrg.Architecture, base: Path, tmp_path: Path
) -> None:
    source = tmp_path / "weights"
    shutil.copytree(base, source)
    asked = started(tiny, source, reinit=True, freeze=["stem"], lr_scale={"stage*": 0.1}, weight_decay=1e-3)
    finish(asked, tmp_path / "whole")
    for steps in (2, 8):
        list(hrg.train.run(asked, tmp_path / str(steps), stop=stop_after(steps)))
    shutil.rmtree(source)
    finish(asked, tmp_path / "2")
    resume_run(tmp_path / "8")
    for name in ("2", "8"):
        assert result_of(tmp_path / name) == result_of(tmp_path / "whole")
    with pytest.raises(RunError, match=r"model\.safetensors|cannot be read"):
        finish(asked, tmp_path / "new")


def test_weights_that_have_changed_are_an_error(tiny: hrg.Architecture, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(dict(tiny.build(1).state_dict()), path)
    asked = started(tiny, path)
    save_file(dict(tiny.build(2).state_dict()), path)
    with pytest.raises(RunError, match="these weights have changed since the run was requested"):
        finish(asked, tmp_path / "run")
    finish(started(tiny, path), tmp_path / "run")
    save_file(dict(tiny.build(1).state_dict()), path)
    with pytest.raises(UsageError, match=f"holds another run: the weights in {path} were different"):
        finish(started(tiny, path), tmp_path / "run")
    with pytest.raises(UsageError, match=r"holds another run: weights was .*, now random"):
        finish(request(tiny), tmp_path / "run")


@pytest.mark.parametrize("backend", ["stacked", "branches"])
def test_a_stack_starts_from_the_weights_as_single_runs_do(
    tiny: hrg.Architecture, base: Path, tmp_path: Path, backend: str
) -> None:
    like = {"channels_last": False, "optimizer": "sgd", "lr": 0.001, "epochs": 1}
    networks = [tiny.with_edges(edges) for edges in ("none", "full", "in")]
    asked = [started(arch, base, reinit=True, **like) for arch in networks]
    runs = [StackMember(f"run {i}", one, tmp_path / f"stack{i}") for i, one in enumerate(asked)]
    list(run_stack(StackRequest(tuple(runs), tiny.with_edges("full").to_yaml(), backend)))  # type: ignore[arg-type]
    for i, one in enumerate(asked):
        record = finish(one, tmp_path / f"alone{i}").record
        together = hrg.load_run(tmp_path / f"stack{i}").record
        assert together.weights == record.weights and together.key == record.key
        assert together.epochs[0].train_loss == pytest.approx(record.epochs[0].train_loss, rel=1e-4)
        random = finish(request(networks[i], **like), tmp_path / f"random{i}").record
        assert record.epochs[0].train_loss < random.epochs[0].train_loss - 0.1


def test_weights_of_a_request_are_plain_data() -> None:
    weights = InitialWeights(source="/x", digest="ab", reinit=True)
    assert InitialWeights.model_validate_json(weights.model_dump_json()) == weights
