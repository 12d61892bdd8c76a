"""The layers: what each module may import, and that nothing heavy is loaded before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import hiresnet_graph

PACKAGE = Path(hiresnet_graph.__file__).parent

LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "errors",
        "figure_style",
        "float32",
        "formats",
        "gc_pause",
        "identifiers",
        "seeding",
        "shapes",
        "shipped",
        "traversal",
        "version",
    ),
    ("files",),
    ("registry",),
    ("ops",),
    ("wire",),
    ("projections", "merges"),
    ("blocks",),
    ("spec",),
    ("graph",),
    ("passes",),
    ("plan",),
    ("memory", "tree"),
    ("cost", "segments"),
    ("emit", "render"),
    ("lower",),
    ("interop",),
    ("architecture",),
    ("matching", "data", "importing"),
    ("train",),
    ("models",),
    ("stack",),
    ("sweep",),
    ("analysis",),
    ("report",),
    ("__init__",),
    ("cli",),
    ("testing",),
)
"""Each may import the rows above it. Within a row, none imports another."""

TORCH = ("lower", "data", "importing", "train", "models", "stack", "sweep", "analysis")
"""Where torch may be imported with the module. Everywhere else, only inside functions."""
TORCH_FILES = ("ops/layers.py", "testing.py")

ONLY = {
    # What we build on, and the only places that know it.
    "yaml": ("spec",),
    "networkx": ("graph", "interop", "emit", "architecture", "report"),
    "typer": ("cli",),
    "rich": ("cli",),
    "onnx": ("interop", "importing"),
    "sklearn": ("data",),
    "sqlite3": ("sweep",),
    "optuna": ("sweep",),
    "ray": ("sweep",),
    "submitit": ("sweep",),
    "statsmodels": ("report",),
    "scipy": ("report",),
    "altair": ("report",),
    "vl_convert": ("render", "report"),
    "graphviz": ("render", "architecture"),
    "click": (),
}


class Import(NamedTuple):
    """One import: the file, the dotted name, and whether it is inside a function or for types alone."""

    file: Path
    line: int
    name: str
    lazy: bool
    typing: bool

    @property
    def layer(self) -> str:
        return layer_of(self.file)

    @property
    def target(self) -> str:
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 and parts[1] in NAMES else "__init__"

    def __str__(self) -> str:
        return f"{self.file.relative_to(PACKAGE)}:{self.line} imports {self.name}"


NAMES = {path.stem for path in PACKAGE.glob("*.py")} | {path.name for path in PACKAGE.iterdir() if path.is_dir()}


def layer_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(file: Path) -> Iterator[Import]:
    def walk(node: ast.AST, lazy: bool, typing: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inside = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            types = typing or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(file, child.lineno, alias.name, inside, types)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{file}:{child.lineno}: imports are written in full"
                for alias in child.names:
                    yield Import(file, child.lineno, f"{child.module}.{alias.name}", inside, types)
            yield from walk(child, inside, types)

    yield from walk(ast.parse(file.read_text(encoding="utf-8")), False, False)


IMPORTS = [found for file in sorted(PACKAGE.rglob("*.py")) for found in imports_of(file)]
OURS = [found for found in IMPORTS if found.name.split(".")[0] == "hiresnet_graph"]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def upward(found: Import) -> bool:
    """Whether an import goes against the layers."""
    return found.layer != found.target and RANK[found.target] >= RANK[found.layer]


def test_every_module_has_its_layer() -> None:
    layers = {layer_of(file) for file in PACKAGE.rglob("*.py")}
    assert layers == set(RANK)


def test_imports_go_one_way() -> None:
    assert not (wrong := [str(found) for found in OURS if upward(found)]), "\n".join(wrong)


def test_the_check_sees_what_it_should() -> None:
    assert len(OURS) > 200
    file = PACKAGE / "plan.py"
    assert upward(Import(file, 1, "hiresnet_graph.cost.Cost", False, False))
    assert upward(Import(file, 1, "hiresnet_graph.plan2", True, False))
    assert upward(Import(file, 1, "hiresnet_graph.load", False, False))
    assert upward(Import(PACKAGE / "merges" / "add.py", 1, "hiresnet_graph.projections.Projection", False, False))
    assert not upward(Import(file, 1, "hiresnet_graph.graph.OpGraph", False, False))
    assert upward(Import(PACKAGE / "interop" / "export.py", 1, "hiresnet_graph.architecture", True, False))
    assert not upward(Import(PACKAGE / "architecture.py", 1, "hiresnet_graph.interop.export", True, False))


def test_torch_is_loaded_where_it_computes() -> None:
    wrong = [
        str(found)
        for found in IMPORTS
        if found.name.split(".")[0] in ("torch", "torchvision")
        and not found.lazy
        and not found.typing
        and found.layer not in TORCH
        and found.file.relative_to(PACKAGE).as_posix() not in TORCH_FILES
    ]
    assert not wrong, "\n".join(wrong)


def test_what_we_build_on_is_known_in_few_places() -> None:
    wrong = [
        str(found)
        for found in IMPORTS
        if (places := ONLY.get(found.name.split(".")[0])) is not None and found.layer not in places
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "code",
    [
        "import hiresnet_graph",
        "hrg.load('hiresnet18').validate()",
        "hrg.load('unet').cost()",
        "hrg.load('densenet121').source()",
        "hrg.load('hiresnet18').variant('full').to_json()",
        "hrg.load('resnet20').plan.digest()",
        "try:\n    hrg.loads('a: [').validate()\nexcept hrg.SpecError:\n    pass",
    ],
)
def test_looking_at_a_network_does_not_load_torch(code: str) -> None:
    program = f"import sys\nimport hiresnet_graph as hrg\n{code}\n"
    program += "heavy = {'torch', 'torchvision', 'sklearn', 'typer', 'rich'} & set(sys.modules)\n"
    program += "assert not heavy, heavy\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_building_does() -> None:
    program = "import sys, hiresnet_graph as hrg\nhrg.load('resnet20').build()\nassert 'torch' in sys.modules\n"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
