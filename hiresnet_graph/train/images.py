"""Images that somebody has, as a trained network takes them.

Axes: N images, B of a batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from hiresnet_graph.data.dataset import resized
from hiresnet_graph.data.loader import normalised
from hiresnet_graph.errors import UsageError
from hiresnet_graph.shapes import Map
from hiresnet_graph.train.evaluation import at_last_step
from hiresnet_graph.train.record import Preprocessing

_BATCH = 256


def preprocessed(images: np.ndarray | torch.Tensor, how: Preprocessing) -> torch.Tensor:
    """8-bit images brought to the shape of a network and normalised, by the code that training uses.

    Raises:
        UsageError: They are no 8-bit images, or have other channels than the network.
    """
    images_NCHW, shape = _checked(images), Map(*how.shape)
    channels = images_NCHW.shape[1]
    if channels not in (1, shape.channels):
        raise UsageError(
            f"the images have {channels} channels, the network wants {shape.channels}. Arrays are read as "
            "(N, H, W, C), tensors as (N, C, H, W)."
        )
    mean_C11, std_C11 = (torch.tensor(values, dtype=torch.float32).view(-1, 1, 1) for values in (how.mean, how.std))
    device = images_NCHW.device
    return normalised(resized(images_NCHW, shape), mean_C11.to(device), (1 / std_C11).to(device))


@torch.no_grad()
def probabilities(module: nn.Module, images: np.ndarray | torch.Tensor, how: Preprocessing) -> torch.Tensor:
    """What a network in evaluation mode takes each image for: (N, K), on the CPU; the sum over classes is 1.

    Of a network with `readout: all`, it is what the last step says.

    Raises:
        UsageError: They are no 8-bit images, or have other channels than the network.
    """
    batches = torch.split(_checked(images), _BATCH)
    return torch.cat(
        [at_last_step(module(preprocessed(images_BCHW, how))).float().softmax(1) for images_BCHW in batches]
    )


def _checked(images: np.ndarray | torch.Tensor) -> torch.Tensor:
    """The images as a tensor (N, C, H, W)."""
    axes = "(N, C, H, W)" if isinstance(images, torch.Tensor) else "(N, H, W, C)"
    wanted = f"8-bit images (uint8, 0 to 255) are wanted, {axes}, or grey ones (N, H, W)"
    if not isinstance(images, torch.Tensor | np.ndarray):
        raise UsageError(f"{wanted}, as a numpy array or a tensor, not {type(images).__name__}.")
    if images.dtype not in (torch.uint8, np.uint8):
        raise UsageError(f"{wanted}, not numbers of type {str(images.dtype).removeprefix('torch.')}.")
    # Three axes that end in the colours are one image, not many grey ones of no width.
    one = images.ndim == 3 and isinstance(images, np.ndarray) and images.shape[2] in (3, 4)
    if images.ndim not in (3, 4) or one:
        hint = " Give one image as images[None]." if images.ndim in (2, 3) else ""
        raise UsageError(f"{wanted}, not {tuple(images.shape)}.{hint}")
    if isinstance(images, torch.Tensor):
        return images if images.ndim == 4 else images[:, None]
    found = torch.from_numpy(np.array(images))  # a copy: arrays may be read-only, or have negative strides
    return found.permute(0, 3, 1, 2) if found.ndim == 4 else found[:, None]
