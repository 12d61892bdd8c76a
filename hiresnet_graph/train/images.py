"""Images from outside a data set, prepared for a trained network.

Axes: N images, B of a batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from hiresnet_graph.data.dataset import resize
from hiresnet_graph.data.loader import normalize
from hiresnet_graph.errors import UsageError
from hiresnet_graph.shapes import Map
from hiresnet_graph.train.evaluation import last_step

_BATCH = 256


def preprocess(
    images: np.ndarray | torch.Tensor, shape: tuple[int, int, int], mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """8-bit images in the input shape of a network and normalised, by the same code as in training.

    Raises:
        UsageError: They are not 8-bit images, or have other channels than the network.
    """
    images_NCHW, target = _as_tensor(images), Map(*shape)
    channels = images_NCHW.shape[1]
    if channels not in (1, target.channels):
        raise UsageError(
            f"the images have {channels} channels, the network expects {target.channels}. Arrays are read as "
            "(N, H, W, C), tensors as (N, C, H, W)."
        )
    mean_C11, std_C11 = (torch.tensor(values, dtype=torch.float32).view(-1, 1, 1) for values in (mean, std))
    device = images_NCHW.device
    return normalize(resize(images_NCHW, target), mean_C11.to(device), (1 / std_C11).to(device))


@torch.no_grad()
def class_probabilities(
    forward: Callable[[torch.Tensor], torch.Tensor],
    images: np.ndarray | torch.Tensor,
    preprocessing: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """The probability of each class for each image (N, K), by a network in evaluation mode on the CPU.

    With `readout: all`, those of the last step.

    Raises:
        UsageError: They are not 8-bit images, or have other channels than the network.
    """
    batches = torch.split(_as_tensor(images), _BATCH)
    return torch.cat([last_step(forward(preprocessing(images_BCHW))).float().softmax(1) for images_BCHW in batches])


def _as_tensor(images: np.ndarray | torch.Tensor) -> torch.Tensor:
    """The images as a tensor (N, C, H, W)."""
    axes = "(N, C, H, W)" if isinstance(images, torch.Tensor) else "(N, H, W, C)"
    expected = f"expected 8-bit images (uint8, 0 to 255), {axes}, or grey ones (N, H, W)"
    if not isinstance(images, torch.Tensor | np.ndarray):
        raise UsageError(f"{expected}, as a numpy array or a tensor, not {type(images).__name__}.")
    if images.dtype not in (torch.uint8, np.uint8):
        raise UsageError(f"{expected}, not numbers of type {str(images.dtype).removeprefix('torch.')}.")
    # Three axes of which the last are colours: one image, not many grey ones of width 3.
    is_one = images.ndim == 3 and isinstance(images, np.ndarray) and images.shape[2] in (3, 4)
    if images.ndim not in (3, 4) or is_one:
        hint = " Give one image as images[None]." if images.ndim in (2, 3) else ""
        raise UsageError(f"{expected}, not {tuple(images.shape)}.{hint}")
    if isinstance(images, torch.Tensor):
        return images if images.ndim == 4 else images[:, None]
    found = torch.from_numpy(np.array(images))  # a copy: arrays may be read-only, or have negative strides
    return found.permute(0, 3, 1, 2) if found.ndim == 4 else found[:, None]
