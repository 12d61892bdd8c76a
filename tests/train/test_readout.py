"""A trained network in time at other readout steps; the reference is `module.at` with the weights of the run."""

from pathlib import Path

import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.data import load_dataset
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.lower.recurrent import Recurrent
from hiresnet_graph.train import Recipe, Run, train
from hiresnet_graph.train.readout import Past
from tests.train.states import states

QUICK = Recipe(epochs=2, batch_size=200, lr=0.003)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs with a norm for each step, read out once or at all steps, and with shared norms."""
    folder = tmp_path_factory.mktemp("runs")
    kinds = {"last": {}, "all": {"readout": "all"}, "shared": {"per_step": "none", "past": "last"}}
    for name, fields in kinds.items():
        train(states(**fields), out=folder / name, recipe=QUICK, device="cpu")
    return {name: folder / name for name in kinds}


def defined(run: Run, step: int, past: Past | None = None) -> tuple[float, float]:
    """Loss and accuracy of the test images at a step."""
    module = run.model()
    assert isinstance(module, Recurrent)
    digits = load_dataset("digits")
    places = torch.tensor(digits.split.test)
    with torch.no_grad():
        scores = module.at(steps=step + 1, readout=step, past=past)(run.preprocess(digits.images_NCHW[places]))
    labels = digits.labels_N[places]
    loss = torch.nn.functional.cross_entropy(scores.double(), labels)
    return loss.item(), (scores.argmax(1) == labels).double().mean().item()


def test_each_step_equals_the_reference_and_the_trained_one_the_record(folders: dict[str, Path]) -> None:
    for name, steps in {"all": range(1, 5), "shared": range(1, 9)}.items():
        run = hrg.load_run(folders[name])
        points = run.readout(steps)
        assert [point.step for point in points] == list(steps)
        for point in points:
            assert point.reason == "" and point.scores is not None
            loss, accuracy = defined(run, point.step)
            assert point.scores.accuracy == pytest.approx(accuracy, abs=1e-12)
            assert point.scores.loss == pytest.approx(loss, rel=1e-5)
        at_end = points[3].scores
        assert at_end is not None and at_end.accuracy == run.record.test_accuracy
        assert at_end.top_k == run.record.test_top_k
        last = run.readout([4], which="last")[0].scores
        assert last is not None and last.accuracy == run.record.last_test_accuracy
        assert run.readout([4], part="validation")[0].scores != at_end


def test_the_steps_of_training_are_the_default(folders: dict[str, Path]) -> None:
    told = {name: [(p.step, p.trained) for p in hrg.load_run(path).readout()] for name, path in folders.items()}
    once = [(1, False), (2, False), (3, False), (4, True)]
    assert told == {"last": once, "all": [(step, True) for step, _ in once], "shared": once}


def test_a_step_without_norms_has_a_reason(folders: dict[str, Path]) -> None:
    run = hrg.load_run(folders["last"])
    module = run.model()
    assert isinstance(module, Recurrent)
    for point in run.readout(range(7)):
        if point.step == 4:
            assert point.scores is not None and point.scores.accuracy == run.record.test_accuracy
            continue
        assert point.scores is None
        with pytest.raises(hrg.HrgError) as caught:
            module.at(steps=point.step + 1, readout=point.step)
        assert point.reason and point.reason in str(caught.value)
    assert "'norm' has no copy of its weights for step 2" in run.readout([2])[0].reason


def test_norms_past_their_last_copy_can_use_it(folders: dict[str, Path]) -> None:
    run = hrg.load_run(folders["all"])
    missing = run.readout([3, 4, 5, 6])
    assert [point.scores is None for point in missing] == [False, False, True, True]
    points = run.readout([3, 4, 5, 6], past="last")
    assert points[:2] == missing[:2]
    for point in points:
        assert point.scores is not None
        assert point.scores.accuracy == pytest.approx(defined(run, point.step, "last")[1], abs=1e-12)


def test_one_pass_and_single_steps_give_the_same(folders: dict[str, Path]) -> None:
    run = hrg.load_run(folders["shared"])
    assert run.readout([6, 2, 4, 2]) == tuple(run.readout([step])[0] for step in (2, 4, 6))
    first = run.readout([0, 2])  # at step 0 there is no output yet
    assert first[0].scores is None and "too few" in first[0].reason and first[1] == run.readout([2])[0]


@pytest.mark.parametrize(
    ("name", "steps", "passes"), [("shared", [2, 5, 7], 1), ("last", [4], 1), ("all", [1, 3, 4], 1)]
)
def test_steps_whose_tensors_exist_are_read_out_in_one_pass(
    folders: dict[str, Path], name: str, steps: list[int], passes: int
) -> None:
    run, seen = hrg.load_run(folders[name]), list[int]()

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, Recurrent):
            seen.append(len(inputs[0]))

    hook = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        run.readout(steps)
    finally:
        hook.remove()
    assert sum(seen) == passes * len(load_dataset("digits").split.test)


def test_invalid_readouts_are_refused(tiny: hrg.Architecture, folders: dict[str, Path], tmp_path: Path) -> None:
    digits = load_dataset("digits")
    train(tiny, out=tmp_path / "once", recipe=Recipe(epochs=1, batch_size=600))
    with pytest.raises(UsageError, match="'tiny' does not run in time"):
        hrg.load_run(tmp_path / "once").readout()
    for steps in ([], [-1, 3]):
        with pytest.raises(UsageError, match="counted from 0"):
            hrg.load_run(folders["all"]).readout(steps)
    train(states(), out=tmp_path / "memory", recipe=Recipe(epochs=1, batch_size=600), data=digits)
    run = hrg.load_run(tmp_path / "memory")
    with pytest.raises(RunError, match="images in memory"):
        run.readout()
    assert run.readout([4], data=digits)[0].scores is not None
    with pytest.raises(RunError, match="are not what this run was trained on"):
        run.readout(data=load_dataset("digits:split_seed=3"))
