"""Primitives as nodes of a spec: modules that are blocks, operations, and short runs of both."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hiresnet_graph.importing.primitives import Flat, Stored
from hiresnet_graph.importing.recognition import ACTIVATIONS, Recognised, recognise, with_norms
from hiresnet_graph.importing.regions import Boundaries, Region
from hiresnet_graph.ops import Op

_OFTEN = 3
"""How often a module of two operations is used, so that an entry of `blocks` is shorter."""
_MERGES = {"add": "add", "concat": "concat", "multiply": "multiply", "mean": "mean"}


@dataclass(eq=False, slots=True)
class Item:
    """A node of a section.

    Attributes:
        path: Address of the module that it was, or of that and the name of an operation.
        block: A block or an operation; or an entry of `blocks`.
        operands: The values that it reads: primitives, or inputs as negative numbers.
        merge: How they become one, if there are several.
        output: The primitive that is its value.
        tensors: Address below the node -> tensor of the original.
        members: Its primitives.
        inner: For an entry of `blocks`: the nodes of this use.
        structure: For an entry of `blocks`: equal for uses of one entry.
        free: Fields that change nothing here.
        slots: Inner primitive -> the slot where edges add to its value.
        projections: Operand -> the projection on its edge, with its tensors.
    """

    path: str
    block: str
    fields: dict[str, Any]
    operands: list[int]
    output: int
    members: frozenset[int]
    tensors: dict[str, Stored] = field(default_factory=dict)
    merge: str | None = None
    inner: list[Item] | None = None
    structure: int = 0
    kind: str = ""
    free: frozenset[str] = frozenset()
    slots: Mapping[int, str] = field(default_factory=dict)
    projections: dict[int, tuple[dict[str, Any], dict[str, Stored]]] = field(default_factory=dict)

    @property
    def is_merge(self) -> bool:
        """Whether it only merges values."""
        return self.block == "identity"


class Lifter:
    """Makes the nodes of sections of regions.

    Args:
        flat: The network.
        root: Its regions.
        norms: Fields of all norms that do not set them.
        sources: Values that skips start from: where they are merges, these are nodes.
    """

    def __init__(
        self, flat: Flat, root: Region, norms: Mapping[str, float], sources: Collection[int] = frozenset()
    ) -> None:
        self.flat, self.norms, self.sources = flat, norms, sources
        self.edges = Boundaries(flat, norms)
        self.structures: dict[Region, tuple[int, int, int]] = {}
        self.counts: dict[int, int] = {}
        users: dict[str, set[int]] = {}
        for index, primitive in enumerate(flat.primitives):
            for stored in primitive.stored.values():
                users.setdefault(stored.name, set()).add(index)
        self.shared = [indices for indices in users.values() if len(indices) > 1]
        for region in root.walk():
            members = frozenset(region.members)
            if region is root or len(members) < 2 or self._shares(members):
                continue
            sources, results = self.edges.of(members)
            if len(sources) == 1 and len(results) == 1:
                structure = self.edges.structure(members, sources[0], results[0])
                self.structures[region] = (structure, sources[0], results[0])
                self.counts[structure] = self.counts.get(structure, 0) + 1

    def _shares(self, members: frozenset[int]) -> bool:
        """Whether some of the weights are used inside more than once, or inside and outside."""
        return any(len(users & members) > 1 for users in self.shared)

    def items(self, region: Region, uses: int = 1) -> list[Item]:
        """The nodes of a region.

        Args:
            uses: Number of regions like this one; a part becomes an entry of `blocks` if there are more of it.
        """
        return self._joined(self._children(region, uses))

    def _children(self, region: Region, uses: int) -> list[Item]:
        found: list[Item] = []
        for child in region.children:
            if isinstance(child, int):
                found.append(self.operation(child))
                continue
            unit = self._unit(child, uses)
            found += [unit] if unit is not None else self._children(child, uses)
        return found

    def operation(self, index: int, path: str = "") -> Item:
        """One primitive as a node."""
        primitive = self.flat.primitives[index]
        op, frames = primitive.op, primitive.frames
        if not path:
            standard = bool(frames) and frames[-1].is_standard and op.kind != "transpose_tokens"
            own = next((frame.path for frame in reversed(frames) if standard or not frame.is_standard), "")
            path = own if standard else f"{own}.{op.kind}".removeprefix(".")
        if op.kind in _MERGES:
            item = Item(path, "identity", {}, list(primitive.operands), index, frozenset({index}))
            item.merge = _MERGES[op.kind]
            return item
        tensors = dict(primitive.stored)
        return Item(
            path, op.kind, fields_of(op, self.norms), list(primitive.operands), index, frozenset({index}), tensors
        )

    def _unit(self, region: Region, uses: int) -> Item | None:
        """A region as one node, or None."""
        members = frozenset(region.members)
        path = region.frame.path
        if len(members) == 1:
            return self.operation(min(members), path)
        if region not in self.structures or _is_spelled_out(region):
            return None
        structure, source, output = self.structures[region]
        known = self._recognised(members, source, output)
        if known is not None:
            item = Item(path, known.block, known.fields, [source], output, members, known.tensors)
            item.free, item.slots = known.free, known.slots
            return item
        count = self.counts[structure]
        is_part = (len(members) < 3 and count < _OFTEN) or region.frame.kind == "Sequential"
        if count <= uses or is_part or self._is_container(region):
            return None
        inner = self.items(region, count)
        return Item(path, "", {}, [source], output, members, inner=inner, structure=structure, kind=region.frame.kind)

    def _is_container(self, region: Region) -> bool:
        """Whether it is a chain of blocks, which is a stage and no block."""
        children = [child for child in region.children if isinstance(child, Region)]
        blocks = sum(1 for child in children if len(list(child.members)) > 3)
        return self._is_chain(region) and (blocks > 1 or any(map(self._is_container, children)))

    def _is_chain(self, region: Region) -> bool:
        """Whether each part reads the part before it and nothing else."""
        before = -1
        for child in region.children:
            if isinstance(child, Region):
                sources, results = self.edges.of(frozenset(child.members))
            else:
                sources, results = list(self.flat.primitives[child].operands), [child]
            if len(sources) != 1 or len(results) != 1 or (before >= 0 and sources != [before]):
                return False
            before = results[0]
        return True

    def _recognised(self, members: frozenset[int], source: int, output: int) -> Recognised | None:
        known = recognise(self.flat, members, source, output, self.norms)
        is_head = known is not None and known.block in ("classifier", "token_head")
        return None if is_head and output not in self.edges.results else known

    def _as_block(self, item: Item) -> Item:
        """A single operation as the block that is called by what it does, if there is one."""
        if item.merge is not None or len(item.operands) != 1:
            return item
        known = recognise(self.flat, item.members, item.operands[0], item.output, self.norms)
        if known is None:
            return item
        container, _, name = item.path.rpartition(".")
        path = f"{container}.{known.block}".removeprefix(".") if name == item.block else item.path
        return replace(item, path=path, block=known.block, fields=known.fields, tensors=known.tensors)

    def _joined(self, items: list[Item]) -> list[Item]:
        """Runs of operations that are one block together."""
        found = items
        for length in (5, 4, 3, 2):
            found = self._join_runs(found, length)
        return self._absorb_merges([self._as_block(item) if len(item.members) == 1 else item for item in found])

    def _join_runs(self, items: list[Item], length: int) -> list[Item]:
        found: list[Item] = []
        start = 0
        while start < len(items):
            run = items[start : start + length]
            item = self._block_of(run) if len(run) == length else None
            if item is None:
                found.append(items[start])
                start += 1
            else:
                found.append(item)
                start += length
        return found

    def _block_of(self, run: list[Item]) -> Item | None:
        kinds = [item.block for item in run]
        is_conv = kinds[0] == "conv2d" and all(kind.endswith("_norm") or kind in ACTIVATIONS for kind in kinds[1:])
        is_head = kinds[0] in ("adaptive_avg_pool", "layer_norm", "layer_norm2d", "select_token", "token_mean")
        is_head = is_head and kinds[-1] in ("linear", "classifier")
        is_patches = kinds[0] in ("conv2d", "patch_embed") and set(kinds[1:]) <= {"to_tokens", "layer_norm"}
        if not (is_conv or is_head or is_patches) or any(item.merge for item in run):
            return None
        members = frozenset().union(*(item.members for item in run))
        sources, results = self.edges.of(members)
        if sources != run[0].operands or results != [run[-1].output] or self._shares(members):
            return None
        known = self._recognised(members, sources[0], results[0])
        if known is None:
            return None
        path = run[-1].path if is_head else run[0].path
        return Item(path, known.block, known.fields, sources, results[0], members, known.tensors)

    def _is_read_once(self, item: Item) -> bool:
        is_result = item.output in self.edges.results or item.output in self.sources
        return not is_result and len(self.edges.readers.get(item.output, ())) == 1

    def _absorb_merges(self, items: list[Item]) -> list[Item]:
        """Values that are merged for one node alone are merged at its input, if the merge has no name of its own."""
        by_output = {item.output: item for item in items}
        removed: set[int] = set()
        for item in items:
            inner = by_output.get(item.operands[0]) if item.merge == "add" else None
            is_sum = inner is not None and inner.merge == "add" and inner.is_merge and self._is_read_once(inner)
            if inner is not None and is_sum and not set(inner.operands) & set(item.operands):
                # (a + b) + c
                item.operands = [*inner.operands, *item.operands[1:]]
                item.members |= inner.members
                removed.add(inner.output)
            first = by_output.get(item.operands[0]) if len(item.operands) == 1 else None
            if first is None or not first.is_merge or not self._is_read_once(first):
                continue
            if item.merge is not None or item.inner is not None:
                continue
            if item.block not in ACTIVATIONS and first.path.rpartition(".")[2] not in _MERGES:
                continue
            item.operands, item.merge = first.operands, first.merge
            item.members |= first.members
            removed.add(first.output)
        return [item for item in items if item.output not in removed]


def _is_spelled_out(region: Region) -> bool:
    """Whether it has the parts `block1`, `block2`, ..., as the stages of modules that this package builds or emits."""
    names = [child.frame.path if isinstance(child, Region) else "" for child in region.children]
    path = region.frame.path
    return len(names) > 1 and names == [f"{path}.block{number}" for number in range(1, len(names) + 1)]


def fields_of(op: Op, norms: Mapping[str, float]) -> dict[str, Any]:
    """The fields of an operation that differ from their defaults, as plain data.

    Args:
        norms: Fields of all norms that do not set them.
    """
    default = with_norms(type(op).model_construct(), norms) if op.normalizes else None
    found: dict[str, Any] = {}
    for name, value in op.model_dump().items():
        usual = type(op).model_fields[name].get_default() if default is None else getattr(default, name)
        if value != usual:
            found[name] = list(value) if isinstance(value, tuple) else value
    return found


def walk(items: Collection[Item]) -> Iterator[Item]:
    """All nodes, those of entries of `blocks` before their uses."""
    for item in items:
        if item.inner is not None:
            yield from walk(item.inner)
        yield item


def stored_below(name: str, tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """Tensors with their addresses below another one."""
    return {f"{name}.{address}": stored for address, stored in tensors.items()}
