"""One level of a spec after its templates are evaluated: the whole file, or one use of a block written in a spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hiresnet_graph.errors import Position, SpecError, did_you_mean
from hiresnet_graph.shapes import Shape, Vector
from hiresnet_graph.spec.marked import MarkedDict, marked
from hiresnet_graph.spec.model import (
    ArchitectureSpec,
    EdgeSpec,
    InputSpec,
    NodeSpec,
    NormsSpec,
    SectionSpec,
    SkipSpec,
    Texts,
    TimeSpec,
    TransitionSpec,
)
from hiresnet_graph.spec.problems import Path, Problems, known_keys
from hiresnet_graph.spec.template import resolve_params, substitute


@dataclass(frozen=True)
class Section:
    """Inputs, nodes and connections, ready to be made a graph.

    Attributes:
        path: Where the section stands in the spec's tree; empty for the file itself.
        names: What `$` knows in the fields of nodes.
        nodes: As written: templates are evaluated when a node is made, since a stage's fields know `i`.
        skips: Name of a group (empty for the only one) -> the group and its path.
        blocks: The entries of `blocks`, as written.
        transitions: Row, column, entry and path of each entry of the matrix.
        transition_set: The edge set that selects some of them, and its path; None for all.
        time: How the section runs in time; None if it runs once.
        prune: Whether nodes that no input reaches, or that reach no output, are left out.
        norms: Fields of all norms that do not set them.
    """

    name: str
    path: Path
    names: Mapping[str, Any]
    inputs: Mapping[str, Shape]
    nodes: Mapping[str, Any]
    flow: tuple[tuple[str, Path], ...]
    skips: Mapping[str, tuple[SkipSpec, Path]]
    edges: tuple[tuple[EdgeSpec, Path], ...]
    blocks: Mapping[str, Any]
    outputs: tuple[str, ...] | None = None
    input_paths: Mapping[str, Path] = field(default_factory=dict)
    transitions: tuple[tuple[str, str, TransitionSpec, Path], ...] = ()
    transition_set: tuple[Texts, Path] | None = None
    time: TimeSpec | None = None
    prune: Literal["dead"] | None = None
    norms: Mapping[str, float] = field(default_factory=dict)


def texts(value: Texts, path: Path) -> list[tuple[str, Path]]:
    """A text or a list of texts, each with its path."""
    return [(value, path)] if isinstance(value, str) else [(text, (*path, i)) for i, text in enumerate(value)]


def evaluated(
    problems: Problems, value: Any, names: Mapping[str, Any], path: Path, position: Position | None = None
) -> Any:
    """The value with its templates evaluated; after an error, which is reported, None.

    Args:
        position: Of the value, if it is not that of `path` in the spec's tree.
    """
    try:
        return substitute(value, names, path, position or problems.position(path))
    except SpecError as error:
        problems.absorb(error)
        return None


_NAMES_OF_FILES = {"i": "in the fields of a stage, 'i' is the index of the block"}
_NAMES_OF_BLOCKS = {
    **_NAMES_OF_FILES,
    "in_width": "in an entry of 'blocks', 'in_width' is the number of channels of its input",
    **{key: f"'{key}' is a key of nodes, so that no node could set the param" for key in known_keys(NodeSpec)},
}
"""Names that params cannot have, and why."""
_STAND_INS = {"name": "?", "input": {"channels": 1}}
"""In place of an invalid value, so that it is not reported as missing."""


def _early(
    tree: MarkedDict, late: tuple[str, ...], names: Mapping[str, Any], path: Path, problems: Problems
) -> dict[str, Any]:
    """The keys of a section, those that are not `late` with their templates evaluated."""
    early = {}
    for key, value in tree.items():
        early[key] = value if key in late else evaluated(problems, value, names, (*path, key))
        if early[key] is None and value is not None:
            early.pop(key)
            early |= {key: _STAND_INS[key]} if key in _STAND_INS else {}
    return early


def whole_section(tree: MarkedDict, problems: Problems) -> Section | None:
    """The section of a file, or None if its errors, which are reported, leave too little."""
    names: dict[str, Any] = {}
    params = tree.get("params")
    if isinstance(params, MarkedDict):
        try:
            _check_params(params, _NAMES_OF_FILES, problems, ("params",))
            names = resolve_params(params)
        except SpecError as error:
            problems.absorb(error)
            return None
    late = ("nodes", "blocks", "variants", "params")
    early = _early(tree, late, names, (), problems)
    spec = problems.repaired(ArchitectureSpec, early, (), _STAND_INS)
    given = early.get("input")
    inputs, input_paths = _inputs(given, problems) if isinstance(given, dict) else ({}, {})
    if spec is None:
        return None
    _check_blocks(spec.blocks, problems)
    outputs = None if spec.outputs is None else tuple(text for text, _ in texts(spec.outputs, ()))
    if outputs == ():
        problems.add(("outputs",), "this requires at least one node.")
    return Section(
        name=spec.name,
        path=(),
        names=names,
        inputs=inputs,
        nodes=tree["nodes"],
        flow=tuple(texts(spec.flow, ("flow",))),
        skips=_skips(early.get("skips"), problems, ()),
        edges=_edges(early.get("edges"), problems, ()),
        blocks=spec.blocks,
        outputs=outputs,
        input_paths=input_paths,
        transitions=_transitions(early.get("transitions"), problems, ()),
        transition_set=_transition_set(early.get("transitions"), ()),
        time=_time(early.get("time"), problems, ()),
        prune=spec.prune,
        norms=_norms(early.get("norms"), problems),
    )


def _norms(given: Any, problems: Problems) -> dict[str, float]:
    spec = problems.model(NormsSpec, given, ("norms",)) if isinstance(given, dict) else None
    return {} if spec is None else spec.model_dump(exclude_none=True)


def _check_params(params: Mapping[str, Any], taken: Mapping[str, str], problems: Problems, path: Path) -> None:
    for name in (key for key in params if key in taken):
        problems.add((*path, name), f"{taken[name]}.", "Choose another name.", key=True)


def block_section(
    definition: MarkedDict, path: Path, names: Mapping[str, Any], shape: Shape, blocks: Mapping[str, Any], at: Problems
) -> Section | None:
    """The section of one use of a block written in the spec, or None after an error, which is reported.

    Args:
        definition: The entry of `blocks`.
        names: Its params and `in_width`.
        shape: Of its input.
    """
    early = _early(definition, ("nodes", "params"), names, path, at)
    spec = at.repaired(SectionSpec, early, path, {})
    if spec is None:
        return None
    return Section(
        name=str(path[-1]),
        path=path,
        names=names,
        inputs={"input": shape},
        nodes=definition["nodes"],
        flow=tuple(texts(spec.flow, (*path, "flow"))),
        skips=_skips(early.get("skips"), at, path),
        edges=_edges(early.get("edges"), at, path),
        blocks=blocks,
        input_paths={"input": path},
        transitions=_transitions(early.get("transitions"), at, path),
        transition_set=_transition_set(early.get("transitions"), path),
        time=_time(early.get("time"), at, path),
    )


def _inputs(given: dict[str, Any], problems: Problems) -> tuple[dict[str, Shape], dict[str, Path]]:
    several = bool(given) and all(isinstance(value, dict) for value in given.values())
    items = (
        [(name, value, ("input", name)) for name, value in given.items()] if several else [("input", given, ("input",))]
    )
    shapes: dict[str, Shape] = {}
    paths: dict[str, Path] = {}
    for name, value, path in items:
        spec = problems.model(InputSpec, value, path)
        paths[name] = path
        shapes[name] = Vector(1) if spec is None else spec.shape
    return shapes, paths


def is_block_entry(entry: Any) -> bool:
    """Whether this can be an entry of `blocks`, as far as its form tells."""
    return isinstance(entry, dict) and ("nodes" in entry or isinstance(entry.get("block"), str))


def _check_blocks(blocks: Mapping[str, Any], problems: Problems) -> None:
    """Note what is wrong with the form of the entries of `blocks`, whether they are used or not."""
    for name, entry in blocks.items():
        if isinstance(entry, str):
            continue
        if not is_block_entry(entry):
            message = "an entry of 'blocks' requires 'block' (a kind with fields set) or 'nodes' (a small file)."
            problems.add(("blocks", name), message)
        elif "nodes" in entry:
            known = known_keys(SectionSpec)
            for key in set(entry) - set(known):
                message = f"unknown key '{key}'."
                problems.add(("blocks", name, key), message, did_you_mean(key, known), key=True)
            if isinstance(entry.get("params"), dict):
                _check_params(entry["params"], _NAMES_OF_BLOCKS, problems, ("blocks", name, "params"))


def is_one_group(skips: Mapping[str, Any]) -> bool:
    """Whether `skips` is a single group rather than a mapping of named ones."""
    return bool(set(skips) & set(SkipSpec.model_fields)) or not all(isinstance(v, dict) for v in skips.values())


def _skips(given: Any, problems: Problems, path: Path) -> dict[str, tuple[SkipSpec, Path]]:
    if not isinstance(given, dict) or not given:
        return {}
    single = is_one_group(given)
    groups = {"": (given, (*path, "skips"))} if single else {k: (v, (*path, "skips", k)) for k, v in given.items()}
    found = {}
    for name, (value, at) in groups.items():
        spec = problems.model(SkipSpec, value, at)
        if spec is not None:
            found[name] = (spec, at)
    return found


def _edges(given: Any, problems: Problems, path: Path) -> tuple[tuple[EdgeSpec, Path], ...]:
    if not isinstance(given, list):
        return ()
    found = []
    for i, value in enumerate(given):
        at = (*path, "edges", i)
        if isinstance(value, dict) and "block" not in value:
            known = {field.alias or name for name, field in EdgeSpec.model_fields.items()}
            unknown = [key for key in value if key not in known]
            if unknown:
                for key in unknown:
                    problems.add((*at, key), f"unknown key '{key}'.", did_you_mean(key, known), key=True)
                continue
        spec = problems.model(EdgeSpec, value, at)
        if spec is not None:
            found.append((spec, at))
    return tuple(found)


def _transitions(given: Any, problems: Problems, path: Path) -> tuple[tuple[str, str, TransitionSpec, Path], ...]:
    """The entries of the matrix; one that is null is not there."""
    found = []
    for row, columns in given.items() if isinstance(given, dict) else ():
        if row == "edges" or columns is None:
            continue
        at = (*path, "transitions", row)
        if not isinstance(columns, dict):
            problems.add(
                at, "a row of 'transitions' requires a mapping from nodes to blocks.", "Write 's1: {s2: brc2}'."
            )
            continue
        for column, entries in columns.items():
            several = isinstance(entries, list)
            for i, entry in enumerate(entries if several else [entries]):
                place = (*at, column, i) if several else (*at, column)
                if entry is None:
                    continue
                if isinstance(entry, str):
                    position = problems.position(place)
                    entry = marked({"block": entry}, position)
                if not isinstance(entry, dict):
                    problems.add(place, "a transition requires the name of a block, or a mapping like '{block: brc2}'.")
                    continue
                spec = problems.model(TransitionSpec, entry, place)
                if spec is not None and spec.block is None and spec.model_extra:
                    known = known_keys(TransitionSpec)
                    for key in spec.model_extra:
                        problems.add((*place, key), f"unknown key '{key}'.", did_you_mean(key, known), key=True)
                elif spec is not None:
                    found.append((str(row), str(column), spec, place))
    return tuple(found)


def _transition_set(given: Any, path: Path) -> tuple[Texts, Path] | None:
    if not isinstance(given, dict) or not isinstance(given.get("edges"), str | list):
        return None
    return given["edges"], (*path, "transitions", "edges")


def _time(given: Any, problems: Problems, path: Path) -> TimeSpec | None:
    """How a section runs in time; after an error, which is reported, the known part."""
    if given is None:
        return None
    at = (*path, "time")
    unknown = TimeSpec(steps=1)
    if not isinstance(given, dict):
        return unknown  # reported where the section is read
    if "steps" not in given:
        message = "'time' requires 'steps', the number of time steps"
        copies = given.get("per_step", "norm")
        reason = "." if copies == "none" else f": 'per_step: {copies}' keeps a copy for each."
        problems.add(at, message + reason, "Add 'steps: 5'.", key=True)
        given = {**given, "steps": 1}
        spec = problems.repaired(TimeSpec, given, at, {}) or unknown
    else:
        spec = problems.repaired(TimeSpec, given, at, {"steps": 1}) or unknown
        _check_readout(spec, given, at, problems)
    if path and (spec.readout == "all" or spec.input == "sequence"):
        key = "readout" if spec.readout == "all" else "input"
        message = f"a block gives one value for one value, so '{key}: {getattr(spec, key)}' is not for it."
        hint = "Use 'last' or a step." if key == "readout" else "Use 'first' or 'every'."
        problems.add((*at, key), message, hint)
    return spec


def _check_readout(spec: TimeSpec, given: Any, at: Path, problems: Problems) -> None:
    """Note a readout that is no step; a number of steps that is wrong itself says nothing of it."""
    if isinstance(spec.readout, int) and spec.readout >= spec.steps == given["steps"]:
        message = f"the readout is step {spec.readout}, but steps go from 0 to {spec.steps - 1}."
        problems.add((*at, "readout"), message, f"Set 'steps' to {spec.readout + 1} or more, or read out earlier.")
