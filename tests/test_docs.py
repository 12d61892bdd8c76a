"""The docs, executed: every command, spec and snippet of a page runs and prints what the page shows.

The blocks of a page run in order, in a temporary folder. Comments before a block set its purpose:

    <!-- test: file NAME -->         write the block to this file; validate a spec
    <!-- test: patch of SPEC -->     a part of a spec: validate it as an extension of this one
    <!-- test: invalid: WHY -->      a spec with errors, which the page shows next
    <!-- test: exit N -->            exit code of the last command
    <!-- test: numbers vary: WHY --> numbers may differ
    <!-- test: slow: WHY -->         run it only with the slow tests
    <!-- test: skip: WHY -->         do not run it
    <!-- test: sums -->              check every equation

A picture of `docs/images/tutorials` is drawn by a command of its page, under the same name. To renew it, delete it: the
test writes what is missing, and fails.

The commands of `bash` and `console` blocks run. In `console` they start with `$ `, and their output is compared;
`...` matches anything. A `text` block after a `python` block is the output of that block.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.cost import count_parts
from tests.forked import Session, run_command
from tests.test_layers import LAYERS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
REFERENCE = ROOT / "docs" / "reference"
FOLDERS = [ROOT / "docs", ROOT / "docs" / "tutorials", ROOT / "docs" / "how-to"]
PAGES = [README, *(page for folder in FOLDERS for page in sorted(folder.glob("*.md")))]
ALL = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(REFERENCE.glob("*.md"))]
LANGUAGES = {"bash", "console", "json", "make", "python", "text", "toml", "yaml"}
PROGRAMS = {"hrg", "python", "cat", "ls", "cp", "mkdir", "head"}
TIMEOUT_S = 250
REASONED = {"invalid", "numbers vary", "slow", "skip"}
MARK = re.compile(r"<!-- test: (file|patch of|exit|sums|invalid|numbers vary|slow|skip)(?:(:)? (\S.*?))? -->")


@dataclass
class Block:
    page: str
    line: int
    language: str
    text: str = ""
    marks: dict[str, str] = field(default_factory=dict)
    follows: Block | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(path: Path) -> list[Block]:
    """The fenced blocks of a page with their marks, without directives of the site."""
    found: list[Block] = []
    marks: dict[str, str] = {}
    current: Block | None = None
    near: Block | None = None
    prose = ""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if current is not None:
            if line.strip() == "```":
                is_directive = current.language.startswith("{")
                found += [] if is_directive else [current]
                near, current = None if is_directive else current, None
            else:
                current.text += line + "\n"
            continue
        where = f"{path.name}:{number}"
        if line.startswith("<!-- test:"):
            match = MARK.fullmatch(line)
            assert match is not None, f"{where}: no such mark"
            assert (match[1] in REASONED) == bool(match[2]), f"{where}: a reason is required, after a colon"
            assert match[3] or match[1] == "sums", f"{where}: this mark is empty"
            assert match[1] != "file" or f"`{match[3]}`" in prose, f"{where}: the page must name the file"
            marks[match[1]] = match[3] or ""
        elif line.startswith("```"):
            language = line.removeprefix("```").strip()
            assert language in LANGUAGES or language.startswith("{"), f"{where}: a block of language {language!r}"
            current = Block(path.name, number, language, marks=marks, follows=near)
            marks = {}
        elif line.strip():
            assert not marks, f"{where}: a mark without a block"
            near, prose = None, line if near else f"{prose}\n{line}"
    assert current is None and not marks
    return found


def commands(block: Block) -> Iterator[tuple[str, str | None]]:
    """Each command with its expected output (None in `bash`)."""
    lines = block.text.splitlines()
    found: list[tuple[str, list[str]]] = []
    is_open = False
    for line in lines:
        if is_open:
            command, shown = found[-1]
            found[-1] = (f"{command}\n{line}", shown)
        elif block.language == "console" and not line.startswith("$ "):
            assert found, f"{block}: a command starts with '$ '"
            found[-1][1].append(line)
            continue
        elif line.strip() and not line.startswith("#"):
            found.append((line.removeprefix("$ "), []))
        is_open = line.endswith("\\")
    for command, shown in found:
        yield command, "\n".join(shown) if block.language == "console" else None


class Follower:
    """Somebody who does what a page says, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.env = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        for name in ("COLUMNS", "HRG_DATA"):
            self.env.pop(name, None)
        self.session: Session | None = None
        self.printed = ""
        (folder / "examples").symlink_to(ROOT / "examples")

    def close(self) -> None:
        if self.session is not None:
            self.session.close()

    def follow(self, block: Block) -> None:
        if "skip" in block.marks:
            return
        if name := block.marks.get("file"):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(block.text)
        if "sums" in block.marks:
            check_sums(block)
        if block.language in ("bash", "console"):
            self.run(block)
        elif block.language == "yaml" and "invalid" not in block.marks:
            self.validate(block)
        elif block.language == "python" and "file" not in block.marks:
            self.printed = self.python(block.text, block)
        elif block.language == "text" and block.follows is not None and block.follows.language == "python":
            compare(block, block.text.strip(), self.printed)
        elif block.language == "json":
            json.loads(block.text)

    def run(self, block: Block) -> None:
        given = list(commands(block))
        for i, (command, shown) in enumerate(given):
            assert command.split()[0] in PROGRAMS, f"{block}: '{command}' needs a mark, 'skip: WHY'"
            code, printed = self.shell(command)
            expected = int(block.marks.get("exit", 0)) if i == len(given) - 1 else 0
            assert code == expected, f"{block}: '{command}' ended with {code}:\n{printed}"
            if shown is not None:
                compare(block, shown, printed)

    def shell(self, command: str) -> tuple[int, str]:
        """The exit code of a command and what it prints."""
        words = shlex.split(command.replace("\\\n", " "))
        if words[0] == "hrg" and not re.search(r"[|&;<>$*`]|\s#", command):
            return run_command(words[1:], self.folder, self.env, TIMEOUT_S)
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {command}"],
            cwd=self.folder,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
        )
        return done.returncode, done.stdout

    def validate(self, block: Block) -> None:
        text = block.text
        if base := block.marks.get("patch of"):
            text = f"name: part\nextends: {base}\n{text}"
        elif "file" in block.marks and not re.search(r"(?m)^(nodes|extends):", text):
            return
        # In the session, where the kinds of the page are registered, and in its folder.
        self.python(f"import hiresnet_graph as hrg; hrg.loads({text!r}, {str(block)!r}).validate()", block)

    def python(self, code: str, block: Block) -> str:
        if self.session is None:
            self.session = Session(self.folder, self.env)
        printed, error = self.session.execute(code)
        assert not error, f"{block}:\n{error}"
        return printed


def compare(block: Block, shown: str, got: str) -> None:
    """Compare expected and actual output; `...` matches anything, alone in a line any lines."""
    rough = "numbers vary" in block.marks

    def plain(text: str) -> list[str]:
        lines = [line.rstrip() for line in text.strip("\n").splitlines()]
        return (
            [re.sub(r"[─ ]+", " ", re.sub(r"(?:(?<=\s)[+-])?[\d,.]*\d", "0", line)) for line in lines]
            if rough
            else lines
        )

    pattern = ""
    for line in plain(shown):
        if line == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*?".join(re.escape(part) for part in line.split("...")) + "\n"
    lines = plain(got)
    assert re.fullmatch(pattern, "\n".join(lines) + "\n"), f"{block}: the output is:\n{got}"


def check_sums(block: Block) -> None:
    """Check every equation of a block. Text before two spaces is a label."""
    equations = 0
    for line in block.text.splitlines():
        sides = re.sub(r"^\S+( \S+)*  ", "", line).replace(",", "").replace(" ", "").split("=")
        values = []
        for side in filter(None, sides if len(sides) > 1 else ()):
            assert re.fullmatch(r"[\d+*/()-]+", side), f"{block}: '{side}' in '{line}'"
            values.append(eval(side))
        equations += len(values) > 1
        assert len(set(values)) <= 1, f"{block}: '{line}' gives {values}"
    assert equations, f"{block}: there is no equation"


def follow(page: Path, folder: Path, slow: bool) -> None:
    follower = Follower(folder)
    try:
        for block in blocks_of(page):
            behind = block.follows is not None and "slow" in block.follows.marks and block.language == "text"
            if slow or not ("slow" in block.marks or behind):
                follower.follow(block)
        check_pictures(page, folder, slow)
    finally:
        follower.close()


def shapes(path: Path) -> str:
    """A diagram without its tooltips, which have numbers of lines."""
    return re.sub("<title>.*?</title>", "", path.read_text(), flags=re.S)


def check_pictures(page: Path, folder: Path, slow: bool) -> None:
    """Compare the pictures of a tutorial with those that its commands have drawn; charts of trained networks vary."""
    for name in re.findall(r"]\(((?:\.\./)?images/tutorials/[^)]*)\)", page.read_text()):
        picture = (page.parent / name).resolve()
        drawn = next(folder.rglob(picture.name), None)
        assert drawn is not None or not slow, f"{page.name}: no command draws {picture.name}"
        if drawn is None:
            continue
        if not picture.exists():
            picture.write_bytes(drawn.read_bytes())
            pytest.fail(f"{picture} was missing, and has been written: look at it")
        is_chart = "tables" in drawn.parts
        assert is_chart or shapes(picture) == shapes(drawn), f"{picture.name} is not what {page.name} draws: delete it"


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT).with_suffix(""))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_a_page_can_be_followed(page: Path, tmp_path: Path) -> None:
    follow(page, tmp_path, slow=False)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", [page for page in PAGES if "<!-- test: slow:" in page.read_text()], ids=page_id)
def test_a_page_can_be_followed_with_its_slow_parts(page: Path, tmp_path: Path) -> None:
    follow(page, tmp_path, slow=True)


# ---------------------------------------------------------------------------------------------------------- notebooks

NOTEBOOKS = {
    "activity": (["42 responses"], 2),
    "skips": (["full        69,010 parameters", r"([89]\d|100)% of the test images"], 3),
}
"""Notebook -> patterns of what its cells print, and the number of their pictures."""


@pytest.mark.parametrize("script", sorted((ROOT / "examples" / "notebooks").glob("*.py")), ids=lambda path: path.stem)
def test_a_notebook_runs(script: Path, tmp_path: Path) -> None:
    page = runpy.run_path(str(ROOT / "docs" / "notebooks.py"))["page"](script, tmp_path)
    printed, pictures = NOTEBOOKS[script.stem]
    for pattern in printed:
        assert re.search(pattern, page)
    names = re.findall(r"]\((\S+\.svg)\)", page)
    assert len(names) == pictures
    assert all((tmp_path / name).read_text().startswith("<svg") for name in names)


# -------------------------------------------------------------------------------------------------------------- links


def slug(heading: str) -> str:
    """The anchor that a heading gets on GitHub."""
    text = re.sub(r"\[([^]]*)]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def without_code(text: str) -> str:
    return re.sub(r"(?ms)^```.*?^```$", "", text)


def test_no_line_is_a_comment_and_no_field_lacks_its_meaning() -> None:
    found = []
    for page in [*PAGES, *sorted(REFERENCE.glob("*.md"))]:
        for number, line in enumerate(page.read_text().splitlines(), start=1):
            # The site leaves out a line with a percent sign at its start.
            if line.startswith("%") or (page.parent == REFERENCE and re.search(r"\| *\|$", line)):
                found.append(f"{page.name}:{number}: {line}")
    assert found == []


@pytest.mark.parametrize("page", ALL, ids=page_id)
def test_links_and_images_lead_somewhere(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", without_code(page.read_text()))
    for target in [*re.findall(r"]\(([^)\s]+)\)", text), *re.findall(r'src="([^"]+)"', text)]:
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name}: {target}"
        assert path.is_relative_to(ROOT), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"(?m)^#+ (.*)$", without_code(path.read_text()))
            assert anchor in {slug(heading) for heading in headings}, f"{page.name}: {target}"


def test_the_diagram_of_the_readme_is_current(tmp_path: Path) -> None:
    """Drawn by the command in the README."""
    (command,) = re.findall(r"`(hrg render \S+ [^`]* -o docs/[^`]*)`", README.read_text())
    (tmp_path / "docs" / "images").mkdir(parents=True)
    follower = Follower(tmp_path)
    follower.run(Block("README.md", 0, "bash", command))
    picture = Path("docs") / "images" / "hiresnet18.svg"
    assert shapes(ROOT / picture) == shapes(tmp_path / picture)


# ---------------------------------------------------------------------------------------------------------- reference


def test_the_reference_is_current() -> None:
    generated = runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]()
    assert {path.name for path in REFERENCE.glob("*")} == set(generated), "run: make reference"
    for name, text in generated.items():
        stale = (REFERENCE / name).read_text() != text
        assert not stale, f"{name} is stale: run 'make reference'"


# ------------------------------------------------------------------------------------------------------- architecture


def test_the_architecture_page_names_what_exists() -> None:
    """Every module of the package is listed in the order of the layers, and every file exists."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    package = ROOT / "hiresnet_graph"
    rows = re.findall(r"(?m)^\| ((?:`\w+`(?:, )?)+) \|", section(text, "Folders"))
    listed = [re.findall(r"\w+", row) for row in rows]
    layers = [layer for layer in LAYERS if layer != ("__init__",)]
    assert sorted(name for names in listed for name in names) == sorted(name for layer in layers for name in layer)
    rank = {name: i for i, layer in enumerate(layers) for name in layer}
    ranks = [rank[name] for names in listed for name in names]
    assert ranks == sorted(ranks)
    for path in re.findall(r"`((?:\w+/)+(?:\w+\.py)?|\w+\.py)`", section(text, "Where a change goes")):
        assert (package / path).exists() or (ROOT / path).exists(), path


# -------------------------------------------------------------------------------------------------------------- README


def section(text: str, heading: str) -> str:
    """The text below a heading."""
    match = re.search(rf"(?ms)^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text)
    assert match is not None, heading
    return match[1]


def demo_commands() -> list[str]:
    """The commands of `make demo`, as make would run them."""
    lines = (ROOT / "Makefile").read_text().splitlines()
    given = dict(re.match(r"(\w+) :?=\s*(.*)", line).groups() for line in lines if re.match(r"\w+ :?= ", line))  # type: ignore[union-attr]
    start = next(i for i, line in enumerate(lines) if line.startswith("demo:"))
    recipe = []
    for line in lines[start + 1 :]:
        if not line.startswith("\t"):
            break
        recipe.append(re.sub(r"\$\((\w+)\)", lambda match: given[match[1]], line.strip()))
    return [line.replace(".venv/bin/", "").replace("$(VENV)/bin/", "") for line in recipe if "hrg " in line]


def small_network() -> hrg.Architecture:
    """The network that the demo trains."""
    ablate = next(line for line in demo_commands() if "ablate" in line)
    changes: dict[str, Any] = dict(re.findall(r" ([\w.]+)=(\d+)", ablate))
    return hrg.load("hiresnet18").override({key: int(value) for key, value in changes.items()})


def test_the_spec_in_the_readme_is_the_shipped_one() -> None:
    text = (ROOT / "specs" / "hiresnet18.yaml").read_text()
    body = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    assert body.strip() in [block.text.strip() for block in blocks_of(README)]


def test_the_numbers_in_the_readme_come_from_the_networks() -> None:
    """Every number with a thousands comma is the number of parameters of a network, or printed by a command."""
    net = hrg.load("hiresnet18")
    known = {small_network().with_edges(edges).cost().parameters for edges in ("none", "full", "in", "out")}
    shown = net.with_edges("full - p1")
    known |= {cost.parameters for cost in count_parts(shown.plan).values()}
    known.add(shown.cost().parameters - net.with_edges("none").cost().parameters)
    text = re.sub(r"(?ms)^```console$.*?^```$", "", README.read_text())
    found = {int(number.replace(",", "")) for number in re.findall(r"\b\d{1,3}(?:,\d{3})+\b", text)}
    assert found <= known, found - known


def test_the_table_of_the_demo_is_that_of_its_variants() -> None:
    rows = re.findall(
        r"(?m)^\| (none|full|in|out) \| ([\d,]+) \| [\d.]+ M \| 2 (?:\| [\d.]+ \([\d.]+\) ){4}\|$", README.read_text()
    )
    assert [name for name, _ in rows] == ["none", "full", "in", "out"]
    for name, parameters in rows:
        assert small_network().with_edges(name).cost().parameters == int(parameters.replace(",", ""))
    (ablate,) = [line for line in demo_commands() if "ablate" in line]
    assert " ".join(ablate.split()) in " ".join(README.read_text().replace("\\\n", " ").split())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo(tmp_path: Path) -> None:
    """The commands of `make demo`, without the installation; the table has the rows of the README."""
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    (tmp_path / "demo").mkdir()
    for command in demo_commands():
        subprocess.run(["bash", "-c", command], cwd=tmp_path, env=env, check=True)
    table = (tmp_path / "demo" / "table.md").read_text()
    sizes = re.findall(r"(?m)^\| (?:none|full|in|out) \| [\d,]+ \| [\d.]+ M \| 2 \|", README.read_text())
    assert len(sizes) == 4
    for size in sizes:  # accuracies differ with the processor
        assert size in table
    assert "<svg" in (tmp_path / "demo" / "hiresnet18.svg").read_text()


def test_the_table_of_the_explanation_is_that_of_the_networks() -> None:
    text = (ROOT / "docs" / "explanation.md").read_text()
    blocks = {"Plain": "plain", "ResNet": "basic", "ResNeXt": "resnext"}
    rows = re.findall(r"(?m)^\| ((?:Plain|ResN)\w*)(?:, (\w+))? \| ([\d,]+) \| ([\d.]+) \| ([\d.]+) \|$", text)
    assert len(rows) == 11
    for name, edges, parameters, printed, published in rows:
        net = hrg.load("hiresnet18").override({"block": blocks[name]}).with_edges(edges or "none")
        assert net.cost().parameters == int(parameters.replace(",", ""))
        assert round(net.cost().parameters / 100) / 10 == float(printed) == float(published)


# ------------------------------------------------------------------------------------------------------ the test itself


def test_comparing_sees_a_difference() -> None:
    block = Block("page", 1, "console")
    compare(block, "a  1\n...\nend", "a  1\nx\ny\nend\n")
    compare(block, "in ... s", "in 12 s\n")
    with pytest.raises(AssertionError):
        compare(block, "a  1\nend", "a  2\nend\n")
    with pytest.raises(AssertionError):
        compare(block, "a", "a\nb\n")
    compare(Block("page", 1, "console", marks={"numbers vary": "chance"}), "none  97.7 (1)", "none   8.25 (12)")


def test_sums_are_calculated() -> None:
    check_sums(Block("page", 1, "text", "stem 1  3 * 3 * 3 * 16 = 432\n"))
    check_sums(Block("page", 1, "text", "all  1,000 + 1 = 1,001\n"))
    with pytest.raises(AssertionError):
        check_sums(Block("page", 1, "text", "stem  3 * 3 = 8\n"))
