"""Studies of real runs in which processes are killed: the results are those of an undisturbed study."""

import dataclasses
import json
import os
import pickle
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import hiresnet_graph as hrg
from hiresnet_graph.errors import RunError
from hiresnet_graph.stack.grouping import SupergraphStack
from hiresnet_graph.sweep import Study, StudyPlan, plan_study, read_results
from hiresnet_graph.sweep.executors import Executor, LocalExecutor
from hiresnet_graph.sweep.executors.base import Training
from hiresnet_graph.sweep.ledger import Ledger
from hiresnet_graph.sweep.training import Progress, train_all
from hiresnet_graph.train import Recipe
from tests.sweep.works import Inline

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="looks at processes as Linux shows them"
)

ROOT = Path(__file__).parents[2]
DATA = {"kind": "synthetic", "images": 1000, "channels": 1, "size": 8}


def planned(network: hrg.Architecture, **fields: Any) -> StudyPlan:
    """A study of short runs that save a checkpoint after each epoch."""
    fields = {"data": DATA, "variants": ("none", "full"), "recipe": Recipe(epochs=3, batch_size=100), **fields}
    plan = plan_study(Study(network=network, **fields))
    requests = {key: dataclasses.replace(request, checkpoint_s=0.0) for key, request in plan.requests.items()}
    return dataclasses.replace(plan, requests=requests)


def trained(plan: StudyPlan, folder: Path, executor: Executor | None = None, **how: Any) -> None:
    """Train a study, in this process unless another executor is given."""
    with Ledger.open(folder) as ledger, executor or Inline() as workers:
        ledger.join(plan)
        train_all(ledger, plan.requests, workers, **how)


def found(folder: Path) -> dict[str, dict[str, Any]]:
    """The results of all runs of a study, without what may differ between equal runs."""
    runs = {}
    for path in sorted(folder.glob("runs/*/result.json")):
        record = json.loads(path.read_text())
        assert record.pop("machine") and record.pop("time_s")
        for epoch in record["epochs"]:
            assert epoch.pop("time_s") > 0
        metrics = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
        weights = {name: (path.parent / f"{name}.safetensors").read_bytes() for name in ("model", "last")}
        seen = [(row["epoch"], row["split"], row["loss"], row["accuracy"]) for row in metrics]
        runs[path.parent.name] = {**record, **weights, "metrics": seen}
    return runs


def curves(folder: Path) -> dict[str, Any]:
    """The ledger's curves of each run, and how often each run has ended."""
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as database:
        ends = database.execute("SELECT key, count(*) FROM attempts WHERE state = 'complete' GROUP BY key").fetchall()
        epochs = database.execute("SELECT key, epoch, split, loss, accuracy, top_k FROM curves").fetchall()
    return {"ends": sorted(ends), "epochs": sorted(epochs)}


def kept(folder: Path) -> tuple[dict[Path, int], dict[str, int]]:
    """The write times of the files of finished runs, and the attempts of finished runs."""
    files = [path for run in folder.glob("runs/*/result.json") for path in run.parent.iterdir() if path.is_file()]
    results = read_results(folder)
    attempts = {row.key: row.attempts for row in results.rows if row.state == "complete"}
    return {path: path.stat().st_mtime_ns for path in files}, attempts


class Driver:
    """A driver in its own process, with its output and its workers."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.mark = uuid.uuid4().hex
        command = [sys.executable, "-m", "tests.sweep.kills", str(folder), str(workers)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "HRG_TEST_MARK": self.mark}
        )
        assert self.process.stdout is not None
        self.lines = iter(self.process.stdout)

    def family(self) -> dict[int, str]:
        """The driver and all processes that it has started, with their commands."""
        members = {}
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if f"HRG_TEST_MARK={self.mark}".encode() in (place / "environ").read_bytes():
                    members[int(place.name)] = (place / "cmdline").read_text()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return members

    def workers(self) -> list[int]:
        return [pid for pid, command in self.family().items() if "spawn_main" in command]

    def wait_until_gone(self) -> None:
        """Wait until all processes of the driver have ended."""
        assert self.process.stdout is not None
        self.process.wait()
        self.process.stdout.close()
        deadline = time.monotonic() + 20
        while family := self.family():
            assert time.monotonic() < deadline, family
            time.sleep(0.02)


@contextmanager
def driver(folder: Path, workers: int) -> Iterator[Driver]:
    one = Driver(folder, workers)
    try:
        yield one
    finally:
        one.process.kill()
        one.wait_until_gone()


def kill_at_random(folder: Path, kinds: list[str], chance: random.Random, workers: int) -> Counter[str]:
    """Kill workers, drivers, or both at random times, then let the study finish; returns how often runs ended."""
    ended: Counter[str] = Counter()
    before: tuple[dict[Path, int], dict[str, int]] = ({}, {})
    kinds = list(kinds)
    done = False
    while not done:
        with driver(folder, workers) as one:
            while True:
                for _, line in zip(range(chance.randint(1, 6)), one.lines, strict=False):
                    word, name, *_ = line.split()
                    ended[name] += word == "complete"
                time.sleep(chance.uniform(0, 0.05))
                if not kinds:
                    for line in one.lines:
                        word, name, *_ = line.split()
                        ended[name] += word == "complete"
                    assert one.process.wait() == 0
                    done = True
                    break
                kind = kinds.pop()
                there = one.workers()
                if kind != "driver" and there:
                    os.kill(chance.choice(there), signal.SIGKILL)
                if kind != "worker":
                    one.process.kill()
                    for line in one.lines:
                        ended[line.split()[1]] += line.startswith("complete")
                    break
        now = kept(folder / "study")
        for old, new in zip(before, now, strict=True):
            # every finished run was kept, not written again, and not attempted again
            assert old.items() <= new.items()  # type: ignore[attr-defined]
        before = now
    return ended


def check_kills(
    network: hrg.Architecture,
    tmp_path: Path,
    kinds: list[str],
    seed: int,
    *,
    workers: int,
    stack: int | None = None,
    **fields: Any,
) -> None:
    chance = random.Random(seed)
    chance.shuffle(kinds)
    plan = planned(network, **fields)
    whole = network.with_edges("full").to_yaml()
    stacks = list(SupergraphStack(tuple(plan.requests), whole, "stacked").split(stack)) if stack else []
    (tmp_path / "plan").write_bytes(pickle.dumps((plan, stacks)))
    trained(plan, tmp_path / "undisturbed", stacks=stacks)
    ended = kill_at_random(tmp_path, kinds, chance, workers)
    results = read_results(tmp_path / "study")
    assert [row.state for row in results.rows] == ["complete"] * len(plan.rows)
    assert len({row.key for row in results.rows}) == len(results.rows) == len(plan.rows)
    # the driver may be killed before it reports an end, but never reports it twice
    assert max(ended.values()) == 1
    assert found(tmp_path / "study") == found(tmp_path / "undisturbed")
    assert len(found(tmp_path / "study")) == len(plan.requests)
    assert curves(tmp_path / "study")["epochs"] == curves(tmp_path / "undisturbed")["epochs"]
    assert {number for _, number in curves(tmp_path / "study")["ends"]} == {1}
    # no attempt is running any more
    with closing(sqlite3.connect(tmp_path / "study" / "ledger.sqlite")) as database:
        assert not database.execute("SELECT * FROM attempts WHERE state = 'running'").fetchall()


def test_killing_a_worker_and_the_driver_changes_nothing(tiny: hrg.Architecture, tmp_path: Path) -> None:
    check_kills(tiny, tmp_path, ["worker", "driver", "both"], seed=int.from_bytes(os.urandom(2)), workers=1, seeds=3)


@pytest.mark.slow
def test_killing_changes_nothing_of_a_stack(tiny: hrg.Architecture, tmp_path: Path) -> None:
    kinds = ["worker", "driver", "both"]
    check_kills(tiny, tmp_path, kinds, seed=int.from_bytes(os.urandom(2)), workers=1, seeds=4, stack=4)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killing_stacks_often_changes_nothing(tiny: hrg.Architecture, tmp_path: Path) -> None:
    kinds = ["worker"] * 8 + ["driver"] * 5 + ["both"] * 5
    recipe = Recipe(epochs=12, batch_size=100)
    seed = int.from_bytes(os.urandom(2))
    check_kills(tiny, tmp_path, kinds, seed=seed, workers=2, seeds=8, stack=4, recipe=recipe)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killing_often_changes_nothing(tiny: hrg.Architecture, tmp_path: Path) -> None:
    kinds = ["worker"] * 10 + ["driver"] * 7 + ["both"] * 7
    check_kills(
        tiny,
        tmp_path,
        kinds,
        seed=int.from_bytes(os.urandom(2)),
        workers=2,
        variants=("none", "full", "in", "out", "p1"),
        seeds=6,
        recipe=Recipe(epochs=6, batch_size=100),
    )


def test_divergence_and_lack_of_memory_do_not_stop_others(tiny: hrg.Architecture, tmp_path: Path) -> None:
    plan = planned(tiny, grid={"lr": (0.01, 1e30)}, variants=("none",), seeds=1)
    wide = planned(tiny, changes={"width": 60_000}, variants=("none",), seeds=1)
    (key, request), *_ = wide.requests.items()
    plan = dataclasses.replace(
        plan,
        networks=(*plan.networks, dataclasses.replace(wide.networks[0], label="wide")),
        rows=(dataclasses.replace(wide.rows[0], network=len(plan.networks)), *plan.rows),
        requests={key: request, **plan.requests},
    )
    with pytest.raises(RunError, match=r"run 'wide-seed0': .*memory"):
        trained(plan, tmp_path, LocalExecutor(1), work=Limited, retries=0)
    results = read_results(tmp_path)
    states = {results.networks[row.network].setting.get("recipe.lr"): row.state for row in results.rows}
    assert states == {None: "failed", 0.01: "complete", 1e30: "diverged"}


@dataclasses.dataclass(frozen=True)
class Limited(Training):
    """Training in a process with at most 4 GiB of memory."""

    def __call__(self) -> Iterator[Any]:
        resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))
        return super().__call__()


def test_an_image_that_disappears_fails_one_run(tiny: hrg.Architecture, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(40):
            Image.new("L", (8, 8), (i * 5 + 50 * (name == "b")) % 256).save(tmp_path / "images" / name / f"{i}.png")
    data = {"kind": "imagefolder", "dir": str(tmp_path / "images"), "channels": 1, "stream": True}
    recipe = Recipe(epochs=2, batch_size=20)
    plan = planned(tiny.override({"head.classes": 2}), data=data, seeds=1, recipe=recipe)
    victims = [tmp_path / "images" / "a" / f"{i}.png" for i in range(20)]
    contents = {path: path.read_bytes() for path in victims}

    def delete(step: Progress) -> None:
        if step.state == "complete":
            for path in victims:
                path.unlink(missing_ok=True)

    study = tmp_path / "study"
    with pytest.raises(RunError, match=r"\.png: this image of the data set is missing\. Restore it, then resume"):
        trained(plan, study, progress=delete)
    assert Counter(row.state for row in read_results(study).rows) == {"complete": 1, "failed": 1}
    for path, content in contents.items():
        path.write_bytes(content)
    trained(plan, study)
    trained(plan, tmp_path / "undisturbed")
    assert found(study) == found(tmp_path / "undisturbed")


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="needs to mount a small file system")
def test_a_study_can_be_resumed_after_a_full_disk(tiny: hrg.Architecture, tmp_path: Path) -> None:
    plan = planned(tiny, seeds=2)
    small = tmp_path / "small"
    small.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", small], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        (small / "filler").write_bytes(bytes(60_000))
        with pytest.raises(RunError) as error:
            trained(plan, small / "study", retries=0)
        assert "No space left on device" in str(error.value) or "disk is full" in str(error.value)
        subprocess.run(["mount", "-o", "remount,size=8m", small], check=True)
        trained(plan, small / "study")
        trained(plan, tmp_path / "undisturbed")
        assert found(small / "study") == found(tmp_path / "undisturbed")
    finally:
        subprocess.run(["umount", "-l", small], check=True)
