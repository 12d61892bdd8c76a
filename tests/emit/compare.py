"""Emitted source compared with other lowerings, bit by bit, and its style."""

from __future__ import annotations

import ast
import subprocess
import sys
from typing import Any

import torch
from torch import nn

from hiresnet_graph.emit import emit
from hiresnet_graph.identifiers import class_name
from hiresnet_graph.lower import build, interpret
from hiresnet_graph.plan import Plan


def load_source(text: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(text, "model.py", "exec"), names)
    return names


def values(output: torch.Tensor | dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return output if isinstance(output, dict) else {"": output}


def assert_equal_tensors(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def assert_same(plan: Plan) -> str:
    """Interpreter, fx module and emitted source have equal outputs and running statistics, in both modes."""
    text = emit(plan)
    assert emit(plan) == text
    emitted: nn.Module = load_source(text)[class_name(plan.name)]()
    built, reference = build(plan, 1), build(plan, 1)
    assert list(emitted.state_dict()) == list(built.state_dict())
    emitted.load_state_dict(built.state_dict())
    built.load_state_dict(emitted.state_dict())
    torch.manual_seed(0)
    inputs = [torch.randn(2, *shape) for shape in plan.inputs.values()]
    for training in (True, False):
        outputs = []
        for module in (emitted, built, reference):
            module.train(training)
            torch.manual_seed(1)
            with torch.no_grad():
                run = interpret(plan, module, *inputs) if module is reference else module(*inputs)
            outputs.append(values(run))
        assert_equal_tensors(outputs[0], outputs[1])
        assert_equal_tensors(outputs[0], outputs[2])
        assert_equal_tensors(emitted.state_dict(), built.state_dict())
        assert_equal_tensors(emitted.state_dict(), reference.state_dict())
    return text


def assert_well_written(text: str) -> None:
    ruff = [sys.executable, "-m", "ruff"]
    options = ["--isolated", "--line-length", "120", "--stdin-filename", "model.py", "-"]
    for command in (["check", "--select", "E,F,I"], ["format", "--diff"]):
        done = subprocess.run([*ruff, *command, *options], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    imported = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports(text)}
    assert imported <= {"torch", "torch.nn"}


def imports(text: str) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
