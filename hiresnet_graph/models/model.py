"""A network with the methods that users of timm expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.errors import UsageError
from hiresnet_graph.lower.single import subnetwork
from hiresnet_graph.lower.weights import make_layers
from hiresnet_graph.models.levels import Classifier, FeatureInfo, feature_info, find_classifier
from hiresnet_graph.models.taps import find_values
from hiresnet_graph.plan import Plan, restrict
from hiresnet_graph.train.pretrained import save_pretrained


class _Over(nn.Module):
    """A module with the submodules of a network, under their own names, and the code of the network.

    A node may be called like a method (`features`): as an attribute, `model.features` is the method and
    `model.network.features` the node; by address (`get_submodule`), in hooks and in the `state_dict` it is the node.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = [network]  # in a list, so that it is not a submodule
        self._modules = network._modules
        self.training = network.training

    @property
    def network(self) -> nn.Module:
        """The network itself, as `Architecture.build` gives it; a `Recurrent` for one with `time`."""
        return self._network[0]

    @property
    def meta(self) -> dict[str, Any]:
        """The metadata of the network, such as `preprocessing`."""
        found: dict[str, Any] = self.network.meta  # type: ignore[assignment]
        return found

    def get_submodule(self, target: str) -> nn.Module:
        """The module at an address, like `stage2.block1`."""
        return self.network.get_submodule(target) if target else self

    def set_submodule(self, target: str, module: nn.Module, strict: bool = False) -> None:
        """Replace the module at an address."""
        self.network.set_submodule(target, module, strict)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules."""
        self.network.training = mode
        return super().train(mode)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._network[0]._modules = self._modules


class ImageModel(_Over):
    """A network with methods as in timm. The submodules have the names of the nodes of the spec.

    `network` is what `Architecture.build` gives, over the same modules: torch.fx code, and a `Recurrent` for a network
    with `time`.
    """

    def __init__(self, arch: Architecture, network: nn.Module) -> None:
        super().__init__(network)
        self._arch = arch
        self._parts: dict[object, tuple[list[nn.Module], nn.Module]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_parts": {}}

    def forward(self, *images: torch.Tensor) -> Any:
        """The output of the network."""
        return self.network.forward(*images)

    @property
    def arch(self) -> Architecture:
        """The spec of the network."""
        return self._arch

    @property
    def plan(self) -> Plan:
        """The primitive calls of the network."""
        return self.arch.plan

    # ------------------------------------------------------------------------------------------------------- features

    @property
    def feature_info(self) -> FeatureInfo:
        """The last feature map of each resolution."""
        return feature_info(self.plan)

    def features(
        self, images: torch.Tensor | Sequence[torch.Tensor], taps: str | Sequence[str]
    ) -> dict[str, torch.Tensor]:
        """Values inside the network, by name.

        What they do not depend on is not computed. They are values of the plan, also where a module returns several.

        Args:
            images: The input; several inputs as a sequence.
            taps: One or several nodes, stages, projections (`edges.stem__stage3`) or parts of blocks
                (`stage2.block1.conv1`). In a network with `time`, `V4@3` is the value at step 3, and `V4` the last one.

        Raises:
            UsageError: There is no such value.
        """
        values = find_values(self.plan, taps)
        distinct = dict.fromkeys(values.values())
        part = self._part(tuple(distinct))
        given = (images,) if isinstance(images, torch.Tensor) else tuple(images)
        found = part(*given)
        held = found if isinstance(found, dict) else {next(iter(distinct)): found}
        return {tap: held[value] for tap, value in values.items()}

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """The last feature map, before global pooling and the classifier; for transformers, the tokens."""
        found: torch.Tensor = self._part((self._classifier().features,))(images)
        return found

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """The scores of the classes from `forward_features`.

        Args:
            pre_logits: Stop before the classifier, after pooling.
        """
        classifier = self._classifier()
        end = classifier.call.inputs[0] if pre_logits else classifier.call.name
        found: torch.Tensor = (
            features if end == classifier.features else self._part((end,), classifier.features)(features)
        )
        return found

    def _part(self, values: tuple[str, ...], start: str | None = None) -> nn.Module:
        """The part of the network that computes some values, over the layers that it has now."""
        shapes = {call.name: call.shape for call in self.plan.calls}
        inputs = None if start is None else {start: shapes[start]}
        plan = restrict(self.plan, {value: value for value in values}, inputs)
        layers = [self.get_submodule(name) for name in _addresses(plan)]
        held, part = self._parts.get((values, start), ([], None))
        if part is None or len(held) != len(layers) or any(a is not b for a, b in zip(held, layers, strict=True)):
            part = subnetwork(self.plan, plan, self)
            self._parts[values, start] = layers, part
        return part

    # ----------------------------------------------------------------------------------------------------- classifier

    @property
    def num_classes(self) -> int:
        """The number of classes; 0 without a classifier."""
        return 0 if isinstance(self.get_classifier(), nn.Identity) else self._classifier().classes

    @property
    def num_features(self) -> int:
        """The number of features that the classifier reads."""
        return self._classifier().call.input_shapes[0].channels

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.get_submodule(self._classifier().call.weights)

    def reset_classifier(self, num_classes: int, *, seed: int = 0) -> None:
        """Replace the classifier by a new one with initial weights; by the identity for 0 classes.

        Raises:
            UsageError: The network does not end with a classifier.
        """
        classifier = self._classifier()
        if num_classes > 0:
            arch = self.arch.override({classifier.field: num_classes})
            layer = make_layers(restrict(arch.plan, arch.plan.outputs), seed)[classifier.call.weights]
            self._arch = arch
        else:
            layer = nn.Identity()
        old = next(self.get_classifier().parameters(), None)
        self.set_submodule(classifier.call.weights, layer if old is None else layer.to(old.device, old.dtype))

    def _classifier(self) -> Classifier:
        found = find_classifier(self.plan)
        if found is None:
            raise UsageError(
                f"'{self.arch.title}' does not end with a classifier, a linear map to one vector. Use 'features'."
            )
        return found

    # --------------------------------------------------------------------------------------------------------- storage

    def save_pretrained(self, folder: Path | str) -> Path:
        """Write the network to a folder, from which `create_model` and `from_pretrained` load it."""
        return save_pretrained(self, folder, arch=self.arch)


class FeatureModel(_Over):
    """A network that returns a list of feature maps, as with `features_only=True` in timm."""

    def __init__(self, model: ImageModel, out_indices: Sequence[int] | None) -> None:
        info = model.feature_info.select(out_indices)
        names = find_values(model.plan, info.module_name())
        super().__init__(subnetwork(model.plan, restrict(model.plan, names), model))
        self._info, self._names = info, tuple(names)

    @property
    def feature_info(self) -> FeatureInfo:
        """What the feature maps are."""
        return self._info

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The feature maps."""
        found = self.network.forward(images)
        return [found[name] for name in self._names] if isinstance(found, Mapping) else [found]


def _addresses(plan: Plan) -> list[str]:
    return list(dict.fromkeys(call.weights for call in plan.calls if call.op.layer(*call.input_shapes) is not None))
