"""Trained networks as two files, `config.json` and `model.safetensors`: the layout of the Hugging Face hub."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from hiresnet_graph.architecture import Architecture, from_dict
from hiresnet_graph.errors import HrgError, MissingToolError, RunError, UsageError
from hiresnet_graph.files import make_folder, write_atomic
from hiresnet_graph.train.record import Preprocessing
from hiresnet_graph.train.run_folder import Run

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_KEPT = "preprocessing"


def save_pretrained(model: Run | nn.Module, folder: Path | str, *, arch: Architecture | None = None) -> Path:
    """Write a trained network so that `from_pretrained` has it again, from this folder or from the hub.

    Args:
        model: A run, whose best weights are taken, or a module.
        arch: The network that the module was built from; a run knows its own.

    Raises:
        UsageError: The module comes without its network, or is not of it.
        RunError: A file cannot be written, or the run has no weights.
    """
    path = Path(folder)
    if isinstance(model, Run):
        arch, module = model.architecture, model.model()
        told: dict[str, Any] = {
            "data": model.record.data,
            "test_accuracy": model.record.test_accuracy,
            "run": model.record.key,
        }
    else:
        if arch is None:
            raise UsageError("save_pretrained: a module does not know its spec. Give 'arch', which it was built from.")
        module, told = model, {}
    how = model.record.preprocessing if isinstance(model, Run) else _meta_of(model).get(_KEPT)
    weights = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    if {name: tuple(value.shape) for name, value in weights.items()} != {
        name: tuple(tensor.shape) for name, tensor in arch.plan.tensors().items()
    }:
        raise UsageError(f"save_pretrained: the module has other tensors than '{arch.title}'. Give the network it is.")
    config = {
        "model_type": "hiresnet_graph",
        "hiresnet_graph": version("hiresnet-graph"),
        "name": arch.name,
        "variant": arch.chosen,
        **told,
        "preprocessing": how.model_dump(mode="json") if isinstance(how, Preprocessing) else None,
        "spec": json.loads(arch.to_json()),
    }
    make_folder(path)
    write_atomic(path / WEIGHTS, save(weights))
    write_atomic(path / CONFIG, (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())
    return path


def from_pretrained(name: Path | str, *, map_location: str | torch.device = "cpu") -> nn.Module:
    """A trained network in evaluation mode.

    Its `meta["preprocessing"]`, a `Preprocessing`, says what images must go through first, and does it:
    `module(module.meta["preprocessing"](images)).softmax(-1)`. It is None if the network was saved without a run.

    Args:
        name: A folder that `save_pretrained` has written, or the name of a repository on the Hugging Face hub.
        map_location: The device that the network is put on.

    Raises:
        RunError: The folder or the repository has no such network, or it cannot be read.
        MissingToolError: It is a name of the hub, and huggingface_hub is not installed.
    """
    folder = Path(name) if Path(name).is_dir() else _downloaded(str(name))
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        arch = from_dict(config["spec"])
        _ = arch.plan
        told = config.get("preprocessing")
        how = None if told is None else Preprocessing.model_validate(told)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{path}: this is no network of save_pretrained: it has no spec, or a wrong one.") from None
    except HrgError as error:
        raise RunError(f"{path}: the spec cannot be read: {error}") from None
    module = arch.build()
    load_weights(module, folder / WEIGHTS)
    _meta_of(module)[_KEPT] = how
    return module.to(map_location).eval()


def _meta_of(module: nn.Module) -> dict[str, Any]:
    """What torch.fx keeps with a network beside its tensors; attributes could have the name of a node."""
    meta = getattr(module, "meta", None)
    return meta if isinstance(meta, dict) else {}


def load_weights(module: nn.Module, path: Path) -> None:
    """Copy the tensors of a safetensors file into a module.

    Raises:
        RunError: The file cannot be read, or has other tensors.
    """
    try:
        # From bytes, not mapped: the file may be replaced while the module lives.
        module.load_state_dict(load(path.read_bytes()))
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}.") from error
    except SafetensorError as error:
        raise RunError(f"{path}: this file is damaged: {error}.") from None
    except RuntimeError as error:
        raise RunError(f"{path}: these are weights of another network: {str(error).splitlines()[-1].strip()}") from None


def _downloaded(name: str) -> Path:
    """The files of a repository of the hub."""
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
    if looks_like_path:
        raise RunError(f"{name}: there is no such folder.")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingToolError(
            f"'{name}' is no folder, and to look for it on the Hugging Face hub the package huggingface_hub is needed. "
            "'pip install huggingface_hub'."
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS]))
    except Exception as error:  # a name that the hub does not take, no such repository, no network
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise RunError(f"'{name}' is no folder, and the Hugging Face hub does not give it: {reason}") from error
