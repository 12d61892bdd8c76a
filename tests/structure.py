"""The structure of the package in numbers: `python tests/structure.py [CHECKOUT ...]`, a column for each checkout.

Counts lines, long files and long functions, groups of files that import each other (imports inside functions and for
types count), type names with more than one definition, and, for words of the field, the file that a grep leads to.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import networkx as nx

PACKAGE = "hiresnet_graph"
LONG_FILE, LONG_FUNCTION = 500, 60
TERMS = (
    "worker",
    "checkpoint",
    "schedule",
    "execution plan",
    "supergraph",
    "resume",
    "default",
    "baseline",
    "projection",
    "trainer",
)


@dataclass(frozen=True)
class SourceFile:
    """One file of the package. `name` is that of the module, dotted."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        return self.text.count("\n")

    def functions(self) -> Iterator[tuple[str, int]]:
        """The name and the lines of each function and method."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.name, (node.end_lineno or node.lineno) - node.lineno

    @cached_property
    def definitions(self) -> list[tuple[str, bool]]:
        """The names of all classes and functions, each with whether it is a class."""
        return [
            (node.name, isinstance(node, ast.ClassDef))
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        ]


def files_of(checkout: Path) -> dict[str, SourceFile]:
    """The files of the package in a checkout, by dotted name."""
    found = {}
    for path in sorted((checkout / PACKAGE).rglob("*.py")):
        name = ".".join(path.relative_to(checkout).with_suffix("").parts).removesuffix(".__init__")
        text = path.read_text(encoding="utf-8")
        found[name] = SourceFile(name, path, text, ast.parse(text))
    return found


def import_graph(files: dict[str, SourceFile]) -> nx.DiGraph[str]:
    """Which file imports which, at any depth. `__init__` files are left out: they only hand names on."""
    modules = {name for name, file in files.items() if file.path.name != "__init__.py"}
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(modules)
    for name in modules:
        for node in ast.walk(files[name].tree):
            targets: list[str] = []
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                targets = [f"{node.module}.{alias.name}" for alias in node.names]
            for target in targets:
                while target and target not in files:
                    target = target.rpartition(".")[0]
                if target in modules and target != name:
                    graph.add_edge(name, target)
    return graph


def circles(files: dict[str, SourceFile]) -> list[list[str]]:
    """Groups of files that import each other."""
    groups = nx.strongly_connected_components(import_graph(files))
    return sorted(sorted(group) for group in groups if len(group) > 1)


def repeated_types(files: dict[str, SourceFile]) -> dict[str, list[str]]:
    """Names of classes and type aliases that are defined in more than one file, with these files."""
    owners: dict[str, list[str]] = defaultdict(list)
    for name, file in files.items():
        for node in file.tree.body:
            if isinstance(node, ast.ClassDef):
                owners[node.name].append(name)
    return {name: places for name, places in sorted(owners.items()) if len(places) > 1}


def term_leads(files: dict[str, SourceFile], term: str) -> str:
    """Where a search for a term leads: lines with it, and the definition that carries it, classes first."""
    pattern = re.compile("[_ -]?".join(term.split()), re.IGNORECASE)
    lines = sum(bool(pattern.search(line)) for file in files.values() for line in file.text.splitlines())
    found = [
        (not is_class, len(definition), name, definition)
        for name, file in files.items()
        for definition, is_class in file.definitions
        if pattern.search(definition)
    ]
    if not found:
        return f"{lines} lines, no definition"
    _, _, name, definition = min(found)
    return f"{lines} lines, {definition} in {name.removeprefix(PACKAGE + '.')}"


def summary(checkout: Path) -> dict[str, str]:
    """What `main` prints of one checkout."""
    files = files_of(checkout)
    functions = [lines for file in files.values() for _, lines in file.functions()]
    found = {
        "lines": f"{sum(file.lines for file in files.values()):,}",
        "files": f"{len(files)}",
        f"files over {LONG_FILE} lines": f"{sum(file.lines > LONG_FILE for file in files.values())}",
        f"functions over {LONG_FUNCTION} lines": f"{sum(lines > LONG_FUNCTION for lines in functions)}",
        "groups of files that import each other": f"{len(circles(files))}",
        "type names defined more than once": f"{len(repeated_types(files))}",
    }
    return found | {f"'{term}'": term_leads(files, term) for term in TERMS}


def main() -> None:
    """Print the table."""
    checkouts = [Path(argument) for argument in sys.argv[1:]] or [Path(__file__).parents[1]]
    columns = [summary(checkout) for checkout in checkouts]
    width = max(map(len, columns[0]))
    for row in columns[0]:
        print(f"{row:{width}}  " + "  ".join(f"{column[row]:52}" for column in columns).rstrip())
    for checkout in checkouts:
        files = files_of(checkout)
        for group in circles(files):
            print(f"{checkout}: circle: {' <-> '.join(group)}")
        for name, places in repeated_types(files).items():
            print(f"{checkout}: '{name}' is defined in {', '.join(places)}")


if __name__ == "__main__":
    main()
