"""Training of networks in time: loss over the readout steps, activation checkpointing, resuming."""

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy

import hiresnet_graph as hrg
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.loader import Loader
from hiresnet_graph.errors import UsageError
from hiresnet_graph.train import Recipe, RunRequest, Seeds, identify_request, load_run, run
from hiresnet_graph.train.checks import check_loss_steps, count_readouts, match_input
from hiresnet_graph.train.evaluation import Scores, combine_steps, evaluate, last_step, loss_of, split_steps
from hiresnet_graph.train.single_trainer import training_forward
from tests.train.runs import events_of, finish, request, result_of, stop_after
from tests.train.states import states

KINDS = {
    "shared norms": {"per_step": "none"},
    "a norm for each step": {"readout": "all"},
    "unshared": {"per_step": "all", "readout": "all"},
}


@pytest.mark.parametrize("name", KINDS)
def test_a_network_in_time_learns_and_resumes_with_the_same_bits(tmp_path: Path, name: str) -> None:
    asked = request(states(**KINDS[name]), epochs=2, batch_size=325)
    record = finish(asked, tmp_path / "whole").record
    first, last = record.epochs
    assert last.train_loss < first.train_loss and last.train_accuracy > first.train_accuracy
    assert record.outcome == "complete" and record.key == identify_request(asked).key
    for steps in (2, 3):
        events_of(asked, tmp_path / "pieces", stop=stop_after(steps))
    finish(asked, tmp_path / "pieces")
    assert result_of(tmp_path / "pieces") == result_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("loss_steps", "shares"),
    [
        ("mean", [1 / 3, 1 / 3, 1 / 3]),
        ("last", [0, 0, 1]),
        ((1, 0, 3), [0.25, 0, 0.75]),
        ([2, 2, 4], [0.25, 0.25, 0.5]),
    ],
)
def test_the_loss_is_weighted_over_the_steps(loss_steps: object, shares: list[float]) -> None:
    weights = Recipe.model_validate({"loss_steps": loss_steps}).step_weights(3)
    assert weights == pytest.approx(shares)
    logits_BSK, labels_B = torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 4
    wanted = sum(w * cross_entropy(logits_BSK[:, s], labels_B, label_smoothing=0.1) for s, w in enumerate(shares))
    torch.testing.assert_close(loss_of(logits_BSK, labels_B, weights, 0.1), wanted)
    found = evaluate(lambda x: x, [(logits_BSK[:4], labels_B[:4]), (logits_BSK[4:], labels_B[4:])], top=2)
    assert found is not None and len(found) == 3
    for step, scores in enumerate(found):
        right = (logits_BSK[:, step].argmax(1) == labels_B).double().mean()
        among = (logits_BSK[:, step].topk(2).indices == labels_B[:, None]).any(1).double().mean()
        loss = cross_entropy(logits_BSK[:, step].double(), labels_B)
        assert scores == pytest.approx((loss.item(), right.item(), among.item()), rel=1e-6)
    whole = combine_steps(found, weights)
    assert whole[1:] == found[-1][1:]
    assert whole.loss == pytest.approx(sum(w * scores.loss for w, scores in zip(shares, found, strict=True)))


def test_a_step_of_weight_0_is_not_in_the_loss() -> None:
    logits = torch.zeros(2, 2, 3)
    logits[:, 0] = torch.tensor([float("inf"), 0, 0])
    logits.requires_grad_()
    loss = loss_of(logits, torch.tensor([0, 1]), (0.0, 1.0), 0.0)
    loss.backward()
    assert loss.isfinite() and logits.grad is not None and (logits.grad[:, 0] == 0).all()
    assert combine_steps([Scores(float("inf"), 0, 0), Scores(0.5, 1, 1)], (0.0, 1.0)) == Scores(0.5, 1, 1)


def test_scores_with_one_readout_step() -> None:
    logits_BK, labels_B = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    assert torch.equal(last_step(logits_BK), logits_BK) and split_steps(logits_BK).shape == (5, 1, 3)
    weights = Recipe(loss_steps="last").step_weights(1)
    assert torch.equal(
        loss_of(split_steps(logits_BK), labels_B, weights, 0.1), cross_entropy(logits_BK, labels_B, label_smoothing=0.1)
    )


def test_a_record_has_the_loss_of_its_recipe_and_the_accuracy_of_the_last_step(tmp_path: Path) -> None:
    arch = states(readout="all")
    assert count_readouts(arch.plan) == 4
    keys = set()
    for name, weights in {"mean": "mean", "last": "last", "some": [0, 1, 0, 3]}.items():
        record = finish(request(arch, epochs=1, batch_size=400, loss_steps=weights), tmp_path / name).record
        run_ = load_run(tmp_path / name)
        shares = record.recipe.step_weights(4)
        seen = [point.scores for point in run_.readout(part="validation")]
        assert all(scores is not None for scores in seen)
        loss = sum(share * scores.loss for share, scores in zip(shares, seen, strict=True))
        assert record.epochs[0].validation_loss == pytest.approx(loss, rel=1e-9)
        assert record.validation_accuracy == seen[-1].accuracy
        keys.add(record.key)
        images = load_dataset("digits").images_NCHW[:50]
        given = run_.model()(run_.preprocess(images))
        assert given.shape == (50, 4, 10)
        assert torch.equal(run_.predict(images), given[:, -1].softmax(1))
    assert len(keys) == 3


def test_the_training_accuracy_is_that_of_the_last_step(tmp_path: Path) -> None:
    """Of the network as it starts, since the only step takes all images and hardly moves."""
    arch = states(readout="all")
    asked = request(
        arch, Seeds(3, 0), epochs=1, batch_size=1294, optimizer="sgd", lr=1e-9, augment="none", loss_steps=[1, 2, 3, 4]
    )
    (epoch,) = finish(asked, tmp_path).record.epochs
    digits = match_input(load_dataset("digits"), arch.plan)
    ((x_BCHW, labels_B),) = Loader(digits, device=torch.device("cpu")).training(1, 1294)
    with torch.no_grad():
        logits_BRK = arch.build(3).train()(x_BCHW)
    accuracies = [(logits_BRK[:, r].argmax(1) == labels_B).double().mean().item() for r in range(4)]
    assert min(abs(accuracy - accuracies[-1]) for accuracy in accuracies[:-1]) > 0.01
    assert epoch.train_accuracy == pytest.approx(accuracies[-1], abs=2e-3)
    losses = [cross_entropy(logits_BRK[:, r], labels_B).item() for r in range(4)]
    assert epoch.train_loss == pytest.approx(sum((r + 1) * loss for r, loss in enumerate(losses)) / 10, rel=1e-4)


def test_loss_steps_are_in_the_key_only_where_they_matter(tiny: hrg.Architecture) -> None:
    def keys(arch: hrg.Architecture) -> list[str]:
        return [
            identify_request(request(arch, **fields)).key
            for fields in ({}, {"loss_steps": "last"}, {"checkpoint_steps": 2})
        ]

    for arch in (tiny, states()):
        assert len(set(keys(arch))) == 1
    mean, last, stored = keys(states(readout="all"))
    assert mean == stored != last


def test_wrong_loss_steps_are_reported_with_the_steps(tmp_path: Path) -> None:
    asked = request(states(readout="all"), loss_steps=[1, 2])
    with pytest.raises(UsageError) as caught:
        finish(asked, tmp_path)
    assert str(caught.value) == (
        "recipe: 'loss_steps' has 2 weights, and 'states' is read out at 4 steps: steps 1 to 4. "
        "Give one weight for each, or 'mean' or 'last'."
    )
    assert not list(tmp_path.iterdir())
    assert check_loss_steps(asked.recipe, states().plan) == ""
    with pytest.raises(UsageError, match="2 weights for 3 steps"):
        asked.recipe.step_weights(3)


def test_data_without_time_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"takes another image at each of 5 steps .*'time.input=every'"):
        finish(request(states(input="sequence")), tmp_path)
    assert not list(tmp_path.iterdir())
    digits = load_dataset("digits")
    for readout in ("last", "all"):
        plan = states(readout=readout).override({"head.classes": 3}).plan
        with pytest.raises(UsageError, match=r"Set 'head.classes=10'\."):
            match_input(digits, plan)


def bytes_kept(forward: object, x: torch.Tensor) -> int:
    """Size of the tensors that are stored for the backward pass, without parameters."""
    sizes: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        forward(x)  # type: ignore[operator]
    return sum(sizes.values())


def test_checkpoint_steps_store_less() -> None:
    arch, x = states(steps=9), torch.randn(20, 1, 8, 8)
    every = (None, 1, 3)
    kept = [bytes_kept(training_forward(arch.build().train(), arch.plan, Recipe(checkpoint_steps=n)), x) for n in every]
    assert kept[1] < kept[0] / 4 and kept[2] < kept[0] / 2  # the last segment is stored as a whole
    plain = hrg.loads("name: a\ninput: {channels: 1, height: 8, width: 8}\nnodes: {a: {block: conv, width: 2}}")
    module = plain.build()
    assert training_forward(module, plain.plan, Recipe(checkpoint_steps=2)) is module


@pytest.mark.parametrize("fields", [{"readout": "all", "per_step": "norm_stats"}, {"per_step": "none"}], ids=str)
def test_checkpoint_steps_change_no_bit(tmp_path: Path, fields: dict[str, str]) -> None:
    arch = states(**fields).override({"head.dropout": 0.3})
    found = []
    for every in (None, 2):
        asked = request(arch, epochs=1, checkpoint_steps=every)
        if every is not None:
            events_of(asked, tmp_path / str(every), stop=stop_after(4))
        finish(asked, tmp_path / str(every))
        result = result_of(tmp_path / str(every))
        assert result["recipe"].pop("checkpoint_steps") == every
        found.append(result)
    assert found[0] == found[1]


def test_a_finished_run_is_recognized_however_it_was_computed(tmp_path: Path) -> None:
    asked: list[RunRequest] = [request(states(), epochs=1, batch_size=600, checkpoint_steps=n) for n in (None, 3)]
    finish(asked[0], tmp_path)
    again = list(itertools.islice(run(dataclasses.replace(asked[1]), tmp_path), 2))
    assert [type(event).__name__ for event in again] == ["Started", "Finished"]
