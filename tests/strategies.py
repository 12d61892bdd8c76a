"""Random valid specs of tiny networks, with all that the language has.

`Maker` draws one from a seed. It keeps track of shapes by itself, from what the documentation says of the blocks, so
that what it makes must be accepted: a refusal is a bug on one side.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import gcd
from typing import Any

from hypothesis import strategies as st

from hiresnet_graph.spec.edge_set import EdgeSet
from hiresnet_graph.spec.writer import to_json, to_yaml

Size = tuple[int, int, int]
"""Channels, height, width."""
RESIDUAL = ("basic", "resnext", "bottleneck", "resnext_bottleneck", "preact_basic", "preact_bottleneck", "plain")
ACTIVATIONS = ("relu", "relu6", "leaky_relu", "gelu", "silu", "hardswish", "sigmoid", "tanh", "none")
NORMS = ("batch", "batch", "group", "layer", "none")


@dataclass
class Place:
    """A node, or a block of a stage, from which an edge may start and at which one may end.

    Attributes:
        call: The block that is meant: two names of one tensor have one.
        size: Of its value; `inner` that of its input, before edges are added to it.
        slots: Where edges may arrive.
        free: More channels may come in, and nothing else changes.
        owner: The stage that it is, or a block of.
    """

    name: str
    call: str
    size: Size
    inner: Size
    slots: tuple[str, ...] = ("input", "output")
    free: bool = False
    owner: str = ""

    @property
    def stage(self) -> bool:
        return self.owner == self.name

    def entry(self, slot: str) -> str:
        """The call at which an edge into a slot ends."""
        return f"{self.name}.block1" if self.stage and slot == "input" else self.call

    def label(self, slot: str) -> str:
        """How an edge into a slot is named after it."""
        return self.owner if slot == "input" and self.entry(slot) == f"{self.owner}.block1" else self.name


@dataclass
class Sample:
    """A spec as plain data, and what it has in it."""

    spec: dict[str, Any]
    features: set[str] = field(default_factory=set)

    @property
    def yaml(self) -> str:
        return to_yaml(self.spec)

    @property
    def json(self) -> str:
        return to_json(self.spec)

    def __repr__(self) -> str:
        return f"Sample, {', '.join(sorted(self.features))}:\n{self.yaml}"


def halved(size: Size, channels: int, stride: int) -> Size:
    return channels, -(-size[1] // stride), -(-size[2] // stride)


def poolable(source: Size, want: Size) -> bool:
    """Whether pooling with kernel = stride, rounded one way for both axes, goes from one size to the other."""
    for up in (False, True):
        if all(
            any((-(-n // k) if up else n // k) == m for k in range(1, n + 1))
            for n, m in zip(source[1:], want[1:], strict=True)
        ):
            return True
    return False


def stridable(source: Size, want: Size) -> bool:
    return all(-(-n // -(-n // m)) == m for n, m in zip(source[1:], want[1:], strict=True))


class Maker:
    """One draw. Every method that adds something notes it among the features."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.features: set[str] = set()
        self.params: dict[str, Any] = {}
        self.blocks: dict[str, Any] = {}
        self.nodes: dict[str, Any] = {}
        self.patches: dict[str, Any] = {}
        self.chains: list[str] = []
        self.edges: list[dict[str, Any]] = []
        self.places: list[Place] = []
        self.merges: dict[tuple[str, str], Any] = {}
        self.named: set[tuple[str, str]] = set()
        self.serial = 0

    # ---- choices

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def pick(self, items: Sequence[Any]) -> Any:
        return items[self.rng.randrange(len(items))]

    def some(self, items: Sequence[Any], least: int) -> list[Any]:
        chosen = set(self.rng.sample(range(len(items)), self.rng.randint(least, len(items))))
        return [item for i, item in enumerate(items) if i in chosen]

    def note(self, *features: str) -> None:
        self.features |= set(features)

    def fresh(self, prefix: str) -> str:
        self.serial += 1
        return f"{prefix}{self.serial}"

    def number(self, value: int) -> Any:
        """The number, or a template that gives it."""
        if not self.chance(0.4):
            return value
        base = self.params["width"]
        forms = ["$width"] if value == base else []
        forms += [f"$({value // base} * width)"] if value % base == 0 and value > base else []
        forms += [f"$(width + {value - base})"] if value > base else [f"$(width - {base - value})"]
        forms += [f"$(max({value}, width - {base}))", f"$({value} if block == '{self.params['block']}' else width)"]
        self.note("template")
        return self.pick(forms)

    def norm(self, *sizes: Size) -> str:
        """A norm of values of these sizes; not one of single values, which is refused: groups of one pixel may be."""
        norm = self.pick(NORMS)
        return "batch" if norm in ("group", "layer") and any(max(size[1:]) == 1 for size in sizes) else str(norm)

    # ---- blocks: each gives its fields, its output's size, its slots, and whether more channels may come in

    def width(self) -> int:
        return int(self.pick((2, 4, 4, 6, 8)))

    def stride(self, size: Size) -> int:
        return int(self.pick((1, 1, 2))) if min(size[1:]) >= 2 else 1

    def conv(self, size: Size) -> tuple[dict[str, Any], Size, tuple[str, ...], bool]:
        width, stride = self.width(), self.stride(size)
        fields: dict[str, Any] = {"block": "conv", "width": self.number(width)}
        if self.chance(0.4):
            fields["kernel_size"] = self.pick((1, 3, 5, [1, 3], [3, 1]))
        if stride > 1:
            fields["stride"] = stride
        if self.chance(0.3):
            fields["norm"] = self.norm(halved(size, width, stride))
        if self.chance(0.3):
            fields["activation"] = self.pick(ACTIVATIONS)
        groups = self.pick((1, 1, 2))
        if groups > 1 and size[0] % 2 == 0:
            fields["groups"] = groups
            self.note("groups")
        return fields, halved(size, width, stride), ("input", "output"), "groups" not in fields

    def separable(self, size: Size) -> tuple[dict[str, Any], Size, tuple[str, ...], bool]:
        width, stride = self.width(), self.stride(size)
        return (
            {"block": "separable_conv", "width": width, "stride": stride},
            halved(size, width, stride),
            SLOTS[:2],
            True,
        )

    def residual(self, size: Size, width: int = 0) -> tuple[dict[str, Any], Size, tuple[str, ...], bool]:
        kind, width, stride = self.pick(RESIDUAL), width or self.width(), self.stride(size)
        fields: dict[str, Any] = {"block": kind, "width": self.number(width)}
        if stride > 1:
            fields["stride"] = stride
        hidden = self.pick((None, 2, 4)) if kind != "resnext_bottleneck" else 4
        if hidden:
            fields["hidden"] = hidden
        inner = hidden or (max(1, width // 4) if "bottleneck" in kind else width)
        if kind in ("resnext", "resnext_bottleneck") or self.chance(0.1):
            both = gcd(inner, size[0] if "bottleneck" not in kind else inner)
            both = gcd(both, width) if "bottleneck" not in kind else both
            fields["groups"] = self.pick([g for g in (1, 2, 4) if both % g == 0])
            self.note("groups")
        out = halved(size, width, stride)
        if self.chance(0.2):
            fields["norm"] = self.norm(out)
        if self.chance(0.2):
            fields["activation"] = self.pick(ACTIVATIONS[:6])
        plain_shortcut = True
        if self.chance(0.35):
            shortcut: dict[str, Any] = {"spatial": self.pick(("avg", "max", "stride", "adaptive"))}
            if size[0] <= width and self.chance(0.5):
                shortcut["channels"] = "pad"
                plain_shortcut = False
            shortcut["norm"] = self.norm(out)
            if self.chance(0.3):
                shortcut["when"] = "always"
                self.note("when: always")
            fields["shortcut"] = shortcut
            self.note("shortcut")
        free = fields.get("groups", 1) == 1 and plain_shortcut
        self.note(kind)
        return fields, out, SLOTS, free

    def mobile(self, size: Size) -> tuple[dict[str, Any], Size, tuple[str, ...], bool]:
        width, stride = self.width(), self.stride(size)
        fields = {"block": "mbconv", "width": width, "expansion": self.pick((1, 1.5, 2)), "stride": stride}
        if self.chance(0.5):
            fields["squeeze"] = 0.5
        return fields, halved(size, width, stride), SLOTS, True

    def dense(self, size: Size) -> tuple[dict[str, Any], Size, tuple[str, ...], bool]:
        growth = self.pick((1, 2, 3))
        fields: dict[str, Any] = {"block": "dense_layer", "growth": growth}
        if self.chance(0.6):
            fields["bottleneck"] = self.pick((0, 1, 2))
        return fields, (size[0] + growth, *size[1:]), SLOTS[:2], False

    def small(self, size: Size) -> tuple[dict[str, Any], Size, tuple[str, ...], bool]:
        """Blocks and operations that keep the size."""
        kind = self.pick(
            ("identity", "relu", "gelu", "batch_norm", "group_norm", "layer_norm", "scale", "squeeze_excite")
        )
        if kind in ("group_norm", "layer_norm") and max(size[1:]) == 1:
            kind = "batch_norm"
        fields: dict[str, Any] = {"block": kind}
        if kind == "squeeze_excite":
            fields["reduction"] = 2
        if self.chance(0.15):
            fields = {"block": "dropout", "p": 0.25}
            self.note("dropout")
        return fields, size, SLOTS[:2], False

    def resolution(self, size: Size) -> tuple[dict[str, Any], Size, tuple[str, ...], bool]:
        c, h, w = size
        if max(h, w) <= 5 and self.chance(0.5):
            mode = self.pick(("nearest", "bilinear", "deconv"))
            fields: dict[str, Any] = {"block": "upsample", "mode": mode}
            if mode == "deconv" and self.chance(0.5):
                fields["width"] = c = self.width()
            self.note("upsample")
            return fields, (c, 2 * h, 2 * w), SLOTS[:2], False
        form = self.pick(("halve", "ceil", "window", "adaptive"))
        kind = self.pick(("max", "avg"))
        self.note("pool")
        if form == "adaptive":
            to = self.rng.randint(1, min(h, w))
            return {"block": "pool", "pool": "adaptive", "size": to}, (c, to, to), SLOTS[:2], False
        if form == "window" or min(h, w) < 2:
            return {"block": "pool", "pool": kind, "kernel_size": 3, "padding": 1}, size, SLOTS[:2], False
        if form == "ceil":
            return {"block": "pool", "pool": kind, "ceil_mode": True}, (c, -(-h // 2), -(-w // 2)), SLOTS[:2], False
        return {"block": "pool", "pool": kind, "kernel_size": 2, "stride": 2}, (c, h // 2, w // 2), SLOTS[:2], False

    def operation(self, size: Size) -> tuple[dict[str, Any], Size, tuple[str, ...], bool]:
        width = self.width()
        fields: dict[str, Any] = {"block": "conv2d", "width": width, "kernel_size": self.pick((1, 3))}
        if self.chance(0.4):
            fields["bias"] = False
        if fields["kernel_size"] == 3 and self.chance(0.4):
            fields["dilation"] = 2
        self.note("operation")
        return fields, (width, *size[1:]), SLOTS[:2], True

    def alias(self, size: Size) -> tuple[dict[str, Any], Size, tuple[str, ...], bool]:
        """An entry of `blocks` that is a kind with fields set."""
        fields, out, slots, free = self.pick((self.conv, self.residual, self.dense))(size)
        name = self.fresh("alias")
        # What templates of an entry know is what the section knows, so any field may move there.
        moved = self.some([key for key in fields if key != "block"], 0)
        self.blocks[name] = {"block": fields["block"], **{key: fields[key] for key in moved}}
        self.note("alias")
        return {"block": name, **{key: fields[key] for key in fields if key not in (*moved, "block")}}, out, slots, free

    def written(self, size: Size) -> tuple[dict[str, Any], Size, tuple[str, ...], bool]:
        """An entry of `blocks` with nodes and edges: two or three branches that are merged."""
        width, name = self.width(), self.fresh("cell")
        nodes: dict[str, Any] = {}
        chains, edges = [], []
        for branch in "abc"[: self.rng.randint(1, 3)]:
            nodes[branch] = {"block": "conv", "width": "$width", "kernel_size": self.pick((1, 3))}
            if self.chance(0.3):
                nodes[branch] |= {"depth": 2}
            if self.chance(0.3):
                nodes[f"{branch}2"] = self.pick(("relu", "batch_norm", {"block": "basic", "width": "$width"}))
                chains.append(f"input -> {branch} -> {branch}2 -> out")
            else:
                chains.append(f"input -> {branch} -> out")
        merge = self.pick(("add", "mean", "concat", "multiply"))
        nodes["out"] = {"block": "identity", "merge": merge}
        channels = width * (len(chains) if merge == "concat" else 1)
        if self.chance(0.4):
            edges.append({"from": "input", "to": "out", "projection": {"norm": self.norm(size)}})
            if merge == "concat":
                channels += size[0]
        if self.chance(0.3):
            nodes["a"]["groups"] = "$(2 if in_width % 2 == 0 and width % 2 == 0 else 1)"
            if "depth" in nodes["a"]:
                del nodes["a"]["depth"]
        entry: dict[str, Any] = {"params": {"width": None}, "nodes": nodes, "flow": chains}
        if self.chance(0.3):
            entry["params"] = {"width": width}
        if edges:
            entry["edges"] = edges
        self.blocks[name] = entry
        self.note("written block", f"written: {merge}")
        fields: dict[str, Any] = {"block": name}
        if entry["params"]["width"] is None or self.chance(0.2):
            fields["width"] = self.number(width)
        return fields, (channels, *size[1:]), SLOTS[:2], False

    # ---- nodes

    def block(self, size: Size) -> tuple[dict[str, Any], Size, tuple[str, ...], bool]:
        makers: tuple[Callable[[Size], Any], ...] = (
            *(self.conv, self.conv, self.residual, self.residual, self.residual, self.separable, self.mobile),
            *(self.dense, self.small, self.small, self.resolution, self.resolution, self.operation, self.alias),
            *(self.written, self.written),
        )
        made: tuple[dict[str, Any], Size, tuple[str, ...], bool] = self.pick(makers)(size)
        return made

    def node(self, size: Size) -> str:
        """A node for a value of this size; its name."""
        if self.chance(0.4):
            return self.stage(size)
        name = self.fresh("n")
        fields, out, slots, free = self.block(size)
        self.nodes[name] = fields if len(fields) > 1 or self.chance(0.5) else fields["block"]
        if fields["block"] == "conv" and self.chance(0.3):
            self.patches[f"{name}.conv"] = {"bias": True}
            self.note("patch of a part")
        self.places.append(Place(name, name, out, size, slots, free))
        self.note(fields["block"].rstrip("0123456789"))
        return name

    def stage(self, size: Size) -> str:
        name, depth = self.fresh("stage"), self.rng.randint(1, 3)
        fields, out, slots, free = self.pick((self.residual, self.residual, self.conv, self.mobile, self.dense))(size)
        if self.chance(0.3):
            fields, out, slots, free = self.residual(size, width=size[0])
        # The fields must suit the blocks after the first too, whose input is the stage's own output.
        if fields.get("groups", 1) > 1 and out[0] % fields["groups"]:
            fields["groups"] = 1
        if isinstance(fields.get("shortcut"), dict) and fields["shortcut"].get("channels") == "pad":
            self.note("option a")
        self.nodes[name] = {**fields, "depth": self.pick((depth, f"$(depth + {depth - 1})"))}
        members = []
        inner = size
        for i in range(depth):
            value = (size[0] + (i + 1) * (out[0] - size[0]), *out[1:]) if fields["block"] == "dense_layer" else out
            members.append(Place(f"{name}.block{i + 1}", f"{name}.block{i + 1}", value, inner, slots, free, name))
            inner = value
        tie = False
        if fields["block"] in (*RESIDUAL, "conv") and size[0] == out[0] and self.chance(0.5):
            self.nodes[name]["weights"] = "shared"
            tie = True
            self.note("tied stage")
            if self.chance(0.5):
                self.nodes[name]["per_step"] = self.pick(("none", "norm"))
                self.note("per_step")
        elif self.chance(0.2):
            self.nodes[name]["weights"] = self.fresh("weights")
            self.note("named weights")
        if not tie and fields["block"] in RESIDUAL and fields.get("groups", 1) == 1:
            if self.chance(0.3):
                self.nodes[name]["hidden"] = f"$({self.width()} + i)"
                self.note("template with i")
            if self.chance(0.3):
                self.patches[f"{name}.block{self.rng.randint(1, depth)}"] = {"hidden": self.width()}
                self.note("patch of a block")
            if self.chance(0.2):
                self.patches[f"{name}.*"] = {"activation": self.pick(ACTIVATIONS[:4])}
                self.note("patch by a pattern")
        if tie:
            for member in members:
                member.free = False
        self.places += members[:-1]
        last = members[-1]
        self.places.append(Place(name, last.call, last.size, size, slots, members[0].free, name))
        self.note("stage", fields["block"].rstrip("0123456789"))
        return name

    def twins(self, size: Size) -> list[str]:
        """Two nodes with one name of weights, called with different strides."""
        names, weights = [self.fresh("twin"), self.fresh("twin")], self.fresh("weights")
        for name, stride in zip(names, (1, self.stride(size)), strict=True):
            self.nodes[name] = {"block": "conv2d", "width": size[0], "stride": stride, "weights": weights}
            out = halved(size, size[0], stride)
            self.places.append(Place(name, name, out, size))
            size = out
        self.note("named weights", "one weight, two strides")
        return names

    # ---- connections

    def spatial(self, pairs: Sequence[tuple[Size, Size]]) -> str | None:
        """A way to change height and width that serves all pairs; None if there is none."""
        changes = [(a, b) for a, b in pairs if a[1:] != b[1:]]
        if all(a[1] >= b[1] and a[2] >= b[2] for a, b in changes):
            ways = ["adaptive"]
            if all(poolable(a, b) for a, b in changes):
                ways += ["avg", "avg", "max"]
            if all(stridable(a, b) for a, b in changes):
                ways.append("stride")
            return str(self.pick(ways))
        if all(a[1] <= b[1] and a[2] <= b[2] for a, b in changes):
            ways = ["nearest", "bilinear"]
            if all(b[1] % a[1] == 0 and b[2] % a[2] == 0 for a, b in changes):
                ways.append("deconv")
            self.note("upwards")
            return str(self.pick(ways))
        return None

    def projection(self, pairs: Sequence[tuple[Size, Size]]) -> dict[str, Any] | None:
        spatial = self.spatial(pairs)
        if spatial is None:
            return None
        ways = ["conv1x1", "conv1x1"]
        if all(a[0] <= b[0] for a, b in pairs):
            ways.append("pad")
        if all(a[0] >= b[0] for a, b in pairs):
            ways.append("slice")
        if all(a[0] == b[0] for a, b in pairs):
            ways.append("none")
        projection = {
            "spatial": spatial,
            "channels": self.pick(ways),
            "norm": self.norm(*(size for pair in pairs for size in pair)),
        }
        if self.chance(0.2):
            projection["when"] = "always"
            self.note("when: always")
        self.note(f"spatial: {spatial}", f"channels: {projection['channels']}")
        return projection

    def merge(self, targets: Sequence[tuple[str, str]]) -> Any:
        """A merge that these slots (of calls) can have; the one that they have already, if any."""
        have = [self.merges[target] for target in targets if target in self.merges]
        if have and (have[0] == "concat" or any(other != have[0] for other in have)):
            return None
        # Products of many values leave the range of float32.
        merges = ("add", "add", "mean", "weighted", "gated", "multiply")[: 6 if len(targets) == 1 else 5]
        merge = have[0] if have else self.pick(merges)
        for target in targets:
            self.merges[target] = merge
        self.note(f"merge: {merge}")
        return merge

    def expression(self, levels: Sequence[Place]) -> Any:
        """A random edge set over levels; one that selects no edge is `none`."""
        names = [level.name for level in levels]

        def atom(depth: int) -> str:
            if depth < 2 and self.chance(0.25):
                self.note("brackets in a set")
                return f"({form(depth + 1)})"
            if self.chance(0.3):
                i, j = sorted(self.rng.sample(range(len(names)), 2))
                return f"{names[i]}>{names[j]}"
            return str(self.pick(("none", "full", "in", "out", f"p{self.rng.randint(1, len(names) - 1)}")))

        def form(depth: int) -> str:
            text = atom(depth)
            for _ in range(self.pick((0, 0, 1, 1, 2))):
                sign = self.pick("+-&")
                self.note(f"set {sign}")
                text += f" {sign} {atom(depth)}"
            return text

        text: str | list[str] = self.pick(("full", "full - p1", form(0), form(0), form(0)))
        if self.chance(0.2):
            self.note("list of sets")
            text = [form(0) for _ in range(self.rng.randint(1, 3))]
        chosen = EdgeSet.parse(text).select(names, lambda source, target: [(source, target)])
        return text if chosen else "none"

    def skips(self) -> dict[str, Any] | None:
        """One group of skips."""
        levels = [place for place in self.places if self.chance(0.8)]
        calls: set[str] = set()
        levels = [level for level in levels if not (level.call in calls or calls.add(level.call))]  # type: ignore[func-returns-value]
        if len(levels) < 2:
            return None
        slot = self.pick(("output", "output", "input", "residual"))
        levels = [levels[0], *(level for level in levels[1:] if slot in level.slots)]
        if slot == "input":
            # As a target a stage is its first block then, so its other blocks cannot be levels beside it.
            stages = {level.name for level in levels if level.stage}
            levels = [level for level in levels if level.stage or level.owner not in stages]
        group: dict[str, Any] = {}
        concat = slot == "input" and self.chance(0.5)
        if concat:
            levels = [levels[0], *(level for level in levels[1:] if level.free)]
        if len(levels) < 2:
            return None
        # A target's first block is where the slot `input` is, its last one where the others are.
        targets = [(level.entry(slot), slot) for level in levels[1:]]
        if concat:
            if any(target in self.merges for target in targets):
                return None
            self.merges |= dict.fromkeys(targets, "concat")
            group["merge"] = "concat"
            self.note("merge: concat")
        elif (merge := self.merge(targets)) is None:
            return None
        elif merge != "add" or self.chance(0.2):
            group["merge"] = merge
        pairs = []
        for i, level in enumerate(levels):
            for target in levels[i + 1 :]:
                want = target.inner if slot == "input" else target.size
                pairs.append((level.size, (level.size[0], *want[1:]) if concat else want))
        projection = self.projection(pairs)
        if projection is None:
            return None
        if slot != ("input" if concat else "output") or self.chance(0.2):
            group["slot"] = slot
        self.named |= {(a.name, b.label(slot)) for i, a in enumerate(levels) for b in levels[i + 1 :]}
        self.note(f"skips: {slot}")
        return {
            "levels": [level.name for level in levels],
            "edges": self.expression(levels),
            **group,
            "projection": projection,
        }

    def edge(self) -> None:
        """One entry of `edges`."""
        start, stop = sorted(self.rng.sample(range(len(self.places)), 2))
        source, target = self.places[start], self.places[stop]
        if source.call == target.call:
            return
        slot = self.pick([s for s in ("output", "residual", "input") if s in target.slots])
        call = target.entry(slot)
        if call == source.call or (target.stage and source.owner == target.owner and slot == "input"):
            return
        merge = self.merge([(call, slot)])
        if merge is None:
            return
        want = target.inner if slot == "input" else target.size
        entry: dict[str, Any] = {"from": source.name, "to": target.name}
        if slot != "input" or self.chance(0.3):
            entry["slot"] = slot
        if merge != "add" or self.chance(0.2):
            entry["merge"] = merge
        size = source.size
        if self.chance(0.3):
            fields, size, _, _ = self.pick((self.conv, self.operation, self.alias))(size)
            entry |= fields
            self.note("block on an edge")
        if size != want or self.chance(0.3):
            projection = self.projection([(size, want)])
            if projection is None:
                return
            entry["projection"] = projection
        if self.chance(0.25) and "scale" not in entry:
            entry["scale"] = self.scale()
            self.note("scale")
        if self.chance(0.25):
            entry["gate"] = self.gate(source, want, one_channel=merge == "multiply")
            if isinstance(entry.get("scale"), dict) and entry["scale"].get("gate"):
                # The value of a gate that is a node has no initial value.
                entry["scale"] = "gate"
        if self.chance(0.3):
            entry["name"] = self.fresh("e")
            self.note("named edge")
        elif (ends := (source.name, target.label(slot))) in self.named:
            entry["name"] = self.fresh("e")
        else:
            self.named.add(ends)
        self.edges.append(entry)
        self.note("edge", f"edge: {slot}")

    def scale(self) -> Any:
        """A factor of an edge."""
        init = round(self.rng.uniform(-1, 1), 2)
        return self.pick(("none", "learned", "gate", init, {"init": init}, {"gate": True, "init": init}))

    def gate(self, source: Place, want: Size, one_channel: bool) -> str:
        """A node that gives a factor for each channel of a value, or one for all."""
        pool, gate = self.fresh("pool"), self.fresh("gate")
        self.nodes[pool] = {"block": "adaptive_avg_pool"}
        width = 1 if one_channel else self.pick((1, want[0]))
        self.nodes[gate] = {"block": "conv", "width": width, "kernel_size": 1, "norm": "none", "activation": "sigmoid"}
        self.chains.append(f"{source.name} -> {pool} -> {gate}")
        self.note("gate")
        return gate

    # ---- the whole

    def sample(self) -> Sample:
        self.params = {"width": self.width(), "block": self.pick(RESIDUAL), "depth": 1}
        size: Size = (self.rng.randint(1, 3), self.rng.randint(4, 12), self.rng.randint(4, 12))
        shape = {"channels": size[0], "height": size[1], "width": size[2]}
        inputs: dict[str, Any] = shape
        start = "input"
        if self.chance(0.25):
            start = "left"
            inputs = {"left": shape, "right": {"channels": 5}}
            self.note("two inputs")
        elif self.chance(0.3):
            self.places.append(Place("input", "input", size, size, ()))
            self.note("input as a level")
        trunk = [start]
        for _ in range(self.rng.randint(2, 5)):
            names = self.twins(size) if self.chance(0.1) else [self.node(size)]
            trunk += names
            size = self.places[-1].size
        heads = ["head"]
        if self.chance(0.7):
            self.nodes["head"] = {"block": "classifier", "classes": 3}
        else:
            self.nodes["flat"] = "flatten"
            self.nodes["head"] = {"block": "linear", "width": 3}
            trunk.append("flat")
        self.chains.insert(
            0,
            " -> ".join(
                [*(trunk if start != "input" or self.leaves_input() or self.chance(0.5) else trunk[1:]), "head"]
            ),
        )
        if start == "left":
            self.nodes["side"] = {"block": "linear", "width": 4}
            self.nodes["more"] = {"block": "linear", "width": 3}
            self.chains.append("right -> side -> more")
            if self.chance(0.5):
                self.edges.append({"from": "side", "to": "head", "block": "linear", "width": 3, "slot": "output"})
            heads.append("more")
        if self.chance(0.25):
            self.nodes["aux"] = {"block": "classifier", "classes": 2}
            self.chains.append(f"{self.pick(self.places).name} -> aux")
            heads.append("aux")
        groups = self.groups()
        for _ in range(self.pick((0, 0, 1, 2, 3))):
            if len(self.places) > 1:
                self.edge()
        return self.finished(inputs, heads, groups)

    def leaves_input(self) -> bool:
        return any(place.name == "input" for place in self.places)

    def groups(self) -> dict[str, Any]:
        groups: dict[str, Any] = {}
        for _ in range(self.pick((0, 1, 1, 1, 2))):
            if len(self.places) > 1 and (group := self.skips()) is not None:
                groups[self.fresh("group")] = group
        return groups

    def finished(self, inputs: dict[str, Any], heads: list[str], groups: dict[str, Any]) -> Sample:
        spec: dict[str, Any] = {"name": self.fresh("net"), "params": self.params, "input": inputs}
        if self.blocks:
            spec["blocks"] = self.blocks
        spec["nodes"] = {**self.nodes, **self.patches}
        # A chain from the input that is not written starts where the first one does; otherwise, all are equal.
        spec["flow"] = self.chains[0] if len(self.chains) == 1 and self.chance(0.7) else self.chains
        variants: dict[str, Any] = {}
        if len(groups) == 1 and self.chance(0.8):
            (spec["skips"],) = groups.values()
            self.note("skips")
            variants = {"bare": {"edges": "none"}, "all": {"edges": "full"}}
        elif groups:
            spec["skips"] = groups
            self.note("groups of skips")
            variants = {"bare": {"skips": {name: {"edges": "none"} for name in groups}}}
        if self.edges:
            spec["edges"] = self.edges
        if len(heads) > 1:
            spec["outputs"] = heads
            self.note("several outputs")
        elif any("gate" in entry for entry in self.edges) or self.chance(0.1):
            spec["outputs"] = "head"
        if self.chance(0.6):
            variants["described"] = {"description": "the same network"}
            spec["variants"] = variants
            self.note("variants")
        return Sample(spec, self.features)


SLOTS = ("input", "output", "residual")


def make(seed: int | str) -> Sample:
    """The spec of a seed."""
    return Maker(random.Random(seed)).sample()


samples = st.integers(0, 2**32).map(make)
"""Random valid specs. Not from hypothesis's own random numbers, which repeat so much that much becomes rare."""
