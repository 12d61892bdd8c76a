"""Weights that a run starts from, instead of random ones. torch is loaded when they are read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from hiresnet_graph.errors import RunError, UsageError

if TYPE_CHECKING:
    from hiresnet_graph.lower.weight_files import Fit, WeightFile
    from hiresnet_graph.plan import Plan


class InitialWeights(BaseModel):
    """The weights that a run starts from.

    Attributes:
        source: The path of a file, or of the folder of a run.
        digest: A hash of all tensors in it; part of the key of the run.
        names: The file whose map renamed the tensors, those of another library; empty for none.
        reinit: Whether tensors that do not fit keep their initial values, from the seed of the run. Without it, all
            tensors of the network must be in the file; the file may have more, as those of edges that were removed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    digest: str
    names: str = ""
    reinit: bool = False

    def fit(self, plan: Plan, file: WeightFile | None = None) -> Fit:
        """How they fit a network.

        Args:
            file: Their file, if it was read already.

        Raises:
            RunError: The file cannot be read, or has changed.
            UsageError: They do not fit.
        """
        from hiresnet_graph.lower.weight_files import REINIT_HINT, Fit, read_weights
        from hiresnet_graph.lower.weights import shapes_of

        if file is None:
            file = read_weights(Path(self.source), maps=[Path(self.names)] if self.names else [])
            if file.digest() != self.digest:
                raise RunError(f"{file.path}: these weights have changed since the run was requested.")
        fit = Fit.of(file, shapes_of(plan))
        hint = f"{REINIT_HINT.removesuffix('.')}, or 'reinit: true' in a study."
        if refusal := fit.refusal(reinit=self.reinit, allow_unused=True, hint=hint):
            raise UsageError(refusal)
        return fit


def initial_weights(
    source: Path | str, specs: Iterable[Path] = (), *, reinit: bool = False
) -> tuple[InitialWeights, WeightFile]:
    """The weights in a file or the folder of a run, and the file.

    Args:
        source: As for `read_weights`.
        specs: The files of the spec, beside which an import may have written the names of the tensors.
        reinit: As for `InitialWeights`.

    Raises:
        UsageError: They cannot be read.
    """
    from hiresnet_graph.lower.weight_files import maps_beside, read_weights

    path = Path(source).expanduser()
    file = read_weights(path, UsageError, maps_beside(specs))
    names = "" if file.map is None else str(file.map)
    return InitialWeights(source=str(path.absolute()), digest=file.digest(), names=names, reinit=reinit), file
