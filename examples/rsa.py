"""Representational similarity of areas at several time steps: `python examples/rsa.py`."""

import torch
from sklearn.datasets import load_digits

import hiresnet_graph as hrg


def dissimilarity(values: torch.Tensor) -> torch.Tensor:
    """1 - Pearson correlation of the responses to each pair of images, above the diagonal."""
    matrix = 1 - torch.corrcoef(values.flatten(1))
    rows, columns = torch.triu_indices(len(matrix), len(matrix), 1)
    return matrix[rows, columns]


def main() -> None:
    """Compare V1, V2, V4 and IT at two steps with each other, by the correlation of their dissimilarities."""
    images = torch.tensor(load_digits().images[:50], dtype=torch.float32)[:, None] / 16
    images = torch.nn.functional.interpolate(images, (16, 16))
    model = hrg.create_model("blt", in_chans=1, width=8, size=16).eval()
    taps = [f"{area}@{step}" for area in ("V1", "V2", "V4", "IT") for step in (0, 5)]
    with torch.no_grad():
        values = model.features(images, taps)
    similarity = torch.corrcoef(torch.stack([dissimilarity(values[tap]) for tap in taps]))
    print("      " + "  ".join(f"{tap:>5}" for tap in taps))
    for tap, row in zip(taps, similarity.tolist(), strict=True):
        print(f"{tap:>5} " + "  ".join(f"{value:5.2f}" for value in row))


if __name__ == "__main__":
    main()
