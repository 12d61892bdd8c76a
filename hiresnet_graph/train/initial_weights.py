"""Weights that a run starts from, instead of random ones. torch is loaded when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from hiresnet_graph.errors import RunError, UsageError

if TYPE_CHECKING:
    from hiresnet_graph.lower.weight_files import Fit, WeightFile
    from hiresnet_graph.plan import Plan

REINIT_HINT = "To initialise at random what does not fit: '--reinit', or 'reinit: true' in a study."


class InitialWeights(BaseModel):
    """The weights that a run starts from.

    Attributes:
        source: The path of a file, or of the folder of a run.
        digest: A hash of all tensors in it; part of the key of the run.
        reinit: Whether tensors that do not fit are initialised at random, from the seed of the run. Without it, all
            tensors of the network must be in the file; the file may have more, as those of edges that were removed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    digest: str
    reinit: bool = False

    def fit(self, plan: Plan, file: WeightFile | None = None) -> Fit:
        """How they fit a network.

        Args:
            file: Their file, if it was read already.

        Raises:
            RunError: The file cannot be read, or has changed.
            UsageError: They do not fit.
        """
        from hiresnet_graph.lower.weight_files import Fit, read_weights
        from hiresnet_graph.lower.weights import shapes_of

        if file is None:
            file = read_weights(Path(self.source))
            if file.digest() != self.digest:
                raise RunError(f"{file.path}: these weights have changed since the run was requested.")
        fit = Fit.of(file, shapes_of(plan))
        if refusal := fit.refusal(reinit=self.reinit, allow_unused=True):
            raise UsageError(f"{refusal} {REINIT_HINT}")
        return fit


def initial_weights(source: Path | str, *, reinit: bool = False) -> tuple[InitialWeights, WeightFile]:
    """The weights in a file or the folder of a run, and the file.

    Args:
        source: As for `read_weights`.
        reinit: As for `InitialWeights`.

    Raises:
        UsageError: They cannot be read.
    """
    from hiresnet_graph.lower.weight_files import read_weights

    path = Path(source).expanduser()
    file = read_weights(path, UsageError)
    return InitialWeights(source=str(path.absolute()), digest=file.digest(), reinit=reinit), file
