"""What a network offers to others: its classifier, and the feature maps before each reduction of the resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from hiresnet_graph.blocks import BLOCKS
from hiresnet_graph.errors import UsageError
from hiresnet_graph.ops import OPS
from hiresnet_graph.plan import Call, Plan
from hiresnet_graph.shapes import Shape


class FeatureInfo(list[dict[str, Any]]):
    """The feature maps of a network, from the largest to the smallest, as in timm: for each a dict with `num_chs`
    (channels), `reduction` (size of the input divided by its size), `module` (a node or stage) and `index`."""

    def channels(self) -> list[int]:
        """The number of channels of each."""
        return [info["num_chs"] for info in self]

    def reduction(self) -> list[int]:
        """The size of the input divided by that of each."""
        return [info["reduction"] for info in self]

    def module_name(self) -> list[str]:
        """The node or stage of each."""
        return [info["module"] for info in self]

    def select(self, indices: Sequence[int] | None) -> FeatureInfo:
        """Those with these indices, which may be negative; all for None.

        Raises:
            UsageError: There is no such index.
        """
        if indices is None:
            return self
        for index in indices:
            if not -len(self) <= index < len(self):
                names = ", ".join(f"{info['index']} ({info['module']})" for info in self)
                raise UsageError(f"out_indices: there are no features {index}. Choose from {names}.")
        return FeatureInfo(self[index] for index in indices)


def feature_info(plan: Plan) -> FeatureInfo:
    """The last feature map of each resolution, before the classifier.

    Raises:
        UsageError: The network has several inputs, or an input without height and width.
    """
    size = _image(plan).spatial[0]
    found: dict[int, tuple[str, int]] = {}
    for record in plan.nodes:
        spatial = record.shape.spatial
        if record.block != "input" and len(spatial) == 2 and (spatial[0] > 1 or spatial[1] > 1):
            found[round(size / spatial[0])] = (record.stage or record.name, record.shape.channels)
    levels = sorted(found.items())
    return FeatureInfo(
        {"num_chs": channels, "reduction": reduction, "module": name, "index": index}
        for index, (reduction, (name, channels)) in enumerate(levels)
    )


def _image(plan: Plan) -> Shape:
    shapes = list(plan.inputs.values())
    if len(shapes) != 1 or len(shapes[0].frame.spatial) != 2:
        given = ", ".join(f"{name} ({shape})" for name, shape in plan.inputs.items())
        raise UsageError(f"'{plan.name}' takes {given}: features of other inputs than one image are read by name.")
    return shapes[0].frame


class Classifier(NamedTuple):
    """The last layer of a network, if it gives the scores of classes.

    Attributes:
        call: The linear map.
        field: The field of the spec with the number of classes, like `head.classes`.
        features: The value before the head, and before global pooling.
    """

    call: Call
    field: str
    features: str

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.call.shape.channels


def find_classifier(plan: Plan) -> Classifier | None:
    """The classifier of a network with one output; None if its last layer is none."""
    values = list(plan.outputs.values())
    ends = [record for record in plan.nodes if values == [record.value]]
    calls = {call.name: call for call in plan.calls}
    call = calls.get(values[0])
    if len(values) != 1 or not ends or call is None or call.op.kind != "linear":
        return None
    block = ends[-1].block
    kinds = [registry.get(block) for registry in (BLOCKS, OPS) if block in registry]
    field = next((kind.classes_field for kind in kinds if kind.classes_field), "")
    if not field:
        return None
    value = call.inputs[0]
    while (before := calls.get(value)) is not None and _is_readout(before, ends[-1].name):
        value = before.inputs[0]
    return Classifier(call, f"{ends[-1].name}.{field}", value)


def _is_readout(call: Call, head: str) -> bool:
    """Whether a call belongs to the head, or collapses a feature map."""
    collapses = not call.tensors and len(call.inputs) == 1 and max(call.shape.frame.spatial, default=1) == 1
    return call.owner == head or (collapses and call.input_shapes[0] != call.shape)
