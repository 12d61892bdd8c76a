"""A wrapper like those of Brain-Score: names of layers to arrays of images: `python examples/brain_score.py`."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

import hiresnet_graph as hrg


class ActivationsModel:
    """Activations of a network for images, as Brain-Score and similar toolboxes read them.

    Args:
        identifier: A network for `create_model`.
        layers: Nodes, stages or blocks, with a time step as in `V4@3`.
    """

    def __init__(self, identifier: str, layers: Sequence[str], **params: Any) -> None:
        self.identifier, self.layers = identifier, tuple(layers)
        self.model = hrg.create_model(identifier, **params).eval()

    @torch.no_grad()
    def __call__(self, images: np.ndarray, batch: int = 64) -> dict[str, np.ndarray]:
        """Layer -> activations [images, units].

        Args:
            images: [images, height, width, channels], of type uint8.
        """
        found: dict[str, list[np.ndarray]] = {layer: [] for layer in self.layers}
        for part in self._batches(images, batch):
            for layer, value in self.model.features(part, self.layers).items():
                found[layer].append(value.flatten(1).numpy())
        return {layer: np.concatenate(parts) for layer, parts in found.items()}

    def _batches(self, images: np.ndarray, batch: int) -> Iterable[torch.Tensor]:
        for start in range(0, len(images), batch):
            part = torch.from_numpy(images[start : start + batch]).float() / 255
            yield (part.permute(0, 3, 1, 2) - 0.5) / 0.5


def main() -> None:
    """Print the shapes of the activations of 100 images."""
    images = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
    areas = ActivationsModel("blt", ["V1@0", "V2@2", "V4@3", "IT@5"])
    for layer, values in areas(images).items():
        print(f"{layer}: {values.shape}")


if __name__ == "__main__":
    main()
