import errno
import sys

import pytest
import typer
from typer.testing import CliRunner

from hiresnet_graph.cli import app as program
from hiresnet_graph.cli.app import MainGroup
from hiresnet_graph.cli.console import printable
from hiresnet_graph.cli.failure import exit_code, print_problems
from hiresnet_graph.errors import HrgError, MissingToolError, Position, Problem, RunError, Source, SpecError, UsageError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SpecError([Problem("bad.")]), 1),
        (RunError("bad"), 1),
        (HrgError("bad"), 1),
        (UsageError("bad"), 2),
        (MissingToolError("bad"), 3),
        (ModuleNotFoundError("bad", name="onnx"), 3),
        (ModuleNotFoundError("bad", name="hiresnet_graph.nosuch"), 1),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 1),
        (ZeroDivisionError("bad"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_error_ends_in_its_exit_code_and_one_message(error, code):
    app = typer.Typer(cls=MainGroup, rich_markup_mode=None)

    @app.callback()
    def options(debug: bool = False) -> None:
        pass

    @app.command()
    def go() -> None:
        raise error

    result = CliRunner().invoke(app, ["go"])
    assert result.exit_code == code == exit_code(error)
    assert result.stdout == "" and result.stderr and "Traceback" not in result.stderr
    if isinstance(error, ZeroDivisionError):
        assert "internal error, ZeroDivisionError: bad" in result.stderr and "--debug" in result.stderr
    if code != 130:
        assert "Traceback" in CliRunner().invoke(app, ["--debug", "go"]).stderr


def test_debug_is_accepted_after_the_command_too():
    for args in (["--debug", "show", "nosuch"], ["show", "nosuch", "--debug"]):
        result = CliRunner().invoke(program.app, args)
        assert result.exit_code == 1 and "Traceback" in result.stderr
    assert "--debug" in CliRunner().invoke(program.app, ["show", "unet", "--", "--debug"]).stderr


def printed(capsys, line, column, hint=""):
    position = Position(Source("a.yaml", f"\n{line}"), 2, column)
    print_problems([Problem("this is wrong.", position, "nodes.a", hint)], sys.stdout)
    return capsys.readouterr().out.splitlines()


def test_a_problem_is_printed_with_its_line_and_caret(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert printed(capsys, "  a: {width: x}", 14, "Do this.") == [
        "a.yaml:2:14: nodes.a: this is wrong.",
        "      a: {width: x}",
        "    " + " " * 13 + "^",
        "  hint: Do this.",
    ]


def test_long_lines_are_cut_around_the_caret(capsys, monkeypatch):
    for columns in (20, 40, 80):
        monkeypatch.setenv("COLUMNS", str(columns))
        _, line, caret = printed(capsys, "x" * 300 + "HERE" + "y" * 300, 301)
        assert len(line) <= columns + 4 and line[caret.index("^") :].startswith("HERE")


def test_the_caret_is_below_wide_characters_and_at_the_end(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert printed(capsys, "網: x", 4)[2] == "    " + " " * 4 + "^"
    assert printed(capsys, "ab", 3)[1:] == ["    ab", "      ^"]
    assert printed(capsys, "ab", 99)[1:] == ["    ab", "      ^"]
    assert printed(capsys, "", 1) == ["a.yaml:2:1: nodes.a: this is wrong."]
    assert "\x1b" not in "".join(printed(capsys, "a\x1b[31m\tb", 2))


def test_control_characters_are_printable():
    assert printable("a\tb\x00c\x1b") == "a b?c?"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "unet", "--lr", "abc"], "'--lr': expected a number, got 'abc'."),
        (["train", "unet", "--epochs", "0"], "'--epochs': expected a number of at least 1, got '0'."),
        (["train", "unet", "--seed", "x"], "'--seed': expected a whole number, got 'x'."),
        (["list", "layers"], "'[KIND]': 'layers' is not one of 'specs',"),
    ],
)
def test_an_invalid_value_of_an_option_is_described(args, message):
    result = CliRunner().invoke(program.app, args)
    assert result.exit_code == 2 and message in result.stderr, result.stderr
