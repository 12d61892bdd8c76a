"""Conformance checks for kinds of your own: blocks, operations, merges, projections and data sets.

    from hiresnet_graph.testing import check_kind

    def test_inception() -> None:
        check_kind(Inception(width=8))

A kind is described once, and the module, the emitted source, the counts, the stacked program and the diagram follow
from the description. The checks build a small network around the kind and compare all of these with each other. They
need a Python test runner of any sort: a violation is an `AssertionError` that says what differs.

Axes: B images of a batch, M replicas.
"""

from __future__ import annotations

import copy
import inspect
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hiresnet_graph.architecture import Architecture, from_dict
from hiresnet_graph.blocks import BLOCKS, Block
from hiresnet_graph.data import DATASETS, DatasetKind
from hiresnet_graph.errors import RegistryError
from hiresnet_graph.identifiers import class_name
from hiresnet_graph.lower import interpret
from hiresnet_graph.merges import MERGES, Merge
from hiresnet_graph.ops import OPS, Op
from hiresnet_graph.projections import PROJECTIONS, Projection
from hiresnet_graph.registry import Kind, Registry
from hiresnet_graph.shapes import Map, Shape, Tokens
from hiresnet_graph.stack import Stacked

BATCH, REPLICAS = 3, 3
INPUT = Map(4, 7, 9)
"""Default shape of the input: odd sizes and more than one channel, so that a wrong axis or rounding shows."""


def check_kind(kind: Kind, shape: Shape = INPUT) -> None:
    """Check a block, an operation, a merge, a projection or a data set, given as a value with its fields.

    Args:
        kind: Of a registered class.
        shape: Input of the network that is built around a block or an operation; for the others it must be a `Map`.

    Raises:
        AssertionError: The kind breaks a rule; the message says which.
        SpecError: The network around the kind is invalid, for example because a block does not accept `shape`.
    """
    check_description(kind)
    if isinstance(kind, DatasetKind):
        _check_dataset(kind)
        return
    net = _network_with(kind, shape)
    check_network(net)
    if isinstance(kind, Merge):
        merges = {edge.merge for edge in net.plan.edges if edge.slot == kind.default_slot and edge.family == "skip"}
        assert merges == {kind.kind}, f"the skips are merged by {merges}, not by '{kind.kind}'"


def check_description(kind: Kind) -> None:
    """Check that a kind is registered, is documented, and is the same after a round trip through JSON."""
    cls = type(kind)
    registry = _registry_of(kind)
    try:
        registered = registry.get(kind.kind)
    except RegistryError as error:
        raise AssertionError(f"{cls.__name__} is not registered: {error}") from None
    name = f"the {registry.family} '{kind.kind}'"
    assert registered is cls, f"{name} is registered as {registered.__qualname__}, not {cls.__qualname__}"
    doc = (inspect.getdoc(cls) or "").split("\n")[0]
    assert doc.endswith("."), f"{name}: its docstring must begin with one sentence, not {doc!r}"
    fields = json.loads(json.dumps(_fields(kind)))
    assert cls.model_validate(fields) == kind, f"{name} changes in a round trip through JSON: {fields}"


def check_network(net: Architecture, seed: int = 0) -> None:
    """Check that all forms of a network agree: rules, module, interpreter, emitted source and stacked program.

    Compared are shapes and counts; outputs and running statistics in training and evaluation mode, to the bit;
    gradients of the emitted source, in float64, since it may add up those of several edges in another order; three
    replicas in one program with each of them alone, in float64. The module is copied and pickled. The global random
    state is set and restored.

    Raises:
        AssertionError: Two forms differ.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        plan = net.plan
        module, emitted = net.build(seed), _emitted(net)
        assert set(module.state_dict()) == set(plan.tensors()), "the tensors of the module are not those of the rules"
        emitted.load_state_dict(module.state_dict())
        inputs = tuple(torch.randn(BATCH, *shape) for shape in plan.inputs.values())
        _check_counts(net, module)
        for training in (True, False):
            mode = "training" if training else "evaluation"
            reference = copy.deepcopy(module).train(training)
            for form in (module, emitted):
                form.train(training)
            torch.manual_seed(seed)
            expected = _outputs(interpret(plan, reference, *inputs))
            _check_shapes(net, expected)
            for name, form in (("module", module), ("emitted source", emitted)):
                torch.manual_seed(seed)
                _same(_outputs(form(*inputs)), expected, f"the outputs of the {name} in {mode} mode")
                _same(form.state_dict(), reference.state_dict(), f"the tensors of the {name} after {mode} mode")
        _check_gradients(module, emitted, inputs, seed)
        _check_copies(module, inputs)
        _check_stack(net, inputs, seed)


# ----------------------------------------------------------------------------------------------- the small networks


def _registry_of(kind: Kind) -> Registry[Any]:
    families: tuple[tuple[type[Kind], Registry[Any]], ...] = (
        (Block, BLOCKS),
        (Op, OPS),
        (Merge, MERGES),
        (Projection, PROJECTIONS),
        (DatasetKind, DATASETS),
    )
    for family, registry in families:
        if isinstance(kind, family):
            return registry
    raise TypeError(f"{type(kind).__name__} is no block, operation, merge, projection or data set.")


def _fields(kind: Kind) -> dict[str, Any]:
    return kind.model_dump(mode="json", exclude_defaults=True)


def _network_with(kind: Kind, shape: Shape) -> Architecture:
    """A small network that uses the kind."""
    sizes: dict[str, Any] = {"channels": shape.channels}
    if isinstance(shape, Map):
        sizes |= {"height": shape.height, "width": shape.width}
    elif isinstance(shape, Tokens):
        sizes |= {"length": shape.length, "grid": shape.grid, "prefix": shape.prefix}
    spec: dict[str, Any] = {"name": "conformance", "input": sizes}
    if isinstance(kind, Block | Op):
        spec |= {"nodes": {"node": {"block": kind.kind, **_fields(kind)}}, "flow": "input -> node"}
        return from_dict(spec)
    conv = {"block": "conv", "width": 4}
    smaller = {"block": "conv", "width": 8, "stride": 2}
    if isinstance(kind, Merge):
        spec["nodes"] = {"a": conv, "b": smaller, "c": {"block": "conv", "width": 8}}
        skips = {"edges": ["a>c", "b>c"], "merge": {"kind": kind.kind, **_fields(kind)}}
    else:
        spec["nodes"] = {"a": conv, "b": conv if kind.kind == "identity" else smaller}
        skips = {"edges": "a>b", "projection": {"kind": kind.kind, **_fields(kind)}}
    return from_dict({**spec, "flow": " -> ".join(spec["nodes"]), "skips": skips})


# --------------------------------------------------------------------------------------------------- the comparisons


def _emitted(net: Architecture) -> nn.Module:
    """The module that the emitted source defines."""
    names: dict[str, Any] = {"__name__": "emitted"}
    exec(compile(net.source(), "model.py", "exec"), names)
    module: nn.Module = names[class_name(net.plan.name)]()
    return module


def _outputs(value: Any) -> dict[str, torch.Tensor]:
    return dict(value) if isinstance(value, Mapping) else {"output": value}


def _same(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], what: str) -> None:
    """Compare tensors by name, to the bit."""
    assert set(found) == set(expected), f"{what}: {sorted(set(found) ^ set(expected))} is on one side only"
    for name, value in expected.items():
        assert torch.equal(found[name], value), f"{what}: '{name}' differs from the interpreter's"


def _check_counts(net: Architecture, module: nn.Module) -> None:
    cost = net.cost()
    for what, counted, tensors in (
        ("parameters", cost.parameters, module.parameters()),
        ("buffers", cost.buffers, module.buffers()),
    ):
        real = sum(tensor.numel() for tensor in tensors)
        assert real == counted, f"the rules count {counted:,} elements of {what}, the module has {real:,}"


def _check_shapes(net: Architecture, outputs: Mapping[str, torch.Tensor]) -> None:
    plan = net.plan
    shapes = dict(plan.inputs) | {call.name: call.shape for call in plan.calls}
    for found, value in zip(outputs.values(), plan.outputs.values(), strict=True):
        expected = (BATCH, *shapes[value])
        assert tuple(found.shape) == expected, f"the shape rule gives {expected}, the output has {tuple(found.shape)}"


def _check_gradients(module: nn.Module, emitted: nn.Module, inputs: Sequence[torch.Tensor], seed: int) -> None:
    gradients = []
    for form in (module, emitted):
        torch.manual_seed(seed)
        double = copy.deepcopy(form).double().train()
        outputs = _outputs(double(*(x.double() for x in inputs)))
        total = torch.stack([value.square().sum() for value in outputs.values()]).sum()
        if total.requires_grad:
            total.backward()  # type: ignore[no-untyped-call]
        gradients.append({name: p.grad for name, p in double.named_parameters() if p.grad is not None})
    expected, found = gradients
    missing = {name for name, _ in module.named_parameters()} - set(expected)
    assert not missing, f"no gradient reaches {sorted(missing)}"
    largest = max((float(value.abs().max()) for value in expected.values()), default=0.0)
    for name, value in expected.items():
        error = float((found[name] - value).abs().max())
        assert error <= 1e-10 * largest, f"the gradients of the emitted source: '{name}' differs from the module's"


def _check_copies(module: nn.Module, inputs: Sequence[torch.Tensor]) -> None:
    module.eval()
    expected = _outputs(module(*inputs))
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    copies = {"deepcopy": copy.deepcopy(module), "pickle": torch.load(file, weights_only=False)}
    for name, form in copies.items():
        _same(_outputs(form(*inputs)), expected, f"the outputs after {name}")


def _check_stack(net: Architecture, inputs: Sequence[torch.Tensor], seed: int) -> None:
    """Replicas with their own weights in one program, each compared with the network alone."""
    plan = net.plan
    if len(plan.outputs) > 1:
        return  # only networks with one output are trained in stacks
    alone = [net.build(seed + k).double().eval() for k in range(REPLICAS)]
    together = Stacked(plan, [plan] * REPLICAS, dtype=torch.float64)
    for k, module in enumerate(alone):
        together.load(k, module.state_dict())
    inputs_MB = [torch.stack([x.double() + k for k in range(REPLICAS)]) for x in inputs]
    with torch.no_grad():
        y_MB = together(*inputs_MB, training=False)
        for k, module in enumerate(alone):
            expected = module(*(x[k] for x in inputs_MB))
            error = float((y_MB[k] - expected).abs().max() / expected.abs().max().clamp(min=1e-3))
            assert error < 1e-10, f"replica {k} of a stack differs from the network alone by {error:.1e} (relative)"


def _check_dataset(kind: DatasetKind) -> None:
    data = kind.load()
    parts = {"training": data.split.train, "validation": data.split.validation, "test": data.split.test}
    indices = [index for part in parts.values() for index in part]
    assert len(indices) == len(set(indices)), "an image is in two parts of the split"
    assert all(0 <= index < len(data) for index in indices), "the split names images that do not exist"
    for name, part in parts.items():
        assert len(part), f"the {name} part is empty"
    labels = data.labels_N
    assert labels.dtype == torch.int64, f"labels are of type {labels.dtype}, not int64"
    assert bool(((labels >= 0) & (labels < data.classes)).all()), f"labels must lie in 0..{data.classes - 1}"
    assert len(data.class_names) in (0, data.classes), f"{len(data.class_names)} names for {data.classes} classes"
    images_BCHW = data.read(list(parts["training"])[:BATCH])
    expected = (min(BATCH, len(parts["training"])), *data.shape)
    assert images_BCHW.dtype == torch.uint8, f"images are of type {images_BCHW.dtype}, not uint8"
    assert tuple(images_BCHW.shape) == expected, f"images have the shape {tuple(images_BCHW.shape)}, not {expected}"
    assert kind.load().fingerprint() == data.fingerprint(), "two loads of the data set differ"
