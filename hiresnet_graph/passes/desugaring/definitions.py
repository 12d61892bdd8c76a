"""The entries of `blocks`, checked without a use: kinds, keys, names and edges, as far as their params are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hiresnet_graph.errors import SpecError
from hiresnet_graph.passes.desugaring.edges import SectionEdges
from hiresnet_graph.passes.desugaring.kinds import Kinds, block_params
from hiresnet_graph.passes.desugaring.nodes import SectionNodes
from hiresnet_graph.passes.limits import TooLarge
from hiresnet_graph.passes.names import Addresses
from hiresnet_graph.shapes import Map
from hiresnet_graph.spec.expression import Unknown
from hiresnet_graph.spec.marked import MarkedDict, marked, texts_in
from hiresnet_graph.spec.problems import Problems
from hiresnet_graph.spec.section import Section, block_section, is_block_entry

_SHAPE = Map(1, 1, 1)
"""Stands for the input of a block; nothing is computed with it."""


Desugar = Callable[[Section, Problems], object]


def check_definitions(section: Section, problems: Problems, desugar: Desugar) -> None:
    """Report the errors in the entries of `blocks` that do not depend on a use.

    The params of an entry that is used have unknown values, those of another one their defaults.

    Args:
        desugar: The pass, for entries that depend on no unknown value.
    """
    mentioned = texts_in(problems.tree)
    for name, entry in section.blocks.items():
        own = Problems(problems.tree, is_partial=True)
        if isinstance(entry, dict) and "nodes" in entry:
            own = Problems(problems.tree)
            _check_written(name, marked(entry), section.blocks, own, desugar, is_used=name in mentioned)
        elif isinstance(entry, str) or is_block_entry(entry):
            Kinds(section, own).block(name, {}, ("blocks", name))
        for problem in own.found:
            problems.report(problem)


def _check_written(
    name: str, entry: MarkedDict, blocks: Mapping[str, Any], problems: Problems, desugar: Desugar, *, is_used: bool
) -> None:
    params, unknown = entry.get("params") or MarkedDict(), Unknown()
    if not isinstance(params, MarkedDict) or not isinstance(entry["nodes"], MarkedDict):
        return  # reported where the section is read
    values = params.copy()
    values.update({key: unknown for key, value in params.items() if value is None or is_used})
    names: dict[str, Any] = {"in_width": unknown}
    path = ("blocks", name)
    try:
        names |= block_params(path, values, names)
    except SpecError as error:
        problems.absorb(error)
        names |= dict.fromkeys(values, unknown)
    section = block_section(entry, path, names, _SHAPE, blocks, problems)
    if section is None:
        return
    try:
        kinds = Kinds(section, problems)
        made = SectionNodes(section, problems, kinds)
        if made.of_unknown_depth:
            return  # the names of blocks depend on it
        calls = [call for call in (*made.nodes, *made.broken) if call not in section.inputs]
        stages = {stage: calls for stage, calls in made.stages.items() if calls}
        SectionEdges(section, problems, kinds, made, Addresses(list(section.inputs), calls, stages))
    except TooLarge:
        return
    if not unknown.is_used and not problems.found:
        desugar(section, problems)
