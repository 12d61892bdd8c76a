"""Where networks come from: names like `torchvision:resnet50`, and files of other programs."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from hiresnet_graph.errors import MissingToolError, UsageError, did_you_mean
from hiresnet_graph.importing.onnx_graph import OnnxModule, check_onnx, read_onnx
from hiresnet_graph.importing.programs import ProgramModule, read_exported
from hiresnet_graph.importing.trace import first_line

FORMS = "torchvision:NAME, timm:NAME, python:MODULE:FUNCTION, or a file .onnx or .pt2"


@dataclass(frozen=True)
class FoundModule:
    """A network that was found.

    Attributes:
        name: For the spec.
        shape: Shape of one sample of its input, where the source gives it.
    """

    module: nn.Module
    name: str
    shape: tuple[int, ...] = ()


def read_source(text: str) -> FoundModule:
    """The network of a source, like `torchvision:resnet50`.

    Raises:
        UsageError: There is no such network.
        MissingToolError: The library is not installed.
    """
    kind, _, name = text.partition(":")
    if kind == "torchvision" and name:
        return _torchvision(name)
    if kind == "timm" and name:
        return _timm(name)
    if kind == "python" and name:
        return _python(name)
    suffix = Path(text).suffix.lower()
    if suffix in (".pt2", ".onnx"):
        path = Path(text).expanduser()
        program: ProgramModule = read_onnx(path) if suffix == ".onnx" else read_exported(path)
        shapes = program.shapes()
        if isinstance(program, OnnxModule) and len(shapes) == 1:
            check_onnx(path, program, shapes[0])
        return FoundModule(program, path.stem, shapes[0] if len(shapes) == 1 else ())
    raise UsageError(f"'{text}' is no source of a network. It must be {FORMS}.")


def _torchvision(text: str) -> FoundModule:
    import torchvision

    name, _, weights = text.partition("@")
    known = torchvision.models.list_models(module=torchvision.models)
    if name.lower() not in known:
        raise UsageError(f"torchvision has no classification model '{name}'. {did_you_mean(name, known)}".strip())
    enum = torchvision.models.get_model_weights(name)
    if weights and weights not in (*enum.__members__, "DEFAULT"):
        raise UsageError(f"torchvision has no weights '{weights}' of {name}. {did_you_mean(weights, enum.__members__)}")
    module = _loaded(lambda: torchvision.models.get_model(name, weights=weights or None), text)
    crop = enum.DEFAULT.transforms().crop_size
    size = crop[0] if isinstance(crop, Sequence) else int(crop)
    return FoundModule(module, name, (3, size, size))


def _timm(text: str) -> FoundModule:
    try:
        import timm
    except ImportError:
        raise MissingToolError("this requires the package timm. Install it: python -m pip install timm.") from None
    name, _, weights = text.partition("@")
    if weights not in ("", "pretrained"):
        raise UsageError(f"'{text}': after '@', timm models take 'pretrained' alone.")
    if not timm.is_model(name):
        known = timm.list_models()
        raise UsageError(f"timm has no model '{name}'. {did_you_mean(name.partition('.')[0], known)}".strip())
    module = _loaded(lambda: timm.create_model(name, pretrained=bool(weights)), text)
    size = tuple(int(value) for value in module.pretrained_cfg.get("input_size", (3, 224, 224)))
    return FoundModule(module, name.partition(".")[0], size)


def _python(text: str) -> FoundModule:
    path, _, attribute = text.partition(":")
    if not path or not attribute:
        raise UsageError(f"'python:{text}' must be python:MODULE:FUNCTION, like python:mypackage.nets:make_net.")
    folder = str(Path.cwd())
    added = folder not in sys.path
    if added:
        sys.path.insert(0, folder)
    try:
        found: Any = _loaded(lambda: importlib.import_module(path), f"python:{text}")
    finally:
        if added:
            sys.path.remove(folder)
    for part in attribute.split("."):
        if not hasattr(found, part):
            hint = did_you_mean(part, [one for one in dir(found) if not one.startswith("_")])
            raise UsageError(f"'{path}' has no '{attribute}'. {hint}".strip())
        found = getattr(found, part)
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise UsageError(f"'python:{text}' is a {type(found).__name__}, not a module or a function.")
        function = found
        found = _loaded(lambda: function(), f"python:{text}")
    if not isinstance(found, nn.Module):
        raise UsageError(f"'python:{text}' gives a {type(found).__name__}, not a torch.nn.Module.")
    return FoundModule(found, attribute.rpartition(".")[2])


def _loaded(load: Any, text: str) -> Any:
    """What a function of others returns; their error as a message."""
    try:
        return load()
    except (Exception, SystemExit) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise UsageError(
            f"'{text}' cannot be loaded: {type(error).__name__}: {first_line(error)} ({place.filename}:{place.lineno})"
        ) from error
