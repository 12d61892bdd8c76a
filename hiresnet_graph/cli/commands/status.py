"""The command `status`: the progress of a study, while it is trained and after."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiresnet_graph.cli.arguments import Json
from hiresnet_graph.cli.console import has_colors, write, write_json, write_message, write_table
from hiresnet_graph.formats import Column, format_command, format_count, format_duration, format_value, number_column

if TYPE_CHECKING:
    from hiresnet_graph.sweep.results import NetworkInfo
    from hiresnet_graph.sweep.status import RunStatus, Status

_PERIOD_S = 2.0
# On a narrow terminal the states with the lowest numbers are left out first.
_PRIORITY = {"complete": 8, "failed": 7, "running": 6, "waiting": 5, "paused": 5, "diverged": 4, "pruned": 3}
_NAME_COLUMNS = 24  # longer names are wrapped where there is no room
_CLEAR = "\x1b[H\x1b[2J"


def status(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a study, a search or a run.")],
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", "-w", help="Update until no run is being trained; with --json, a line for each change."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Show the progress of a study.

    Lists the runs that are finished, running, waiting or failed, the remaining time, and whether it is being trained.
    """
    from hiresnet_graph.sweep.status import read_status

    shown = None
    while True:
        found = read_status(folder)
        if found != shown:
            if watch and not json and has_colors(sys.stdout):
                print(_CLEAR, end="")
            elif shown is not None and not json:
                write()
            if json:
                write_json(_as_data(found), in_line=watch)
            else:
                _write(found, folder)
            sys.stdout.flush()
        if not watch or not found.is_alive or getattr(sys.stdout, "is_abandoned", False):
            return
        shown = found
        try:
            time.sleep(_PERIOD_S)
        except KeyboardInterrupt:  # ends the watching, and no run
            return


def _write(found: Status, folder: Path) -> None:
    counts = Counter(_state(run, found) for run in found.runs)
    states = ", ".join(f"{counts[state]} {state}" for state in _states(found)) or "no runs"
    of_budget = "" if found.budget is None else f" of a budget of {found.budget.runs}"
    write(f"{found.name}: {format_count(len(found.runs), 'run')}{of_budget}; {states}.{_left(found)}")
    if found.running:
        write("It is being trained now.")
    elif found.is_alive:
        write("The command that trains it is running, but trains no run at the moment.")
    elif found.resume_hint:
        write(found.resume_hint)
    elif found.budget is not None and found.budget.is_open:
        write("It is not being trained; the command that started it resumes the search.")
    elif counts["waiting"] or counts["paused"] or counts["failed"]:
        write("It is not being trained; the command that started it resumes it.")
    if found.outside:
        kept = format_count(found.outside, "run")
        write(f"{kept} of an earlier plan {'is' if found.outside == 1 else 'are'} kept, too.")
    if len(found.runs) > 1:
        write()
        _write_networks(found)
    unfinished = [run for run in found.runs if run.state == "running" or (run.state == "waiting" and run.is_started)]
    if unfinished:
        write()
        columns = [
            _names("unfinished", [_run_name(run, found) for run in unfinished]),
            number_column("epoch"),
            number_column("validation", 8),
            number_column("attempt", 6),
            Column("worker", 5),
        ]
        write_table(columns, [_unfinished_row(run, found) for run in unfinished])
    failed = [run for run in found.runs if run.message]
    if failed:
        write()
        for run in failed:
            again = "" if run.state == "failed" else ", retried"
            write(f"{run.name} ({format_count(run.attempts, 'attempt')}{again}): {run.message}")
        write_message(f"For the traceback: {format_command('status', folder, '--json')}, field 'traceback'.")


def _states(found: Status) -> list[str]:
    """The states that occur, in the order of the display."""
    there = {_state(run, found) for run in found.runs}
    return [
        state
        for state in ("complete", "diverged", "pruned", "failed", "running", "paused", "waiting")
        if state in there
    ]


def _state(run: RunStatus, found: Status) -> str:
    """The state of a run; a waiting one is paused if it has been trained, and is not being resumed."""
    return "paused" if run.state == "waiting" and run.is_started and not found.is_alive else run.state


def _left(found: Status) -> str:
    return "" if found.left_s is None else f" About {format_duration(found.left_s)} left."


def _write_networks(found: Status) -> None:
    """A row for each network with its own runs: their number in each state."""
    states = _states(found)
    counts = Counter((run.network, _state(run, found)) for run in found.runs)
    rows = []
    for i, network in enumerate(found.networks):
        if any(counts[i, state] for state in states):
            numbers = [str(counts[i, state] or "") for state in states]
            rows.append([_network_name(network), *numbers])
    columns = [
        _names("network", [row[0] for row in rows]),
        *(number_column(state, _PRIORITY[state]) for state in states),
    ]
    write_table(columns, rows)
    same = [f"{network.label} is {network.same_as}" for network in found.networks if network.same_as]
    if same:
        write(f"The same networks, so trained once: {', '.join(dict.fromkeys(same))}.")


def _network_name(network: NetworkInfo) -> str:
    setting = (f"{name.rpartition('.')[2]}={format_value(value, 3)}" for name, value in network.setting.items())
    return ", ".join([network.label, *setting])


def _names(header: str, names: list[str]) -> Column:
    return Column(header, wraps=max(map(len, names), default=0) > _NAME_COLUMNS)


def _run_name(run: RunStatus, found: Status) -> str:
    network = found.networks[run.network]
    return f"{_network_name(network)}, seed {run.seeds}" if network.setting else run.name


def _unfinished_row(run: RunStatus, found: Status) -> list[str]:
    accuracy = "" if run.validation_accuracy is None else f"{100 * run.validation_accuracy:.2f} %"
    together = f", {run.replicas} together" if run.replicas > 1 else ""
    worker = f"{run.worker}{together}" if run.state == "running" else _state(run, found)
    return [_run_name(run, found), f"{run.epoch}/{run.epochs}", accuracy, str(run.attempts), worker]


def _as_data(found: Status) -> dict[str, Any]:
    counts = Counter(run.state for run in found.runs)
    return {
        "name": found.name,
        "alive": found.is_alive,
        "left_s": found.left_s,
        "budget": None if found.budget is None else {"runs": found.budget.runs, "ended": not found.budget.is_open},
        "counts": {state: counts[state] for state in sorted(counts)},
        "outside": found.outside,
        "networks": [
            {
                "label": network.label,
                "setting": dict(network.setting),
                "edges": list(network.edges),
                "parameters": network.parameters or None,
                "same_as": network.same_as or None,
            }
            for network in found.networks
        ],
        "runs": [
            {
                "name": run.name,
                "key": run.key,
                "network": found.networks[run.network].label,
                "setting": dict(found.networks[run.network].setting),
                "seeds": run.seeds._asdict(),
                "state": run.state,
                "attempts": run.attempts,
                "epoch": run.epoch,
                "epochs": run.epochs,
                "validation_accuracy": run.validation_accuracy,
                "worker": run.worker,
                "replicas": run.replicas,
                "message": run.message,
                "traceback": run.traceback,
            }
            for run in found.runs
        ],
    }
