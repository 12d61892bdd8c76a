"""Compiled networks as modules that can be imported: exported programs of torch."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from hiresnet_graph.errors import UsageError
from hiresnet_graph.files import read_bytes
from hiresnet_graph.importing.trace import foreign_message

_LOCATION = re.compile(r'File "([^"]+)", line (\d+)')
OnCall = Callable[[Sequence[tuple[str, str]], str], None]


class ProgramModule(nn.Module):
    """A compiled network, whose calls follow one another; it always is in evaluation mode.

    Attributes:
        on_call: Called before each call: address and class of the modules that it was part of, and its location.
        inputs: Names of its inputs, in order.
        batch: The only number of samples that it accepts; None if it accepts any.
    """

    on_call: OnCall | None = None
    inputs: tuple[str, ...] = ()
    batch: int | None = None

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of one sample of each input."""
        raise NotImplementedError


class ExportedModule(ProgramModule):
    """An exported program of torch.

    Args:
        program: As read from a file.
    """

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        super().__init__()
        module = program.module()
        for name, child in module.named_children():
            self.add_module(name, child)
        for name, parameter in module.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in module.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.program = module.graph
        inputs = {node.name: node.meta["val"].shape for node in self.program.nodes if node.op == "placeholder"}
        self.inputs = tuple(inputs)
        self.samples = tuple(tuple(int(size) for size in shape[1:]) for shape in inputs.values())
        self.batch = next((shape[0] for shape in inputs.values() if shape and isinstance(shape[0], int)), None)

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of one sample of each input."""
        return self.samples

    def forward(self, *inputs: torch.Tensor) -> Any:
        """The outputs of the program."""
        return _Interpreter(self).run(*inputs)


class _Interpreter(fx.Interpreter):
    def __init__(self, module: ExportedModule) -> None:
        super().__init__(module, graph=module.program)
        self.own = module

    def run_node(self, node: fx.Node) -> Any:
        if node.op == "call_function" and self.own.on_call is not None:
            modules = [(str(path), str(kind)) for path, kind in node.meta.get("nn_module_stack", {}).values()]
            locations = _LOCATION.findall(node.meta.get("stack_trace") or "")
            self.own.on_call(modules, f"{locations[-1][0]}:{locations[-1][1]}" if locations else f"node '{node.name}'")
        return super().run_node(node)


def read_exported(path: Path) -> ExportedModule:
    """The exported program in a file.

    Raises:
        UsageError: It cannot be read, or holds no exported program.
    """
    try:
        content = read_bytes(path)
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error.strerror}.") from error
    import io

    log = logging.getLogger("torch.export")
    level = log.level
    log.setLevel(logging.ERROR)  # torch warns with a traceback before it raises
    try:
        program = torch.export.load(io.BytesIO(content))
    except Exception as error:
        raise UsageError(f"'{path}' is no exported program, or is damaged: {foreign_message(error)}") from error
    finally:
        log.setLevel(level)
    return ExportedModule(program)
