"""Control networks: as many parameters without the edges (`adjusted`), as many edges elsewhere (`random-edges`).

    controls: [adjusted, random-edges]                 # for the largest variant; for every variant
    controls: [adjusted:in, random-edges:in]           # for one variant
    controls:
      - {adjusted: [full, in]}
      - {random-edges: [in, p1], draws: 3, seed: 0}

`adjusted` is the baseline with its hidden channels widened, block by block, to the parameters of a variant: it controls
for size. `random-edges` has as many skips as a variant, between randomly drawn levels i < j: it controls for the number
of edges.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.errors import UsageError, did_you_mean
from hiresnet_graph.formats import format_count
from hiresnet_graph.matching import adjust
from hiresnet_graph.seeding import draw_integer
from hiresnet_graph.spec.edge_set import write_edges
from hiresnet_graph.sweep.variants import Variant

ADJUSTED, RANDOM = "adjusted", "random-edges"
_MAX_DRAWS = 1000
_MAX_REFUSED = 200
"""Sets of random edges that may be no networks, for each one that is drawn."""


@dataclass(frozen=True)
class Control:
    """One entry of `controls`.

    Attributes:
        kind: `adjusted` or `random-edges`.
        of: Labels of the controlled variants; empty for the largest (`adjusted`) or for all (`random-edges`).
        draws: Sets of random edges for each variant.
        seed: Random seed of the draws.
    """

    kind: str
    of: tuple[str, ...] = ()
    draws: int = 1
    seed: int = 0


def control_of(entry: str | Mapping[str, Any]) -> Control:
    """Parse one entry of `controls`.

    Raises:
        UsageError: The entry is not a control.
    """
    if isinstance(entry, str):
        kind, colon, label = entry.partition(":")
        if kind not in (ADJUSTED, RANDOM):
            raise UsageError(f"there is no control '{kind}'. {did_you_mean(kind, (ADJUSTED, RANDOM))}")
        if colon and not label.strip():
            raise UsageError(f"'{entry}' lacks the label of a variant. Write '{kind}' or '{kind}:LABEL'.")
        return Control(kind, (label.strip(),) if colon else ())
    kind = next((key for key in (ADJUSTED, RANDOM) if key in entry), "")
    of = entry.get(kind)
    labels = [of] if isinstance(of, str) else of
    known = {kind, "draws", "seed"} if kind == RANDOM else {kind}
    unknown = [key for key in entry if key not in known]
    if not kind or unknown:
        hint = (
            did_you_mean(unknown[0], known) if kind else did_you_mean(unknown[0] if unknown else "", (ADJUSTED, RANDOM))
        )
        raise UsageError(f"unknown key '{unknown[0]}'. {hint}" if unknown else f"a control is missing. {hint}")
    if not isinstance(labels, list | tuple) or not labels or not all(isinstance(label, str) for label in labels):
        raise UsageError(f"'{kind}' requires the label of a variant, or a list of labels.")
    draws, seed = entry.get("draws", 1), entry.get("seed", 0)
    if type(draws) is not int or not 1 <= draws <= _MAX_DRAWS:
        raise UsageError(f"'draws' must be a number from 1 to {_MAX_DRAWS:,}, not {draws!r}.")
    if type(seed) is not int or seed < 0:
        raise UsageError(f"'seed' must be a whole number of at least 0, not {seed!r}.")
    return Control(kind, tuple(labels), draws, seed)


def adjusted(baseline: Architecture, label: str, target: Architecture) -> Architecture:
    """The baseline widened to the parameters of `target`, the variant called `label`.

    Raises:
        UsageError: The baseline has more parameters already, or no hidden channels.
    """
    parameters = target.cost().parameters
    try:
        return adjust(baseline, parameters).architecture
    except UsageError as error:
        raise UsageError(
            f"the baseline cannot be widened to the {parameters:,} parameters of '{label}': {error}"
        ) from None


def controlled_variant(label: str) -> str | None:
    """The variant that a network with random edges is the control of, by its label; None for other networks."""
    found = re.fullmatch(r"\d+ random edges? \((.*)\)(?: \d+)?", label, re.DOTALL)
    return found[1] if found else None


def random_edges(
    control: Control,
    label: str,
    own: Sequence[str],
    possible: Sequence[str],
    group: str | None,
    is_network: Callable[[Variant], bool],
) -> list[Variant]:
    """Variants with as many random edges as a variant has, never its own set of edges.

    Args:
        label: Label of the variant.
        own: Edges of the variant.
        possible: All edges to draw from.
        is_network: Whether a variant is a valid network; others are not drawn.

    Raises:
        UsageError: There are too few other sets of edges that are networks.
    """
    number = len(own)
    others = math.comb(len(possible), number) - (set(own) <= set(possible))
    if others < control.draws:
        found = "is no other set" if others == 0 else f"{'is' if others == 1 else 'are'} only {others} other"
        raise UsageError(
            f"no random edges for '{label}': there {found} of {number} among the {len(possible)} possible edges. "
            f"Name the variants that should have this control, like '{RANDOM}:LABEL'."
        )
    noun = f"{format_count(number, 'random edge')} ({label})"
    seen, drawn, refused = {frozenset(own)}, list[Variant](), 0
    for attempt in count():
        if len(drawn) == control.draws:
            break
        if refused == _MAX_REFUSED * control.draws or refused + len(drawn) == others:
            raise UsageError(
                f"no random edges for '{label}': {refused} sets of {number} among the {len(possible)} possible edges "
                "are no networks. Set 'prune: dead', or name the variants that should have this control."
            )
        order = sorted(possible, key=lambda edge: draw_integer("edges", control.seed, attempt, edge))
        if (chosen := frozenset(order[:number])) in seen:
            continue
        seen.add(chosen)
        edges = write_edges(edge for edge in possible if edge in chosen)
        name = f"{noun} {len(drawn) + 1}" if control.draws > 1 else noun
        variant = Variant(name, edges, group, path=("controls",))
        if is_network(variant):
            drawn.append(variant)
        else:
            refused += 1
    return drawn
