"""Specs with random mistakes: each is either fine or refused with a place, in reasonable time. Never a traceback."""

from __future__ import annotations

import random
import re
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import Problem, SpecError
from hiresnet_graph.shipped import spec_names, spec_path
from tests.mutation import IN_TIME, RICH, mutated

LIMIT_S = 10
LIMIT_MIB = 600


def texts() -> dict[str, str]:
    found = {"rich": RICH, "in time": IN_TIME}
    for name in spec_names():
        path = spec_path(name)
        assert path is not None
        found[name] = path.read_text(encoding="utf-8")
    cell = Path(__file__).parent / "sketches" / "nasbench101_cell.yaml"
    found["nasbench101_cell"] = cell.read_text(encoding="utf-8")
    found["rich as JSON"] = hrg.loads(RICH).to_json()
    found["in time as JSON"] = hrg.loads(IN_TIME).to_json()
    found["hiresnet18 as JSON"] = hrg.load("hiresnet18").to_json()
    return found


TEXTS = texts()


class TooSlow(Exception):
    """A mutant took more than its time."""


@contextmanager
def limited() -> Iterator[None]:
    """Stops what runs too long, by the processor's clock, so that a busy machine does not matter."""

    def stop(*_: Any) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def flaw(problem: Problem) -> str:
    """What is wrong with the way a mistake is told; empty if nothing."""
    position = problem.position
    if position is None:
        return "no position"
    lines = [*position.source.text.splitlines(), ""]
    if not 1 <= position.line <= len(lines):
        return f"line {position.line} of {len(lines) - 1}"
    if not 1 <= position.column <= len(lines[position.line - 1]) + 1:
        return f"column {position.column} of {len(lines[position.line - 1])}"
    for what, sentence in (("message", problem.message), ("hint", problem.hint)):
        if what == "message" and len(sentence) < 10:
            return f"{what} of {len(sentence)} characters"
        if sentence and not sentence.endswith((".", "?", "!", ".)")):
            return f"{what} does not end: {sentence!r}"
        if re.search(r"[.?!:,] ?[.?!]$", sentence) and not sentence.endswith("..."):
            return f"{what} ends twice: {sentence!r}"
        if "\n" in sentence or "Traceback" in sentence or " object at 0x" in sentence:
            return f"{what} is not for people: {sentence!r}"
    return ""


def verdict(text: str) -> str:
    """What is wrong with the treatment of one text; empty if nothing."""
    before = peak_mib()
    try:
        with limited():
            network = hrg.loads(text, "mutant.yaml")
            network.validate()
            told = network.warnings
        for problem in told:
            if what := flaw(problem):
                return f"{what}, in the warning: {problem}"
    except SpecError as error:
        if not error.problems:
            return "a SpecError without problems"
        for problem in error.problems:
            if what := flaw(problem):
                return f"{what}, in: {problem}"
    except TooSlow:
        return f"takes more than {LIMIT_S} s: {traceback.format_exc(limit=-6)}"
    except Exception:
        return traceback.format_exc(limit=-6)
    grown = peak_mib() - before
    return f"takes {grown:.0f} MiB" if grown > LIMIT_MIB else ""


def mutant(seed: str) -> tuple[str, str]:
    """The name of a spec and its text with mistakes, as the seed has it."""
    rng = random.Random(seed)
    name = rng.choice(["rich"] * 4 + ["in time"] * 8 + list(TEXTS))
    return name, mutated(rng, TEXTS[name])


def failures(seeds: list[str]) -> str:
    told = []
    for seed in seeds:
        name, text = mutant(seed)
        if what := verdict(text):
            told.append(f"seed {seed!r}, made from {name}:\n{what}\n--- text\n{text}\n---")
    return "\n\n".join(told)


def test_the_texts_are_valid() -> None:
    for name, text in TEXTS.items():
        hrg.loads(text, f"{name}.yaml").validate()


@pytest.mark.parametrize("batch", range(10))
def test_mutants(batch: int) -> None:
    told = failures([f"fast-{batch}-{i}" for i in range(20)])
    assert not told, told


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(50))
def test_many_mutants(batch: int) -> None:
    told = failures([f"slow-{batch}-{i}" for i in range(60)])
    assert not told, told


def validate(files: list[Path]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hiresnet_graph.cli", "validate", *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def is_valid(path: Path) -> bool:
    try:
        hrg.load(path).validate()
    except SpecError:
        return False
    return True


def test_mutants_on_the_command_line(tmp_path: Path) -> None:
    files = []
    for i in range(20):
        path = tmp_path / f"mutant{i}.yaml"
        path.write_bytes(mutant(f"cli-{i}")[1].encode("utf-8", "surrogatepass"))
        files.append(path)
    valid = [path for path in files if is_valid(path)]
    assert 0 < len(valid) < len(files)
    done = validate(files)
    out = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in out, out
    mistakes = "\n".join(line for line in out.splitlines() if ": warning: " not in line)
    for path in files:
        # A hint may lead there, if the place is in what the file extends.
        place = re.compile(re.escape(str(path)) + r":\d+:\d+[:.]")
        assert (path in valid) != bool(place.search(mistakes)), out
    for path in (valid[0], next(path for path in files if path not in valid)):
        one = validate([path])
        assert one.returncode == (path not in valid) and "Traceback" not in one.stdout + one.stderr


HEAD = "name: net\ninput: {channels: 3, height: 8, width: 8}\n"
BOMBS = {
    # What a short text may ask for: refused, or done at once.
    "deep stages in deep stages": HEAD
    + "blocks:\n"
    + "".join(f"  c{i}: {{nodes: {{x: {{block: c{i + 1}, depth: 1000}}}}}}\n" for i in range(5))
    + "  c5: {nodes: {x: identity}}\nnodes: {a: c0}\n",
    "two of itself": HEAD + "blocks: {c: {nodes: {x: c, y: c}, flow: x -> y}}\nnodes: {a: c}\n",
    "ever deeper": HEAD + "blocks: {c: {params: {n: 9}, nodes: {x: {block: c, n: $(n + 1)}}}}\nnodes: {a: c}\n",
    "all pairs of blocks": HEAD + "nodes: {a: {block: relu, depth: 1000}}\nedges: [{from: 'a.*', to: 'a.*'}]\n",
    "all pairs of a set": HEAD + "nodes: {a: {block: relu, depth: 1000}}\nskips: {edges: 'a.*>a.*'}\n",
    "full over all blocks": HEAD + "nodes: {a: {block: relu, depth: 1000}}\nskips: {levels: blocks, edges: full}\n",
    "depth": HEAD + "nodes: {a: {block: relu, depth: 10000}}\n",
    "many stages": HEAD + "nodes: {" + ", ".join(f"n{i}: {{block: relu, depth: 1000}}" for i in range(200)) + "}\n",
    "long chain of aliases": HEAD
    + "blocks: {"
    + ", ".join(f"c{i}: {{block: c{i + 1}}}" for i in range(5000))
    + ", c5000: {block: relu}}\nnodes: {a: c0}\n",
    "stars": HEAD + f"nodes: {{{'a' * 300}b: relu, '{'a*' * 100}.x': {{y: 1}}}}\n",
    "width": HEAD + "nodes: {a: {block: conv, width: 1000000}, b: {block: conv, width: 1000000}}\nflow: a -> b\n",
    "pixels": "name: net\ninput: {channels: 1000000, height: 1000000, width: 1000000}\nnodes: {a: flatten}\n",
    "larger and larger": HEAD + "nodes: {a: {block: upsample, scale: 1000000, depth: 3}}\n",
    "wider and wider": HEAD + "nodes: {a: {block: mbconv, width: 1000000, expansion: 64, depth: 3}}\n",
    "power": HEAD + "params: {w: $(9 ** 9 ** 9)}\nnodes: {a: {block: conv, width: $w}}\n",
    "brackets": HEAD + "params: {w: $(" + "(" * 500 + "1" + ")" * 500 + ")}\nnodes: {a: relu}\n",
    "brackets of a set": HEAD
    + "nodes: {a: relu}\nskips: {levels: [a], edges: "
    + "(" * 5000
    + "full"
    + ")" * 5000
    + "}\n",
    "text": HEAD
    + "params: {"
    + ", ".join(f"p{i}: $p{i + 1}$p{i + 1}" for i in range(60))
    + ", p60: x}\nnodes: {a: relu}\n",
    "many steps": HEAD + "nodes: {a: relu}\nedges: [{from: a, to: a, delay: 1}]\ntime: {steps: 10000}\n",
    "many steps of much": HEAD
    + "nodes: {a: {block: conv, width: 3, depth: 100}}\nedges: [{from: a, to: a, delay: 1}]\ntime: {steps: 10000}\n",
    "steps in steps": HEAD
    + "blocks:\n"
    + "".join(
        f"  c{i}: {{nodes: {{x: c{i + 1}}}, edges: [{{from: x, to: x, delay: 1}}], time: {{steps: 1000}}}}\n"
        for i in range(5)
    )
    + "  c5: {nodes: {x: relu}}\nnodes: {a: c0}\n",
    "stages in steps in stages": HEAD
    + "blocks:\n"
    + "".join(
        f"  c{i}: {{nodes: {{x: {{block: c{i + 1}, depth: 10}}}}, edges: [{{from: x, to: x, delay: 1}}], "
        "time: {steps: 10}}\n"
        for i in range(5)
    )
    + "  c5: {nodes: {x: relu}}\nnodes: {a: c0}\n",
    "late": HEAD + "nodes: {a: relu}\nedges: [{from: a, to: a, delay: 1, at: 10000}]\ntime: {steps: 3}\n",
    "long delays": HEAD
    + f"nodes: {{{', '.join(f's{i}: {{block: state, shape: [3, 8, 8]}}' for i in range(30))}}}\nflow: input -> s0\n"
    + "transitions:\n"
    + "".join(f"  s{i}: {{{', '.join(f's{j}: {{delay: 1000}}' for j in range(30))}}}\n" for i in range(30))
    + "outputs: s0\ntime: {steps: 5}\n",
    "lists": HEAD
    + "params: {"
    + ", ".join(f"p{i}: [$p{i + 1}, $p{i + 1}]" for i in range(60))
    + ", p60: x}\nnodes: {a: relu}\n",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_short_text_cannot_ask_for_too_much(name: str) -> None:
    what = verdict(BOMBS[name])
    assert not what, what
