"""What the figures of this package have in common: their widths on a journal page, and their colours."""

from __future__ import annotations

WIDTHS_CM = {"single": 8.5, "double": 17.5}
"""Width of one and of two columns of a usual journal page, in cm."""
POINTS_PER_CM = 72 / 2.54
"""Points of PDF, and pixels of an SVG at its natural size."""
HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's colours, which are distinguishable with any colour vision (without black and yellow)."""
