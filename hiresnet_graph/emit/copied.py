"""The source of classes and functions that torch lacks, with all that they use of their file.

Files are read, not executed. What they import is imported by the emitted source, too.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hiresnet_graph.errors import UsageError

_GIVEN = frozenset({("import torch", "torch"), ("from torch import nn", "nn"), ("from torch import Tensor", "Tensor")})
"""Imports that the emitted source has anyway, where it needs them, each with the name that it binds."""


@dataclass(slots=True)
class CopiedSource:
    """Definitions by name, in the order of their files, and the imports that they need."""

    definitions: dict[str, str] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)


def copied_source(targets: Iterable[str]) -> CopiedSource:
    """The source of everything with these dotted paths, except for torch's.

    Raises:
        UsageError: A definition cannot be found, or two different ones have one name.
    """
    found = CopiedSource()
    by_module: dict[str, list[str]] = {}
    for target in dict.fromkeys(targets):
        module, _, name = target.rpartition(".")
        if module and module.partition(".")[0] not in ("torch", "operator"):
            by_module.setdefault(module, []).append(name)
    for module, names in by_module.items():
        _copy(module, names, found)
    return found


def _copy(module: str, names: list[str], found: CopiedSource) -> None:
    """Add the definitions of these names in a module, and of all that these use."""
    text = _text(module)
    defined = {name: node for node in ast.parse(text).body for name in _bound(node)}
    used: set[str] = set()
    todo = list(names)
    for name in names:
        if not isinstance(defined.get(name), ast.ClassDef | ast.FunctionDef):
            raise UsageError(f"the source of '{module}.{name}' cannot be found. Define it at the top level of a file.")
    while todo:
        name = todo.pop()
        if name not in used and name in defined:
            used.add(name)
            todo += [node.id for node in ast.walk(defined[name]) if isinstance(node, ast.Name)]
    for name, node in defined.items():
        if name not in used:
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            _add(found.imports, name, _import(node, name, module), module)
        else:
            _add(found.definitions, name, _lines(text, node), module)


def _text(module: str) -> str:
    try:
        spec = importlib.util.find_spec(module)
        return Path(spec.origin).read_text(encoding="utf-8") if spec is not None and spec.origin else ""
    except (ImportError, OSError, ValueError):
        return ""


def _bound(node: ast.stmt) -> list[str]:
    """The names that a statement at the top level binds."""
    match node:
        case ast.ClassDef() | ast.FunctionDef():
            return [node.name]
        case ast.Assign():
            return [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        case ast.AnnAssign(ast.Name(name)):
            return [name]
        case ast.Import():
            return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
        case ast.ImportFrom() if node.module != "__future__":
            return [alias.asname or alias.name for alias in node.names]
    return []


def _import(node: ast.Import | ast.ImportFrom, name: str, module: str) -> str:
    """The statement that imports one name, with an absolute path; empty for those that are there anyway."""
    aliases = [alias for alias in node.names if name in (alias.asname, alias.name, alias.name.partition(".")[0])]
    statement: ast.Import | ast.ImportFrom = ast.Import(aliases[:1])
    if isinstance(node, ast.ImportFrom):
        path = f"{'.' * node.level}{node.module or ''}"
        package = module if _is_package(module) else module.rpartition(".")[0]
        absolute = importlib.util.resolve_name(path, package) if node.level else path
        statement = ast.ImportFrom(absolute, aliases[:1], 0)
    text = ast.unparse(statement)
    is_functional = text in ("import torch.nn.functional as F", "from torch.nn import functional as F")
    return "" if (text, name) in _GIVEN or is_functional else text


def _is_package(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.submodule_search_locations is not None


def _lines(text: str, node: ast.stmt) -> str:
    decorators = node.decorator_list if isinstance(node, ast.ClassDef | ast.FunctionDef) else []
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])


def _add(found: dict[str, str], name: str, text: str, module: str) -> None:
    if found.setdefault(name, text) != text:
        raise UsageError(
            f"the source needs two different definitions of '{name}'; one is in '{module}'. Rename one of them."
        )
