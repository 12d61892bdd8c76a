"""Replicas of a network as one: each operation is computed for all of them at once.

The replicas lie side by side on the axis of channels, so that a convolution is one with M times as many groups, and a
batch norm one over M times as many channels. No operation mixes replicas. What a replica computes does not depend on
how many others there are, if there are three or more in all: libraries take other kernels for one group.

Networks that differ in what merges add up are computed as the largest of them. Where a replica leaves out an operand,
`where` takes the sum without it; the calls that only lead there get zeros instead of its values, so that their
gradients are exactly 0, and finite.

Axes: B samples, M replicas, C channels of one replica, T steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from hiresnet_graph.lower.single import evaluate
from hiresnet_graph.lower.weights import call_function, find
from hiresnet_graph.ops import (
    GELU,
    Activation,
    AdaptiveAvgPool,
    Affine,
    AvgPool,
    BatchNorm,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Flatten,
    Frame,
    GroupNorm,
    Identity,
    LayerNorm,
    Linear,
    MaxPool,
    Mean,
    Multiply,
    Op,
    PadChannels,
    Resize,
    Scale,
    Sigmoid,
    SiLU,
    SliceChannels,
    Stack,
    Subsample,
    Tanh,
    ToMap,
    Zeros,
)
from hiresnet_graph.plan import Call, Plan, inplace_calls
from hiresnet_graph.shapes import Clip, Map, Series, Shape
from hiresnet_graph.stack.replicas import Replicas
from hiresnet_graph.stack.supergraph import is_merge

_VECTORS = 128
"""Elements: a multiple of what the loops of any CPU take at once, in any type."""
_AS_IT_IS = (
    Activation,
    AdaptiveAvgPool,
    AvgPool,
    Flatten,
    Frame,
    Identity,
    MaxPool,
    Stack,
    Subsample,
    ToMap,
)
"""Operations that do the same to every channel, and so to every replica."""


class Stacked(Replicas):
    """Replicas as one network over M times as many channels; in memory always channels before height and width.

    Args:
        whole: A network that holds all of them.
        parts: The network of each replica.

    Raises:
        ValueError: A part is not `whole` without operands of merges.
    """

    def __init__(
        self,
        whole: Plan,
        parts: Sequence[Plan],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(whole, parts, device=device, dtype=dtype)
        self.leaves: dict[str, torch.Tensor] = {}
        for name in self._trained():
            leaf = self.block(name, self.flat).requires_grad_()
            leaf.grad = self.block(name, self.grad)
            self.leaves[name] = leaf
        self._program = _program(self)
        shapes = {**whole.inputs, **{step.call.name: step.call.shape for step in self._program}}
        self._outputs = {name: (value, shapes[value]) for name, value in whole.outputs.items()}
        self.looped = tuple(sorted({step.call.op.kind for step in self._program if step.looped}))

    def __call__(self, *inputs_MB: torch.Tensor, training: bool) -> Any:
        """What the networks give for inputs [M, B, ...]: [M, B, ...], or a dict of outputs."""
        values: dict[str, torch.Tensor] = {
            name: together(x_MB, shape)
            for (name, shape), x_MB in zip(self.whole.inputs.items(), inputs_MB, strict=True)
        }
        now = Pass(self, training)
        for step in self._program:
            values[step.call.name] = step.run(now, *(values[name] for name in step.operands))
            for name in step.last:
                del values[name]
        outputs = {
            name: apart(values[value], self.replicas, shape).movedim(_axis(shape), 0)
            for name, (value, shape) in self._outputs.items()
        }
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs


class Pass:
    """One computation: what the rules of operations may ask for."""

    def __init__(self, own: Stacked, training: bool) -> None:
        self.own, self.training, self.replicas = own, training, own.replicas
        self._weights: dict[str, torch.Tensor] = {}

    def weight(self, name: str) -> torch.Tensor:
        """A parameter of all replicas, [M, *its shape]."""
        if name not in self._weights:
            block = self.own.blocks[name]
            leaf_MN = self.own.leaves[name]
            self._weights[name] = leaf_MN[:, : block.size].reshape(self.replicas, *block.tensor.shape)
        return self._weights[name]

    def joined(self, name: str) -> torch.Tensor:
        """A parameter of all replicas, one behind the other on its first axis."""
        return self.weight(name).flatten(0, 1)


Run = Callable[..., torch.Tensor]
"""A rule: called with the pass and the operands."""


class _Step(NamedTuple):
    """One call for all replicas.

    Attributes:
        operands: The values that it reads.
        last: Values that nothing reads later.
    """

    call: Call
    operands: tuple[str, ...]
    run: Run
    last: tuple[str, ...]
    looped: bool


# ------------------------------------------------------------------------------------------------- replicas on the axis


def _axis(shape: Shape) -> int:
    """The axis of channels of a batch."""
    return 2 if isinstance(shape, Clip | Series) else 1


def apart(x: torch.Tensor, replicas: int, shape: Shape) -> torch.Tensor:
    """A value with an axis for the replicas, before that of the channels: [B, M, C, ...], or [B, T, M, C, ...]."""
    axis = _axis(shape)
    return x.reshape(*x.shape[:axis], replicas, x.shape[axis] // replicas, *x.shape[axis + 1 :])


def together(x_MB: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Values [M, B, ...] of all replicas with these side by side on the axis of channels."""
    axis = _axis(shape)
    return x_MB.movedim(0, axis).flatten(axis, axis + 1)


def _flags(flags_M: Sequence[bool], shape: Shape, device: torch.device) -> torch.Tensor:
    """Flags of the replicas in a form that spreads over a value of all of them."""
    flags_C = torch.tensor(flags_M, device=device).repeat_interleave(shape.channels)
    return flags_C.view(-1, *[1] * (len(shape) - _axis(shape)))


# -------------------------------------------------------------------------------------------------------- the program


class _Site(NamedTuple):
    """A call in the program.

    Attributes:
        present_M: Whether each replica has the call.
        apply: Its form as a function, if it has one; in place, where nobody minds.
    """

    own: Stacked
    call: Call
    present_M: tuple[bool, ...]
    apply: Any

    @property
    def op(self) -> Any:
        """The operation."""
        return self.call.op

    @property
    def replicas(self) -> int:
        """M."""
        return self.own.replicas

    def tensor(self, name: str) -> str:
        """The full name of a tensor of the call."""
        return f"{self.call.weights}.{name}"


def _program(own: Stacked) -> list[_Step]:
    """The calls that some replica has, each for all of them."""
    calls = [call for call in own.whole.calls if any(call.name not in mask.absent for mask in own.masks)]
    shapes = {**own.whole.inputs, **{call.name: call.shape for call in calls}}
    present = {name: tuple(name not in mask.absent for mask in own.masks) for name in shapes}
    reads = {call.name: tuple(call.inputs[place] for place in _places(own, call)) for call in calls}
    last = {value: call.name for call in calls for value in (call.name, *reads[call.name])}
    for value in own.whole.outputs.values():
        last.pop(value, None)
    passed_on = {call.name for call in calls if is_merge(call) and len(reads[call.name]) == 1}
    in_place = {
        name: apply
        for name, apply in inplace_calls(own.whole).items()
        if name in reads and not passed_on & {*reads[name]}
    }
    steps = []
    for call in calls:
        operands, present_M = reads[call.name], present[call.name]
        apply = in_place.get(call.name) or call.op.apply(*call.input_shapes)
        site = _Site(own, call, present_M, apply)
        known = _as_it_is if isinstance(call.op, _AS_IT_IS) else _one_by_one
        rule = _merge if is_merge(call) else _RULES.get(type(call.op), known)
        guards = [_guard(own, present[name], present_M, shapes[name]) for name in operands]
        run = rule(site)
        if any(guard is not None for guard in guards):
            run = partial(_guarded, run, guards)
        gone = tuple(value for value in dict.fromkeys((*operands, call.name)) if last.get(value) == call.name)
        steps.append(_Step(call, operands, run, gone, rule in (_dropout, _one_by_one) or _is_interpolated(site)))
    return steps


def _places(own: Stacked, call: Call) -> list[int]:
    """The places of the operands of a call that some replica has."""
    having = [mask.keeps(call) for mask in own.masks if call.name not in mask.absent]
    return [place for place in range(len(call.inputs)) if any(keeps[place] for keeps in having)]


def _guard(own: Stacked, operand_M: tuple[bool, ...], present_M: tuple[bool, ...], shape: Shape) -> torch.Tensor | None:
    """Which replicas may see an operand, if it is there in one that has no part of the call."""
    if all(has or not is_there for is_there, has in zip(operand_M, present_M, strict=True)):
        return None
    return _flags(present_M, shape, own.device)


def _guarded(run: Run, guards: Sequence[torch.Tensor | None], now: Pass, *operands: torch.Tensor) -> torch.Tensor:
    """A call that sees zeros in place of what it has no part of."""
    seen = [x if guard is None else torch.where(guard, x, 0.0) for guard, x in zip(guards, operands, strict=True)]
    return run(now, *seen)


# ---------------------------------------------------------------------------------------------------------------- rules


def _as_it_is(site: _Site) -> Run:
    def run(now: Pass, *operands: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = evaluate(site.apply, list(operands), lambda _: None, call_function)
        return found

    return run


def _smooth(site: _Site) -> Run:
    """A function that a CPU computes in whole vectors by other means than in what is left over at the end.

    So nothing is left over: which replica would lie there depends on the others.
    """
    plain = _as_it_is(site)
    if site.own.device.type != "cpu":
        return plain
    return lambda now, x: _in_whole_vectors(partial(plain, now), x)


def _in_whole_vectors(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    missing = -x.numel() % _VECTORS
    if not missing:
        return function(x)
    return function(functional.pad(x.flatten(), (0, missing)))[: x.numel()].view(x.shape)


def _resize(site: _Site) -> Run:
    """Interpolation between pixels is rounded by a CPU as the place of a channel among all has it."""
    return (_one_by_one if _is_interpolated(site) else _as_it_is)(site)


def _is_interpolated(site: _Site) -> bool:
    return isinstance(site.op, Resize) and site.op.mode != "nearest" and site.own.device.type == "cpu"


def _merge(site: _Site) -> Run:
    """A fold from the first operand to the last; a replica that leaves one out keeps what it has."""
    own, call = site.own, site.call
    keeps = [mask.keeps(call) for mask in own.masks]
    is_product = isinstance(call.op, Multiply)
    folds: list[tuple[torch.Tensor | None, torch.Tensor | None]] = []
    had_M, counts_M = [False] * site.replicas, [0] * site.replicas
    for place in _places(own, call):
        # What a replica without the call adds up is never looked at.
        here_M = [k[place] or not has for k, has in zip(keeps, site.present_M, strict=True)]
        both_M = [had and here for had, here in zip(had_M, here_M, strict=True)]
        fresh_M = [here and not had for had, here in zip(had_M, here_M, strict=True)]
        both = None if all(both_M) else _flags(both_M, call.shape, own.device)
        fresh = _flags(fresh_M, call.shape, own.device) if any(fresh_M) else None
        folds.append((both, fresh))
        had_M = [had or here for had, here in zip(had_M, here_M, strict=True)]
        counts_M = [count + here for count, here in zip(counts_M, here_M, strict=True)]
    counts: int | torch.Tensor = counts_M[0]
    if len({*counts_M}) > 1:
        counts_C = torch.tensor(counts_M, dtype=own.dtype, device=own.device).repeat_interleave(call.shape.channels)
        counts = counts_C.view(_flags([True] * site.replicas, call.shape, own.device).shape)

    def run(now: Pass, *operands: torch.Tensor) -> torch.Tensor:
        found = operands[0]
        for x, (both, fresh) in zip(operands[1:], folds[1:], strict=True):
            folded = _product(found, x, site) if is_product else found + x
            kept = found if fresh is None else torch.where(fresh, x, found)
            found = folded if both is None else torch.where(both, folded, kept)
        if isinstance(call.op, Mean):
            found = found / counts
        return found

    return run


def _product(left: torch.Tensor, right: torch.Tensor, site: _Site) -> torch.Tensor:
    if left.shape == right.shape:
        return left * right
    shape, axis = site.call.shape, _axis(site.call.shape)
    left, right = (apart(x, site.replicas, shape) for x in (left, right))
    return (left * right).flatten(axis, axis + 1)


def _convolution(site: _Site) -> Run:
    target = find(site.apply.target)
    weight, bias = site.tensor("weight"), site.tensor("bias") if site.op.bias else None
    how = {**site.apply.kwargs, "groups": site.op.groups * site.replicas}

    def run(now: Pass, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = target(x, now.joined(weight), None if bias is None else now.joined(bias), **how)
        return found

    return run


def _linear(site: _Site) -> Run:
    """One product of matrices for each replica; on a CPU as a convolution of images of 1x1 size.

    Products of matrices are rounded by a CPU as their place in memory has it.
    """
    weight, bias = site.tensor("weight"), site.tensor("bias") if site.op.bias else None
    replicas = site.replicas

    def as_convolution(now: Pass, x: torch.Tensor) -> torch.Tensor:
        weights = now.joined(weight)[:, :, None, None]
        biases = None if bias is None else now.joined(bias)
        return functional.conv2d(x[:, :, None, None], weights, biases, groups=replicas).flatten(1)

    def as_products(now: Pass, x: torch.Tensor) -> torch.Tensor:
        x_MBC = apart(x, replicas, site.call.input_shapes[0]).transpose(0, 1)
        weights_MCO = now.weight(weight).transpose(1, 2)
        if bias is None:
            found_MBO = torch.bmm(x_MBC, weights_MCO)
        else:
            found_MBO = torch.baddbmm(now.weight(bias)[:, None], x_MBC, weights_MCO)
        return found_MBO.transpose(0, 1).flatten(1)

    return as_convolution if site.own.device.type == "cpu" else as_products


def _batch_norm(site: _Site) -> Run:
    own, op = site.own, site.op
    mean, var, number = (
        own.buffers[site.tensor(name)] for name in ("running_mean", "running_var", "num_batches_tracked")
    )
    size, is_map = own.blocks[site.tensor("running_mean")].size, isinstance(site.call.shape, Map)
    has_M1 = None if all(site.present_M) else torch.tensor(site.present_M, device=own.device)[:, None]
    in_place = size == mean.shape[1] and has_M1 is None

    def run(now: Pass, x: torch.Tensor) -> torch.Tensor:
        weight, bias = (now.joined(site.tensor(name)) if op.affine else None for name in ("weight", "bias"))
        # Without padding between the replicas these are views, and what is written to them stays.
        held = [buffer[:, :size].reshape(-1) for buffer in (mean, var)]
        held = held if in_place else [value.clone() for value in held]
        # Sums over the batch are taken channel by channel if that is how the values lie.
        laid = x if is_map else x.t().contiguous()[None]
        found = functional.batch_norm(laid, held[0], held[1], weight, bias, now.training, op.momentum, op.eps)
        found = found if is_map else found[0].t()
        if now.training:
            number[:, :1].add_(1 if has_M1 is None else has_M1)
            for buffer, value in zip((mean, var), held, strict=True) if not in_place else ():
                fresh_MC = value.view(-1, size)
                buffer[:, :size].copy_(fresh_MC if has_M1 is None else torch.where(has_M1, fresh_MC, buffer[:, :size]))
        return found

    return run


def _group_norm(site: _Site) -> Run:
    layer = site.op.layer(*site.call.input_shapes)
    groups = layer.args[0] if layer.target.endswith("GroupNorm") else 1  # a vector's layer norm is one group
    weight, bias = site.tensor("weight"), site.tensor("bias")

    def run(now: Pass, x: torch.Tensor) -> torch.Tensor:
        return functional.group_norm(x, groups * site.replicas, now.joined(weight), now.joined(bias), site.op.eps)

    return run


def _affine(site: _Site) -> Run:
    weight, bias, shape = site.tensor("weight"), site.tensor("bias"), site.call.shape
    sizes = (-1, *[1] * (len(shape) - _axis(shape)))

    def run(now: Pass, x: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(now.joined(bias).view(sizes), x, now.joined(weight).view(sizes))

    def as_convolution(now: Pass, x: torch.Tensor) -> torch.Tensor:
        weights = now.joined(weight)[:, None, None, None]
        return functional.conv2d(x[:, :, None, None], weights, now.joined(bias), groups=len(weights)).flatten(1)

    # The gradients of a vector's are sums over the batch, which a CPU takes as the place of a channel has it.
    return as_convolution if site.own.device.type == "cpu" and len(shape) == 1 else run


def _scale(site: _Site) -> Run:
    weight, shape = site.tensor("weight"), site.call.shape
    sizes = (-1, *[1] * (len(shape) - _axis(shape) + 1))

    def run(now: Pass, x: torch.Tensor) -> torch.Tensor:
        factor_M = now.weight(weight)
        factor_M = _in_whole_vectors(torch.sigmoid, factor_M) if site.op.sigmoid else factor_M
        return (apart(x, site.replicas, shape) * factor_M.view(sizes)).flatten(_axis(shape), _axis(shape) + 1)

    return run


def _concat(site: _Site) -> Run:
    axis = _axis(site.call.shape)

    def run(now: Pass, *operands: torch.Tensor) -> torch.Tensor:
        each = [apart(x, site.replicas, shape) for x, shape in zip(operands, site.call.input_shapes, strict=True)]
        return torch.cat(each, axis + 1).flatten(axis, axis + 1)

    return run


def _on_channels(site: _Site) -> Run:
    """Padding and slices of the axis of channels."""
    shape = site.call.input_shapes[0]
    axis = _axis(shape)

    def run(now: Pass, x: torch.Tensor) -> torch.Tensor:
        x_BMC = apart(x, site.replicas, shape)
        if isinstance(site.op, SliceChannels):
            found = x_BMC.narrow(axis + 1, site.op.start, site.op.width)
        else:
            missing = site.op.width - shape.channels
            before = [0, 0] * (len(shape) - axis)
            found = functional.pad(x_BMC, [*before, missing // 2, missing - missing // 2])
        return found.flatten(axis, axis + 1)

    return run


def _zeros(site: _Site) -> Run:
    sizes = list(site.call.shape)
    sizes[_axis(site.call.shape) - 1] *= site.replicas

    def run(now: Pass, x: torch.Tensor) -> torch.Tensor:
        return x.new_zeros((x.shape[0], *sizes))

    return run


def _dropout(site: _Site) -> Run:
    """Each replica draws what it would draw alone."""
    keep, shape = 1 - site.op.p, site.call.shape
    axis = _axis(shape)
    order = torch.channels_last if isinstance(shape, Map) else torch.contiguous_format

    def run(now: Pass, x: torch.Tensor) -> torch.Tensor:
        if not now.training:
            return x
        noise = []
        for k, x_BC in enumerate(apart(x, site.replicas, shape).unbind(axis)):
            if not site.present_M[k]:  # what it draws later must not depend on the others
                noise.append(torch.ones_like(x_BC))
                continue
            drawn = torch.empty_like(x_BC, memory_format=order).bernoulli_(keep, generator=site.own.noise[k])
            noise.append(drawn.div_(keep).contiguous())
        return x * torch.stack(noise, axis).flatten(axis, axis + 1)

    return run


def _one_by_one(site: _Site) -> Run:
    """Any other operation, replica by replica."""
    call, own = site.call, site.own
    layer = call.op.layer(*call.input_shapes)
    axis = _axis(call.shape)
    if layer is not None:
        with torch.device("meta"):
            module = find(layer.target)(*layer.args, **layer.kwargs)

    def tensors(now: Pass, k: int) -> dict[str, torch.Tensor]:
        found = {}
        for tensor in call.tensors:
            name = site.tensor(tensor.name)
            if tensor.trainable:
                found[tensor.name] = now.weight(name)[k]
            else:
                found[tensor.name] = own.buffers[name][k, : tensor.elements].view(tensor.shape)
        return found

    def run(now: Pass, *operands: torch.Tensor) -> torch.Tensor:
        each = [
            apart(x, site.replicas, shape).unbind(_axis(shape))
            for x, shape in zip(operands, call.input_shapes, strict=True)
        ]
        found = []
        for k, own_operands in enumerate(zip(*each, strict=True)):
            x_BC = [x.contiguous() for x in own_operands]
            held = tensors(now, k)
            if layer is None:
                found.append(evaluate(site.apply, x_BC, held.__getitem__, call_function))
            else:
                found.append(torch.func.functional_call(module.train(now.training), held, tuple(x_BC)))
        return torch.stack(found, axis).flatten(axis, axis + 1)

    return run


_RULES: dict[type[Op], Callable[[_Site], Run]] = {
    Affine: _affine,
    BatchNorm: _batch_norm,
    Concat: _concat,
    Conv2d: _convolution,
    ConvTranspose2d: _convolution,
    Dropout: _dropout,
    GELU: _smooth,
    GroupNorm: _group_norm,
    LayerNorm: _group_norm,
    Linear: _linear,
    PadChannels: _on_channels,
    Resize: _resize,
    Scale: _scale,
    SiLU: _smooth,
    Sigmoid: _smooth,
    SliceChannels: _on_channels,
    Tanh: _smooth,
    Zeros: _zeros,
}
