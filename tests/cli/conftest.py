"""Running `hrg` inside this process, with typer's runner."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hiresnet_graph.cli.app import app


@pytest.fixture
def hrg(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Calls the command line inside this process."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def call(*args: str | Path) -> Result:
        result = CliRunner().invoke(app, [str(arg) for arg in args])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result

    return call
