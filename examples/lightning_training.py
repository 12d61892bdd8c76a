"""Training with Lightning (`pip install lightning`): `python examples/lightning_training.py`."""

import logging
import warnings

import lightning
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import hiresnet_graph as hrg


class Classifier(lightning.LightningModule):
    """A network with its loss and its optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.model = hrg.create_model("hiresnet18", num_classes=10, in_chans=1, width=8)

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        """The loss of a batch."""
        images, labels = batch
        return cross_entropy(self.model(images), labels)

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        """Log the accuracy."""
        images, labels = batch
        self.log("accuracy", (self.model(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def main(epochs: int = 2) -> None:
    """Train on digits, and print the accuracy on held-out images."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    data = TensorDataset(images, torch.tensor(digits.target))
    training = DataLoader(torch.utils.data.Subset(data, range(1400)), batch_size=100, shuffle=True)
    held_out = DataLoader(torch.utils.data.Subset(data, range(1400, len(data))), batch_size=100)
    lightning.seed_everything(0, verbose=False)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifier(), training, held_out)
    print(f"accuracy {trainer.callback_metrics['accuracy']:.3f}")


if __name__ == "__main__":
    main()
