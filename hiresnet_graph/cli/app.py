"""The program `hrg`: its commands, its global options, and the one place where errors end."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import IO, Annotated, Any, ClassVar

import typer

from hiresnet_graph import __version__
from hiresnet_graph.cli import ablate, analyze, failure, look, machine, make, report, search, show, status, train
from hiresnet_graph.cli.help import Command, Group
from hiresnet_graph.cli.screen import note
from hiresnet_graph.errors import HrgError

_COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Look": (look.list_, look.validate, show.show, show.diff, look.enumerate_),
    "Make": (make.init, make.schema, make.compile_, make.render, make.adjust),
    "Train": (train.train, ablate.ablate, search.search, status.status, report.report),
    "This machine": (machine.doctor,),
}
# Heading -> groups of commands below it.
_GROUPS: dict[str, dict[str, typer.Typer]] = {"Train": {"analyze": analyze.app}}


def _name(command: Callable[..., None]) -> str:
    return command.__name__.removesuffix("_")


class Commands(Group):
    """The group of all commands; an error in any of them ends here as a message and an exit code."""

    headings: ClassVar = {
        heading: [*map(_name, commands), *_GROUPS.get(heading, ())] for heading, commands in _COMMANDS.items()
    }

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt as error:
            note(str(error) or "Interrupted.")
            raise typer.Exit(failure.INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read our output has seen enough, as in `hrg show resnet110 | head`.
            _silence(sys.stdout)
            raise typer.Exit(0) from None
        except (HrgError, OSError) as error:
            self._end(error, ctx)
        except Exception as error:
            if type(error).__module__.startswith(("typer", "click")):  # wrong usage, and typer.Exit: typer tells them
                raise
            self._end(error, ctx)
        return result

    def _end(self, error: Exception, ctx: Any) -> None:
        if ctx.params.get("debug"):
            traceback.print_exception(error)
        failure.tell(error, " ".join(["hrg", ctx.invoked_subcommand or ""]).strip())
        raise typer.Exit(failure.exit_code(error)) from None


def _silence(stream: IO[str]) -> None:
    """Send what is still to come to nowhere, so that closing the stream does not fail once more."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass


app = typer.Typer(
    name="hrg",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"hrg {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error was raised.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Networks with long-range edges from short spec files: checked, counted, drawn, compiled, trained and compared.

    Start with 'hrg show hiresnet18', or with 'hrg init' for a spec of your own. 'hrg COMMAND --help' says more.
    """


for _commands in _COMMANDS.values():
    for _command in _commands:
        app.command(_name(_command), cls=Command)(_command)
for _groups in _GROUPS.values():
    for _group_name, _group in _groups.items():
        app.add_typer(_group, name=_group_name)


def run() -> None:
    """Run `hrg` with the arguments of this process."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - stays open to the end
        # A terminal that cannot show a letter shows '?'.
        getattr(sys, name).reconfigure(errors="replace")
    app()
