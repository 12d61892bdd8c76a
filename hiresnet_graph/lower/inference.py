"""The inference form of a network: fewer calls, and equal outputs in evaluation mode up to rounding.

Norms with running statistics, and factors of edges, become part of the convolution or linear map before them (as in
Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only inference").
Convolutions with equal geometry that meet in one sum, like the projections of several skips, become one convolution of
their concatenated inputs, whose sum is computed by the convolution itself.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from hiresnet_graph.lower import build
from hiresnet_graph.lower.weights import floating_type
from hiresnet_graph.ops import Op
from hiresnet_graph.ops.combine import Concat
from hiresnet_graph.ops.conv import Conv2d
from hiresnet_graph.plan import Call, Plan
from hiresnet_graph.shapes import Shape

_Tensors = dict[str, torch.Tensor]
_Step = Callable[[_Tensors], None]


@dataclass(frozen=True, eq=False)
class InferenceForm:
    """A plan in inference form.

    Attributes:
        plan: The plan. Calls keep the names of their values; a joined convolution has the name of its sum.
        absorbed: Number of channel maps (norms, factors) that became part of the call before them.
        joined: Number of convolutions that became part of another.
    """

    plan: Plan
    absorbed: int
    joined: int
    _steps: tuple[_Step, ...]

    def weights(self, tensors: Mapping[str, torch.Tensor]) -> _Tensors:
        """The `state_dict` of the form from that of the network; computed in float64."""
        found = {name: value.double() for name, value in tensors.items()}
        for step in self._steps:
            step(found)
        names = self.plan.tensors()
        dtype = floating_type(tensors.values())
        return {name: found[name].to(tensors[name].dtype if name in tensors else dtype) for name in names}

    def build(self, trained: nn.Module) -> nn.Module:
        """The form as a module in evaluation mode, with the type of numbers of a trained one.

        Args:
            trained: A module of the network; it is not changed.
        """
        weights = self.weights(trained.state_dict())
        module = build(self.plan).to(floating_type(weights.values()))
        module.load_state_dict(weights)
        return module.eval()


def inference_form(plan: Plan, *, joins: bool = True) -> InferenceForm:
    """The inference form of a plan; a network with `time` is unrolled.

    Args:
        joins: Join convolutions that meet in a sum.
    """
    steps: list[_Step] = []
    calls, absorbed = list(plan.calls), 0
    while found := _absorb(plan, calls, steps):
        absorbed += found
    joined = _join(plan, calls, steps) if joins else 0
    return InferenceForm(replace(plan, calls=tuple(calls), folded=None), absorbed, joined, tuple(steps))


def _absorb(plan: Plan, calls: list[Call], steps: list[_Step]) -> int:
    """Remove channel maps behind operations that can absorb them; returns how many."""
    readers, users = _readers(plan, calls), Counter(call.weights for call in calls)
    before = {call.name: call for call in calls}
    pairs: dict[tuple[str, str], list[tuple[Call, Call]]] = defaultdict(list)
    for call in calls:
        source = before.get(call.inputs[0]) if call.op.maps_channels else None
        if source is not None and source.op.absorbs_maps and readers[source.name] == 1:
            pairs[source.weights, call.weights if call.tensors else call.name].append((source, call))
    changed: dict[str, Call] = {}
    removed: set[str] = set()
    for found in pairs.values():
        source, call = found[0]
        is_shared = users[source.weights] != len(found) or (bool(call.tensors) and users[call.weights] != len(found))
        # Weights that other calls use without this map would have to be copied.
        if is_shared or any((a.op, b.op) != (source.op, call.op) for a, b in found):
            continue
        steps.append(_absorbing(source, call))
        op = source.op.model_copy(update={"bias": True})
        for a, b in found:
            changed[b.name] = replace(b, op=op, inputs=a.inputs, input_shapes=a.input_shapes, weights=a.weights)
            removed.add(a.name)
    calls[:] = [changed.get(call.name, call) for call in calls if call.name not in removed]
    return len(changed)


def _absorbing(source: Call, call: Call) -> _Step:
    def step(tensors: _Tensors) -> None:
        own = {tensor.name: tensors.pop(f"{source.weights}.{tensor.name}") for tensor in source.tensors}
        maps = {tensor.name: tensors.pop(f"{call.weights}.{tensor.name}") for tensor in call.tensors}
        ones = own["weight"].new_ones(call.shape.channels)
        factor, shift = (value * ones for value in call.op.channel_map(maps))
        for name, value in source.op.absorb(own, factor, shift).items():
            tensors[f"{source.weights}.{name}"] = value

    return step


def _join(plan: Plan, calls: list[Call], steps: list[_Step]) -> int:
    """Replace convolutions that meet in a sum by one convolution; returns how many fewer there are."""
    readers, users = _readers(plan, calls), Counter(call.weights for call in calls)
    before = {call.name: call for call in calls}

    def geometry(name: str) -> tuple[Op, Shape] | None:
        """What the convolutions of a group have in common; None for a value that cannot be part of one.

        Their inputs differ in channels alone: with a stride, maps of several sizes have results of one.
        """
        source = before.get(name)
        if source is None or readers[name] != 1 or users[source.weights] != 1:
            return None
        op = source.op
        is_joinable = isinstance(op, Conv2d) and op.groups == 1 and op.kernel_size == 1
        return (op.model_copy(update={"bias": True}), source.input_shapes[0].with_channels(1)) if is_joinable else None

    names, removed, saved = set(before), set[str](), 0
    made: list[Call] = []
    for call in calls:
        groups: dict[tuple[Op, Shape], list[Call]] = defaultdict(list)
        for name in dict.fromkeys(call.inputs) if call.op.kind == "add" else ():
            if (key := geometry(name)) is not None:
                groups[key].append(before[name])
        for (op, _), group in groups.items():
            if len(group) > 1:
                concat, conv, call = _joined(op, group, call, names)
                steps.append(_joining(group, conv.weights))
                removed |= {source.name for source in group}
                saved += len(group) - 1
                names |= {concat.name, conv.name}
                made += [concat, conv] if call is not conv else [concat]
        made.append(call)
    calls[:] = [call for call in made if call.name not in removed]
    return saved


def _joined(op: Op, group: Sequence[Call], total: Call, names: set[str]) -> tuple[Call, Call, Call]:
    """The concatenation, the convolution, and the sum without its parts; the last two are one if nothing is left."""
    inputs = tuple(source.inputs[0] for source in group)
    shapes = tuple(source.input_shapes[0] for source in group)
    concat = Concat()
    parts = {source.name for source in group}
    rest = [i for i, name in enumerate(total.inputs) if name not in parts]
    label = _unused(f"{total.name}.joined", names)
    first = replace(
        group[0],
        name=_unused(f"{label}.input", names),
        op=concat,
        inputs=inputs,
        input_shapes=shapes,
        shape=concat.shape(*shapes),
        weights=f"{label}.input",
    )
    conv = replace(
        group[0],
        name=label if rest else total.name,
        op=op,
        inputs=(first.name,),
        input_shapes=(first.shape,),
        shape=total.shape,
        weights=label,
        owner=total.owner,
    )
    if not rest:
        return first, conv, conv
    left = replace(
        total,
        inputs=(*(total.inputs[i] for i in rest), conv.name),
        input_shapes=(*(total.input_shapes[i] for i in rest), conv.shape),
    )
    return first, conv, left


def _joining(group: Sequence[Call], target: str) -> _Step:
    def step(tensors: _Tensors) -> None:
        own = [{tensor.name: tensors.pop(f"{call.weights}.{tensor.name}") for tensor in call.tensors} for call in group]
        tensors[f"{target}.weight"] = torch.cat([part["weight"] for part in own], dim=1)
        none = own[0]["weight"].new_zeros(group[0].shape.channels)
        tensors[f"{target}.bias"] = torch.stack([part.get("bias", none) for part in own]).sum(0)

    return step


def _unused(name: str, names: set[str]) -> str:
    while name in names:
        name += "_"
    return name


def _readers(plan: Plan, calls: Sequence[Call]) -> Counter[str]:
    """The number of readers of each value, the outputs of the network among them."""
    return Counter([*(name for call in calls for name in call.inputs), *plan.outputs.values()])
