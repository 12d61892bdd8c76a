"""The logit of the right class as a sum over the edges into the last merge of a network.

Axes: B images of a batch, K classes, N images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch

from hiresnet_graph.analysis.contributions import MergedValue, operands_of
from hiresnet_graph.analysis.probes import Compute, ProbedNetwork, call_directly
from hiresnet_graph.errors import UsageError
from hiresnet_graph.lower.interpreter import Visit
from hiresnet_graph.plan import Call
from hiresnet_graph.train.evaluation import last_step

_POWER = 4
STEPS = 64
"""Points of the integral along the path from no activation to the full one, where the network is not linear."""


class Attribution(NamedTuple):
    """What each operand of the last merge adds to the logit of the right class, as means over images.

    Attributes:
        operands: The operands of the merge.
        values: What each adds.
        constant: The logit if all operands are zero, as from biases.
        logit: The logit of the right class.
        error: Mean absolute difference between the logit and the sum of all values and the constant.
        is_linear: The logit is an affine function of the operands, so that the sum is exact.
    """

    operands: tuple[MergedValue, ...]
    values: tuple[float, ...]
    constant: float
    logit: float
    error: float
    is_linear: bool


def attribute(
    network: ProbedNetwork,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    *,
    steps: int = STEPS,
    forward: Compute = call_directly,
) -> Attribution:
    """The logit of the right class as a sum over the values that meet at the last merge, and a constant.

    The last merge is the last one of the network with two operands or more; in a network in time, at the last step. An
    operand adds its activation times the gradient of the logit, averaged along the straight path from zero to the
    activations of all operands (integrated gradients). Where the network is affine after the merge, as with global
    average pooling and a linear layer, the gradient is constant, and this is direct logit attribution: exact, without
    an integral. A logit is that of the last readout step.

    Args:
        batches: Images [B, channels, height, width] and labels.
        steps: Points of the integral, where the network is not affine.
        forward: See `Compute`.

    Raises:
        UsageError: No two values arrive at one slot; or there are no images.

    Source: Sundararajan et al. 2017, arXiv:1703.01365; direct logit attribution as in TransformerLens.
    """
    operands = _last_merge(network)
    names = [one.call.name for one in operands]
    calls = network.readers(names)
    is_linear = all(call.op.is_affine for call in calls)
    keep = {*names, *(name for call in calls for name in call.inputs)} - ({call.name for call in calls} - set(names))
    totals, images = torch.zeros(len(names) + 3, dtype=torch.float64), 0
    for x_BCHW, labels_B in batches:
        values: dict[str, torch.Tensor] = {}

        def intact(x_BCHW: torch.Tensor, values: dict[str, torch.Tensor] = values) -> torch.Tensor:
            values |= network.run(x_BCHW, keep=keep)
            return network.output(values)

        def changed(
            visit: Visit, values: dict[str, torch.Tensor] = values, x_BCHW: torch.Tensor = x_BCHW
        ) -> torch.Tensor:
            return forward(lambda _: network.rerun(values, calls, visit), x_BCHW)

        logits_B = _right(forward(intact, x_BCHW), labels_B)
        activations = {name: values[name] for name in names}
        parts, constant_B = _integral(activations, changed, labels_B, 1 if is_linear else steps)
        sums = [part.double().flatten(1).sum(1) for part in parts]
        error_B = (torch.stack([constant_B, *sums]).sum(0) - logits_B).abs()
        totals += torch.stack([one.sum() for one in (*sums, constant_B, logits_B, error_B)]).cpu()
        images += len(labels_B)
    if not images:
        raise UsageError("there are no images to evaluate the network on.")
    *found, constant, logit, error = (totals / images).tolist()
    return Attribution(operands, tuple(found), constant, logit, error, is_linear)


def _last_merge(network: ProbedNetwork) -> tuple[MergedValue, ...]:
    merges = operands_of(network)
    if not merges:
        raise UsageError(
            f"'{network.arch.title}' merges nothing: no two values arrive at one slot, so there is nothing to "
            "attribute logits to. Analyse a variant with skips or shortcuts."
        )
    order = {call.name: i for i, call in enumerate(network.plan.calls)}
    return max(merges, key=lambda group: max(order[one.call.name] for one in group))


def _right(output: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
    """The logits of the right classes, as float64."""
    return last_step(output).double().gather(1, labels_B[:, None])[:, 0]


def _integral(
    activations: dict[str, torch.Tensor],
    changed: Callable[[Visit], torch.Tensor],
    labels_B: torch.Tensor,
    steps: int,
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """What each element of each operand adds to the logits, and the logits without operands.

    Args:
        activations: The operands, by the names of their calls.
        changed: Gives the output with other operands.
    """
    sums = [torch.zeros_like(value) for value in activations.values()]
    for share, weight in _points(steps):
        with torch.enable_grad():
            leaves = {name: (share * value).detach().requires_grad_() for name, value in activations.items()}
            logits_B = _right(changed(_Put(leaves)), labels_B)
            found = torch.autograd.grad(logits_B.sum(), list(leaves.values()))
        for total, gradient in zip(sums, found, strict=True):
            total += weight * gradient
    zeros = {name: torch.zeros_like(value) for name, value in activations.items()}
    parts = [value * total for value, total in zip(activations.values(), sums, strict=True)]
    return parts, _right(changed(_Put(zeros)), labels_B)


def _points(steps: int) -> list[tuple[float, float]]:
    """Points between 0 and 1 with their weights, for an integral: dense near 0, where a norm changes fast.

    A norm ignores the scale of its input, but for a tiny one. Gauss and Legendre's rule over u with the point u^4; the
    weights sum to 1 from three points on.
    """
    if steps == 1:
        return [(0.5, 1.0)]
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(steps)
    u = (nodes + 1) / 2
    return [(float(x), float(w)) for x, w in zip(u**_POWER, _POWER * u ** (_POWER - 1) * weights / 2, strict=True)]


class _Put:
    """Replaces the values of calls."""

    def __init__(self, values: dict[str, torch.Tensor]) -> None:
        self.values = values

    def __call__(self, call: Call, value: torch.Tensor) -> torch.Tensor:
        return self.values.get(call.name, value)
