"""A spec as it was written, and its patches: the base file, one that extends it, a variant, overrides, in this order.

Templates are kept until a section is made, so a changed param reaches every `$name`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from hiresnet_graph.errors import Position, Problem, Source, SpecError, did_you_mean
from hiresnet_graph.files import is_file
from hiresnet_graph.shipped import spec_names, spec_path
from hiresnet_graph.spec.foreign import refuse_foreign
from hiresnet_graph.spec.marked import MarkedDict, marked, merge
from hiresnet_graph.spec.model import ArchitectureSpec, NodeSpec
from hiresnet_graph.spec.patching import lay, lost_groups, with_transition_blocks
from hiresnet_graph.spec.problems import Problems, known_keys
from hiresnet_graph.spec.reader import SUFFIXES, parse, read
from hiresnet_graph.spec.section import Section, is_one_group, whole_section
from hiresnet_graph.spec.writer import to_json, to_yaml

_MAX_EXTENDS = 16
MAX_VARIANTS = 1_000


class Override(NamedTuple):
    """A change of a param or a field, and the positions of its key and its value for messages."""

    key: str
    value: Any
    key_position: Position
    value_position: Position


@dataclass(frozen=True, eq=False)
class Document:
    """A spec and what was asked to be changed in it. Frozen: each verb gives a new one.

    Attributes:
        tree: The file, merged onto those that it extends; templates and variants as written.
        chosen: Name of the chosen variant.
        overrides: Changes on top, in their order: address -> value.
        files: The files that it was read from: its own, and those that it extends.
        base: The spec before the last kind of change: without variant and overrides, or the spec that it extends.
    """

    tree: MarkedDict
    chosen: str | None = None
    overrides: tuple[Override, ...] = ()
    files: tuple[Path, ...] = ()
    base: Document | None = None

    @property
    def name(self) -> str:
        """Name of the network; as written, if it has a template that cannot be evaluated."""
        name = str(self.tree.get("name", ""))
        if "$" not in name:
            return name
        try:
            section, problems = self.section()
        except SpecError:
            return name
        return name if any(problem.path == "name" for problem in problems.found) else section.name

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the variants that the file defines."""
        variants = self.tree.get("variants")
        return tuple(variants) if isinstance(variants, dict) else ()

    def variant(self, name: str | None) -> Self:
        """The spec with a variant chosen (another one is replaced; None is the file itself).

        Raises:
            SpecError: The file has no such variant.
        """
        if name is not None and name not in self.variants:
            position = self.tree.value_positions.get("variants", self.tree.position)
            raise SpecError(
                [Problem(f"there is no variant '{name}'.", position, "variants", did_you_mean(name, self.variants))]
            )
        return self._changed(name, self.overrides)

    def override(self, values: Mapping[str, Any], source: Source | None = None) -> Self:
        """The spec with params or fields changed, over everything else.

        Args:
            values: `width` names a param, `stage2.depth`, `input.height` or `skips.edges` a field. A `MarkedDict` has
                the positions that messages point to.
            source: The text that the values were read from, for messages about others.
        """
        return self._changed(self.chosen, (*self.overrides, *(_override(values, key, source) for key in values)))

    def _changed(self, chosen: str | None, overrides: tuple[Override, ...]) -> Self:
        file = self.base if self.chosen is not None or self.overrides else self
        assert file is not None
        base = file if chosen is not None or overrides else file.base
        return replace(self, chosen=chosen, overrides=overrides, base=base)

    def with_edges(self, expression: str | list[str], group: str | None = None) -> Self:
        """The spec with another edge set in its skips, in one group of them, or in its `transitions`."""
        key = "transitions.edges" if group == "transitions" else f"skips.{group}.edges" if group else "skips.edges"
        return self.override({key: expression}, Source("--edges", str(expression)))

    def patched(self) -> MarkedDict:
        """The tree with variant and overrides applied, templates as written.

        Raises:
            SpecError: A patch changes nothing that exists; with all such errors.
        """
        tree = merge(self.tree, MarkedDict())
        problems: list[Problem] = []
        if self.chosen is not None:
            patch = self.tree["variants"][self.chosen]
            if isinstance(patch, MarkedDict):
                problems += lost_groups(tree, patch)
                tree = lay(tree, _variant_patch(patch, tree, self.chosen, problems))
            elif patch is not None:
                problems.append(
                    Problem(
                        "a variant requires a mapping of changes.",
                        self.tree["variants"].value_positions.get(self.chosen),
                        f"variants.{self.chosen}",
                        "Write '{}' for a variant without changes.",
                    )
                )
        for override in self.overrides:
            patch = _override_patch(tree, override, problems)
            tree = lay(tree, patch) if patch is not None else tree
        if problems:
            raise SpecError(problems)
        return tree

    def section(self) -> tuple[Section, Problems]:
        """The spec with all templates evaluated but those of its nodes.

        Raises:
            SpecError: All errors found so far.
        """
        tree = self.patched()
        problems = Problems(tree)
        _check_variants(tree, problems)
        section = whole_section(tree, problems)
        if section is None:
            problems.raise_if_any()
        assert section is not None
        return section, problems

    def address(self, key: str) -> tuple[str, ...] | None:
        """Where in the tree a change points, like `("nodes", "stage2", "depth")`; None if there is no such field."""
        path = _override_path(self.tree, key, Position(Source(key, ""), 1, 1), [])
        return None if path is None else tuple(path)

    def variant_changes(self, name: str) -> MarkedDict:
        """What a variant of the file changes, as a patch of the tree; empty if the variant is wrong."""
        patch = self.tree["variants"][name]
        if not isinstance(patch, MarkedDict):
            return MarkedDict()
        return with_transition_blocks(_variant_patch(patch, self.tree, name, []))

    def as_extension(self, name: str, base: str) -> MarkedDict:
        """The changes of the chosen variant and the overrides alone, as a spec called `name` that extends `base`.

        Args:
            base: A shipped spec or a file.

        Raises:
            SpecError: A change changes nothing that exists.
        """
        problems: list[Problem] = []
        extension = MarkedDict({"name": name, "extends": base})
        if self.chosen is not None and isinstance(changes := self.tree["variants"][self.chosen], MarkedDict):
            changes = changes.without("name")
            extension = lay(extension, _variant_patch(changes, self.tree, self.chosen, problems))
        for override in self.overrides:
            patch = _override_patch(self.tree, override, problems)
            extension = lay(extension, patch) if patch is not None else extension
        if problems:
            raise SpecError(problems)
        return extension

    def standalone(self) -> MarkedDict:
        """The tree of a file of its own for the same network: patches applied, templates kept."""
        return self.patched()

    def to_yaml(self) -> str:
        """The spec as YAML, as a file of its own: patches applied, templates kept."""
        return to_yaml(self.standalone())

    def to_json(self) -> str:
        """The spec as JSON, as a file of its own: patches applied, templates kept."""
        return to_json(self.standalone())


def read_document(spec: str | Path) -> Document:
    """The spec of a file, or of a shipped spec by its name.

    Raises:
        SpecError: It cannot be found or read, or what it extends cannot.
        UsageError: It is a network of another program.
    """
    refuse_foreign(spec)
    path = _find(str(spec), None)
    document = _extended(read(path), ())
    return replace(document, files=(path, *document.files))


def parse_document(text: str, name: str = "text") -> Document:
    """The spec of a text in YAML or JSON."""
    return _extended(parse(text, name), ())


def _find(spec: str, base: Position | None) -> Path:
    """The file that a path or the name of a shipped spec means."""
    looks_like_file = "/" in spec or spec.endswith(SUFFIXES)
    folder = Path(base.source.name).parent if base is not None else Path()
    if looks_like_file or is_file(folder / spec):
        return folder / spec
    shipped = spec_path(spec)
    if shipped is not None or os.path.isdir(folder / spec):
        return shipped or folder / spec
    position = base or Position(Source(spec, ""), 1, 1)
    raise SpecError(
        [
            Problem(
                f"there is no file and no shipped spec '{spec}'.",
                position,
                "extends" if base else "",
                did_you_mean(spec, spec_names()) or "'hrg list specs' lists them.",
            )
        ]
    )


def _extended(tree: MarkedDict, below: tuple[str, ...]) -> Document:
    """A tree merged onto what it extends; `files` are those of that."""
    base = tree.get("extends")
    if base is None:
        return Document(tree)
    position = tree.value_positions.get("extends", tree.position)
    if not isinstance(base, str):
        raise SpecError([Problem("this requires the name of a spec or a file.", position, "extends")])
    path = _find(base, position)
    if not is_file(path):
        message = f"'{path}' is a folder, not a file." if os.path.isdir(path) else f"there is no file '{path}'."
        raise SpecError([Problem(message, position, "extends", "A file is named relative to the one that extends it.")])
    key = str(path.resolve())
    if key in below:
        message, hint = f"'{base}' extends itself, directly or through others.", "Break the circle."
        raise SpecError([Problem(message, position, "extends", hint)])
    if len(below) >= _MAX_EXTENDS:
        message = f"a chain of files that extend each other has at most {_MAX_EXTENDS} links, this one has more."
        raise SpecError([Problem(message, position, "extends", "Merge some of the files.")])
    extended = _extended(read(path), (*below, key))
    if lost := lost_groups(extended.tree, tree):
        raise SpecError(lost)
    return Document(lay(extended.tree, tree.without("extends")), files=(path, *extended.files), base=extended)


def _variant_patch(patch: MarkedDict, tree: MarkedDict, name: str, problems: list[Problem]) -> MarkedDict:
    """A variant as a patch of the tree: `edges` as a text means `skips.edges`, of all groups if it is `none`."""
    edges = patch.get("edges")
    is_set = isinstance(edges, str) or (
        isinstance(edges, list) and bool(edges) and all(isinstance(item, str) for item in edges)
    )
    if not is_set:
        return patch
    position = patch.value_positions.get("edges", patch.position)
    skips = tree.get("skips")
    groups = _groups_without_edges(tree, edges)
    if not groups and (not isinstance(skips, dict) or not is_one_group(skips)):
        found, hint = "the spec has no skips", "Add 'skips' to the file, or give a list of edges."
        if isinstance(skips, dict) and skips:
            found = f"the skips are in named groups: {', '.join(skips)}"
            hint = f"Write 'skips: {{{next(iter(skips))}: {{edges: ...}}}}'."
        message = f"an edge set in 'edges' means 'skips.edges', but {found}."
        problems.append(Problem(message, position, f"variants.{name}.edges", hint))
        return MarkedDict()
    changed = patch.without("edges")
    marks = {} if position is None else {"edges": position}
    inner = MarkedDict({"edges": edges}, position, marks, {**marks})
    if groups:
        inner = MarkedDict(dict.fromkeys(groups, inner), position)
    own = changed.get("skips")
    changed["skips"] = merge(own, inner) if isinstance(own, MarkedDict) else inner
    return changed


def _check_variants(tree: MarkedDict, problems: Problems) -> None:
    variants = tree.get("variants")
    if not isinstance(variants, dict):
        return
    if len(variants) > MAX_VARIANTS:
        message = f"a spec has at most {MAX_VARIANTS:,} variants, this one has {len(variants):,}."
        problems.add(("variants",), message, "Distribute them over several files that extend one.", key=True)
    known = [key for key in known_keys(ArchitectureSpec) if key not in ("variants", "extends", "$schema")]
    for name, patch in variants.items():
        for key in patch if isinstance(patch, dict) else ():
            if key not in known:
                hint = _node_hint(key, tree.get("nodes")) or did_you_mean(key, known)
                problems.add(("variants", name, key), f"unknown key '{key}'.", hint, key=True)


def _node_hint(key: str, nodes: Any) -> str:
    """How a variant changes a node, for an address in the place of a key: `stage1`, `stage*.width`."""
    if not isinstance(nodes, dict) or (key.split(".")[0] not in nodes and "*" not in key):
        return ""
    address, _, field = key.rpartition(".")
    return f"Write 'nodes: {{{address}: {{{field}: ...}}}}'." if address else f"Write 'nodes: {{{key}: {{...}}}}'."


def _override(values: Mapping[str, Any], key: str, source: Source | None) -> Override:
    value = values[key]
    if isinstance(values, MarkedDict) and key in values.value_positions:
        return Override(key, value, values.key_positions[key], values.value_positions[key])
    source = source or Source("override", f"{key}={value}")
    position = Position(source, 1, 1)
    offset = source.text.find("=") + 1 if source.text.startswith(f"{key}=") else 0
    return Override(key, value, position, position.shifted(offset))


def _override_patch(tree: MarkedDict, override: Override, problems: list[Problem]) -> MarkedDict | None:
    """One override as a patch of the tree, or None after its error is reported."""
    key, value, position, value_position = override
    groups = _groups_without_edges(tree, value) if key == "skips.edges" else []
    paths: list[list[str] | None] = [["skips", group, "edges"] for group in groups]
    patches = MarkedDict()
    for path in paths or [_override_path(tree, key, position, problems)]:
        if path is None:
            return None
        patch: Any = marked(value, value_position)
        for part in reversed(path):
            patch = MarkedDict({part: patch}, position, {part: position}, {part: value_position})
        patches = merge(patches, patch) if patches else patch
    return patches


def _groups_without_edges(tree: MarkedDict, edges: Any) -> list[str]:
    """The named groups of skips, if the edge set is `none`: the only one that means the same in all of them."""
    skips = tree.get("skips")
    return list(skips) if edges == "none" and isinstance(skips, dict) and not is_one_group(skips) else []


def _override_path(tree: MarkedDict, key: str, position: Position, problems: list[Problem]) -> list[str] | None:
    """Where in the tree an override's left side points: a param, a top-level field, or a field of a node's address."""
    params = tree.get("params") if isinstance(tree.get("params"), dict) else {}
    nodes = tree.get("nodes") if isinstance(tree.get("nodes"), dict) else {}
    assert isinstance(params, dict) and isinstance(nodes, dict)
    parts = key.split(".")
    if len(parts) == 1:
        if key in params:
            return ["params", key]
        if key in ("name", "description", "outputs", "prune"):
            return [key]
        if key in ArchitectureSpec.model_fields:
            hint = f"Change '{key}' in 'variants' of the spec, or in a file that 'extends' it."
        else:
            hint = did_you_mean(key, params) or "The spec has no params."
        problems.append(Problem(f"there is no param '{key}'.", position, key, hint))
        return None
    if not all(parts):
        problems.append(Problem(f"'{key}' is no address.", position, key, "Write 'NODE.FIELD=VALUE'."))
        return None
    head = parts[0]
    if head in ("time", "transitions") and not isinstance(tree.get(head), dict):
        problems.append(Problem(f"the spec has no '{head}'.", position, key, f"Add '{head}' to the file."))
        return None
    if head in ("input", "params", "skips", "blocks", "nodes", "norms", "outputs", "time", "transitions"):
        if head == "skips" and not isinstance(tree.get("skips"), dict):
            hint = "Add 'skips' to the file."
            if isinstance(tree.get("transitions"), dict):
                hint = "Its transitions are selected by '--edges transitions=EXPR', or by '--group transitions'."
            problems.append(Problem("the spec has no skips.", position, key, hint))
            return None
        if head == "skips" and not _has_group(tree["skips"], parts):
            groups = ", ".join(tree["skips"])
            problems.append(
                Problem(
                    f"the skips have no group '{parts[1]}'." if len(parts) > 2 else "the skips are in named groups.",
                    position,
                    key,
                    "They are one group: write '--edges EXPR'."
                    if is_one_group(tree["skips"])
                    else f"Groups: {groups}. Write '--edges GROUP=EXPR', or 'none' for no skips at all.",
                )
            )
            return None
        if head == "params" and parts[1] not in params:
            problems.append(Problem(f"there is no param '{parts[1]}'.", position, key, did_you_mean(parts[1], params)))
            return None
        return parts
    exact = [name for name in nodes if key.startswith(f"{name}.")]
    is_known = head in nodes or ("*" in head and nodes)
    if not is_known and not exact:
        problems.append(
            Problem(f"there is no node '{head}'.", position, key, did_you_mean(head, [*nodes, "input", "skips"]))
        )
        return None
    written = max((name.count(".") + 1 for name in exact), default=0)  # an address that the file has, too
    cut = max(written, _address_length(nodes, parts, tree.get("blocks")))
    if cut >= len(parts):
        problems.append(Problem(f"'{key}' names no field.", position, key, f"Write '{key}.FIELD=VALUE'."))
        return None
    return ["nodes", ".".join(parts[:cut]), *parts[cut:]]


def _has_group(skips: Any, parts: list[str]) -> bool:
    if is_one_group(skips):
        return len(parts) == 2 or parts[1] in ("merge", "projection", "scale")
    return parts[1] in skips and len(parts) > 2


def _address_length(nodes: Mapping[str, Any], parts: list[str], blocks: Any) -> int:
    """How many parts of an override's left side are the address; what follows is the field."""
    length = 1
    if len(parts) > 2 and re.fullmatch(r"block(\d+|\*)|\*", parts[1]):
        length = 2
    definition = _definition(nodes.get(parts[0]), blocks)
    while len(parts) > length + 1 and definition is not None and parts[length] in definition.get("nodes", {}):
        inner = definition["nodes"][parts[length]]
        length += 1
        if len(parts) > length + 1 and re.fullmatch(r"block(\d+|\*)|\*", parts[length]):
            length += 1
        definition = _definition(inner, blocks)
    known = {*NodeSpec.model_fields}
    if len(parts) > length + 1 and parts[length] not in known and _is_part(parts[length]):
        length += 1
    return length


def _is_part(text: str) -> bool:
    """Whether a word looks like a part of a block (`conv2`, `norm*`) rather than a field with fields (`shortcut`)."""
    return (
        "*" in text
        or re.fullmatch(r"(conv|norm|linear|pool|depthwise|pointwise|expand|reduce|project)\d*", text) is not None
    )


def _definition(node: Any, blocks: Any) -> Any:
    kind = node if isinstance(node, str) else node.get("block") if isinstance(node, dict) else None
    entry = blocks.get(kind) if isinstance(blocks, dict) and isinstance(kind, str) else None
    return entry if isinstance(entry, dict) and "nodes" in entry else None
