"""Projections and numbers in the few words that fit into a diagram."""

from __future__ import annotations

_PROJECTION = {
    "avg": "avg pool",
    "max": "max pool",
    "stride": "subsample",
    "adaptive": "adaptive pool",
    "conv1x1": "1x1 conv",
    "pad": "zero pad",
    "slice": "channel slice",
    "batch": "BN",
    "group": "GN",
    "layer": "LN",
}


def projection(text: str) -> str:
    """The description of a projection, like `avg, conv1x1, batch`, in words: `avg pool, 1x1 conv, BN`."""
    parts = text.removesuffix(" (always)").split(", ")
    return ", ".join(_PROJECTION.get(part, part.replace("_", " ")) for part in parts)


def parameters(number: int) -> str:
    """A number of parameters for a box; nothing for none."""
    return f"{number:,} params" if number else ""


def amount(number: int) -> str:
    """A large number with its unit: `35.8 M`."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)
