"""Shipped specs and studies with random changes: each is valid, or refused with a message."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import HrgError, SpecError
from hiresnet_graph.shipped import spec_names, spec_path, study_names, study_path
from hiresnet_graph.spec.reader import parse
from hiresnet_graph.sweep.networks import networks_of
from hiresnet_graph.sweep.search_space import SearchSpace
from hiresnet_graph.sweep.study import study_of

TRIES = 12
ODD = (
    *(
        "null",
        "true",
        "-1",
        "0",
        "1e400",
        ".nan",
        "9" * 400,
        "''",
        "' '",
        "[]",
        "{}",
        "[[]]",
        "{a: {}}",
        "~",
        "*a",
        "!x",
    ),
    *("$x", "$(1/0)", "$(9**9**9)", "$(", "'$(width)'", "a -> b", "->", "full - full", "x0>x1", "(", "[1, 2, 3]", "é"),
    *("input", "edges", "stages", "blocks", "self", "__class__", "'\\x00'", '"\\ud800"', "2001-01-01", "0x10", "1_0"),
)
WORD = re.compile(r"[\w.$*+-]+")
SPECS = sorted(spec_names(), key=lambda name: len(Path(str(spec_path(name))).read_text()))[:14]


def mutated(text: str, draw: random.Random) -> str:
    """The text with one to four random changes."""
    for _ in range(draw.randint(1, 4)):
        lines = text.split("\n")
        k = draw.randrange(len(lines))
        words = list(WORD.finditer(text)) or [re.compile("").match(text)]
        one, other = draw.choice(words), draw.choice(words)
        assert one is not None and other is not None
        kind = draw.randrange(6)
        if kind == 0:
            text = "\n".join(lines[:k] + lines[k + 1 :])
        elif kind == 1:
            text = "\n".join([*lines[:k], lines[k], *lines[k:]])
        elif kind == 2:
            text = text[: one.start()] + other[0] + text[one.end() :]
        elif kind in (3, 4):
            text = text[: one.start()] + draw.choice(ODD) + text[one.end() :]
        else:
            at = draw.randrange(len(text) + 1)
            text = text[:at] + draw.choice("{}[]:,'\"#&*!|>%@`\t\n\x00\u2028 ") + text[at:]
    return text


def check_spec(text: str) -> None:
    arch = hrg.loads(text, "fuzz.yaml")
    arch.validate()
    arch.source()


def check_study(text: str) -> None:
    study = study_of(parse(text, "specs/studies/fuzz.yaml"))
    if study.search is not None:
        SearchSpace(study, with_data=False)
    else:
        networks_of(study)


def attempt(check: Callable[[str], None], text: str) -> None:
    """Check a text: no exception but those for users, and each problem of a spec has a message and a position."""
    try:
        check(text)
    except SpecError as error:
        for problem in error.problems:
            assert problem.message.endswith((".", "?", "!", ".)")) and "\n" not in str(problem), problem
            assert problem.position is not None, problem
    except HrgError as error:
        assert str(error).strip()


@pytest.mark.parametrize("seed", range(2))
def test_specs_with_random_changes(seed: int) -> None:
    draw = random.Random(seed)
    texts = [Path(str(spec_path(name))).read_text() for name in SPECS]
    for _ in range(TRIES):
        attempt(check_spec, mutated(draw.choice(texts), draw))


def test_studies_with_random_changes() -> None:
    draw = random.Random(0)
    texts = [Path(str(study_path(name))).read_text() for name in study_names()]
    texts = [text for text in texts if "hiresnet18" in text and "subsets" not in text]
    for _ in range(TRIES):
        attempt(check_study, mutated(draw.choice(texts), draw))
