"""Random recurrent specs of tiny networks.

Two families: *states* with a transition matrix between a pre-net and a post-net, and *chains* of ordinary blocks with
delays, loops, feedback, gates and skips. The number of steps and the readout are chosen among those at which the output
holds a value, according to the definition and not to the package.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count as count_from
from itertools import islice
from typing import Any

import hiresnet_graph as hrg
from hiresnet_graph.spec.writer import to_yaml
from tests.recurrent.definition import Trace
from tests.strategies import Size, halved, poolable, stridable

NORMS = ("batch", "batch", "batch", "group", "none")
PER_STEP = ("none", "norm_stats", "norm", "norm", "all")
LONG = 8
"""Number of steps in which the output must hold a value."""


@dataclass
class Sample:
    """A spec as plain data, and its features."""

    spec: dict[str, Any]
    features: set[str] = field(default_factory=set)

    @property
    def yaml(self) -> str:
        return to_yaml(self.spec)

    @property
    def arch(self) -> hrg.Architecture:
        return hrg.loads(self.yaml, "sample.yaml")

    def __repr__(self) -> str:
        return f"Sample, {', '.join(sorted(self.features))}:\n{self.yaml}"


@dataclass
class ChainNode:
    """A node of a chain.

    Attributes:
        size, inner: Of its value and of its input.
        slots: Where edges may arrive.
        declared: Its size is known before anything arrives.
        part: A part of its block whose value has the same size.
    """

    name: str
    size: Size
    inner: Size
    slots: tuple[str, ...] = ("input", "output")
    declared: bool = False
    part: str = ""


class Maker:
    """One draw."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.features: set[str] = set()
        self.spec: dict[str, Any] = {}
        self.serial = 0

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def pick(self, items: Sequence[Any]) -> Any:
        return items[self.rng.randrange(len(items))]

    def note(self, *features: str) -> None:
        self.features |= set(features)

    def fresh(self, prefix: str) -> str:
        self.serial += 1
        return f"{prefix}{self.serial}"

    def width(self) -> int:
        return int(self.pick((2, 3, 4, 6)))

    def maybe(self, probability: float, key: str, value: Callable[[], Any]) -> dict[str, Any]:
        if not self.chance(probability):
            return {}
        self.note(key)
        return {key: value()}

    def window(self) -> Any:
        steps = sorted(self.rng.sample(range(6), self.rng.randint(1, 4)))
        return steps[0] if len(steps) == 1 else steps

    def timing(self, least: int, *, essential: bool = False) -> dict[str, Any]:
        """`delay`, `at` and `per_step` of an edge with a minimum delay."""
        fields: dict[str, Any] = {}
        delay = self.pick([d for d in (0, 1, 1, 1, 2, 3) if d >= least])
        if delay != 1 or self.chance(0.3):
            fields["delay"] = delay
        if not essential:
            fields |= self.maybe(0.25, "at", self.window)
        if delay > 1:
            self.note("long delay")
        return fields

    # ---- states

    def states(self) -> dict[str, Any]:
        """A pre-net, two or three states with a transition matrix, a post-net."""
        size = self._input()
        pre = {"block": "conv", "width": self.width(), "norm": self.pick(NORMS)}
        sizes = [(pre["width"], *size[1:])]
        for _ in range(self.pick((0, 1, 1, 1, 2))):
            channels, height, width = sizes[-1]
            shrink = self.pick((1, 2)) if min(height, width) >= 4 else 1
            sizes.append(halved((channels, height, width), self.pick((channels, self.width())), shrink))
        names = [f"s{i + 1}" for i in range(len(sizes))]
        nodes: dict[str, Any] = {"pre": pre}
        for name, shape in zip(names, sizes, strict=True):
            nodes[name] = {"block": "state", "shape": list(shape)}
            nodes[name] |= self.maybe(0.2, "merge", lambda: self.pick(("mean", "add")))
        nodes["post"] = self._head(sizes[-1])
        matrix: dict[str, Any] = {}
        for i, source in enumerate(names):
            row = {}
            for j, target in enumerate(names):
                if j == i + 1 or self.chance(0.6):
                    row[target] = self._transition(sizes[i], sizes[j], i == j, essential=j == i + 1)
            if row:
                matrix[source] = row
        if self.chance(0.3) and len(names) > 2:
            matrix["edges"] = self.pick(("adjacent", "adjacent + forward", "all & adjacent", "all - s1>s2 + adjacent"))
            self.note("transition set")
        self.note("states")
        spec = {"nodes": nodes, "flow": [f"input -> pre -> {names[0]}", f"{names[-1]} -> post"], "outputs": "post"}
        if any(key != "edges" for key in matrix):
            spec["transitions"] = matrix
        if self.chance(0.2):
            spec["edges"] = [{"from": "pre", "to": names[-1], **self._across(sizes[0], sizes[-1]), **self.timing(0)}]
        return spec

    def _transition(self, source: Size, target: Size, lateral: bool, *, essential: bool) -> Any:
        timing = self.timing(1, essential=essential)
        if self.chance(0.2):
            return {**self._across(source, target), **timing}
        up = target[1] > source[1] or target[2] > source[2]
        entry: dict[str, Any] = {"block": "brd2" if up else "brc2", **timing}
        self.note(entry["block"])
        if up:
            entry["spatial"] = self.pick(("deconv", "nearest", "bilinear"))
        elif source[1:] != target[1:] and all(a % b == 0 for a, b in zip(source[1:], target[1:], strict=True)):
            entry["spatial"] = self.pick(("stride", "avg", "max"))
        if self.chance(0.5):
            entry["norm"] = self.pick(NORMS)
        if self.chance(0.3):
            entry["hidden"] = self.width()
        if source == target and self.chance(0.6 if lateral else 0.3):
            entry["identity"] = True
        if lateral and self.chance(0.3):
            # Lateral connections of equal size and form may share weights; different forms have different names.
            form = [entry.get("norm", ""), entry.get("hidden", ""), *source]
            entry["weights"] = "_".join(["lateral", *(str(part) for part in form if part)])
            self.note("shared weights")
        else:
            entry |= self.maybe(0.25, "per_step", lambda: self.pick(PER_STEP))
        return entry["block"] if len(entry) == 1 else entry

    # ---- chains

    def chain(self) -> dict[str, Any]:
        """A chain of ordinary blocks, with edges between any of them."""
        self.nodes: dict[str, Any] = {}
        self.chain_nodes: list[ChainNode] = []
        self.blocks: dict[str, Any] = {}
        self.edges: list[dict[str, Any]] = []
        self.chains: list[str] = []
        self.merges: dict[tuple[str, str], str] = {}
        self.pairs: set[tuple[str, str]] = set()
        size = self._input()
        for _ in range(self.rng.randint(2, 4)):
            self._node(size)
            size = self.chain_nodes[-1].size
        names = [node.name for node in self.chain_nodes]
        self.nodes["head"] = self._head(size)
        for _ in range(self.rng.randint(1, 5)):
            self._edge()
        spec: dict[str, Any] = {
            "nodes": self.nodes,
            "flow": [" -> ".join(["input", *names, "head"]), *self.chains],
            "outputs": "head",
        }
        if self.blocks:
            spec["blocks"] = self.blocks
        if self.chance(0.3) and (group := self._skips()):
            spec["skips"] = group
            self.note("skips")
        if self.edges:
            spec["edges"] = self.edges
        self.note("chain")
        return spec

    def _node(self, size: Size) -> None:
        name = self.fresh("n")
        stride = self.pick((1, 1, 2)) if min(size[1:]) >= 4 else 1
        width = self.width()
        out = halved(size, width, stride)
        node = ChainNode(name, out, size)
        kinds = ("conv", "conv", "basic", "plain", "preact_basic", "stage", "cell", "loop", "identity", "twin")
        kind = self.pick(kinds)
        if kind == "twin":
            # All blocks with the same number of channels share their weights.
            fields: dict[str, Any] = {"block": "conv", "width": size[0], "weights": f"twin{size[0]}"}
            node = ChainNode(name, size, size)
        elif kind in ("conv", "basic", "plain", "preact_basic"):
            fields = {"block": kind, "width": width, "norm": self.pick(NORMS)}
            if stride > 1:
                fields["stride"] = stride
            if kind == "conv":
                fields["activation"] = self.pick(("relu", "tanh", "none"))
                node.part = "conv"
                if fields["norm"] != "none" and self.chance(0.3):
                    if self.chance(0.5):
                        fields["bias"] = True
                    else:
                        self.nodes[f"{name}.conv"] = {"bias": True}
                        self.note("patch of a part")
                    self.note("bias before a norm")
            else:
                node.slots = ("input", "residual", "output")
        elif kind == "stage":
            width = self.pick((size[0], width))
            fields = {"block": self.pick(("basic", "conv")), "width": width, "depth": 2}
            if size[0] == width and self.chance(0.7):
                fields |= {"weights": "shared", "per_step": self.pick(PER_STEP)}
                self.note("tied stage")
            node = ChainNode(name, (width, *size[1:]), size)
        elif kind == "cell":
            fields = {"block": self._cell(), "width": width}
            node = ChainNode(name, (width, *size[1:]), size)
        elif kind == "loop":
            fields = {"block": self._loop(), "width": width}
            node = ChainNode(name, (width, *size[1:]), size)
        elif self.chance(0.5):
            fields = {"block": "state", "shape": list(size)}
            node = ChainNode(name, size, size, declared=True)
        else:
            fields = {"block": "identity"}
            node = ChainNode(name, size, size)
        if kind not in ("stage", "identity", "twin"):
            fields |= self.maybe(0.25, "per_step", lambda: self.pick(PER_STEP))
        self.note(kind)
        self.nodes[name] = fields
        self.chain_nodes.append(node)

    def _cell(self) -> str:
        """A block of two branches."""
        name = self.fresh("cell")
        self.blocks[name] = {
            "params": {"width": None},
            "nodes": {
                "a": {"block": "conv", "width": "$width"},
                "b": {"block": "conv", "width": "$width", "kernel_size": 1, "norm": "none"},
                "out": {"block": "identity", "merge": self.pick(("add", "mean"))},
            },
            "flow": ["input -> a -> out", "input -> b -> out"],
        }
        return name

    def _loop(self) -> str:
        """A block with its own time."""
        name = self.fresh("loop")
        time = {
            "steps": self.rng.randint(1, 3),
            "input": self.pick(("first", "every")),
            "per_step": self.pick(PER_STEP),
            "empty": self.pick(("skip", "zeros")),
        }
        self.blocks[name] = {
            "params": {"width": None},
            "nodes": {
                "drive": {"block": "conv", "width": "$width", "norm": self.pick(("batch", "none"))},
                "held": {"block": "conv", "width": "$width", "kernel_size": 1},
                "out": "identity",
            },
            "flow": "input -> drive -> held -> out",
            "edges": [{"from": "held", "to": "held", "delay": 1, "block": "conv", "width": "$width"}],
            "time": time,
        }
        return name

    def _edge(self) -> None:
        i, j = self.rng.randrange(-1, len(self.chain_nodes)), self.rng.randrange(len(self.chain_nodes))
        forward = i < j
        source = self.chain_nodes[i] if i >= 0 else ChainNode("input", self.size, self.size)
        target = self.chain_nodes[j]
        slot = self.pick(target.slots)
        merge = self._merge(source, target, slot, forward)
        if merge is None:
            return
        want = target.inner if slot == "input" else target.size
        if merge == "concat":
            want = (source.size[0], *want[1:])
        entry: dict[str, Any] = {"from": source.name, "to": target.name}
        if source.part and self.chance(0.2):
            entry |= {"from": f"{source.name}.{source.part}", "name": self.fresh("e")}
            self.note("from a part")
        elif (source.name, target.name) in self.pairs:
            entry["name"] = self.fresh("e")
        self.pairs.add((source.name, target.name))
        if slot != "input":
            entry["slot"] = slot
        if merge != "add":
            entry["merge"] = merge
            self.note(f"merge {merge}")
        if self.chance(0.3):
            entry |= {"block": "conv", "width": want[0], "norm": self.pick(NORMS), "activation": "none"}
            if source.size[1:] != want[1:]:
                entry |= self._across((want[0], *source.size[1:]), want)
            self.note("block on an edge")
        elif source.size != want or self.chance(0.2):
            entry |= self._across(source.size, want)
        timing = self.timing(0 if forward else 1)
        if timing.get("delay", 1) != 0:
            entry["delay"] = timing.get("delay", 1)
        entry |= {key: value for key, value in timing.items() if key != "delay"}
        if "block" in entry or "projection" in entry:
            entry |= self.maybe(0.25, "per_step", lambda: self.pick(PER_STEP))
        if self.chance(0.2):
            entry["scale"] = self.pick(("none", "learned", "gate", -0.5, {"init": 0.5}))
            self.note("scale")
        if j > 0 and self.chance(0.2):
            entry["gate"] = self._gate(self.pick(self.chain_nodes[:j]), want)
        self.note("forward" if forward else "lateral" if i == j else "feedback")
        self.edges.append(entry)

    def _merge(self, source: ChainNode, target: ChainNode, slot: str, forward: bool) -> str | None:
        """A merge that the slot can have with this edge, or None."""
        kinds = ["add", "add", "mean", "weighted", "gated"]
        # In a loop the first operand sets the shape, so a concatenation may only read values with known shapes.
        fields = self.nodes[target.name]
        free = fields["block"] in ("conv", "plain") and "weights" not in fields and slot == "input"
        known = forward or source.declared
        if free and known:
            kinds += ["concat", "concat"]
        merge = self.merges.setdefault((target.name, slot), self.pick(kinds))
        return None if merge == "concat" and not known else merge

    def _gate(self, source: ChainNode, want: Size) -> str:
        pool, gate = self.fresh("pool"), self.fresh("gate")
        self.nodes[pool] = {"block": "adaptive_avg_pool"}
        width = self.pick((1, want[0]))
        self.nodes[gate] = {"block": "conv", "width": width, "kernel_size": 1, "norm": "none", "activation": "sigmoid"}
        self.chains.append(f"{source.name} -> {pool} -> {gate}")
        self.note("gate")
        return gate

    def _skips(self) -> dict[str, Any] | None:
        levels = [node for node in self.chain_nodes if self.nodes[node.name].get("depth") is None]
        pairs = [(a, b) for i, a in enumerate(levels) for b in levels[i + 1 :]]
        if not pairs or any(self.merges.setdefault((b.name, "output"), "add") != "add" for _, b in pairs):
            return None
        if any((a.name, b.name) in self.pairs for a, b in pairs):
            return None
        group: dict[str, Any] = {"levels": [node.name for node in levels], "edges": "full"}
        group["projection"] = {"spatial": "adaptive", "norm": self.pick(NORMS)}
        if self.chance(0.4):
            group["delay"] = self.rng.randint(0, 3)
        return group

    # ---- common

    def _input(self) -> Size:
        self.size: Size = (self.rng.randint(1, 3), *self.pick(((8, 8), (4, 4), (8, 4), (7, 5), (6, 6))))
        return self.size

    def _head(self, size: Size) -> dict[str, Any]:
        if self.chance(0.7):
            return {"block": "classifier", "classes": 3}
        return {"block": "conv", "width": 2, "norm": self.pick(NORMS), "activation": "none"}

    def _across(self, source: Size, want: Size) -> dict[str, Any]:
        """A projection from one size to another."""
        up = want[1] > source[1] or want[2] > source[2]
        channels = ["conv1x1", "conv1x1"]
        if source[0] <= want[0]:
            channels.append("pad")
        if source[0] >= want[0]:
            channels.append("slice")
        if up:
            assert want[1] >= source[1] and want[2] >= source[2]
            spatial = ["nearest", "bilinear", "deconv"]
        else:
            spatial = ["adaptive"]
            spatial += ["avg", "max"] if poolable(source, want) else []
            spatial += ["stride"] if stridable(source, want) else []
        projection = {"spatial": self.pick(spatial), "channels": self.pick(channels), "norm": self.pick(NORMS)}
        if self.chance(0.3):
            projection["when"] = "always"
        self.note("projection")
        if up:
            self.note(f"up by {projection['spatial']}")
        return {"projection": projection}

    def sample(self) -> Sample:
        spec = self.pick((self.states, self.chain, self.chain))()
        channels, height, width = self.size
        time: dict[str, Any] = {
            "steps": LONG,
            "input": self.pick(("first", "every", "every", "sequence")),
            "empty": self.pick(("skip", "skip", "zeros")),
            "per_step": self.pick(PER_STEP),
        }
        if self.chance(0.4):
            time["delay"] = 1
        if self.chance(0.3):
            time["past"] = "last"
        if self.chance(0.2):
            time["norm_scale"] = 0.1
        spec = {
            "name": "sample",
            "input": {"channels": channels, "height": height, "width": width},
            **spec,
            "time": time,
        }
        return self._timed(spec)

    def _timed(self, spec: dict[str, Any]) -> Sample:
        """The spec with a number of steps and a readout at which the output holds a value."""
        time = spec["time"]
        self.note(f"input {time['input']}", f"empty {time['empty']}", f"per_step {time['per_step']}")
        trace = Trace(Sample({**spec, "time": {**time, "readout": "all"}}).arch, steps=LONG)
        (head,) = trace.graph.outputs.values()
        ready = trace.reached(head)
        if not ready:
            raise Silent
        form = self.pick(("last", "last", "all", "step"))
        at = self.pick(ready[:3])
        time["steps"] = at + 1
        if form != "last":
            time["steps"] = min(LONG, at + 1 + self.rng.randint(0, 2))
            time["readout"] = "all" if form == "all" else at
        self.note(f"readout {form}")
        return Sample(spec, self.features)


class Silent(Exception):
    """The output never holds a value."""


def make(seed: int) -> Sample:
    """The spec of a seed."""
    rng = random.Random(f"recurrent {seed}")
    while True:
        try:
            return Maker(rng).sample()
        except Silent:
            continue


def chosen(count: int, condition: Callable[[Sample], bool], start: int = 0) -> list[int]:
    """The first seeds, from `start` on, whose specs satisfy a condition."""
    return list(islice((seed for seed in count_from(start) if condition(make(seed))), count))
