"""Finds the reference specs, which stand beside the package in a checkout and inside it once installed."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def spec_path(name: str) -> Path | None:
    """The file of a shipped spec, or None if `name` is not the name of one."""
    return _specs().get(name)


def spec_names() -> list[str]:
    """Names of the shipped specs, sorted."""
    return sorted(_specs())


def _specs() -> dict[str, Path]:
    inside = _PACKAGE / "_specs"
    folder = inside if inside.is_dir() else _PACKAGE.parent / "specs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
