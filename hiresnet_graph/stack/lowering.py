"""Replicas of a network as one network: each operation is computed for all of them at once.

The replicas lie side by side along the channels, so that a convolution becomes one with M times as many groups, and a
batch norm one over M times as many channels. No operation mixes replicas. The values of a replica do not depend on the
number of other replicas if there are three or more in total: libraries use other kernels for one group.

Networks that differ in the operands of their merges are computed as their supergraph. Where a replica lacks an operand,
`where` selects the value without it. Calls that no operand of a replica depends on get zeros instead of its values, so
that their gradients are exactly 0, and finite.

Axes: B samples, M replicas.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from hiresnet_graph.plan import Call, Plan, inplace_calls
from hiresnet_graph.shapes import Shape
from hiresnet_graph.stack.replicas import Replicas
from hiresnet_graph.stack.rules import Pass, Run, Site, feature_axis, flags, lower, split
from hiresnet_graph.stack.supergraph import is_fold
from hiresnet_graph.stack.token_rules import token_rule


class Stacked(Replicas):
    """Replicas as one network over M times as many channels, in contiguous memory format.

    Args:
        supergraph: A network that contains all of them.
        subgraphs: The network of each replica.

    Raises:
        ValueError: A subgraph is not the supergraph without operands of merges.
    """

    def __init__(
        self,
        supergraph: Plan,
        subgraphs: Sequence[Plan],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(supergraph, subgraphs, device=device, dtype=dtype)
        self._leaves: dict[str, torch.Tensor] = {}
        for name in self._trained():
            leaf = self.view(name, self.flat).requires_grad_()
            leaf.grad = self.view(name, self.grad)
            self._leaves[name] = leaf
        self._program = _program(self)
        shapes = {**supergraph.inputs, **{step.call.name: step.call.shape for step in self._program}}
        self._outputs = {name: (value, shapes[value]) for name, value in supergraph.outputs.items()}
        self.fallback_ops = tuple(sorted({step.call.op.kind for step in self._program if step.by_replica}))

    def __call__(self, *inputs_MB: torch.Tensor, training: bool) -> Any:
        """The outputs of the networks for inputs [M, B, ...]: [M, B, ...], or a dict of these."""
        values: dict[str, torch.Tensor] = {
            name: _side_by_side(x_MB, shape)
            for (name, shape), x_MB in zip(self.supergraph.inputs.items(), inputs_MB, strict=True)
        }
        now = Pass(self, self._leaves, training)
        for step in self._program:
            values[step.call.name] = step.run(now, *(values[name] for name in step.operands))
            for name in step.last:
                del values[name]
        outputs = {
            name: split(values[value], self.count, shape).movedim(feature_axis(shape), 0)
            for name, (value, shape) in self._outputs.items()
        }
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs


class _Step(NamedTuple):
    """One call for all replicas.

    Attributes:
        operands: The values that it reads.
        last: Values that no later call reads.
        by_replica: The replicas are computed one after another.
    """

    call: Call
    operands: tuple[str, ...]
    run: Run
    last: tuple[str, ...]
    by_replica: bool


def _program(replicas: Replicas) -> list[_Step]:
    """The calls that some replica has, each for all replicas."""
    supergraph, masks = replicas.supergraph, replicas.masks
    calls = [call for call in supergraph.calls if any(call.name not in mask.absent for mask in masks)]
    shapes = {**supergraph.inputs, **{call.name: call.shape for call in calls}}
    present = {name: tuple(name not in mask.absent for mask in masks) for name in shapes}
    indices = {call.name: _operands(replicas, call) for call in calls}
    reads = {call.name: tuple(call.inputs[index] for index in indices[call.name]) for call in calls}
    last = {value: call.name for call in calls for value in (call.name, *reads[call.name])}
    for value in supergraph.outputs.values():
        last.pop(value, None)
    passed_on = {call.name for call in calls if is_fold(call) and len(reads[call.name]) == 1}
    inplace = {
        name: apply
        for name, apply in inplace_calls(supergraph).items()
        if name in reads and not passed_on & {*reads[name]}
    }
    steps = []
    for call in calls:
        operands, present_M = reads[call.name], present[call.name]
        apply = inplace.get(call.name) or call.op.apply(*call.input_shapes)
        site = Site(replicas, call, indices[call.name], present_M, apply)
        run, by_replica = (token_rule(site) or lower)(site)
        guards = [_guard(present[name], present_M, shapes[name], replicas.device) for name in operands]
        if any(guard is not None for guard in guards):
            run = partial(_guarded, run, guards)
        unread = tuple(value for value in dict.fromkeys((*operands, call.name)) if last.get(value) == call.name)
        steps.append(_Step(call, operands, run, unread, by_replica))
    return steps


def _operands(replicas: Replicas, call: Call) -> list[int]:
    """Indices of the operands of a call that some replica has."""
    keeps = [mask.keeps(call) for mask in replicas.masks if call.name not in mask.absent]
    return [index for index in range(len(call.inputs)) if any(keep[index] for keep in keeps)]


def _side_by_side(x_MB: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Values [M, B, ...] of all replicas, side by side along the feature axis; contiguous at any width."""
    axis = feature_axis(shape)
    return x_MB.movedim(0, axis).flatten(axis, axis + 1).contiguous()


def _guard(
    operand_M: tuple[bool, ...], present_M: tuple[bool, ...], shape: Shape, device: torch.device
) -> torch.Tensor | None:
    """The replicas that may read an operand, if others have the operand, but not the call."""
    if all(has or not is_there for is_there, has in zip(operand_M, present_M, strict=True)):
        return None
    return flags(present_M, shape, device)


def _guarded(run: Run, guards: Sequence[torch.Tensor | None], now: Pass, *operands: torch.Tensor) -> torch.Tensor:
    """A call that reads zeros for the replicas without it."""
    seen = [x if guard is None else torch.where(guard, x, 0.0) for guard, x in zip(guards, operands, strict=True)]
    return run(now, *seen)
