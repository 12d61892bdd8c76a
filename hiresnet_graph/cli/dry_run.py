"""`hrg ablate --dry-run`: what a study would train, printed from the `PreparedStudy` that `ablate` trains."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hiresnet_graph.cli import failure
from hiresnet_graph.cli.console import write_json, write_message, write_table
from hiresnet_graph.cli.study_summary import trained_on
from hiresnet_graph.formats import Column, format_bytes, format_count, format_duration, format_si, number_column

if TYPE_CHECKING:
    from hiresnet_graph.sweep import Study
    from hiresnet_graph.sweep.calibration import Measurement
    from hiresnet_graph.sweep.options import ExecutionOptions
    from hiresnet_graph.sweep.prepare import PreparedStudy

_REMARKS = 12  # lines of remarks
_BUSY = 0.5  # other programs use more than this share of the cores


def show_plan(
    study: Study,
    output: Path | None,
    options: ExecutionOptions,
    *,
    accept_changes: bool,
    calibrates: bool,
    as_json: bool,
) -> None:
    """Print what would be trained; exits with the code of wrong usage if the study does not fit the folder.

    Raises:
        RunError: The ledger in the folder cannot be read.
    """
    from hiresnet_graph.sweep.prepare import prepare_study

    prepared = prepare_study(
        study, output, options, accept_changes=accept_changes, calibrates=calibrates, measuring=announce_measuring
    )
    if as_json:
        write_json(_as_data(prepared))
    else:
        _write(prepared)
    if prepared.refusal:
        write_message(f"Without '--dry-run' this is refused: {prepared.refusal}")
        raise typer.Exit(failure.USAGE)


def announce_measuring() -> None:
    """Announce a measurement."""
    write_message("Measuring a few training steps ...")


def write_remarks(remarks: tuple[str, ...]) -> None:
    """Print what is valid and possibly unintended, in a limited number of lines."""
    for remark in remarks[:_REMARKS]:
        write_message(remark)
    if len(remarks) > _REMARKS:
        write_message(
            f"... and {len(remarks) - _REMARKS} more of this kind: 'hrg ablate ... --dry-run --json' lists all."
        )


def _write(prepared: PreparedStudy) -> None:
    from hiresnet_graph.sweep.resources import available_cores

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # before workers measure
    _write_networks(prepared)
    missing = len(prepared.missing)
    if prepared.data_error:
        unchecked = "" if prepared.knows_classes else "classes were not checked, and "
        write_message(f"The data are missing, so {unchecked}finished runs are unknown: {prepared.data_error}")
    else:
        write_message(f"{prepared.done} done, {format_count(missing, 'run')} to train.")
    write_remarks(prepared.remarks)
    for message in prepared.messages:
        write_message(message)
    workers = prepared.options.describe_workers(prepared.execution.workers)
    write_message(f"Disk: about {format_bytes(prepared.disk_bytes)}. {workers}.")
    if (estimate := prepared.estimate) is not None:
        is_busy = load > _BUSY * available_cores()
        others = f" while other programs used the CPU, load {load:.1f}" if is_busy else ""
        write_message(
            f"Time: about {format_duration(estimate.time_s)}, from a few steps of '{prepared.measured_label}' "
            f"({estimate.images_s:,.0f} images per second in total{others}), scaled by MACs for the others."
        )
    elif prepared.measured_label:
        write_message(f"Time: unknown. A few steps of '{prepared.measured_label}' took too long to be measured.")
    write_message("Nothing was trained.")


def _as_data(prepared: PreparedStudy) -> dict[str, Any]:
    plan, execution, result, estimate = (
        prepared.plan,
        prepared.execution,
        prepared.calibration_result,
        prepared.estimate,
    )
    return {
        "name": plan.name,
        "architecture": plan.architecture,
        "data": plan.data,
        "data_found": prepared.dataset is not None,
        "baseline": plan.baseline,
        "networks": _networks(prepared),
        "runs": {"unique": prepared.total, "done": prepared.done, "missing": len(prepared.missing)},
        "workers": None if prepared.options.executor == "ray" and not prepared.options.jobs else execution.workers,
        "threads": execution.threads,
        "remarks": list(prepared.remarks),
        "disk_bytes": prepared.disk_bytes,
        "backend": execution.backend,
        "stack": execution.stack,
        "stacking": bool(prepared.stacks),
        "measured": [_measurement(each) for each in result.measured] if result is not None else [],
        "time_s": None if estimate is None else estimate.time_s,
        "refused": prepared.refusal or None,
    }


def _measurement(measured: Measurement) -> dict[str, Any]:
    plan = measured.plan
    return {
        "workers": plan.workers,
        "threads": plan.threads,
        "backend": plan.backend,
        "stack": plan.stack,
        "images_s": measured.images_s,
        "time_s": measured.time_s if measured.images_s else None,
    }


def _networks(prepared: PreparedStudy) -> list[dict[str, Any]]:
    """The rows of the table, as data."""
    rows: list[dict[str, Any]] = [
        {
            "label": info.label,
            "setting": dict(info.setting),
            "edges": list(info.edges),
            "plan": info.plan,
            "parameters": info.parameters,
            "macs": info.macs,
            "runs": 0,
            "done": 0,
            "same_as": info.same_as or None,
            "isomorphic_to": info.isomorphic_to or None,
        }
        for info in prepared.plan.networks
    ]
    for row in prepared.plan.rows:
        rows[row.network]["runs"] += 1
        rows[row.network]["done"] += row.key in prepared.finished
    return rows


def _write_networks(prepared: PreparedStudy) -> None:
    """The table of networks, and their number."""
    rows = _networks(prepared)
    settings = list(dict.fromkeys(key for row in rows for key in row["setting"]))
    columns = [
        *(Column(key) for key in settings),
        Column("variant"),
        number_column("parameters", 8),
        number_column("MACs", 5),
        number_column("runs", 7),
        number_column("done", 7),
        Column("", 6),
    ]
    cells = [
        [
            *(str(row["setting"].get(key, "")) for key in settings),
            row["label"],
            f"{row['parameters']:,}",
            format_si(row["macs"]),
            str(row["runs"]),
            "?" if prepared.data_error else str(row["done"]),
            _same(row),
        ]
        for row in rows
    ]
    write_table(columns, cells)
    labels, different = {row["label"] for row in rows}, {row["plan"] for row in rows}
    crossed = len({str(row["setting"]) for row in rows})
    write_message(
        f"{format_count(len(labels), 'variant')} x "
        + (f"{format_count(crossed, 'setting')} x " if settings else "")
        + f"{format_count(len(prepared.study.seed_pairs), 'seed')}, "
        f"{format_count(len(different), 'different network')}: {format_count(prepared.total, 'run')} "
        f"{trained_on(prepared.plan)}."
    )


def _same(row: dict[str, Any]) -> str:
    if row["same_as"]:
        return f"= {row['same_as']}, trained once"
    return f"as {row['isomorphic_to']} except for names, trained" if row["isomorphic_to"] else ""
