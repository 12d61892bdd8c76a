import pytest
from pydantic import ValidationError

from hiresnet_graph.train import Recipe


def test_the_default_is_the_protocol_of_the_paper() -> None:
    assert Recipe().model_dump() == {"epochs": 80, "batch_size": 100, "lr": 0.01, "halve_every": 20}


def test_the_learning_rate_is_halved_at_intervals() -> None:
    recipe = Recipe()
    assert [recipe.lr_at(epoch) for epoch in (1, 20, 21, 40, 41, 80)] == [0.01, 0.01, 0.005, 0.005, 0.0025, 0.00125]


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"lr": 0.0}, {"lr": float("inf")}, {"batch_size": -1}, {"rate": 1}])
def test_what_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate(wrong)
