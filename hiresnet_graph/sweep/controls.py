"""The controls that reviewers ask for: as many parameters without the edges, and as many edges elsewhere.

    controls: [adjusted, random-edges]                 # the largest variant; every variant
    controls: [adjusted:in, random-edges:in]           # one variant
    controls:
      - {adjusted: [full, in]}
      - {random-edges: [in, p1], draws: 3, seed: 0}

`adjusted` is the baseline with hidden channels widened, block by block, until it has the parameters of a variant: a
network with more edges could win by its size alone. `random-edges` has as many skips as a variant, between levels
i < j drawn by chance: a set of edges could win by their number alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.errors import UsageError, did_you_mean
from hiresnet_graph.matching import adjust
from hiresnet_graph.seeding import draw_integer
from hiresnet_graph.sweep.variants import Variant

ADJUSTED, RANDOM = "adjusted", "random-edges"
_MOST_DRAWS = 1000


@dataclass(frozen=True)
class Control:
    """One entry of `controls`.

    Attributes:
        kind: `adjusted` or `random-edges`.
        of: Labels of the variants that it is a control for; empty for the largest, or for all.
        draws: How many sets of random edges for each variant.
        seed: Of the draws.
    """

    kind: str
    of: tuple[str, ...] = ()
    draws: int = 1
    seed: int = 0


def control_of(entry: str | Mapping[str, Any]) -> Control:
    """The control that an entry of `controls` says.

    Raises:
        UsageError: It says none.
    """
    if isinstance(entry, str):
        kind, colon, label = entry.partition(":")
        if kind not in (ADJUSTED, RANDOM):
            raise UsageError(f"there is no control '{kind}'. {did_you_mean(kind, (ADJUSTED, RANDOM))}")
        if colon and not label.strip():
            raise UsageError(f"'{entry}' names no variant. Write '{kind}' or '{kind}:LABEL'.")
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
        raise UsageError(f"unknown key '{unknown[0]}'. {hint}" if unknown else f"this names no control. {hint}")
    if not isinstance(labels, list | tuple) or not labels or not all(isinstance(label, str) for label in labels):
        raise UsageError(f"'{kind}' wants the label of a variant, or a list of them.")
    draws, seed = entry.get("draws", 1), entry.get("seed", 0)
    if type(draws) is not int or not 1 <= draws <= _MOST_DRAWS:
        raise UsageError(f"'draws' wants a number from 1 to {_MOST_DRAWS:,}, not {draws!r}.")
    if type(seed) is not int or seed < 0:
        raise UsageError(f"'seed' wants a whole number of at least 0, not {seed!r}.")
    return Control(kind, tuple(labels), draws, seed)


def adjusted(baseline: Architecture, label: str, target: Architecture) -> Architecture:
    """The baseline widened to the parameters of a variant called `label`.

    Raises:
        UsageError: It has more already, or has no hidden channels.
    """
    parameters = target.cost().parameters
    try:
        return adjust(baseline, parameters).architecture
    except UsageError as error:
        raise UsageError(
            f"the baseline cannot be widened to the {parameters:,} parameters of '{label}': {error}"
        ) from None


def random_edges(
    control: Control, label: str, own: Sequence[str], possible: Sequence[str], group: str | None
) -> list[Variant]:
    """As many edges as a variant has, drawn by chance, and never those of the variant itself.

    Args:
        label: Of the variant.
        own: Its edges.
        possible: Those that could be.

    Raises:
        UsageError: There are not as many other sets of edges.
    """
    number = len(own)
    others = math.comb(len(possible), number) - (set(own) <= set(possible))
    if others < control.draws:
        least = "is no other set" if others == 0 else f"{'is' if others == 1 else 'are'} only {others} other"
        raise UsageError(
            f"no random edges for '{label}': there {least} of {number} among the {len(possible)} possible edges. "
            f"Name the variants that should have this control, like '{RANDOM}:LABEL'."
        )
    found: dict[frozenset[str], None] = {frozenset(own): None}
    for attempt in count():
        if len(found) > control.draws:
            break
        order = sorted(possible, key=lambda edge: draw_integer("edges", control.seed, attempt, edge))
        found.setdefault(frozenset(order[:number]))
    drawn = [" + ".join(edge for edge in possible if edge in chosen) for chosen in list(found)[1:]]
    noun = f"{number} random edge{'s' if number > 1 else ''} ({label})"
    return [
        Variant(f"{noun} {i}" if control.draws > 1 else noun, edges, group, place=("controls",))
        for i, edges in enumerate(drawn, 1)
    ]
