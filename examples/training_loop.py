"""A plain PyTorch training loop around a network of this package: `python examples/training_loop.py`."""

import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import hiresnet_graph as hrg


def main(epochs: int = 3) -> None:
    """Train on 1,400 images of digits, and print the accuracy on the others."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    model = hrg.create_model("hiresnet18@full", num_classes=10, in_chans=1, width=8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    order = torch.Generator().manual_seed(0)
    for epoch in range(epochs):
        model.train()
        for batch in torch.randperm(1400, generator=order).split(100):
            loss = cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            correct = model.eval()(images[1400:]).argmax(1) == labels[1400:]
        print(f"epoch {epoch + 1}: accuracy {correct.float().mean():.3f}")


if __name__ == "__main__":
    main()
