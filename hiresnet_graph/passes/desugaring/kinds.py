"""The blocks, merges and projections that a section names, including blocks that the spec itself defines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, cast

from pydantic import BaseModel, PrivateAttr

from hiresnet_graph.blocks import BLOCKS, Block
from hiresnet_graph.errors import SpecError, did_you_mean
from hiresnet_graph.graph import Scale
from hiresnet_graph.merges import MERGES, AddMerge, Merge
from hiresnet_graph.ops import OPS, FixedScale, LearnedScale, Op
from hiresnet_graph.passes.limits import MAX_NESTING
from hiresnet_graph.projections import PROJECTIONS, Projection
from hiresnet_graph.registry import Kind, Registry
from hiresnet_graph.shapes import Shape
from hiresnet_graph.spec.marked import MarkedDict, format_path, marked
from hiresnet_graph.spec.model import NodeSpec, ScaleSpec
from hiresnet_graph.spec.problems import Path, Problems, known_keys
from hiresnet_graph.spec.section import Section, block_section, evaluated, is_block_entry
from hiresnet_graph.spec.template import resolve_params
from hiresnet_graph.wire import Wire


class WrittenBlock(Block):
    """A block that the spec itself defines with nodes and edges.

    Attributes:
        values: Its params. Templates among their defaults are kept, since they may depend on the width of the input.
    """

    kind: ClassVar[str] = "written"
    name: str
    values: dict[str, Any]
    _params: MarkedDict = PrivateAttr()
    _blocks: Mapping[str, Any] = PrivateAttr()
    _tree: Any = PrivateAttr()

    @classmethod
    def make(cls, name: str, params: MarkedDict, blocks: Mapping[str, Any], tree: Any) -> WrittenBlock:
        """The entry `name` of `blocks` with these params. `tree` is the whole spec, for positions of problems."""
        block = cls(name=name, values=dict(params))
        block._params, block._blocks, block._tree = params, blocks, tree
        return block

    def changed(self, fields: Mapping[str, Any]) -> WrittenBlock:
        """The same block with other params.

        Raises:
            ValueError: It has no such param.
        """
        for key in fields:
            if key not in self.values:
                raise ValueError(f"unknown key '{key}'. {did_you_mean(key, self.values)}".strip())
        return self.make(self.name, self._params.replaced(fields), self._blocks, self._tree)

    def describe(self) -> str:
        """Its name in `blocks`."""
        return self.name

    def expand(self, x: Wire) -> Wire:
        """The output of its graph."""
        return x.inline(self)

    def section(self, shape: Shape) -> tuple[Section | None, Problems]:
        """Its definition for an input of this shape, or None, and the problems found so far.

        Raises:
            SpecError: A template among the params is wrong.
        """
        path, problems = ("blocks", self.name), Problems(self._tree)
        names: dict[str, Any] = {"in_width": shape.channels}
        names |= block_params(path, self._params, names)
        return block_section(self._blocks[self.name], path, names, shape, self._blocks, problems), problems


def block_params(path: Path, params: MarkedDict, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the params of an entry of `blocks`.

    Args:
        given: Other names that its templates may use.

    Raises:
        SpecError: A template is wrong.
    """
    try:
        return resolve_params(params, given)
    except SpecError as error:
        prefix = format_path(path)
        raise SpecError([replace(problem, path=f"{prefix}.{problem.path}") for problem in error.problems]) from None


class OpOnEdge(Block):
    """A single operation as the block of an edge."""

    kind: ClassVar[str] = "operation"
    op: Op

    def describe(self) -> str:
        """The operation's kind."""
        return self.op.kind

    def expand(self, x: Wire) -> Wire:
        """One call."""
        return x.apply(self.op)


class Kinds:
    """The kinds that names and mappings of a section stand for; None after a problem is recorded."""

    def __init__(self, section: Section, problems: Problems) -> None:
        self.section = section
        self.problems = problems

    def block(
        self,
        name: str,
        fields: dict[str, Any],
        path: Path,
        seen: tuple[str, ...] = (),
        beside: type[BaseModel] = NodeSpec,
        name_path: Path | None = None,
    ) -> Block | Op | None:
        """The block or operation of a name with fields.

        Args:
            name_path: Of the name, if it is not that of the key `block` beside the fields.
            seen: The entries of `blocks` that led to this name.
            beside: The model whose keys may stand beside the fields, for hints.
        """
        entry, name_path = self.section.blocks.get(name), name_path or (*path, "block")
        if entry is None:
            if name not in BLOCKS and name not in OPS:
                known = [*BLOCKS, *OPS, *self.section.blocks]
                self.problems.add(name_path, f"there is no block '{name}'.", did_you_mean(name, known))
                return None
            registry = BLOCKS if name in BLOCKS else OPS
            return cast(
                "Block | Op | None",
                self.problems.kind(registry, name, fields, path, name_path, known_keys(beside)),
            )
        entry_path: Path = ("blocks", name)
        inner_path = entry_path if isinstance(entry, str) else (*entry_path, "block")
        if isinstance(entry, str):
            entry = {"block": entry}
        if not is_block_entry(entry):
            return None  # a problem that is recorded where the section is read
        if name in seen:
            self.problems.add(entry_path, f"the definition is circular: {' -> '.join([*seen, name])}.")
            return None
        if len(seen) >= MAX_NESTING:
            self.problems.add(entry_path, f"the definition is nested too deeply: the limit is {MAX_NESTING} blocks.")
            return None
        if "nodes" in entry:
            return self._written(name, entry, fields, path)
        preset = marked(entry).without("block")
        preset = evaluated(self.problems, preset, self.section.names, entry_path)
        if preset is None:
            return None
        return self.block(entry["block"], preset.replaced(fields), path, (*seen, name), beside, inner_path)

    def _written(self, name: str, entry: Any, fields: dict[str, Any], path: Path) -> Block | None:
        params = entry.get("params") or {}
        if not isinstance(params, dict):
            self.problems.add(("blocks", name, "params"), "expected a mapping.")
            return None
        is_valid = True
        for key in fields:
            if key not in params:
                is_valid = False
                hint = did_you_mean(key, params) if params else f"'{name}' has no 'params'."
                self.problems.add((*path, key), f"unknown key '{key}'.", hint, key=True)
        values = marked(params).replaced(fields)
        for key in params:
            if values[key] is None and not self.problems.is_partial:
                is_valid = False
                self.problems.add(path, f"the key '{key}' is missing: block '{name}' has no default for it.")
        return WrittenBlock.make(name, values, self.section.blocks, self.problems.tree) if is_valid else None

    def has_open_field(self, block: str, field: str, seen: tuple[str, ...] = ()) -> bool:
        """Whether a block has this field, and no entry of `blocks` sets it."""
        entry = self.section.blocks.get(block)
        if entry is None:
            registry: Registry[Any] = BLOCKS if block in BLOCKS else OPS
            return block in registry and field in registry.get(block).model_fields
        if isinstance(entry, dict) and "nodes" in entry:
            return isinstance(entry.get("params"), dict) and field in entry["params"]
        if self.is_preset(block, field) or block in seen:
            return False
        inner = entry.get("block") if isinstance(entry, dict) else entry
        return isinstance(inner, str) and self.has_open_field(inner, field, (*seen, block))

    def is_preset(self, block: str, field: str) -> bool:
        """Whether an entry of `blocks` sets this field."""
        seen: set[str] = set()
        while block not in seen:
            seen.add(block)
            entry = self.section.blocks.get(block)
            if not isinstance(entry, dict) or "nodes" in entry or not isinstance(entry.get("block"), str):
                return False
            if field in entry:
                return True
            block = entry["block"]
        return False

    def merge(self, value: Any, path: Path) -> Merge | None:
        """The merge that a value names; `add` by default."""
        return AddMerge() if value is None else cast("Merge | None", self._kind(MERGES, value, path, "add"))

    def scale(self, value: str | float | ScaleSpec, gate: str | None, path: Path) -> Scale | None:
        """The factor that a value of `scale` stands for.

        Args:
            gate: The node that gates the edge, which takes the place of a learned gate.
        """
        if isinstance(value, float):
            return FixedScale(factor=value)
        if value == "none":
            return FixedScale(factor=1)
        if isinstance(value, str):
            value = ScaleSpec(gate=value == "gate")
        if value.gate and gate is not None:
            if value.init is not None:
                message = f"a gate has no 'init' where its value is the output of a node, here of '{gate}'."
                self.problems.add((*path, "init"), message, "Remove 'init', or 'gate' beside 'scale'.", key=True)
                return None
            return FixedScale(factor=1)
        if not value.learned:
            if value.gate or value.init is None:
                fault = "a gate is learned" if value.gate else "a factor that is not learned requires its value, 'init'"
                hint = "Set 'learned: true', or give the factor as a number, like 'scale: 0.5'."
                self.problems.add(path, f"{fault}.", hint)
                return None
            return FixedScale(factor=value.init)
        found = LearnedScale(sigmoid=value.gate)
        return found if value.init in (None, found.start) else LearnedScale(sigmoid=value.gate, init=value.init)

    def projection(self, value: Any, path: Path, default: Projection) -> Projection | None:
        """The projection that a value names."""
        if value is None:
            return default
        return cast("Projection | None", self._kind(PROJECTIONS, value, path, "standard"))

    def _kind(self, registry: Registry[Any], value: Any, path: Path, default: str) -> Kind | None:
        """The kind of a name, or of a mapping with its fields in which the name may be left out."""
        if isinstance(value, str):
            return self.problems.kind(registry, value, {}, path, path)
        fields = {key: field for key, field in value.items() if key != "kind"}
        at = (*path, "kind") if "kind" in value else path
        return self.problems.kind(registry, value.get("kind", default), fields, path, at)
