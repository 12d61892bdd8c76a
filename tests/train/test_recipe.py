import pytest
import torch
from pydantic import ValidationError

from hiresnet_graph.errors import UsageError
from hiresnet_graph.train import Recipe, make_recipe

STEPS = 7


def rates(recipe: Recipe) -> list[float]:
    return [recipe.lr_at(step, STEPS) for step in range(recipe.epochs * STEPS)]


def torch_rates(recipe: Recipe, scheduler: type, each_step: bool, **fields: object) -> list[float]:
    """The learning rates of a scheduler of torch for each step of a run."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    schedule, found = scheduler(optimizer, **fields), []
    for _ in range(recipe.epochs):
        for _ in range(STEPS):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if each_step:
                schedule.step()
        if not each_step:
            schedule.step()
    return found


def test_the_default_is_the_protocol_of_the_paper() -> None:
    recipe = Recipe()
    assert (recipe.epochs, recipe.batch_size, recipe.optimizer, recipe.lr) == (80, 100, "adam", 0.01)
    assert (recipe.schedule, recipe.step_every, recipe.step_factor) == ("step", 20, 0.5)
    firsts = [recipe.lr_at(epoch * STEPS, STEPS) for epoch in (0, 19, 20, 39, 40, 79)]
    assert firsts == [0.01, 0.01, 0.005, 0.005, 0.0025, 0.00125]


def test_the_schedules_equal_those_of_torch() -> None:
    schedulers = torch.optim.lr_scheduler
    step = Recipe(epochs=9, step_every=4, step_factor=0.1)
    cosine = Recipe(epochs=9, schedule="cosine")
    one_cycle = Recipe(epochs=9, schedule="one-cycle", lr=0.3)
    assert rates(step) == pytest.approx(torch_rates(step, schedulers.StepLR, False, step_size=4, gamma=0.1))
    assert rates(cosine) == pytest.approx(torch_rates(cosine, schedulers.CosineAnnealingLR, False, T_max=9))
    assert rates(one_cycle) == pytest.approx(
        torch_rates(one_cycle, schedulers.OneCycleLR, True, max_lr=0.3, total_steps=9 * STEPS, cycle_momentum=False)
    )
    assert set(rates(Recipe(epochs=3, schedule="constant"))) == {0.01}


def test_warmup_rises_to_the_schedule() -> None:
    recipe = Recipe(epochs=4, schedule="cosine", warmup_epochs=2)
    plain = Recipe(epochs=4, schedule="cosine")
    expected = [rate * min(1, (step + 1) / (2 * STEPS)) for step, rate in enumerate(rates(plain))]
    assert rates(recipe) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lr": 0}, "recipe.lr: expected a number greater than 0, got 0."),
        ({"epochs": -3}, "recipe.epochs: expected a number of at least 1, got -3."),
        ({"epochs": "many"}, "recipe.epochs: expected a whole number, got 'many'."),
        ({"momentum": 1}, "recipe.momentum: expected a number less than 1, got 1."),
        ({"clip_norm": float("inf")}, "recipe.clip_norm: expected a finite number, got inf."),
        ({"optimizer": "adm"}, "recipe.optimizer: expected 'adam', 'adamw' or 'sgd', got 'adm'."),
        ({"batchsize": 3}, "recipe.batchsize: unknown key 'batchsize'. Did you mean 'batch_size'?"),
        (
            {"loss_steps": "lst"},
            "recipe.loss_steps: expected 'last', 'mean', or a list of weights (0 to 1e+30, one above 0), got ",
        ),
        ({"loss_steps": [0, 0]}, "recipe.loss_steps: expected 'last', 'mean', or a list of weights"),
        ({"loss_steps": [1, -1]}, "recipe.loss_steps: expected 'last', 'mean', or a list of weights"),
        ({"loss_steps": []}, "recipe.loss_steps: expected 'last', 'mean', or a list of weights"),
        ({"loss_steps": [1, float("nan")]}, "recipe.loss_steps: expected 'last', 'mean', or a list of weights"),
        ({"checkpoint_steps": 0}, "recipe.checkpoint_steps: expected a number of at least 1, got 0."),
        ({"checkpoint_steps": 2, "compile": True}, "recipe: torch.compile decides by itself what to recompute"),
        ({"checkpoint": "blocks", "compile": True}, "recipe: torch.compile decides by itself what to recompute: omit"),
        ({"checkpoint": "blocks", "checkpoint_steps": 2}, "recipe: 'checkpoint' divides a network by block"),
        ({"checkpoint": "block"}, "recipe.checkpoint: expected 'blocks', got 'block'."),
        ({"mixup": True}, "recipe.mixup: expected a number, got true."),
        ({"cutmix": -1}, "recipe.cutmix: expected a number of at least 0, got -1."),
        ({"ema": "0.9"}, "recipe.ema: expected a number, got '0.9'."),
        ({"no_decay": 3}, "recipe.no_decay: expected addresses, like [stem, 'stage*.block1'], got 3."),
        (
            {"losses": {"head": 0}},
            "recipe.losses: expected weights by output, like {head: 1, aux: 0.3}, above 0 and at most 1e+06, got ",
        ),
        (
            {"losses": {"head:1": None}},
            "recipe.losses: expected weights by output, like {head: 1, aux: 0.3}, above 0 and at most 1e+06, got "
            "{'head:1': None}. YAML requires a space after ':'.",
        ),
        ({"warmup_epochs": 80}, "recipe: warmup_epochs (80) must be below epochs (80)."),
        ({"schedule": "one-cycle", "warmup_epochs": 2}, "recipe: the schedule 'one-cycle' has its own warm-up"),
    ],
)
def test_an_invalid_field_is_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_recipe(fields)
    assert str(caught.value).startswith(message)


def test_all_errors_are_reported_with_their_location() -> None:
    with pytest.raises(UsageError) as caught:
        make_recipe({"lr": 0, "rate": 1}, "study.yaml: recipe")
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["recipe.lr", "recipe.rate"]
    assert make_recipe({"lr": 0.1, "optimizer": "sgd"}) == Recipe(lr=0.1, optimizer="sgd")


def test_fields_that_do_not_change_the_result_are_not_in_the_key() -> None:
    base = Recipe().mathematics()
    for same in (Recipe(compile=True), Recipe(channels_last=False), Recipe(momentum=0.5), Recipe(nesterov=True)):
        assert same.mathematics() == base
    assert Recipe(checkpoint_steps=3).mathematics() == base
    for other in (
        Recipe(precision="bf16"),
        Recipe(step_every=3),
        Recipe(augment="none"),
        Recipe(optimizer="sgd"),
        Recipe(loss_steps="last"),
    ):
        assert other.mathematics() != base


def test_the_standard_augmentation_is_resolved_once() -> None:
    assert Recipe().resolved("crop+flip").augment == "crop+flip"
    assert Recipe(augment="none").resolved("crop+flip").augment == "none"


def test_loss_steps_matter_only_with_several_readouts() -> None:
    recipe = make_recipe({"loss_steps": [1, 2, 1]})
    assert recipe.loss_steps == (1.0, 2.0, 1.0) and Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert recipe.resolved("none") == recipe.resolved("none", 3) == recipe.model_copy(update={"augment": "none"})
    assert recipe.resolved("none", 1) == Recipe(augment="none")


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Recipe().lr = 0.1  # type: ignore[misc]
