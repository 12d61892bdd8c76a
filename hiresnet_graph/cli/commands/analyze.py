"""`hrg analyze`: the group of commands that analyse trained networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import typer

from hiresnet_graph.cli.commands.attribution import attribution
from hiresnet_graph.cli.commands.contributions import contributions
from hiresnet_graph.cli.commands.gradients import gradients
from hiresnet_graph.cli.commands.lesion import lesion
from hiresnet_graph.cli.commands.readout import readout
from hiresnet_graph.cli.commands.similarity import similarity
from hiresnet_graph.cli.help import Command, CommandGroup

_COMMANDS: dict[str, Callable[..., None]] = {
    "attribution": attribution,
    "contributions": contributions,
    "gradients": gradients,
    "lesion": lesion,
    "readout": readout,
    "similarity": similarity,
}


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
