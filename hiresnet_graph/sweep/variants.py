"""The networks that a study compares, each as a label and a change of the network of the study."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.errors import ExpressionError, Source, SpecError, UsageError, did_you_mean
from hiresnet_graph.graph import BlockEdge, EdgeRecord
from hiresnet_graph.spec.edge_set import PLUS, EdgeSet, write_edges
from hiresnet_graph.spec.marked import MarkedDict, format_path, key_position_at, position_at
from hiresnet_graph.sweep.subsets import RULE_FORMS, RULES, subsets

StudyPath = tuple[str | int, ...]
TRANSITIONS = "transitions"
"""The group that edge sets over a matrix of transitions refer to."""
NO_CHANGES = ("edges", "variant", "weights", "reinit")
"""Keys of a variant that are no changes of params or fields."""
_FAMILY = {
    "all": ("all", 1),
    "no feedback": ("all - feedback", 2),
    "no lateral": ("all - lateral", 1),
    "no bypass": ("all - bypass", 3),
    "adjacent": ("adjacent", 3),
}
"""The rule `family` over transitions: label -> edge set, and the number of levels from which it differs from others."""


def override(
    arch: Architecture, key: str, value: Any, tree: MarkedDict, path: StudyPath, key_path: StudyPath = ()
) -> Architecture:
    """The network with a change that is written in a study, so that messages point there.

    Args:
        tree: The file of the study; if it has no positions, messages name the path.
        path: Path of the value in the study.
        key_path: Path of the key, if the key is written there.
    """
    position = position_at(tree, path)
    if position is None:
        text = f"{key}={value}" if key_path else PLUS.join(value) if isinstance(value, list) else str(value)
        return arch.override({key: value}, Source(format_path(path), text))
    key_position = (key_position_at(tree, key_path) if key_path else None) or position
    return arch.override(MarkedDict({key: value}, position, {key: key_position}, {key: position}))


@dataclass(frozen=True)
class Variant:
    """A network of a study.

    Attributes:
        label: Name in tables.
        edges: Its edge set, as an expression or several; None leaves the edges as they are.
        group: The group of skips that `edges` refers to, if the spec names its groups; or `transitions`.
        variant: The variant of the spec that it starts from.
        changes: Changed params and fields, as on the command line.
        weights: Its own `weights` and `reinit`, which replace those of the study.
        path: Its path in the study.
    """

    label: str
    edges: str | Sequence[str] | None = None
    group: str | None = None
    variant: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Any] = field(default_factory=dict)
    path: StudyPath = field(default=(), compare=False)

    def apply(self, arch: Architecture, tree: MarkedDict | None = None) -> Architecture:
        """The network of the variant.

        Args:
            tree: The file of the study, for the positions of messages.

        Raises:
            SpecError: The spec has no such variant.
        """
        tree = tree if tree is not None else MarkedDict()
        network = arch.variant(self.variant) if self.variant is not None else arch
        for key, value in self.changes.items():
            network = override(network, key, value, tree, (*self.path, key), (*self.path, key))
        if self.edges is None:
            return network
        edges = self.edges if isinstance(self.edges, str | list) else list(self.edges)
        return override(network, edge_set_key(self.group), edges, tree, (*self.path, "edges"))


def edge_set_key(group: str | None) -> str:
    """The field that holds the edge set of a group, as a change names it."""
    return f"{TRANSITIONS if group == TRANSITIONS else f'skips.{group}' if group else 'skips'}.edges"


def entries_of(names: Iterable[str] | Mapping[str, Any]) -> list[tuple[StudyPath, str, Any]]:
    """Path, label and value of each entry of a list or a mapping of variants."""
    if isinstance(names, Mapping):
        return [(("variants", label), label.strip(), value) for label, value in names.items()]
    return [(("variants", i), name.strip(), name.strip()) for i, name in enumerate(names)]


def variant_of(arch: Architecture, label: str, value: Any, group: str | None = None, path: StudyPath = ()) -> Variant:
    """The variant of an entry: the name of a variant of the spec, an edge set, the name of the network (as it is), or a
    mapping of changes.

    Raises:
        UsageError: The entry is none of these, or the spec has no such variant.
    """
    if not label:
        raise UsageError("an entry is empty. Leave it out.")
    if isinstance(value, str):
        if value in arch.variants:
            return Variant(label, variant=value, path=path)
        if is_as_it_is(arch, value):
            return Variant(label, path=path)
        if re.fullmatch(r"[A-Za-z]\w*", value) and not _is_set(value):
            sets = ("all", "adjacent", "forward") if group == TRANSITIONS else ("none", "full", "in", "out")
            hint = did_you_mean(value, [*arch.variants, *sets, name_of(arch)])
            if hint.startswith("Did") and arch.variants:
                hint += f" Variants of '{arch.name}': {', '.join(arch.variants)}."
            raise UsageError(f"'{value}' is neither a variant nor an edge set. {hint}")
        words = re.split(r"[;\s]+", value)
        if len(words) > 1 and all(map(str.isidentifier, words)) and {*words} & {*arch.variants}:
            raise UsageError(f"'{value}' is no edge set. Variants are separated by commas: '{','.join(words)}'.")
        return Variant(label, value, group, path=path)
    if not isinstance(value, Mapping):
        raise UsageError(
            f"'{label}' must be an edge set, the name of a variant, or changes like {{edges: full, width: 8}}."
        )
    if "changes" in value and "changes" not in (arch.tree.get("params") or {}):
        raise UsageError(f"'{label}': changes stand beside 'edges', without 'changes': {{edges: full, width: 8}}.")
    changes = {key: item for key, item in value.items() if key not in NO_CHANGES}
    weights = {key: value[key] for key in ("weights", "reinit") if key in value}
    edges, variant = value.get("edges"), value.get("variant")
    is_list = isinstance(edges, list | tuple) and all(isinstance(item, str) for item in edges)
    if edges is not None and not isinstance(edges, str) and not is_list:
        raise UsageError(f"the edges of '{label}' must be an edge set like 'full - p2', or a list of edge sets.")
    if variant is not None and variant not in arch.variants:
        raise UsageError(
            f"'{arch.name}' has no variant '{variant}'. {did_you_mean(str(variant), arch.variants)}".strip()
        )
    return Variant(label, edges, group if edges is not None else None, variant, changes, weights, path)


def name_of(arch: Architecture) -> str:
    """What a study calls the network as it is: its variant or its name."""
    return arch.chosen or arch.name


def is_as_it_is(arch: Architecture, entry: str) -> bool:
    """Whether an entry of a study is the name of the network, which stands for the network as it is."""
    return entry == name_of(arch) and not _is_set(entry)


def _is_set(word: str) -> bool:
    try:
        EdgeSet.parse(word)
    except ExpressionError:
        return False
    return True


def enumerate_variants(arch: Architecture, rule: str, group: str | None = None) -> list[Variant]:
    """The variants of a rule.

    Subsets need not be valid networks: see `valid_variants`.

    Args:
        arch: The network whose edges the subset rules choose from.
        rule: One of `RULES`; or `family` for the named sets: none, full, in, out, p1, p2, ...; of transitions: all, no
            feedback, no lateral, no bypass, adjacent.
        group: The group of skips, if the spec names its groups; or `transitions`.

    Raises:
        SpecError: The spec is wrong, or has no levels for the rule `family`.
        UsageError: The rule is unknown, there are no edges, the group is missing, or there are too many variants.
    """
    if rule == "family":
        return _families(arch, group)
    if rule.split(":")[0] not in {name.split(":")[0] for name in RULES}:
        raise UsageError(f"there is no subset rule '{rule}'. {did_you_mean(rule, [*RULE_FORMS, 'family'])}")
    edges = edges_of(arch, group)
    return [_subset(subset, edges, rule, group) for subset in subsets(edges, rule)]


def _families(arch: Architecture, group: str | None) -> list[Variant]:
    """The named edge sets."""
    levels = len({level for edge in candidate_edges(arch, group) for level in edge.split(">")})
    if group == TRANSITIONS:
        sets = {label: text for label, (text, least) in _FAMILY.items() if levels >= least}
    else:
        sets = {name: name for name in ("none", "full", "in", "out", *(f"p{k}" for k in range(1, levels)))}
    return [Variant(label, text, group) for label, text in sets.items()]


def valid_variants(
    arch: Architecture, variants: Iterable[Variant]
) -> tuple[list[tuple[Variant, Architecture]], dict[str, str]]:
    """The variants of a rule that are valid networks, with these; and why the others are not, by their labels.

    A rule removes edges blindly: without some of them nothing reaches the output.
    """
    found, reasons = [], dict[str, str]()
    for variant in variants:
        network = variant.apply(arch)
        try:
            _ = network.plan
        except SpecError as error:
            reasons[variant.label] = error.problems[0].message
        else:
            found.append((variant, network))
    return found, reasons


def _subset(subset: tuple[str, ...], edges: list[str], rule: str, group: str | None) -> Variant:
    expression = write_edges(subset)
    if len(subset) == len(edges):
        return Variant("all", expression, group)
    if rule == "leave-one-out":
        missing = next(edge for edge in edges if edge not in subset)
        return Variant(f"without {missing}", expression, group)
    return Variant(expression, expression, group)


def candidate_edges(arch: Architecture, group: str | None = None) -> list[str]:
    """All possible edges between the levels of a group of skips; or all transitions of the spec.

    Raises:
        SpecError: The group has no levels.
        UsageError: As for `edges_of`.
    """
    return edges_of(arch.with_edges("all" if group == TRANSITIONS else "full", group), group)


def edges_of(arch: Architecture, group: str | None = None) -> list[str]:
    """The skips of a group, or the transitions, as edge sets write them (`stem>stage2`).

    Raises:
        UsageError: There are none, or the group is missing.
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
        raise UsageError(f"the skips of '{arch.name}' are in groups. Choose one with '--group': {', '.join(groups)}.")
    if has_transitions:
        hint = f"Its transitions are the group '{TRANSITIONS}'."
    elif "skips" in arch.tree:
        hint = "Start from a larger set, like 'skips.edges=full'."
    else:
        hint = (
            "Its spec has no key 'skips': move the edges that may be absent from 'flow' to it, like 'skips: {edges: "
            "[A>B]}'. 'hrg analyze lesion' tests edges of the flow without training."
        )
    raise UsageError(f"'{arch.name}' has no skips to take subsets of. {hint}")


def chosen_edges(arch: Architecture, group: str | None = None) -> list[str]:
    """All edges of a network that edge sets of a group refer to; may be empty.

    Args:
        group: A group of skips, `transitions`, or None for the skips of a spec without named groups.
    """
    return _transitions(arch) if group == TRANSITIONS else [edge for own, edge in _skips(arch) if own == group]


def _skips(arch: Architecture) -> list[tuple[str | None, str]]:
    """Each skip with its group: `edges.<from>__<to>`, or `edges.<group>.<from>__<to>`."""
    edges: list[EdgeRecord | BlockEdge] = [*arch.plan.edges, *arch.graph.left_out]
    return [
        (edge.name.split(".")[1] if edge.name.count(".") == 2 else None, ">".join(edge.ends))
        for edge in edges
        if edge.family == "skip"
    ]


def _transitions(arch: Architecture) -> list[str]:
    """The chosen transitions, those that arrive too late for the readout included."""
    edges = (*arch.graph.edges, *arch.graph.left_out)
    return list(dict.fromkeys(">".join(edge.ends) for edge in edges if edge.origin.path.startswith("transitions.")))
