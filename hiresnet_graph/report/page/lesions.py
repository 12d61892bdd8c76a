"""What lesions of edges tell, in one sentence."""

from __future__ import annotations

from typing import NamedTuple

from hiresnet_graph.formats import format_count
from hiresnet_graph.report.analyses import Analysis, label_of_row
from hiresnet_graph.report.scores import spread

_NAMED = 4  # networks in the sentence


class _Loss(NamedTuple):
    """The mean loss of accuracy of a network without some edges, in points, and that of each run."""

    label: str
    edges: str
    mean: float
    runs: tuple[float, ...]


def lesion_conclusion(analysis: Analysis) -> str:
    """Which lesion lowers the accuracy of each network most, the largest losses first; empty without numbers."""
    question = analysis.question
    found: dict[str, list[_Loss]] = {}
    for row in analysis.rows:
        edges, runs = str(row.keys[0]), tuple(-value for value in row.values[0] if value is not None)
        loss = spread(runs)
        if loss is not None and edges not in question.not_drawn and not edges.startswith(question.reference):
            label = label_of_row(row)
            found.setdefault(label, []).append(_Loss(label, edges, loss.mean, runs))
    if not found:
        return ""
    largest = [max(losses, key=lambda one: one.mean) for losses in found.values()]
    largest.sort(key=lambda one: -one.mean)
    losses = [one for one in largest if one.mean > 0]
    if not losses:
        return "No lesion lowers the mean accuracy of a network."
    several = " most" if any(len(one) > 1 for one in found.values()) else ""
    parts = [f"for {one.label} without {one.edges}, by {one.mean:.2f} points{_range(one)}" for one in losses[:_NAMED]]
    if len(losses) > _NAMED:
        parts.append(f"the table has {format_count(len(losses) - _NAMED, 'other network')}")
    return f"Without training again, accuracy falls{several} {'; '.join(parts)}."


def _range(loss: _Loss) -> str:
    """The smallest and the largest loss of several runs."""
    if len(loss.runs) < 2:
        return ""
    return f" ({min(loss.runs):.2f} to {max(loss.runs):.2f} in {format_count(len(loss.runs), 'run')})"
