"""Which networks of torchvision and timm can be imported, how long their specs are, and how their outputs differ.

    python -m tests.importing.tables torchvision [NAME ...]
    python -m tests.importing.tables timm [NAME ...]

Each network has random weights and a small input, and is compared with its import in float64, in evaluation and in
training mode. What cannot be expressed stands in the last column.
"""

from __future__ import annotations

import ctypes
import gc
import platform
import sys
import warnings
from typing import NamedTuple

import timm
import torch
import torchvision
from torch import nn

from hiresnet_graph.errors import UnsupportedNetwork
from hiresnet_graph.importing import from_module

TIMM = (
    *("resnet18", "resnet50d", "seresnet50", "ecaresnet50t", "skresnet18", "resnext50_32x4d", "res2net50_26w_4s"),
    *("resnetv2_50", "regnetx_002", "regnety_002", "efficientnet_b0", "efficientnetv2_rw_t", "tf_efficientnet_lite0"),
    *("mobilenetv2_100", "mobilenetv3_small_100", "mnasnet_100", "ghostnet_100", "densenet121", "dla34", "dpn68"),
    *("hrnet_w18_small", "repvgg_a0", "xception41", "cspresnet50", "rexnet_100", "convnext_atto", "convnextv2_atto"),
    *("vit_tiny_patch16_224", "deit_tiny_patch16_224", "mixer_s32_224"),
)
"""Thirty of timm, of as many families as possible."""
_SWIN_V2 = "attention of normalised queries and keys, position biases that a small network computes"
MISSING = {
    **dict.fromkeys(("swin_v2_t", "swin_v2_s", "swin_v2_b"), _SWIN_V2),
    "maxvit_t": "attention among every eighth row and column of a grid",
    "ecaresnet50t": "a convolution along the channels",
    "skresnet18": "a softmax over branches",
    "convnextv2_atto": "a norm over height and width, divided by its mean over channels",
}
"""Network -> what a spec cannot express of it."""


class Outcome(NamedTuple):
    """What an import gave.

    Attributes:
        lines: Lines of the spec; 0 without one.
        evaluation, training: Largest differences of the outputs.
        missing: What a spec cannot express; empty if the network was imported.
    """

    lines: int
    evaluation: float
    training: float
    missing: str


def torchvision_names() -> list[str]:
    """All classification models of torchvision."""
    return list(torchvision.models.list_models(module=torchvision.models))


def make(library: str, name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """A network with random weights, and the shape of an input that is as small as it accepts."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if library == "timm":
            module = timm.create_model(name)
            size = module.pretrained_cfg["input_size"][-1]
            return module, (3, size, size) if module.pretrained_cfg.get("fixed_input_size") else (3, 64, 64)
        module = torchvision.models.get_model(name)
    sizes = {"inception_v3": 299, "googlenet": 96, "alexnet": 96, "maxvit_t": 224}
    size = 224 if name.startswith("vit") else sizes.get(name, 64)
    return module, (3, size, size)


def outcome(library: str, name: str) -> Outcome:
    """Import one network."""
    module, shape = make(library, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            imported = from_module(module, input=shape, name=name)
    except UnsupportedNetwork as error:
        return Outcome(0, 0, 0, str(error))
    return Outcome(
        len(imported.text.splitlines()), imported.comparison.evaluation, imported.comparison.training or 0, ""
    )


def give_memory_back() -> None:
    """Free what is in circles of references, as traced graphs are, and return it to the system.

    Several networks of gigabytes would lie beside each other: the collector counts objects, not their size.
    """
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def main() -> None:
    """Print a line for each network, then the share that can be imported."""
    library, *names = sys.argv[1:]
    chosen = names or (TIMM if library == "timm" else torchvision_names())
    print(f"{'network':24} lines  evaluation  training  missing")
    found = 0
    for name in chosen:
        one = outcome(library, name)
        give_memory_back()
        found += not one.missing
        if one.missing:
            lines = one.missing.splitlines()
            parts = [line.partition(": in ")[0].strip() for line in lines[1:]] or lines
            print(f"{name:24}     -           -         -  {MISSING.get(name) or '; '.join(parts)}", flush=True)
        else:
            print(f"{name:24} {one.lines:5}  {one.evaluation:10.1e}  {one.training:8.1e}", flush=True)
    print(f"{found} of {len(chosen)} imported")


if __name__ == "__main__":
    main()
