"""The network that a finished study is about, for its diagram and its provenance."""

from __future__ import annotations

import json
from pathlib import Path

from hiresnet_graph.architecture import Architecture, load
from hiresnet_graph.errors import HrgError
from hiresnet_graph.spec.reader import parse
from hiresnet_graph.sweep.database import RUNS, open_for_reading
from hiresnet_graph.sweep.networks import network_of
from hiresnet_graph.sweep.results import study_row
from hiresnet_graph.sweep.study import study_of
from hiresnet_graph.train.record import LEDGER, SPEC


def stored_network(folder: Path) -> Architecture | None:
    """The network of a study or search with the skips of all its variants, or that of a run; None without its spec.

    The spec is that in the folder of the run with the most skips. If only the ledger was kept, it is that of the study,
    if it names a shipped spec.
    """
    if not (folder / LEDGER).exists():
        return _load(folder / SPEC)
    with open_for_reading(folder / LEDGER) as database:
        rows = database.execute(
            "SELECT runs.folder, label, parameters, macs, edges FROM networks JOIN rows ON rows.network = networks.id "
            "JOIN runs USING (key) WHERE networks.in_study "
            "ORDER BY json_array_length(networks.edges) DESC, networks.place, runs.folder"
        ).fetchall()
        text = study_row(database, folder)["text"]
    if not rows:
        return None
    name, label, parameters, macs, most = rows[0]
    network = _load(folder / RUNS / name / SPEC) or _of_study(text, label, parameters, macs, most)
    edges = list(dict.fromkeys(edge for *_, names in rows for edge in json.loads(names)))
    return network if network is None or len(edges) == len(json.loads(most)) else _with_edges(network, edges, text)


def _with_edges(network: Architecture, edges: list[str], text: str) -> Architecture:
    """A network with all of these skips; as it is if they are no edge set of its."""
    try:
        found = network.with_edges(edges, study_of(parse(text, "study")).group)
        return found if found.plan else network
    except HrgError:
        return network


def _load(path: Path) -> Architecture | None:
    try:
        found = load(path) if path.is_file() else None
        return found if found is not None and found.plan else None
    except HrgError:  # such as a block that is registered by somebody's own code
        return None


def _of_study(text: str, label: str, parameters: int, macs: int, edges: str) -> Architecture | None:
    """A network as the file of its study describes it; None if it is not the one that was counted."""
    try:
        study = study_of(parse(text, "study"))
        base = network_of(study)
        is_variant = label in base.variants and study.group is None
        network = base.variant(label) if is_variant else base.with_edges(json.loads(edges), study.group)
        cost = network.cost()
    except HrgError:
        return None
    return network if (cost.parameters, cost.macs) == (parameters, macs) else None
