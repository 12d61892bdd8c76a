"""Runs a module once and records which torch functions it calls.

The module runs as it is, on real numbers, so that whatever Python does around the calls (loops, conditions on shapes,
classes of others) needs no support. Where a number that depends on the input reaches Python, the recording would hold
for this input alone: that is a fault.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from hiresnet_graph.importing.programs import ProgramModule
from hiresnet_graph.importing.trace import (
    ATTENTION_WEIGHTS,
    GRADIENT_STOPS,
    Fault,
    ModuleCall,
    ModuleInputs,
    ModuleTrace,
    Recorded,
    TracedTensor,
    stored_tensors,
    values_in,
)

_TORCH = f"{Path(torch.__file__).parent}/"
_OWN = f"{Path(__file__).parent}/"
# Functions that make Python numbers of tensors.
_READS = frozenset(
    {"__bool__", "__complex__", "__contains__", "__float__", "__index__", "__int__", "__repr__", "__str__"}
    | {"allclose", "equal", "is_nonzero", "item", "numpy", "tolist"}
)
# Batch norms count their batches and update their statistics in place, which is part of the operation.
_REPEATS = frozenset({"repeat", "tile"})
_UPDATES = frozenset({"batch_norm", "native_batch_norm", "instance_norm"})
_NO_GRADIENTS = (
    "it stops or replaces gradients, by torch.no_grad(), checkpoints with use_reentrant=True or an autograd.Function. "
    "Remove that for the import, and freeze parts with 'freeze' in the recipe of a training"
)
_AUTOCAST = (
    "it chooses the precision of its layers, by torch.autocast. Remove that for the import, and set 'precision' in the "
    "recipe of a training"
)


def record(module: nn.Module, call: ModuleInputs, whole: Sequence[str] = ()) -> ModuleTrace:
    """Run a module in its present mode and record its calls.

    Args:
        whole: Dotted paths of classes of modules that are recorded as one call.
    """
    inputs = call.tensors
    values = {name: TracedTensor(tensor, is_input=True, depends=True) for name, tensor in inputs.items()}
    recorder = _Recorder(module, ModuleTrace(values), frozenset(whole))
    before = _plain_state(module)
    if isinstance(module, ProgramModule):
        module.on_call = recorder.enter_program
    with _without_gradients(module), recorder.hooks(module), recorder:
        result = call.run(module)
    if isinstance(module, ProgramModule):
        module.on_call = None
    recorder.finish(result)
    for name in _changed_state(module, before, recorder):
        path, _, attribute = name.rpartition(".")
        kind = type(module.get_submodule(path)).__name__
        what = (
            f"it keeps a state between calls: the attribute '{attribute}' of {kind} changes. Return the value, or take "
            "it with a forward hook, instead of storing it"
        )
        recorder.trace.faults.append(Fault(what, path, f"{kind}.forward"))
    return recorder.trace


@contextmanager
def _without_gradients(module: nn.Module) -> Iterator[None]:
    """Keep no graph for gradients, and leave them switched on, so that code which switches them off is noticed."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


class _Recorder(TorchFunctionMode):
    def __init__(self, module: nn.Module, trace: ModuleTrace, whole: frozenset[str]) -> None:
        super().__init__()
        self.trace = trace
        self.whole = whole
        self.frames: list[ModuleCall] = []
        self.paused = 0
        self.number = 0
        self.location = ""
        self.autocast_depth = _autocast_depth()
        self.program_calls: dict[str, int] = {}
        self.values: dict[int, TracedTensor] = {}
        self.stored: dict[int, list[TracedTensor]] = {}
        self.trainable = {id(parameter) for parameter in module.parameters() if parameter.requires_grad}
        for name, tensor in stored_tensors(module).items():
            if id(tensor) not in trace.names:  # the first name of a tensor that has several
                self.add(TracedTensor(tensor, name))
                trace.names[id(tensor)] = name
        for value in trace.inputs.values():
            self.add(value)

    def add(self, value: TracedTensor) -> None:
        """Make a value the one of its tensor. Tensors are kept, so that no other one gets their identity."""
        self.values.setdefault(id(value.tensor), value)
        self.values[id(value.tensor)] = value
        self.stored.setdefault(_storage(value.tensor), []).append(value)

    def value(self, tensor: torch.Tensor) -> TracedTensor:
        """The value of a tensor; a new one for a constant."""
        found = self.values.get(id(tensor))
        if found is None:
            found = TracedTensor(tensor)
            self.add(found)
        elif found.stale:
            self.fault(f"it reads a value whose memory was overwritten through another tensor at {found.stale}")
        return found

    def enter_program(self, modules: Sequence[tuple[str, str]], location: str) -> None:
        """Follow which modules a call of a program belonged to, as it records them.

        Args:
            modules: Address, and dotted path of the class, of each module around the call, from the outside in.
        """
        self.location = location
        del self.frames[1:]
        for path, kind in modules:
            if path:
                number = self.program_calls.setdefault(path, len(self.program_calls) + 1)
                name = kind.rpartition(".")[2]
                is_standard = kind.startswith("torch.nn.modules.") and name != "Sequential"
                self.frames.append(ModuleCall(path, name, number, is_standard, name == "Sequential"))

    def fault(self, what: str) -> None:
        """Record what no spec can express, at the code that runs now."""
        fault = Fault(what, self.frames[-1].path if self.frames else "", self.location or _location())
        if fault not in self.trace.faults:
            self.trace.faults.append(fault)

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.paused:
            return function(*args, **kwargs)
        tensors = list(values_in((args, kwargs), torch.Tensor))
        versions = [tensor._version for tensor in tensors]
        name = _name(function)
        is_read = name in _READS
        if is_read and any(self.value(tensor).depends for tensor in tensors):
            self.fault(f"its control flow depends on the data: '{name}' of a tensor that depends on the input")
        result = function(*args, **kwargs)
        changed = [t for t, version in zip(tensors, versions, strict=True) if t._version != version]
        results = [changed[0]] if name == "__setitem__" and changed else list(values_in(result, torch.Tensor))
        if not results:
            return result
        operands = [self.value(tensor) for tensor in tensors]
        recorded = self._replaced(args), {key: self._replaced(value) for key, value in kwargs.items()}
        depends = any(operand.depends for operand in operands)
        if depends and not torch.is_grad_enabled():
            self.fault(_NO_GRADIENTS)
        if depends and _autocast_depth() > self.autocast_depth:
            if torch.is_autocast_enabled(results[0].device.type):
                self.fault(_AUTOCAST)
            else:  # it is switched off, or on for another device
                self.trace.autocast.setdefault(self.location or _location())
        if name not in _UPDATES:
            for tensor in changed:
                self._overwritten(tensor, name)
        outputs = tuple(self._output(tensor, name, operands, depends) for tensor in results)
        self.trace.calls.append(Recorded(name, *recorded, outputs, tuple(self.frames), self.location or _location()))
        return result

    def _output(self, tensor: torch.Tensor, function: str, operands: list[TracedTensor], depends: bool) -> TracedTensor:
        known = self.values.get(id(tensor))
        if known is not None and known.name:  # of `weight.to(x.dtype)`, for example
            return known
        storage = _storage(tensor)
        base = None
        if not depends:
            base = next((value for value in operands if _storage(value.tensor) == storage and storage), None)
            if function in _REPEATS and operands[0].sizes == (1, *tensor.shape[1:]):  # for each sample
                base = operands[0]
        value = TracedTensor(tensor, depends=depends, base=base)
        if base is not None and function in GRADIENT_STOPS and id(base.root.tensor) in self.trainable:
            value.refusal = (
                f"'{GRADIENT_STOPS[function]}' of the parameter '{base.root.name}', which stops its gradients. Remove "
                "that for the import, and set 'freeze' in the recipe of a training"
            )
        self.add(value)
        return value

    def _overwritten(self, tensor: torch.Tensor, function: str) -> None:
        own = self.values.get(id(tensor))
        if own is not None and own.name:
            if not own.name.endswith("num_batches_tracked"):
                self.fault(f"'{function}' changes '{own.name}' of its state_dict in 'forward'")
            return
        for value in self.stored.get(_storage(tensor), ()) if _storage(tensor) else ():
            if value.tensor is not tensor and not value.name:
                value.stale = _location()

    def _replaced(self, argument: Any) -> Any:
        if isinstance(argument, torch.Tensor):
            return self.value(argument)
        if isinstance(argument, list | tuple):
            return tuple(self._replaced(item) for item in argument)
        return argument

    @contextmanager
    def hooks(self, module: nn.Module) -> Iterator[None]:
        """Follow which modules are called."""
        paths: dict[nn.Module, str] = {}
        for path, part in module.named_modules():
            paths.setdefault(part, path)
        with ExitStack() as stack:
            for part, path in paths.items():
                before = part.register_forward_pre_hook(self._entered(path), prepend=True)
                after = part.register_forward_hook(self._left, with_kwargs=True, always_call=True)
                stack.callback(before.remove)
                stack.callback(after.remove)
            yield

    def _entered(self, path: str) -> Callable[[nn.Module, Any], None]:
        def enter(module: nn.Module, args: Any) -> None:
            is_sequence = isinstance(module, nn.Sequential)
            is_standard = type(module).__module__.startswith("torch.nn.") and not is_sequence
            self.frames.append(ModuleCall(path, type(module).__name__, self.number, is_standard, is_sequence))
            self.number += 1
            self.trace.called.add(path)
            if _class_path(module) in self.whole:
                self.paused += 1

        return enter

    def _left(self, module: nn.Module, args: Any, kwargs: dict[str, Any], result: Any) -> Any:
        frames = tuple(self.frames)
        self.frames.pop()
        if _class_path(module) not in self.whole:
            return None
        self.paused -= 1
        first, *more = result if isinstance(result, tuple) else (result,)
        if self.paused or not isinstance(first, torch.Tensor):
            return None
        # The same tensor must not stand for the value before and after the module.
        fresh = (
            torch.ops.aten.alias.default(first)
            if any(first is tensor for tensor in values_in(args, torch.Tensor))
            else first
        )
        inputs = [self.value(tensor) for tensor in values_in((args, kwargs), torch.Tensor)]
        value = TracedTensor(fresh, depends=any(one.depends for one in inputs))
        self.add(value)
        for other in values_in(more, torch.Tensor):
            self.add(TracedTensor(other, depends=value.depends, refusal=ATTENTION_WEIGHTS))
        own, named = self._replaced(args), {key: self._replaced(one) for key, one in kwargs.items()}
        name = f"class:{_class_path(module)}"
        self.trace.calls.append(Recorded(name, own, named, (value,), frames, _location(), module))
        return (fresh, *more) if isinstance(result, tuple) else fresh

    def finish(self, result: Any) -> None:
        """Take the results of the module."""
        found: dict[str, Any]
        if isinstance(result, torch.Tensor):
            found = {"output": result}
        elif isinstance(result, Mapping):
            found = {str(key): value for key, value in result.items()}
        elif isinstance(result, tuple) and hasattr(result, "_fields"):
            found = dict(zip(result._fields, result, strict=True))
        elif isinstance(result, list | tuple):
            found = {f"output{index + 1}": value for index, value in enumerate(result)}
        else:
            found = {"output": result}
        for name, tensor in found.items():
            if tensor is None:
                continue
            if not isinstance(tensor, torch.Tensor):
                self.trace.faults.append(Fault(f"its result is a {type(tensor).__name__}, not a tensor", "", name))
                continue
            self.trace.outputs[name] = self.value(tensor)


def _autocast_depth() -> int:
    """The number of `torch.autocast` contexts around the code that runs now."""
    depth: int = torch.autocast_increment_nesting() - 1
    torch.autocast_decrement_nesting()
    return depth


def _storage(tensor: torch.Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # a sparse tensor, or one without memory
        return 0


def _name(function: Any) -> str:
    name = str(getattr(function, "__name__", function))
    owner = getattr(function, "__self__", None)
    if name == "__get__" and owner is not None:
        return f"get {getattr(owner, '__name__', '')}"
    if isinstance(function, torch._ops.OpOverload):
        return f"aten::{function._schema.name.partition('::')[2]}"
    if name == "fn":  # of functions that choose by a flag, like max_pool2d
        return str(getattr(function, "__wrapped__", function).__name__)
    return name


def _class_path(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _location() -> str:
    """File and line of the innermost code outside of torch and this package."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_TORCH, _OWN)) and not file.startswith("<"):
            return f"{file}:{frame.f_lineno}"
        if frame.f_back is None:
            break
        frame = frame.f_back
    return "unknown location"


def _plain_state(module: nn.Module) -> dict[str, Any]:
    """Attributes of all modules that hold plain values or tensors outside of the state_dict."""
    kinds = (bool, int, float, str, type(None), torch.Tensor)
    return {
        f"{path}.{name}": value
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if not name.startswith("_") and isinstance(value, kinds)
    }


def _changed_state(module: nn.Module, before: Mapping[str, Any], recorder: _Recorder) -> list[str]:
    changed = []
    for name, value in _plain_state(module).items():
        old = before.get(name)
        if isinstance(value, torch.Tensor):
            # A table that is computed once for an input size is no state, a value that depends on the input is.
            known = recorder.values.get(id(value))
            if known is not None and known.depends:
                changed.append(name)
        elif name in before and type(old) is type(value) and old != value:
            changed.append(name)
    return changed
