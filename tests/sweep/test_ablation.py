import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.sweep import Interrupted, Progress, Variant, ablate, choose_variants, read_study
from hiresnet_graph.train import Recipe, RunRecord, train

QUICK = Recipe(epochs=1, batch_size=400)


def results(folder: Path) -> dict[str, object]:
    """Every record of a study as it lies in its file, without what may differ between equal runs."""
    found = {}
    for path in sorted(folder.glob("runs/*/result.json")):
        record = json.loads(path.read_text())
        del record["machine"]
        weights = (path.parent / "model.safetensors").read_bytes()
        found[path.parent.name] = (record, weights, (path.parent / "spec.yaml").read_text())
    return found


def test_the_same_comes_out_with_any_number_of_workers(tiny: hrg.Architecture, tmp_path: Path) -> None:
    variants = choose_variants(tiny, ["none", "full"])
    alone = ablate(tiny, variants, seeds=[0, 1], recipe=QUICK, out=tmp_path / "a", jobs=1)
    seen: list[Progress] = []
    shared = ablate(tiny, variants, seeds=[0, 1], recipe=QUICK, out=tmp_path / "b", jobs=2, progress=seen.append)
    assert [(record.variant, record.seed) for record in alone] == [("none", 0), ("none", 1), ("full", 0), ("full", 1)]
    assert [record.key for record in alone] == [record.key for record in shared]
    assert results(tmp_path / "a") == results(tmp_path / "b")
    assert list(results(tmp_path / "a")) == ["full-seed0", "full-seed1", "none-seed0", "none-seed1"]
    assert [(step.done, step.total, step.reused) for step in seen] == [(n, 4, False) for n in (1, 2, 3, 4)]
    # and the same as one run by itself
    train(tiny.with_edges("full"), out=tmp_path / "c/runs/full-seed1", recipe=QUICK, seed=1, label="full")
    assert results(tmp_path / "c")["full-seed1"] == results(tmp_path / "a")["full-seed1"]


def test_nothing_is_trained_twice_and_a_study_can_grow(tiny: hrg.Architecture, tmp_path: Path) -> None:
    first = ablate(tiny, choose_variants(tiny, ["none"]), seeds=[0], recipe=QUICK, out=tmp_path, jobs=1)
    written = (tmp_path / "runs/none-seed0/result.json").stat().st_mtime_ns
    seen: list[Progress] = []
    both = ablate(
        tiny,
        choose_variants(tiny, ["in", "none"]),
        seeds=[0, 1],
        recipe=QUICK,
        out=tmp_path,
        jobs=1,
        progress=seen.append,
    )
    assert (tmp_path / "runs/none-seed0/result.json").stat().st_mtime_ns == written
    assert both[2] == first[0]
    assert [(step.record.variant, step.record.seed, step.reused) for step in seen] == [
        ("none", 0, True),
        ("in", 0, False),
        ("in", 1, False),
        ("none", 1, False),
    ]
    study = read_study(tmp_path)
    assert study is not None
    assert [variant.label for variant in study.variants] == ["none", "in"]
    assert study.seeds == (0, 1)
    # a run that was lost is trained again, and comes out the same
    before = results(tmp_path)
    (tmp_path / "runs/in-seed1/result.json").unlink()
    ablate(tiny, choose_variants(tiny, ["in"]), seeds=[1], recipe=QUICK, out=tmp_path, jobs=1)
    assert results(tmp_path) == before


def test_equal_networks_share_their_runs(tiny: hrg.Architecture, tmp_path: Path) -> None:
    variants = [Variant("original"), Variant("none", "none"), Variant("p2", "p2"), Variant("long", "stem>stage2")]
    records = ablate(tiny, variants, seeds=[0], recipe=QUICK, out=tmp_path, jobs=1)
    assert sorted(results(tmp_path)) == ["original-seed0", "p2-seed0"]
    assert records[0] is records[1]
    assert records[2] is records[3]
    study = read_study(tmp_path)
    assert study is not None
    assert {variant.label: variant.runs_as for variant in study.variants} == {
        "original": "original",
        "none": "original",
        "p2": "p2",
        "long": "p2",
    }
    # in a later call too, where only the other label is named
    again = ablate(tiny, [Variant("long", "stem>stage2")], seeds=[0], recipe=QUICK, out=tmp_path, jobs=1)
    assert again == [records[3]]


def test_a_folder_with_other_settings_is_refused_before_training(tiny: hrg.Architecture, tmp_path: Path) -> None:
    none = choose_variants(tiny, ["none"])
    ablate(tiny, none, seeds=[0], recipe=QUICK, out=tmp_path, jobs=1)
    before = results(tmp_path)
    with pytest.raises(UsageError, match=r"holds a study with another recipe \(epochs=1 .*, now epochs=2"):
        ablate(tiny, none, seeds=[0, 1], recipe=Recipe(epochs=2, batch_size=400), out=tmp_path, jobs=1)
    with pytest.raises(UsageError, match=r"has another network as 'none'"):
        ablate(tiny.override({"width": 3}), none, seeds=[0, 1], recipe=QUICK, out=tmp_path, jobs=1)
    with pytest.raises(UsageError, match=r"holds a study with another data fingerprint"):
        ablate(tiny.override({"input.height": 6}), none, seeds=[0, 1], recipe=QUICK, out=tmp_path, jobs=1)
    train(tiny.with_edges("none"), out=tmp_path / "runs/none-seed1", recipe=Recipe(epochs=2, batch_size=400), seed=1)
    with pytest.raises(UsageError, match=r"none-seed1 holds a run with other settings"):
        ablate(tiny, none, seeds=[0, 1], recipe=QUICK, out=tmp_path, jobs=1)
    assert results(tmp_path)["none-seed0"] == before["none-seed0"]


def test_what_makes_no_study_is_refused(tiny: hrg.Architecture, tmp_path: Path) -> None:
    none = choose_variants(tiny, ["none"])
    with pytest.raises(UsageError, match="at least one variant and one seed"):
        ablate(tiny, [], out=tmp_path)
    with pytest.raises(UsageError, match="at least one variant and one seed"):
        ablate(tiny, none, seeds=[], out=tmp_path)
    with pytest.raises(UsageError, match="jobs: at least 1 is wanted, not 0"):
        ablate(tiny, none, out=tmp_path, jobs=0)
    with pytest.raises(UsageError, match="two variants have one label"):
        ablate(tiny, [Variant("a", "none"), Variant("a", "full")], out=tmp_path)
    with pytest.raises(UsageError, match="there is no data set 'digts'"):
        ablate(tiny, none, data="digts", out=tmp_path)
    with pytest.raises(UsageError, match="training wants one output of 10 values"):
        ablate(tiny.override({"head.classes": 3}), none, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_stops_no_other(
    tiny: hrg.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_once(arch: hrg.Architecture, *, label: str, **others: object) -> RunRecord:
        if label == "none":
            raise RunError("the disk is full.")
        return train(arch, label=label, **others)  # type: ignore[arg-type]

    monkeypatch.setattr("hiresnet_graph.sweep.ablation.train", fail_once)
    with pytest.raises(RunError, match="run 'none', seed 0: the disk is full") as error:
        ablate(tiny, choose_variants(tiny, ["none", "full"]), seeds=[0], recipe=QUICK, out=tmp_path, jobs=1)
    assert "1 of 2 runs are finished" in str(error.value)
    assert list(results(tmp_path)) == ["full-seed0"]


def test_ctrl_c_keeps_what_is_finished(tiny: hrg.Architecture, tmp_path: Path) -> None:
    def stop(step: Progress) -> None:
        if not step.reused:
            raise KeyboardInterrupt

    variants = choose_variants(tiny, ["none", "full"])
    with pytest.raises(Interrupted, match=r"1 of 2 runs are finished and kept in .* trains the other 1"):
        ablate(tiny, variants, seeds=[0], recipe=QUICK, out=tmp_path, jobs=1, progress=stop)
    assert list(results(tmp_path)) == ["none-seed0"]
    assert len(ablate(tiny, variants, seeds=[0], recipe=QUICK, out=tmp_path, jobs=1)) == 2


DRIVER = """
import os, sys
from pathlib import Path
import hiresnet_graph as hrg
from hiresnet_graph.sweep import Interrupted, ablate, choose_variants
from hiresnet_graph.train import Recipe

if __name__ == "__main__":
    arch = hrg.load(sys.argv[1])
    variants = choose_variants(arch, ["none", "full", "in", "out", "p1", "p2"])
    try:
        ablate(arch, variants, seeds=range(100), recipe=Recipe(epochs=1, batch_size=400), out=sys.argv[2], jobs=2,
               progress=lambda step: print(step.done, flush=True))
    except Interrupted as stop:
        print(stop, flush=True)
        sys.exit(130)
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="a terminal's Ctrl-C is a signal to a process group")
@pytest.mark.parametrize("how", ["ctrl-c", "kill"])
def test_a_driver_that_is_stopped_leaves_no_worker_and_only_whole_runs(
    tiny: hrg.Architecture, tmp_path: Path, how: str
) -> None:
    (tmp_path / "tiny.yaml").write_text(tiny.to_yaml())
    (tmp_path / "driver.py").write_text(DRIVER)
    with subprocess.Popen(
        [sys.executable, "driver.py", "tiny.yaml", "study"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as driver:
        assert driver.stdout is not None and driver.stderr is not None
        assert driver.stdout.readline() == "1\n"
        if how == "ctrl-c":
            os.killpg(driver.pid, signal.SIGINT)
        else:
            driver.kill()
        rest, errors = driver.communicate(timeout=60)
    if how == "ctrl-c":
        assert driver.returncode == 130
        assert "runs are finished and kept in study. The same command trains the other" in rest
        assert errors == ""
    # the pipes are closed, so no worker holds them any more; none is left in the group either
    deadline = time.monotonic() + 60
    while _group_lives(driver.pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    kept = results(tmp_path / "study")
    assert len(kept) >= 1
    arch = hrg.load(tmp_path / "tiny.yaml")
    for name in list(kept)[:1]:
        label, seed = name.rsplit("-seed", 1)
        train(arch.with_edges(label), out=tmp_path / "again/runs" / name, recipe=QUICK, seed=int(seed), label=label)
        assert results(tmp_path / "again")[name] == kept[name]


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
