"""The docs, help texts, messages and docstrings are in plain English: none has a phrase of the list below.

The glossary (docs/glossary.md) defines the project's own terms. The phrases are word-for-word translations, or words
for which the field has another one; each stands beside what to write instead.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import hiresnet_graph
from hiresnet_graph.cli.app import app

ROOT = Path(__file__).parents[1]
PACKAGE = Path(hiresnet_graph.__file__).parent
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "how-to").glob("*.md")),
]
BANNED = {
    r"\bmistakes?\b(?! for\b)": "error",
    r"unless (?:told|asked)": "default ...",
    r"\b(?:is|are|be|was|were|been) told\b|\btold (?:as|by|apart|at|to|in|with|what)\b": "reported, described",
    r"\btells? (?:every|all|of|it|them|what|how|which|the|a|us)\b|\btelling\b": "reports, describes, prints",
    r"\bwhat there is\b": "available, supported",
    r"\bone line each\b": "(omit)",
    r"\bhow far (?:a|it|two|the)\b": "progress, agreement",
    r"\b(?:go|goes|going|went|gone) on\b": "continue, resume",
    r"\bso (?:many|much)\b(?! (?:as|that)\b)": "N, a given number",
    r"\banew\b": "again",
    r"\bamiss\b": "wrong",
    r"\bof before\b": "previous",
    r"\bof today\b": "current",
    r"\bin which ways\b": "how",
    r"\b(?:is|are|be|was) meant\b|\bmay mean\b": "refers to, intended",
    r"\b(?:wants?|wanted|wanting)\b": "requires, expects",
    r"\bare? asked for\b|\bis asked\b": "is requested",
    r"\bis over\b|\bare over\b": "is finished",
    r"\bhow often each\b": "number of",
    r"\bhow sure\b": "uncertainty",
    r"\bsays? (?:as what|how far|what there|otherwise|no more|more)\b": "states, describes",
    r"\bwhat is fastest\b|\bfastest here\b": "the fastest measured on this machine",
    r"\bhas come to\b|\bcame to (?:be|an end)\b": "(present tense)",
    r"\bbehind (?:its|it|the|each|a|that|which)\b": "after",
    r"\bthrown away\b": "discarded",
    r"\bby chance\b": "at random",
    r"\bwithout (?:a )?word\b": "silently",
    r"\bworks? out\b|\bworked out\b": "compute",
}
PHRASE = re.compile("|".join(f"(?:{phrase})" for phrase in BANNED), re.IGNORECASE)


def phrases(text: str) -> list[str]:
    """The banned phrases in a text, each with a few words around it."""
    text = " ".join(text.split())
    return [text[max(0, match.start() - 40) : match.end() + 30] for match in PHRASE.finditer(text)]


def prose(page: Path) -> str:
    """The text of a page without what programs print: code blocks, except those in which help texts stand."""
    return re.sub(r"(?ms)^```(?:python|yaml|json|bash|toml|make).*?^```$", "", page.read_text(encoding="utf-8"))


def helps(command: Any, name: str) -> Iterator[tuple[str, str]]:
    """The help of a command, of its parameters and of its subcommands."""
    yield name, command.help or ""
    for parameter in command.params:
        yield f"{name} {parameter.name}", getattr(parameter, "help", None) or ""
    for child, inner in getattr(command, "commands", {}).items():
        yield from helps(inner, f"{name} {child}")


def texts_of(source: str) -> Iterator[tuple[int, str]]:
    """Docstrings, messages and comments of a module, each with its line."""
    inside_f_strings = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            inside_f_strings |= {id(value) for value in node.values}
            yield node.lineno, "".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside_f_strings:
            yield node.lineno, node.value
    comment: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comment.append((token.start[0], token.string.lstrip("# ")))
        elif token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT) and comment:
            yield comment[0][0], " ".join(text for _, text in comment)
            comment = []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_pages_are_in_plain_english(page: Path) -> None:
    assert not (found := phrases(prose(page))), "\n".join(found)


def test_help_texts_are_in_plain_english() -> None:
    texts = list(helps(typer.main.get_command(app), "hrg"))
    assert len(texts) > 100
    found = [f"{where}: {phrase}" for where, text in texts for phrase in phrases(text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).with_suffix("").as_posix()
)
def test_messages_and_docstrings_are_in_plain_english(file: Path) -> None:
    found = [
        f"{file.name}:{line}: {phrase}" for line, text in texts_of(file.read_text("utf-8")) for phrase in phrases(text)
    ]
    assert not found, "\n".join(found)


def test_specs_are_in_plain_english() -> None:
    files = [*sorted((ROOT / "specs").rglob("*.yaml")), PACKAGE / "starter.yaml"]
    found = [f"{file.name}: {phrase}" for file in files for phrase in phrases(file.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


def test_the_check_finds_a_phrase() -> None:
    assert phrases("Prints what there\nis, one line each.") != []
    assert phrases("Lists the available specs.") == []
    source = '"""Tells every error."""\nx = f"the {name} is meant"  # one\n# line each\n'
    assert [line for line, text in texts_of(source) if phrases(text)] == [1, 2, 2]
