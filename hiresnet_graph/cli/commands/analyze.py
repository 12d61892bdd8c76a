"""`hrg analyze`: the group of commands that analyse trained networks."""

from __future__ import annotations

from typing import Any, ClassVar

import typer

from hiresnet_graph.cli.commands.readout import readout
from hiresnet_graph.cli.help import Command, CommandGroup

_COMMANDS = {"readout": readout}


class AnalyzeGroup(CommandGroup):
    """The commands of `analyze`."""

    headings: ClassVar = {"Analyses": list(_COMMANDS)}

    def invoke(self, ctx: Any) -> Any:
        """Run the requested command; its errors begin with its full name."""
        try:
            return super().invoke(ctx)
        finally:
            ctx.parent.invoked_subcommand = f"{ctx.info_name} {ctx.invoked_subcommand}"


app = typer.Typer(
    name="analyze",
    cls=AnalyzeGroup,
    help="Analyse trained networks.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
for _name, _command in _COMMANDS.items():
    app.command(_name, cls=Command)(_command)
