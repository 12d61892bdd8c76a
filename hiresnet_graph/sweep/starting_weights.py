"""The weights that the networks of a study start from: those of the study, or of a variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiresnet_graph.errors import UsageError
from hiresnet_graph.spec.marked import position_at
from hiresnet_graph.spec.problems import Problems
from hiresnet_graph.spec.reader import SUFFIXES
from hiresnet_graph.sweep.study import Study
from hiresnet_graph.sweep.variants import StudyPath, Variant
from hiresnet_graph.train.initial_weights import InitialWeights, initial_weights
from hiresnet_graph.train.record import weights_file

if TYPE_CHECKING:
    from hiresnet_graph.lower.weight_files import WeightFile
    from hiresnet_graph.plan import Plan


class StartingWeights:
    """Finds the weights of each network, and checks that they fit.

    Attributes:
        sentences: What does not fit and keeps its initial values, or is not used: by label.
    """

    def __init__(self, study: Study, problems: Problems) -> None:
        self._study, self._problems = study, problems
        self.sentences: dict[str, list[str]] = {}
        self._unreadable: set[Path] = set()

    def of(self, variant: Variant, plan: Plan, specs: Sequence[Path] = ()) -> InitialWeights | None:
        """The weights of a variant; None for random ones, or after an error is reported.

        Args:
            specs: The files of its spec.
        """
        path: StudyPath = (*variant.path, "weights") if "weights" in variant.weights else ("weights",)
        source = variant.weights.get("weights", self._study.weights)
        reinit = variant.weights.get("reinit", self._study.reinit)
        if fault := _fault(variant.weights):
            self._problems.add(variant.path, f"'{variant.label}': {fault}")
            return None
        if source is None:
            if reinit and "reinit" in variant.weights:
                message = "'reinit' says what happens to weights that do not fit, and there are no weights."
                self._problems.add((*variant.path, "reinit"), message, "Add 'weights: FILE', or leave it out.")
            return None
        located = self._located(source, path)
        if located in self._unreadable:
            return None
        try:
            found, file = _read(located, tuple(specs), reinit)
        except UsageError as error:
            self._unreadable.add(located)
            self._problems.add(path, str(error))
            return None
        try:
            fit = found.fit(plan, file)
        except UsageError as error:
            self._problems.add(path, f"variant '{variant.label}': {error}")
            return None
        self.sentences[variant.label] = [*([file.note] if file.note else []), *fit.sentences()]
        return found

    def _located(self, source: str, path: StudyPath) -> Path:
        """The path of a file: relative to that of the study, if it is written there."""
        position = position_at(self._study.tree, path)
        written = Path(source).expanduser()
        if position is not None and Path(position.source.name).suffix in SUFFIXES:
            return Path(position.source.name).parent / written
        return written


def _fault(fields: Mapping[str, Any]) -> str:
    """What is wrong with the keys `weights` and `reinit` of a variant; empty if nothing is."""
    source, reinit = fields.get("weights"), fields.get("reinit", False)
    if source is not None and not isinstance(source, str):
        return f"'weights' must be a file or the folder of a run, or null for random weights, not {source!r}."
    return "" if isinstance(reinit, bool) else f"'reinit' must be true or false, not {reinit!r}."


def _read(path: Path, specs: tuple[Path, ...], reinit: bool) -> tuple[InitialWeights, WeightFile]:
    try:
        stat = weights_file(path).stat()
    except OSError:
        return initial_weights(path, reinit=reinit)  # which says what is wrong
    return _cached(path, specs, reinit, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)  # a search reads the file for each of its networks
def _cached(
    path: Path, specs: tuple[Path, ...], reinit: bool, modified_ns: int, size: int
) -> tuple[InitialWeights, WeightFile]:
    return initial_weights(path, specs, reinit=reinit)
