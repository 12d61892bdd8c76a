"""How steps are computed: averages of weights, parts of batches, weights of classes, scaled losses, early stopping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import hiresnet_graph as hrg
from hiresnet_graph.data.loader import Loader
from hiresnet_graph.errors import UsageError
from hiresnet_graph.stack import stack_group
from hiresnet_graph.train import Recipe, make_recipe
from hiresnet_graph.train.averaging import WeightAverage
from hiresnet_graph.train.checkpoint import load_checkpoint
from hiresnet_graph.train.evaluation import class_weights, loss_of, split_steps
from tests.train.runs import events_of, finish, request, result_of, stop_after
from tests.train.test_every_field import SHORT, data

WITHOUT_NORM = """
name: net
input: {channels: 1, height: 8, width: 8}
nodes:
  stem: {block: conv2d, width: 4, kernel_size: 3, stride: 2}
  head: {block: classifier, classes: 10}
flow: stem -> head
"""
HEADS = """\
  aux: {block: classifier, classes: 10}
  third: {block: classifier, classes: 10}
flow: [stem -> head, stem -> aux, stem -> third]
outputs: [head, aux, third]"""
SGD: dict[str, Any] = {**SHORT, "optimizer": "sgd", "lr": 0.1}


@pytest.fixture
def net() -> hrg.Architecture:
    """A network of which each image is computed by itself."""
    return hrg.loads(WITHOUT_NORM, "net.yaml")


def weights_of(arch: hrg.Architecture, folder: Path, **fields: Any) -> dict[str, torch.Tensor]:
    """The weights after training."""
    finish(request(arch, **fields), folder, dataset=data())
    return load_file(folder / "last.safetensors")


def test_the_average_of_weights_is_that_of_torch(tiny: hrg.Architecture) -> None:
    module = tiny.build(0)
    ours, theirs = WeightAverage(module, 0.8), AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    for step in range(4):
        with torch.no_grad():
            for value in module.state_dict().values():
                value.add_(1 if value.dtype == torch.int64 else torch.randn_like(value))
        ours.update(module, is_first=step == 0)
        theirs.update_parameters(module)
    found = ours.module.state_dict()
    for name, parameter in theirs.module.named_parameters():
        assert torch.equal(found[name], parameter)
    assert found["stem.norm.num_batches_tracked"] == 4
    assert not any(parameter.requires_grad for parameter in ours.module.parameters())


def test_averages_are_evaluated_and_the_weights_are_trained(tiny: hrg.Architecture, tmp_path: Path) -> None:
    plain = weights_of(tiny, tmp_path / "plain", **SHORT)
    average = weights_of(tiny, tmp_path / "average", **SHORT, ema=0.5)
    rest = load_file(tmp_path / "average" / "optimizer.safetensors")
    assert all(torch.equal(rest[f"trained.{name}"], value) for name, value in plain.items())
    assert not torch.equal(average["head.linear.weight"], plain["head.linear.weight"])
    assert not torch.equal(average["stem.norm.running_var"], plain["stem.norm.running_var"])
    records = [result_of(tmp_path / name)["epochs"] for name in ("plain", "average")]
    assert [one["train_loss"] for one in records[0]] == [one["train_loss"] for one in records[1]]
    assert records[0][0]["validation_loss"] != records[1][0]["validation_loss"]


def test_a_run_with_averages_is_continued_with_its_weights(tiny: hrg.Architecture, tmp_path: Path) -> None:
    for epochs in (2, 3):
        finish(request(tiny, **{**SHORT, "ema": 0.9, "epochs": epochs}), tmp_path / "continued", dataset=data())
    finish(request(tiny, **{**SHORT, "ema": 0.9, "epochs": 3}), tmp_path / "direct", dataset=data())
    assert result_of(tmp_path / "continued") == result_of(tmp_path / "direct")


def test_accumulated_gradients_are_those_of_the_full_batch(net: hrg.Architecture, tmp_path: Path) -> None:
    fields = {**SGD, "batch_size": 20, "mixup": 0.3, "class_weights": [*range(1, 11)], "clip_norm": 0.5}
    full = weights_of(net, tmp_path / "full", **fields)
    for parts in (2, 3, 7):
        found = weights_of(net, tmp_path / str(parts), **fields, accumulate=parts)
        for name, value in full.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)
    assert any(not torch.equal(found[name], value) for name, value in full.items())


def test_class_weights_are_those_of_torch_and_scikit_learn() -> None:
    dataset = data()
    labels_N = dataset.labels_N[torch.tensor(dataset.split.train)].numpy()
    balanced_K = class_weights(Recipe(class_weights="balanced"), dataset)
    assert balanced_K is not None and class_weights(Recipe(), dataset) is None
    np.testing.assert_allclose(balanced_K, compute_class_weight("balanced", classes=np.arange(10), y=labels_N))
    given_K = class_weights(Recipe(class_weights=tuple(map(float, range(10)))), dataset)
    assert given_K is not None and given_K[labels_N].mean().item() == pytest.approx(1)
    assert (given_K / given_K[1]).tolist() == pytest.approx(list(range(10)))
    generator = torch.Generator().manual_seed(0)
    logits_BK, labels_B = torch.randn(6, 10, generator=generator), torch.arange(1, 7)
    loss = loss_of(split_steps(logits_BK), labels_B, (1.0,), 0.1, given_K)
    expected = cross_entropy(logits_BK, labels_B, given_K, label_smoothing=0.1)
    torch.testing.assert_close(loss, expected * given_K[labels_B].mean())


def test_losses_of_half_precision_are_scaled(net: hrg.Architecture, tmp_path: Path) -> None:
    asked = request(net, **SGD, precision="fp16")
    events_of(asked, tmp_path / "run", dataset=data(), stop=stop_after(0))
    checkpoint = load_checkpoint(tmp_path / "run")
    assert checkpoint is not None and checkpoint.tensors["scaler.scale"].item() == 65536
    finish(asked, tmp_path / "run", dataset=data())
    assert load_file(tmp_path / "run" / "optimizer.safetensors")["scaler._growth_tracker"] == 4
    half, full = load_file(tmp_path / "run" / "last.safetensors"), weights_of(net, tmp_path / "full", **SGD)
    for name, value in full.items():
        torch.testing.assert_close(half[name], value, rtol=0.02, atol=2e-3)


def test_steps_whose_gradients_overflow_are_omitted(
    net: hrg.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.amp.GradScaler, "get_backoff_factor", lambda _: 0.5)
    before = torch.amp.GradScaler.__init__
    monkeypatch.setattr(
        torch.amp.GradScaler, "__init__", lambda *args, **kwargs: before(*args, **kwargs, init_scale=2.0**100)
    )
    found = weights_of(net, tmp_path, **SGD, precision="fp16")
    assert all(torch.equal(found[name], value) for name, value in net.build(0).state_dict().items())
    assert load_file(tmp_path / "optimizer.safetensors")["scaler.scale"].item() == 2.0**96


def test_losses_of_several_outputs_are_added(tmp_path: Path) -> None:
    """One step of plain gradient descent, computed by hand; the first output of `losses` is evaluated."""
    arch = hrg.loads(WITHOUT_NORM.replace("flow: stem -> head", HEADS), "net.yaml")
    one = {**SGD, "epochs": 1, "batch_size": 48, "momentum": 0.0}
    module = arch.build(0).train()
    [(x_BCHW, labels_B)] = Loader(data(), device=torch.device("cpu")).training(1, 48)
    outputs = module(x_BCHW)
    loss = cross_entropy(outputs["aux"], labels_B) + 0.3 * cross_entropy(outputs["head"], labels_B)
    parameters = {name: value for name, value in module.named_parameters() if not name.startswith("third.")}
    with torch.no_grad():
        for value, gradient in zip(
            parameters.values(), torch.autograd.grad(loss, list(parameters.values())), strict=True
        ):
            value -= 0.1 * gradient
    found = weights_of(arch, tmp_path, **one, losses={"aux": 1, "head": 0.3})
    for name, value in module.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    run, test = hrg.load_run(tmp_path), torch.tensor(data().split.test)
    assert run.record.epochs[0].train_loss == pytest.approx(loss.item(), rel=1e-5)
    shares_NK = run.predict(data().images_NCHW[test])
    assert run.record.test_accuracy == pytest.approx(
        (shares_NK.argmax(1) == data().labels_N[test]).float().mean().item()
    )
    normal_NCHW = torch.cat([x_BCHW for x_BCHW, _ in Loader(data(), device=torch.device("cpu")).evaluation("test", 99)])
    torch.testing.assert_close(shares_NK, module.eval()(normal_NCHW)["aux"].softmax(1))
    reversed_key, key = ({"head": 0.3, "aux": 1}, {"aux": 1, "head": 0.3})
    assert make_recipe({"losses": key}).mathematics() != make_recipe({"losses": reversed_key}).mathematics()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"'net' has 3 outputs: head, aux, third\. Give the weights .* like 'losses: \{head: 1, aux: 0\.3, third"),
        ({"losses": {"axu": 1}}, r"recipe\.losses: 'net' has no output 'axu'\. Did you mean 'aux'\?"),
        ({"losses": {"head": 1, "third": 1}}, r"'net' gives 10, 3, but .*training requires outputs of 10 values"),
    ],
)
def test_outputs_that_cannot_be_trained_are_named(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    classes = 3 if "third" in fields.get("losses", {}) else 10
    heads = HEADS.replace(
        "third: {block: classifier, classes: 10}", f"third: {{block: classifier, classes: {classes}}}"
    )
    arch = hrg.loads(WITHOUT_NORM.replace("flow: stem -> head", heads), "net.yaml")
    with pytest.raises(UsageError, match=message):
        events_of(request(arch, **fields), tmp_path)


def test_training_stops_without_progress(net: hrg.Architecture, tmp_path: Path) -> None:
    fields = {**SHORT, "lr": 1.0, "schedule": "constant", "patience": 2}
    for epochs, folder in ((9, "short"), (12, "long"), (12, "short")):  # the last one continues the first
        finish(request(net, **{**fields, "epochs": epochs}), tmp_path / folder, dataset=data())
    found = result_of(tmp_path / "long")
    assert len(found["epochs"]) == found["best_epoch"] + 2 < 9
    assert result_of(tmp_path / "short") == found


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"accumulate": 200}, r"recipe: accumulate \(200\) must be at most batch_size \(100\)"),
        ({"class_weights": [0, 0]}, "recipe.class_weights: expected 'balanced', or a list of weights"),
        ({"class_weights": "even"}, "recipe.class_weights: expected 'balanced', or a list of weights"),
        ({"ema": 1}, "recipe.ema: expected a number less than 1, got 1"),
        ({"patience": 0}, "recipe.patience: expected a number of at least 1, got 0"),
        ({"mixup": -1}, "recipe.mixup: expected a number of at least 0, got -1"),
        ({"rand_augment": 31}, "recipe.rand_augment: expected a number of at most 30, got 31"),
        ({"random_erasing": 2}, "recipe.random_erasing: expected a number of at most 1, got 2"),
        ({"precision": "fp8"}, "recipe.precision: expected 'fp32', 'tf32', 'bf16' or 'fp16', got 'fp8'"),
    ],
)
def test_wrong_settings_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_recipe(fields)


def test_weights_of_other_classes_and_small_parts_are_refused(net: hrg.Architecture, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'class_weights' has 2 weights, but data 'digits' has 10 classes\. Give one"):
        events_of(request(net, class_weights=[1, 2]), tmp_path)
    wide = hrg.loads(WITHOUT_NORM.replace("conv2d", "conv").replace("stride: 2", "stride: 8"), "net.yaml")
    with pytest.raises(
        UsageError, match=r"a batch has 4 .* in 4 parts \('accumulate'\).*at least 2 images in training"
    ):
        events_of(request(wide, batch_size=4, accumulate=4, drop_last=True), tmp_path)


def test_runs_with_other_steps_are_not_stacked() -> None:
    for fields in ({"ema": 0.9}, {"accumulate": 2}, {"patience": 3}, {"class_weights": "balanced"}, {"mixup": 0.2}):
        recipe = make_recipe(fields)
        assert stack_group(recipe) is None and recipe.unstacked_fields == tuple(fields)
    assert make_recipe({"precision": "fp16", "cutmix": 1}).unstacked_fields == ("cutmix", "precision")
