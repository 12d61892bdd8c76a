"""Arguments that many commands share, and their meaning: specs, changes, a variant or edge sets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hiresnet_graph.errors import Position, Problem, Source, SpecError, UsageError, did_you_mean, similar
from hiresnet_graph.files import is_file
from hiresnet_graph.seeding import MAX_SEED
from hiresnet_graph.shipped import spec_names, study_names

if TYPE_CHECKING:
    from hiresnet_graph.architecture import Architecture


def shipped_specs(incomplete: str) -> list[str]:
    """The names of shipped specs that begin like this, for the completion of a shell; it completes files itself."""
    return [name for name in spec_names() if name.startswith(incomplete)]


def shipped_specs_and_studies(incomplete: str) -> list[str]:
    """The same with studies."""
    return [name for name in (*study_names(), *spec_names()) if name.startswith(incomplete)]


Spec = Annotated[
    str,
    typer.Argument(
        metavar="SPEC",
        help="A spec file or the name of a shipped spec; SPEC@VARIANT selects a variant.",
        autocompletion=shipped_specs,
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[K=V]...", help="Changes to params (width=32) or fields (stage2.depth=5).", show_default=False
    ),
]
Variant = Annotated[str | None, typer.Option(metavar="V", help="A variant that the spec defines.")]
Edges = Annotated[
    list[str] | None,
    typer.Option(
        metavar="E",
        help="Another edge set for the skips, like 'in + out'; GROUP=E for one of several groups, or for "
        "'transitions' (repeatable).",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout, and nothing else.")]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Output file.", show_default=False)]
OutputOrStdout = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Output file.", show_default="stdout")
]
Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE|RUN",
        help="Weights that replace the initial ones: a safetensors file, a file of torch.save with tensors alone, or "
        "the folder of a run.",
        show_default=False,
    ),
]
Reinit = Annotated[
    bool,
    typer.Option("--reinit", help="With --weights: initialise at random what does not fit, instead of an error."),
]
Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED, metavar="N", help="Random seed of the initial weights.")]
Group = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Group of skips, if the spec has several; or 'transitions'."),
]

Prune = Annotated[
    Literal["dead"] | None,
    typer.Option(
        metavar="dead",
        help="'dead' leaves out nodes that no input reaches or that reach no output. Without it, edge subsets with "
        "such nodes are left out.",
        show_default=False,
    ),
]

_CHANGE = re.compile(r"[A-Za-z0-9_*.$]+=")
_GROUP = re.compile(r"\s*([A-Za-z0-9_]+)\s*=(.*)", re.DOTALL)


def check_reinit(weights: Path | None, reinit: bool) -> None:
    """Check that `--reinit` has weights that it refers to.

    Raises:
        UsageError: It has none.
    """
    if reinit and weights is None:
        raise UsageError("'--reinit' says what happens to weights that do not fit: it requires '--weights FILE'.")


def architecture(
    spec: str, changes: Sequence[str] | None = None, variant: str | None = None, edges: Sequence[str] | None = None
) -> Architecture:
    """The network that the arguments of a command specify.

    Raises:
        UsageError: The arguments contradict each other, a change is malformed, or the file is a study.
        SpecError: The spec cannot be read, or it has no such variant, param or field.
    """
    if is_change(spec) and not is_file(spec):
        name = next((word for word in changes or () if not is_change(word)), "SPEC")
        raise UsageError(f"'{spec}' is a change, but the spec comes first. Write '{name} {spec}'.")
    from hiresnet_graph.architecture import load, split_variant
    from hiresnet_graph.spec.reader import is_study

    name, chosen = split_variant(spec)
    if is_study(name):
        raise UsageError(
            f"'{name}' is a study, which has several networks, and one is required here. Name the spec of its network; "
            f"'hrg ablate {name} -o DIR' trains the study."
        )
    if chosen is not None and variant is not None:
        raise UsageError(f"'{spec}' and '--variant {variant}' both select a variant. Give one of them.")
    variant = chosen if variant is None else variant
    if variant is not None and edges:
        raise UsageError(
            f"variant '{variant}' and '--edges' both select the edges. Give one of them, or change the edges of the "
            "variant: 'skips.edges=...'."
        )
    network = load(name)
    if variant is not None:
        network = _select_variant(network, variant, f"--variant {variant}" if chosen is None else spec)
    for change in changes or ():
        network = apply_change(network, change)
    return apply_edges(network, edges or ())


def _select_variant(network: Architecture, variant: str, text: str) -> Architecture:
    """The network with a variant, which stands at the end of the command-line `text`."""
    if variant not in network.variants:
        position = Position(Source("command line", text), 1, len(text) - len(variant) + 1)
        hint = did_you_mean(variant, network.variants) or "It has no variants."
        raise SpecError([Problem(f"'{network.name}' has no variant '{variant}'.", position, hint=hint)])
    return network.variant(variant)


def split_changes(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Specs, each with the changes that follow it.

    Raises:
        UsageError: A change precedes the first spec.
    """
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if not is_change(word) or is_file(word):
            found.append((word, []))
        elif found:
            found[-1][1].append(word)
        else:
            raise UsageError(f"the change '{word}' precedes the first spec. Write it after the spec that it changes.")
    return found


def is_change(word: str) -> bool:
    """Whether a word of the command line is a change, `key=value`."""
    return _CHANGE.match(word) is not None


def apply_change(network: Architecture, change: str) -> Architecture:
    """The network with one `key=value` changed.

    Raises:
        UsageError: The change is not of this form.
        SpecError: The value cannot be parsed.
    """
    from hiresnet_graph.spec.reader import parse_value

    if not is_change(change):
        raise UsageError(f"'{change}' is not a change of the form K=V. {_suggest(network, change)}".strip())
    key, _, text = change.partition("=")
    source = Source("command line", change)
    try:
        value = parse_value(text, source.name)
    except SpecError as error:
        raise SpecError(_shifted(problem, source, key) for problem in error.problems) from None
    return network.override({key: value}, source)


def _suggest(network: Architecture, word: str) -> str:
    """What a word that is not a change was probably meant to be."""
    from hiresnet_graph.spec.reader import SUFFIXES

    if word in network.variants:
        return f"Did you mean '--variant {word}'?"
    if network.address(word) is not None:
        return f"Write '{word}=VALUE'."
    if word in spec_names() or word.endswith(SUFFIXES) or "/" in word:
        return "This command takes one spec; 'hrg diff' compares two."
    if word.startswith("@"):
        return f"Write the variant directly after the spec, without a space: SPEC{word}."
    params = network.tree.get("params") or {}
    if name := similar(word, [*network.variants, *params]):
        return f"Did you mean '--variant {name}'?" if name in network.variants else f"Did you mean '{name}=VALUE'?"
    return ""


def _shifted(problem: Problem, source: Source, key: str) -> Problem:
    """A problem of a value, with its position in the full argument."""
    position = problem.position
    if position is not None:
        position = position._replace(source=source, column=position.column + len(key) + 1)
    return Problem(problem.message, position, key, problem.hint)


def apply_edges(network: Architecture, edges: Sequence[str]) -> Architecture:
    """The network with other edge sets in its groups of skips.

    Raises:
        UsageError: A group is given two edge sets, also where a change `skips.edges=...` gives one.
    """
    seen: dict[str | None, str] = {}
    for text in edges:
        match = _GROUP.fullmatch(text)
        group, expression = (match[1], match[2].strip()) if match else (None, text)
        if group in seen:
            target = f"group '{group}'" if group else "the skips"
            raise UsageError(
                f"--edges gives {target} two edge sets. Join them: --edges '({seen[group]}) + ({expression})'."
            )
        seen[group] = expression
        changed = network.with_edges(expression, group)
        key = changed.overrides[-1].key
        if key in [override.key for override in network.overrides]:
            raise UsageError(f"'{key}=...' and '--edges' both select the edges. Give one of them.")
        network = changed
    return network
