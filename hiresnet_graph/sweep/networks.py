"""The networks of a study, every one compiled: for each setting of the grid the variants and their controls.

All errors of a study that its fields alone do not show are reported here, before anything is trained. Needs no data.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.errors import Problem, SpecError, UsageError, did_you_mean
from hiresnet_graph.plan import Plan
from hiresnet_graph.spec.edge_set import PLUS
from hiresnet_graph.spec.problems import Problems
from hiresnet_graph.sweep.assignments import check_assignments
from hiresnet_graph.sweep.controls import ADJUSTED, Control, adjusted, control_of, random_edges
from hiresnet_graph.sweep.grid import Setting, grid_settings
from hiresnet_graph.sweep.isomorphism import wiring
from hiresnet_graph.sweep.published import Published, plain_setting
from hiresnet_graph.sweep.results import NetworkInfo
from hiresnet_graph.sweep.starting_weights import StartingWeights
from hiresnet_graph.sweep.study import Study, fail, raise_if_any
from hiresnet_graph.sweep.subsets import is_random
from hiresnet_graph.sweep.variants import (
    StudyPath,
    Variant,
    candidate_edges,
    chosen_edges,
    edges_of,
    entries_of,
    enumerate_variants,
    name_of,
    override,
    valid_variants,
    variant_of,
)
from hiresnet_graph.train.checks import check_loss_steps
from hiresnet_graph.train.initial_weights import InitialWeights
from hiresnet_graph.train.parameter_rules import check_rules
from hiresnet_graph.train.recipe import Recipe

_SHOWN_LABELS = 6
_Found = dict[str, tuple[Variant, Architecture]]


@dataclass(frozen=True)
class Network:
    """A network of a study, its spec, its recipe, and the weights that its runs start from."""

    info: NetworkInfo
    architecture: Architecture
    recipe: Recipe
    weights: InitialWeights | None = None


@dataclass(frozen=True)
class Networks:
    """All networks of a study.

    Attributes:
        architecture: Name of the network of the study.
        baseline: Label of the variant that the others are compared with; None if the study has none.
        subsets_of: All edges of which the variants are subsets, if a subset rule made them; else empty.
        left_out: Subsets that are not valid networks, with the reason of each.
        misfits: What of the weights does not fit a network, in sentences: by its label.
    """

    architecture: str
    members: tuple[Network, ...]
    baseline: str | None
    subsets_of: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    misfits: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def remarks(self) -> tuple[str, ...]:
        """What is valid and possibly unintended, in sentences: subsets that are left out, misfits, and warnings."""
        remarks = left_out_sentences(self.left_out)
        different = [network for network in self.members if not network.info.same_as]
        warned: dict[str, list[str]] = {}
        for network in different:
            for problem in network.architecture.warnings:
                warned.setdefault(str(problem), []).append(full_label(network.info.label, network.info.setting))
        for text, labels in warned.items():
            remarks.append(f"Warning: {'' if len(labels) == len(different) else f'{_some(labels)}: '}{text}")
        found: dict[str, list[str]] = {}
        for label, sentences in self.misfits.items():
            for sentence in sentences:
                found.setdefault(sentence, []).append(label)
        return (*remarks, *(f"{_some(labels)}: {sentence}" for sentence, labels in found.items()))


def network_of(study: Study) -> Architecture:
    """The network of a study with the changes of the study.

    Raises:
        SpecError: The spec cannot be found or read.
    """
    base = study.base()
    for key, value in study.changes.items():
        base = override(base, key, value, study.tree, ("changes", key), ("changes", key))
    if study.prune is not None:
        base = override(base, "prune", study.prune, study.tree, ("prune",), ("prune",))
    return base


def networks_of(study: Study) -> Networks:
    """The networks of a study.

    Raises:
        SpecError: The study or one of its networks is wrong; with all errors.
        UsageError: The same for a study without a file.
    """
    if study.search is not None:
        fail(study, ("search",), "the networks of this study are chosen by a search.", "Train it with 'hrg search'.")
    problems = Problems(study.tree)
    found = _NetworkBuilder(study, problems).networks()
    raise_if_any(problems)
    assert found is not None
    return found


class _NetworkBuilder:
    """Builds the networks of a study and collects its errors."""

    def __init__(self, study: Study, problems: Problems) -> None:
        self._study, self._problems = study, problems
        self._controls = self._parsed_controls()
        self._baseline: str | None = None
        self._left_out: dict[str, str] = {}
        self._weights = StartingWeights(study, problems)
        self._subsets_of: set[tuple[str, ...]] = set()

    def networks(self) -> Networks | None:
        """The networks; None if there are errors."""
        study, problems = self._study, self._problems
        with collected(problems):
            study.data_source()
        base: Architecture | None = None
        with collected(problems):
            base = network_of(study)
        if base is None:
            return None
        check_assignments(study, base, self._controls, problems)
        # If the grid is wrong, the variants are checked without it.
        settings = grid_settings(study, base, problems) or [Setting({}, base, study.recipe)]
        members: list[Network] = []
        known: dict[str, list[Network]] = {}
        for setting in settings:
            # Settings of the recipe alone share their networks.
            of_network = str([item for item in setting.values.items() if not item[0].startswith("recipe.")])
            with collected(problems):
                if of_network not in known:
                    known[of_network] = self._members(setting)
            for member in known.get(of_network, ()):
                if message := check_loss_steps(setting.recipe, member.architecture.plan):
                    at = next((key for key in ("loss_steps", "recipe.loss_steps") if key in study.grid), None)
                    problems.add(("grid", at) if at else ("recipe", "loss_steps"), message)
                info = replace(member.info, setting=setting.values)
                members.append(replace(member, info=info, recipe=setting.recipe))
        if len(self._subsets_of) > 1:
            hint = "Make one study of each."
            problems.add(("grid",), "the grid changes the edges that subsets are taken of.", hint)
        if study.checks_rules:
            _check_rules(study, members, problems)
        if study.published is not None and members:
            _check_published(study.published, [member.info for member in members], problems)
        if problems.found:
            return None
        subsets_of = self._subsets_of.pop() if self._subsets_of else ()
        misfits = self._weights.sentences
        return Networks(base.name, tuple(members), self._baseline, subsets_of, self._left_out, misfits)

    def _parsed_controls(self) -> list[tuple[StudyPath, Control]]:
        found: list[tuple[StudyPath, Control]] = []
        for i, entry in enumerate(self._study.controls):
            try:
                found.append((("controls", i), control_of(entry)))
            except UsageError as error:
                self._problems.add(("controls", i), str(error))
        return found

    def _members(self, setting: Setting) -> list[Network]:
        """The networks of one setting; empty after their errors are reported."""
        study = self._study
        variants = self._variants(setting.network)
        self._check_labels(variants)
        found = self._valid(variants, setting) if study.subsets is not None else self._compiled(variants, setting)
        if self._problems.found:
            return []
        self._add_controls(setting.network, found, variants[0].label)
        if study.subsets is not None:
            all_edges = candidate_edges if study.subsets == "family" else edges_of
            self._subsets_of.add(tuple(all_edges(setting.network, study.group)))
        return self._compared(found)

    # ---- variants

    def _variants(self, arch: Architecture) -> list[Variant]:
        study, problems = self._study, self._problems
        if study.variants is not None and study.subsets is not None:
            problems.add(("subsets",), "a study has 'variants' or 'subsets', not both.", "Remove one.", key=True)
        elif study.subsets is not None:
            _ = arch.plan  # errors of the network itself are reported as such
            try:
                return enumerate_variants(arch, study.subsets, study.group)
            except (UsageError, SpecError) as error:
                problems.add(("subsets",), _message(error))
        elif study.variants is not None:
            return self._named_variants(arch, study.variants)
        elif study.grid:
            return [Variant(name_of(arch))]
        else:
            hint = "Write 'variants: [none, full]' or 'subsets: leave-one-out'."
            problems.add((), "a study requires something to compare: 'variants', 'subsets' or 'grid'.", hint)
        return []

    def _named_variants(self, arch: Architecture, names: Iterable[str] | Mapping[str, object]) -> list[Variant]:
        found: dict[str, Variant] = {}
        for path, label, value in entries_of(names):
            try:
                if label in found:
                    raise UsageError(f"'{label}' is given twice. Leave it out.")
                found[label] = variant_of(arch, label, value, self._study.group, path)
            except UsageError as error:
                self._problems.add(path, str(error))
        if not names:
            self._problems.add(("variants",), "no variant is given.", "Name some, like [none, full].")
        return list(found.values())

    def _valid(self, variants: list[Variant], setting: Setting) -> _Found:
        """The subsets that are valid networks; it is an error if none is."""
        found, reasons = valid_variants(setting.network, variants)
        if reasons and not found:
            hint = "Take 'leave-one-out', write what must stay as 'flow' or 'edges', or set 'prune: dead'."
            self._problems.add(("subsets",), f"no subset is a network: {next(iter(reasons.values()))}", hint)
        self._left_out |= {full_label(label, setting.values): reason for label, reason in reasons.items()}
        return {variant.label: (variant, network) for variant, network in found}

    def _compiled(self, variants: list[Variant], setting: Setting) -> _Found:
        """Each variant with its network, without those whose errors are reported; equal specs share a network."""
        found: _Found = {}
        known: dict[str, Architecture] = {}
        for variant in variants:
            network = variant.apply(setting.network, self._study.tree)
            try:
                network = known.setdefault(repr(network.patched()), network)
                _ = network.plan
                found[variant.label] = variant, network
            except SpecError as error:
                everywhere = setting.network.problems
                for problem in error.problems:
                    own = [] if problem in everywhere else [variant.label]
                    where = ", ".join([*own, *_network_values(setting.values)])
                    if where and not _points_to_change(problem, network):
                        problem = replace(problem, message=f"in '{where}', {problem.message}")
                    self._problems.report(problem)
        return found

    # ---- controls

    def _check_labels(self, variants: list[Variant]) -> None:
        """Check the labels that controls and the baseline refer to; those of wrong variants are known, too."""
        names = self._study.variants
        labels = [variant.label for variant in variants] if names is None else [entry[1] for entry in entries_of(names)]
        for path, control in self._controls:
            if unknown := [label for label in control.of if label not in labels]:
                self._problems.add(path, f"there is no variant '{unknown[0]}'.", did_you_mean(unknown[0], labels))
        if not self._study.controls:
            self._check_baseline(labels)

    def _check_baseline(self, labels: Collection[str]) -> None:
        baseline = self._study.baseline
        reasons = (reason for label, reason in self._left_out.items() if label.split(", ")[0] == baseline)
        if reason := next(reasons, ""):
            message = f"the baseline '{baseline}' is no network: {reason}"
            self._problems.add(("baseline",), message, "Choose another one, or set 'prune: dead'.")
        elif baseline is not None and labels and baseline not in labels:
            self._problems.add(("baseline",), f"there is no variant '{baseline}'.", did_you_mean(baseline, labels))

    def _add_controls(self, arch: Architecture, found: _Found, first_label: str) -> None:
        """Insert each control after the variant that it controls, and determine the baseline.

        Args:
            first_label: Of the first variant, which may be left out.
        """
        study = self._study
        own = list(found)
        widened = study.baseline if study.baseline in found else own[0]
        for path, control in self._controls:
            try:
                if control.kind == ADJUSTED:
                    self._add_adjusted(control, path, found, own, widened)
                else:
                    self._add_random(control, path, found, own, candidate_edges(arch, study.group))
            except (UsageError, SpecError) as error:
                self._problems.add(path, _message(error))
        self._check_baseline(found)
        # Without the first subset of a rule, no other takes its place.
        is_missing = study.subsets is not None and (is_random(study.subsets) or own[0] != first_label)
        first = None if is_missing else own[0]
        self._baseline = study.baseline or first

    def _add_adjusted(self, control: Control, path: StudyPath, found: _Found, own: list[str], widened: str) -> None:
        largest = max(own, key=lambda label: found[label][1].cost().parameters)
        for label in control.of or (largest,):
            network = adjusted(found[widened][1], label, found[label][1])
            name = f"adjusted ({label})" if control.of else "adjusted"
            own_weights = found[widened][0].weights
            self._insert(found, widened, Variant(name, weights=own_weights, path=path), network, path)

    def _add_random(
        self, control: Control, path: StudyPath, found: _Found, own: list[str], possible: list[str]
    ) -> None:
        group = self._study.group
        for label in control.of or own:
            network = found[label][1]
            edges = _edge_names(network, group)
            if not edges:
                continue

            def is_network(variant: Variant, network: Architecture = network) -> bool:
                return not valid_variants(network, [variant])[1]

            for variant in random_edges(control, label, edges, possible, group, is_network):
                applied = variant.apply(network, self._study.tree)
                self._insert(found, label, replace(variant, weights=found[label][0].weights), applied, path)

    def _insert(self, found: _Found, behind: str, variant: Variant, network: Architecture, path: StudyPath) -> None:
        """Insert a control after a variant and its earlier controls."""
        if variant.label in found:
            self._problems.add(path, f"the label '{variant.label}' is given twice.", "Remove one of them.")
            return
        items = list(found.items())
        at = next(i for i, (label, _) in enumerate(items) if label == behind) + 1
        while at < len(items) and items[at][1][0].path[:1] == ("controls",):
            at += 1
        items.insert(at, (variant.label, (variant, network)))
        found.clear()
        found.update(items)

    # ---- equal networks

    def _compared(self, found: _Found) -> list[Network]:
        """The networks of one setting, with the equal ones among them."""
        labels: dict[tuple[str, str], str] = {}
        by_wiring: dict[tuple[str, str], str] = {}
        members = []
        for label, (variant, network) in found.items():
            digest, cost = network.plan.digest(), network.cost()
            weights = self._weights.of(variant, network.plan, network.files)
            start = "" if weights is None else weights.digest
            is_new = (digest, start) not in labels
            form = wiring(network.plan) if is_new else ""
            info = NetworkInfo(
                label=label,
                setting={},
                plan=digest,
                parameters=cost.parameters,
                macs=cost.macs,
                edges=self._edges_of(variant, network),
                same_as="" if is_new else labels[digest, start],
                isomorphic_to=by_wiring.get((form, start), ""),
            )
            labels.setdefault((digest, start), label)
            if is_new:
                by_wiring.setdefault((form, start), label)
            members.append(Network(info, network, self._study.recipe, weights))
        return members

    def _edges_of(self, variant: Variant, network: Architecture) -> tuple[str, ...]:
        """The edges of a network; those of a subset are all that it has, those that are pruned included."""
        if self._study.subsets in (None, "family") or variant.path or not isinstance(variant.edges, str):
            return tuple(_edge_names(network, self._study.group))
        return () if variant.edges == "none" else tuple(variant.edges.split(PLUS))


@contextmanager
def collected(problems: Problems) -> Iterator[None]:
    """Collect the errors that are raised within."""
    try:
        yield
    except SpecError as error:
        problems.absorb(error)
    except UsageError as error:
        problems.report(Problem(str(error)))


def _check_published(published: Published, networks: Iterable[NetworkInfo], problems: Problems) -> None:
    """Report values of networks that the study does not have."""
    settings: dict[str, list[dict[str, object]]] = {}
    for info in networks:
        settings.setdefault(info.label, []).append(plain_setting(info.setting))
    seen: list[tuple[str, dict[str, object]]] = []
    for i, value in enumerate(published.values):
        path = ("published", "values", i)
        own = value.label, plain_setting(value.setting)
        if value.label not in settings:
            hint = did_you_mean(value.label, settings)
            problems.add((*path, "label"), f"there is no variant '{value.label}'.", hint)
        elif own[1] not in settings[value.label]:
            keys = ", ".join(settings[value.label][0])
            hint = (
                f"Give a value of each field of the grid: {keys}." if keys else "The study has no grid: leave it out."
            )
            problems.add((*path, "setting"), f"'{value.label}' has no network with this setting.", hint)
        elif own in seen:
            problems.add(path, f"'{value.label}' has two values.", "Remove one.")
        seen.append(own)


def _check_rules(study: Study, members: Sequence[Network], problems: Problems) -> None:
    """Report patterns of a recipe that match in none of its networks."""
    of_rules: dict[str, tuple[Recipe, dict[int, Plan]]] = {}  # recipes with equal patterns share their networks
    for member in members:
        recipe, plan = member.recipe, member.architecture.plan
        rules = str((recipe.freeze, recipe.lr_scale, recipe.no_decay))
        of_rules.setdefault(rules, (recipe, {}))[1][id(plan)] = plan
    for recipe, plans in of_rules.values():
        if error := check_rules(recipe, list(plans.values())):
            field = error.split(":")[0]
            varied = next((key for key in (field, f"recipe.{field}") if key in study.grid), None)
            problems.add(("grid", varied) if varied else ("recipe", field), error.removeprefix(f"{field}: "))


def _points_to_change(problem: Problem, network: Architecture) -> bool:
    """Whether the positions of a problem show the change of the network that causes it."""
    sources = {change.value_position.source for change in network.overrides}
    return bool(problem.related) or (problem.position is not None and problem.position.source in sources)


def _message(error: UsageError | SpecError) -> str:
    """The message of an error without its position, which is in a text that the user has not written."""
    return " ".join(f"{p.message} {p.advice}" for p in error.problems) if isinstance(error, SpecError) else str(error)


def _edge_names(network: Architecture, group: str | None) -> list[str]:
    """The skips of a network, or of one of its groups; or its transitions."""
    if group is not None:
        return chosen_edges(network, group)
    return [">".join(edge.ends) for edge in network.plan.edges if edge.family == "skip"]


def full_label(label: str, setting: Mapping[str, object]) -> str:
    """A variant and the values that the grid chose for its network: `adjacent, time.steps=4`."""
    return ", ".join([label, *_network_values(setting)])


def _network_values(setting: Mapping[str, object]) -> Iterable[str]:
    return (f"{key}={value}" for key, value in setting.items() if not key.startswith("recipe."))


def left_out_sentences(left_out: Mapping[str, str]) -> list[str]:
    """Which subsets are left out, and why: label -> reason."""
    reasons: dict[str, list[str]] = {}
    for label, reason in left_out.items():
        reasons.setdefault(reason, []).append(label)
    counts = {reason: f" ({len(labels)} subsets)" if len(labels) > 1 else "" for reason, labels in reasons.items()}
    return [f"Left out: {_some(labels)}{counts[reason]}: {reason}" for reason, labels in reasons.items()]


def _some(labels: list[str]) -> str:
    """The first labels, and the number of the others."""
    shown = "; ".join(dict.fromkeys(labels[:_SHOWN_LABELS]))
    return shown if len(labels) <= _SHOWN_LABELS else f"{shown} and {len(labels) - _SHOWN_LABELS} more"
