"""Specs with random mistakes: each is either fine or refused with a place, in reasonable time. Never a traceback."""

from __future__ import annotations

import random
import resource
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import Problem, SpecError
from hiresnet_graph.shipped import spec_names, spec_path
from tests.mutation import RICH, mutated

LIMIT_S = 5
LIMIT_MIB = 600


def texts() -> dict[str, str]:
    found = {"rich": RICH}
    for name in spec_names():
        path = spec_path(name)
        assert path is not None
        found[name] = path.read_text(encoding="utf-8")
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
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024) / 1


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
        if "\n" in sentence or "Traceback" in sentence or " object at 0x" in sentence:
            return f"{what} is not for people: {sentence!r}"
    return ""


def verdict(text: str) -> str:
    """What is wrong with the treatment of one text; empty if nothing."""
    before = peak_mib()
    try:
        with limited():
            hrg.loads(text, "mutant.yaml").validate()
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
    name = rng.choice(["rich"] * 5 + list(TEXTS))
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
