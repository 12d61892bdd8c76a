"""How single operations are computed for all replicas at once.

The replicas lie side by side along the feature axis. A rule turns a call into a function of the operands of all
replicas. Operations without a rule are computed as they are if they treat all channels alike, otherwise one replica
after another; so a new operation needs no rule.

Axes: B samples, M replicas, C channels of one replica, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from hiresnet_graph.lower.code import evaluate
from hiresnet_graph.lower.weights import call_function, find
from hiresnet_graph.ops import (
    Activation,
    Apply,
    BatchNorm,
    ChannelScale,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Flatten,
    GroupNorm,
    LayerNorm,
    LearnedScale,
    Linear,
    Op,
    PadChannels,
    RandomDrop,
    Resize,
    ScaleShift,
    SliceChannels,
    Zeros,
)
from hiresnet_graph.plan import Call
from hiresnet_graph.shapes import Shape
from hiresnet_graph.stack.replicas import Replicas
from hiresnet_graph.stack.supergraph import is_fold

_VECTORS = 128
"""Elements: a multiple of the vector length of any CPU, in any type."""


class Pass:
    """One forward pass: the weights of all replicas, and whether it is a training pass."""

    def __init__(self, replicas: Replicas, leaves: dict[str, torch.Tensor], training: bool) -> None:
        self.training = training
        self._replicas, self._leaves = replicas, leaves
        self._weights: dict[str, torch.Tensor] = {}

    def weight(self, name: str) -> torch.Tensor:
        """A parameter of all replicas, [M, *its shape], without the padding between them.

        Contiguous: torch's batch norm on a CPU reads a strided weight wrongly in its backward pass (torch 2.14.1).
        """
        if name not in self._weights:
            slot = self._replicas.slots[name]
            values_MN = self._leaves[name][:, : slot.size].contiguous()
            self._weights[name] = values_MN.view(self._replicas.count, *slot.tensor.shape)
        return self._weights[name]

    def joined(self, name: str) -> torch.Tensor:
        """A parameter of all replicas, concatenated along its first axis."""
        return self.weight(name).flatten(0, 1)


Run = Callable[..., torch.Tensor]
"""Computes a call from the pass and the operands."""


class Lowered(NamedTuple):
    """A call as a function of the pass and the operands.

    Attributes:
        by_replica: The replicas are computed one after another.
    """

    run: Run
    by_replica: bool = False


@dataclass(frozen=True, slots=True)
class Site:
    """A call of the program.

    Attributes:
        operands: Indices of the operands that some replica has.
        present_M: Whether each replica has the call.
        apply: Its form as a function, if it has one; in place where possible.
    """

    replicas: Replicas
    call: Call
    operands: Sequence[int]
    present_M: tuple[bool, ...]
    apply: Apply | None

    @property
    def op(self) -> Any:
        """The operation; each rule knows its class."""
        return self.call.op

    @property
    def count(self) -> int:
        """M."""
        return self.replicas.count

    @property
    def device(self) -> torch.device:
        """Where the replicas are."""
        return self.replicas.device

    def tensor(self, name: str) -> str:
        """The full name of a tensor of the call."""
        return f"{self.call.weights}.{name}"


Rule = Callable[[Site], Lowered]
_RULES: dict[type[Op], Rule] = {}


def lower(site: Site) -> Lowered:
    """The call as a function for all replicas."""
    if is_fold(site.call):
        return _fold(site)
    shapes = (*site.call.input_shapes, site.call.shape)
    if isinstance(site.op, RandomDrop):
        return _random_drop(site)
    rule = _RULES.get(type(site.op)) if all(shape.feature_axis == 0 for shape in shapes) else None
    if rule is not None:
        return rule(site)
    return _channelwise(site) if site.op.channelwise else _by_replica(site)


def _rule(*kinds: type[Op]) -> Callable[[Rule], Rule]:
    """Register a rule for values with the feature axis after the batch axis."""

    def register(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(kinds, rule))
        return rule

    return register


# ------------------------------------------------------------------------------------- replicas along the features


def feature_axis(shape: Shape) -> int:
    """The feature axis of a batch."""
    return 1 + shape.feature_axis


def split(x: torch.Tensor, replicas: int, shape: Shape) -> torch.Tensor:
    """A value with an axis of replicas before that of the features: [B, M, C, ...], or [B, T, M, C, ...]."""
    axis = feature_axis(shape)
    return x.reshape(*x.shape[:axis], replicas, x.shape[axis] // replicas, *x.shape[axis + 1 :])


def join(x: torch.Tensor, shape: Shape) -> torch.Tensor:
    """The reverse of `split`."""
    return x.flatten(feature_axis(shape), feature_axis(shape) + 1)


def flags(flags_M: Sequence[bool], shape: Shape, device: torch.device) -> torch.Tensor:
    """Flags of replicas in a form that broadcasts to a value of all of them."""
    flags_C = torch.tensor(flags_M, device=device).repeat_interleave(shape.channels)
    return flags_C.view(-1, *[1] * shape.trailing)


# ------------------------------------------------------------------------------------------------------- general rules


def _channelwise(site: Site) -> Lowered:
    plain = partial(_evaluate, site.apply)
    is_rounded_by_position = isinstance(site.op, Activation) and site.op.transcendental and site.device.type == "cpu"
    return Lowered((lambda now, x: _in_full_vectors(partial(plain, now), x)) if is_rounded_by_position else plain)


def _evaluate(apply: Apply | None, now: Pass, *operands: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = evaluate(apply, list(operands), lambda _: None, call_function)
    return found


def _in_full_vectors(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """An elementwise function of a value padded to full vectors.

    CPU kernels round the elements after the last full vector differently, and which replica lies there depends on the
    others.
    """
    missing = -x.numel() % _VECTORS
    if not missing:
        return function(x)
    return function(functional.pad(x.flatten(), (0, missing)))[: x.numel()].view(x.shape)


def _by_replica(site: Site) -> Lowered:
    """Any operation, one replica after another."""
    call, replicas = site.call, site.replicas
    layer = call.op.layer(*call.input_shapes)
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
                found[tensor.name] = replicas.buffers[name][k, : tensor.elements].view(tensor.shape)
        return found

    def run(now: Pass, *operands: torch.Tensor) -> torch.Tensor:
        each = [
            split(x, site.count, shape).unbind(feature_axis(shape))
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
        return join(torch.stack(found, feature_axis(call.shape)), call.shape)

    return Lowered(run, by_replica=True)


def _fold(site: Site) -> Lowered:
    """A fold from the first operand to the last; a replica without an operand keeps its previous value."""
    op, shape, device = site.op, site.call.shape, site.device
    function = find(op.function)
    keeps = [mask.keeps(site.call) for mask in site.replicas.masks]
    folds: list[tuple[torch.Tensor | None, torch.Tensor | None]] = []
    had_M, counts_M = [False] * site.count, [0] * site.count
    for operand in site.operands:
        # The result of a replica without the call is never read.
        here_M = [k[operand] or not has for k, has in zip(keeps, site.present_M, strict=True)]
        both_M = [had and here for had, here in zip(had_M, here_M, strict=True)]
        first_M = [here and not had for had, here in zip(had_M, here_M, strict=True)]
        both = None if all(both_M) else flags(both_M, shape, device)
        folds.append((both, flags(first_M, shape, device) if any(first_M) else None))
        had_M = [had or here for had, here in zip(had_M, here_M, strict=True)]
        counts_M = [count + here for count, here in zip(counts_M, here_M, strict=True)]
    counts: int | torch.Tensor = counts_M[0]
    if len({*counts_M}) > 1:
        counts_C = torch.tensor(counts_M, dtype=site.replicas.dtype, device=device).repeat_interleave(shape.channels)
        counts = counts_C.view(-1, *[1] * shape.trailing)

    def combine(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        if left.shape == right.shape:
            return function(left, right)  # type: ignore[no-any-return]
        return join(function(split(left, site.count, shape), split(right, site.count, shape)), shape)

    def run(now: Pass, *operands: torch.Tensor) -> torch.Tensor:
        found = operands[0]
        for x, (both, first) in zip(operands[1:], folds[1:], strict=True):
            folded = combine(found, x)
            previous = found if first is None else torch.where(first, x, found)
            found = folded if both is None else torch.where(both, folded, previous)
        return found / counts if op.averages else found

    return Lowered(run)


# ------------------------------------------------------------------------------------------------ rules of operations


@_rule(Flatten)
def _flatten(site: Site) -> Lowered:
    """The elements of a replica stay together only if nothing but the batch comes before its features."""
    return _channelwise(site)


@_rule(Resize)
def _resize(site: Site) -> Lowered:
    """Interpolation between pixels is rounded by a CPU according to the position of the channel."""
    is_rounded_by_position = site.op.mode != "nearest" and site.device.type == "cpu"
    return (_by_replica if is_rounded_by_position else _channelwise)(site)


@_rule(Conv2d, ConvTranspose2d)
def _convolution(site: Site) -> Lowered:
    """A convolution with M times as many groups."""
    assert site.apply is not None
    target = find(site.apply.target)
    weight, bias = site.tensor("weight"), site.tensor("bias") if site.op.bias else None
    kwargs = {**site.apply.kwargs, "groups": site.op.groups * site.count}

    def run(now: Pass, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = target(x, now.joined(weight), None if bias is None else now.joined(bias), **kwargs)
        return found

    return Lowered(run)


@_rule(Linear)
def _linear(site: Site) -> Lowered:
    """One matrix product for each replica; on a CPU, a convolution of images of 1x1 size.

    A CPU rounds matrix products according to their position in memory.
    """
    weight, bias = site.tensor("weight"), site.tensor("bias") if site.op.bias else None

    def as_convolution(now: Pass, x: torch.Tensor) -> torch.Tensor:
        weights = now.joined(weight)[:, :, None, None]
        biases = None if bias is None else now.joined(bias)
        return functional.conv2d(x[:, :, None, None], weights, biases, groups=site.count).flatten(1)

    def as_products(now: Pass, x: torch.Tensor) -> torch.Tensor:
        x_MBC = split(x, site.count, site.call.input_shapes[0]).transpose(0, 1)
        weights_MCO = now.weight(weight).transpose(1, 2)
        if bias is None:
            found_MBO = torch.bmm(x_MBC, weights_MCO)
        else:
            found_MBO = torch.baddbmm(now.weight(bias)[:, None], x_MBC, weights_MCO)
        return found_MBO.transpose(0, 1).flatten(1)

    return Lowered(as_convolution if site.device.type == "cpu" else as_products)


@_rule(BatchNorm)
def _batch_norm(site: Site) -> Lowered:
    """One batch norm over all channels of all replicas."""
    replicas, op = site.replicas, site.op
    mean, var, number = (
        replicas.buffers[site.tensor(name)] for name in ("running_mean", "running_var", "num_batches_tracked")
    )
    size, has_space = replicas.slots[site.tensor("running_mean")].size, bool(site.call.shape.spatial)
    has_M1 = None if all(site.present_M) else torch.tensor(site.present_M, device=site.device)[:, None]
    in_place = size == mean.shape[1] and has_M1 is None

    def run(now: Pass, x: torch.Tensor) -> torch.Tensor:
        weight, bias = (now.joined(site.tensor(name)) if op.affine else None for name in ("weight", "bias"))
        # Without padding between the replicas these are views, through which the statistics are updated.
        held = [buffer[:, :size].reshape(-1) for buffer in (mean, var)]
        held = held if in_place else [value.clone() for value in held]
        # A CPU sums over the batch channel by channel if the values of a channel are contiguous.
        laid_out = x if has_space else x.t().contiguous()[None]
        found = functional.batch_norm(laid_out, held[0], held[1], weight, bias, now.training, op.momentum, op.eps)
        found = found if has_space else found[0].t()
        if now.training:
            number[:, :1].add_(1 if has_M1 is None else has_M1)
            for buffer, value in zip((mean, var), held, strict=True) if not in_place else ():
                new_MC = value.view(-1, size)
                buffer[:, :size].copy_(new_MC if has_M1 is None else torch.where(has_M1, new_MC, buffer[:, :size]))
        return found

    return Lowered(run)


@_rule(GroupNorm, LayerNorm)
def _group_norm(site: Site) -> Lowered:
    """A group norm with M times as many groups."""
    layer = site.op.layer(*site.call.input_shapes)
    groups = layer.args[0] if layer.target.endswith("GroupNorm") else 1  # the layer norm of a vector has one group
    weight, bias = site.tensor("weight"), site.tensor("bias")

    def run(now: Pass, x: torch.Tensor) -> torch.Tensor:
        return functional.group_norm(x, groups * site.count, now.joined(weight), now.joined(bias), site.op.eps)

    return Lowered(run)


def _sums_by_position(site: Site) -> bool:
    """For a vector, gradients of weights are sums over the batch: a CPU rounds them by the position of the channel."""
    return site.device.type == "cpu" and site.call.shape.trailing == 0


@_rule(ScaleShift)
def _scale_shift(site: Site) -> Lowered:
    weight, bias, shape = site.tensor("weight"), site.tensor("bias"), site.call.shape
    sizes = (-1, *[1] * shape.trailing)

    def run(now: Pass, x: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(now.joined(bias).view(sizes), x, now.joined(weight).view(sizes))

    def as_convolution(now: Pass, x: torch.Tensor) -> torch.Tensor:
        weights = now.joined(weight)[:, None, None, None]
        return functional.conv2d(x[:, :, None, None], weights, now.joined(bias), groups=len(weights)).flatten(1)

    return Lowered(as_convolution if _sums_by_position(site) else run)


@_rule(ChannelScale)
def _layer_scale(site: Site) -> Lowered:
    weight, shape = site.tensor("weight"), site.call.shape
    sizes = (-1, *[1] * shape.trailing)

    def run(now: Pass, x: torch.Tensor) -> torch.Tensor:
        return x * now.joined(weight).view(sizes)

    def as_convolution(now: Pass, x: torch.Tensor) -> torch.Tensor:
        weights = now.joined(weight)[:, None, None, None]
        return functional.conv2d(x[:, :, None, None], weights, groups=len(weights)).flatten(1)

    return Lowered(as_convolution if _sums_by_position(site) else run)


@_rule(LearnedScale)
def _learned_scale(site: Site) -> Lowered:
    weight, shape = site.tensor("weight"), site.call.shape
    sizes = (-1, *[1] * (shape.trailing + 1))

    def run(now: Pass, x: torch.Tensor) -> torch.Tensor:
        factor_M = now.weight(weight)
        factor_M = _in_full_vectors(torch.sigmoid, factor_M) if site.op.sigmoid else factor_M
        return join(split(x, site.count, shape) * factor_M.view(sizes), shape)

    return Lowered(run)


@_rule(Concat)
def _concat(site: Site) -> Lowered:
    def run(now: Pass, *operands: torch.Tensor) -> torch.Tensor:
        each = [split(x, site.count, shape) for x, shape in zip(operands, site.call.input_shapes, strict=True)]
        return join(torch.cat(each, 2), site.call.shape)

    return Lowered(run)


@_rule(PadChannels)
def _pad_channels(site: Site) -> Lowered:
    shape = site.call.input_shapes[0]
    padding = [*[0, 0] * shape.trailing, *site.op.missing(shape.channels)]
    return Lowered(lambda now, x: join(functional.pad(split(x, site.count, shape), padding), shape))


@_rule(SliceChannels)
def _slice_channels(site: Site) -> Lowered:
    shape, op = site.call.input_shapes[0], site.op
    return Lowered(lambda now, x: join(split(x, site.count, shape).narrow(2, op.start, op.width), shape))


@_rule(Zeros)
def _zeros(site: Site) -> Lowered:
    shape = site.call.shape
    sizes = tuple(shape.with_channels(shape.channels * site.count))
    return Lowered(lambda now, x: x.new_zeros((x.shape[0], *sizes)))


def _random_drop(site: Site) -> Lowered:
    """Each replica draws the numbers that it would draw alone."""
    keep, shape = 1 - site.op.p, site.call.shape
    axis, drawn_sizes = feature_axis(shape), site.op.drawn(shape)
    order = torch.channels_last if len(shape) == 3 and axis == 1 else torch.contiguous_format

    def run(now: Pass, x: torch.Tensor) -> torch.Tensor:
        if not now.training:
            return x
        noise = []
        for k, x_BC in enumerate(split(x, site.count, shape).unbind(axis)):
            if not site.present_M[k]:  # its later numbers must not depend on the other replicas
                noise.append(torch.ones_like(x_BC))
                continue
            drawn = x_BC.new_empty((len(x_BC), *drawn_sizes)).contiguous(memory_format=order)
            drawn.bernoulli_(keep, generator=site.replicas.generators[k])
            noise.append(drawn.div_(keep).expand_as(x_BC).contiguous())
        return x * join(torch.stack(noise, axis), shape)

    return Lowered(run, by_replica=True)
