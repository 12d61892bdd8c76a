"""Everything that requires a GPU, in calls of a few minutes: each call continues where the previous one stopped.

    python -m benchmarks.gpu [--out DIR] [--device D] [--minutes N] [--redo PART,PART] [--quick]

The parts, in this order: `hrg doctor`, the tests in tests/gpu, short forms of `benchmarks.conv_table` and
`benchmarks.sweep`, `benchmarks.equivalence`, and the study `table2` for the rest of the time. The last two require
CIFAR-10 (HRG_DATA). Each part writes its results and its log into the folder as it runs; `parts.json` there records
which are finished, and `summary.md` which targets are met and missed.

A part that reaches its time limit is interrupted. The next call starts it again, and all but the tests continue with
what is missing. With `--quick` all sizes are small: it shows that everything runs, also with `--device cpu`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hiresnet_graph.files import write_atomic

ROOT = Path(__file__).parents[1]
TESTS_S = 240.0
_GRACE_S = 25.0  # for an interrupted part to write its checkpoints
_MAX_ENDLESS = 3  # calls that interrupt a part which does not continue where it stopped
_INCOMPLETE = "Not measured yet"
_TARGET = re.compile(r"target (?:<=|>=|<) ?.*\b(met|missed|not measured)\b")
_HRG = ("-m", "hiresnet_graph.cli")
# What the parts import; the other dependencies of the package are for diagrams, charts, searches and exports.
_PACKAGES = (
    *("torch", "torchvision", "numpy", "networkx", "pydantic", "typer", "rich", "PyYAML", "pillow", "safetensors"),
    *("scikit-learn", "scipy", "pytest", "pytest-timeout", "pytest-xdist", "hypothesis"),
)


@dataclass(frozen=True)
class Part:
    """A command, and how much time it may take.

    Attributes:
        arguments: Of Python.
        limit_s: Seconds of one call after which it is interrupted.
        least_s: Seconds that must be left in a call to start it.
        report: The file whose text says what is not measured yet; empty if the exit code says all.
        requires_data: Whether it requires CIFAR-10.
        continues: Whether it continues with what is missing when it is started again.
        variables: Of its environment.
    """

    name: str
    arguments: tuple[str, ...]
    limit_s: float
    least_s: float = 30.0
    report: str = ""
    requires_data: bool = False
    continues: bool = True
    variables: tuple[tuple[str, str], ...] = ()


@dataclass
class State:
    """What is known of a part: `finished`, `interrupted`, `failed`, `skipped`, or `waiting` for the next call.

    Attributes:
        code: Exit code of its command; None if it was interrupted.
    """

    state: str = "waiting"
    seconds: float = 0.0
    calls: int = 0
    message: str = ""
    code: int | None = None


def parts_of(device: str, out: Path, quick: bool) -> list[Part]:
    """All parts, in order."""

    def benchmark(name: str, minutes: float, *arguments: str, limit_s: float, requires_data: bool = False) -> Part:
        own = ("--quick",) if quick else (*arguments, "--minutes", str(minutes))
        command = ("-m", f"benchmarks.{name}", "--json", str(out / f"{name}.json"), "--device", device, *own)
        return Part(name, command, limit_s, report=f"{name}.md", requires_data=requires_data)

    chosen = ("-k", "conv2d or capture or alone") if quick else ()
    workers = str(min(8, len(os.sched_getaffinity(0))))
    tests = ("-m", "pytest", "tests/gpu", "-q", "-n", workers, "-rfEs", f"--junitxml={out / 'tests.xml'}", *chosen)
    small = ("--data", "digits", "--epochs", "1", "--seeds", "1", "--variants", "original,full")
    small += ("width=4", "input.channels=1", "input.height=8", "input.width=8")
    study = (*_HRG, "ablate", "table2", "--stack", "auto", "--device", device, "-o", str(out / "table2"))
    sizes = ("--net", "full", "--precision", "bf16,fp32", "--replicas", "4,16,40", "--processes", "4")
    sizes += ("--images", "4500", "--rounds", "3", "--part-minutes", "0.7")
    return [
        Part("doctor", (*_HRG, "doctor"), 120),
        Part(
            "tests",
            tests,
            TESTS_S,
            least_s=30 if quick else TESTS_S,
            continues=False,
            variables=(("HRG_TEST_DEVICE", device),),
        ),
        benchmark("conv_table", 1, "--replicas", "1,16", limit_s=150),
        benchmark("sweep", 3, *sizes, limit_s=270),
        benchmark(
            "equivalence", 3, "--runs", "20", "--epochs", "4", limit_s=300, requires_data=device != "cpu" and not quick
        ),
        Part("table2", study + (small if quick else ()), float("inf"), requires_data=not quick),
    ]


def missing_packages() -> list[str]:
    """The packages of `_PACKAGES` that are not installed for this Python."""
    found = []
    for name in _PACKAGES:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found.append(name)
    return found


def device_problem(device: str) -> str:
    """Why the parts cannot run on a device; empty if they can."""
    if missing := missing_packages():
        return (
            f"{sys.executable} lacks: {' '.join(missing)}. Install them with pip; without network as "
            "CONTRIBUTING.md describes ('With a GPU'). Or set PYTHON to another Python."
        )
    from hiresnet_graph.errors import UsageError
    from hiresnet_graph.train.environment import choose_device

    try:
        choose_device(device)
    except UsageError as error:
        return f"{error} Without a GPU, '--device cpu --quick' shows that everything runs."
    return ""


def has_cifar() -> bool:
    """Whether CIFAR-10 is found."""
    from hiresnet_graph.data.cifar import Cifar10Data

    return Cifar10Data().find() is not None


def run_part(part: Part, out: Path, seconds: float) -> int | None:
    """Run the command of a part, with its output in `NAME.log`.

    Args:
        seconds: After this time it is interrupted as by Ctrl-C, and later killed.

    Returns:
        Its exit code; None if it was interrupted.
    """
    # Packages may be in folders of PYTHONPATH.
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **dict(part.variables)}
    with (out / f"{part.name}.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, *part.arguments], cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a command and its children if it still runs; kill them if that does not end it."""
    for sent, wait_s in ((signal.SIGINT, _GRACE_S), (signal.SIGKILL, None)):
        if process.poll() is not None:
            return
        os.killpg(process.pid, sent)
        try:
            process.wait(wait_s)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            continue


def outcome(part: Part, state: State, out: Path, seconds: float) -> tuple[str, str]:
    """The state of a part after a call that gave it `seconds`, and a message."""
    if state.code is None:
        if not part.continues and seconds < part.limit_s:
            return "waiting", "the time of the call was too short, the next one repeats it"
        if not part.continues or (state.calls >= _MAX_ENDLESS and part.limit_s < float("inf")):
            return "failed", f"did not end within {part.limit_s:g} s"
        return "interrupted", "the next call continues it"
    if state.code:
        return "failed", f"exit code {state.code}, see {part.name}.log"
    report = out / part.report
    if part.report and not report.exists():
        return "failed", f"wrote no {part.report}, see {part.name}.log"
    if part.report and _INCOMPLETE in report.read_text():
        return "interrupted", "the next call continues it"
    return "finished", ""


def run_parts(parts: Sequence[Part], states: dict[str, State], out: Path, seconds: float, save: Any) -> None:
    """Run the parts that are not finished, as far as the time allows."""
    start = time.monotonic()
    for part in parts:
        state = states[part.name]
        left_s = seconds - (time.monotonic() - start) - _GRACE_S
        if state.state in ("finished", "failed"):
            continue
        if part.requires_data and not has_cifar():
            state.state, state.message = "skipped", "CIFAR-10 is not found: set HRG_DATA to its parent folder"
        elif left_s < part.least_s:
            state.message = state.message or "no time was left in this call"
        else:
            began = time.monotonic()
            limit_s = min(part.limit_s, left_s)
            print(f"{part.name}: at most {limit_s:.0f} s", flush=True)
            state.code = run_part(part, out, limit_s)
            state.calls += 1
            state.seconds = round(state.seconds + time.monotonic() - began, 1)
            state.state, state.message = outcome(part, state, out, limit_s)
            print(f"{part.name}: {state.state} after {state.seconds:g} s {state.message}".rstrip(), flush=True)
        save()


# ------------------------------------------------------------------------------------------------------------- summary


def test_lines(file: Path, is_complete: bool) -> list[str]:
    """The counts of the tests, and their target; an interrupted file has only those that had ended."""
    if not file.exists() or not is_complete:
        return [f"- tests: failures, target <= 0, within {TESTS_S:g} s: not measured"]
    suites = ElementTree.parse(file).getroot().iter("testsuite")
    total, failed, skipped, seconds = 0, 0, 0, 0.0
    for suite in suites:
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
        seconds += float(suite.get("time", 0))
    met = "met" if not failed and seconds <= TESTS_S else "missed"
    counts = f"{total - failed - skipped} passed, {failed} failed, {skipped} skipped in {seconds:.0f} s"
    return [f"- tests: {counts}, target <= 0 failed within {TESTS_S:g} s: {met}"]


def target_lines(part: Part, state: State, out: Path) -> list[str]:
    """The lines of a part's report that compare a number with its target."""
    if part.name == "tests":
        return test_lines(out / "tests.xml", is_complete=state.code in (0, 1))
    file = out / part.report
    if not part.report or part.name == "conv_table":  # its tables have no target
        return []
    lines = file.read_text().splitlines() if file.exists() else []
    found = [f"- {part.name}: {line.removeprefix('- ')}" for line in lines if _TARGET.search(line)]
    return found or [f"- {part.name}: target >= any: not measured"]


def summary(parts: Sequence[Part], states: dict[str, State], out: Path) -> str:
    """The state of all parts, and the targets."""
    lines = [line for part in parts for line in target_lines(part, states[part.name], out)]
    verdicts = [match[1] for line in lines if (match := _TARGET.search(line))]
    counts = ", ".join(f"{verdicts.count(word)} {word}" for word in ("met", "missed", "not measured"))
    rows = [
        f"- {part.name}: {state.state}, {state.seconds:g} s in {state.calls} calls. {state.message}".rstrip()
        for part in parts
        for state in [states[part.name]]
    ]
    text = ["# GPU", "", *rows, "", f"Targets: {counts}.", "", *lines]
    if any("/ graph" in line and "missed" in line for line in lines):
        text += ["", "Stacking is less than 1.5 times as fast as one model's CUDA graph: propose its removal."]
    return "\n".join([*text, ""])


def table_of(out: Path) -> None:
    """Write the table of the study as far as it is trained, with the number of finished runs."""
    if (out / "table2" / "ledger.sqlite").exists():
        for command, file in (
            (("status",), "table2.txt"),
            (("report", "--what", "table", "--format", "md"), "table2.md"),
        ):
            arguments = [sys.executable, *_HRG, command[0], str(out / "table2"), *command[1:]]
            done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
            (out / file).write_text(done.stdout + done.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; the exit code is 1 if one has failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/gpu"), metavar="DIR", help="default %(default)s")
    parser.add_argument("--device", default="cuda", help="cpu, cuda (default), cuda:N")
    parser.add_argument("--minutes", type=float, default=9.0, metavar="N", help="of this call (default %(default)s)")
    parser.add_argument(
        "--redo", default="", metavar="A,B", help="parts to run again though they are finished or failed"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs")
    given = parser.parse_args(arguments)
    if problem := device_problem(given.device):
        parser.exit(2, f"benchmarks.gpu: {problem}\n")
    out: Path = given.out.resolve()
    parts = parts_of(given.device, out, given.quick)
    record, settings = out / "parts.json", {"device": given.device, "quick": given.quick}
    stored = json.loads(record.read_text()) if record.exists() else {**settings, "parts": {}}
    if any(stored[key] != value for key, value in settings.items()):
        parser.error(f"{record} has device {stored['device']} and quick {stored['quick']}; give another --out.")
    redo = set(filter(None, given.redo.split(",")))
    if unknown := redo - {part.name for part in parts}:
        parser.error(f"--redo: there is no part {', '.join(unknown)}, only {', '.join(part.name for part in parts)}.")
    found = {name: State(**value) for name, value in stored["parts"].items() if name not in redo}
    states = {part.name: found.get(part.name, State()) for part in parts}

    def save() -> None:
        values = {name: asdict(state) for name, state in states.items()}
        write_atomic(record, (json.dumps({**settings, "parts": values}, indent=2) + "\n").encode())
        (out / "summary.md").write_text(summary(parts, states, out))

    out.mkdir(parents=True, exist_ok=True)
    save()
    try:
        with _interruptible():
            run_parts(parts, states, out, 60 * given.minutes, save)
    except KeyboardInterrupt:
        print("Interrupted: the same command continues.", file=sys.stderr)
        return 130
    table_of(out)
    print((out / "summary.md").read_text())
    return int(any(state.state == "failed" for state in states.values()))


@contextmanager
def _interruptible() -> Iterator[None]:
    """Within, Ctrl-C and SIGTERM interrupt, also in commands that a shell starts in the background."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
