"""The nodes of a section as calls of blocks: stages unrolled, patches applied, weights named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hiresnet_graph.errors import did_you_mean
from hiresnet_graph.graph import BlockNode, Origin, PartPatch
from hiresnet_graph.merges import Merge
from hiresnet_graph.passes.kinds import Kinds, marked, subset
from hiresnet_graph.passes.limits import MAX_NODES, TooLarge
from hiresnet_graph.passes.names import matches, name_fault
from hiresnet_graph.spec.model import MAX_DEPTH, NodeSpec
from hiresnet_graph.spec.problems import Path, Problems
from hiresnet_graph.spec.section import Section, evaluated
from hiresnet_graph.spec.source import MarkedDict, format_path, merge


class Calls:
    """The calls of a section, made on construction.

    Attributes:
        nodes: Call -> node, inputs first.
        broken: Calls and nodes with a mistake, which is noted.
        stages: Stage -> its calls.
        merges: Call -> the merge that its node says for the slot `input`.

    Raises:
        TooLarge: There are too many.
    """

    def __init__(self, section: Section, problems: Problems, kinds: Kinds) -> None:
        self.section = section
        self.problems = problems
        self.kinds = kinds
        self.nodes: dict[str, BlockNode] = {}
        self.broken: set[str] = set()
        self.stages: dict[str, list[str]] = {}
        self.merges: dict[str, Merge] = {}
        self._patches: dict[str, Any] = {}
        self._patterns: list[str] = []
        self._inner: dict[str, list[str]] = {}
        self._used: set[str] = set()
        self._inputs()
        self._make()

    def _path(self, *parts: str | int) -> Path:
        return (*self.section.path, *parts)

    def _origin(self, path: Path) -> Origin:
        return Origin(format_path(path), self.problems.position(path))

    def _inputs(self) -> None:
        for name, shape in self.section.inputs.items():
            path = self.section.input_paths.get(name, self._path("input"))
            if name != "input":
                self.check_name(name, path)
            self.nodes[name] = BlockNode(name, None, name, self._origin(path), shape=shape)

    def check_name(self, name: str, path: Path) -> bool:
        """Whether this can be a name; if not, that is noted."""
        fault = name_fault(name)
        if fault:
            self.problems.add(path, fault, "Choose another name.", key=True)
        return not fault

    def _make(self) -> None:
        written: dict[str, Any] = {}
        patches: dict[str, Any] = {}
        for name, value in self.section.nodes.items():
            path = self._path("nodes", name)
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
        if not written:
            self.problems.add(self._path("nodes"), "there are no nodes.", "Write at least one, like 'stem: {...}'.")
        self._patches = patches
        self._patterns = [key for key in patches if "*" in key]
        for key in patches:
            parts = key.split(".")
            for i in range(1, len(parts) if "*" not in key else 0):
                self._inner.setdefault(".".join(parts[:i]), []).append(key)
        for name, value in written.items():
            self._node(name, value)
        whole = {key for key in self._patterns if any(matches(key, name) for name in self.nodes)}
        for name, node in self.nodes.items():
            if any(patch.key in whole for patch in node.patches):
                marked = tuple(replace(patch, optional=patch.key in whole) for patch in node.patches)
                self.nodes[name] = replace(node, patches=marked)
        for address in patches:
            if address not in self._used and not self._inside_broken(address):
                known = [*written, *self.nodes]
                self.problems.add(
                    self._path("nodes", address),
                    f"'{address}' patches nothing: there is no such node or block.",
                    did_you_mean(address, known),
                    key=True,
                )

    def _inside_broken(self, address: str) -> bool:
        return address.split(".")[0] in self.broken or ("*" in address.split(".")[0] and bool(self.broken))

    def _node(self, name: str, value: Any) -> None:
        path = self._path("nodes", name)
        if isinstance(value, str):
            position = self.problems.position(path)
            value = evaluated(self.problems, value, self.section.names, path)
            if value is None:
                self.broken.add(name)
                return
            if isinstance(value, str):
                value = MarkedDict({"block": value}, position, None, {"block": position} if position else None)
        if not isinstance(value, dict):
            self.problems.add(path, "a node must be a mapping like '{block: conv, width: 16}' or the name of a block.")
            self.broken.add(name)
            return
        below = self._patched(name, {})
        fields = _merged(below, value) if below else value
        depth = fields.get("depth")
        if isinstance(depth, str):
            fields = marked(fields).copy()
            at = fields.value_positions.get("depth")
            depth = evaluated(self.problems, depth, self.section.names, (*path, "depth"), at)
            fields["depth"] = depth
        is_stage = "depth" in fields and fields["depth"] is not None
        count = depth if is_stage and isinstance(depth, int) and 1 <= depth <= MAX_DEPTH else 1
        if len(self.nodes) + count > MAX_NODES:
            self.problems.add(path, f"there are more than {MAX_NODES:,} nodes.", "Leave some out.")
            raise TooLarge
        members = [f"{name}.block{i + 1}" for i in range(count)] if is_stage else [name]
        if is_stage:
            self.stages[name] = members
        # The stride of a stage is that of its first block; a patch may give another block its own.
        strided = "stride" in fields
        later = subset(fields, [key for key in fields if key != "stride"])
        for i, call in enumerate(members):
            names = {**self.section.names, "i": i} if is_stage else self.section.names
            own = self._patched(call, later if i else fields) if is_stage else fields
            if is_stage and own.get("depth") != depth:
                message = f"'{call}' is a block of a stage and cannot have a 'depth'."
                self.problems.add(self._path("nodes", call, "depth"), message, f"Set the depth of '{name}'.", key=True)
            made = self._call(call, own, names, path, stage=name if is_stage else None, unstride=strided if i else None)
            if made is None:
                self.broken.update(members)
                return
            self.nodes[call] = made

    def _patched(self, name: str, fields: Any) -> Any:
        """The fields of a node or block after the patches with this address; exact beats pattern."""
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
                        self._path("nodes", key, field),
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
        """The patches of parts inside a block: patterns first, so that exact ones win."""
        found = []
        parts = call.count(".") + 1
        for key in [*self._patterns, *self._inner.get(call, ())]:
            key_parts = key.split(".")
            if len(key_parts) > parts and matches(".".join(key_parts[:parts]), call):
                self._used.add(key)
                path = self._path("nodes", key)
                fields = evaluated(self.problems, self._patches[key], names, path)
                found.append(PartPatch(key, ".".join(key_parts[parts:]), fields or {}, self._origin(path)))
        return tuple(found)

    def _call(
        self, call: str, fields: Any, names: Mapping[str, Any], path: Path, *, stage: str | None, unstride: bool | None
    ) -> BlockNode | None:
        """The node of one call; `unstride` tells, for a later block of a stage, whether the stage has a stride."""
        fields = evaluated(self.problems, fields, names, path)
        if fields is None:
            return None
        spec = self.problems.model(NodeSpec, fields, path)
        if spec is None:
            return None
        own = subset(fields, spec.model_extra or {})
        if unstride is not None and (unstride or self.kinds.is_preset(spec.block, "stride")):
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
            self._origin(path),
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
        if fault := name_fault(spec.weights):
            self.problems.add((*path, "weights"), fault, "Choose another name.")
            return None
        return spec.weights + (call[len(stage) :] if stage else "")


def _merged(base: Any, patch: Any) -> MarkedDict:
    return merge(marked(base), marked(patch))
