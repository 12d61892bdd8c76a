"""Images of the validation and test set whose pixels are also in another part of the data.

Axes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib

import torch

from hiresnet_graph.data.split import Split

# A part, and an earlier one that should share no image with it.
_PAIRS = (("validation", "train"), ("test", "train"), ("test", "validation"))


def count_duplicates(images_NCHW: torch.Tensor, split: Split) -> dict[str, int]:
    """How many images of a part have the pixels of an image of an earlier part, by names like `test_in_train`."""
    pixels_NCHW = images_NCHW.contiguous().numpy()
    digests = {
        part: [hashlib.blake2b(pixels_NCHW[index].data, digest_size=16).digest() for index in indices]
        for part, indices in split._asdict().items()
    }
    known = {part: set(found) for part, found in digests.items()}
    return {f"{part}_in_{other}": sum(digest in known[other] for digest in digests[part]) for part, other in _PAIRS}


def describe_duplicates(counts: dict[str, int], split: Split) -> str:
    """The counts as a sentence; empty if all are 0."""
    found = []
    for part, other in _PAIRS:
        if count := counts[f"{part}_in_{other}"]:
            total, where = len(getattr(split, part)), "training" if other == "train" else other
            found.append(f"{count:,} of {total:,} {part} images {'is' if count == 1 else 'are'} also in {where}")
    return f"equal pixels in several parts: {', '.join(found)}." if found else ""
