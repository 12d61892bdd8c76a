"""Finds the reference specs and studies: beside the package in a checkout, inside it once installed."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def spec_path(name: str) -> Path | None:
    """The file of a shipped spec, or None if there is none of this name."""
    return _files("").get(name)


def spec_names() -> list[str]:
    """Names of the shipped specs, sorted."""
    return sorted(_files(""))


def study_path(name: str) -> Path | None:
    """The file of a shipped study, or None if there is none of this name."""
    return _files("studies").get(name)


def study_names() -> list[str]:
    """Names of the shipped studies, sorted."""
    return sorted(_files("studies"))


def _files(folder: str) -> dict[str, Path]:
    inside = _PACKAGE / "_specs"
    specs = inside if inside.is_dir() else _PACKAGE.parent / "specs"
    return {path.stem: path for path in sorted((specs / folder).glob("*.yaml"))}
