"""Axes: B images of a batch, C channels, H height, W width, K classes."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

import hiresnet_graph as hrg
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.data.split import Split
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.train import Epoch, Recipe, RunRecord, read_record, run_key, train
from hiresnet_graph.train.program import _Run

QUICK = Recipe(epochs=3, batch_size=200)


def result_of(folder: Path) -> dict[str, object]:
    """A record as it lies in its file, without what may differ between equal runs."""
    record = json.loads((folder / "result.json").read_text())
    assert record.pop("machine")["time_s"] > 0
    return dict(record)


def test_a_run_learns_the_digits_and_says_so(tiny: hrg.Architecture, tmp_path: Path) -> None:
    seen: list[Epoch] = []
    record = train(tiny.variant("full"), out=tmp_path, recipe=Recipe(epochs=6, batch_size=50), progress=seen.append)
    assert record.outcome == "complete"
    assert record.test_accuracy is not None and record.test_accuracy > 0.8
    assert (record.architecture, record.variant, record.data, record.seed) == ("tiny", "full", "digits", 0)
    assert record.plan == tiny.variant("full").plan.digest()
    assert (record.parameters, record.macs) == (tiny.cost().parameters, tiny.cost().macs)
    assert tuple(seen) == record.epochs
    assert [epoch.epoch for epoch in seen] == list(range(1, 7))
    assert seen[-1].train_loss < seen[0].train_loss
    assert read_record(tmp_path) == record
    assert {path.name for path in tmp_path.iterdir()} == {"result.json", "spec.yaml", "model.safetensors"}


def test_one_seed_gives_the_same_bits_with_any_number_of_threads(tiny: hrg.Architecture, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        for folder, number in (("a", 1), ("b", 3)):
            torch.set_num_threads(number)
            torch.manual_seed(number)
            train(tiny, out=tmp_path / folder, recipe=QUICK, seed=5)
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert result_of(tmp_path / "a") == result_of(tmp_path / "b")
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_another_seed_gives_another_run(tiny: hrg.Architecture, tmp_path: Path) -> None:
    one = train(tiny, out=tmp_path / "a", recipe=QUICK, seed=0)
    two = train(tiny, out=tmp_path / "b", recipe=QUICK, seed=1)
    assert one.epochs[0].train_loss != two.epochs[0].train_loss
    assert one.key != two.key
    assert one.plan == two.plan


def test_training_neither_reads_nor_changes_the_global_random_state(tiny: hrg.Architecture, tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    train(tiny, out=tmp_path, recipe=Recipe(epochs=1, batch_size=500))
    assert torch.equal(torch.rand(4), expected)


def test_the_weights_and_the_spec_of_a_run_give_its_test_accuracy(tiny: hrg.Architecture, tmp_path: Path) -> None:
    record = train(tiny.override({"width": 3}).with_edges("in"), out=tmp_path, recipe=Recipe(epochs=4, batch_size=50))
    again = hrg.load(tmp_path / "spec.yaml")
    assert again.plan.digest() == record.plan
    module = again.build(seed=99).eval()
    module.load_state_dict(load_file(tmp_path / "model.safetensors"))
    digits = load_dataset("digits")
    x_BCHW, labels_B = digits.batch(torch.tensor(digits.split.test))
    with torch.no_grad():
        accuracy = (module(x_BCHW).argmax(1) == labels_B).double().mean()
    assert accuracy == pytest.approx(record.test_accuracy)


def test_the_best_epoch_is_chosen_by_validation_and_ties_by_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation says 0.5, 0.9, 0.9, 0.9, 0.7 and the weights say in which epoch they were made."""
    module = torch.nn.Linear(1, 1, bias=False)
    validation = {1: (0.6, 0.5), 2: (0.4, 0.9), 3: (0.3, 0.9), 4: (0.3, 0.9), 5: (0.1, 0.7)}
    data = Dataset(
        "none", 1, torch.zeros(3, 1, 1, 1, dtype=torch.uint8), torch.zeros(3).long(), Split((0,), (1,), (2,))
    )
    run = _Run(module, data, Recipe(epochs=5), 0)

    def learn(epoch: int) -> float:
        module.weight.data.fill_(epoch)
        return 1.0

    def evaluate(part: str) -> tuple[float, float]:
        epoch = int(module.weight.item())
        return validation[epoch] if part == "validation" else (0.0, epoch / 10)

    monkeypatch.setattr(run, "_pass", learn)
    monkeypatch.setattr(run, "_evaluate", evaluate)
    run.train(None)
    assert run.best is not None and run.best.epoch == 3
    assert (run.test_accuracy, run.last_test_accuracy) == (0.3, 0.5)
    assert run.best_weights["weight"].item() == 3


def test_each_epoch_has_its_own_order_and_its_learning_rate(tiny: hrg.Architecture, tmp_path: Path) -> None:
    orders: list[list[int]] = []

    class Watched(Dataset):
        def batch(self, places_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            orders.append(places_B.tolist())
            return super().batch(places_B)

    digits = load_dataset("digits")
    watched = Watched(**{field.name: getattr(digits, field.name) for field in dataclasses.fields(digits)})
    record = train(tiny, out=tmp_path, data=watched, recipe=Recipe(epochs=3, batch_size=1000, halve_every=2))
    # each epoch: two training batches (the ragged one is kept), one of validation; the test comes twice, at the end
    assert [len(places) for places in orders] == [1000, 294, 144] * 3 + [359, 359]
    epochs = [orders[i] + orders[i + 1] for i in (0, 3, 6)]
    assert all(sorted(places) == list(digits.split.train) for places in epochs)
    assert len({tuple(places) for places in epochs}) == 3
    assert [epoch.lr for epoch in record.epochs] == [0.01, 0.01, 0.005]


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged(tiny: hrg.Architecture, tmp_path: Path) -> None:
    record = train(tiny, out=tmp_path, recipe=Recipe(epochs=50, batch_size=100, lr=1e30))
    assert record.outcome == "diverged"
    assert record.diverged_at is not None and record.diverged_at >= 1
    assert record.test_accuracy is record.last_test_accuracy is record.best_epoch is None
    assert all(math.isfinite(epoch.train_loss) for epoch in record.epochs)
    assert read_record(tmp_path) == record
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"head.classes": 7}, r"'tiny' gives 7, but data 'digits' has 10 classes"),
        ({"outputs": ["stage2"]}, r"'tiny' gives 8x2x2, but data 'digits' has 10 classes"),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_refused(
    tiny: hrg.Architecture, tmp_path: Path, overrides: dict[str, object], message: str
) -> None:
    data = {**json.loads(tiny.to_json()), **{k: v for k, v in overrides.items() if k == "outputs"}}
    arch = hrg.from_dict(data).override({k: v for k, v in overrides.items() if k != "outputs"})
    with pytest.raises(UsageError, match=message):
        train(arch, out=tmp_path, recipe=QUICK)
    assert not (tmp_path / "result.json").exists()


def test_a_batch_that_cannot_be_normalised_is_told(tiny: hrg.Architecture, tmp_path: Path) -> None:
    small = tiny.override({"input.height": 1, "input.width": 1})
    with pytest.raises(RunError, match=r"step \d+: a batch of 1 cannot be computed: .*Choose another batch size"):
        train(small, out=tmp_path, recipe=Recipe(epochs=1, batch_size=1293))


def test_a_run_that_fails_leaves_no_result_of_an_earlier_one(tiny: hrg.Architecture, tmp_path: Path) -> None:
    first = train(tiny, out=tmp_path, recipe=Recipe(epochs=1, batch_size=500))
    second = train(tiny, out=tmp_path, recipe=Recipe(epochs=1, batch_size=400))
    assert read_record(tmp_path) == second != first
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_folder_that_is_a_file_is_told(tiny: hrg.Architecture, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="this folder cannot be made"):
        train(tiny, out=tmp_path / "file", recipe=QUICK)


def test_a_result_that_is_none_is_told(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    (tmp_path / "result.json").write_text('{"key": 3}')
    with pytest.raises(RunError, match=r"result\.json: key: .*This is no result of this version"):
        read_record(tmp_path)
    (tmp_path / "result.json").write_text("")
    with pytest.raises(RunError, match=r"result\.json: Invalid JSON"):
        read_record(tmp_path)


def test_the_key_depends_on_what_changes_the_numbers_and_on_nothing_else() -> None:
    base = run_key("plan", Recipe(), 0, "data")
    assert base == run_key("plan", Recipe(epochs=80), 0, "data")
    others = [
        run_key("plan2", Recipe(), 0, "data"),
        run_key("plan", Recipe(lr=0.02), 0, "data"),
        run_key("plan", Recipe(), 1, "data"),
        run_key("plan", Recipe(), 0, "data2"),
    ]
    assert len({base, *others}) == 5


def test_a_record_is_frozen_and_knows_its_fields(tiny: hrg.Architecture, tmp_path: Path) -> None:
    record = train(tiny, out=tmp_path, recipe=Recipe(epochs=1, batch_size=500))
    with pytest.raises(ValidationError):
        RunRecord.model_validate({**record.model_dump(), "accuracy": 1.0})
    with pytest.raises(ValidationError):
        record.seed = 2  # type: ignore[misc]
