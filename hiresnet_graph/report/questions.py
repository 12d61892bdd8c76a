"""The questions of `hrg analyze`: their rows, and how they are measured on the networks of a source."""

from __future__ import annotations

import hashlib
import itertools
import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hiresnet_graph.errors import UsageError
from hiresnet_graph.formats import Column, format_count, number_column
from hiresnet_graph.passes.timing import format_step_ranges
from hiresnet_graph.report.analyses import (
    FOLDER,
    Analysis,
    CombinedRow,
    Key,
    MeasuredRow,
    Quantity,
    Question,
    analyse,
    answer,
    combine_runs,
    read_analysis,
    within_study,
)
from hiresnet_graph.report.scores import percent
from hiresnet_graph.spec.edge_set import write_edges

if TYPE_CHECKING:
    from hiresnet_graph.analysis import ProbedNetwork, Replacement, Representations
    from hiresnet_graph.analysis.sources import AnalysisSource, Subject
    from hiresnet_graph.sweep.results import Results
    from hiresnet_graph.train.evaluation import Part
    from hiresnet_graph.train.readout import Past
    from hiresnet_graph.train.trained import TrainedNetwork

CONTRIBUTIONS = Question(
    "contributions",
    "contributions of edges",
    {
        "target": Column("at"),
        "slot": Column("slot", 6),
        "step": number_column("step"),
        "edge": Column("from"),
        "kind": Column("kind", 7),
    },
    (Quantity("share", "share"), Quantity("mean_abs", "mean |x|", ".4f")),
    "mean |x|: mean absolute value over images, channels and positions of what is merged at a slot: the value of the "
    "block itself (function), its shortcut, and each edge after its projection, scale and gate. share: of the sum at "
    "this slot.",
    unnamed=("kind",),
    plain_kinds=("function", "shortcut"),
)
LESION = Question(
    "lesion",
    "lesions of edges",
    {"edges": Column("without"), "size": number_column("removed", 6)},
    (
        Quantity("difference", "difference", "+.2f", axis="difference in accuracy (points)"),
        Quantity("accuracy", "accuracy", ".2f"),
        Quantity("over_draws", "std over draws", ".2f"),
    ),
    "accuracy: in percent, without training again; difference: from the intact network, in points.",
    unnamed=("size",),
    not_drawn=("intact",),
    reference="random (",
)
SIMILARITY = Question(
    "similarity",
    "similarity of levels",
    {"a": Column("level"), "b": Column("and level")},
    (Quantity("within", "CKA"), Quantity("between", "between seeds")),
    "CKA: linear centred kernel alignment of the values at two levels (nodes, or last blocks of stages), 1 for the "
    "same representation up to rotation and scale; unbiased, estimated over batches of images in random order. "
    "between seeds: of the two levels in different runs of a network.",
    is_matrix=True,
)
ATTRIBUTION = Question(
    "attribution",
    "attribution of the logit",
    {"edge": Column("from"), "kind": Column("kind", 7), "target": Column("at", 6), "slot": Column("slot", 5)},
    (Quantity("logit", "logit of the right class", "+.3f"), Quantity("error", "error", ".1e")),
    "The logit of the right class as a sum over the values that meet at the last merge, and a constant (the logit "
    "without them); means over images. error: mean absolute difference between the logit and the sum.",
    unnamed=("kind", "target", "slot"),
)
GRADIENTS = Question(
    "gradients",
    "norms of gradients",
    {"block": Column("block or edge"), "epoch": number_column("epoch")},
    (Quantity("norm", "gradient norm", ".3g"),),
    "gradient norm: L2 norm of the gradients of all parameters of a block or an edge, before clipping; mean over the "
    "steps of an epoch.",
    series="epoch",
)
READOUT = Question(
    "readout",
    "accuracy at other readout steps",
    {"step": number_column("step"), "trained": Column("in training"), "reason": Column("why not", 6, wraps=True)},
    (
        Quantity("accuracy", "accuracy", ".2f"),
        Quantity("top_k", "top-k", ".2f"),
        Quantity("loss", "loss", ".4f"),
    ),
    "Steps are counted from 0. in training: whether training read out this step; at others, the network was never "
    "trained to answer. accuracy: in percent; loss: cross-entropy.",
    curve="step",
)
# In the order of a report: times, then what removing an edge does, and last what has the most rows.
QUESTIONS = {
    question.name: question for question in (LESION, READOUT, ATTRIBUTION, SIMILARITY, CONTRIBUTIONS, GRADIENTS)
}
_MAX_LESIONS = 1_000
_MAX_NAME = 150  # letters of a file's name, with room for suffixes below the usual limit of 255
_SPELLED = {">": "_to_", "+": "_or_", ",": "_or_", "&": "_and_", "*": "_any_", "(": "_open_", ")": "_close_", " ": ""}
"""How the signs of edge sets are written in names of files."""
_METHODS = (
    "After the last merge, the network is linear up to a constant, so each part is exact.",
    "Where a network is not linear after its last merge, the parts are integrated gradients.",
)


def make_contributions(source: AnalysisSource, *, part: Part = "test") -> Analysis:
    """What each edge contributes at the node where it arrives; see `analysis.measure_contributions`."""
    from hiresnet_graph.analysis import measure_contributions

    def measure(trained: TrainedNetwork) -> list[MeasuredRow]:
        batches = (x_BCHW for x_BCHW, _ in trained.batches(part))
        found = measure_contributions(_probed(trained), batches, forward=trained.logits)
        if not found:
            raise UsageError(
                f"'{trained.arch.title}' merges nothing: no two values arrive at one slot, so there are no "
                "contributions. Analyse a variant with skips or shortcuts."
            )
        return [
            MeasuredRow((one.target, one.slot, one.step, one.edge, one.kind), (one.share, one.mean_abs))
            for one in found
        ]

    return analyse(source, CONTRIBUTIONS, measure, combine_runs, part=part, name=_name("contributions", part))


def make_lesions(
    source: AnalysisSource,
    *,
    edges: str | None = None,
    pairs: bool = False,
    shortcuts: bool = False,
    replacement: Replacement = "zero",
    draws: int = 0,
    seed: int = 0,
    part: Part = "test",
) -> Analysis:
    """The accuracy without each skip, without each pair of skips, or without a set of edges; see `analysis.lesion`.

    Args:
        edges: An edge set; its edges are replaced together.
        pairs: Two skips at a time instead of one.
        shortcuts: The shortcuts of blocks count as skips.
        draws: Number of random sets of as many skips to compare with; 0 for none.
        seed: Of random sets and of other images.

    Raises:
        UsageError: `edges` is given with `pairs` or `shortcuts`; or no network has such edges.
    """
    for option, is_given in (("pairs", pairs), ("shortcuts", shortcuts)):
        if edges is not None and is_given:
            raise UsageError(f"'--edges' and '--{option}' both select what is replaced. Give one of them.")
    measure = partial(
        _lesions,
        edges=edges,
        pairs=pairs,
        shortcuts=shortcuts,
        replacement=replacement,
        draws=draws,
        seed=seed,
        part=part,
    )
    values = {"zero": "zeros", "mean": "their mean over images", "resample": "those of another image, at random"}
    note = f"The values of the edges are replaced by {values[replacement]}."
    if draws:
        among = "those beside the flow" + (" and shortcuts" if shortcuts else "")
        note += f" random: mean over different sets of as many edges, drawn from {among} (seed {seed})."
    kinds = [word for word, is_given in (("pairs", pairs), ("shortcuts", shortcuts)) if is_given]
    what = "-".join(kinds) if edges is None else f"edges-{edges}"
    how = "" if replacement == "zero" else replacement
    where = "" if part == "test" else part
    control = f"random-{draws}" if draws else ""
    other_seed = f"seed-{seed}" if seed and (draws or replacement == "resample") else ""
    compared = f"with {format_count(draws, 'random set')}" if draws else ""
    words = (what.removeprefix("edges-"), how, compared, other_seed.replace("-", " "), where)
    options = {
        "--edges": "" if edges is None else shlex.quote(edges),
        "--with": how,
        "--random": str(draws or ""),
        "--seed": str(seed) if other_seed else "",
    }
    given = [*(f"--{word}" for word in kinds), *(f"{name} {value}" for name, value in options.items() if value)]
    name = _name("lesion", what, how, control, other_seed, part)
    found = analyse(source, LESION, measure, combine_runs, part=part, name=name, note=note, options=" ".join(given))
    return replace(found, detail=", ".join(word for word in words if word))


def make_attributions(source: AnalysisSource, *, part: Part = "test") -> Analysis:
    """The logit of the right class as a sum over the operands of the last merge; see `analysis.attribute`."""
    from hiresnet_graph.analysis import attribute

    is_linear: set[bool] = set()

    def measure(trained: TrainedNetwork) -> list[MeasuredRow]:
        found = attribute(_probed(trained), trained.batches(part), forward=trained.logits)
        is_linear.add(found.is_linear)
        return [
            *(
                MeasuredRow((one.edge, one.kind, one.target, one.slot), (value, None))
                for one, value in zip(found.operands, found.values, strict=True)
            ),
            MeasuredRow(("constant", None, None, None), (found.constant, None)),
            MeasuredRow(("logit", None, None, None), (found.logit, found.error)),
        ]

    found = analyse(source, ATTRIBUTION, measure, combine_runs, part=part, name=_name("attribution", part))
    return replace(found, note=_METHODS[len(is_linear) > 1 or not is_linear.pop()])


def make_readouts(
    source: AnalysisSource, *, steps: Sequence[int] | None = None, part: Part = "test", past: Past | None = None
) -> Analysis:
    """The accuracy of networks in time at several readout steps; see `Run.readout`.

    Args:
        steps: Counted from 0. By default those of training, from the first one at which the output depends on the
            input.
        past: With `last`, a norm beyond its copies uses the last one (default: as in the spec).

    Raises:
        UsageError: No network runs in time, or none can be read out at these steps.
    """
    from hiresnet_graph.train.readout import evaluate_steps

    counted: set[int] = set()

    def measure(trained: TrainedNetwork) -> list[MeasuredRow]:
        points = evaluate_steps(trained, steps, part=part, past=past)
        if all(point.scores is None for point in points):
            raise UsageError(
                f"'{trained.arch.title}': no step can be read out: {points[0].reason} Train with 'time.readout=all', "
                "so that every step has its norms; beyond the steps of training, '--past last' uses the last norms."
            )
        counted.add(trained.recipe.top_k)
        return [
            MeasuredRow(
                (point.step, point.trained, point.reason or None),
                (None, None, None)
                if (scores := point.scores) is None
                else (percent(scores.accuracy), percent(scores.top_k), scores.loss),
            )
            for point in points
        ]

    ranges = "" if steps is None else format_step_ranges(sorted(set(steps))).replace(" ", "")
    given = {"--steps": ranges, "--past": past or ""}
    options = " ".join(f"{option} {value}" for option, value in given.items() if value)
    words = (f"steps {ranges}" if ranges else "", f"past {past}" if past else "", "" if part == "test" else part)
    name = _name("readout", *(word.replace(" ", "-").replace(",", "_") for word in words))
    found = analyse(source, READOUT, measure, combine_runs, part=part, name=name, options=options)
    note = f"top-k: one of the {' or '.join(map(str, sorted(counted)))} most probable classes is right."
    return replace(found, note=note, detail=", ".join(filter(None, words)))


def make_gradients(source: AnalysisSource) -> Analysis:
    """The norms of the gradients of each block and edge along training, as `record_gradients` records them."""
    bare = [edge for subject in source.subjects for edge in _edges_without_norms(subject)]
    note = f"Edges without parameters have no norm: {', '.join(dict.fromkeys(bare))}." if bare else ""
    return answer(source, GRADIENTS, _recorded_gradients, note=note)


def _edges_without_norms(subject: Subject) -> list[str]:
    norms = {block for record in subject.records for epoch in record.epochs for block in epoch.gradient_norms or ()}
    return [label for name, label in subject.skips.items() if norms and name not in norms]


def _recorded_gradients(subject: Subject) -> list[CombinedRow]:
    """Each block at each epoch, with the norms of all runs.

    Raises:
        UsageError: No run has recorded any.
    """
    found: dict[tuple[Key, ...], list[float | None]] = {}
    for i, record in enumerate(subject.records):
        for epoch in record.epochs:
            for block, norm in (epoch.gradient_norms or {}).items():
                found.setdefault((subject.skips.get(block, block), epoch.epoch), [None] * len(subject.records))[i] = (
                    norm
                )
    if not found:
        raise UsageError(
            f"'{subject.label}' has no norms of gradients: training recorded none. Train it with '--recipe "
            "record_gradients=true', in another folder: results stay the same."
        )
    return [(keys, (tuple(norms),)) for keys, norms in found.items()]


def make_similarities(source: AnalysisSource, *, part: Part = "test") -> Analysis:
    """Linear CKA between the levels of each network, and between its runs; see `analysis.cka`."""
    from hiresnet_graph.analysis import represent
    from hiresnet_graph.analysis.similarity import BATCH

    def measure(trained: TrainedNetwork) -> Representations:
        batches = (x_BCHW for x_BCHW, _ in trained.batches(part, BATCH, is_shuffled=True))
        return represent(_probed(trained), batches, forward=trained.logits)

    return analyse(source, SIMILARITY, measure, _similarities, part=part, name=_name("similarity", part))


def _similarities(runs: Sequence[Representations]) -> list[CombinedRow]:
    """Each pair of levels, with the values of all runs and of all pairs of runs."""
    from hiresnet_graph.analysis import cka

    levels = runs[0].levels
    within = [cka(run, run) for run in runs]
    between = [(matrix + matrix.T) / 2 for one, two in itertools.combinations(runs, 2) for matrix in [cka(one, two)]]
    return [
        (
            (levels[i], levels[j]),
            tuple(tuple(_finite(one[i, j].item()) for one in found) for found in (within, between)),
        )
        for i in range(len(levels))
        for j in range(i, len(levels))
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def saved_analyses(study: Path, results: Results) -> list[Analysis]:
    """The analyses in the folder of a study, in the order of a report. Files of other names are ignored.

    Args:
        results: Those of the study.

    Raises:
        RunError: One of them cannot be read.
    """
    paths = sorted((study / FOLDER).glob("*.json"), key=lambda path: path.stem)
    return [
        within_study(read_analysis(path, question), results, study)
        for name, question in QUESTIONS.items()
        for path in paths
        if path.stem.split("-")[0] == name
    ]


def _lesions(
    trained: TrainedNetwork,
    *,
    edges: str | None,
    pairs: bool,
    shortcuts: bool,
    replacement: Replacement,
    draws: int,
    seed: int,
    part: Part,
) -> list[MeasuredRow]:
    from hiresnet_graph.analysis import lesion
    from hiresnet_graph.analysis.lesions import random_sets

    network = _probed(trained, inner=True)
    candidates = (*network.skips, *network.shortcuts) if shortcuts else network.skips
    sets = [network.select(edges)] if edges is not None else _sets(network, candidates, 2 if pairs else 1)
    if draws and len(candidates) < len(sets[0]):
        raise UsageError(
            f"'{network.arch.title}' has {format_count(len(candidates), 'edge')} beside the flow, too few for random "
            f"sets of {len(sets[0])}. Omit '--random'."
        )
    controls = random_sets(candidates, len(sets[0]), draws, seed) if draws else []
    batches = partial(trained.batches, part, is_shuffled=True)
    all_sets = [frozenset[str](), *map(frozenset, sets), *controls]
    found = [
        100 * value for value in lesion(network, batches, all_sets, replacement, seed=seed, forward=trained.logits)
    ]
    intact = found[0]
    rows = [MeasuredRow(("intact", 0), (0.0, intact, None))]
    for names, accuracy in zip(sets, found[1:], strict=False):
        label = write_edges(network.labels[name] for name in names) if edges is None else edges
        rows.append(MeasuredRow((label, len(names)), (accuracy - intact, accuracy, None)))
    if controls:
        drawn = found[1 + len(sets) :]
        size = len(controls[0])
        mean = sum(drawn) / len(drawn)
        deviation = (sum((one - mean) ** 2 for one in drawn) / (len(drawn) - 1)) ** 0.5 if len(drawn) > 1 else None
        label = f"random ({format_count(len(drawn), 'draw')})"
        rows.append(MeasuredRow((label, size), (mean - intact, mean, deviation)))
    return rows


def _sets(network: ProbedNetwork, candidates: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """All sets of some edges of one size, by name."""
    title = network.arch.title
    if not candidates:
        remedy = "add '--shortcuts' for those of its blocks, or " if network.shortcuts else ""
        meeting = ", ".join(network.labels[name] for name in network.branches[:8])
        more = ", ..." if len(network.branches) > 8 else ""
        those = f"; these meet others: {meeting}{more}" if meeting else ""
        raise UsageError(
            f"'{title}' has no edges beside the flow, so there is nothing to lesion. Analyse a variant with skips, "
            f"{remedy}name an edge of the flow with '--edges A>B'{those}."
        )
    if len(candidates) < size:
        raise UsageError(f"'{title}' has one edge beside the flow, and '--pairs' requires two. Omit '--pairs'.")
    found: list[tuple[str, ...]] = list(itertools.combinations(candidates, size))
    if len(found) > _MAX_LESIONS:
        raise UsageError(
            f"'{title}' has {len(found):,} sets of edges to lesion; the limit is {_MAX_LESIONS:,}. Name one: '--edges'."
        )
    return found


def _probed(trained: TrainedNetwork, *, inner: bool = False) -> ProbedNetwork:
    from hiresnet_graph.analysis import ProbedNetwork

    return ProbedNetwork(trained.arch, trained.module, next(iter(trained.recipe.outputs), None), inner=inner)


def _name(*words: str) -> str:
    """The name of a file, also for LaTeX; different for different edge sets."""
    text = "-".join(word for word in words if word and word != "test")
    name = "".join(_SPELLED.get(letter, letter) for letter in text)
    return name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
