"""Parts that a recipe freezes, and factors of the learning rate."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

import hiresnet_graph as hrg
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.loader import Loader
from hiresnet_graph.errors import UsageError
from hiresnet_graph.stack import stack_group
from hiresnet_graph.stack.lowering import Stacked
from hiresnet_graph.stack.optimizers import FlatOptimizer
from hiresnet_graph.train import Recipe, make_recipe, train
from hiresnet_graph.train.checks import match_input
from hiresnet_graph.train.parameter_rules import check_rules, frozen_layers, lr_factors, undecayed_parameters
from hiresnet_graph.train.trainer import make_optimizer
from tests.train.runs import finish, request, result_of

RULES: dict[str, Any] = {"freeze": ["stem", "stage*.*.norm"], "lr_scale": {"stage*": 0.5, "head": 4}}


def test_a_run_equals_one_that_is_computed_by_hand(tiny: hrg.Architecture, tmp_path: Path) -> None:
    sgd: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.0, "lr": 0.1, "weight_decay": 0.01, "augment": "none"}
    finish(request(tiny, epochs=1, batch_size=400, record_gradients=True, **sgd, **RULES), tmp_path)
    module = tiny.build(0).train()
    frozen = ["stem.conv", "stem.norm", "stage1.block1.norm", "stage2.block1.norm"]
    for name in frozen:
        module.get_submodule(name).eval()
    factors = {"stage": 0.5, "head": 4.0, "edges": 1.0}
    rates = {
        name: 0.1 * next(factor for start, factor in factors.items() if name.startswith(start))
        for name, _ in module.named_parameters()
        if not name.startswith(tuple(f"{one}." for one in frozen))
    }
    dataset = match_input(load_dataset("digits"), tiny.plan)
    for x_BCHW, labels_B in Loader(dataset, device=torch.device("cpu"), augment="none", seed=0).training(1, 400):
        parameters = {name: value for name, value in module.named_parameters() if name in rates}
        found = torch.autograd.grad(cross_entropy(module(x_BCHW), labels_B), list(parameters.values()))
        with torch.no_grad():
            for (name, value), gradient in zip(parameters.items(), found, strict=True):
                value -= rates[name] * (gradient + 0.01 * value)
    got, start = load_file(tmp_path / "last.safetensors"), tiny.build(0).state_dict()
    for name, value in module.state_dict().items():
        torch.testing.assert_close(got[name], value, rtol=1e-3, atol=1e-5)
        is_frozen = name.startswith(tuple(f"{one}." for one in frozen))
        assert torch.equal(got[name], start[name]) == is_frozen, name
    (epoch,) = hrg.load_run(tmp_path).record.epochs
    assert epoch.gradient_norms and "stem" not in epoch.gradient_norms and "head" in epoch.gradient_norms


@pytest.mark.parametrize("name", ["freeze", "lr_scale"])
def test_each_field_changes_training_and_the_key(tiny: hrg.Architecture, tmp_path: Path, name: str) -> None:
    finish(request(tiny, epochs=1), tmp_path / "plain")
    finish(request(tiny, epochs=1, **{name: RULES[name]}), tmp_path / "ruled")
    plain, ruled = result_of(tmp_path / "plain"), result_of(tmp_path / "ruled")
    assert plain["last"] != ruled["last"] and plain["key"] != ruled["key"]
    assert Recipe.model_validate({name: []}).mathematics() == Recipe().mathematics()


def test_the_more_specific_factor_counts(tiny: hrg.Architecture) -> None:
    recipe = make_recipe(
        {"lr_scale": {"stage*": 0.5, "stage2.block1": 3, "stage*.block1.conv": 0.1, "stage1.block1": 1}}
    )
    factors = lr_factors(recipe, tiny.plan)
    assert factors["stage2.block1.conv.weight"] == 3 and factors["stage1.block1.norm.bias"] == 1
    assert factors["head.linear.bias"] == 1 and list(factors) == [name for name, _ in tiny.build().named_parameters()]
    assert not check_rules(recipe, [tiny.plan])
    assert frozen_layers(Recipe(freeze=("stem",)), tiny.plan) == ("stem.conv", "stem.norm")
    assert frozen_layers(Recipe(freeze=("stem.norm.weight",)), tiny.plan) == ()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"freeze": "stm"}, "recipe.freeze: 'stm' matches no tensor of the network. Did you mean 'stem'?"),
        ({"freeze": ["stem", "edges.nothing"]}, "recipe.freeze: 'edges.nothing' matches no tensor of the network."),
        ({"freeze": ["*"]}, "recipe.freeze: it covers all parameters of 'tiny', so there is nothing to train."),
        ({"lr_scale": {"haed": 2}}, "recipe.lr_scale: 'haed' matches no tensor of the network. Did you mean 'head'?"),
        ({"lr_scale": {"stage*": 2, "*1": 3}}, "recipe.lr_scale: 'stage*' and '*1' both match 'stage1.block1.conv."),
        ({"no_decay": ["norm"]}, "recipe.no_decay: 'norm' matches no tensor of the network. Did you mean 'norms'?"),
        ({"lr_scale": {"stem": 2}, "freeze": "stem"}, "recipe.lr_scale: all that 'stem' matches is frozen"),
    ],
)
def test_patterns_without_effect_are_errors(
    tiny: hrg.Architecture, tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as error:
        train(tiny, out=tmp_path / "run", recipe=make_recipe(fields))
    assert str(error.value).startswith(message)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"freeze": 3}, "recipe.freeze: expected addresses, like [stem, 'stage*.block1'], got 3."),
        ({"freeze": ["stem", ""]}, "recipe.freeze: expected addresses"),
        ({"lr_scale": {"stem": 0}}, "recipe.lr_scale: expected factors by address"),
        ({"lr_scale": {"stem": True}}, "recipe.lr_scale: expected factors by address"),
        ({"lr_scale": ["stem"]}, "recipe.lr_scale: expected factors by address"),
    ],
)
def test_values_that_are_none_are_errors(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        make_recipe(fields)
    assert str(error.value).startswith(message)


def test_what_transformers_do_not_decay() -> None:
    """As in timm: parameters of one axis, class tokens and positions; here with relative positions, too."""
    vit = hrg.load("vit_tiny").plan
    recipe = make_recipe({"no_decay": ["norms", "biases", "tokens", "positions"]})
    expected = {
        name
        for name, tensor in vit.tensors().items()
        if len(tensor.shape) == 1 or name.startswith(("class_token.", "positions."))
    }
    assert undecayed_parameters(recipe, vit) == expected and len(expected) == 102
    swin = hrg.load("swin_tiny").plan
    relative = {name for name in undecayed_parameters(recipe, swin) if len(swin.tensors()[name].shape) == 2}
    assert len(relative) == 12 and all("attention" in name for name in relative)
    scaled = hrg.load("convnext_tiny").plan
    scales = undecayed_parameters(make_recipe({"no_decay": ["scales"]}), scaled)
    assert len(scales) == 18 and all(len(scaled.tensors()[name].shape) == 1 for name in scales)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_stacks_decay_what_single_runs_decay(tiny: hrg.Architecture, optimizer: str) -> None:
    """With no gradient, adamw and sgd shrink a parameter by rate times decay, and adam moves it by the rate."""
    fields = {"optimizer": optimizer, "lr": 0.1, "weight_decay": 0.5, "no_decay": ["norms", "head.linear.weight"]}
    recipe, kept = make_recipe(fields), undecayed_parameters(make_recipe(fields), tiny.plan)
    assert {name for name in kept if "norm" not in name} == {"head.linear.weight"} and len(kept) == 11
    module = tiny.build(0)
    single = make_optimizer(recipe, module, undecayed=kept)
    replicas = Stacked(tiny.plan, [tiny.plan] * 3)
    stacked = FlatOptimizer([recipe] * 3, replicas)
    for k in range(3):
        replicas.load(k, module.state_dict())
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    single.step()
    stacked.step(stacked.rates([0] * 3, 1, 1)[0])
    start = tiny.build(0).state_dict()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(replicas.state(1)[name], parameter.data)
        moves = name not in kept and bool(start[name].any())
        assert torch.equal(start[name], parameter.data) != moves, name


def test_runs_with_rules_are_not_stacked() -> None:
    assert stack_group(make_recipe({"freeze": ["stem"]})) is None
    assert stack_group(make_recipe({"lr_scale": {"stem": 2}})) is None
    assert make_recipe({"lr_scale": {"stem": 2}}).model_dump()["lr_scale"] == {"stem": 2.0}
    assert Recipe.model_validate(make_recipe(RULES).model_dump(mode="json")) == make_recipe(RULES)
