"""The networks that a study compares, each as a label and a change of its edges."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.errors import UsageError, did_you_mean
from hiresnet_graph.sweep.subsets import RULES, subsets

_SET = re.compile(r"none|full|in|out|p\d+")


class Variant(NamedTuple):
    """A network of a study.

    Attributes:
        label: What tables call it.
        edges: Its edge set, as an expression; None for the variant of the spec that is called `label`.
        group: The group of skips that `edges` is about, if the spec names its groups.
    """

    label: str
    edges: str | None = None
    group: str | None = None

    def of(self, arch: Architecture) -> Architecture:
        """The network that it is."""
        return arch.variant(self.label) if self.edges is None else arch.with_edges(self.edges, self.group)


def choose_variants(arch: Architecture, names: Iterable[str], group: str | None = None) -> list[Variant]:
    """Variants by name: those of the spec, and any edge-set expression, in the order given.

    Raises:
        UsageError: None is given, one twice, or a word that is neither a variant nor an edge set.
    """
    labels = [name.strip() for name in names]
    for label in labels:
        if not label or labels.count(label) > 1:
            raise UsageError(f"variants: {f'{label!r} is there twice' if label else 'one is empty'}. Leave it out.")
    if not labels:
        raise UsageError("variants: none is given. Name some, like 'none,full'.")
    for label in labels:
        if label not in arch.variants and re.fullmatch(r"[A-Za-z]\w*", label) and not _SET.fullmatch(label):
            known = [*arch.variants, "none", "full", "in", "out"]
            raise UsageError(f"variants: '{label}' is no variant and no edge set. {did_you_mean(label, known)}")
    return [Variant(label) if label in arch.variants else Variant(label, label, group) for label in labels]


def enumerate_variants(arch: Architecture, rule: str, group: str | None = None) -> list[Variant]:
    """The variants that a rule means.

    Args:
        arch: Its own skips are the edges of which the subset rules take some.
        rule: One of `RULES`; or `family` for the sets with a name: none, full, in, out, p1, p2, ...
        group: The group of skips that is meant, if the spec names its groups.

    Raises:
        SpecError: The spec is wrong, or has no levels for the rule `family`.
        UsageError: There is no such rule, there are no skips, the group is not said, or there are too many variants.
    """
    if rule == "family":
        levels = len({level for pair in _skips(arch.with_edges("full", group), group) for level in pair})
        names = ["none", "full", "in", "out", *(f"p{distance}" for distance in range(1, levels))]
        return [Variant(name, name, group) for name in names]
    if rule.split(":")[0] not in {name.split(":")[0] for name in RULES}:
        raise UsageError(f"there is no subset rule '{rule}'. {did_you_mean(rule, [*RULES, 'family'])}")
    edges = [f"{source}>{target}" for source, target in _skips(arch, group)]
    return [_subset(subset, edges, rule, group) for subset in subsets(edges, rule)]


def _subset(subset: tuple[str, ...], edges: list[str], rule: str, group: str | None) -> Variant:
    expression = " + ".join(subset) or "none"
    if len(subset) == len(edges):
        return Variant("all", expression, group)
    if rule == "leave-one-out":
        missing = next(edge for edge in edges if edge not in subset)
        return Variant(f"without {missing}", expression, group)
    return Variant(expression, expression, group)


def _skips(arch: Architecture, group: str | None) -> list[tuple[str, str]]:
    """Source and target of each skip of the group, by the names that edge sets use."""
    found: list[tuple[str, str]] = []
    groups = set()
    for edge in arch.plan.edges:
        if edge.family == "skip":
            # `edges.<from>__<to>`, or `edges.<group>.<from>__<to>`
            own = edge.name.split(".")[1] if edge.name.count(".") == 2 else None
            groups.add(own)
            if own == group:
                found.append(edge.ends)
    if not found:
        named = sorted(name for name in groups if name is not None)
        if group is not None:
            raise UsageError(f"'{arch.name}' has no skips in a group '{group}'. {did_you_mean(group, named)}".strip())
        if named:
            raise UsageError(f"the skips of '{arch.name}' are in groups. Say which one: {', '.join(named)}.")
        raise UsageError(f"'{arch.name}' has no skips to take subsets of. Start from more, like 'skips.edges=full'.")
    return found
