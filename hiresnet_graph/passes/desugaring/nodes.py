"""The nodes of a section as calls of blocks: stages expanded, patches applied, weights named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hiresnet_graph.errors import did_you_mean, similar
from hiresnet_graph.graph import BlockNode, PartPatch
from hiresnet_graph.merges import Merge
from hiresnet_graph.passes.desugaring.context import SectionContext
from hiresnet_graph.passes.desugaring.kinds import Kinds
from hiresnet_graph.passes.limits import MAX_NODES, TooLarge
from hiresnet_graph.spec.expression import Unknown
from hiresnet_graph.spec.marked import MarkedDict, marked, merge
from hiresnet_graph.spec.model import MAX_DEPTH, NodeSpec
from hiresnet_graph.spec.pattern import matches
from hiresnet_graph.spec.problems import Path, Problems
from hiresnet_graph.spec.section import Section, evaluated


class SectionNodes(SectionContext):
    """The nodes of a section, made on construction.

    Attributes:
        nodes: Call -> node, inputs first.
        broken: Calls, and entries without calls, that have problems.
        stages: Stage -> its calls.
        merges: Call -> the merge that its entry sets for the slot `input`.
        of_unknown_depth: Stages whose depth depends on an unknown param. They have one block.

    Raises:
        TooLarge: There are more nodes than the limit.
    """

    def __init__(self, section: Section, problems: Problems, kinds: Kinds) -> None:
        super().__init__(section, problems)
        self.kinds = kinds
        self.nodes: dict[str, BlockNode] = {}
        self.broken: set[str] = set()
        self.stages: dict[str, list[str]] = {}
        self.merges: dict[str, Merge] = {}
        self.of_unknown_depth: set[str] = set()
        self._used: set[str] = set()
        self._make_inputs()
        written, self._patches = self._entries()
        self._patterns = [key for key in self._patches if "*" in key]
        self._inner: dict[str, list[str]] = {}
        for key in self._patches:
            parts = key.split(".")
            for i in range(1, len(parts) if "*" not in key else 0):
                self._inner.setdefault(".".join(parts[:i]), []).append(key)
        for name, value in written.items():
            self._make(name, value)
        self._mark_optional_patches()
        self._check_patches([*written, *self.nodes])

    def _make_inputs(self) -> None:
        for name, shape in self.section.inputs.items():
            path = self.section.input_paths.get(name, self.path("input"))
            if name != "input":
                self.check_name(name, path)
            self.nodes[name] = BlockNode(name, None, name, self.origin(path), shape=shape)

    def _entries(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The entries of `nodes` that are nodes, and those that are patches."""
        written: dict[str, Any] = {}
        patches: dict[str, Any] = {}
        for name, value in self.section.nodes.items():
            path = self.path("nodes", name)
            if "." in name or "*" in name:
                if isinstance(value, dict):
                    patches[name] = value
                else:
                    self.problems.add(path, "a patch must be a mapping of fields.")
            elif name in self.section.inputs:
                self.problems.add(path, f"'{name}' is already an input.", "Choose another name.", key=True)
            elif self.check_name(name, path):
                written[name] = value
            else:
                self.broken.add(name)
        if not self.section.nodes:
            self.problems.add(self.path("nodes"), "there are no nodes.", "Write at least one, like 'stem: {...}'.")
        return written, patches

    def _mark_optional_patches(self) -> None:
        """A pattern that names a whole node need not name a part of another one."""
        of_nodes = {key for key in self._patterns if any(matches(key, name) for name in self.nodes)}
        for name, node in self.nodes.items():
            if any(patch.key in of_nodes for patch in node.patches):
                patches = tuple(replace(patch, optional=patch.key in of_nodes) for patch in node.patches)
                self.nodes[name] = replace(node, patches=patches)

    def _check_patches(self, known: list[str]) -> None:
        partial = self.broken | self.of_unknown_depth
        for address in self._patches:
            first = address.split(".")[0]
            if address in self._used or first in partial or ("*" in first and partial):
                continue
            message = f"'{address}' patches nothing: there is no such node or block."
            self.problems.add(self.path("nodes", address), message, did_you_mean(address, known), key=True)

    def _make(self, name: str, value: Any) -> None:
        """Make the calls of an entry of `nodes`: one, or one for each block of a stage."""
        path = self.path("nodes", name)
        value = self._as_mapping(value, path)
        if value is None:
            self.broken.add(name)
            return
        below = self._patched(name, {})
        fields = _merged(below, value) if below else value
        if "block" not in fields and (meant := self._misspelt(name, fields)):
            self.problems.add((*path, "block"), "the key 'block' is missing.", f"Or did you mean the node '{meant}'?")
            self.broken.add(name)
            return
        depth = fields.get("depth")
        if isinstance(depth, str):
            fields = marked(fields).copy()
            at = fields.value_positions.get("depth")
            depth = evaluated(self.problems, depth, self.section.names, (*path, "depth"), at)
            if isinstance(depth, Unknown):
                self.of_unknown_depth.add(name)
                depth = 1
            fields["depth"] = depth
        is_stage = "depth" in fields and depth is not None
        count = depth if is_stage and isinstance(depth, int) and 1 <= depth <= MAX_DEPTH else 1
        if len(self.nodes) + count > MAX_NODES:
            self.problems.add(path, f"there are more than {MAX_NODES:,} nodes.", "Leave some out.")
            raise TooLarge
        if is_stage:
            self._make_stage(name, fields, count, path)
            return
        made = self._call(name, fields, self.section.names, path)
        if made is None:
            self.broken.add(name)
        else:
            self.nodes[name] = made

    def _misspelt(self, name: str, fields: Mapping[str, Any]) -> str:
        """The node that an entry without a block seems to patch; empty if its name is no misspelt one."""
        digits = "0123456789"
        others = [node for node in self.section.nodes if node != name and "." not in node and "*" not in node]
        # `stage3` beside `stage2` is a further stage, whose block was forgotten.
        is_further = any(node.rstrip(digits) == name.rstrip(digits) for node in others)
        return "" if is_further or any(similar(key, ["block"]) for key in fields) else similar(name, others)

    def _as_mapping(self, value: Any, path: Path) -> Any:
        """An entry of `nodes` as a mapping; None after a problem."""
        if isinstance(value, str):
            position = self.problems.position(path)
            value = evaluated(self.problems, value, self.section.names, path)
            if value is None or isinstance(value, Unknown):
                return None
            if isinstance(value, str):
                return marked({"block": value}, position)
        if isinstance(value, dict):
            return value
        self.problems.add(path, "a node must be a mapping like '{block: conv, width: 16}' or the name of a block.")
        return None

    def _make_stage(self, stage: str, fields: Any, count: int, path: Path) -> None:
        calls = self.stages[stage] = [f"{stage}.block{i + 1}" for i in range(count)]
        # The stride of a stage is that of its first block; a patch may set that of another block.
        sets_stride = "stride" in fields
        later = marked(fields).without("stride")
        for i, call in enumerate(calls):
            own = self._patched(call, later if i else fields)
            if own.get("depth") != fields["depth"]:
                message = f"'{call}' is a block of a stage and cannot have a 'depth'."
                self.problems.add(self.path("nodes", call, "depth"), message, f"Set the depth of '{stage}'.", key=True)
            names = {**self.section.names, "i": i}
            made = self._call(call, own, names, path, stage=stage, sets_stride=sets_stride if i else None)
            if made is None:
                self.broken.update(calls)
                return
            self.nodes[call] = made

    def _patched(self, name: str, fields: Any) -> Any:
        """The fields of a node or block after the patches with this address. An exact patch overrides patterns."""
        exact = self._patches.get(name)
        origin: dict[str, str] = {}
        for key in self._patterns:
            if not matches(key, name):
                continue
            patch = self._patches[key]
            self._used.add(key)
            for field in patch:
                if field in origin and not (exact and field in exact):
                    self.problems.add(
                        self.path("nodes", key, field),
                        f"'{key}' and '{origin[field]}' both set '{field}' of '{name}'.",
                        f"Set it under '{name}' itself, or in one pattern.",
                        key=True,
                    )
                origin.setdefault(field, key)
            fields = _merged(fields, patch)
        if exact is not None:
            self._used.add(name)
            fields = _merged(fields, exact)
        return fields

    def _inner_patches(self, call: str, names: Mapping[str, Any]) -> tuple[PartPatch, ...]:
        """The patches of parts inside a block: patterns first, so that exact ones override them."""
        found = []
        parts = call.count(".") + 1
        for key in [*self._patterns, *self._inner.get(call, ())]:
            key_parts = key.split(".")
            if len(key_parts) > parts and matches(".".join(key_parts[:parts]), call):
                self._used.add(key)
                path = self.path("nodes", key)
                fields = evaluated(self.problems, self._patches[key], names, path) or {}
                if "weights" in fields and not self._names_weights(fields["weights"], (*path, "weights")):
                    fields = marked(fields).without("weights")
                found.append(PartPatch(key, ".".join(key_parts[parts:]), fields, self.origin(path)))
        return tuple(found)

    def _names_weights(self, name: Any, path: Path) -> bool:
        """Whether a value can name the weights of a part of a block; if not, that is a problem."""
        if isinstance(name, str) and name != "shared":
            return self.check_weights(name, path)
        hint = "Write a name that another part has, too. To tie all blocks of a stage, set 'weights: shared' for it."
        self.problems.add(path, "the weights of a part of a block require a name.", hint)
        return False

    def _call(
        self,
        call: str,
        fields: Any,
        names: Mapping[str, Any],
        path: Path,
        *,
        stage: str | None = None,
        sets_stride: bool | None = None,
    ) -> BlockNode | None:
        """The node of a call, or None after a problem.

        Args:
            names: Known in templates.
            sets_stride: For a later block of a stage, whether the stage sets a stride.
        """
        fields = evaluated(self.problems, fields, names, path)
        if fields is None:
            return None
        spec = self.problems.model(NodeSpec, fields, path)
        if spec is None:
            return None
        own = marked(fields).subset(spec.model_extra or {})
        if sets_stride is not None and (sets_stride or self.kinds.is_preset(spec.block, "stride")):
            own.setdefault("stride", 1)
        block = self.kinds.block(spec.block, own, path)
        merge_ = self.kinds.merge(spec.merge, (*path, "merge"))
        if spec.merge is not None and merge_ is not None:
            self.merges[call] = merge_
        weights = self._weights(spec, path, call, stage)
        tied = spec.weights == "shared"
        if block is None or merge_ is None or weights is None:
            return None
        return BlockNode(
            call,
            block,
            weights,
            self.origin(path),
            merge=merge_,
            named_weights=spec.weights not in (None, "shared"),
            private=(spec.per_step or "norm") if tied else "none",
            per_step=None if tied else spec.per_step,
            patches=self._inner_patches(call, names),
            stage=stage or "",
        )

    def _weights(self, spec: NodeSpec, path: Path, call: str, stage: str | None) -> str | None:
        if spec.weights == "shared":
            if stage is None:
                self.problems.add(
                    (*path, "weights"),
                    "'weights: shared' ties the blocks of a stage, and this node has no 'depth'.",
                    "Give it 'depth', or a name that another node uses too.",
                )
            return stage
        if spec.per_step is not None and self.section.time is None:
            self.problems.add(
                (*path, "per_step"),
                "'per_step' requires a stage with 'weights: shared' or a network with 'time'.",
                "Add one of them, or remove 'per_step'.",
            )
            return None
        if spec.weights is None:
            return call
        if not self.check_weights(spec.weights, (*path, "weights")):
            return None
        return spec.weights + (call[len(stage) :] if stage else "")


def _merged(base: Any, patch: Any) -> MarkedDict:
    return merge(marked(base), marked(patch))
