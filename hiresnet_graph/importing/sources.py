"""Where networks come from: names like `torchvision:resnet50`, and files of other programs."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from hiresnet_graph.errors import MissingToolError, UsageError, did_you_mean
from hiresnet_graph.importing.onnx_graph import OnnxModule, check_onnx, read_onnx
from hiresnet_graph.importing.programs import ProgramModule, read_exported
from hiresnet_graph.importing.sections import legal_name
from hiresnet_graph.importing.trace import foreign_message
from hiresnet_graph.spec.foreign import WEIGHT_SUFFIXES

FORMS = "torchvision:NAME, timm:NAME, python:MODULE:FUNCTION, or a file .onnx, .pt2 or .graphml"


@dataclass(frozen=True)
class FoundModule:
    """A network that was found.

    Attributes:
        name: For the spec.
        shapes: Shape of one sample of each input by name, where the source gives it.
        trained: The name of the same network with trained weights, if it has random ones; else empty.
    """

    module: nn.Module
    name: str
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    trained: str = ""


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
        return FoundModule(program, path.stem, dict(zip(map(legal_name, program.inputs), shapes, strict=False)))
    if suffix in WEIGHT_SUFFIXES:
        raise UsageError(
            f"'{text}' holds tensors or a pickled module, not the graph of a network. Write a function without "
            "arguments that builds the module and loads the file, and import it: 'hrg import python:MODULE:FUNCTION'."
        )
    if suffix == ".py":
        raise UsageError(f"'{text}' is Python code. Name the function in it: 'python:{_module_name(text)}:FUNCTION'.")
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
    return FoundModule(module, name, {"input": (3, size, size)}, "" if weights else f"torchvision:{name}@DEFAULT")


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
    has_weights = bool(weights) or not timm.is_model_pretrained(name)
    trained = "" if has_weights else f"timm:{name}@pretrained"
    return FoundModule(module, name.partition(".")[0], {"input": size}, trained)


def _python(text: str) -> FoundModule:
    path, _, attribute = text.partition(":")
    if not path or not attribute:
        raise UsageError(f"'python:{text}' must be python:MODULE:FUNCTION, like python:mypackage.nets:make_net.")
    if path.endswith(".py") or "/" in path:
        raise UsageError(
            f"'python:{text}' names a file, not a module. Write 'python:{_module_name(path)}:{attribute}'."
        )
    module = found = _module(path, f"python:{text}")
    for part in attribute.split("."):
        if not hasattr(found, part):
            own = [name for name, value in vars(found).items() if getattr(value, "__module__", "") == module.__name__]
            raise UsageError(f"'{path}' has no '{attribute}'. {did_you_mean(part, own)}".strip())
        found = getattr(found, part)
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise UsageError(f"'python:{text}' is a {type(found).__name__}, not a module or a function.")
        if required := _required(found):
            raise UsageError(
                f"'python:{text}' must take no arguments, but requires {', '.join(map(repr, required))}. Write a "
                f"function without arguments that calls it, like 'def net(): return {attribute}(...)'."
            )
        found = _loaded(found, f"python:{text}")
    if not isinstance(found, nn.Module):
        raise UsageError(f"'python:{text}' gives a {type(found).__name__}, not a torch.nn.Module.")
    return FoundModule(found, attribute.rpartition(".")[2])


def _module_name(path: str) -> str:
    """The name by which a file below the current folder is imported: `nets/mine.py` -> `nets.mine`."""
    return ".".join(part for part in Path(path).with_suffix("").parts if part not in (".", "/"))


def _module(path: str, text: str) -> Any:
    """The module of a dotted name, of the current folder or of an installed package."""
    folder = str(Path.cwd())
    added = folder not in sys.path
    if added:
        sys.path.insert(0, folder)
    try:
        return _loaded(lambda: importlib.import_module(path), text)
    except UsageError as error:
        missing = error.__cause__.name if isinstance(error.__cause__, ModuleNotFoundError) else None
        if missing is None or not f"{path}.".startswith(f"{missing}."):
            raise
        raise UsageError(
            f"'{text}': there is no module '{missing}' in the folder '{folder}', nor an installed one of this name. "
            "Run the command in the folder of the file."
        ) from None
    finally:
        if added:
            sys.path.remove(folder)


def _required(function: Any) -> list[str]:
    """The arguments without a default; none if Python does not know them, as for functions written in C."""
    try:
        arguments = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    is_variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one.name for one in arguments if one.default is one.empty and one.kind not in is_variadic]


def _loaded(load: Any, text: str) -> Any:
    """What a function of others returns; their error as a message, with the last line outside of this package."""
    try:
        return load()
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [
            f" ({frame.filename}:{frame.lineno})"
            for frame in frames
            if not frame.filename.startswith("<frozen ") and frame.filename not in (__file__, importlib.__file__)
        ]
        where = lines[-1] if lines else ""
        raise UsageError(
            f"'{text}' cannot be loaded: {type(error).__name__}: {foreign_message(error)}{where}"
        ) from error
