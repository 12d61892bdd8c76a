"""Trained networks: loaded from the folder of a run, saved, and loaded again."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.data.loader import Loader
from hiresnet_graph.data.split import Split
from hiresnet_graph.errors import MissingToolError, RunError, UsageError
from hiresnet_graph.shapes import Map
from hiresnet_graph.train import Preprocessing, Run
from tests.train.runs import events_of, finish, request


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("run")
    finish(request(hrg.loads(TINY).variant("full"), epochs=3, batch_size=400, lr=0.05), folder)
    return hrg.load_run(folder)


X_BCHW = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_run_has_record_network_metrics_and_weights(run: Run) -> None:
    assert run.record.outcome == "complete" and run.record.plan == run.architecture.plan.digest()
    rows = run.metrics()
    assert [(row["epoch"], row["split"]) for row in rows[:3]] == [(1, "train"), (1, "validation"), (2, "train")]
    assert rows[-1]["accuracy"] == run.record.epochs[-1].validation_accuracy
    best, last = run.model(), run.model("last")
    assert not best.training
    if run.record.best_epoch != len(run.record.epochs):
        assert not torch.equal(best(X_BCHW), last(X_BCHW))


def test_a_folder_without_a_finished_run_is_refused(tiny: hrg.Architecture, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no run in this folder"):
        hrg.load_run(tmp_path)
    events_of(request(tiny), tmp_path, until=1)
    with pytest.raises(
        RunError, match=rf"not finished\. It is not being trained\. Resume it with: hrg train --resume {tmp_path}"
    ):
        hrg.load_run(tmp_path)
    finish(request(tiny, lr=1e30), tmp_path / "diverged")
    with pytest.raises(RunError, match="diverged, so it has no weights"):
        hrg.load_run(tmp_path / "diverged").model()


def test_metrics_that_cannot_be_read_are_reported(run: Run, tmp_path: Path) -> None:
    copied = dataclasses.replace(run, folder=tmp_path)
    with pytest.raises(RunError) as error:
        copied.metrics()
    assert str(error.value) == f"{tmp_path}/metrics.jsonl: cannot be read: No such file or directory."
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epo')
    with pytest.raises(RunError) as error:
        copied.metrics()
    assert str(error.value) == f"{tmp_path}/metrics.jsonl: a line is damaged."


def test_a_run_is_saved_and_loaded(run: Run, tmp_path: Path) -> None:
    folder = hrg.save_pretrained(run, tmp_path / "net")
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    config = json.loads((folder / "config.json").read_text())
    assert config["name"] == "tiny" and config["test_accuracy"] == run.record.test_accuracy
    module = hrg.from_pretrained(folder)
    assert not module.training and torch.equal(module(X_BCHW), run.model()(X_BCHW))


def test_a_module_is_saved_with_the_network_it_was_built_from(tiny: hrg.Architecture, tmp_path: Path) -> None:
    arch = tiny.override({"width": 3}).with_edges("in")
    module = arch.build(5).eval()
    hrg.save_pretrained(module, tmp_path, arch=arch)
    assert torch.equal(hrg.from_pretrained(str(tmp_path), map_location="cpu")(X_BCHW), module(X_BCHW))
    with pytest.raises(UsageError, match="Pass 'arch'"):
        hrg.save_pretrained(module, tmp_path)
    with pytest.raises(UsageError, match="other tensors than 'tiny'"):
        hrg.save_pretrained(module, tmp_path, arch=tiny)


def test_predictions_equal_those_of_training(run: Run, tmp_path: Path) -> None:
    digits = load_dataset("digits")
    places = torch.tensor(digits.split.test)
    images_NCHW, labels_N = digits.images_NCHW[places], digits.labels_N[places]
    found_NK = run.predict(images_NCHW)
    assert found_NK.shape == (len(places), 10) and torch.allclose(found_NK.sum(1), torch.ones(len(places)))
    assert (found_NK.argmax(1) == labels_N).sum().item() / len(places) == run.record.test_accuracy
    assert (run.predict(images_NCHW, "last").argmax(1) == labels_N).double().mean().item() == pytest.approx(
        run.record.last_test_accuracy
    )
    batches = [x_BCHW for x_BCHW, _ in Loader(digits, device=torch.device("cpu")).evaluation("test", 100)]
    assert torch.equal(run.preprocess(images_NCHW), torch.cat(batches))
    told = json.loads((run.folder / "result.json").read_text())["preprocessing"]
    assert told["shape"] == [1, 8, 8] and told["class_names"] == list(digits.class_names)
    assert (
        told["mean"] == digits.channel_stats[0].flatten().tolist()
        and told["std"] == digits.channel_stats[1].flatten().tolist()
    )

    published = hrg.from_pretrained(hrg.save_pretrained(run, tmp_path / "a"))
    preprocess: Any = published.meta["preprocessing"]  # type: ignore[index]
    assert torch.equal(preprocess(images_NCHW.numpy()[:, 0]), run.preprocess(images_NCHW))
    again = hrg.save_pretrained(published, tmp_path / "b", arch=run.architecture)
    assert json.loads((again / "config.json").read_text())["preprocessing"] == told


def test_images_are_converted_to_the_shape_of_the_network() -> None:
    colours_NHWC = np.random.default_rng(0).integers(0, 256, (3, 12, 9, 3), dtype=np.uint8)
    grey_NHW = colours_NHWC[..., 0]
    how = Preprocessing(shape=(3, 8, 6), mean=(10.0, 20.0, 30.0), std=(1.0, 2.0, 4.0))
    x_NCHW = how(colours_NHWC)
    assert x_NCHW.shape == (3, 3, 8, 6)
    assert torch.equal(x_NCHW, how(torch.from_numpy(colours_NHWC).permute(0, 3, 1, 2)))
    images = Dataset("mine", 1, torch.from_numpy(grey_NHW)[:, None], torch.zeros(3).long(), Split((), (), (0, 1, 2)))
    wanted = images.with_shape(Map(3, 8, 6)).images_NCHW
    levels = torch.tensor([10.0, 20.0, 30.0]).view(-1, 1, 1), torch.tensor([1.0, 2.0, 4.0]).view(-1, 1, 1)
    assert torch.equal(how(grey_NHW), (wanted - levels[0]) / levels[1])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 1, 8, 8), r"uint8, 0 to 255.* not numbers of type float32"),
        (np.zeros((2, 8, 8, 3), np.uint8), "the images have 3 channels, the network expects 1"),
        (np.zeros((8, 8, 3), np.uint8), r"not \(8, 8, 3\)\. Give one image as images\[None\]"),
        (torch.zeros(8, 8, dtype=torch.uint8), r"not \(8, 8\)\. Give one image"),
        ([[0]], "as a numpy array or a tensor, not list"),
    ],
)
def test_invalid_images_are_refused(run: Run, images: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run.preprocess(images)


def test_a_run_without_preprocessing_is_reported(run: Run) -> None:
    old = dataclasses.replace(run, record=run.record.model_copy(update={"preprocessing": None}))
    with pytest.raises(RunError, match="this run is of an older version"):
        old.preprocess(np.zeros((1, 8, 8), np.uint8))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, r"config\.json: cannot be read"),
        ("config.json", "{", r"config\.json: this was not written by save_pretrained"),
        ("config.json", '{"model_type": "bert"}', r"config\.json: this was not written by save_pretrained"),
        ("config.json", '{"spec": {"name": "x", "nodes": {"a": {"block": "nosuch"}}}}', r"config\.json: the spec"),
        ("model.safetensors", "damaged", r"model\.safetensors: this is a text, not a safetensors file\."),
    ],
)
def test_a_folder_without_a_network_is_refused(run: Run, tmp_path: Path, file: str, content: str, message: str) -> None:
    hrg.save_pretrained(run, tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(content)
    with pytest.raises(RunError, match=message):
        hrg.from_pretrained(tmp_path)


def test_weights_of_another_network_are_refused(run: Run, tiny: hrg.Architecture, tmp_path: Path) -> None:
    hrg.save_pretrained(run, tmp_path / "a")
    hrg.save_pretrained(tiny.override({"width": 3}).build(), tmp_path / "b", arch=tiny.override({"width": 3}))
    (tmp_path / "b/model.safetensors").replace(tmp_path / "a/model.safetensors")
    with pytest.raises(RunError, match="these weights belong to another network"):
        hrg.from_pretrained(tmp_path / "a")


def test_a_name_that_is_not_a_folder_is_searched_on_the_hub(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    hrg.save_pretrained(run, tmp_path)

    def download(name: str, allow_patterns: list[str], **others: Any) -> str:
        assert allow_patterns == ["config.json", "model.safetensors"]
        if name != "someone/net":
            raise OSError("404 Client Error\nmore words")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert torch.equal(hrg.from_pretrained("someone/net")(X_BCHW), run.model()(X_BCHW))
    with pytest.raises(RunError, match=r"'someone/other' is not a folder, and .*: 404 Client Error$"):
        hrg.from_pretrained("someone/other")
    with pytest.raises(RunError, match=r"\./nosuch: this folder does not exist"):
        hrg.from_pretrained("./nosuch")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingToolError, match="pip install huggingface_hub"):
        hrg.from_pretrained("someone/net")
