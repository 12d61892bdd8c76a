"""A network of another library as a spec with weights: the verb `from_module`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import fx, nn
from torch.nn.parameter import is_lazy

from hiresnet_graph.architecture import Architecture, loads
from hiresnet_graph.errors import SpecError, UnsupportedNetwork, UsageError
from hiresnet_graph.files import write_atomic
from hiresnet_graph.formats import format_count
from hiresnet_graph.importing import attention, axes, layers, tokens  # noqa: F401 - they register what the functions of torch are
from hiresnet_graph.importing.comparison import OutputComparison, compare
from hiresnet_graph.importing.lifting import lift
from hiresnet_graph.importing.module_paths import with_module_paths
from hiresnet_graph.importing.primitives import CLASSES, Flat, flatten_trace
from hiresnet_graph.importing.programs import ProgramModule
from hiresnet_graph.importing.recorder import record
from hiresnet_graph.importing.sections import legal_name
from hiresnet_graph.importing.starting_values import other_starts, with_starting_values
from hiresnet_graph.importing.trace import Fault, ModuleInputs, ModuleTrace, foreign_message, stored_tensors
from hiresnet_graph.lower.weights import floating_type
from hiresnet_graph.spec.writer import to_yaml

Input = Sequence[int] | torch.Tensor | Mapping[str, Sequence[int] | torch.Tensor]
_SHOWN = 4
"""How many are listed of one thing."""


@dataclass(frozen=True, repr=False)
class Imported:
    """A network of another library, imported and compared with the original.

    Attributes:
        network: Its spec.
        weights: Address -> tensor, as in the `state_dict` of the module that the spec describes.
        names: Address -> name of the tensor in the original.
        left_out: Names of the tensors of the original that have no address.
        comparison: How its outputs differ from those of the original.
        notes: Parts of the original that the spec leaves out, since they do not change these outputs.
    """

    network: Architecture
    text: str
    weights: dict[str, torch.Tensor]
    names: dict[str, str]
    left_out: tuple[str, ...]
    comparison: OutputComparison
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Imported {self.network.name}: {self.comparison}>"

    def build(self) -> nn.Module:
        """The module of the spec with the weights of the original and their type of numbers, in evaluation mode."""
        module = self.network.build().to(floating_type(self.weights.values()))
        module.load_state_dict(self.weights)
        return module.eval()

    def save(self, spec: str | Path, weights: str | Path | None = None) -> None:
        """Write the spec as YAML, and the weights as safetensors.

        The header of the weights has the names of the tensors in the original, as JSON: address -> name under `names`,
        and under `left_out` a list of those without an address.

        Raises:
            UsageError: A file cannot be written.
        """
        if weights is not None:
            tensors = {name: value.detach().cpu().contiguous() for name, value in self.weights.items()}
            header = {"format": "pt", "names": json.dumps(self.names), "left_out": json.dumps(self.left_out)}
            write_atomic(Path(weights), save(tensors, header), UsageError)
        write_atomic(Path(spec), self.text.encode(), UsageError)


def from_module(module: nn.Module, *, input: Input, name: str | None = None, source: str = "") -> Imported:
    """A spec of a PyTorch module, with its weights.

    The module runs once, in evaluation mode, and the torch functions that it calls become nodes: modules that repeat
    become stages or entries of `blocks`, and those that compute what a registered block does become that block. A
    built network with `time` is the one that it was built from, if its layers are still the same. The result is
    compared with the module in both modes. The module itself is not changed.

    Args:
        input: Shape of one sample, like (3, 224, 224); or a batch; or a mapping with one of them for each argument.
        name: Name of the network (default: that of the class).
        source: Where the module comes from, for the header of the file.

    Raises:
        UnsupportedNetwork: Parts of the module have no form in a spec (all are listed), or outputs differ.
        UsageError: This is no module, or it does not accept the input.
    """
    _check(module)
    call = _call_of(module, _samples(module, input))
    if isinstance(module, fx.GraphModule) and (found := _in_time(module, call, name, source)) is not None:
        return found
    trace = _recorded(module, call)
    title = name or type(module).__name__
    if len(trace.outputs) == 0 and not trace.faults:
        trace.faults.append(Fault("it returns no tensor", "", "output"))
    tensors = stored_tensors(module)
    flat = flatten_trace(trace, tensors)
    if not flat.faults:
        flat.faults += _unconnected(flat)
    if flat.faults:
        raise _unsupported(title, flat.faults)
    flat = with_starting_values(with_module_paths(flat), tensors)
    lifted = lift(flat, legal_name(name or title))
    state = {key: value.detach() for key, value in tensors.items()}
    names = {address: stored.name for address, stored in lifted.tensors.items()}
    _check_sharing(title, names)
    network, text = _network(title, lifted.spec, source)
    built = network.build()
    shapes = {key: tuple(value.shape) for key, value in built.state_dict().items()}
    weights = {
        address: state[names[address]].reshape(shape) if address in names else built.state_dict()[address]
        for address, shape in shapes.items()
    }
    notes = (
        *_left_out(module, trace, flat.consumed | set(names.values())),
        *_constants(module, names),
        *_equal_results(flat),
        *_autocast(trace),
        *other_starts(network.plan, names, state),
    )
    comparison = compare(module, built, names, call, lifted.outputs)
    left_out = tuple(sorted(state.keys() - names.values()))
    return Imported(network, text, weights, names, left_out, comparison, notes)


def _in_time(module: fx.GraphModule, call: ModuleInputs, name: str | None, source: str) -> Imported | None:
    """A network in time, by the spec that it was built from; None if it is another one now."""
    if (built_from := module.meta.get("spec")) is None:
        return None
    spec: dict[str, Any] = json.loads(built_from)
    network, text = _network(str(spec["name"]), spec | ({"name": legal_name(name)} if name else {}), source)
    state = module.state_dict()
    tensors = network.plan.tensors()
    if {key: tuple(value.shape) for key, value in state.items()} != {k: t.shape for k, t in tensors.items()}:
        return None
    names = {address: address for address in tensors}
    try:
        comparison = compare(module, network.build(), names, call, tuple(network.plan.outputs))
    except UnsupportedNetwork:  # a layer was replaced by another one with such tensors
        return None
    return Imported(network, text, state, names, (), comparison, _constants(module, names))


def _network(title: str, spec: Mapping[str, Any], source: str) -> tuple[Architecture, str]:
    header = f"# Imported from {source}.\n" if source else ""
    text = header + to_yaml(spec)
    try:
        network = loads(text, str(spec["name"]))
        _ = network.plan
    except SpecError as error:
        raise UnsupportedNetwork(f"{title} cannot be imported: its spec would be wrong. {error}") from error
    return network, text


def _check(module: object) -> None:
    if not isinstance(module, nn.Module):
        raise UsageError(f"from_module requires a torch.nn.Module, not a {type(module).__name__}.")
    for path, part in module.named_modules():
        where = f"its part '{path}' is" if path else "this is"
        if isinstance(part, torch.jit.ScriptModule):
            raise UsageError(
                f"{where} a TorchScript module, which runs outside of Python. Use the module that it was made of."
            )
        tensors = (*part._parameters.values(), *part._buffers.values())
        if any(value is not None and value.is_meta for value in tensors):
            raise UsageError(
                f"{where} on the device 'meta', which has shapes without values. Load its weights before the import, "
                "or build it on the CPU."
            )
        if any(is_lazy(value) for value in tensors):
            raise UsageError(
                f"{where} a {type(part).__name__}, whose sizes are still open. Call the network once with a batch of "
                "images before the import."
            )


def _samples(module: nn.Module, input: Input) -> dict[str, torch.Tensor]:
    """A batch of each input, random where a shape is given."""
    given = dict(input) if isinstance(input, Mapping) else {"input": input}
    first = next((value for value in module.parameters() if value.is_floating_point()), torch.zeros(()))
    found: dict[str, torch.Tensor] = {}
    size = (module.batch if isinstance(module, ProgramModule) else None) or 2
    for name, value in given.items():
        if isinstance(value, torch.Tensor):
            found[name] = value
            continue
        sizes = tuple(value) if isinstance(value, Iterable) else ()
        if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
            raise UsageError(f"the input must be a shape like (3, 224, 224), not {value!r}.")
        generator = torch.Generator().manual_seed(0)
        batch = torch.randn(size, *sizes, generator=generator)
        found[name] = batch.to(device=first.device, dtype=first.dtype)
    return found


def _recorded(module: nn.Module, call: ModuleInputs) -> ModuleTrace:
    """The trace of a module in evaluation mode; its own modes and random state stay as they are."""
    modes = {part: part.training for part in module.modules()}
    try:
        module.eval()
        with torch.random.fork_rng(devices=[]):
            return record(module, call.copy(), tuple(CLASSES))
    except (UsageError, UnsupportedNetwork):
        raise
    except (Exception, SystemExit) as error:
        values = call.tensors.values()
        shapes = ", ".join("x".join(map(str, value.shape[1:])) for value in values)
        flat = next((tuple(value.shape[1:]) for value in values if value.dim() == 3), None)
        hint = f". An image has channels, too, like '3x{flat[0]}x{flat[1]}'." if flat else ""
        raise UsageError(
            f"{type(module).__name__} does not accept an input of {shapes}: {type(error).__name__}: "
            f"{foreign_message(error)}{hint}"
        ) from error
    finally:
        for part, training in modes.items():
            part.training = training


def _call_of(module: nn.Module, samples: Mapping[str, torch.Tensor]) -> ModuleInputs:
    """The samples as arguments of `forward`, by their names if there are several.

    Raises:
        UsageError: `forward` requires others, or has none of such a name.
    """
    kinds = inspect.Parameter
    try:
        arguments = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):  # written in C
        return ModuleInputs(samples)
    if isinstance(module, ProgramModule):
        arguments = [kinds(legal_name(name), kinds.POSITIONAL_ONLY) for name in module.inputs]
    title = type(module).__name__
    named = [one for one in arguments if one.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)]
    required = [one.name for one in named if one.default is one.empty]
    if len(samples) < len(required):
        names, options = ", ".join(map(repr, required)), " ".join(f"--input {name}=SHAPE" for name in required)
        raise UsageError(
            f"{title} requires {len(required)} inputs: {names}. Give the shape of each: '{options}', "
            "or in Python a mapping of names to shapes."
        )
    known = [one.name for one in named]
    if len(samples) == 1 or len(named) < len(arguments):
        return ModuleInputs(samples)
    unknown = next((name for name in samples if name not in known), None)
    if unknown is not None or not set(required) <= samples.keys():
        wrong = next(name for name in required if name not in samples) if unknown is None else unknown
        problem = f"requires the input '{wrong}'" if unknown is None else f"has no input '{wrong}'"
        raise UsageError(f"{title} {problem}. Its inputs are {', '.join(map(repr, known))}.")
    by_position = [
        one.name
        for index, one in enumerate(named)
        if one.kind is not kinds.KEYWORD_ONLY and all(name in samples for name in known[: index + 1])
    ]
    ordered = {name: samples[name] for name in known if name in samples}
    return ModuleInputs(ordered, frozenset(ordered) - set(by_position))


def _check_sharing(title: str, names: Mapping[str, str]) -> None:
    addresses: dict[str, list[str]] = {}
    for address, name in names.items():
        addresses.setdefault(name, []).append(address)
    shared = [
        f"'{name}' is shared between {' and '.join(map(repr, users))}, which share no other weights. Share all tensors "
        "of these layers, or give each its own"
        for name, users in addresses.items()
        if len(users) > 1
    ]
    if shared:
        raise UnsupportedNetwork(f"{title} cannot be imported: {'; '.join(shared)}.", shared)


def _unconnected(flat: Flat) -> list[Fault]:
    """Faults of a network that computes nothing, or does not use an input."""
    read = {operand for primitive in flat.primitives for operand in primitive.operands} | set(flat.outputs.values())
    if not flat.primitives:
        return [Fault("it computes nothing: its result is its input", "", "output")]
    return [
        Fault(f"its result does not depend on the input '{name}'. Give only the others", "", "input")
        for number, name in enumerate(flat.inputs)
        if -1 - number not in read
    ]


def _constants(module: nn.Module, names: Mapping[str, str]) -> tuple[str, ...]:
    """What training here changes and training of the original does not: frozen parameters, and buffers that scale."""
    if isinstance(module, ProgramModule):
        return ()
    frozen = {name for name, value in stored_tensors(module).items() if not value.requires_grad}
    addresses = [
        address
        for address, name in names.items()
        if name in frozen and not address.endswith(("running_mean", "running_var", "num_batches_tracked"))
    ]
    fixed = list(dict.fromkeys(address.rpartition(".")[0] for address in addresses))
    if not fixed:
        return ()
    more = f" and {len(fixed) - _SHOWN} more" if len(fixed) > _SHOWN else ""
    listed = ", ".join(map(repr, fixed[:_SHOWN]))
    return (
        f"the original does not train {listed}{more}: buffers, or requires_grad=False. A spec cannot say so; set "
        f"'freeze' in the recipe, like --recipe 'freeze=[{fixed[0]}]'",
    )


def _equal_results(flat: Flat) -> tuple[str, ...]:
    """Results of the original that are one output of the spec."""
    named: dict[int, list[str]] = {}
    for name, value in flat.outputs.items():
        named.setdefault(value, []).append(name)
    several = [names for names in named.values() if len(names) > 1]
    return tuple(
        f"the results {' and '.join(map(repr, names))} are equal: the spec has one output" for names in several
    )


def _autocast(trace: ModuleTrace) -> tuple[str, ...]:
    """What the original does in mixed precision alone."""
    locations = list(trace.autocast)
    if not locations:
        return ()
    more = f" and {len(locations) - _SHOWN} more" if len(locations) > _SHOWN else ""
    return (
        f"the original computes within torch.autocast at {', '.join(locations[:_SHOWN])}{more}, which changes nothing "
        "in this run. A spec cannot say so: with 'precision: bf16' in a recipe, results may differ",
    )


def _left_out(module: nn.Module, trace: ModuleTrace, used: set[str]) -> tuple[str, ...]:
    """What the spec leaves out: tensors that the outputs do not depend on, by module."""
    left: dict[str, int] = {}
    tensors = stored_tensors(module)
    known = {id(tensors[name]) for name in used if name in tensors}
    for name, value in tensors.items():
        if id(value) not in known and not name.endswith("num_batches_tracked"):
            path = name.rpartition(".")[0]
            left[path] = left.get(path, 0) + 1
    tops: dict[str, int] = {}
    for path, number in left.items():
        parts = path.split(".")
        top = next(
            (".".join(parts[:n]) for n in range(1, len(parts) + 1) if ".".join(parts[:n]) not in trace.called), path
        )
        tops[top] = tops.get(top, 0) + number
    return tuple(
        f"left out: '{path or type(module).__name__}' ({format_count(number, 'tensor')}), not used in evaluation mode"
        for path, number in tops.items()
    )


def _unsupported(title: str, faults: Sequence[Fault]) -> UnsupportedNetwork:
    """All faults in one message; equal ones in one line."""
    locations: dict[str, list[str]] = {}
    for fault in faults:
        locations.setdefault(fault.what, []).append(fault.where)
    lines = []
    for what, found in locations.items():
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        lines.append(f"  {what}: in {', '.join(found[:_SHOWN])}{more}")
    count = "one thing" if len(lines) == 1 else f"{len(lines)} things"
    return UnsupportedNetwork(
        "\n".join([f"{title} cannot be imported: {count} in it cannot be expressed in a spec.", *lines]),
        map(str, faults),
    )


__all__ = ["Imported", "from_module"]
