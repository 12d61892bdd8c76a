"""The program `hrg`: its commands, its global options, and the one place where errors end."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import typer

from hiresnet_graph import __version__
from hiresnet_graph.cli import failure, raise_interrupts
from hiresnet_graph.cli.commands.ablate import ablate
from hiresnet_graph.cli.commands.adjust import adjust
from hiresnet_graph.cli.commands.analyze import app as analyze
from hiresnet_graph.cli.commands.compile import compile_network
from hiresnet_graph.cli.commands.diff import diff
from hiresnet_graph.cli.commands.doctor import doctor
from hiresnet_graph.cli.commands.enumerate import enumerate_subsets
from hiresnet_graph.cli.commands.import_ import import_network
from hiresnet_graph.cli.commands.init import init
from hiresnet_graph.cli.commands.list import list_available
from hiresnet_graph.cli.commands.render import render
from hiresnet_graph.cli.commands.report import report
from hiresnet_graph.cli.commands.schema import schema
from hiresnet_graph.cli.commands.search import search
from hiresnet_graph.cli.commands.show import show
from hiresnet_graph.cli.commands.status import status
from hiresnet_graph.cli.commands.train import train
from hiresnet_graph.cli.commands.validate import validate
from hiresnet_graph.cli.console import PipedStream, write_message
from hiresnet_graph.cli.help import Command, CommandGroup, wants_json
from hiresnet_graph.errors import HrgError

# Heading -> name -> command, or group of commands.
_COMMANDS: dict[str, dict[str, Callable[..., None] | typer.Typer]] = {
    "Inspect": {
        "list": list_available,
        "validate": validate,
        "show": show,
        "diff": diff,
        "enumerate": enumerate_subsets,
    },
    "Create": {
        "init": init,
        "import": import_network,
        "schema": schema,
        "compile": compile_network,
        "render": render,
        "adjust": adjust,
    },
    "Train": {
        "train": train,
        "ablate": ablate,
        "search": search,
        "status": status,
        "report": report,
        "analyze": analyze,
    },
    "Installation": {"doctor": doctor},
}


class MainGroup(CommandGroup):
    """All commands; an error in any of them ends here as a message and an exit code."""

    headings: ClassVar = {heading: list(commands) for heading, commands in _COMMANDS.items()}

    def invoke(self, ctx: Any) -> Any:
        """Run the requested command."""
        try:
            raise_interrupts()
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt as error:
            write_message(str(error) or "Interrupted.")
            raise typer.Exit(failure.INTERRUPTED) from None
        except (HrgError, OSError) as error:
            self._end(error, ctx)
        except Exception as error:
            if type(error).__module__.startswith(("typer", "click")):  # typer reports wrong usage, and handles Exit
                raise
            self._end(error, ctx)
        return result

    def _end(self, error: Exception, ctx: Any) -> None:
        if ctx.params.get("debug"):
            traceback.print_exception(error)
        command = " ".join(["hrg", ctx.invoked_subcommand or ""]).strip()
        failure.report_error(error, command, as_json=wants_json(ctx))
        raise typer.Exit(failure.exit_code(error)) from None


app = typer.Typer(
    name="hrg",
    cls=MainGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        print(f"hrg {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Describe neural networks with long-range edges in short spec files; check, count, draw, compile, train and
    compare them.

    Start with 'hrg show hiresnet18', or with 'hrg init' for a spec of your own. 'hrg COMMAND --help' explains a
    command.
    """


for _commands in _COMMANDS.values():
    for _name, _command in _commands.items():
        if isinstance(_command, typer.Typer):
            app.add_typer(_command, name=_name)
        else:
            app.command(_name, cls=Command)(_command)


def run() -> None:
    """Run `hrg` with the arguments of this process."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the parent process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - stays open to the end
        setattr(sys, name, PipedStream.of(getattr(sys, name)))
    app()
