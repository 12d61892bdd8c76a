"""Networks by name, as `timm.create_model` gives them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal, overload

import torch

from hiresnet_graph.architecture import Architecture, load, split_variant
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.lower.weight_files import Fit, WeightFile, maps_beside, read_weights
from hiresnet_graph.models.levels import find_classifier
from hiresnet_graph.models.model import FeatureModel, ImageModel
from hiresnet_graph.shipped import spec_names
from hiresnet_graph.train.pretrained import attach_preprocessing, read_saved, unfit_preprocessing
from hiresnet_graph.train.record import Preprocessing


def list_models(filter: str | Sequence[str] = "", *, variants: bool = False) -> list[str]:
    """Names of the shipped networks for `create_model`, sorted.

    Args:
        filter: Patterns like `resnet*`, of which one must match.
        variants: List each variant too, as `hiresnet18@full`.
    """
    patterns = [filter] if isinstance(filter, str) else list(filter)
    names = spec_names()
    if variants:
        names = [full for name in names for full in (name, *(f"{name}@{variant}" for variant in load(name).variants))]
    return [name for name in names if not any(patterns) or any(fnmatch(name, pattern) for pattern in patterns)]


@overload
def create_model(
    name_or_path: str | Path | Architecture,
    *,
    pretrained: bool | str | Path = ...,
    num_classes: int | None = ...,
    in_chans: int | None = ...,
    features_only: Literal[False] = ...,
    out_indices: Sequence[int] | None = ...,
    seed: int = ...,
    **params: Any,
) -> ImageModel: ...


@overload
def create_model(
    name_or_path: str | Path | Architecture,
    *,
    pretrained: bool | str | Path = ...,
    num_classes: int | None = ...,
    in_chans: int | None = ...,
    features_only: Literal[True],
    out_indices: Sequence[int] | None = ...,
    seed: int = ...,
    **params: Any,
) -> FeatureModel: ...


@overload
def create_model(
    name_or_path: str | Path | Architecture,
    *,
    pretrained: bool | str | Path = ...,
    num_classes: int | None = ...,
    in_chans: int | None = ...,
    features_only: bool,
    out_indices: Sequence[int] | None = ...,
    seed: int = ...,
    **params: Any,
) -> ImageModel | FeatureModel: ...


def create_model(
    name_or_path: str | Path | Architecture,
    *,
    pretrained: bool | str | Path = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    seed: int = 0,
    **params: Any,
) -> ImageModel | FeatureModel:
    """A network with the methods of timm's models: `forward_features`, `reset_classifier`, `feature_info`, ...

    Args:
        name_or_path: A shipped spec (`resnet50`, `hiresnet18@full`; see `list_models`), a spec file, a network, or what
            `save_pretrained` has written: a folder, or `hf-hub:OWNER/NAME`.
        pretrained: Load weights: True for those of the folder or of the hub, or a file of weights. The classifier stays
            at its initial values if its number of classes differs. The first convolution is adapted to other channels:
            its weights are summed for one channel, and otherwise repeated and scaled.
        num_classes: Number of classes; 0 for no classifier: pooled features come out.
        in_chans: Channels of the images.
        features_only: Return a list of feature maps, one for each resolution; see `feature_info`.
        out_indices: Which of them, for `features_only`; negative ones count from the last.
        params: Params of the spec.

    Raises:
        UsageError: The network has no classifier or no such features; or no weights are there to load.
        SpecError: The spec is wrong, or has no such params.
        RunError: The weights cannot be read, or do not fit.
    """
    if out_indices is not None and not features_only:
        raise UsageError("out_indices: select features with 'features_only=True', too.")
    arch, weights, preprocessing = _find(name_or_path, pretrained)
    arch = arch.override(params) if params else arch
    if in_chans is not None:
        if len(arch.plan.inputs) != 1:
            raise UsageError(f"in_chans: '{arch.title}' has {len(arch.plan.inputs)} inputs. Set 'input' in the spec.")
        arch = arch.override({"input.channels": in_chans})
    if num_classes:
        classifier = find_classifier(arch.plan)
        if classifier is None:
            raise UsageError(f"num_classes: '{arch.title}' does not end with a classifier, a linear map to one vector.")
        arch = arch.override({classifier.field: num_classes})
    model = ImageModel(arch, arch.build(seed))
    if weights is not None:
        _load(model, read_weights(weights, maps=maps_beside(arch.files)), changed=num_classes is not None)
    if not unfit_preprocessing(preprocessing, arch.plan):
        attach_preprocessing(model.network, preprocessing)
    if num_classes == 0 and not features_only:
        model.reset_classifier(0)
    return FeatureModel(model, out_indices) if features_only else model


def _find(
    source: str | Path | Architecture, pretrained: bool | str | Path
) -> tuple[Architecture, Path | None, Preprocessing | None]:
    """The network, the file of its weights (None for initial ones), and its preprocessing if that was saved."""
    given = None if isinstance(pretrained, bool) else Path(pretrained)
    if isinstance(source, Architecture):
        arch = source
    elif Path(source).is_dir() or str(source).startswith("hf-hub:"):
        saved = read_saved(str(source).removeprefix("hf-hub:"))
        return saved.arch, saved.weights if pretrained is True else given, saved.preprocessing
    else:
        name, variant = split_variant(str(source))
        arch = load(name) if variant is None else load(name).variant(variant)
    if pretrained is True:
        raise UsageError(
            f"pretrained: '{arch.title}' is shipped without weights. Give a file of weights, or the folder that "
            "'save_pretrained' has written as the network."
        )
    return arch, given, None


def _load(model: ImageModel, file: WeightFile, *, changed: bool) -> None:
    """Load weights, except for a classifier with another number of classes."""
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    adapted = {name: _adapted(value, own.get(name, ())) for name, value in file.tensors.items()}
    fit = Fit.of(file._replace(tensors=adapted), own)
    classifier = find_classifier(model.plan)
    prefix = f"{classifier.call.weights}." if classifier is not None and changed else "."
    other = {name: shapes for name, shapes in fit.reshaped.items() if not name.startswith(prefix)}
    if refusal := fit._replace(reshaped=other).refusal():
        raise RunError(refusal)
    model.load_state_dict(fit.tensors, strict=False)


def _adapted(value: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The weights of a convolution of 3 channels for another number, as in timm."""
    if value.ndim != 4 or len(shape) != 4 or value.shape[1] != 3 or shape[1] == 3:
        return value
    if shape[1] == 1:
        return value.sum(1, keepdim=True)
    return value.repeat(1, -(-shape[1] // 3), 1, 1)[:, : shape[1]] * (3 / shape[1])
