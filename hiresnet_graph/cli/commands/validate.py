"""`hrg validate`: the errors and warnings of specs and studies."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from hiresnet_graph.cli import failure
from hiresnet_graph.cli.arguments import Json, architecture, shipped_specs_and_studies, split_changes
from hiresnet_graph.cli.console import has_colors, styled, write, write_json, write_message
from hiresnet_graph.cli.failure import problem_data
from hiresnet_graph.cli.progress import progress
from hiresnet_graph.cli.study_summary import trained_on
from hiresnet_graph.errors import Problem, SpecError, UsageError
from hiresnet_graph.formats import format_count

if TYPE_CHECKING:
    from hiresnet_graph.architecture import Architecture


def validate(
    specs: Annotated[
        list[str],
        typer.Argument(
            metavar="SPEC...",
            help="Spec or study files, or names of shipped ones; changes (K=V) follow their spec.",
            autocompletion=shipped_specs_and_studies,
        ),
    ],
    json: Json = False,
) -> None:
    """Check specs and studies, and report their errors, each with its location.

    As many errors as possible are reported together; some appear only when others are corrected. All variants of a spec
    are checked, except for SPEC@VARIANT; of a study, all its networks. The exit code is 1 if there are errors. Warnings
    report what is allowed but probably unintended, like an edge of a recurrent network whose values arrive too late for
    the readout.
    """
    results = [_check(spec, changes) for spec, changes in split_changes(specs)]
    invalid = sum(bool(result.problems) for result in results)
    if json:
        write_json({"valid": not invalid, "specs": [_as_data(result) for result in results]})
    else:
        for result in results:
            if not result.problems:
                write(f"{result.spec}: {styled('ok', 'green', sys.stdout)}, {result.summary}")
            failure.print_problems(result.problems, sys.stdout)
            failure.print_problems((replace(w, message=f"warning: {w.message}") for w in result.warnings), sys.stdout)
        if warnings := sum(len(result.warnings) for result in results):
            write_message(f"{format_count(warnings, 'warning')}.")
    if invalid:
        shown, omitted = (sum(numbers) for numbers in zip(*map(_counts, results), strict=True))
        found = failure.count_problems(shown, omitted)
        where = f" in {format_count(invalid, 'spec')} of {len(results)}" if len(results) > 1 else ""
        write_message(f"{found}{where}.")
        raise typer.Exit(failure.FINDINGS)


class _Result(NamedTuple):
    """The findings in one spec or study; `name` is None if it could not be read."""

    spec: str
    name: str | None
    summary: str = ""
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    omitted: int = 0


def _check(spec: str, changes: Sequence[str]) -> _Result:
    from hiresnet_graph.spec.reader import is_study

    name = None
    try:
        if is_study(spec):
            return _check_study(spec, changes)
        network = architecture(spec, changes)
        name = network.name
        warnings = _validated(network)
        return _Result(spec, name, _summary(network), warnings=warnings)
    except SpecError as error:
        return _Result(spec, name, problems=error.problems, omitted=error.omitted)


def _validated(network: Architecture) -> tuple[Problem, ...]:
    """The warnings of a network and its variants; a terminal shows how many of these are checked."""
    if not has_colors(sys.stderr) or network.chosen is not None or not network.variants:
        return network.validate()
    with progress("variants", 1 + len(network.variants)) as meter:
        return network.validate(meter)


def _check_study(spec: str, changes: Sequence[str]) -> _Result:
    """Check a study as far as possible without its data.

    Raises:
        SpecError: The study, or one of its networks, is wrong.
    """
    from hiresnet_graph.sweep.networks import networks_of
    from hiresnet_graph.sweep.plan import make_plan
    from hiresnet_graph.sweep.search_space import SearchSpace
    from hiresnet_graph.sweep.study import read_study

    if changes:
        raise UsageError(f"'{spec}' is a study: write '{changes[0]}' into it, under 'changes', or omit it.")
    study = read_study(spec)
    if study.search is not None:
        SearchSpace(study, with_data=False)
        return _Result(spec, study.name, f"a search of up to {format_count(study.search.runs, 'run')}")
    networks = networks_of(study)
    plan = make_plan(study, networks, study.data_source(), None)
    different = format_count(len({info.plan for info in plan.networks}), "different network")
    seeds, runs = format_count(len(study.seed_pairs), "seed"), format_count(len(plan.requests), "run")
    found = {str(problem): problem for network in networks.members for problem in network.architecture.warnings}
    summary = f"a study of {networks.architecture}: {different}, {seeds}, {runs} {trained_on(plan)}"
    return _Result(spec, study.name, summary, warnings=tuple(found.values()))


def _counts(result: _Result) -> tuple[int, int]:
    return len(result.problems), result.omitted


def _summary(network: Architecture) -> str:
    text = f"{network.cost().parameters:,} parameters"
    if network.chosen is None and network.variants:
        text += f"; {format_count(len(network.variants), 'variant')}: {', '.join(network.variants)}"
    return text


def _as_data(result: _Result) -> dict[str, Any]:
    return {
        "spec": result.spec,
        "name": result.name,
        "valid": not result.problems,
        "problems": [problem_data(problem) for problem in result.problems],
        "warnings": [problem_data(problem) for problem in result.warnings],
    }
