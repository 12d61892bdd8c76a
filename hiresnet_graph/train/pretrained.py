"""Trained networks as two files, `config.json` and `model.safetensors`: the layout of the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from safetensors.torch import save
from torch import nn

from hiresnet_graph.architecture import Architecture, from_dict
from hiresnet_graph.errors import HrgError, MissingToolError, RunError, UsageError, first_line
from hiresnet_graph.files import make_folder, parse_json, read_bytes, write_atomic
from hiresnet_graph.lower.weights import check_weights, load_weights
from hiresnet_graph.plan import Plan
from hiresnet_graph.spec.problems import explain
from hiresnet_graph.train.record import Preprocessing
from hiresnet_graph.train.run_folder import Run
from hiresnet_graph.version import __version__

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_PREPROCESSING = "preprocessing"


def save_pretrained(model: Run | nn.Module, folder: Path | str, *, arch: Architecture | None = None) -> Path:
    """Write a trained network so that `from_pretrained` can load it, from this folder or from the hub.

    Args:
        model: A run, whose best weights are written, or a module.
        arch: The network that a module was built from; not needed for a run.

    Raises:
        UsageError: A module without its network, or with the tensors of another one.
        RunError: A file cannot be written, or the run has no weights.
    """
    path = Path(folder)
    if isinstance(model, Run):
        arch, module = model.architecture, model.model()
        origin: dict[str, Any] = {
            "data": model.record.data,
            "test_accuracy": model.record.test_accuracy,
            "run": model.record.key,
        }
    else:
        if arch is None:
            raise UsageError("save_pretrained: a module has no spec. Pass 'arch', from which it was built.")
        module, origin = model, {}
    preprocessing = model.record.preprocessing if isinstance(model, Run) else _meta_of(model).get(_PREPROCESSING)
    weights = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    if {name: tuple(value.shape) for name, value in weights.items()} != {
        name: tuple(tensor.shape) for name, tensor in arch.plan.tensors().items()
    }:
        raise UsageError(f"save_pretrained: the module has other tensors than '{arch.title}'. Pass its own network.")
    config = {
        "model_type": "hiresnet_graph",
        "hiresnet_graph": __version__,
        "name": arch.name,
        "variant": arch.chosen,
        **origin,
        _PREPROCESSING: preprocessing.model_dump(mode="json") if isinstance(preprocessing, Preprocessing) else None,
        "spec": json.loads(arch.to_json()),
    }
    make_folder(path)
    write_atomic(path / WEIGHTS, save(weights))
    write_atomic(path / CONFIG, (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())
    return path


def from_pretrained(name: Path | str, *, map_location: str | torch.device = "cpu") -> nn.Module:
    """A trained network in evaluation mode.

    Its `meta["preprocessing"]` is a `Preprocessing`, a function from images to the input of the network:
    `module(module.meta["preprocessing"](images)).softmax(-1)`. It is None if the network was saved without a run.

    Args:
        name: A folder that `save_pretrained` has written, or the name of a repository on the Hugging Face hub.
        map_location: The device of the network.

    Raises:
        RunError: The folder or the repository has no such network, or it cannot be read.
        MissingToolError: The name is one of the hub, and huggingface_hub is not installed.
    """
    saved = read_saved(name)
    check_weights(saved.arch.plan, saved.weights)
    module = saved.arch.build()
    load_weights(module, saved.weights)
    attach_preprocessing(module, saved.preprocessing)
    return module.to(map_location).eval()


def attach_preprocessing(module: nn.Module, preprocessing: Preprocessing | None) -> None:
    """Let a network remember how images become its input, in its `meta`."""
    _meta_of(module)[_PREPROCESSING] = preprocessing


class SavedNetwork(NamedTuple):
    """A network that `save_pretrained` has written; `weights` is its file."""

    arch: Architecture
    weights: Path
    preprocessing: Preprocessing | None


def read_saved(name: Path | str) -> SavedNetwork:
    """Read a network that `save_pretrained` has written, without its weights.

    Raises:
        RunError: The folder or the repository has no such network, or it cannot be read.
        MissingToolError: The name is one of the hub, and huggingface_hub is not installed.
    """
    folder = Path(name) if Path(name).is_dir() else _downloaded(str(name))
    path = folder / CONFIG
    try:
        config = parse_json(read_bytes(path))
        if "extends" in config["spec"]:  # it may be from others: no other file of this machine is read
            raise RunError("it extends another file, which save_pretrained never writes.")
        arch = from_dict(config["spec"])
        _ = arch.plan
        fields = config.get(_PREPROCESSING)
        preprocessing = None if fields is None else Preprocessing.model_validate(fields)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        raise RunError(f"{path}: {_PREPROCESSING}: {explain(error)[0]}") from None
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{path}: this was not written by save_pretrained: the spec is missing or wrong.") from None
    except HrgError as error:
        raise RunError(f"{path}: the spec cannot be read: {error}") from None
    if fault := unfit_preprocessing(preprocessing, arch.plan):
        raise RunError(f"{path}: {_PREPROCESSING}: {fault}")
    return SavedNetwork(arch, folder / WEIGHTS, preprocessing)


def unfit_preprocessing(preprocessing: Preprocessing | None, plan: Plan) -> str:
    """Why images that are preprocessed in this way are no input of a network; empty if they are."""
    if preprocessing is None:
        return ""
    shapes = [tuple(shape.frame) for shape in plan.inputs.values()]
    outputs = [call.shape.frame for call in plan.calls if call.name in plan.outputs.values()]
    names = len(preprocessing.class_names)
    if shapes != [preprocessing.shape]:
        expected = " and ".join("x".join(map(str, shape)) for shape in shapes)
        return f"it gives images of {'x'.join(map(str, preprocessing.shape))}, but the network expects {expected}."
    if names and [tuple(shape) for shape in outputs] != [(names,)]:
        return f"it names {names} classes, but the network gives {' and '.join(map(str, outputs))}."
    return ""


def _meta_of(module: nn.Module) -> dict[str, Any]:
    """The metadata that torch.fx keeps with a network; attributes could clash with the names of nodes."""
    meta = getattr(module, "meta", None)
    return meta if isinstance(meta, dict) else {}


def _downloaded(name: str) -> Path:
    """The folder with the files of a repository of the hub."""
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
    if looks_like_path:
        raise RunError(f"{name}: this folder does not exist.")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingToolError(
            f"'{name}' is not a folder, and the Hugging Face hub requires the package huggingface_hub. "
            "'pip install huggingface_hub'."
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS]))
    except Exception as error:  # an invalid name, no such repository, no network
        reason = first_line(error) or type(error).__name__
        raise RunError(f"'{name}' is not a folder, and cannot be loaded from the Hugging Face hub: {reason}") from error
