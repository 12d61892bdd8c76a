"""The networks that a study compares, each as a label and a change of the network that the study is about."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.errors import ExpressionError, Source, SpecError, UsageError, did_you_mean
from hiresnet_graph.spec.edge_set import EdgeSet
from hiresnet_graph.spec.source import format_path
from hiresnet_graph.sweep.subsets import RULES, subsets

Place = tuple[str | int, ...]
SourceOf = Callable[[Place, str, str], Source]
TRANSITIONS = "transitions"
"""The group that edge sets over a matrix of transitions are about."""
_FAMILY = {
    "all": ("all", 1),
    "no feedback": ("all - feedback", 2),
    "no lateral": ("all - lateral", 1),
    "no bypass": ("all - bypass", 3),
    "adjacent": ("adjacent", 3),
}
"""The rule `family` over transitions: label -> edge set, and how many levels it needs to mean something of its own."""


def named_source(place: Place, key: str, text: str) -> Source:
    """The source that messages name for a value of a study without a file.

    Args:
        place: Where in the study it stands.
        key: What it is given to, if that can be wrong as well.
    """
    return Source(format_path(place), f"{key}={text}" if key else text)


@dataclass(frozen=True)
class Variant:
    """A network of a study.

    Attributes:
        label: What tables call it.
        edges: Its edge set, as an expression or several; None for the edges that it has anyway.
        group: The group of skips that `edges` is about, if the spec names its groups; or `transitions`.
        variant: The variant of the spec that it starts from.
        changes: Params and fields that are changed, as on the command line.
        place: Where in the study it stands.
    """

    label: str
    edges: str | Sequence[str] | None = None
    group: str | None = None
    variant: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    place: Place = field(default=(), compare=False)

    def of(self, arch: Architecture, source_of: SourceOf = named_source) -> Architecture:
        """The network that it is.

        Args:
            source_of: Gives the source that messages name for what stands at a place of the study.

        Raises:
            SpecError: The spec has no such variant.
        """
        network = arch.variant(self.variant) if self.variant is not None else arch
        for key, value in self.changes.items():
            network = network.override({key: value}, source_of((*self.place, key), key, str(value)))
        if self.edges is None:
            return network
        text = self.edges if isinstance(self.edges, str) else " + ".join(self.edges)
        group = TRANSITIONS if self.group == TRANSITIONS else f"skips.{self.group}" if self.group else "skips"
        key = f"{group}.edges"
        return network.override({key: self.edges}, source_of((*self.place, "edges"), "", text))


def choose_variants(
    arch: Architecture, names: Iterable[str] | Mapping[str, Any], group: str | None = None
) -> list[Variant]:
    """Variants by name: those of the spec, and any edge-set expression, in the order given; or label -> changes.

    Raises:
        UsageError: None is given, one twice, a word that is neither a variant nor an edge set, or no change at all.
    """
    found: dict[str, Variant] = {}
    for place, label, value in entries_of(names):
        try:
            if label in found:
                raise UsageError(f"'{label}' is there twice. Leave it out.")
            found[label] = variant_of(arch, label, value, group, place)
        except UsageError as error:
            raise UsageError(f"variants: {error}") from None
    if not found:
        raise UsageError("variants: none is given. Name some, like 'none,full'.")
    return list(found.values())


def entries_of(names: Iterable[str] | Mapping[str, Any]) -> list[tuple[Place, str, Any]]:
    """Place, label and value of each entry of a list or a mapping of variants."""
    if isinstance(names, Mapping):
        return [(("variants", label), label.strip(), value) for label, value in names.items()]
    return [(("variants", i), name.strip(), name.strip()) for i, name in enumerate(names)]


def variant_of(arch: Architecture, label: str, value: Any, group: str | None = None, place: Place = ()) -> Variant:
    """The variant that an entry says: the name of one, an edge set, or a mapping of changes.

    Raises:
        UsageError: It says none of these, or names no variant of the spec.
    """
    if not label:
        raise UsageError("one is empty. Leave it out.")
    if isinstance(value, str):
        if value in arch.variants:
            return Variant(label, variant=value, place=place)
        if re.fullmatch(r"[A-Za-z]\w*", value) and not _is_set(value):
            sets = ("all", "adjacent", "forward") if group == TRANSITIONS else ("none", "full", "in", "out")
            known = [*arch.variants, *sets]
            raise UsageError(f"'{value}' is no variant and no edge set. {did_you_mean(value, known)}")
        return Variant(label, value, group, place=place)
    if not isinstance(value, Mapping):
        raise UsageError(
            f"'{label}' wants an edge set, the name of a variant, or changes like {{edges: full, width: 8}}."
        )
    changes = {key: item for key, item in value.items() if key not in ("edges", "variant")}
    edges, variant = value.get("edges"), value.get("variant")
    is_list = isinstance(edges, list | tuple) and all(isinstance(item, str) for item in edges)
    if edges is not None and not isinstance(edges, str) and not is_list:
        raise UsageError(f"the edges of '{label}' want an edge set like 'full - p2', or a list of them.")
    if variant is not None and variant not in arch.variants:
        raise UsageError(
            f"'{arch.name}' has no variant '{variant}'. {did_you_mean(str(variant), arch.variants)}".strip()
        )
    return Variant(label, edges, group if edges is not None else None, variant, changes, place)


def _is_set(word: str) -> bool:
    try:
        EdgeSet.parse(word)
    except ExpressionError:
        return False
    return True


def enumerate_variants(arch: Architecture, rule: str, group: str | None = None) -> list[Variant]:
    """The variants that a rule means.

    Subsets of transitions need not make a network: see `possible`.

    Args:
        arch: Its own edges are those of which the subset rules take some.
        rule: One of `RULES`; or `family` for the sets with a name: none, full, in, out, p1, p2, ...; of transitions
            all, no feedback, no lateral, no bypass, adjacent.
        group: The group of skips that is meant, if the spec names its groups; or `transitions`.

    Raises:
        SpecError: The spec is wrong, or has no levels for the rule `family`.
        UsageError: There is no such rule, there are no edges, the group is not said, or there are too many variants.
    """
    if rule == "family":
        return _families(arch, group)
    if rule.split(":")[0] not in {name.split(":")[0] for name in RULES}:
        raise UsageError(f"there is no subset rule '{rule}'. {did_you_mean(rule, [*RULES, 'family'])}")
    edges = edges_of(arch, group)
    return [_subset(subset, edges, rule, group) for subset in subsets(edges, rule)]


def _families(arch: Architecture, group: str | None) -> list[Variant]:
    """The sets with a name."""
    levels = len({level for edge in candidates(arch, group) for level in edge.split(">")})
    if group == TRANSITIONS:
        sets = {label: text for label, (text, least) in _FAMILY.items() if levels >= least}
    else:
        sets = {name: name for name in ("none", "full", "in", "out", *(f"p{k}" for k in range(1, levels)))}
    return [Variant(label, text, group) for label, text in sets.items()]


def possible(
    arch: Architecture, variants: Iterable[Variant]
) -> tuple[list[tuple[Variant, Architecture]], dict[str, str]]:
    """The variants of a rule that are networks, with these; and why the others are none, by their labels.

    A rule takes transitions away blindly: without some of them nothing reaches the output.
    """
    found, reasons = [], dict[str, str]()
    for variant in variants:
        network = variant.of(arch)
        try:
            _ = network.plan
        except SpecError as error:
            reasons[variant.label] = error.problems[0].message
        else:
            found.append((variant, network))
    return found, reasons


def _subset(subset: tuple[str, ...], edges: list[str], rule: str, group: str | None) -> Variant:
    expression = " + ".join(subset) or "none"
    if len(subset) == len(edges):
        return Variant("all", expression, group)
    if rule == "leave-one-out":
        missing = next(edge for edge in edges if edge not in subset)
        return Variant(f"without {missing}", expression, group)
    return Variant(expression, expression, group)


def candidates(arch: Architecture, group: str | None = None) -> list[str]:
    """All edges that could be between the levels of a group of skips; or all transitions that are written.

    Raises:
        SpecError: The group has no levels.
        UsageError: As of `edges_of`.
    """
    return edges_of(arch.with_edges("all" if group == TRANSITIONS else "full", group), group)


def edges_of(arch: Architecture, group: str | None = None) -> list[str]:
    """The skips of a group, or the transitions, as edge sets write them (`stem>stage2`).

    Raises:
        UsageError: There are none, or the group is not said.
    """
    found = chosen_edges(arch, group)
    if found:
        return found
    groups = sorted({name for name, _ in _skips(arch) if name is not None})
    has_transitions = bool(_transitions(arch))
    if group is not None:
        known = [*groups, TRANSITIONS] if has_transitions else groups
        noun = "transitions" if group == TRANSITIONS else f"skips in a group '{group}'"
        raise UsageError(f"'{arch.name}' has no {noun}. {did_you_mean(group, known)}".strip())
    if groups:
        raise UsageError(f"the skips of '{arch.name}' are in groups. Say which one: {', '.join(groups)}.")
    hint = f"Its transitions are the group '{TRANSITIONS}'." if has_transitions else ""
    hint = hint or "Start from more, like 'skips.edges=full'."
    raise UsageError(f"'{arch.name}' has no skips to take subsets of. {hint}")


def chosen_edges(arch: Architecture, group: str | None = None) -> list[str]:
    """The edges of a network that edge sets over a group are about, none left out; there may be none.

    Args:
        group: Of skips, `transitions`, or None for the skips of a spec that does not name its groups.
    """
    return _transitions(arch) if group == TRANSITIONS else [edge for own, edge in _skips(arch) if own == group]


def _skips(arch: Architecture) -> list[tuple[str | None, str]]:
    """Each skip with its group: `edges.<from>__<to>`, or `edges.<group>.<from>__<to>`."""
    return [
        (edge.name.split(".")[1] if edge.name.count(".") == 2 else None, ">".join(edge.ends))
        for edge in arch.plan.edges
        if edge.family == "skip"
    ]


def _transitions(arch: Architecture) -> list[str]:
    """The transitions that are chosen, those that come too late for the readout among them."""
    edges = arch.graph.edges
    return list(dict.fromkeys(">".join(edge.ends) for edge in edges if edge.origin.path.startswith("transitions.")))
