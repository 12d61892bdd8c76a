"""Whether an imported network computes what the original does, in evaluation and in training mode."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from hiresnet_graph.errors import UnsupportedNetwork
from hiresnet_graph.importing.gradients import NotCompared, other_gradients
from hiresnet_graph.importing.masks import MeanMasks, RandomMask, is_alike, unmatched
from hiresnet_graph.importing.programs import ProgramModule
from hiresnet_graph.importing.starting_values import constant_of
from hiresnet_graph.importing.trace import ModuleInputs, foreign_message, stored_tensors

_TOLERANCE = 1e-8
"""Largest relative difference of outputs in float64."""
_BATCHES = (2, 3)
"""Numbers of samples; what depends on them differs if the recording had another one."""
_SMALL = 0.1
"""Weights that are all equal and below this number hide what they are multiplied with."""

_DROPOUT = (
    "Dropout must be part of both modes: use nn.Dropout, or 'F.dropout(x, p, self.training)' outside of conditions."
)
_STOCHASTIC_DEPTH = (
    "Its masks drop whole samples: use torchvision.ops.StochasticDepth(p, 'row') or timm.layers.DropPath for that, "
    "which are known here."
)


class OutputComparison(NamedTuple):
    """Largest absolute differences between the outputs of the original and of the imported network, in float64.

    Attributes:
        evaluation: In evaluation mode.
        training: In training mode, with the running statistics after it. Random masks are replaced by their means. None
            for a compiled network, which has no training mode.
        masks: Number of random masks, whose sizes and probabilities are equal.
        without_gradients: Why the gradients were not compared. Empty if they are equal, or there is no training mode.
    """

    evaluation: float
    training: float | None
    masks: int
    without_gradients: str = ""

    def __str__(self) -> str:
        masks = f"; {self.masks} random masks with the same probabilities" if self.masks else ""
        if self.training is None:
            return f"largest difference {self.evaluation:.1e} in evaluation mode, the only one of a compiled network"
        gradients = f"; gradients were not compared: {self.without_gradients}" if self.without_gradients else ""
        return (
            f"largest difference {self.evaluation:.1e} in evaluation mode, {self.training:.1e} in training mode{masks}"
            f"{gradients}"
        )


def compare(
    original: nn.Module,
    imported: nn.Module,
    names: Mapping[str, str],
    call: ModuleInputs,
    outputs: Sequence[str],
) -> OutputComparison:
    """Run both networks on the same random numbers, in float64, and compare their gradients in training mode.

    Weights whose elements are all equal get random numbers for it: scales of 0 would hide everything before them.

    Args:
        imported: Gets these weights.
        names: Address in the imported network -> name in the original.
        call: The arguments of the original when it was recorded, for their shapes.
        outputs: The output of the imported network for each result of the original, in order.

    Raises:
        UnsupportedNetwork: Outputs, running statistics or gradients differ.
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
    revealed = [] if program is not None else _vary(reference, names, generator)
    _share_tensors(reference, imported, names)
    pair = _Pair(reference, imported, names, call, outputs, revealed)
    evaluation, _ = pair.difference(training=False)
    if program is not None:  # without a training mode
        return OutputComparison(evaluation, None, 0)
    training, masks = pair.difference(training=True)
    changed = pair.check_statistics()
    return OutputComparison(evaluation, max(training, changed), masks, pair.check_gradients())


class _Pair(NamedTuple):
    """A network and the imported one, with the arguments on which they are compared.

    Attributes:
        revealed: Factors and weights of the original that are all 0, or close to it, and are not in these networks.
    """

    original: nn.Module
    imported: nn.Module
    names: Mapping[str, str]
    call: ModuleInputs
    outputs: Sequence[str]
    revealed: Sequence[str]

    def difference(self, *, training: bool) -> tuple[float, int]:
        """The largest difference of outputs in one mode, and the number of random masks.

        Raises:
            UnsupportedNetwork: The outputs or the random masks differ.
        """
        mode = "training" if training else "evaluation"
        expected, masks = _run(self.original, self.call, training)
        found, own_masks = _run(self.imported, self.own_call, training)
        leaves = _leaves(expected)
        pairs = list(zip(leaves, self.own_results(found), strict=False))
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
                f"{self.first_difference(training=training)}. Does its code compute {cause}?{self._note()}"
            )
        left = unmatched(masks, own_masks)
        if left:  # a network with auxiliary outputs in training mode draws masks for them, too
            masks = [
                mask
                for number, mask in enumerate(masks)
                if not any(is_alike(mask, one) for one in left) or self._depends_on(number, leaves, training)
            ]
            left = unmatched(masks, own_masks)
        if left is None or left:
            batches = {len(tensor) for tensor in self.call.tensors.values()}
            is_of_samples = bool(left) and all(mask.size in batches for mask in left or ())
            remedy = _STOCHASTIC_DEPTH if is_of_samples else _DROPOUT
            raise UnsupportedNetwork(
                f"the imported network draws other random masks in {mode} mode: {len(own_masks)} instead of "
                f"{len(masks)}, or with other probabilities. {remedy}"
            )
        return difference, len(own_masks)

    def own_results(self, found: Any) -> list[torch.Tensor]:
        """What the imported network computes for each result of the original."""
        own = found if isinstance(found, dict) else {self.outputs[0]: found}
        return [own[name] for name in self.outputs]

    def _depends_on(self, number: int, leaves: Sequence[torch.Tensor], training: bool) -> bool:
        """Whether the compared results of the original depend on one of its random masks."""
        changed, _ = _run(copy.deepcopy(self.original), self.call, training, changed_mask=number)
        pairs = zip(leaves, _leaves(changed), self.outputs, strict=False)
        return any(max_difference(one, other) > 0 for one, other, _ in pairs)

    def _note(self) -> str:
        if not self.revealed:
            return ""
        more = f" and {len(self.revealed) - 1} more" if len(self.revealed) > 1 else ""
        return f" The comparison has random numbers in place of the zeros of '{self.revealed[0]}'{more}."

    def check_statistics(self) -> float:
        """The largest difference of running statistics after a step in training mode.

        Raises:
            UnsupportedNetwork: They differ.
        """
        state, own_state = self.original.state_dict(), self.imported.state_dict()
        changed = {
            name: max_difference(state[name].reshape(own_state[new].shape), own_state[new])
            for new, name in self.names.items()
        }
        wrong = next((name for name, difference in changed.items() if not difference <= _TOLERANCE * 100), None)
        if wrong is not None:
            raise UnsupportedNetwork(
                f"the imported network has other running statistics after a step in training mode, first '{wrong}'. "
                "Does this norm have momentum=None, a cumulative average? Set a number, like 0.1."
            )
        return max(changed.values(), default=0.0)

    def check_gradients(self) -> str:
        """Compare the gradients of all weights in training mode; returns why not, if they cannot be compared.

        Raises:
            UnsupportedNetwork: They differ.
        """
        try:
            wrong = other_gradients(
                (self.original, self.imported),
                (self.call, self.own_call),
                (lambda result: _leaves(result)[: len(self.outputs)], self.own_results),
                self.names,
            )
        except NotCompared as error:
            return str(error)
        if wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise UnsupportedNetwork(
                f"the imported network has other gradients in training mode: of '{wrong[0]}'{more}. Does its code stop "
                "or change them, by 'detach()', '.data' or a hook? Remove that for the import, and freeze parts with "
                "'freeze' in the recipe of a training."
            )
        return ""

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


def _run(
    network: nn.Module, call: ModuleInputs, training: bool, *, changed_mask: int | None = None
) -> tuple[Any, list[RandomMask]]:
    """The result of a network, and the random masks that it draws.

    Args:
        changed_mask: The mask that is not replaced by its mean.
    """
    network.train(training)
    call = call.copy()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), MeanMasks(changed_mask) as means:
            torch.manual_seed(0)
            result = call.run(network)
    except Exception as error:
        mode = "training" if training else "evaluation"
        batch = max((len(tensor) for tensor in call.tensors.values()), default=0)
        raise UnsupportedNetwork(
            f"the network fails in {mode} mode on a batch of {batch} in float64: {foreign_message(error)}. The "
            "comparison requires code that accepts any number of samples ('x.view(len(x), -1)', not 'x.view(2, -1)') "
            "and type of numbers ('x.new_zeros(4)', not 'torch.zeros(4)')."
        ) from error
    return result, means.masks


def _vary(network: nn.Module, names: Mapping[str, str], generator: torch.Generator) -> list[str]:
    """Give the weights that an import uses, and that are all equal, other values; returns those that were about 0.

    Large ones keep their size. Buffers stay: running variances must be positive. Biases are not returned.
    """
    tensors = stored_tensors(network)
    small = []
    for name in dict.fromkeys(names.values()):
        value = tensors[name]
        number = constant_of(value) if isinstance(value, nn.Parameter) else None
        if number is None:
            continue
        fan = value.numel() // len(value) if value.dim() > 1 else 1
        random = torch.rand(value.shape, generator=generator, dtype=value.dtype)
        with torch.no_grad():
            if abs(number) >= _SMALL:
                value.mul_(0.8 + 0.4 * random)
            else:
                value.copy_((0.25 + 0.5 * random) if fan == 1 else (2 * random - 1) / fan**0.5)
                small += [] if name.endswith("bias") else [name]
    return small


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
