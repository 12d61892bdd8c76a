"""Networks in time as torch modules: unrolled as straight-line code, with other readouts, or step by step.

Axes: B samples, T steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from pydantic import ValidationError
from torch import fx, nn

from hiresnet_graph.errors import UsageError
from hiresnet_graph.graph import OpGraph, OpNode
from hiresnet_graph.identifiers import class_name
from hiresnet_graph.lower.checkpointed import Checkpointed
from hiresnet_graph.lower.code import GraphWriter, evaluate
from hiresnet_graph.lower.nested import add_containers, nest
from hiresnet_graph.lower.single import module_of_layers
from hiresnet_graph.lower.weights import attach, call_function
from hiresnet_graph.ops import Apply, Layer, Op
from hiresnet_graph.passes import prune, simplify
from hiresnet_graph.passes.step import StepMachine, Steps, is_copied
from hiresnet_graph.passes.timing import format_steps, timing
from hiresnet_graph.plan import Call, Plan, layers_by_weight, make_plan
from hiresnet_graph.segments import step_segments
from hiresnet_graph.shapes import Shape
from hiresnet_graph.spec.model import TimeSpec
from hiresnet_graph.spec.problems import explain

_COPY = re.compile(r"(.+)\.step(\d+)")
"""Weights with a copy for each step: their name, and the step."""

Input = Literal["first", "every", "sequence"]
Inputs = torch.Tensor | Mapping[str, torch.Tensor] | None


def build(plan: Plan, seed: int = 0) -> Recurrent:
    """The module of a plan with `time`.

    Args:
        seed: Seed of the initial weights; each is drawn from (seed, its name) alone.
    """
    return _module(module_of_layers(plan, seed), plan, plan)


@dataclass(frozen=True, slots=True)
class State:
    """The state of a network between two steps.

    Attributes:
        t: The next step.
        past: Calls whose values are read later -> their last values, the latest first; None for empty values.
    """

    t: int
    past: Mapping[str, tuple[Any, ...]]

    def __repr__(self) -> str:
        names = [name.removesuffix("@") for name, values in self.past.items() if any(v is not None for v in values)]
        return f"State(t={self.t}, values of {', '.join(names) or 'nothing'})"

    def detach(self) -> State:
        """A detached copy, to truncate gradients in long sequences."""

        def detached(value: Any) -> Any:
            return value.detach() if isinstance(value, torch.Tensor) else value

        return State(self.t, {name: tuple(map(detached, values)) for name, values in self.past.items()})


class Recurrent(fx.GraphModule):
    """A network in time, unrolled: `forward` has no loop.

    Other readouts (`at`) and single steps (`step`) use the same tensors. A norm with a copy for each step uses the copy
    of its step; for steps without a copy, `time: {past: ...}` decides.

    Shape: the input [B, ...] at each step, or [B, T, ...] with `input: sequence`; the output [B, ...], or [B, S, ...]
    with `readout: all`, for the S steps in `readouts`.
    """

    @property
    def readouts(self) -> tuple[int, ...]:
        """The steps of the readout."""
        return timing(_folded(self.meta["plan"])).readouts

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The output; an input sequence must have one frame per step."""
        time = _folded(self.meta["plan"]).time
        if time is not None and time.input == "sequence" and args and args[0].shape[1] != time.steps:
            raise UsageError(
                f"the input must be a sequence of {time.steps} steps on axis 1, got {list(args[0].shape)}. "
                f"Use 'at(steps={args[0].shape[1]})' for this length."
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
        """The network with other steps, input or readout, over the same tensors.

        Args:
            past: Weights of a norm at steps without a copy, as in `time`.

        Raises:
            UsageError: A call has no copy of its weights for a step, or a setting is invalid.
            SpecError: The output would have no value.
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
                f"the readout is step {time.readout}, but steps go from 0 to {time.steps - 1}. Set 'steps', too."
            )
        changed = OpGraph(folded.name, folded.nodes, folded.outputs, folded.records, time)
        plan = make_plan(simplify(changed))
        copies = _Copies(self.meta["copies"].layers, time, self.meta["copies"].compiled)
        calls = tuple(replace(call, weights=copies.weights_of(call)) if call.tensors else call for call in plan.calls)
        return _module(self, replace(plan, calls=calls), base)

    def step(self, x: Inputs, state: State | None = None) -> tuple[Any, State]:
        """Compute one step.

        Args:
            x: The input at this step, [B, ...]; several inputs by name. With `input: first`, ignored after step 0.
            state: The state after the previous step; None for the first step.

        Returns:
            The output at this step (None if it has no value; several by name), and the state for the next step.

        Raises:
            UsageError: The output requires a copy of weights that does not exist.
        """
        prepared = _prepare(_folded(self.meta["plan"]))
        t, past = (0, {}) if state is None else (state.t, state.past)
        inputs = _inputs_at(t, x, prepared)
        current = x.values() if isinstance(x, Mapping) else [x]
        previous = (value for values in past.values() for value in values)
        like = next((value for value in [*current, *previous] if isinstance(value, torch.Tensor)), None)
        machine = _Tensors(self, prepared, self.meta["copies"], like)

        def before(name: str, step: int) -> Any:
            return past[name][t - 1 - step] if step >= 0 else None

        values = Steps(prepared.graph, machine, before).run(t, inputs)
        outputs = {name: values[value] for name, value in prepared.graph.outputs.items()}
        for value in outputs.values():
            if isinstance(value, _Unavailable):
                raise UsageError(value.message)
        new = {name: (values[name], *past.get(name, (None,) * reach))[:reach] for name, reach in prepared.reach.items()}
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs, State(t + 1, new)

    def checkpointed(self, every: int = 1) -> Checkpointed:
        """The same function with activation checkpointing: less memory, more time.

        Args:
            every: Steps of a segment; only values between segments are stored for the backward pass.

        Raises:
            UsageError: `every` is not at least 1.
        """
        if every < 1:
            raise UsageError(f"'every' must be 1 step or more, not {every}.")
        writer: GraphWriter = self.meta["writer"]
        return Checkpointed(self, writer, step_segments(writer.tree.root, every))

    def __reduce__(self) -> tuple[Any, ...]:
        function, args = super().__reduce__()
        return _unpickle, (function, args, self.meta["plan"], self.meta["tensors"])


def _module(root: nn.Module, plan: Plan, tensors: Plan) -> Recurrent:
    """A plan over the tensors of another plan, whose layers are in `root`."""
    layers = {name: layer for name, (layer, _) in layers_by_weight(tensors).items()}
    writer = GraphWriter(plan, layers)
    own = nn.Module()
    attach(own, {name: root.get_submodule(name) for name in layers})
    add_containers(own, writer)
    module = Recurrent(own, writer.network(), class_name=class_name(plan.name))
    module._modules = own._modules
    nest(module, writer)
    time = _folded(plan).time
    assert time is not None
    module.meta.update(plan=plan, tensors=tensors, copies=_Copies(layers, time, time), writer=writer)
    module.training = root.training  # layers keep their own mode
    return module


def _unpickle(function: Callable[..., fx.GraphModule], args: tuple[Any, ...], plan: Plan, tensors: Plan) -> Recurrent:
    """Restore a pickled module."""
    return _module(function(*args), plan, tensors)


def _folded(plan: Plan) -> OpGraph:
    assert plan.folded is not None
    return plan.folded


# ---------------------------------------------------------------------------------------------------- copies of weights


class _Copies:
    """The existing weights, and the choice among them for each call.

    Args:
        time: That of the network that uses them.
        compiled: That of the network whose weights they are.
    """

    def __init__(self, layers: Mapping[str, Layer], time: TimeSpec, compiled: TimeSpec) -> None:
        self.layers, self.compiled = layers, compiled
        self.past = time.past
        self.steps: dict[str, list[int]] = {}
        for name in layers:
            if found := _COPY.fullmatch(name):
                self.steps.setdefault(found[1], []).append(int(found[2]))

    def weights_of(self, call: Call) -> str:
        """The weights of a call of an unrolled plan.

        Raises:
            UsageError: There are none for its step.
        """
        found: str | _Unavailable = call.weights
        if call.weights not in self.layers:
            copy = _COPY.fullmatch(call.weights)
            found = (
                self.unused(call.weights, call.name)
                if copy is None
                else self.at(copy[1], int(copy[2]), call.op, call.name)
            )
        if isinstance(found, _Unavailable):
            raise UsageError(found.message)
        return found

    def at(self, weights: str, step: int, op: Op, call: str) -> str | _Unavailable:
        """The copy of weights for a step."""
        name = f"{weights}.step{step}"
        if name in self.layers:
            return name
        steps = sorted(self.steps.get(weights, ()))
        earlier = [other for other in steps if other < step]
        if self.past == "last" and op.normalizes and earlier:
            return f"{weights}.step{earlier[-1]}"
        available = f"it has copies for {format_steps(tuple(steps))}" if steps else "it has no copies"
        hint = " Set 'time: {past: last}' to use the last copy." if op.normalizes and earlier else ""
        call = call.removesuffix(f".step{step}")
        what = "its weights" if call == weights else f"the weights '{weights}'"
        return _Unavailable(f"'{call}' has no copy of {what} for step {step}: {available}.{hint}")

    def unused(self, weights: str, call: str) -> _Unavailable:
        """The message for weights that the compiled network does not use at any step."""
        what = "no weights" if call == weights else f"no weights '{weights}'"
        remedy = (
            f"with more than {self.compiled.steps} 'steps'" if self.compiled.readout == "all" else "with 'readout: all'"
        )
        return _Unavailable(
            f"'{call}' has {what}: as compiled, it reaches the readout at no step. Compile and train it {remedy}."
        )


@dataclass(frozen=True, slots=True)
class _Unavailable:
    """In place of a value that cannot be computed, and of all values that depend on it."""

    message: str


# ------------------------------------------------------------------------------------------------------------- one step


class _Form(NamedTuple):
    """The torch form of a call in a graph of one step."""

    layer: Layer | None
    apply: Apply | None
    copies: bool


class _Prepared(NamedTuple):
    """A graph of one step, with the torch form of its calls.

    Attributes:
        reach: Calls whose values are read later -> number of steps.
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


def _inputs_at(t: int, x: Inputs, prepared: _Prepared) -> dict[str, Any]:
    names = [node.name for node in prepared.graph.inputs]
    time = prepared.graph.time
    assert time is not None
    if time.input == "first" and t > 0:
        return dict.fromkeys(names)
    if isinstance(x, Mapping):
        return {name: x[name] for name in names}
    if x is None or len(names) > 1:
        expected = f"a mapping with {', '.join(names)}" if len(names) > 1 else "an input [B, ...]"
        raise UsageError(f"step {t} requires {expected}.")
    return {names[0]: x}


class _Tensors(StepMachine[Any]):
    """Computes tensors with the layers of a module."""

    def __init__(self, module: nn.Module, prepared: _Prepared, copies: _Copies, like: torch.Tensor | None) -> None:
        self.module, self.prepared, self.copies, self.like = module, prepared, copies, like

    def call(self, node: OpNode, operands: list[Any], step: int) -> Any:
        """The value of an operation; unavailable if an operand is."""
        for operand in operands:
            if isinstance(operand, _Unavailable):
                return operand
        form = self.prepared.forms[node.name]
        apply = form.apply
        assert node.op is not None
        if len(operands) < len(node.operands):  # a merge with missing operands
            apply = node.op.apply(*[node.shape] * len(operands))
        weights: str | _Unavailable = node.weights
        if form.copies:
            weights = self.copies.at(node.weights, step, node.op, node.name)
        if isinstance(weights, _Unavailable):
            return weights
        if form.layer is None:
            return evaluate(apply, operands, lambda _: None, call_function)
        if weights not in self.copies.layers:
            return self.copies.unused(weights, node.name)
        layer = self.module.get_submodule(weights)
        if self.copies.layers[weights] == form.layer:
            return layer(*operands)
        assert apply is not None
        return evaluate(apply, operands, lambda name: getattr(layer, name), call_function)

    def zeros(self, shape: Shape) -> Any:
        """Zeros [B, *shape]."""
        if self.like is None:
            raise UsageError("zeros require an input, for the number of samples.")
        return self.like.new_zeros((self.like.shape[0], *shape))
