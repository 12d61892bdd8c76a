"""Imports go one way: each layer may import only what stands above it in this table."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hiresnet_graph"

LAYERS = (
    ("errors", "shapes", "shipped", "collector"),
    ("registry",),
    ("ops",),
    ("wire",),
    ("projections", "merges"),
    ("blocks",),
    ("spec",),
    ("graph",),
    ("passes",),
    ("plan",),
    ("cost",),
    ("emit", "render", "lower"),
    ("architecture",),
    ("interop", "matching"),
    ("data",),
    ("train",),
    ("sweep",),
    ("report",),
    ("cli",),
    ("reference",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FACADE = ("architecture", "__init__")
"""These offer verbs of layers below them in the table; they load those on first use, inside a function."""
WITH_TORCH = ("lower", "ops/layers.py", "data", "train", "sweep/ablation.py")
"""Where torch may be imported when a module loads."""

FILES = sorted(PACKAGE.rglob("*.py"))


def layer_of(path: Path) -> str:
    """The first part of a file's place in the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, int, bool]]:
    """Imported modules, their lines, and whether that happens as the file loads (not in a function, not for types)."""
    tree = ast.parse(path.read_text())
    lazy: set[int] = set()
    for node in ast.walk(tree):
        is_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_types:
            lazy |= {id(inner) for inner in ast.walk(node)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno, id(node) not in lazy) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write absolute imports"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "hiresnet_graph" else [module]
            found += [(name, node.lineno, id(node) not in lazy) for name in names]
    return found


def faults(path: Path) -> list[str]:
    """Imports of a file that go against the table."""
    own = layer_of(path)
    if own == "__init__":
        return []
    wrong = []
    for module, line, at_load in imports(path):
        parts = module.split(".")
        if parts[0] != "hiresnet_graph" or len(parts) < 2 or parts[1] == own:
            continue
        if parts[1] not in LEVEL:  # a public verb of the package itself
            continue
        if own in FACADE and not at_load:
            continue
        if LEVEL[parts[1]] >= LEVEL[own]:
            wrong.append(f"{path.name}:{line}: {own} imports {module}")
    return wrong


def test_every_file_has_a_layer() -> None:
    assert {layer_of(path) for path in FILES} - {"__init__"} == set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    assert faults(path) == []


def test_an_upward_import_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself: a file of `ops` that imports `graph`, at load or later, is told."""
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    bad = tmp_path / "ops" / "bad.py"
    bad.parent.mkdir()
    bad.write_text("from hiresnet_graph.graph import Graph\ndef f():\n    import hiresnet_graph.cli\n")
    assert faults(bad) == ["bad.py:1: ops imports hiresnet_graph.graph", "bad.py:3: ops imports hiresnet_graph.cli"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torch_is_imported_where_it_is_needed_alone(path: Path) -> None:
    place = str(path.relative_to(PACKAGE))
    if not place.startswith(WITH_TORCH):
        loaded = [module for module, _, at_load in imports(path) if at_load]
        assert not [module for module in loaded if module.split(".")[0] in ("torch", "torchvision", "sklearn")]


def test_checking_counting_drawing_and_emitting_load_no_torch(tmp_path: Path) -> None:
    code = f"""
import sys
import hiresnet_graph as hrg
net = hrg.load("hiresnet18").variant("full")
net.validate()
assert net.cost().parameters == 273_466
assert "class Hiresnet18" in net.source()
net.render({str(tmp_path / "net.svg")!r})
assert "torch" not in sys.modules, "torch was imported"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
