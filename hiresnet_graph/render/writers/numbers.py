"""Lengths that all writers of pictures have in common."""

from __future__ import annotations

RADIUS = 7.0
"""Of the corners of boxes and frames."""
BASELINE = 0.35
"""How far below its centre the baseline of a text is, as a share of its size."""


def number(value: float) -> str:
    """A length with at most two decimals."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
