"""The table of a study: one row per variant and setting, with mean and standard deviation over seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from hiresnet_graph.formats import format_count
from hiresnet_graph.report.scores import Setting, Spread, finished, percent, setting_columns, spread
from hiresnet_graph.sweep.published import Published, PublishedValue
from hiresnet_graph.sweep.results import NetworkInfo, Results, RunRow, read_results
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import Environment, RunRecord, Seeds


class Row(NamedTuple):
    """A variant under one setting. Accuracies are in percent; None without finished runs.

    Attributes:
        setting: Setting of the grid; empty without a grid.
        runs: Number of requested runs.
        n: Number of complete runs, which have an accuracy.
        diverged: Number of runs whose loss became infinite or NaN.
        failed: Number of runs that failed after several attempts.
        pruned: Number of runs that a search stopped early.
        missing: Number of runs still to be trained.
        test: Test accuracy at the epoch of best validation.
        test_top_k: The same, counting the `top_k` most probable classes.
        last: Test accuracy at the last epoch.
        last_top_k: The same, counting the `top_k` most probable classes.
        validation: Best validation accuracy.
        same_as: The variant of the same network, whose runs are shown; or empty.
        isomorphic_to: The variant with the same graph, but other weight names; or empty.
        published: Published test accuracy; None if there is none.
        scores: The complete runs, by their seeds.
    """

    variant: str
    setting: Setting
    parameters: int
    macs: int
    runs: int
    n: int
    diverged: int
    failed: int
    pruned: int
    missing: int
    test: Spread | None
    test_top_k: Spread | None
    last: Spread | None
    last_top_k: Spread | None
    validation: Spread | None
    same_as: str
    isomorphic_to: str
    published: PublishedValue | None
    scores: Mapping[Seeds, RunScores]


class RunScores(NamedTuple):
    """The accuracies of a run in percent, as in `Row`."""

    test: float | None
    last: float | None
    validation: float | None


class Table(NamedTuple):
    """The rows in the order of the study, and the conditions of training.

    Attributes:
        recipe: Recipe of the study, without the grid.
        seeds: Every requested pair of seeds.
        machines: Every different combination of versions, device and settings that computed a run, with the number of
            its runs.
        settings: The fields of the grid, with their column headers.
        published: Published results of the same networks.
        weights: What runs started from instead of random weights -> labels of the variants.
    """

    name: str
    architecture: str
    data: str
    recipe: Recipe
    baseline: str | None
    seeds: tuple[Seeds, ...]
    rows: tuple[Row, ...]
    machines: Mapping[Environment, int]
    settings: Mapping[str, str]
    is_search: bool
    published: Published | None
    weights: Mapping[str, tuple[str, ...]]

    def __repr__(self) -> str:
        return f"<Table {self.name} on {self.data}: {format_count(len(self.rows), 'row')}>"

    @property
    def mixed(self) -> tuple[str, ...]:
        """Conditions that differ between runs, like `torch 2.14.1 (8 runs) and 2.12.0 (2 runs)`."""
        mixed = {name: counts for name, counts in self._counts().items() if len(counts) > 1}
        return tuple(
            f"{name} " + " and ".join(f"{value} ({format_count(count, 'run')})" for value, count in counts.items())
            for name, counts in mixed.items()
        )

    @property
    def caption(self) -> str:
        """A description of the numbers and of the conditions, in a few sentences."""
        return " ".join([self._description("at the epoch of best validation, and at the last epoch"), *self._origin()])

    @property
    def caption_for_paper(self) -> str:
        """The caption without versions and devices, for test accuracy at the epoch of best validation only."""
        return self._description("at the epoch of best validation")

    @property
    def origin(self) -> str:
        """The versions, devices and settings that computed the runs; empty without finished runs."""
        return " ".join(self._origin())

    def _description(self, epochs: str) -> str:
        sentences = [
            f"{self.architecture} on {self.data}: {self._protocol()}.",
            f"Test accuracy in percent {epochs}: mean (standard deviation, ddof 1).",
        ]
        everything = len({row.variant for row in self.rows})
        for source, labels in self.weights.items():
            which = "Runs" if len(labels) == everything else f"Runs of {', '.join(labels)}"
            sentences.append(f"{which} started from the weights in {source}.")
        if any(row.same_as for row in self.rows):
            sentences.append("(= X): the same network as X, so the same runs.")
        if any(row.isomorphic_to for row in self.rows):
            sentences.append("(~ X): the same graph as X with other weight names, so with other random draws.")
        rows = [row for row in self.rows if not row.same_as]
        for count, state in (
            (sum(row.diverged for row in rows), "diverged: they have no accuracy and are not counted in n"),
            (sum(row.failed for row in rows), "failed"),
            (sum(row.missing for row in rows), "still to be trained"),
        ):
            if count:
                sentences.append(f"{format_count(count, 'run')} {state}.")
        if self.published is not None:
            sentences += self.published.sentences()
        if self.is_search:
            sentences.append("These networks were selected by a search, by their accuracy on the validation images.")
        return " ".join(sentences)

    def _protocol(self) -> str:
        """The recipe in one line, without the values of fields that the grid varies."""
        recipe = self.recipe
        factor = "halved" if recipe.step_factor == 0.5 else f"times {recipe.step_factor:g}"
        decay, warm_up = (format_count(number, "epoch") for number in (recipe.step_every, recipe.warmup_epochs))
        seeds = f"seed{'' if len(self.seeds) == 1 else 's'} {', '.join(map(str, self.seeds))}"
        parts = {
            "epochs": format_count(recipe.epochs, "epoch"),
            "batch_size": f"batch {recipe.batch_size}",
            "optimizer": recipe.optimizer,
            "lr": f"learning rate {recipe.lr:g}",
            "schedule": {"step": f"{factor} every {decay}"}.get(recipe.schedule, recipe.schedule),
            "warmup_epochs": f"warm-up over {warm_up}" if recipe.warmup_epochs else "",
            "weight_decay": f"weight decay {recipe.weight_decay:g}" if recipe.weight_decay else "",
            "no_decay": f"no decay of {', '.join(recipe.no_decay)}" if recipe.no_decay and recipe.weight_decay else "",
            "patience": f"stopped after {format_count(recipe.patience, 'epoch')} without progress"
            if recipe.patience
            else "",
            "ema": f"moving average of weights {recipe.ema:g}" if recipe.ema else "",
            "class_weights": "class weights" if recipe.class_weights else "",
            "label_smoothing": f"label smoothing {recipe.label_smoothing:g}" if recipe.label_smoothing else "",
            "losses": ", ".join(f"loss of {name} times {weight:g}" for name, weight in recipe.losses),
            "loss_steps": _format_loss_steps(recipe),
            "freeze": f"frozen: {' '.join(recipe.freeze)}" if recipe.freeze else "",
            "lr_scale": " ".join(f"rate of {key} times {factor:g}" for key, factor in recipe.lr_scale),
            "augment": f"augmentation {recipe.augment}",
            "rand_augment": "" if recipe.rand_augment is None else f"RandAugment {recipe.rand_augment}",
            "random_erasing": f"random erasing {recipe.random_erasing:g}" if recipe.random_erasing else "",
            "mixup": f"mixup {recipe.mixup:g}" if recipe.mixup else "",
            "cutmix": f"CutMix {recipe.cutmix:g}" if recipe.cutmix else "",
            "precision": recipe.precision if recipe.precision != "fp32" else "",
        }
        parts.update({column: f"{column} by row" for column in self.settings.values()})
        return ", ".join([part for part in parts.values() if part] + [seeds])

    def _origin(self) -> list[str]:
        if not self.machines:
            return []
        common = ", ".join(
            f"{name} {value}"
            for name, counts in self._counts().items()
            for value in counts
            if len(counts) == 1 and value != "unknown"
        )
        sentences = [f"Computed with {common}."] if common else []
        if mixed := self.mixed:
            sentences.append(
                f"Mixed: {'; '.join(mixed)}. Runs with the same seed may therefore differ in their last bits."
            )
        return sentences

    def _counts(self) -> dict[str, dict[str, int]]:
        """The values of each condition, with their numbers of runs."""
        conditions: dict[str, Counter[str]] = {}
        for machine, runs in self.machines.items():
            for name, value in _conditions(machine).items():
                conditions.setdefault(name, Counter())[value] += runs
        return {name: dict(counts) for name, counts in conditions.items()}


def summarize(folder: Path | str) -> Table:
    """The table of a study's folder, or of the folder of a single run.

    Raises:
        RunError: The folder is neither, or a file in it cannot be read.
    """
    return make_table(read_results(folder))


def make_table(results: Results) -> Table:
    """The table of a study."""
    runs = finished(results)
    by_network: dict[int, list[RunRow]] = {}
    for row in results.rows:
        by_network.setdefault(row.network, []).append(row)
    published = results.published
    rows = (
        _row(network, list(runs[i].values()), by_network.get(i, []))._replace(
            published=published.value_for(network.label, network.setting) if published is not None else None
        )
        for i, network in enumerate(results.networks)
    )
    records = {row.key: row.record for row in results.rows if row.record is not None}
    recipe = Recipe.model_validate(dict(results.recipe))
    augment = {record.recipe.augment for record in records.values()}
    if len(augment) == 1:  # the meaning of `standard` for this data set
        recipe = recipe.model_copy(update={"augment": augment.pop()})
    return Table(
        name=results.name,
        architecture=results.architecture,
        data=results.data,
        recipe=recipe,
        baseline=results.baseline,
        seeds=tuple(dict.fromkeys(row.seeds for row in results.rows)),
        rows=tuple(rows),
        machines=Counter(record.machine for record in records.values()),
        settings=setting_columns(results),
        is_search=results.is_search,
        published=published,
        weights=_weights(results),
    )


def _weights(results: Results) -> dict[str, tuple[str, ...]]:
    """What runs started from instead of random weights -> labels of the variants."""
    found: dict[str, dict[str, None]] = {}
    for row in results.rows:
        if row.record is not None and row.record.weights is not None:
            found.setdefault(row.record.weights.source, {})[results.networks[row.network].label] = None
    return {source: tuple(labels) for source, labels in found.items()}


def _row(network: NetworkInfo, runs: list[RunRecord], rows: list[RunRow]) -> Row:
    states = Counter(row.state for row in rows)
    return Row(
        variant=network.label,
        setting=network.setting,
        parameters=network.parameters,
        macs=network.macs,
        runs=len(rows),
        n=len(runs),
        diverged=states["diverged"],
        failed=states["failed"],
        pruned=states["pruned"],
        missing=states["waiting"] + states["running"],
        test=_percents(run.test_accuracy for run in runs),
        test_top_k=_percents(run.test_top_k for run in runs),
        last=_percents(run.last_test_accuracy for run in runs),
        last_top_k=_percents(run.last_test_top_k for run in runs),
        validation=_percents(run.validation_accuracy for run in runs),
        same_as=network.same_as,
        isomorphic_to=network.isomorphic_to,
        published=None,
        scores={
            run.seeds: RunScores(
                percent(run.test_accuracy), percent(run.last_test_accuracy), percent(run.validation_accuracy)
            )
            for run in runs
        },
    )


def _format_loss_steps(recipe: Recipe) -> str:
    """The readout steps that the loss is computed at; empty for their mean."""
    if recipe.loss_steps == "mean":
        return ""
    weights = recipe.loss_steps
    return "loss of the last step" if weights == "last" else f"loss of the steps {':'.join(f'{w:g}' for w in weights)}"


def _percents(fractions: Iterable[float | None]) -> Spread | None:
    return spread(percent(fraction) for fraction in fractions)


def _format_commit(commit: str | None) -> str:
    """A commit with twelve digits; changes to it are not cut off."""
    digits, plus, changes = (commit or "unknown").partition("+")
    return f"{digits[:12]}{plus}{changes}"


def _conditions(machine: Environment) -> dict[str, str]:
    """The conditions that can differ between machines, with their names in captions."""
    return {
        "hiresnet_graph": machine.hiresnet_graph,
        "commit": _format_commit(machine.commit),
        "torch": machine.torch,
        "Python": machine.python,
        "device": machine.device,
        "threads": str(machine.threads),
        "layout": "channels_last" if machine.channels_last else "contiguous",
        "backend": machine.backend,
        "platform": machine.platform,
    }
