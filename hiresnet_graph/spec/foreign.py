"""Networks of other programs in place of a spec: what they are, and which command or function takes them."""

from __future__ import annotations

from pathlib import Path

from hiresnet_graph.errors import UsageError

_IMPORTS = (".onnx", ".pt2")
WEIGHT_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".npz")


def refuse_foreign(spec: object) -> None:
    """Refuse what is no spec, if it is known what it is instead.

    Raises:
        UsageError: It is a module, or the file of another program.
    """
    if any(f"{kind.__module__}.{kind.__qualname__}" == "torch.nn.modules.module.Module" for kind in type(spec).__mro__):
        name = type(spec).__name__
        raise UsageError(
            f"'{name}' is a PyTorch module, not a spec. Import it: hrg.from_module(module, input=(3, 224, 224))."
        )
    if not isinstance(spec, str | Path):
        raise UsageError(f"a spec is a path or the name of a shipped spec, not a {type(spec).__name__}.")
    text = str(spec)
    suffix = Path(text).suffix.lower()
    if suffix in _IMPORTS:
        raise UsageError(f"'{text}' is a compiled network, not a spec. Import it: 'hrg import {text} -o net.yaml'.")
    if suffix == ".graphml":
        raise UsageError(
            f"'{text}' is a graph, not a spec. Import it: 'hrg import {text} -o net.yaml --input 3x32x32 --block "
            '"conv width=16"\'.'
        )
    if suffix in WEIGHT_SUFFIXES:
        raise UsageError(
            f"'{text}' holds weights, and no network. Import the network from its code, 'hrg import "
            "python:MODULE:FUNCTION -o net.yaml --weights net.safetensors'; or give a spec, and these weights with "
            "'--weights'."
        )
    if suffix == ".py":
        module = Path(text).stem
        raise UsageError(
            f"'{text}' is Python code, not a spec. Import a function in it that returns the module: 'hrg import "
            f"python:{module}:FUNCTION --input 3x224x224 -o net.yaml'."
        )
    if text.startswith(("torchvision:", "timm:", "python:")):
        raise UsageError(f"'{text}' is a network of another library. Import it: 'hrg import {text} -o net.yaml'.")
