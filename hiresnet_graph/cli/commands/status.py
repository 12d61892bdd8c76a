"""`hrg status`: how far a study is, while it is trained and after."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiresnet_graph.cli.arguments import Json
from hiresnet_graph.cli.console import has_colors, write, write_json, write_message, write_table
from hiresnet_graph.formats import Column, format_count, format_duration, number_column

if TYPE_CHECKING:
    from hiresnet_graph.sweep.results import NetworkInfo, RunStatus, State, Status

_PERIOD_S = 2.0
# What is left out last on a narrow terminal is what people look for first.
_KEEP: dict[State, int] = {"complete": 8, "failed": 7, "running": 6, "waiting": 5, "diverged": 4, "pruned": 3}
_NAME_COLUMNS = 24  # longer names go on in the next line where there is no room
_CLEAR = "\x1b[H\x1b[2J"


def status(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a study, a search or a run.")],
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until nothing is trained any more.")] = False,
    json: Json = False,
) -> None:
    """Say how far a study is.

    Which runs are finished, at work, waiting or failed, how long the rest takes, and whether anybody trains it.
    """
    from hiresnet_graph.sweep.results import read_status

    shown = None
    while True:
        found = read_status(folder)
        if found != shown:
            if watch and not json and has_colors(sys.stdout):
                print(_CLEAR, end="")
            elif shown is not None and not json:
                write()
            if json:
                write_json(_as_data(found))
            else:
                _write(found, folder)
            sys.stdout.flush()
        if not watch or not found.is_alive:
            return
        shown = found
        try:
            time.sleep(_PERIOD_S)
        except KeyboardInterrupt:  # whoever watches has seen enough; nothing is stopped by that
            return


def _write(found: Status, folder: Path) -> None:
    counts = Counter(run.state for run in found.runs)
    told = ", ".join(f"{counts[state]} {state}" for state in _states(found)) or "no runs"
    write(f"{found.name}: {format_count(len(found.runs), 'run')}; {told}.{_left(found)}")
    if found.at_work:
        write("It is being trained now.")
    elif found.is_alive:
        write("Its command is at work; no run is being trained at this moment.")
    elif found.way_on:
        write(found.way_on)
    elif counts["waiting"] or counts["failed"]:
        write("Nobody is training it now; the command that began it goes on with it.")
    if found.outside:
        verb = "is" if found.outside == 1 else "are"
        write(f"{format_count(found.outside, 'more run')} of an earlier plan {verb} kept.")
    if len(found.runs) > 1:
        write()
        _write_networks(found)
    at_work = [run for run in found.runs if run in found.at_work or (run.state == "waiting" and run.epoch)]
    if at_work:
        write()
        columns = [
            _names("under way", [_run_name(run, found) for run in at_work]),
            number_column("epoch"),
            number_column("validation", 8),
            number_column("attempt", 6),
            Column("worker", 5),
        ]
        write_table(columns, [_under_way(run, found) for run in at_work])
    failed = [run for run in found.runs if run.message]
    if failed:
        write()
        for run in failed:
            again = "" if run.state == "failed" else ", tried again"
            write(f"{run.name} ({format_count(run.attempts, 'attempt')}{again}): {run.message}")
        write_message(f"Where it was raised: hrg status {folder} --json, field 'traceback'.")


def _states(found: Status) -> list[State]:
    """Those that there are, in the order in which people ask for them."""
    order: tuple[State, ...] = ("complete", "diverged", "pruned", "failed", "running", "waiting")
    there = {run.state for run in found.runs}
    return [state for state in order if state in there]


def _left(found: Status) -> str:
    return "" if found.left_s is None else f" About {format_duration(found.left_s)} left."


def _write_networks(found: Status) -> None:
    """A row for each network with runs of its own: how many are in which state."""
    states = _states(found)
    counts = Counter((run.network, run.state) for run in found.runs)
    rows = []
    for place, network in enumerate(found.networks):
        if any(counts[place, state] for state in states):
            numbers = [str(counts[place, state] or "") for state in states]
            rows.append([_named(network), *numbers])
    columns = [_names("network", [row[0] for row in rows]), *(number_column(state, _KEEP[state]) for state in states)]
    write_table(columns, rows)
    same = [f"{network.label} is {network.same_as}" for network in found.networks if network.same_as]
    if same:
        write(f"The same networks, so trained once: {', '.join(dict.fromkeys(same))}.")


def _named(network: NetworkInfo) -> str:
    return ", ".join([network.label, *(f"{name.rpartition('.')[2]}={told(v)}" for name, v in network.setting.items())])


def _names(header: str, names: list[str]) -> Column:
    return Column(header, wraps=max(map(len, names), default=0) > _NAME_COLUMNS)


def _run_name(run: RunStatus, found: Status) -> str:
    network = found.networks[run.network]
    return f"{_named(network)}, seed {run.seeds}" if network.setting else run.name


def _under_way(run: RunStatus, found: Status) -> list[str]:
    accuracy = "" if run.validation_accuracy is None else f"{100 * run.validation_accuracy:.2f} %"
    waits = "waiting" if found.is_alive else "paused"
    together = f", {run.replicas} together" if run.replicas > 1 else ""
    worker = f"{run.worker}{together}" if run.state == "running" else waits
    return [_run_name(run, found), f"{run.epoch}/{run.epochs}", accuracy, str(run.attempts), worker]


def told(value: object) -> str:
    """A value of a setting for people: three digits of a number that has more."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _as_data(found: Status) -> dict[str, Any]:
    counts = Counter(run.state for run in found.runs)
    return {
        "name": found.name,
        "alive": found.is_alive,
        "left_s": found.left_s,
        "counts": {state: counts[state] for state in sorted(counts)},
        "outside": found.outside,
        "networks": [
            {
                "label": network.label,
                "setting": dict(network.setting),
                "edges": list(network.edges),
                "parameters": network.parameters,
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
