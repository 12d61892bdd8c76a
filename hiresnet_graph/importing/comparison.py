"""Whether an imported network computes what the original does, in evaluation and in training mode."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hiresnet_graph.errors import UnsupportedNetwork
from hiresnet_graph.importing.programs import ProgramModule
from hiresnet_graph.importing.trace import ModuleInputs, foreign_message

_TOLERANCE = 1e-8
"""Largest relative difference of outputs in float64."""
_NOISE = 1e-7
"""Difference between probabilities that are equal but for rounding."""
_BATCHES = (2, 3)
"""Numbers of samples; what depends on them differs if the recording had another one."""


class OutputComparison(NamedTuple):
    """Largest absolute differences between the outputs of the original and of the imported network, in float64.

    Attributes:
        evaluation: In evaluation mode.
        training: In training mode, with the running statistics after it. Random masks are replaced by their means. None
            for a compiled network, which has no training mode.
        masks: Number of random masks, whose sizes and probabilities are equal.
    """

    evaluation: float
    training: float | None
    masks: int

    def __str__(self) -> str:
        masks = f"; {self.masks} random masks with the same probabilities" if self.masks else ""
        if self.training is None:
            return f"largest difference {self.evaluation:.1e} in evaluation mode, the only one of a compiled network"
        return (
            f"largest difference {self.evaluation:.1e} in evaluation mode, {self.training:.1e} in training mode{masks}"
        )


class RandomMask(NamedTuple):
    """A random mask: its number of values, and the probability of each to be one."""

    size: int
    probability: float


class _MeanMasks(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Replaces random masks by their means, which makes training mode a function."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.masks: list[RandomMask] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = function._schema.name
        if name == "aten::bernoulli_":
            probability = args[1] if len(args) > 1 else (kwargs or {}).get("p", 0.5)
            if not isinstance(probability, torch.Tensor):
                self.masks.append(RandomMask(args[0].numel(), float(probability)))
                return args[0].fill_(probability)
        if name == "aten::native_dropout":
            self.masks.append(RandomMask(args[0].numel(), 1 - float(args[1])))
            return args[0].clone(), torch.ones_like(args[0], dtype=torch.bool)
        return function(*args, **(kwargs or {}))


def compare(
    original: nn.Module,
    imported: nn.Module,
    names: Mapping[str, str],
    call: ModuleInputs,
    outputs: Sequence[str],
) -> OutputComparison:
    """Run both networks on the same random numbers, in float64.

    Args:
        names: Address in the imported network -> name in the original.
        call: The arguments of the original when it was recorded, for their shapes.
        outputs: The output of the imported network for each result of the original, in order.

    Raises:
        UnsupportedNetwork: The outputs differ.
    """
    generator = torch.Generator().manual_seed(0)
    program = original if isinstance(original, ProgramModule) else None
    recorded = {len(tensor) for tensor in call.tensors.values()}
    batch = (program.batch if program else None) or next(size for size in _BATCHES if size not in recorded)
    samples = {
        name: torch.randn(batch, *tensor.shape[1:], generator=generator, dtype=torch.float64)
        for name, tensor in call.tensors.items()
    }
    call = call._replace(tensors=samples)
    try:
        reference = copy.deepcopy(original).to(device="cpu", dtype=torch.float64)
    except Exception as error:
        raise UnsupportedNetwork(f"the network cannot be copied for a comparison: {foreign_message(error)}") from error
    _share_tensors(reference, imported, names)
    pair = _Pair(reference, imported, names, call, outputs)
    evaluation, _ = pair.difference(training=False)
    if program is not None:  # without a training mode
        return OutputComparison(evaluation, None, 0)
    training, masks = pair.difference(training=True)
    state, own_state = reference.state_dict(), imported.state_dict()
    changed = {
        name: max_difference(state[name].reshape(own_state[new].shape), own_state[new]) for new, name in names.items()
    }
    wrong = next((name for name, difference in changed.items() if not difference <= _TOLERANCE * 100), None)
    if wrong is not None:
        raise UnsupportedNetwork(
            f"the imported network has other running statistics after a step in training mode, first '{wrong}'. "
            "Does this norm have momentum=None, a cumulative average? Set a number, like 0.1."
        )
    return OutputComparison(evaluation, max(training, *changed.values(), 0.0), masks)


class _Pair(NamedTuple):
    """A network and the imported one, with the arguments on which they are compared."""

    original: nn.Module
    imported: nn.Module
    names: Mapping[str, str]
    call: ModuleInputs
    outputs: Sequence[str]

    def difference(self, *, training: bool) -> tuple[float, int]:
        """The largest difference of outputs in one mode, and the number of random masks.

        Raises:
            UnsupportedNetwork: The outputs or the random masks differ.
        """
        mode = "training" if training else "evaluation"
        expected, masks = _run(self.original, self.call, training)
        found, own_masks = _run(self.imported, self.own_call, training)
        own = found if isinstance(found, dict) else {self.outputs[0]: found}
        leaves = _leaves(expected)
        pairs = list(zip(leaves, (own[name] for name in self.outputs), strict=False))
        difference = max((max_difference(*pair) for pair in pairs), default=float("inf"))
        if not difference <= _TOLERANCE * max(1.0, *(float(one.abs().max()) for one, _ in pairs)):
            cause = "with the size of the batch"
            if training:
                cause = "something else in training mode, such as noise or a loss, or keep a norm in evaluation mode"
            if not all(bool(one.isfinite().all()) for one in leaves):
                raise UnsupportedNetwork(
                    f"the outputs of the network in {mode} mode are not finite. Check its weights."
                )
            raise UnsupportedNetwork(
                f"the imported network has other outputs in {mode} mode: {difference:.1e}"
                f"{self.first_difference(training=training)}. Does its code compute {cause}?"
            )
        # A network with auxiliary outputs in training mode draws masks for them, too.
        left = _unmatched(masks, own_masks)
        if left is None or (left and len(leaves) == len(self.outputs)):
            raise UnsupportedNetwork(
                f"the imported network draws other random masks in {mode} mode: {len(own_masks)} instead of "
                f"{len(masks)}, or with other probabilities. Dropout must be part of both modes: use nn.Dropout, or "
                "'F.dropout(x, p, self.training)' outside of conditions."
            )
        return difference, len(own_masks)

    @property
    def own_call(self) -> ModuleInputs:
        """The arguments for the imported network, which has no names for them."""
        return ModuleInputs(self.call.tensors)

    def first_difference(self, *, training: bool) -> str:
        """The first layer with weights whose results differ, as the end of a message; empty if there is none."""
        layers = {address.rpartition(".")[0]: name.rpartition(".")[0] for address, name in self.names.items()}
        expected = _results(self.original, self.call, {path: path for path in layers.values()}, training)
        own = _results(self.imported, self.own_call, layers, training)
        for layer, value in expected.items():
            if layer in own and own[layer].numel() == value.numel():
                # Their axes may differ.
                difference = max_difference(value.flatten().sort()[0], own[layer].flatten().sort()[0])
                if not difference <= _TOLERANCE * max(1.0, float(value.abs().max())):
                    return f", first at the output of '{layer}'"
        return ""


def _results(
    network: nn.Module, call: ModuleInputs, layers: Mapping[str, str], training: bool
) -> dict[str, torch.Tensor]:
    """Layer of the original -> its first result.

    Args:
        layers: Address in the network -> that of the same layer in the original.
    """
    found: dict[str, torch.Tensor] = {}
    modules = dict(network.named_modules())
    hooks = [
        modules[path].register_forward_hook(partial(_keep, found, layer))
        for path, layer in layers.items()
        if path in modules
    ]
    _run(network, call, training)
    for hook in hooks:
        hook.remove()
    return found


def _keep(found: dict[str, torch.Tensor], layer: str, module: nn.Module, args: Any, result: Any) -> None:
    if isinstance(result, torch.Tensor):
        found.setdefault(layer, result.clone())


def _run(network: nn.Module, call: ModuleInputs, training: bool) -> tuple[Any, list[RandomMask]]:
    """The result of a network, and the random masks that it draws."""
    network.train(training)
    call = call.copy()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), _MeanMasks() as means:
            torch.manual_seed(0)
            result = call.run(network)
    except Exception as error:
        mode = "training" if training else "evaluation"
        raise UnsupportedNetwork(f"the network fails in {mode} mode in float64: {foreign_message(error)}") from error
    return result, means.masks


def _unmatched(masks: Sequence[RandomMask], others: Sequence[RandomMask]) -> list[RandomMask] | None:
    """The masks without a counterpart among others; None if one of the others has none."""
    left = sorted(masks)
    for other in sorted(others):
        match = next((mask for mask in left if mask.size == other.size and abs(mask[1] - other[1]) < _NOISE), None)
        if match is None:
            return None
        left.remove(match)
    return left


def _share_tensors(reference: nn.Module, imported: nn.Module, names: Mapping[str, str]) -> None:
    """Give a network the tensors of the other one; those that training mode changes are copied."""
    tensors = reference.state_dict()
    own = imported.state_dict()
    buffers = {name for name, _ in imported.named_buffers()}
    for new in own:
        value = tensors[names[new]].reshape(own[new].shape) if new in names else own[new]
        own[new] = value.clone() if new in buffers else value
    imported.load_state_dict(own, assign=True)


def _leaves(result: Any) -> list[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, Mapping):
        result = list(result.values())
    return [leaf for item in result for leaf in _leaves(item)] if isinstance(result, list | tuple) else []


def max_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest absolute difference of elements; infinity if the shapes differ."""
    if one.shape != other.shape:
        return float("inf")
    return float((one.double() - other.double()).abs().max()) if one.numel() else 0.0
