"""Commands that say what there is and whether it is right: `list`, `validate`, `enumerate`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from hiresnet_graph.architecture import Architecture, load
from hiresnet_graph.blocks import BLOCKS
from hiresnet_graph.cli import arguments as args
from hiresnet_graph.cli import failure
from hiresnet_graph.cli.arguments import Changes, Edges, Json, Spec, Variant, architecture, sides
from hiresnet_graph.cli.screen import (
    Column,
    counted,
    exact,
    note,
    number_column,
    painted,
    short,
    write,
    write_json,
    write_table,
)
from hiresnet_graph.cli.summary import told_problem
from hiresnet_graph.errors import Problem, SpecError, UsageError
from hiresnet_graph.merges import MERGES
from hiresnet_graph.ops import OPS
from hiresnet_graph.projections import PROJECTIONS
from hiresnet_graph.registry import Registry
from hiresnet_graph.shipped import spec_names, study_names

if TYPE_CHECKING:
    from hiresnet_graph.sweep import Study
    from hiresnet_graph.sweep.plan import Networks


class Family(StrEnum):
    """What `hrg list` can list."""

    SPECS = "specs"
    STUDIES = "studies"
    BLOCKS = "blocks"
    OPERATIONS = "operations"
    MERGES = "merges"
    PROJECTIONS = "projections"
    DATASETS = "datasets"


def list_(
    family: Annotated[
        Family | None, typer.Argument(metavar="[FAMILY]", help=f"One of {', '.join(Family)}.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """List what there is: specs, studies, blocks, operations, merges, projections, data sets."""
    listing = {name: _listed(name) for name in ([family] if family else Family)}
    if json:
        write_json({name.value: rows for name, rows in listing.items()})
        return
    for i, (name, rows) in enumerate(listing.items()):
        columns = [Column(name.value, keep=11), Column("", wraps=True, keep=10)]
        if name is Family.SPECS:
            columns.insert(1, number_column("parameters", keep=1))
        if name is Family.DATASETS:
            rows = [_told_dataset(row) for row in rows]
        if i:
            write()
        write_table(columns, [[f"{v:,}" if isinstance(v, int) else v for v in row.values()] for row in rows])


def _listed(family: Family) -> list[dict[str, Any]]:
    if family is Family.SPECS:
        return [_listed_spec(name) for name in spec_names()]
    if family is Family.STUDIES:
        from hiresnet_graph.sweep.study import read_study

        return [{"name": name, "description": read_study(name).description} for name in study_names()]
    if family is Family.DATASETS:
        return _listed_datasets()
    registries: dict[Family, Registry[Any]] = {
        Family.BLOCKS: BLOCKS,
        Family.OPERATIONS: OPS,
        Family.MERGES: MERGES,
        Family.PROJECTIONS: PROJECTIONS,
    }
    return _listed_kinds(registries[family])


def _listed_spec(name: str) -> dict[str, Any]:
    network = load(name)
    description = str(network.tree.get("description", ""))
    if network.variants:
        description += f" Variants: {', '.join(network.variants)}."
    return {"name": name, "parameters": network.cost().parameters, "description": description.strip()}


def _listed_kinds(registry: Registry[Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "description": (inspect.getdoc(registry.get(name)) or "").split("\n")[0]} for name in registry
    ]


def _listed_datasets() -> list[dict[str, Any]]:
    from hiresnet_graph.data import DATASETS, PublishedData

    rows = _listed_kinds(DATASETS)
    for row in rows:
        kind = DATASETS.get(row["name"])
        row["usage"] = kind.usage()
        if issubclass(kind, PublishedData):
            row["found"] = str(folder) if (folder := kind().found()) else None
    return rows


def _told_dataset(row: dict[str, Any]) -> dict[str, Any]:
    """A row for people: how it is asked for, what it is, and whether it is here."""
    description = row["description"]
    if "found" in row:
        description += (
            f" Found: {row['found']}." if row["found"] else " Not found here; when asked for, it says how to get it."
        )
    return {"usage": row["usage"], "description": description}


def validate(
    specs: Annotated[
        list[str],
        typer.Argument(
            metavar="SPEC...",
            help="Spec or study files, or names of shipped ones; changes (K=V) stand behind their spec.",
        ),
    ],
    json: Json = False,
) -> None:
    """Check specs and studies, and tell every mistake with its place.

    All variants of a spec are checked, unless it is SPEC@VARIANT; of a study, all its networks. Exit code 1 if there
    are mistakes. What may be meant (an edge of a recurrent network that comes too late for the readout) is a warning.
    """
    from hiresnet_graph.sweep.study import is_study

    results: list[_Result] = []
    for spec, changes in sides(specs):
        network: Architecture | None = None
        try:
            if is_study(spec):
                results.append(_Result(spec, _checked_study(spec, changes)))
                continue
            network = architecture(spec, changes)
            network.validate()
            results.append(_Result(spec, network, warnings=_warnings(network)))
        except SpecError as error:
            results.append(_Result(spec, network, error.problems))
    bad = sum(bool(result.problems) for result in results)
    if json:
        write_json({"valid": not bad, "specs": [_validated(result) for result in results]})
    else:
        for result in results:
            if not result.problems and result.checked is not None:
                write(f"{result.spec}: {painted('ok', 'green', sys.stdout)}{_ok(result.checked)}")
            failure.draw(result.problems, sys.stdout)
            failure.draw((replace(w, message=f"warning: {w.message}") for w in result.warnings), sys.stdout)
        if warned := sum(len(result.warnings) for result in results):
            note(f"{counted(warned, 'warning')}.")
    if bad:
        found = counted(sum(len(result.problems) for result in results), "problem")
        note(f"{found} in {counted(bad, 'spec')} of {len(results)}." if len(results) > 1 else f"{found}.")
        raise typer.Exit(failure.FINDINGS)


class _Checked(NamedTuple):
    """A study that is right, with its networks; None if a search chooses them."""

    study: Study
    networks: Networks | None

    @property
    def name(self) -> str:
        return self.study.name


class _Result(NamedTuple):
    """What came out for one spec; `checked` is None where it could not be read."""

    spec: str
    checked: Architecture | _Checked | None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


def _checked_study(name: str, changes: Sequence[str]) -> _Checked:
    """A study that is right, as far as can be told without its data.

    Raises:
        SpecError: It is not, or a network of it is not; with all mistakes.
    """
    from hiresnet_graph.sweep.plan import data_of, networks_of
    from hiresnet_graph.sweep.study import read_study

    if changes:
        raise UsageError(f"'{name}' is a study: write '{changes[0]}' into it, as 'changes', or leave it out.")
    study = read_study(name)
    if study.search is None:
        return _Checked(study, networks_of(study))
    _ = study.base().override(study.changes).plan if study.changes else study.base().plan
    data_of(study)
    return _Checked(study, None)


def _ok(network: Architecture | _Checked) -> str:
    if not isinstance(network, Architecture):
        return f", {_told_study(network)}"
    count = f"{network.cost().parameters:,} parameters"
    if network.chosen is None and network.variants:
        count += f"; {counted(len(network.variants), 'variant')}: {', '.join(network.variants)}"
    return f", {count}"


def _told_study(checked: _Checked) -> str:
    from hiresnet_graph.sweep.plan import data_of, planned

    study, networks = checked
    if study.search is not None:
        return f"a search of up to {counted(study.search.runs, 'run')}"
    assert networks is not None
    plan = planned(study, networks, data_of(study), None)
    different = counted(len({info.plan for info in plan.networks}), "different network")
    runs = counted(len(plan.requests), "run")
    return f"a study of {networks.architecture}: {different}, {counted(len(study.seed_pairs), 'seed')}, {runs}"


def _validated(result: _Result) -> dict[str, Any]:
    return {
        "spec": result.spec,
        "name": result.checked.name if result.checked else None,
        "valid": not result.problems,
        "problems": [told_problem(problem) for problem in result.problems],
        "warnings": [told_problem(problem) for problem in result.warnings],
    }


def _warnings(network: Architecture) -> tuple[Problem, ...]:
    """The warnings of a network and of its variants, each once; those of a variant alone name it."""
    found: dict[tuple[str, str], Problem] = {}
    for name in (network.chosen,) if network.chosen is not None else (None, *network.variants):
        for problem in network.variant(name).warnings:
            where = f"in the variant '{name}', " if name is not None and name != network.chosen else ""
            said = replace(problem, message=f"{where}{problem.message}")
            found.setdefault((str(problem.position or problem.path), problem.message), said)
    return tuple(found.values())


def enumerate_(
    spec: Spec,
    changes: Changes = None,
    subsets: args.Subsets = "all",
    group: args.Group = None,
    variant: Variant = None,
    edges: Edges = None,
    json: Json = False,
) -> None:
    """List edge subsets with their parameters, without training.

    These are the variants that 'hrg ablate SPEC --subsets RULE' trains.
    """
    from hiresnet_graph.sweep import enumerate_variants
    from hiresnet_graph.sweep.variants import TRANSITIONS, possible

    network = architecture(spec, changes, variant, edges)
    entries = enumerate_variants(network, subsets, group)
    found, left_out = [(entry, entry.of(network)) for entry in entries], dict[str, str]()
    if group == TRANSITIONS:
        found, left_out = possible(network, entries)
    first: dict[str, str] = {}
    for entry, member in found:
        first.setdefault(member.plan.digest(), entry.label)
    rows: list[dict[str, Any]] = [
        {
            "label": entry.label,
            "edges": entry.edges,
            "parameters": member.cost().parameters,
            "macs": member.cost().macs,
            "same_as": None if first[member.plan.digest()] == entry.label else first[member.plan.digest()],
        }
        for entry, member in found
    ]
    if json:
        told = {"name": network.name, "variant": network.chosen, "rule": subsets, "variants": rows}
        write_json({**told, **({"left_out": left_out} if left_out else {})})
        return
    cells = []
    for i, row in enumerate(rows, 1):
        label = f"{row['label']} (= {row['same_as']})" if row["same_as"] else row["label"]
        cells.append([str(i), label, exact(row["parameters"]), short(row["macs"])])
    write_table(
        [number_column("", 1), Column("variant"), number_column("parameters", 8), number_column("MACs", 5)], cells
    )
    note(f"{counted(len(rows), 'variant')}, {counted(len(first), 'different network')}.")
    for label, reason in left_out.items():
        note(f"Left out: {label}: {reason}")
