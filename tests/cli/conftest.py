"""Fixtures that run `hrg` inside this process."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hiresnet_graph.cli.app import app

WINDOWS = """
name: windows
params: {steps: 6}
input: {channels: 2, height: 8, width: 8}
nodes:
  pre: {block: conv, width: 4}
  s1: {block: state, shape: [4, 8, 8]}
  s2: {block: state, shape: [8, 4, 4]}
  post: {block: classifier, classes: 3}
flow: [pre -> s1, s2 -> post]
transitions:
  s1: {s1: {block: brc2, at: [1, 2, 4]}, s2: {block: brc2, at: 3}}
  s2: {s2: brc2}
time: {steps: $steps, input: first}
variants:
  two: {transitions: {s1: {s2: {delay: 2}}}}
  every: {time: {input: every, readout: all}}
"""


@pytest.fixture
def hrg(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command line inside this process."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def call(*args: str | Path) -> Result:
        result = CliRunner().invoke(app, [str(arg) for arg in args])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result

    return call


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def windows(tmp_path: Path) -> Path:
    """The spec of a network in time whose edges are open at some steps only."""
    path = tmp_path / "windows.yaml"
    path.write_text(WINDOWS)
    return path
