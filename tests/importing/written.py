"""Modules of one function, and their imports, for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from hiresnet_graph.errors import UnsupportedNetwork, UsageError
from hiresnet_graph.importing import from_module

IMAGE = (3, 8, 8)


class Written(nn.Module):
    """A module of one function, which gets the module and its inputs, and of parts and tensors."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(self, *inputs)


def check_equal(module: nn.Module, shape: tuple[int, ...]) -> Any:
    """Import a module, compare it for several sizes of the batch, and return the import."""
    imported = from_module(module, input=shape)
    built = imported.build()
    module.eval()
    for batch in (1, 3, 4):
        x = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            torch.testing.assert_close(built(x), module(x))
    return imported


def refused(module: nn.Module, shape: Any = IMAGE) -> str:
    """The error of an import."""
    with pytest.raises((UnsupportedNetwork, UsageError)) as caught:
        from_module(module, input=shape)
    return str(caught.value)
