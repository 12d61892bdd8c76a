"""The layout of `--help`: plain text that fits any terminal and pipe, with the commands under headings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import typer
from pydantic import ValidationError
from typer.core import TyperCommand, TyperGroup

from hiresnet_graph.cli.failure import report_json_error
from hiresnet_graph.errors import similar

# The class of typer's errors of usage, and where a context notes that `--json` was given.
_USAGE_ERROR: Any = typer.BadParameter.__mro__[1]
_JSON = "hiresnet_graph.json"


def wants_json(ctx: Any) -> bool:
    """Whether the command of a context was called with `--json`; also of a context above it."""
    return bool(ctx.meta.get(_JSON))


class Command(TyperCommand):
    """A command whose arguments are shown as they are typed, without the names of Python types."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; the global option `--debug` is also accepted after the command."""
        own = args.index("--") if "--" in args else len(args)
        if "--debug" in args[:own] and ctx.parent is not None:
            args.remove("--debug")
            ctx.parent.params["debug"] = True
        ctx.meta[_JSON] = "--json" in args[:own]
        try:
            return super().parse_args(ctx, args)
        except _USAGE_ERROR as error:
            if isinstance(error.__cause__, ValidationError):
                from hiresnet_graph.spec.problems import explain

                error.message = explain(error.__cause__)[0].message
            if match := re.fullmatch(r"'(.*)' is not one of (.*)", error.message):
                close = similar(match[1], re.findall(r"'(.*?)'", match[2]))
                error.message += f" Did you mean '{close}'?" if close else ""
            if wants_json(ctx):
                report_json_error(error.format_message())
            raise

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The options and arguments of the usage line."""
        return ["[OPTIONS]", *(name for name, _ in _records(self, ctx, "argument"))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options."""
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            records = _records(self, ctx, kind)
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def _records(command: Any, ctx: Any, kind: str) -> list[tuple[str, str]]:
    found = []
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx) if param.param_type_name == kind else None
        if record is not None:
            name, text = record
            is_argument = kind == "argument"
            found.append((param.metavar, text.replace("[required]", "").strip()) if is_argument else (name, text))
    return found


class CommandGroup(TyperGroup):
    """A group of commands, listed under headings.

    Class attributes:
        headings: Heading -> names of its commands.
    """

    headings: ClassVar[Mapping[str, Sequence[str]]] = {}

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands under their headings, one per line if the terminal is wide enough."""
        for heading, names in self.headings.items():
            with formatter.section(heading):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(200)) for name in names])
