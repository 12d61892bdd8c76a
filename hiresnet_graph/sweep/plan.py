"""What a study trains: its networks, its rows, and one request for each run that is unique.

All mistakes of a study are told here, before anything is trained, and nothing is written.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.errors import Position, Problem, Source, SpecError, UsageError, did_you_mean
from hiresnet_graph.plan import Plan
from hiresnet_graph.spec.problems import Problems
from hiresnet_graph.spec.source import key_position_at, position_at, position_in
from hiresnet_graph.sweep.controls import ADJUSTED, Control, adjusted, control_of, random_edges
from hiresnet_graph.sweep.results import NetworkInfo
from hiresnet_graph.sweep.study import Study, fail, stop_if_any
from hiresnet_graph.sweep.subsets import is_random
from hiresnet_graph.sweep.variants import (
    TRANSITIONS,
    Place,
    Variant,
    candidates,
    chosen_edges,
    edges_of,
    entries_of,
    enumerate_variants,
    named_source,
    possible,
    variant_of,
)
from hiresnet_graph.train.checks import check_batch_size, check_loss_steps, count_readouts, match_input
from hiresnet_graph.train.recipe import Recipe, make_recipe
from hiresnet_graph.train.record import Seeds
from hiresnet_graph.train.request import RunRequest

if TYPE_CHECKING:
    from hiresnet_graph.data import DatasetKind
    from hiresnet_graph.data.dataset import Dataset


@dataclass(frozen=True)
class PlannedRow:
    """One network of a study with one pair of seeds.

    Attributes:
        network: Place in `StudyPlan.networks`.
        key: Of the run; rows of equal networks have one.
    """

    network: int
    seeds: Seeds
    key: str


@dataclass(frozen=True)
class StudyPlan:
    """All that a study asks for, settled before anything is trained.

    Attributes:
        recipe: Of all runs, before the grid; as JSON data.
        baseline: Label of the variant that the others are compared with; None if the study names none.
        requests: What each unique run is asked to do, by its key. The first seeds of all networks come first, so that a
            study that is cut short can be looked at.
        subsets_of: All edges of which the variants are subsets, if they were made by a subset rule; else empty.
        text: The study as a file in YAML.
    """

    name: str
    architecture: str
    data: str
    data_fingerprint: str
    recipe: Mapping[str, object]
    baseline: str | None
    networks: tuple[NetworkInfo, ...]
    rows: tuple[PlannedRow, ...]
    requests: Mapping[str, RunRequest]
    subsets_of: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Network:
    """A network of a study, what it is compiled from, and how it is trained."""

    info: NetworkInfo
    architecture: Architecture
    recipe: Recipe


@dataclass(frozen=True)
class Networks:
    """All networks of a study: for each setting of the grid the variants and their controls.

    Attributes:
        architecture: Name of the network that the study is about.
        baseline, subsets_of: As of `StudyPlan`.
        left_out: Subsets of transitions that are no network, with the reason of each.
    """

    architecture: str
    members: tuple[Network, ...]
    baseline: str | None
    subsets_of: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def remarks(self) -> tuple[str, ...]:
        """What is allowed and may not be meant, in sentences for people: subsets that are left out, and warnings."""
        remarks = []
        if self.left_out:
            reasons: dict[str, list[str]] = {}
            for label, reason in self.left_out.items():
                reasons.setdefault(reason, []).append(label)
            remarks += [f"Left out: {_some(labels)}: {reason}" for reason, labels in reasons.items()]
        warned: dict[str, list[str]] = {}
        for network in self.members:
            if network.info.same_as:
                continue
            for problem in network.architecture.warnings:
                warned.setdefault(str(problem), []).append(_told_network(network.info.label, network.info.setting))
        for text, labels in warned.items():
            everywhere = len(labels) == sum(not network.info.same_as for network in self.members)
            remarks.append(f"Warning: {'' if everywhere else f'{_some(labels)}: '}{text}")
        return tuple(remarks)


def plan_study(study: Study, networks: Networks | None = None, *, device: str = "cpu", threads: int = 1) -> StudyPlan:
    """All that a study asks for: every network compiled, every run with its key, equal runs once.

    Args:
        networks: Those of the study, if they are there already.
        device, threads: Of each run.

    Raises:
        SpecError: The study or a network of it is wrong; with all mistakes.
        UsageError: The same for a study without a file; or the data cannot be found, or do not go with a network.
    """
    from hiresnet_graph.data import load_dataset

    networks = networks or networks_of(study)
    source = data_of(study)
    return planned(study, networks, source, load_dataset(source), device=device, threads=threads)


def data_of(study: Study) -> DatasetKind:
    """Where the data of a study come from.

    Raises:
        SpecError, UsageError: There are no such data.
    """
    from hiresnet_graph.data import DatasetKind, data_source

    if isinstance(study.data, DatasetKind):
        return study.data
    try:
        return data_source(study.data)
    except UsageError as error:
        fail(study, ("data",), str(error).removeprefix("data: "))


def planned(
    study: Study,
    networks: Networks,
    source: DatasetKind,
    dataset: Dataset | None,
    *,
    device: str = "cpu",
    threads: int = 1,
) -> StudyPlan:
    """The plan of a study whose networks are there.

    Args:
        dataset: Without it nothing of the data is checked, and the keys tell equal runs from others, but are not those
            of the ledger.

    Raises:
        SpecError, UsageError: Data and networks, or data and recipe, do not go together.
    """
    from hiresnet_graph.train.identity import NetworkIdentity, custom_ops_hash, identify_run

    matched = None if dataset is None else _matched(study, networks, dataset)
    augment = "none" if matched is None else matched.standard_augmentation
    rows: dict[tuple[int, int], PlannedRow] = {}
    requests: dict[str, RunRequest] = {}
    identities = [
        NetworkIdentity(network.info.plan, custom_ops_hash(plan), count_readouts(plan))
        for network in networks.members
        for plan in [network.architecture.plan]
    ]
    specs = [network.architecture.to_yaml() for network in networks.members]
    for s, seeds in enumerate(study.seed_pairs):
        for n, network in enumerate(networks.members):
            key = identify_run(identities[n], network.recipe, seeds, matched).key
            rows[n, s] = PlannedRow(n, seeds, key)
            label = network.info.label
            request = RunRequest(specs[n], label, seeds, source, network.recipe, device=device, threads=threads)
            requests.setdefault(key, request)
    return StudyPlan(
        name=study.name or networks.architecture,
        architecture=networks.architecture,
        data=dataset.name if dataset is not None else source.kind,
        data_fingerprint="" if matched is None else matched.fingerprint(),
        recipe=study.recipe.resolved(augment).model_dump(mode="json"),
        baseline=networks.baseline,
        networks=tuple(network.info for network in networks.members),
        rows=tuple(rows[place] for place in sorted(rows)),
        requests=requests,
        subsets_of=networks.subsets_of,
        text=study.to_yaml(),
    )


def _matched(study: Study, networks: Networks, dataset: Dataset) -> Dataset:
    """The data set as all networks see it.

    Raises:
        SpecError, UsageError: Data and networks, or data and recipe, do not go together.
    """
    found: dict[str, Dataset] = {}
    for network in networks.members:
        plan = network.architecture.plan
        ends = str([*plan.inputs.items(), *(call.shape for call in plan.calls if call.name in plan.outputs.values())])
        if ends not in found:
            try:
                found[ends] = match_input(dataset, plan)
            except UsageError as error:
                fail(study, ("data",), f"variant '{network.info.label}': {error}")
        if message := check_batch_size(network.recipe, dataset):
            fail(study, ("recipe", "batch_size"), message)
    if len({matched.fingerprint() for matched in found.values()}) > 1:
        message = "the networks take images of different shapes, so they cannot be compared in one study."
        fail(study, ("network",), message)
    return found.popitem()[1]


# ------------------------------------------------------------------------------------------------------- its networks


class _Places:
    """Sources that stand for places of a study, so that what is wrong with a value is told where it was written."""

    def __init__(self, study: Study) -> None:
        self.tree = study.tree
        self._known: dict[Source, tuple[Place, str, str]] = {}

    def source(self, place: Place, key: str, text: str) -> Source:
        """As `named_source`."""
        source = named_source(place, key, text)
        self._known[source] = place, key, text
        return source

    def has(self, problem: Problem) -> bool:
        """Whether it is about a value of the study."""
        own = self.tree.position
        sources = [*self._known, *([own.source] if own is not None else [])]
        is_there = problem.position is not None and problem.position.source in sources
        return is_there or bool(problem.related)

    def told(self, problem: Problem) -> Problem:
        """The problem with its place in the study, if it is about a value of it."""
        related = tuple(item._replace(position=self._in_study(item.position)) for item in problem.related)
        problem = replace(problem, related=related)
        position = problem.position
        if position is None or position.source not in self._known:
            return problem
        place, key, text = self._known[position.source]
        there, offset = position_at(self.tree, place), position.column - 1
        if there is None:
            return problem
        if key and offset <= len(key):
            at = key_position_at(self.tree, place if place[-1] == key else place[:-1])
            return replace(problem, position=at.shifted(offset) if at is not None else there)
        return replace(problem, position=position_in(there, text, offset - len(key) - 1 if key else offset))

    def _in_study(self, position: Position) -> Position:
        """The position in the study of the value that a source stands for; another position as it is."""
        known = self._known.get(position.source)
        return position if known is None else position_at(self.tree, known[0]) or position


def networks_of(study: Study) -> Networks:
    """The networks of a study, every one compiled. Needs no data.

    Raises:
        SpecError: The study or a network of it is wrong; with all mistakes.
        UsageError: The same for a study without a file.
    """
    if study.search is not None:
        fail(study, ("search",), "the networks of this study are chosen by a search.", "Train it with 'hrg search'.")
    problems = Problems(study.tree)
    found = _networks(study, problems)
    stop_if_any(problems)
    assert found is not None
    return found


def note_mistakes(study: Study, problems: Problems, lost: Container[str]) -> None:
    """Note what else is wrong with a study whose wrong keys were left out.

    Args:
        lost: Keys that were meant to be there: what follows from their absence is no mistake.
    """
    compares = study.variants is not None or study.subsets is not None or study.grid
    is_whole = study.search is None and not any(key in lost for key in ("network", "changes", "group"))
    if is_whole and (compares or not any(key in lost for key in ("variants", "subsets", "grid", "search"))):
        _networks(study, problems, lost)
    else:
        _controls(study, problems)
        _note_data(study, problems)
        if "network" not in lost:
            _base(study, _Places(study), problems)


def _networks(study: Study, problems: Problems, lost: Container[str] = ()) -> Networks | None:
    """The networks of a study; None if it has mistakes, after they are noted.

    Args:
        lost: As of `note_mistakes`.
    """
    places = _Places(study)
    _note_data(study, problems)
    controls = _controls(study, problems)
    base = _base(study, places, problems)
    if base is None:
        return None
    # Without a grid that can be crossed, the variants are looked at as they are.
    settings = _settings(study, base, places, problems) or [({}, base, study.recipe)]

    members: list[Network] = []
    known: dict[str, list[Network]] = {}
    baseline = None
    left_out: dict[str, str] = {}
    subsets_of: set[tuple[str, ...]] = set()
    for setting, arch, recipe in settings:
        # What the grid says of the recipe makes no other networks.
        of_network = str([item for item in setting.items() if not item[0].startswith("recipe.")])
        try:
            if of_network not in known:
                variants = _variants(study, arch, problems)
                found: dict[str, tuple[Variant, Architecture]] | None
                if study.subsets is not None and study.group == TRANSITIONS:
                    found, reasons = _possible(variants, arch, problems)
                    left_out |= {_told_network(label, setting): reason for label, reason in reasons.items()}
                else:
                    found = _compiled(variants, arch, setting, places, problems)
                if problems.found or found is None:
                    if not any(key in lost for key in ("variants", "subsets", "controls", "grid")):
                        _note_labels(study, [variant.label for variant in variants], controls, problems)
                    continue
                baseline = _with_controls(study, arch, found, controls, places, problems)
                known[of_network] = _members(study, found)
                if study.subsets is not None:
                    of_these = candidates if study.subsets == "family" else edges_of
                    subsets_of.add(tuple(of_these(arch, study.group)))
        except SpecError as error:
            for problem in error.problems:
                problems.report(places.told(problem))
        for member in known.get(of_network, ()):
            if told := check_loss_steps(recipe, member.architecture.plan):
                at = next((key for key in ("loss_steps", "recipe.loss_steps") if key in study.grid), None)
                problems.add(("grid", at) if at else ("recipe", "loss_steps"), told)
            members.append(replace(member, info=replace(member.info, setting=setting), recipe=recipe))
    if len(subsets_of) > 1:
        problems.add(("grid",), "the grid changes the edges of which subsets are taken.", "Make one study of each.")
    if problems.found:
        return None
    return Networks(base.name, tuple(members), baseline, subsets_of.pop() if subsets_of else (), left_out)


def _base(study: Study, places: _Places, problems: Problems) -> Architecture | None:
    """The network with its changes; None after its mistakes are noted."""
    try:
        base = study.base()
        for key, value in study.changes.items():
            base = base.override({key: value}, places.source(("changes", key), key, str(value)))
    except SpecError as error:
        for problem in error.problems:
            problems.report(places.told(problem))
        return None
    except UsageError as error:
        problems.report(Problem(str(error)))
        return None
    return base


def _note_data(study: Study, problems: Problems) -> None:
    try:
        data_of(study)
    except SpecError as error:
        problems.absorb(error)
    except UsageError as error:
        problems.report(Problem(str(error)))


def _note_labels(study: Study, labels: list[str], controls: list[tuple[Place, Control]], problems: Problems) -> None:
    """Note labels that no variant has, where the networks could not be made."""
    if study.variants is not None:  # those that are wrong have their label all the same
        labels = [label for _, label, _ in entries_of(study.variants)]
    for place, control in controls:
        _note_unknown(control, place, labels, problems)
    # What a control is called is not known here.
    if study.baseline is not None and labels and not study.controls and study.baseline not in labels:
        _note_baseline(study, labels, problems)


def _note_unknown(control: Control, place: Place, labels: list[str], problems: Problems) -> bool:
    """Note a control of a variant that is not there."""
    unknown = [label for label in control.of if label not in labels]
    if unknown and labels:
        problems.add(place, f"there is no variant '{unknown[0]}'.", did_you_mean(unknown[0], labels))
    return bool(unknown)


def _note_baseline(study: Study, labels: Iterable[str], problems: Problems) -> None:
    problems.add(("baseline",), f"there is no variant '{study.baseline}'.", did_you_mean(str(study.baseline), labels))


def _controls(study: Study, problems: Problems) -> list[tuple[Place, Control]]:
    found: list[tuple[Place, Control]] = []
    for i, entry in enumerate(study.controls):
        try:
            found.append((("controls", i), control_of(entry)))
        except UsageError as error:
            problems.add(("controls", i), str(error))
    return found


def _settings(
    study: Study, base: Architecture, places: _Places, problems: Problems
) -> list[tuple[dict[str, object], Architecture, Recipe]]:
    """Each combination of the grid: what it chose, the network with it, and the recipe with it."""
    before = len(problems.found)
    params = base.tree.get("params")
    of_recipe = study.recipe.model_dump(exclude_unset=True)
    names = {}
    for key, values in study.grid.items():
        field = key.removeprefix("recipe.")
        is_param = isinstance(params, dict) and key in params
        is_of_recipe = field in Recipe.model_fields and not is_param
        names[key] = f"recipe.{field}" if is_of_recipe else key
        if key in Recipe.model_fields and is_param:
            hint = f"Write 'recipe.{key}' or 'params.{key}'."
            problems.add(("grid", key), f"'{key}' is a field of the recipe and a param of the network.", hint, key=True)
        elif key != field and not is_of_recipe:
            hint = did_you_mean(field, Recipe.model_fields)
            problems.add(("grid", key), f"the recipe has no field '{field}'.", hint, key=True)
        elif key in study.changes:
            problems.add(("grid", key), f"'{key}' is in 'changes', too.", "Leave it out there.", key=True)
        if not values:
            problems.add(("grid", key), "at least one value is wanted.")
        for i, value in enumerate(values):
            if any(value == other and type(value) is type(other) for other in values[:i]):
                problems.add(("grid", key, i), "this value is there twice.", "Leave it out.")
            try:
                make_recipe({field: value} if is_of_recipe else {})
            except UsageError as error:
                problems.add(("grid", key, i), str(error))
    found = []
    is_fine = len(problems.found) == before
    for choice in itertools.product(*(enumerate(values) for values in study.grid.values())) if is_fine else ():
        network, fields, setting = base, dict(of_recipe), dict[str, object]()
        for (key, name), (i, value) in zip(names.items(), choice, strict=True):
            setting[name] = value
            if name.startswith("recipe."):
                fields[name.removeprefix("recipe.")] = value
            else:
                network = network.override({name: value}, places.source(("grid", key, i), key, str(value)))
        try:
            found.append((setting, network, make_recipe(fields)))
        except UsageError as error:
            problems.add(("grid",), str(error))
    return found


def _variants(study: Study, arch: Architecture, problems: Problems) -> list[Variant]:
    if study.variants is not None and study.subsets is not None:
        problems.add(("subsets",), "a study has 'variants' or 'subsets', not both.", "Take one out.", key=True)
    elif study.subsets is not None:
        _ = arch.plan  # what is wrong with the network itself is told by itself
        try:
            return enumerate_variants(arch, study.subsets, study.group)
        except (UsageError, SpecError) as error:
            problems.add(("subsets",), _fact(error))
    elif study.variants is not None:
        found: dict[str, Variant] = {}
        for place, label, value in entries_of(study.variants):
            try:
                if label in found:
                    raise UsageError(f"'{label}' is there twice. Leave it out.")
                found[label] = variant_of(arch, label, value, study.group, place)
            except UsageError as error:
                problems.add(place, str(error))
        if not study.variants:
            problems.add(("variants",), "none is given.", "Name some, like [none, full].")
        return list(found.values())
    elif study.grid:
        return [Variant(arch.chosen or arch.name)]
    else:
        hint = "Write 'variants: [none, full]' or 'subsets: leave-one-out'."
        problems.add((), "a study wants something to compare: 'variants', 'subsets' or 'grid'.", hint)
    return []


def _fact(error: UsageError | SpecError) -> str:
    """What is wrong, without a place in a text that nobody wrote."""
    return " ".join(f"{p.message} {p.advice}" for p in error.problems) if isinstance(error, SpecError) else str(error)


def _possible(
    variants: list[Variant], arch: Architecture, problems: Problems
) -> tuple[dict[str, tuple[Variant, Architecture]], dict[str, str]]:
    """The subsets that are networks, and why the others are none; it is a mistake if all are."""
    found, reasons = possible(arch, variants)
    if reasons and not found:
        hint = "Take 'leave-one-out', or write what must stay as 'flow' or 'edges'."
        problems.add(("subsets",), f"no subset is a network: {next(iter(reasons.values()))}", hint)
    return {variant.label: (variant, network) for variant, network in found}, reasons


def _compiled(
    variants: list[Variant], arch: Architecture, setting: Mapping[str, object], places: _Places, problems: Problems
) -> dict[str, tuple[Variant, Architecture]] | None:
    """Each variant with its network; None if one of them is wrong, after its mistakes are noted."""
    found: dict[str, tuple[Variant, Architecture]] | None = {}
    for variant in variants:
        try:
            network = variant.of(arch, places.source)
            _ = network.plan
            if found is not None:
                found[variant.label] = variant, network
        except SpecError as error:
            everywhere = _problems_of(arch)
            for problem in error.problems:
                if not places.has(problem):
                    own = [] if problem in everywhere else [variant.label]
                    if where := ", ".join([*own, *_chosen(setting)]):
                        problem = replace(problem, message=f"in '{where}', {problem.message}")
                problems.report(places.told(problem))
            found = None
    return found


def _problems_of(arch: Architecture) -> tuple[Problem, ...]:
    try:
        _ = arch.plan
    except SpecError as error:
        return error.problems
    return ()


def _told_network(label: str, setting: Mapping[str, object]) -> str:
    """A variant with what the grid chose for its network: `adjacent, time.steps=4`."""
    return ", ".join([label, *_chosen(setting)])


def _chosen(setting: Mapping[str, object]) -> list[str]:
    return [f"{key}={value}" for key, value in setting.items() if not key.startswith("recipe.")]


def _some(labels: list[str]) -> str:
    """The first of some labels, and how many more there are."""
    shown = "; ".join(dict.fromkeys(labels[:6]))
    return shown if len(labels) <= 6 else f"{shown} and {len(labels) - 6} more"


def _with_controls(
    study: Study,
    arch: Architecture,
    found: dict[str, tuple[Variant, Architecture]],
    controls: list[tuple[Place, Control]],
    places: _Places,
    problems: Problems,
) -> str | None:
    """Put each control behind what it is a control for; the label of the baseline."""
    own = list(found)
    first = None if study.subsets is not None and is_random(study.subsets) else own[0]
    widened = study.baseline if study.baseline in found else own[0]
    for place, control in controls:
        if _note_unknown(control, place, own, problems):
            continue
        try:
            if control.kind == ADJUSTED:
                largest = max(own, key=lambda label: found[label][1].cost().parameters)
                for label in control.of or (largest,):
                    network = adjusted(found[widened][1], label, found[label][1])
                    name = f"adjusted ({label})" if control.of else "adjusted"
                    _insert(found, widened, Variant(name, place=place), network, problems)
                continue
            of_these = candidates(arch, study.group)
            for label in control.of or own:
                edges = _edges(found[label][1], study.group)
                for variant in random_edges(control, label, edges, of_these, study.group) if edges else ():
                    _insert(found, label, variant, variant.of(found[label][1], places.source), problems, place)
        except (UsageError, SpecError) as error:
            problems.add(place, _fact(error))
    if study.baseline is not None and study.baseline not in found:
        _note_baseline(study, found, problems)
    return study.baseline or first


def _insert(
    found: dict[str, tuple[Variant, Architecture]],
    behind: str,
    variant: Variant,
    network: Architecture,
    problems: Problems,
    place: Place | None = None,
) -> None:
    """Put a control behind a variant and the controls that are there already."""
    if variant.label in found:
        problems.add(place or variant.place, f"the label '{variant.label}' is there twice.", "Take one of them out.")
        return
    items = list(found.items())
    at = next(i for i, (label, _) in enumerate(items) if label == behind) + 1
    while at < len(items) and items[at][1][0].place[:1] == ("controls",):
        at += 1
    items.insert(at, (variant.label, (variant, network)))
    found.clear()
    found.update(items)


def _edges(network: Architecture, group: str | None) -> list[str]:
    """The skips of a network, of one group if it is said; or its transitions."""
    if group is not None:
        return chosen_edges(network, group)
    return [">".join(edge.ends) for edge in network.plan.edges if edge.family == "skip"]


def _members(study: Study, found: Mapping[str, tuple[Variant, Architecture]]) -> list[Network]:
    """The networks of one setting, with what is the same among them."""
    same: dict[str, str] = {}
    alike: dict[str, str] = {}
    members = []
    for label, (_, network) in found.items():
        digest, cost = network.plan.digest(), network.cost()
        is_new = digest not in same
        form = wiring(network.plan) if is_new else ""
        info = NetworkInfo(
            label=label,
            setting={},
            plan=digest,
            parameters=cost.parameters,
            macs=cost.macs,
            edges=tuple(_edges(network, study.group)),
            same_as="" if is_new else same[digest],
            isomorphic_to=alike.get(form, ""),
        )
        same.setdefault(digest, label)
        if is_new:
            alike.setdefault(form, label)
        members.append(Network(info, network, study.recipe))
    return members


def wiring(plan: Plan) -> str:
    """A hash of what a network computes apart from the names of its values and weights.

    Two networks have the same if and only if they are isomorphic: operands have an order, so that walking back from the
    outputs numbers the calls, and the weights, in one way alone.
    """
    calls = {call.name: call for call in plan.calls}
    numbers = {name: i for i, name in enumerate(plan.inputs)}
    weights: dict[str, int] = {}
    form: list[Any] = [[str(shape) for shape in plan.inputs.values()]]
    stack = [*plan.outputs.values()][::-1]
    while stack:
        name = stack[-1]
        if name in numbers:
            stack.pop()
            continue
        call = calls[name]
        missing = [operand for operand in call.inputs if operand not in numbers]
        if missing:
            stack.append(missing[0])
            continue
        stack.pop()
        numbers[name] = len(numbers)
        held = weights.setdefault(call.weights, len(weights)) if call.tensors else None
        fields = call.op.model_dump(mode="json", exclude_defaults=True)
        form.append([call.op.kind, fields, [numbers[operand] for operand in call.inputs], held])
    form.append([[name, numbers[value]] for name, value in plan.outputs.items()])
    return hashlib.sha256(json.dumps(form, sort_keys=True).encode()).hexdigest()
