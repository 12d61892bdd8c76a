"""Memory of a training step, from the live ranges of the values of a plan.

A step is followed call by call: the forward pass, in which a value is freed after its last reader unless a backward
pass reads it (`Op.saved`), and the backward pass in reverse order, in which gradients of values appear and what was
stored is freed. Values of views and of calls in place share memory with their operand.

Of the workspace of libraries, only what is large on CPUs is counted (`Op.backward_workspace`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from hiresnet_graph.plan import Call, Plan, inplace_calls, inplace_sums

FLOAT32_BYTES = 4
_LOW_BYTES = 2


class StepMemory(NamedTuple):
    """Bytes of a training step, without weights and the state of the optimizer.

    Attributes:
        stored: Kept for the backward pass at the end of the forward pass, without the inputs of the network.
        peak: The most that inputs, values, their gradients and those of the weights take at one time.
        by_call: `stored`, by the name of the call that made it.
    """

    stored: int
    peak: int
    by_call: dict[str, int]


def step_memory(
    plan: Plan,
    batch: int = 1,
    *,
    low_precision: bool = False,
    trained: Collection[str] | None = None,
    segments: Sequence[Sequence[Call]] = (),
) -> StepMemory:
    """The memory of a training step.

    Args:
        batch: Samples of a step.
        low_precision: Mixed precision: convolutions, linear maps and attention with 16-bit numbers.
        trained: Names of the tensors that are trained (default: all that are trainable).
        segments: Activation checkpointing: all calls in consecutive parts. Of each but the last, only the values that
            it reads are stored, and it is computed again in the backward pass.
    """
    step = _TrainingStep(plan, batch, low_precision, trained)
    *again, last = segments or (plan.calls,)
    read = [step.forward_without_storing(calls) for calls in again]
    step.forward(last, step.values, step.unread)
    stored = step.stored_by_call()
    step.start_backward()
    step.backward(last)
    for calls, values in zip(reversed(again), reversed(read), strict=True):
        step.compute_again(calls, values)
        step.backward(calls)
        for value in values.values():
            step.release(value)
    return StepMemory(sum(stored.values()), step.peak, stored)


class _Storage:
    """A piece of memory, which is freed when nothing holds it any more.

    Attributes:
        maker: Name of the call that made it; empty for inputs of the network, gradients and the loss.
        item_bytes: Size of one number.
    """

    __slots__ = ("holders", "item_bytes", "maker", "size_bytes")

    def __init__(self, size_bytes: int, maker: str, item_bytes: int) -> None:
        self.size_bytes, self.maker, self.item_bytes, self.holders = size_bytes, maker, item_bytes, 0


_Values = dict[str, _Storage]


class _TrainingStep:
    """A training step in progress.

    Attributes:
        values: The values that are in memory, by name.
        unread: Calls of the forward pass that have yet to read each value.
        saved: What is stored for the backward pass of each call.
        gradients: The gradients of values that are in memory.
        live, peak: Bytes in memory, now and at most so far.
    """

    def __init__(self, plan: Plan, batch: int, low_precision: bool, trained: Collection[str] | None) -> None:
        self.batch, self.is_low, self.outputs = batch, low_precision, plan.outputs
        self.trained = set(plan.tensors() if trained is None else trained)
        self.inplace = inplace_calls(plan).keys() | inplace_sums(plan).keys()
        self.kept = {*plan.inputs, *plan.outputs.values()}
        self.unread = _readers(plan.calls)
        self.live = self.peak = 0
        self.saved: dict[str, list[_Storage]] = {}
        self.gradients: _Values = {}
        self.item_bytes: dict[str, int] = {}
        self.shapes = {call.name: call.shape for call in plan.calls} | dict(plan.inputs)
        self.has_gradient = self._with_gradients(plan.calls)
        self.values = {
            name: self._new(shape.elements * batch, "", FLOAT32_BYTES) for name, shape in plan.inputs.items()
        }

    def _with_gradients(self, calls: Sequence[Call]) -> set[str]:
        """The values that depend on trained weights."""
        found: set[str] = set()
        for call in calls:
            if not found.isdisjoint(call.inputs) or any(self._trained_tensors(call)):
                found.add(call.name)
        return found

    def _trained_tensors(self, call: Call) -> dict[str, int]:
        """The number of elements of each tensor that is trained."""
        named = {f"{call.weights}.{tensor.name}": tensor for tensor in call.tensors if tensor.trainable}
        return {name: tensor.elements for name, tensor in named.items() if name in self.trained}

    # ---- memory

    def _new(self, elements: int, maker: str, item_bytes: int) -> _Storage:
        return self.hold(_Storage(elements * item_bytes, maker, item_bytes))

    def hold(self, storage: _Storage) -> _Storage:
        """Keep a piece of memory until it is released."""
        if not storage.holders:
            self.live += storage.size_bytes
            self.peak = max(self.peak, self.live)
        storage.holders += 1
        return storage

    def release(self, storage: _Storage) -> None:
        """Undo one `hold`."""
        storage.holders -= 1
        if not storage.holders:
            self.live -= storage.size_bytes

    def stored_by_call(self) -> dict[str, int]:
        """The size of what is stored for the backward pass, without the inputs of the network, by its call."""
        sizes: Counter[str] = Counter()
        for storage in {id(storage): storage for saved in self.saved.values() for storage in saved}.values():
            if storage.maker:
                sizes[storage.maker] += storage.size_bytes
        return dict(sizes)

    # ---- the forward pass

    def forward(self, calls: Sequence[Call], values: _Values, unread: Counter[str], *, stores: bool = True) -> None:
        """Compute calls.

        Args:
            values: What they read; their values are added, and those without further readers removed.
            unread: Calls that have yet to read each value.
            stores: Whether what their backward passes read is kept.
        """
        for call in calls:
            values[call.name] = self._compute(call, values)
            if stores and call.name in self.has_gradient:
                self.saved[call.name] = self._save(call, values)
            for name in dict.fromkeys(call.inputs):
                unread[name] -= 1
            for name in dict.fromkeys((*call.inputs, call.name)):
                if not unread[name] and name not in self.kept:
                    self.release(values.pop(name))

    def forward_without_storing(self, calls: Sequence[Call]) -> _Values:
        """Compute calls, and keep only the values from elsewhere that they read."""
        made = {call.name for call in calls}
        names = dict.fromkeys(name for call in calls for name in call.inputs if name not in made)
        read = {name: self.hold(self.values[name]) for name in names}
        self.forward(calls, self.values, self.unread, stores=False)
        self.saved["".join(read)] = list(read.values())
        return read

    def compute_again(self, calls: Sequence[Call], read: _Values) -> None:
        """Compute calls a second time, and keep what their backward passes read."""
        values = {name: self.hold(storage) for name, storage in read.items()}
        self.forward(calls, values, _readers(calls))
        for storage in values.values():
            self.release(storage)

    def _compute(self, call: Call, values: _Values) -> _Storage:
        """The memory of the value of a call."""
        operands = [values[name] for name in call.inputs]
        if call.op.is_view or call.name in self.inplace:
            return self.hold(operands[0])
        item_bytes = max((operand.item_bytes for operand in operands), default=FLOAT32_BYTES)
        if self.is_low and call.op.is_low_precision:
            item_bytes = _LOW_BYTES
        elif not call.op.normalizes and any(tensor.shape for tensor in call.tensors):
            item_bytes = FLOAT32_BYTES  # as the weights
        self.item_bytes[call.name] = item_bytes
        return self._new(call.shape.elements * self.batch, call.name, item_bytes)

    def _save(self, call: Call, values: _Values) -> list[_Storage]:
        """What is kept for the backward pass of a call."""
        rule, result, kept = call.op.saved(*call.input_shapes), values[call.name], []
        for k in rule.operands:
            operand = values[call.inputs[k]]
            if operand.item_bytes > result.item_bytes and call.op.is_low_precision:  # a rounded copy
                elements = call.input_shapes[k].elements * self.batch
                kept.append(self._new(elements, call.name, result.item_bytes))
            else:
                kept.append(self.hold(operand))
        if rule.result:
            kept.append(self.hold(result))
        if rule.elements:
            kept.append(self._new(rule.elements * self.batch, call.name, result.item_bytes))
        if rule.size_bytes:
            kept.append(self._new(rule.size_bytes * self.batch, call.name, 1))
        if self.is_low and call.op.is_low_precision:
            kept.append(self._new(sum(tensor.elements for tensor in call.tensors), call.name, _LOW_BYTES))
        return kept

    # ---- the backward pass

    def start_backward(self) -> None:
        """The gradients of the outputs; the loss stores their probabilities."""
        for name in self.outputs.values():
            elements = self.shapes[name].elements * self.batch
            probabilities = self._new(elements, "", FLOAT32_BYTES)
            if name in self.has_gradient and name not in self.gradients:
                self.gradients[name] = self._new(elements, "", FLOAT32_BYTES)
            self.release(probabilities)

    def backward(self, calls: Sequence[Call]) -> None:
        """Compute the gradients of the operands and weights of calls, from the last to the first."""
        for call in reversed(calls):
            gradient = self.gradients.pop(call.name, None)
            if gradient is not None:
                found = [
                    (name, self._operand_gradient(call, k, gradient))
                    for k, name in enumerate(call.inputs)
                    if name in self.has_gradient
                ]
                for name, elements in self._trained_tensors(call).items():
                    found.append((name, self._new(elements, "", FLOAT32_BYTES)))
                self.release(self._new(call.op.backward_workspace(*call.input_shapes), "", FLOAT32_BYTES))
                for name, contribution in found:
                    self._accumulate(name, contribution)
                self.release(gradient)
            for storage in self.saved.pop(call.name, ()):
                self.release(storage)

    def _operand_gradient(self, call: Call, k: int, gradient: _Storage) -> _Storage:
        """The memory of what a call contributes to the gradient of an operand."""
        elements = call.input_shapes[k].elements
        if call.op.shares_gradient or (call.op.is_view and call.shape.elements == elements):
            return self.hold(gradient)
        return self._new(elements * self.batch, "", self.item_bytes.get(call.inputs[k], FLOAT32_BYTES))

    def _accumulate(self, name: str, contribution: _Storage) -> None:
        """Add to the gradient of a value: in place if nothing else holds it, as torch does."""
        earlier = self.gradients.get(name)
        if earlier is None:
            self.gradients[name] = contribution
            return
        if earlier.holders > 1:
            self.gradients[name] = self._new(earlier.size_bytes, "", 1)
            self.release(earlier)
        self.release(contribution)


def _readers(calls: Sequence[Call]) -> Counter[str]:
    """The number of calls that read each value."""
    return Counter(name for call in calls for name in dict.fromkeys(call.inputs))
