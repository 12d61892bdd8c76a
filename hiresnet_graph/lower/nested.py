"""Nested torch modules: one for each node, stage, block and projection, in place of a container of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx, nn

from hiresnet_graph.identifiers import camel_case
from hiresnet_graph.lower.code import GraphWriter
from hiresnet_graph.lower.weights import container
from hiresnet_graph.tree import container_of

StepCode = Callable[..., Any]


class Stepped(nn.Module):
    """A node, block or projection of a network in time: a module with straight-line code for each time step.

    The code depends on the step, since other values may have arrived, and norms may have copies. All of it uses the
    layers that are in the module when it is called.

    Args:
        path: Its address in the network.
    """

    def __init__(self, writer: GraphWriter, path: str) -> None:
        super().__init__()
        self._writer, self._path = writer, path
        self._steps = self._compile()

    def forward(self, *values: Any, step: int) -> Any:
        """The values of the module at a step."""
        return self._steps[step](self, *values)

    @property
    def code(self) -> str:
        """The code of all steps."""
        sources = self._sources().items()
        return "\n".join(f"# step {step}\n{code.src.strip()}\n" for step, code in sources)

    def _sources(self) -> dict[int, Any]:
        calls = self._writer.uses[self._path]
        return {call.step: self._writer.module(call).python_code("self") for call in calls if call.step is not None}

    def _compile(self) -> dict[int, StepCode]:
        found: dict[int, StepCode] = {}
        for step, code in self._sources().items():
            names = dict(code.globals)
            exec(compile(code.src, f"<{self._path}, step {step}>", "exec"), names)
            found[step] = names["forward"]
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_steps"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._steps = self._compile()


def add_containers(root: nn.Module, writer: GraphWriter) -> None:
    """Add empty modules for nodes without layers."""
    for path in writer.uses:
        container(root, path.split("."))


def nest(root: nn.Module, writer: GraphWriter) -> None:
    """Put a module with code in place of each container, the outer ones first: torch.fx recompiles what is inside.

    Args:
        root: Contains the layers and the containers.
    """
    for path in sorted(writer.uses, key=lambda path: path.count(".")):
        parent, last = root.get_submodule(container_of(path)), path.rpartition(".")[2]
        empty, use = parent.get_submodule(last), writer.uses[path][0]
        module: nn.Module
        if use.step is None:
            name = camel_case(path.replace(".", "_"), "Net")
            module = fx.GraphModule(empty, writer.module(use), class_name=name)
        else:
            module = Stepped(writer, path)
        module._modules = empty._modules  # in their order, with those that others call
        parent._modules[last] = module
