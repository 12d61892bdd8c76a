"""No file imports itself by way of others, and a type name has one definition."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.structure import LONG_FILE, LONG_FUNCTION, SourceFile, circles, files_of, repeated_types, summary, term_leads

ROOT = Path(__file__).parent.parent
FILES = files_of(ROOT)


def _file(name: str, text: str) -> SourceFile:
    return SourceFile(name, Path(f"{name}.py"), text, ast.parse(text))


def test_no_files_import_each_other() -> None:
    assert len(FILES) > 100
    assert circles(FILES) == []


def test_a_type_name_is_defined_once() -> None:
    assert repeated_types(FILES) == {}


def test_the_checks_see_what_they_should() -> None:
    lazy = _file("hiresnet_graph.a", "def f():\n    from hiresnet_graph.b import x\n")
    typing = _file("hiresnet_graph.b", "if TYPE_CHECKING:\n    import hiresnet_graph.c\nclass T: ...\n")
    plain = _file("hiresnet_graph.c", "from hiresnet_graph import a\nclass T: ...\n")
    files = {file.name: file for file in (lazy, typing, plain)}
    assert circles(files) == [["hiresnet_graph.a", "hiresnet_graph.b", "hiresnet_graph.c"]]
    assert repeated_types(files) == {"T": ["hiresnet_graph.b", "hiresnet_graph.c"]}
    assert circles({name: files[name] for name in ("hiresnet_graph.a", "hiresnet_graph.b")}) == []


def test_the_summary_counts() -> None:
    found = summary(ROOT)
    paths = (ROOT / "hiresnet_graph").rglob("*.py")
    assert int(found["lines"].replace(",", "")) == sum(path.read_text().count("\n") for path in paths)
    assert found["'trainer'"].split(", ")[1].startswith("Trainer in train.")


def test_a_term_leads_to_the_class_before_a_function() -> None:
    files = {"hiresnet_graph.a": _file("hiresnet_graph.a", "def run_worker(): ...\nclass WorkerLayout: ...\n")}
    assert term_leads(files, "worker") == "2 lines, WorkerLayout in a"
    assert term_leads(files, "worker layout") == "1 lines, WorkerLayout in a"
    assert term_leads(files, "schedule") == "0 lines, no definition"


def test_files_and_functions_are_short() -> None:
    """The signatures of commands list their options, so that their length is not counted."""
    assert [name for name, file in FILES.items() if file.lines > LONG_FILE] == []
    assert [
        (name, function)
        for name, file in FILES.items()
        for function, lines in file.functions()
        if lines > LONG_FUNCTION and not name.startswith("hiresnet_graph.cli.commands.")
    ] == []
