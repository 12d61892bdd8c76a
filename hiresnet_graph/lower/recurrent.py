"""Networks in time as torch modules: all steps as one straight line, other readouts of the same tensors, step by step.

Axes: B samples, T steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from typing import Any, Literal, NamedTuple

import torch
from pydantic import ValidationError
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from hiresnet_graph.errors import UsageError
from hiresnet_graph.graph import OpGraph, OpNode
from hiresnet_graph.lower.single import resolved, rooted, straight_line
from hiresnet_graph.lower.weights import applied
from hiresnet_graph.ops import Apply, Layer, Op
from hiresnet_graph.passes import prune, simplify
from hiresnet_graph.passes.step import StepMachine, Steps, is_copied
from hiresnet_graph.passes.timing import format_steps, timing
from hiresnet_graph.plan import Call, Plan, class_name, holders, make_plan
from hiresnet_graph.shapes import Shape
from hiresnet_graph.spec.model import TimeSpec
from hiresnet_graph.spec.problems import explain

Input = Literal["first", "every", "sequence"]
Inputs = torch.Tensor | Mapping[str, torch.Tensor] | None


def build(plan: Plan, seed: int = 0) -> Recurrent:
    """The module of a plan with `time`.

    Args:
        seed: Of the initial weights; each is drawn from (seed, its name) alone.
    """
    return _module(rooted(plan, seed), plan, plan)


@dataclass(frozen=True, slots=True)
class State:
    """What a network remembers between two steps.

    Attributes:
        t: The step that comes next.
        past: The calls whose values are read later -> their last values, the latest first; None where it was empty.
    """

    t: int
    past: Mapping[str, tuple[Any, ...]]

    def __repr__(self) -> str:
        held = [name.removesuffix("@") for name, values in self.past.items() if any(v is not None for v in values)]
        return f"State(t={self.t}, holds {', '.join(held) or 'nothing'})"

    def detach(self) -> State:
        """The same values, from which no gradient flows back: for long sequences in training."""

        def cut(value: Any) -> Any:
            return value.detach() if isinstance(value, torch.Tensor) else value

        return State(self.t, {name: tuple(map(cut, values)) for name, values in self.past.items()})


class Recurrent(fx.GraphModule):
    """A network in time, all steps as one straight line: `forward` has no loop.

    Other readouts (`at`) and single steps (`step`) use the same tensors. A norm that has a copy for each step takes
    that of its step; past the copies, what `time: {past: ...}` says.

    Shape: the input [B, ...] at each step, or [B, T, ...] with `input: sequence`; the output [B, ...], or [B, S, ...]
    with `readout: all`, for the S steps in `readouts`.
    """

    @property
    def readouts(self) -> tuple[int, ...]:
        """The steps that come out."""
        return timing(_folded(self.meta["plan"])).readouts

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The output; a sequence must have a frame for each step."""
        time = _folded(self.meta["plan"]).time
        if time is not None and time.input == "sequence" and args and args[0].shape[1] != time.steps:
            raise UsageError(
                f"the input is a sequence of {time.steps} steps on axis 1, got {list(args[0].shape)}. "
                f"'at(steps={args[0].shape[1]})' gives the network for such a one."
            )
        return super().__call__(*args, **kwargs)

    def at(
        self,
        *,
        steps: int | None = None,
        input: Input | None = None,
        readout: int | Literal["last", "all"] | None = None,
        past: Literal["error", "last"] | None = None,
    ) -> Recurrent:
        """The network with other steps, input or readout: another straight line over the same tensors.

        Args:
            past: What a norm takes at a step for which it has no copy; as in `time`.

        Raises:
            UsageError: A call needs a copy of its weights for a step that has none; or a setting is wrong.
            SpecError: The output holds no value then.
        """
        base = self.meta["tensors"]
        folded = _folded(base)
        assert folded.time is not None
        given = {"steps": steps, "input": input, "readout": readout, "past": past}
        try:
            fields = {key: value for key, value in given.items() if value is not None}
            time = TimeSpec.model_validate({**folded.time.model_dump(), **fields})
        except ValidationError as error:
            raise UsageError(str(explain(error, fields, TimeSpec)[0])) from None
        if isinstance(time.readout, int) and time.readout >= time.steps:
            raise UsageError(
                f"the readout is step {time.readout}, but steps go from 0 to {time.steps - 1}. Give 'steps', too."
            )
        changed = OpGraph(folded.name, folded.nodes, folded.outputs, folded.records, time)
        plan = make_plan(simplify(changed))
        copies = _Copies(self.meta["copies"].held, time)
        calls = tuple(replace(call, weights=copies.taken(call)) if call.tensors else call for call in plan.calls)
        return _module(self, replace(plan, calls=calls), base)

    def step(self, x: Inputs, state: State | None = None) -> tuple[Any, State]:
        """One step, from the state that the step before gave (None: from nothing).

        Args:
            x: What the input holds at this step, [B, ...]; several inputs by name. With `input: first` only that of the
                first step is used.

        Returns:
            The output at this step (None where it holds no value; several by name), and the state for the next one.

        Raises:
            UsageError: The output needs a copy of weights that there is not.
        """
        prepared = _prepare(_folded(self.meta["plan"]))
        t, past = (0, {}) if state is None else (state.t, state.past)
        inputs = _given(x, prepared, t)
        values_given = x.values() if isinstance(x, Mapping) else [x]
        remembered = (value for values in past.values() for value in values)
        like = next((value for value in [*values_given, *remembered] if isinstance(value, torch.Tensor)), None)
        machine = _Tensors(self, prepared, self.meta["copies"], like)

        def before(name: str, step: int) -> Any:
            return past[name][t - 1 - step] if step >= 0 else None

        values = Steps(prepared.graph, machine, before).run(t, inputs)
        outputs = {name: values[value] for name, value in prepared.graph.outputs.items()}
        for value in outputs.values():
            if isinstance(value, _Missing):
                raise UsageError(value.message)
        kept = {
            name: (values[name], *past.get(name, (None,) * reach))[:reach] for name, reach in prepared.reach.items()
        }
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs, State(t + 1, kept)

    def checkpointed(self, every: int = 1) -> Checkpointed:
        """The same function, which keeps only what goes from one stretch of `every` steps to the next for the backward
        pass, and computes the rest again: less memory, more time."""
        return Checkpointed(self, every)

    def __reduce__(self) -> tuple[Any, ...]:
        function, args = super().__reduce__()
        return _restored, (function, args, self.meta["plan"], self.meta["tensors"])


def _module(root: nn.Module, plan: Plan, tensors: Plan) -> Recurrent:
    """A plan over the tensors that another made."""
    held = {name: layer for name, (layer, _) in holders(tensors).items()}
    module = Recurrent(root, straight_line(plan, held), class_name=class_name(plan.name))
    time = _folded(plan).time
    assert time is not None
    module.meta.update(plan=plan, tensors=tensors, copies=_Copies(held, time))
    return module


def _restored(function: Callable[..., fx.GraphModule], args: tuple[Any, ...], plan: Plan, tensors: Plan) -> Recurrent:
    """A pickled module."""
    module = function(*args)
    return _module(module, plan, tensors).train(module.training)


def _folded(plan: Plan) -> OpGraph:
    assert plan.folded is not None
    return plan.folded


# ---------------------------------------------------------------------------------------------------- copies of weights


class _Copies:
    """Which weights there are, and which of them a call takes."""

    def __init__(self, held: Mapping[str, Layer], time: TimeSpec) -> None:
        self.held = held
        self.past = time.past
        self.steps: dict[str, list[int]] = {}
        for name in held:
            stem, _, step = name.rpartition(".step")
            if stem and step.isdecimal():
                self.steps.setdefault(stem, []).append(int(step))

    def taken(self, call: Call) -> str:
        """The weights of a call of an unrolled plan.

        Raises:
            UsageError: It has none for its step.
        """
        found: str | _Missing = call.weights
        if call.weights not in self.held:
            stem, _, step = call.weights.rpartition(".step")
            found = self.at(stem, int(step), call.op, call.name) if stem else self.none(call.weights, call.name)
        if isinstance(found, _Missing):
            raise UsageError(found.message)
        return found

    def at(self, weights: str, step: int, op: Op, call: str) -> str | _Missing:
        """The copy of weights for a step."""
        name = f"{weights}.step{step}"
        if name in self.held:
            return name
        steps = sorted(self.steps.get(weights, ()))
        earlier = [other for other in steps if other < step]
        if self.past == "last" and op.normalizes and earlier:
            return f"{weights}.step{earlier[-1]}"
        has = f"it has copies for {format_steps(tuple(steps))}" if steps else "it has none at all"
        hint = " 'time: {past: last}' takes the last one before." if op.normalizes and earlier else ""
        call = call.removesuffix(f".step{step}")
        what = "its weights" if call == weights else f"the weights '{weights}'"
        return _Missing(f"'{call}' has no copy of {what} for step {step}: {has}.{hint}")

    def none(self, weights: str, call: str) -> _Missing:
        """What to say of weights that no step of the network as it was compiled needs."""
        what = "no weights" if call == weights else f"no weights '{weights}'"
        return _Missing(
            f"'{call}' has {what}: as compiled, it reaches the readout at no step. Compile it with 'readout: all'."
        )


@dataclass(frozen=True, slots=True)
class _Missing:
    """Stands for a value that cannot be computed, and for all that depend on it."""

    message: str


# ------------------------------------------------------------------------------------------------------------- one step


class _Form(NamedTuple):
    """How a call of a graph of one step is computed."""

    layer: Layer | None
    apply: Apply | None
    copies: bool


class _Prepared(NamedTuple):
    """A graph of one step, with what is needed at each step again.

    Attributes:
        reach: The calls whose values are read later -> how many steps back.
    """

    graph: OpGraph
    forms: Mapping[str, _Form]
    reach: Mapping[str, int]


@lru_cache(maxsize=64)
def _prepare(folded: OpGraph) -> _Prepared:
    graph = prune(folded)
    forms = {}
    for node in graph.nodes:
        if node.op is not None and node.operands:
            shapes = graph.operand_shapes(node)
            forms[node.name] = _Form(node.op.layer(*shapes), node.op.apply(*shapes), is_copied(graph, node))
    delays: dict[str, int] = {}
    for node in graph.nodes:
        for operand in node.operands if node.delay else ():
            delays[operand] = max(node.delay, delays.get(operand, 0))
    return _Prepared(graph, forms, {node.name: delays[node.name] for node in graph.nodes if node.name in delays})


def _given(x: Inputs, prepared: _Prepared, t: int) -> dict[str, Any]:
    names = [node.name for node in prepared.graph.inputs]
    time = prepared.graph.time
    assert time is not None
    if time.input == "first" and t > 0:
        return dict.fromkeys(names)
    if isinstance(x, Mapping):
        return {name: x[name] for name in names}
    if x is None or len(names) > 1:
        told = f"a mapping with {', '.join(names)}" if len(names) > 1 else "what the input holds, [B, ...]"
        raise UsageError(f"step {t} wants {told}.")
    return {names[0]: x}


class _Tensors(StepMachine[Any]):
    """Computes tensors with the layers of a module."""

    def __init__(self, module: nn.Module, prepared: _Prepared, copies: _Copies, like: torch.Tensor | None) -> None:
        self.module, self.prepared, self.copies, self.like = module, prepared, copies, like

    def call(self, node: OpNode, operands: list[Any], step: int) -> Any:
        """The value of an operation; something missing among the operands goes on."""
        for operand in operands:
            if isinstance(operand, _Missing):
                return operand
        form = self.prepared.forms[node.name]
        apply = form.apply
        assert node.op is not None
        if len(operands) < len(node.operands):  # a merge without some of its operands
            apply = node.op.apply(*[node.shape] * len(operands))
        weights: str | _Missing = node.weights
        if form.copies:
            weights = self.copies.at(node.weights, step, node.op, node.name)
        if isinstance(weights, _Missing):
            return weights
        if form.layer is None:
            return resolved(apply, operands, lambda _: None, applied)
        if weights not in self.copies.held:
            return self.copies.none(weights, node.name)
        layer = self.module.get_submodule(weights)
        if self.copies.held[weights] == form.layer:
            return layer(*operands)
        assert apply is not None
        return resolved(apply, operands, lambda name: getattr(layer, name), applied)

    def zeros(self, shape: Shape) -> Any:
        """Zeros [B, *shape]."""
        if self.like is None:
            raise UsageError("zeros want an input, which says how many samples there are.")
        return self.like.new_zeros((self.like.shape[0], *shape))


# --------------------------------------------------------------------------------------------------------------- memory


class Checkpointed(nn.Module):
    """A recurrent network with activation checkpointing in time; `module` is the network itself.

    Batch norms update their statistics once, in the forward pass; what is computed again leaves them alone.
    """

    def __init__(self, module: Recurrent, every: int) -> None:
        super().__init__()
        if every < 1:
            raise UsageError(f"'every' is {every}; a stretch has 1 step or more.")
        self.module = module
        plan: Plan = module.meta["plan"]
        self._inputs, self._outputs = tuple(plan.inputs), dict(plan.outputs)
        self._parts = list(_parts(module, plan, every))

    def forward(self, *inputs: torch.Tensor) -> Any:
        """As the network."""
        values = dict(zip(self._inputs, inputs, strict=True))
        for part in self._parts:
            given = [values[name] for name in part.reads]
            found = checkpoint(part.module, *given, use_reentrant=False, context_fn=part.contexts)
            values |= found if isinstance(found, dict) else {part.gives[0]: found}
            for name in part.last:
                del values[name]
        outputs = {name: values[value] for name, value in self._outputs.items()}
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs


class _Part(NamedTuple):
    """Some steps of a plan: the values that they read and give, and those that nothing reads later."""

    module: fx.GraphModule
    reads: tuple[str, ...]
    gives: tuple[str, ...]
    last: tuple[str, ...]

    def contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """What stands around the forward pass, and around its repetition."""
        return nullcontext(), _statistics_kept(self.module)


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Batch norms write their statistics into copies, which are thrown away."""
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    kept = [dict(norm.named_buffers(recurse=False)) for norm in norms]
    try:
        for norm, buffers in zip(norms, kept, strict=True):
            for name, value in buffers.items():
                norm.register_buffer(name, value.clone())
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            for name, value in buffers.items():
                norm.register_buffer(name, value)


def _parts(module: Recurrent, plan: Plan, every: int) -> Iterator[_Part]:
    held = module.meta["copies"].held
    shapes = {**plan.inputs, **{call.name: call.shape for call in plan.calls}}
    stretch, stretches = 0, []
    for call in plan.calls:  # calls that belong to no step stand where they are needed first
        stretch = stretch if call.step is None else call.step // every
        stretches.append(stretch)
    groups = [
        [call for call, _ in group] for _, group in groupby(zip(plan.calls, stretches, strict=True), lambda p: p[1])
    ]
    readers = [{name for call in calls for name in call.inputs} for calls in groups]
    wanted = set(plan.outputs.values())
    alive = set(plan.inputs)
    for i, calls in enumerate(groups):
        later = set().union(wanted, *readers[i + 1 :]) if i + 1 < len(groups) else wanted
        made = {call.name for call in calls}
        reads = tuple(name for name in shapes if name in readers[i] - made)
        gives = tuple(call.name for call in calls if call.name in later)
        alive |= set(gives)
        last = tuple(alive - later)
        alive &= later
        part = replace(
            plan,
            calls=tuple(calls),
            inputs={name: shapes[name] for name in reads},
            outputs={name: name for name in gives},
        )
        yield _Part(fx.GraphModule(module, straight_line(part, held)), reads, gives, last)
