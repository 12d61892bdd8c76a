"""The study that the arguments of `hrg ablate` describe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiresnet_graph.cli.arguments import apply_change, apply_edges, architecture
from hiresnet_graph.cli.training import command_line, with_download
from hiresnet_graph.errors import SpecError, UsageError

if TYPE_CHECKING:
    from hiresnet_graph.architecture import Architecture
    from hiresnet_graph.sweep import Study


def compared(
    variants: str | None, subsets: str | None, controls: str | None, grid: Sequence[str] | None
) -> dict[str, object]:
    """The fields that the options set for the networks to compare; None removes a field of the file."""
    if variants is not None and subsets is not None:
        raise UsageError("'--variants' and '--subsets' both set what is compared. Give one.")
    fields: dict[str, object] = {}
    if variants is not None:
        fields |= {"variants": variants.split(","), "subsets": None}
    if subsets is not None:
        fields |= {"subsets": subsets, "variants": None}
    if controls is not None:
        fields["controls"] = [entry.strip() for entry in controls.split(",") if entry.strip()]
    if grid == [""]:
        fields["grid"] = None
    elif grid:
        crossed: dict[str, object] = {}
        for entry in grid:
            key, equals, text = entry.partition("=")
            if not equals or not key.strip() or key.strip() in crossed:
                fault = "is given twice" if key.strip() in crossed else "is missing"
                raise UsageError(
                    f"--grid {entry}: the field {fault}. Write a field once, with its values: 'lr=0.01,0.003'."
                )
            crossed[key.strip()] = _values(text, f"--grid {entry}")
        fields["grid"] = crossed
    return fields


def _values(text: str, where: str) -> list[Any]:
    from hiresnet_graph.spec.reader import parse_value

    value = parse_value(text, where) if text.strip().startswith("[") else None
    return list(value) if isinstance(value, list) else [parse_value(part, where) for part in text.split(",")]


def parsed_seeds(text: str) -> int | list[int]:
    """The number of seeds (`5`), or a list of seeds (`0,3`).

    Raises:
        UsageError: The text is neither.
    """
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0 or (numbers[0] == 0 and "," not in text):
        raise UsageError(f"--seeds {text}: must be a number of seeds, like 5, or a list, like '0,3'.")
    return numbers if "," in text else numbers[0]


def starting_weights(weights: Path | None, reinit: bool) -> dict[str, object]:
    """The fields that the options set for the weights that runs start from."""
    found: dict[str, object] = {} if weights is None else {"weights": str(weights)}
    return {**found, "reinit": True} if reinit else found


def study_of_arguments(
    name: str, changes: Sequence[str], edges: Sequence[str], given: dict[str, object], download: bool
) -> Study:
    """The study of a file with the options, or a study of a spec.

    Args:
        given: Fields of the study that options set.

    Raises:
        UsageError: The arguments contradict each other.
        SpecError: The study or the spec cannot be read, or a change changes nothing that it has.
    """
    from hiresnet_graph.spec.marked import MarkedDict
    from hiresnet_graph.spec.reader import is_study
    from hiresnet_graph.sweep.study import read_study, study_of

    if is_study(name):
        study = read_study(name)
        if changes or edges:
            network = study.base()
            before = len(network.overrides)
            for change in changes:
                network = apply_change(network, change)
            network = apply_edges(network, edges)
            _ = network.patched()
            given = {**given, "changes": {key: value for key, value, *_ in network.overrides[before:]}}
        study = _patched(study, _without_replaced(study, given)) if given else study
    else:
        network = architecture(name, changes, None, edges)
        _ = network.plan
        if all(given.get(key) is None for key in ("variants", "subsets", "grid")):
            raise UsageError(f"nothing to compare: give {_what_to_compare(network)}'--grid K=V,W'.")
        overrides = {key: value for key, value, *_ in network.overrides}
        fields = {"network": name, **({"changes": overrides} if overrides else {}), **given}
        study = study_of(MarkedDict({key: value for key, value in fields.items() if value is not None}))
    return with_download(study) if download else study


def _without_replaced(study: Study, given: dict[str, object]) -> dict[str, object]:
    """The options, with None for each field of the file that an option sets elsewhere, or by another name.

    Fields of the recipe are set in `recipe` or `grid`, those of the network in `changes` or `grid`.
    """
    from hiresnet_graph.sweep.assignments import setting_name

    network = study.base()

    def field(part: str, key: str) -> str:
        name = f"recipe.{key}" if part == "recipe" else setting_name(network, key)
        return name if name.startswith("recipe.") else ".".join(network.address(name) or (name,))

    parts = ("changes", "recipe", "grid")
    options = {part: value for part in parts if isinstance(value := given.get(part), dict)}
    fields = {field(part, key) for part, values in options.items() for key in values}
    found = dict(given)
    for part in parts:
        own = study.tree.get(part)
        if (part in given and part not in options) or not isinstance(own, dict):
            continue
        kept = options.get(part, {})
        replaced = {key: None for key in own if key not in kept and field(part, key) in fields}
        if replaced:
            found[part] = {**replaced, **kept}
    return found


def _what_to_compare(network: Architecture) -> str:
    """Options that compare edge sets of a network; empty if it has no edges to compare."""
    from hiresnet_graph.sweep.variants import name_of

    if _has_edges(network, "none"):
        whole = "full" if _has_edges(network, "full") else name_of(network)
        return f"'--variants none,{whole}', '--subsets leave-one-out', or "
    return "'--group transitions --subsets family' or " if network.tree.get("transitions") else ""


def _has_edges(network: Architecture, edges: str) -> bool:
    """Whether an edge set is one of the network's skips."""
    try:
        _ = network.with_edges(edges).plan
    except SpecError:
        return False
    return True


def _patched(study: Study, given: dict[str, object]) -> Study:
    """The study with the options.

    Raises:
        UsageError: An option is wrong.
        SpecError: An option and the file contradict each other.
    """
    try:
        return study.patched(given, command_line())
    except SpecError as error:
        positions = [problem.position for problem in error.problems]
        if any(position is None or position.source.name != "command line" for position in positions):
            raise
        lines = (f"{problem.path}: {problem.message} {problem.advice}".strip() for problem in error.problems)
        raise UsageError("\n".join(lines)) from None
