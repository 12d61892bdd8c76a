"""A run with more epochs continues a shorter one, and gives the same bits as one that was never shorter."""

import json
from pathlib import Path

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import UsageError
from hiresnet_graph.train import Recipe
from tests.train.runs import events_of, finish, request, result_of, stop_after

RECIPES = {
    "adam": {"step_every": 2},
    "sgd": {"optimizer": "sgd", "schedule": "constant", "nesterov": True, "augment": "crop+flip", "warmup_epochs": 1},
}


@pytest.fixture
def noisy(tiny: hrg.Architecture) -> hrg.Architecture:
    """The tiny network with dropout."""
    return tiny.override({"head.dropout": 0.3})


@pytest.mark.parametrize("fields", RECIPES.values(), ids=list(RECIPES))
def test_a_longer_run_continues_a_shorter_one_with_the_same_bits(
    noisy: hrg.Architecture, tmp_path: Path, fields: dict[str, object]
) -> None:
    finish(request(noisy, epochs=5, **fields), tmp_path / "long")
    finish(request(noisy, epochs=2, **fields), tmp_path / "short")
    before = (tmp_path / "short/result.json").read_bytes()
    events_of(request(noisy, epochs=5, **fields), tmp_path / "short", stop=stop_after(9))
    assert (tmp_path / "short/result.json").read_bytes() == before  # nothing is lost until the longer run has ended
    steps: list[tuple[int, int, int]] = []
    finish(request(noisy, epochs=5, **fields), tmp_path / "short", on_step=lambda *step: steps.append(step))
    assert steps[0][0] == 3 or steps[0][0] == 4  # of epochs 3 to 5, those before the interruption are kept
    assert result_of(tmp_path / "short") == result_of(tmp_path / "long")
    for name in ("model", "last", "optimizer"):
        files = [tmp_path / folder / f"{name}.safetensors" for folder in ("long", "short")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_an_interrupted_shorter_run_is_continued_where_it_was(tiny: hrg.Architecture, tmp_path: Path) -> None:
    finish(request(tiny, epochs=4), tmp_path / "long")
    events_of(request(tiny, epochs=3), tmp_path / "short", until=1)
    epochs: set[int] = set()
    finish(request(tiny, epochs=4), tmp_path / "short", on_step=lambda epoch, *_: epochs.add(epoch))
    assert epochs == {2, 3, 4}
    assert result_of(tmp_path / "short") == result_of(tmp_path / "long")


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        ({"schedule": "cosine"}, {"schedule": "cosine", "epochs": 3}, "with 'cosine', all rates depend on the number"),
        ({"schedule": "one-cycle"}, {"schedule": "one-cycle", "epochs": 3}, "with 'one-cycle', all rates depend"),
        ({}, {"epochs": 1}, "recipe.epochs was 2, now 1. Choose another folder, or start over in this one with"),
        ({}, {"epochs": 3, "lr": 0.1}, "recipe.epochs was 2, now 3; recipe.lr was 0.01, now 0.1. Choose another"),
    ],
)
def test_what_would_not_be_exact_is_refused(
    tiny: hrg.Architecture, tmp_path: Path, before: dict[str, object], now: dict[str, object], reason: str
) -> None:
    finish(request(tiny, **before), tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match=r"holds another run: recipe\.epochs was 2, now ") as error:
        finish(request(tiny, **now), tmp_path)
    assert reason in str(error.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_runs_that_cannot_be_continued_are_refused_with_the_reason(tiny: hrg.Architecture, tmp_path: Path) -> None:
    finish(request(tiny), tmp_path / "old")
    (tmp_path / "old/optimizer.safetensors").unlink()
    with pytest.raises(UsageError, match=r"It cannot be continued: 'optimizer.safetensors' is missing\. Choose"):
        finish(request(tiny, epochs=3), tmp_path / "old")
    assert finish(request(tiny, lr=1e30), tmp_path / "nan").record.outcome == "diverged"
    with pytest.raises(UsageError, match=r"It cannot be continued: it has diverged\. Choose"):
        finish(request(tiny, lr=1e30, epochs=3), tmp_path / "nan")
    assert json.loads((tmp_path / "nan/result.json").read_text())["outcome"] == "diverged"


def test_rates_are_fixed_exactly_for_schedules_without_a_total() -> None:
    def is_equal(short: Recipe, long: Recipe) -> bool:
        return all(short.lr_at(step, 7) == long.lr_at(step, 7) for step in range(7 * short.epochs))

    for schedule in ("step", "constant", "cosine", "one-cycle"):
        short = Recipe(epochs=3, schedule=schedule, step_every=2)
        assert is_equal(short, short.model_copy(update={"epochs": 5})) == short.has_fixed_rates
