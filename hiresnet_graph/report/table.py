"""The table of a study: one row a variant and setting, with mean and spread over its seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from hiresnet_graph.report.scores import Setting, Spread, finished, percent, setting_columns, spread
from hiresnet_graph.sweep.results import NetworkInfo, Results, RunRow, read_results
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import Environment, RunRecord, Seeds


class Row(NamedTuple):
    """A variant under one setting. Accuracies are in percent; None without finished runs.

    Attributes:
        setting: What the grid chose; empty without a grid.
        runs: Runs that were asked for.
        n: Those of them that ended with an accuracy.
        diverged: Those whose loss was not finite.
        failed: Those that were given up after errors.
        pruned: Those that a search gave up.
        missing: Those that are still to be trained.
        test: On the test images, at the epoch of best validation.
        test_top_k: The same, the right class being among the `top_k` first.
        last: On the test images, at the last epoch.
        last_top_k: The same, the right class being among the `top_k` first.
        validation: On the validation images, at the epoch where it is best.
        same_as: The variant that is the same network, so that its runs are shown; or empty.
        isomorphic_to: The variant that is the same graph under other weight names; or empty.
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


class Table(NamedTuple):
    """The rows in the order of the study, and what all of them were trained with.

    Attributes:
        recipe: As the study says it, before the grid.
        seeds: Every pair of seeds that was asked for.
        top_k: Of the recipe.
        machines: Every different combination of versions, device and settings that computed a run, with the number
            of its runs.
        settings: The fields of the grid, and what the table calls them.
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

    @property
    def mixed(self) -> tuple[str, ...]:
        """What was not the same for all runs, like `torch 2.14.1 (8 runs) and 2.12.0 (2 runs)`."""
        return tuple(
            f"{name} {' and '.join(f'{value} ({_runs(count)})' for value, count in counts.items())}"
            for name, counts in self._counts().items()
            if len(counts) > 1
        )

    @property
    def caption(self) -> str:
        """What the numbers are and where they come from, in a few sentences."""
        return " ".join([self._said("at the epoch of best validation, and at the last epoch"), *self._origin()])

    @property
    def caption_for_paper(self) -> str:
        """The caption without what computed the runs, and for test accuracy at the epoch of best validation alone."""
        return self._said("at the epoch of best validation")

    @property
    def origin(self) -> str:
        """What computed the runs, in a sentence or two; empty without finished runs."""
        return " ".join(self._origin())

    def _said(self, epochs: str) -> str:
        sentences = [
            f"{self.architecture} on {self.data}: {self._protocol()}.",
            f"Test accuracy in percent {epochs}: mean (standard deviation, ddof 1).",
        ]
        if any(row.same_as for row in self.rows):
            sentences.append("(= X): the same network as X, so the same runs.")
        if any(row.isomorphic_to for row in self.rows):
            sentences.append("(~ X): the same graph as X under other names of weights, so other random draws.")
        for count, what in (
            (sum(row.diverged for row in self._own()), "diverged: they have no accuracy, and n leaves them out"),
            (sum(row.failed for row in self._own()), "failed"),
            (sum(row.missing for row in self._own()), "still to be trained"),
        ):
            if count:
                sentences.append(f"{_runs(count)} {what}.")
        if self.is_search:
            sentences.append("A search chose these networks by their accuracy on the validation images.")
        return " ".join(sentences)

    def _own(self) -> list[Row]:
        """The rows without those that repeat another."""
        return [row for row in self.rows if not row.same_as]

    def _protocol(self) -> str:
        """The recipe in a line; of what the grid varies, that it does."""
        recipe = self.recipe
        factor = "halved" if recipe.step_factor == 0.5 else f"times {recipe.step_factor:g}"
        parts = {
            "epochs": f"{recipe.epochs} epochs",
            "batch_size": f"batch {recipe.batch_size}",
            "optimizer": recipe.optimizer,
            "lr": f"learning rate {recipe.lr:g}",
            "schedule": {"step": f"{factor} every {recipe.step_every} epochs"}.get(recipe.schedule, recipe.schedule),
            "warmup_epochs": f"warm-up over {recipe.warmup_epochs} epochs" if recipe.warmup_epochs else "",
            "weight_decay": f"weight decay {recipe.weight_decay:g}" if recipe.weight_decay else "",
            "label_smoothing": f"label smoothing {recipe.label_smoothing:g}" if recipe.label_smoothing else "",
            "loss_steps": _told_steps(recipe),
            "augment": f"augmentation {recipe.augment}",
            "precision": recipe.precision if recipe.precision != "fp32" else "",
        }
        parts.update({column: f"{column} by row" for column in self.settings.values()})
        return ", ".join([part for part in parts.values() if part] + [f"seeds {', '.join(map(str, self.seeds))}"])

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
            sentences.append(f"Mixed: {'; '.join(mixed)}. Runs that share a seed may differ in their bits by this.")
        return sentences

    def _counts(self) -> dict[str, dict[str, int]]:
        """Of each fact about the machines its values, with the number of runs."""
        facts: dict[str, Counter[str]] = {}
        for machine, runs in self.machines.items():
            for name, value in _facts(machine).items():
                facts.setdefault(name, Counter())[value] += runs
        return {name: dict(counts) for name, counts in facts.items()}


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
    rows = (_row(network, list(runs[i].values()), by_network.get(i, [])) for i, network in enumerate(results.networks))
    records = {row.key: row.record for row in results.rows if row.record is not None}
    recipe = Recipe.model_validate(dict(results.recipe))
    augment = {record.recipe.augment for record in records.values()}
    if len(augment) == 1:  # what `standard` meant for this data set
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
    )


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
    )


def _told_steps(recipe: Recipe) -> str:
    """Which steps of the readout the loss is of; nothing for their mean."""
    if recipe.loss_steps == "mean":
        return ""
    weights = recipe.loss_steps
    return "loss of the last step" if weights == "last" else f"loss of the steps {':'.join(f'{w:g}' for w in weights)}"


def _percents(shares: Iterable[float | None]) -> Spread | None:
    return spread(percent(share) for share in shares)


def _runs(count: int) -> str:
    return f"{count} run{'s' if count != 1 else ''}"


def _facts(machine: Environment) -> dict[str, str]:
    """What can differ between machines, as people say it."""
    return {
        "hiresnet_graph": machine.hiresnet_graph,
        "commit": machine.commit[:12] if machine.commit else "unknown",
        "torch": machine.torch,
        "Python": machine.python,
        "device": machine.device,
        "threads": str(machine.threads),
        "layout": "channels_last" if machine.channels_last else "contiguous",
        "backend": machine.backend,
        "platform": machine.platform,
    }
