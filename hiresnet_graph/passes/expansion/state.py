"""The state of an expansion: what it has made so far, and the context of the graph that it expands."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from hiresnet_graph.errors import Problem, similar
from hiresnet_graph.graph import EdgeRecord, NodeRecord, OpNode, Origin, PartPatch
from hiresnet_graph.passes.limits import MAX_CALLS, TooLarge
from hiresnet_graph.shapes import Shape
from hiresnet_graph.spec.model import PerStep


class Failed(Exception):
    """A node cannot be expanded. The problem is recorded."""


class Value(NamedTuple):
    """The output of a call: its name and shape."""

    name: str
    shape: Shape


@dataclass(frozen=True)
class Scope:
    """The context in which a graph is expanded: the network, or a block that the spec defines.

    Attributes:
        calls, weights: Prefixes of the names of calls and of weights.
        owner: The node or edge of the network that it belongs to.
        private, per_step: The tensors with a copy for each block of a tied stage, and for each time step.
        norm_scale: Initial scale of the norms that do not set it.
        split: Running statistics are separate from scale and shift, because only they have copies somewhere.
        patches: Fields to change in parts of its blocks.
        inputs: Values of the inputs of an inner graph.
        depth: Number of enclosing blocks.
    """

    calls: str = ""
    weights: str = ""
    owner: str = ""
    private: PerStep = "none"
    per_step: PerStep = "none"
    norm_scale: float = 1.0
    split: bool = False
    patches: tuple[PartPatch, ...] = ()
    inputs: Mapping[str, Value] = field(default_factory=dict)
    depth: int = 0

    @property
    def is_top(self) -> bool:
        """Whether it is the network."""
        return not self.calls

    def below(self, name: str) -> str:
        """The name of a call in this context."""
        return joined(self.calls, name)


class Expansion:
    """What an expansion has made so far.

    Attributes:
        nodes: The operations, in order of creation.
        calls: Names of all operations, those on the edges of inner graphs included.
        values: The outputs of all calls and nodes, by name.
        delayed: Completes the delayed edges whose sources come later, when all nodes of the current graph are known.
        used_patches, unused_patches: Keys of the patches that found their part; the problems of those that did not.
        blocks: Number of blocks so far, for the limit.
        probes: Whether the values at the slots of the network pass through probes.
        inner_probes: Whether those of shortcuts in blocks that the spec defines do, too.
        norms: Fields of all norms that do not set them.
    """

    def __init__(self, *, probes: bool, inner_probes: bool, norms: Mapping[str, float]) -> None:
        self.probes, self.inner_probes, self.norms = probes, inner_probes, norms
        self.nodes: list[OpNode] = []
        self.calls: set[str] = set()
        self.values: dict[str, Value] = {}
        self.delayed: list[Callable[[], None]] = []
        self.node_records: list[NodeRecord] = []
        self.edge_records: list[EdgeRecord] = []
        self.problems: list[Problem] = []
        self.used_patches: set[str] = set()
        self.unused_patches: dict[str, tuple[int, Problem]] = {}
        self.blocks = 0

    def report(self, problem: Problem) -> None:
        """Record a problem, unless it is recorded already: the blocks of a stage often share one."""
        if problem not in self.problems:
            self.problems.append(problem)

    def report_patch(self, patch: PartPatch, found: bool, name: str, parts: Collection[str]) -> None:
        """Record whether a patch found its part in a block. An exact one must; a pattern must in some block.

        Args:
            name: Name of the block.
            parts: Names of its parts.
        """
        if found or patch.optional:
            self.used_patches.add(patch.key)
            return
        message = f"there is no part '{patch.address}' to patch."
        close = similar(patch.address, sorted(parts))
        hint = f"Did you mean '{close}'? " if close else ""
        hint += f"'{name}' has the parts {', '.join(sorted(set(parts)))}." if parts else f"'{name}' has no parts."
        problem = Problem(message, patch.origin.position, patch.origin.path, hint)
        # Of the blocks that a pattern selects, the one that it describes in most detail counts.
        depth = patch.address.count(".")
        if depth < self.unused_patches.get(patch.key, (depth + 1, problem))[0]:
            self.unused_patches[patch.key] = depth, problem

    def count(self, name: str, origin: Origin) -> None:
        """Count one more block or operation.

        Raises:
            TooLarge: There are more than the limit.
        """
        self.blocks += 1
        if self.blocks + len(self.nodes) > MAX_CALLS:
            message = f"with '{name}' the network has more than {MAX_CALLS:,} blocks and operations."
            self.report(Problem(message, origin.position, origin.path, "Make the network smaller."))
            raise TooLarge


def joined(prefix: str, name: str) -> str:
    """A name below a prefix, which may be empty."""
    return f"{prefix}.{name}" if prefix else name
