"""`hrg list`: available specs, studies, blocks, operations, merges, projections and data sets."""

from __future__ import annotations

import inspect
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiresnet_graph.cli.arguments import Json
from hiresnet_graph.cli.console import write, write_json, write_table
from hiresnet_graph.formats import Column, number_column
from hiresnet_graph.shipped import spec_names, study_names

if TYPE_CHECKING:
    from hiresnet_graph.registry import Registry

_WIDTH = 100  # at most, so that descriptions can be read


class Listing(StrEnum):
    """What `hrg list` lists."""

    SPECS = "specs"
    STUDIES = "studies"
    BLOCKS = "blocks"
    OPERATIONS = "operations"
    MERGES = "merges"
    PROJECTIONS = "projections"
    DATASETS = "datasets"


def list_available(
    kind: Annotated[
        Listing | None, typer.Argument(metavar="[KIND]", help=f"One of {', '.join(Listing)}.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """List available specs, studies, blocks, operations, merges, projections and data sets."""
    listings = {name: _rows(name) for name in ([kind] if kind else Listing)}
    if json:
        write_json({name.value: rows for name, rows in listings.items()})
        return
    for i, (name, rows) in enumerate(listings.items()):
        columns = [Column(name.value, 11), Column("", 10, wraps=True, name="description")]
        if name is Listing.SPECS:
            columns.insert(1, number_column("parameters", 1))
        if name is Listing.DATASETS:
            rows = [_dataset_for_people(row) for row in rows]
        if i:
            write()
        cells = [[f"{value:,}" if isinstance(value, int) else value for value in row.values()] for row in rows]
        write_table(columns, cells, most=_WIDTH)


def _rows(listing: Listing) -> list[dict[str, Any]]:
    if listing is Listing.SPECS:
        return [_spec_row(name) for name in spec_names()]
    if listing is Listing.STUDIES:
        from hiresnet_graph.sweep.study import read_study

        return [{"name": name, "description": read_study(name).description} for name in study_names()]
    if listing is Listing.DATASETS:
        return _dataset_rows()
    return _kind_rows(_registry(listing))


def _registry(listing: Listing) -> Registry[Any]:
    from hiresnet_graph.blocks import BLOCKS
    from hiresnet_graph.merges import MERGES
    from hiresnet_graph.ops import OPS
    from hiresnet_graph.projections import PROJECTIONS

    registries: dict[Listing, Registry[Any]] = {
        Listing.BLOCKS: BLOCKS,
        Listing.OPERATIONS: OPS,
        Listing.MERGES: MERGES,
        Listing.PROJECTIONS: PROJECTIONS,
    }
    return registries[listing]


def _spec_row(name: str) -> dict[str, Any]:
    from hiresnet_graph.architecture import load

    network = load(name)
    description = str(network.tree.get("description", ""))
    if network.variants:
        description += f" Variants: {', '.join(network.variants)}."
    return {"name": name, "parameters": network.cost().parameters, "description": description.strip()}


def _kind_rows(registry: Registry[Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "description": (inspect.getdoc(registry.get(name)) or "").split("\n")[0]} for name in registry
    ]


def _dataset_rows() -> list[dict[str, Any]]:
    from hiresnet_graph.data import DATASETS, PublishedData

    rows = _kind_rows(DATASETS)
    for row in rows:
        kind = DATASETS.get(row["name"])
        row["usage"] = kind.usage()
        if issubclass(kind, PublishedData):
            row["found"] = str(folder) if (folder := kind().find()) else None
    return rows


def _dataset_for_people(row: dict[str, Any]) -> dict[str, Any]:
    """The name to use in `--data`, the description, and the folder."""
    description = row["description"]
    if "found" in row:
        description += (
            f" Found: {row['found']}." if row["found"] else " Not found here; using it prints how to obtain it."
        )
    return {"usage": row["usage"], "description": description}
