"""`hrg doctor`: versions, devices, packages and plugins of this machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from hiresnet_graph import __version__
from hiresnet_graph.cli import failure
from hiresnet_graph.cli.arguments import Json
from hiresnet_graph.cli.console import styled, write_json, write_message, write_prose
from hiresnet_graph.errors import first_line

_NEEDED = (
    "torch",
    "torchvision",
    "networkx",
    "pydantic",
    "typer",
    "rich",
    "PyYAML",
    "numpy",
    "scikit-learn",
    "safetensors",
    "pillow",
    "scipy",
    "optuna",
    "altair",
    "vl-convert-python",
)
_OPTIONAL = {
    "onnx": "hrg compile -o model.onnx",
    "onnxscript": "hrg compile -o model.onnx",
    "onnxruntime": "running ONNX files",
    "ray": "hrg ablate --executor ray",
    "submitit": "hrg ablate --executor slurm",
    "tensorboard": "hrg train --tensorboard",
    "huggingface_hub": "networks from the Hugging Face hub",
}


def doctor(json: Json = False) -> None:
    """Check the installation: versions, devices, optional tools.

    Reports the versions of hrg, Python and torch, the available devices, required and optional packages, and
    plugins. The exit code is 1 if something required is missing.
    """
    checks = {
        "hrg": _program,
        "python": _python,
        "torch": _torch,
        "devices": _devices,
        "needed": _needed,
        "optional": _optional,
        "plugins": _plugins,
    }
    found = {name: _run(check) for name, check in checks.items()}
    failed = [name for name, result in found.items() if not result["ok"]]
    if json:
        write_json({"ok": not failed, "checks": found})
    else:
        for name, result in found.items():
            mark = styled("ok    ", "green", sys.stdout) if result["ok"] else styled("failed", "red", sys.stdout)
            write_prose(f"{mark}  {name:<9} {result['text']}", indent=18)
    if failed:
        write_message(f"Failed checks: {', '.join(failed)}.")
        raise typer.Exit(failure.FINDINGS)


def _run(check: Callable[[], tuple[bool, str, Any]]) -> dict[str, Any]:
    """The result of a check; one that raises has failed."""
    try:
        ok, text, data = check()
    except Exception as error:
        ok, text, data = False, f"{type(error).__name__}: {first_line(error)}", None
    return {"ok": ok, "text": text, "data": data}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _program() -> tuple[bool, str, Any]:
    folder = str(Path(__file__).resolve().parents[2])
    return True, f"{__version__} in {folder}", {"version": __version__, "path": folder}


def _python() -> tuple[bool, str, Any]:
    version = platform.python_version()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    text = f"{version} on {platform.system()} {platform.machine()}, {cores} cores"
    return sys.version_info >= (3, 11), text, {"version": version, "platform": platform.platform(), "cores": cores}


def _torch() -> tuple[bool, str, Any]:
    import torch

    from hiresnet_graph.train.environment import emulates_bf16

    data = {
        "version": torch.__version__,
        "torchvision": _version("torchvision"),
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "emulates_bf16": emulates_bf16(),
    }
    text = f"{data['version']}, torchvision {data['torchvision']}, {data['threads']} threads, {data['cpu']}"
    text += " (bf16 is emulated)" if data["emulates_bf16"] else ""
    try:
        import torchvision  # noqa: F401  (one built for another version of torch fails here)
    except Exception as error:
        return False, f"{text}; torchvision cannot be imported: {first_line(error)}", data
    return True, text, data


def _devices() -> tuple[bool, str, Any]:
    import torch

    if not torch.cuda.is_available():
        return True, "CPU only", {"cuda": None, "gpus": []}
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return True, f"CUDA {torch.version.cuda}: {', '.join(names)}", {"cuda": torch.version.cuda, "gpus": names}


def _needed() -> tuple[bool, str, Any]:
    versions = {name: _version(name) for name in _NEEDED}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        return False, f"missing: {', '.join(missing)}. Install: pip install {' '.join(missing)}", versions
    return True, f"all {len(versions)} packages", versions


def _optional() -> tuple[bool, str, Any]:
    versions = {name: _version(name) for name in _OPTIONAL}
    found = [f"{name} {version}" for name, version in versions.items() if version]
    missing = [f"{name} (for {_OPTIONAL[name]})" for name, version in versions.items() if version is None]
    parts = [", ".join(found)] * bool(found) + [f"not installed: {', '.join(missing)}"] * bool(missing)
    text = "; ".join(parts)
    return True, text, versions


def _plugins() -> tuple[bool, str, Any]:
    from hiresnet_graph.registry import ENTRY_POINT_GROUP, load_plugins

    entries = [f"{entry.name} ({entry.value})" for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)]
    load_plugins()
    return True, ", ".join(entries) or "none", entries
