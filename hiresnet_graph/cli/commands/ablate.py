"""The command `ablate`.

torch is imported inside it, once its arguments are known to be right.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiresnet_graph.cli import failure
from hiresnet_graph.cli.arguments import Changes, Edges, Group, apply_change, apply_edges, architecture
from hiresnet_graph.cli.console import write_json, write_message, write_table
from hiresnet_graph.cli.progress import progress
from hiresnet_graph.cli.training import (
    Address,
    BatchSize,
    Data,
    Device,
    Download,
    Epochs,
    Executor,
    Jobs,
    LearningRate,
    RecipeFields,
    Threads,
    command_line,
    make_dataset,
    recipe_fields,
    resume_hint,
    with_download,
)
from hiresnet_graph.errors import SpecError, UsageError
from hiresnet_graph.formats import Column, format_bytes, format_count, format_duration, format_si, number_column
from hiresnet_graph.spec.source import MarkedDict, parse_value

_MEASURING = "Measuring a few training steps ..."
_REMARKS = 12  # lines of what may not be meant

if TYPE_CHECKING:
    from hiresnet_graph.sweep import Study
    from hiresnet_graph.sweep.ablation import Begun, Progress
    from hiresnet_graph.sweep.calibration import Choice, Estimate
    from hiresnet_graph.sweep.plan import StudyPlan


def ablate(
    study: Annotated[
        str,
        typer.Argument(
            metavar="STUDY|SPEC", help="A study file or the name of a shipped study; or a spec, with what to compare."
        ),
    ],
    changes: Changes = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder of the study.", show_default=False)
    ] = None,
    variants: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="Variants of the spec, or edge sets, with commas between.", show_default=False
        ),
    ] = None,
    subsets: Annotated[
        str | None,
        typer.Option(metavar="RULE", help="Edge subsets by a rule, as 'hrg enumerate' lists them.", show_default=False),
    ] = None,
    group: Group = None,
    edges: Edges = None,
    controls: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="adjusted: the baseline with as many parameters as the largest; random-edges: as many edges, "
            "anywhere; with :LABEL for one variant.",
            show_default=False,
        ),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="K=V,W",
            help="Cross all variants with values of a field of the recipe, or of a param (repeatable).",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N", help="How many: 0, 1, 2, ...; or which: 3,7.", show_default="5")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="LABEL", help="The variant that the others are compared with.", show_default="the first"),
    ] = None,
    data: Data = None,
    download: Download = False,
    epochs: Epochs = None,
    lr: LearningRate = None,
    batch_size: BatchSize = None,
    fields: RecipeFields = None,
    jobs: Jobs = None,
    device: Device = None,
    threads: Threads = None,
    stack: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Runs that one program computes at a time, if they differ in edges, seeds or learning rates alone; or "
            "auto: what is fastest here; or off.",
            show_default="off",
        ),
    ] = None,
    executor: Executor = "local",
    address: Address = None,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes", help="Let a label mean another network, or other settings, than in the folder."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be trained, and how long it takes. Writes nothing.")
    ] = False,
    no_calibrate: Annotated[
        bool, typer.Option("--no-calibrate", help="With --dry-run: leave out the time, and the steps that it needs.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="With --dry-run: data for programs, alone on stdout.")] = False,
) -> None:
    """Train variants or edge subsets, several seeds each.

    Options go before what a study file says. A run that is finished in the folder is not trained again: the same
    command goes on after an interruption, and a larger one adds to it.
    """
    if (json or no_calibrate) and not dry_run:
        raise UsageError(
            f"'{'--json' if json else '--no-calibrate'}' belongs to '--dry-run'. Add that, or leave it out."
        )
    if output is None and not dry_run:
        raise UsageError("the folder is missing: '--output DIR'. '--dry-run' needs none.")
    said = {
        **_compared(variants, subsets, controls, grid),
        **({"group": group} if group is not None else {}),
        **({"seeds": _seeds(seeds)} if seeds is not None else {}),
        **({"baseline": baseline} if baseline is not None else {}),
        **({"data": make_dataset(data).as_data()} if data is not None else {}),
        **({"recipe": recipe} if (recipe := recipe_fields(epochs, lr, batch_size, fields)) else {}),
    }
    if edges and variants is not None and group is None:
        raise UsageError("'--variants' and '--edges' both say which edges there are. Give one.")
    asked = _study(study, changes or (), edges or (), said, download)
    if dry_run:
        how = {"accept_changes": accept_changes, "calibrates": not no_calibrate, "as_json": json}
        _list(asked, output, jobs, device or "auto", threads, stack, executor, **how)
        return
    assert output is not None
    _train(
        asked,
        output,
        jobs=jobs,
        device=device or "auto",
        threads=threads,
        stack=stack,
        executor=executor,
        address=address,
        accept_changes=accept_changes,
    )


# ------------------------------------------------------------------------------------------------------- what is asked


def _compared(
    variants: str | None, subsets: str | None, controls: str | None, grid: list[str] | None
) -> dict[str, object]:
    """What the options say of the networks to compare; None takes away what a file says."""
    if variants is not None and subsets is not None:
        raise UsageError("'--variants' and '--subsets' both say what to compare. Give one.")
    said: dict[str, object] = {}
    if variants is not None:
        said |= {"variants": variants.split(","), "subsets": None}
    if subsets is not None:
        said |= {"subsets": subsets, "variants": None}
    if controls is not None:
        said["controls"] = [entry.strip() for entry in controls.split(",") if entry.strip()]
    if grid:
        crossed: dict[str, object] = {}
        for entry in grid:
            key, equals, text = entry.partition("=")
            if not equals or not key.strip() or key.strip() in crossed:
                told = "is there twice" if key.strip() in crossed else "is none"
                raise UsageError(f"--grid {entry}: this {told}. Write a field once, with its values: 'lr=0.01,0.003'.")
            crossed[key.strip()] = _values(text, f"--grid {entry}")
        said["grid"] = crossed
    return said


def _values(text: str, where: str) -> list[Any]:
    value = parse_value(text, where) if text.strip().startswith("[") else None
    return list(value) if isinstance(value, list) else [parse_value(part, where) for part in text.split(",")]


def _seeds(text: str) -> int | list[int]:
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0 or (numbers[0] == 0 and "," not in text):
        raise UsageError(f"--seeds {text}: a number of seeds is wanted, like 5, or which, like '0,3'.")
    return numbers if "," in text else numbers[0]


def _study(name: str, changes: Sequence[str], edges: Sequence[str], said: dict[str, object], download: bool) -> Study:
    """The study that the arguments mean: a file with changes, or one about a spec.

    Raises:
        UsageError: The arguments contradict each other.
        SpecError: The study, or the spec, cannot be read, or a change changes nothing that it has.
    """
    from hiresnet_graph.sweep.study import is_study, read_study, study_of

    if is_study(name):
        study = read_study(name)
        if changes or edges:
            network = study.base()
            before = len(network.overrides)
            for change in changes:
                network = apply_change(network, change)
            network = apply_edges(network, edges)
            _ = network.patched()
            given = {key: value for key, value, _ in network.overrides[before:]}
            said = {**said, "changes": given}
        study = _patched(study, said) if said else study
    else:
        network = architecture(name, changes, None, edges)
        _ = network.plan
        if not {"variants", "subsets", "grid"} & set(said):
            raise UsageError(
                "say what to compare: '--variants none,full', '--subsets leave-one-out', or '--grid K=V,W'."
            )
        given = {key: value for key, value, _ in network.overrides}
        fields = {"network": name, **({"changes": given} if given else {}), **said}
        study = study_of(MarkedDict({key: value for key, value in fields.items() if value is not None}))
    return with_download(study) if download else study


def _patched(study: Study, said: dict[str, object]) -> Study:
    """The study with what the options say.

    Raises:
        UsageError: An option is wrong.
        SpecError: An option and the file do not go together.
    """
    try:
        return study.patched(said, command_line())
    except SpecError as error:
        if any(
            problem.position is None or problem.position.source.name != "command line" for problem in error.problems
        ):
            raise
        told = (f"{problem.path}: {problem.message} {problem.advice}".strip() for problem in error.problems)
        raise UsageError("\n".join(told)) from None


# ------------------------------------------------------------------------------------------------------------ training


def _train(study: Study, output: Path, **how: Any) -> None:
    """Train what is missing, and tell how it goes."""
    from hiresnet_graph.sweep.ablation import ablate as train_all

    done_before = 0
    clock = Clock()
    names: dict[str, str] = {}

    def begun(begun: Begun) -> None:
        nonlocal done_before
        names.update(_names(begun.plan))
        done_before = begun.done
        networks = len({network.plan for network in begun.plan.networks})
        runs = format_count(begun.total, "run") + (f", {begun.done} of them finished" if begun.done else "")
        write_message(f"{begun.plan.name}: {format_count(networks, 'network')} on {begun.plan.data}, {runs}.")
        if begun.note:
            write_message(begun.note)
        _remark(begun.remarks)
        epochs = sum(request.recipe.epochs for request in begun.plan.requests.values())
        clock.epochs = round(epochs * (begun.total - begun.done) / max(1, begun.total))

    def measuring() -> None:
        write_message(_MEASURING)

    with resume_hint(), progress("run", 0) as meter:

        def told(step: Progress) -> None:
            left = clock.left_s(step, time.monotonic())
            rest = f", about {format_duration(left)} left" if left > 1 and step.done < step.total else ""
            name = names[step.key]
            if step.epoch is not None:
                meter.between(step.done, f"{name}: epoch {step.epoch.epoch}/{step.request.recipe.epochs}{rest}")
            elif step.state == "waiting":
                meter.between(step.done, f"{name}: paused")
            else:
                meter(step.done, step.total, f"{name}: {_outcome(step)}{rest}")

        results = train_all(study, out=output, measuring=measuring, begun=begun, progress=told, **how)
    diverged = len({row.key for row in results.rows if row.state == "diverged"})
    kept = f" {format_count(done_before, 'run')} of them {'was' if done_before == 1 else 'were'} there already."
    lost = f" {format_count(diverged, 'run')} of them diverged."
    write_message(
        f"All runs are finished, in {output}.{kept if done_before else ''}{lost if diverged else ''} "
        f"The table: hrg report {output}"
    )


@dataclass
class Clock:
    """How long the runs of a study will still take, by the epochs that they have done.

    Workers take their time to start, and runs that are computed together do an epoch at the same time. So the clock
    begins with the first epoch, and the first ones of all runs do not count until one of these has come further.

    Attributes:
        epochs: That were left when the study began, or went on.
    """

    epochs: int = 0
    _begin_s: float | None = None
    _reached: dict[str, int] = field(default_factory=dict)
    _counted: int = 0
    _counts: bool = False

    def left_s(self, step: Progress, now_s: float) -> float:
        """Hear what happened to a run; gives seconds, 0 if they are not known yet."""
        before = reached = self._reached.get(step.key, 0)
        if step.epoch is not None:
            reached = max(before, step.epoch.epoch)  # one that lost its worker does some epochs twice
            self._begin_s = now_s if self._begin_s is None else self._begin_s
        elif step.state != "waiting":
            reached = step.request.recipe.epochs  # it has ended, and nothing is left to do
        self._reached[step.key] = reached
        self.epochs -= reached - before
        self._counts = self._counts or (before > 0 and (reached > before or step.epoch is None))
        self._counted += self._counts and step.epoch is not None and reached > before
        if self._begin_s is None or not self._counted:
            return 0.0
        return (now_s - self._begin_s) / self._counted * self.epochs


def _names(plan: StudyPlan) -> dict[str, str]:
    """What people call each run, by its key: the label, the setting and the seeds of its first row."""
    names: dict[str, str] = {}
    for row in plan.rows:
        info = plan.networks[row.network]
        setting = [f"{key.removeprefix('recipe.')}={value}" for key, value in info.setting.items()]
        names.setdefault(row.key, ", ".join([info.label, *setting, f"seed {row.seeds}"]))
    return names


def _outcome(step: Progress) -> str:
    if step.record is None:
        return f"failed: {step.message}"
    if step.record.test_accuracy is None:
        return "diverged"
    return f"{100 * step.record.test_accuracy:.2f} %"


# ------------------------------------------------------------------------------------------------------------- dry run


def _list(
    study: Study,
    output: Path | None,
    jobs: int | None,
    device: str,
    threads: int | None,
    stack: str | None,
    executor: str,
    *,
    accept_changes: bool,
    calibrates: bool,
    as_json: bool,
) -> None:
    """Say what would be trained; with the exit code of wrong usage, if the folder is another study's.

    Raises:
        RunError: The folder holds what is no study, or a broken one.
    """
    from hiresnet_graph.sweep.ablation import (
        check_asked,
        crews_of,
        devices_of,
        kind_of,
        may_stack,
        told_stacks,
        way_asked,
        way_kept,
    )
    from hiresnet_graph.sweep.calibration import Calibration, disk_bytes
    from hiresnet_graph.sweep.ledger import Execution, Ledger
    from hiresnet_graph.sweep.plan import data_of, networks_of, planned
    from hiresnet_graph.sweep.results import finished_keys
    from hiresnet_graph.sweep.stacks import buckets_of, stacks_of
    from hiresnet_graph.sweep.ways import room_of

    check_asked(jobs, threads, executor, None, stack)
    networks, images, devices = networks_of(study), data_of(study), devices_of(device)
    dataset, absent = None, ""
    try:
        dataset = images.load()
    except UsageError as error:
        absent = str(error)
    plan = planned(study, networks, images, dataset, device=kind_of(devices), threads=threads or 1)
    refused = ""
    if output is not None and dataset is not None and not accept_changes:
        refused = Ledger.would_refuse(output, plan)
    done = finished_keys(output) if output is not None and dataset is not None else frozenset()
    missing = dict.fromkeys(key for key in plan.requests if key not in done)
    rows = _rows(plan, done)
    if not as_json:
        _write_rows(study, plan, rows, done=dataset is not None)
        if absent:
            write_message(f"The data set is missing, so classes and finished runs were not checked: {absent}")
        else:
            write_message(f"{len(plan.requests) - len(missing)} done, {format_count(len(missing), 'run')} to train.")
        _remark(networks.remarks())
    before = Ledger.begun_as(output) if output is not None and not refused else None
    crews = crews_of(jobs, devices, threads, len(missing))
    buckets = buckets_of(networks, plan, study.group) if may_stack(stack, before) else ()
    calibration, choose = None, None
    if calibrates and dataset is not None and missing and not refused:
        calibration = Calibration(networks, plan, buckets, dataset, missing, devices)

        def choose_now(calibration: Calibration = calibration) -> Choice:
            write_message(_MEASURING)
            return calibration.choose(crews)

        choose = choose_now if executor == "local" else None
    way, choice = way_asked(stack, threads, crews, before, choose)
    kept = ""
    if before is not None:
        first = dataclasses.replace(next(iter(plan.requests.values())), threads=way.crew.threads)
        execution, kept = before.kept_over(Execution.of(first, way.backend, way.stack))
        way = way_kept(execution, jobs, devices, len(missing))
    room = room_of(devices, way.crew.workers) if way.backend != "eager" else None
    stacks = stacks_of(buckets, missing, way.backend, way.stack, room=room, has_begun=before is not None)
    disk = disk_bytes(networks, plan, missing, way.crew.workers * way.stack)
    if not as_json:
        together = told_stacks(stacks, way, len(missing)) or "Each run is a program of its own."
        if kept:
            write_message(kept)
        write_message(f"Disk: about {format_bytes(disk)}. {format_count(way.crew.workers, 'worker')}. {together}")
        if choice is not None:
            write_message(str(choice))
        elif stack == "auto" and before is None and missing and executor == "local":
            write_message("What is fastest is measured before training.")
    guess = choice.estimate if choice is not None else None
    if calibration is not None and choice is None:
        write_message(_MEASURING)
        guess = calibration.estimate(way)
    if as_json:
        counts = {"unique": len(plan.requests), "done": len(plan.requests) - len(missing), "missing": len(missing)}
        write_json(
            {
                "name": plan.name,
                "architecture": plan.architecture,
                "data": plan.data,
                "data_found": dataset is not None,
                "baseline": plan.baseline,
                "networks": rows,
                "runs": counts,
                "workers": way.crew.workers,
                "threads": way.crew.threads,
                "remarks": list(networks.remarks()),
                "disk_bytes": disk,
                "backend": way.backend,
                "stack": way.stack,
                "stacking": bool(stacks),
                "measured": [_as_data(each) for each in choice.measured] if choice is not None else [],
                "time_s": None if guess is None else guess.time_s,
                "refused": refused or None,
            }
        )
    elif guess is not None and calibration is not None:
        write_message(
            f"Time: about {format_duration(guess.time_s)}, from a few steps of '{calibration.label}' "
            f"({guess.images_s:,.0f} images a second in all), scaled by MACs for the others."
        )
    if not as_json:
        write_message("Nothing was trained.")
    if refused:
        write_message(f"Without '--dry-run' this is refused: {refused}")
        raise typer.Exit(failure.USAGE)


def _as_data(measured: Estimate) -> dict[str, Any]:
    way = measured.way
    return {
        "workers": way.crew.workers,
        "threads": way.crew.threads,
        "backend": way.backend,
        "stack": way.stack,
        "images_s": measured.images_s,
        "time_s": measured.time_s if measured.images_s else None,
    }


def _remark(remarks: Sequence[str]) -> None:
    """Say what may not be meant, in not too many lines."""
    for remark in remarks[:_REMARKS]:
        write_message(remark)
    if len(remarks) > _REMARKS:
        write_message(f"... and {len(remarks) - _REMARKS} more like these: 'hrg ablate ... --dry-run --json' has all.")


def _write_rows(study: Study, plan: StudyPlan, rows: list[dict[str, Any]], *, done: bool) -> None:
    """The table of networks.

    Args:
        done: Whether it is known which runs are finished.
    """
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
            str(row["done"]) if done else "?",
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
        + f"{format_count(len(study.seed_pairs), 'seed')}, {format_count(len(different), 'different network')}: "
        f"{format_count(len(plan.requests), 'run')}."
    )


def _rows(plan: StudyPlan, done: frozenset[str]) -> list[dict[str, Any]]:
    """The lines of the table, as data."""
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
        for info in plan.networks
    ]
    for row in plan.rows:
        rows[row.network]["runs"] += 1
        rows[row.network]["done"] += row.key in done
    return rows


def _same(row: dict[str, Any]) -> str:
    if row["same_as"]:
        return f"= {row['same_as']}, trained once"
    return f"as {row['isomorphic_to']} but for names, trained" if row["isomorphic_to"] else ""
