"""A tape of operations, and how each is computed from its operands and the tensors of a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, reduce
from typing import Any, NamedTuple

import torch
from torch import nn

from hiresnet_graph.lower.weights import find
from hiresnet_graph.ops import Apply, Arg, ChainedApply, Layer, Op, Weight
from hiresnet_graph.shapes import Shape
from hiresnet_graph.spec.model import PerStep

Taken = Mapping[str, tuple[torch.Tensor, bool]]
"""The tensors of a call by their own names, and whether they are trainable."""
Own = Callable[["Tensors"], Taken]
Compute = Callable[["Tensors", Taken, list[torch.Tensor]], torch.Tensor]


class Missing(LookupError):
    """A call requires a tensor that the module lacks; `weights` is its name without the step."""

    def __init__(self, call: str, step: int | None, weights: str) -> None:
        super().__init__(f"{call} at step {step}")
        self.call, self.step, self.weights = call, step, weights


@dataclass(frozen=True)
class Entry:
    """One operation at one step: its operands on the tape, what computes it, and what finds its tensors."""

    call: str
    inputs: tuple[str, ...]
    compute: Compute
    own: Own


@dataclass
class Tape:
    """All operations of a run, in order."""

    entries: dict[str, Entry] = field(default_factory=dict)

    def add(self, call: str, inputs: Sequence[str], compute: Compute, own: Own = lambda _: {}) -> str:
        name = str(len(self.entries))
        self.entries[name] = Entry(call, tuple(inputs), compute, own)
        return name

    def needed(self, targets: Sequence[str]) -> set[str]:
        """The entries that the given ones depend on."""
        found, todo = set(targets), list(targets)
        while todo:
            for name in self.entries[todo.pop()].inputs:
                if name not in found:
                    found.add(name)
                    todo.append(name)
        return found

    def play(self, targets: Sequence[str], tensors: Tensors) -> dict[str, torch.Tensor]:
        """The values of the given entries and of all that they depend on."""
        needed = self.needed(targets)
        values: dict[str, torch.Tensor] = {}
        for name, entry in self.entries.items():
            if name in needed:
                args = [values[operand] for operand in entry.inputs]
                values[name] = entry.compute(tensors, entry.own(tensors), args)
        return values

    def missing(self, targets: Sequence[str], tensors: Tensors) -> list[Missing]:
        """The tensors that are required and missing."""
        found = []
        for name in self.needed(targets):
            try:
                self.entries[name].own(tensors)
            except Missing as missing:
                found.append(missing)
        return found


class Tensors:
    """Parameters and buffers of a module by name, its mode, and the inputs of one call."""

    def __init__(self, module: nn.Module, inputs: Mapping[str, torch.Tensor], past: str) -> None:
        self.training = module.training
        self.inputs = inputs
        self.past = past
        self.held = dict(module.named_parameters(remove_duplicate=False))
        self.held |= dict(module.named_buffers(remove_duplicate=False))


class Names(NamedTuple):
    """The names of the tensors of a call.

    Attributes:
        call, shared: The name of the call, and the prefix of the tensors that it shares.
        private: The tensors that each call of a tied stage has for itself.
        split: Running statistics are separate from scale and shift, because only they have copies somewhere.
        levels: The tensors with copies for each step, and the step, for each `time`, innermost first.
    """

    call: str
    shared: str
    private: PerStep
    split: bool
    levels: tuple[tuple[PerStep, int], ...]

    def tensor(self, op: Op, name: str, trainable: bool, tensors: Tensors) -> torch.Tensor:
        """The tensor `name` of an operation.

        Raises:
            Missing: The module has none for this step.
        """

        def own(level: PerStep) -> bool:
            statistics = op.normalizes and not trainable
            return level == "all" or (level == "norm" and op.normalizes) or (level == "norm_stats" and statistics)

        prefix = self.call if own(self.private) else self.shared
        if self.split and not trainable and op.split() is not None:
            prefix += ".stats"
        steps = [step for level, step in self.levels if own(level)]
        if not steps:
            names = [f"{prefix}.{name}"]
        else:
            prefix += "".join(f".step{step}" for step in steps[:-1])
            earlier = range(steps[-1] - 1, -1, -1) if tensors.past == "last" and op.normalizes else ()
            names = [f"{prefix}.step{step}.{name}" for step in (steps[-1], *earlier)]
        for full in names:
            if full in tensors.held:
                return tensors.held[full]
        raise Missing(self.call, self.levels[-1][1] if self.levels else None, prefix)


@cache
def _fresh(target: str, args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...]) -> nn.Module:
    with torch.device("meta"):  # draws no initial weights
        return find(target)(*args, **dict(kwargs))


def _layer(layer: Layer, own: Taken, x: torch.Tensor, training: bool) -> torch.Tensor:
    module = _fresh(layer.target, layer.args, tuple(layer.kwargs.items())).train(training)
    for name, (tensor, trainable) in own.items():
        (module._parameters if trainable else module._buffers)[name] = tensor  # type: ignore[index,assignment]
    out: torch.Tensor = module(x)
    return out


def _function(form: Any, args: Sequence[torch.Tensor], own: Taken) -> Any:
    if isinstance(form, Arg):
        return args[form.index]
    if isinstance(form, Weight):
        return own[form.name][0]
    if isinstance(form, ChainedApply):
        return reduce(find(form.target), [_function(arg, args, own) for arg in form.args])
    if isinstance(form, Apply):
        put = [_function(arg, args, own) for arg in form.args]
        return find(form.target)(*put, **{key: _function(arg, args, own) for key, arg in form.kwargs.items()})
    if isinstance(form, list):
        return [_function(item, args, own) for item in form]
    return form


def operation(op: Op, shapes: tuple[Shape, ...], names: Names) -> tuple[Compute, Own]:
    """A function that computes an operation, and one that finds its tensors in a module."""

    def own(tensors: Tensors) -> Taken:
        return {
            tensor.name: (names.tensor(op, tensor.name, tensor.trainable, tensors), tensor.trainable)
            for tensor in op.tensors(*shapes)
        }

    def compute(tensors: Tensors, taken: Taken, args: list[torch.Tensor]) -> torch.Tensor:
        layer = op.layer(*shapes)
        if layer is not None:
            return _layer(layer, taken, args[0], tensors.training)
        out: torch.Tensor = _function(op.apply(*shapes), args, taken)
        return out

    return compute, own
