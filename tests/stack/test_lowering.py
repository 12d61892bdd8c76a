"""Single operations in stacks, compared with single modules: outputs, gradients and buffers; and with other stacks.

Modules are compared with a tolerance, in float64; other stacks must be bitwise equal.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import torch

from hiresnet_graph import lower
from hiresnet_graph.errors import ShapeError
from hiresnet_graph.graph import Origin
from hiresnet_graph.ops import OPS, CopyPrefix, Frame, Identity, Op, StackSteps, Zeros
from hiresnet_graph.plan import Call, Plan
from hiresnet_graph.shapes import Map, Shape, Tokens, Vector
from hiresnet_graph.stack.branches import Branches
from hiresnet_graph.stack.lowering import Stacked
from hiresnet_graph.stack.replicas import Replicas
from hiresnet_graph.stack.token_rules import rule_of_any_device

MAP, VECTOR, TOKENS = Map(8, 7, 5), Vector(6), Tokens(24, 12, (4, 6))
BATCH = 37
UNREGISTERED = {op.kind: op for op in (CopyPrefix, Frame, Identity, StackSteps, Zeros)}


def plan_of(op: Op, shapes: Sequence[Shape]) -> Plan:
    """A network of one operation."""
    inputs = {f"x{i}": shape for i, shape in enumerate(shapes)}
    call = Call("y", op, tuple(inputs), tuple(shapes), op.shape(*shapes), "y", "y", Origin("nodes.y"))
    return Plan("one", inputs, (call,), {"y": "y"}, (), ())


def case_plan(kind: str, fields: dict[str, Any], shapes: tuple[Shape, ...]) -> Plan:
    op = UNREGISTERED[kind] if kind in UNREGISTERED else OPS.get(kind)
    return plan_of(op(**fields), shapes)


def _accepted(kind: str, fields: dict[str, Any], shapes: tuple[Shape, ...]) -> Iterator[Plan]:
    with suppress(ShapeError):
        yield case_plan(kind, fields, shapes)


Case = tuple[str, dict[str, Any], tuple[Shape, ...]]
EXAMPLES: list[Case] = [
    (kind, fields, (shape,))
    for kind in OPS
    for fields in OPS.get(kind).examples
    for shape in (MAP, VECTOR, TOKENS)
    if any(_accepted(kind, fields, (shape,))) and (shape is not TOKENS or not any(_accepted(kind, fields, (MAP,))))
]
OTHERS: list[Case] = [
    ("conv2d", {"width": 8, "groups": 8, "kernel_size": 5}, (MAP,)),
    ("conv2d", {"width": 7, "kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)}, (MAP,)),
    ("conv2d", {"width": 3, "kernel_size": 1}, (Map(3, 1, 1),)),
    ("linear", {"width": 3, "bias": False}, (Vector(17),)),
    ("linear", {"width": 10}, (Vector(64),)),
    ("resize", {"size": (4, 9)}, (MAP,)),
    ("add", {}, (MAP, MAP, MAP)),
    ("mean", {}, (MAP, MAP, MAP)),
    ("multiply", {}, (MAP, Map(1, 7, 5), Map(8, 1, 1))),
    ("multiply", {}, (VECTOR, VECTOR)),
    ("concat", {}, (MAP, Map(2, 7, 5), Map(3, 7, 5))),
    ("concat", {}, (VECTOR, Vector(1))),
    ("concat", {}, (TOKENS, TOKENS.with_channels(2))),
    ("copy_prefix", {}, (TOKENS, Tokens(26, 12, (4, 6), 2))),
    ("linear", {"width": 7}, (TOKENS,)),
    ("token_mean", {}, (Tokens(26, 12, (4, 6), 2),)),
    *((kind, {}, (TOKENS,)) for kind in ("layer_norm", "layer_scale", "drop_path", "scale")),
    ("frame", {"step": 1}, (Map(4, 5, 5, steps=3),)),
    ("frame", {"step": 2}, (Vector(5, steps=3),)),
    ("identity", {}, (MAP,)),
    ("stack", {}, (MAP, MAP)),
    ("stack", {}, (VECTOR, VECTOR)),
    ("zeros", {"value": Map(3, 2, 2)}, (MAP,)),
    ("zeros", {"value": Vector(3)}, (VECTOR,)),
]
CASES = EXAMPLES + OTHERS
NAMES = [f"{kind}{i}" for i, (kind, _, _) in enumerate(CASES)]
EXACT = 1e-12


def random_inputs(plan: Plan, replicas: int, dtype: torch.dtype, seed: int = 0) -> list[torch.Tensor]:
    """Inputs [M, B, ...]; those of replica k do not depend on the number of replicas."""
    found = []
    for i, shape in enumerate(plan.inputs.values()):
        each = [
            torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(1000 * seed + 100 * i + k))
            for k in range(replicas)
        ]
        found.append(torch.stack(each).to(dtype))
    return found


def random_state(plan: Plan, k: int) -> dict[str, torch.Tensor]:
    """Tensors of one network, without neutral values."""
    chance = torch.Generator().manual_seed(7 + k)
    found = {}
    for name, tensor in plan.tensors().items():
        value = torch.rand(tensor.shape, generator=chance) + 0.5
        found[name] = torch.tensor(3 + k) if name.endswith("num_batches_tracked") else value
    return found


def computed(
    own: Replicas, inputs: Sequence[torch.Tensor], numbers: Sequence[int]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The output and the gradients of the inputs, with a fixed direction for each replica."""
    for k, number in enumerate(numbers):
        own.generators[k].manual_seed(5 + number)
    leaves = [x.clone().requires_grad_() for x in inputs]
    own.zero_grad()
    y = own(*leaves, training=True)
    weights = [torch.randn(y.shape[1:], generator=torch.Generator().manual_seed(40 + k)).to(y) for k in numbers]
    if y.requires_grad:
        # Laid out in memory like the values of all replicas, as the gradient of a later operation is.
        (y * torch.stack(weights, 1).movedim(1, 0)).sum().backward()
    return y.detach(), [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves]


def is_close(a: torch.Tensor, b: torch.Tensor, tolerance: float = EXACT) -> bool:
    a, b = a.detach().double(), b.detach().double()
    return a.shape == b.shape and float((a - b).abs().max()) <= tolerance * max(float(b.abs().max()), 1e-3)


def test_the_cases_include_every_operation() -> None:
    assert {kind for kind, _, _ in CASES} == {*OPS, *UNREGISTERED}


def assert_equals_single_modules(own: Replicas, plan: Plan, tolerance: float = EXACT) -> None:
    """Compare a training pass of replicas with one of each network alone, in float64."""
    numbers = range(own.count)
    inputs = random_inputs(plan, own.count, own.dtype)
    for k in numbers:
        own.load(k, random_state(plan, k))
    y_MB, grads = computed(own, inputs, numbers)
    for k in numbers:
        module = lower.build(plan).double()
        module.load_state_dict(random_state(plan, k))
        leaves = [x[k].double().requires_grad_() for x in inputs]
        # Dropout draws in the order of the memory, which is that of training by default.
        given = [x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in leaves]
        torch.manual_seed(5 + k)
        y_B = module(*given)
        assert is_close(y_MB[k], y_B, tolerance)
        if y_B.requires_grad:
            direction = torch.randn(y_B.shape, generator=torch.Generator().manual_seed(40 + k)).to(y_B)
            (y_B * direction).sum().backward()
        for x, grad in zip(leaves, grads, strict=True):
            assert is_close(grad[k], torch.zeros_like(x) if x.grad is None else x.grad, tolerance)
        for name, value in own.spread(k, own.grad).items():
            assert is_close(value, module.get_parameter(name).grad, tolerance), name
        for name, value in module.state_dict().items():
            assert is_close(own.state(k)[name], value, tolerance), name


@pytest.mark.parametrize("program", [Stacked, Branches])
@pytest.mark.parametrize(("kind", "fields", "shapes"), CASES, ids=NAMES)
def test_an_operation_equals_single_modules(
    kind: str, fields: dict[str, Any], shapes: tuple[Shape, ...], program: Callable[..., Replicas]
) -> None:
    plan = case_plan(kind, fields, shapes)
    for replicas in (1, 2, 3, 8):
        own = program(plan, [plan] * replicas, dtype=torch.float64)
        assert_equals_single_modules(own, plan)
        inputs = random_inputs(plan, replicas, torch.float64)
        own_before = {name: value.clone() for name, value in own.state(0).items()}
        with torch.no_grad():
            y_eval = own(*inputs, training=False)[0]
            module = lower.build(plan).double().eval()
            module.load_state_dict(own_before)
            assert is_close(y_eval, module(*(x[0] for x in inputs)))
        for name, value in own.state(0).items():
            assert torch.equal(value, own_before[name])


ON_GPUS: list[Case] = [
    ("linear", {"width": 7}, (TOKENS,)),
    ("linear", {"width": 7, "bias": False}, (TOKENS,)),
    ("layer_norm", {"eps": 0.01}, (TOKENS,)),
    *(("dot_product_attention", fields, (TOKENS,)) for fields in OPS.get("dot_product_attention").examples),
    ("class_token", {"count": 2}, (TOKENS,)),
    *(
        ("position_embedding", fields, (Tokens(26, 12, (4, 6), 2),))
        for fields in OPS.get("position_embedding").examples
        if "encoding" not in fields
    ),
]


@pytest.mark.parametrize(("kind", "fields", "shapes"), ON_GPUS, ids=[f"{case[0]}{i}" for i, case in enumerate(ON_GPUS)])
def test_the_rules_for_tokens_on_gpus_compute_the_same(
    kind: str, fields: dict[str, Any], shapes: tuple[Shape, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hiresnet_graph.stack.lowering.token_rule", rule_of_any_device)
    plan = case_plan(kind, fields, shapes)
    for replicas in (1, 3):
        own = Stacked(plan, [plan] * replicas, dtype=torch.float64)
        assert own.fallback_ops == ()
        assert_equals_single_modules(own, plan)


@pytest.mark.parametrize("channels", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3, 9)), 7, 8, 17])
@pytest.mark.parametrize("kind", sorted({kind for kind, _, _ in CASES} - {"dropout", "dropout2d"}))
def test_gradients_are_right_at_any_width(kind: str, channels: int) -> None:
    """Slots are padded, so that the tensors of one element are strided views, and those of whole slots are dense."""
    for plan in plans_of_width(kind, channels):
        assert_equals_single_modules(Stacked(plan, [plan] * 3, dtype=torch.float64), plan)
        # The gradient of a norm of two values is a small difference of large numbers.
        tolerance = 1e-2 if kind == "layer_norm2d" and channels == 2 else 2e-4
        assert_equals_single_modules(Stacked(plan, [plan] * 3), plan, tolerance)


def plans_of_width(kind: str, channels: int) -> Iterator[Plan]:
    """The cases of an operation with other numbers of channels, and of one pixel, where it accepts them."""
    changes = {"conv2d": "width", "conv_transpose2d": "width", "linear": "width", "pad_channels": "width"}
    for other, fields, shapes in CASES:
        if other != kind:
            continue
        width = {changes[kind]: channels} if kind in changes else {}
        groups = [{"groups": channels}] if fields.get("groups", 1) > 1 else [{}]
        for fit in (*groups, *([{"value": fields["value"].with_channels(channels)}] if kind == "zeros" else [])):
            given = {**fields, **width, **fit}
            wide = tuple(shape if shape.channels == 1 else shape.with_channels(channels) for shape in shapes)
            yield from _accepted(kind, given, wide)
            yield from _accepted(kind, given, tuple(replace(s, height=1, width=1) if s.spatial else s for s in wide))


LAST = Tokens(5, 6)
MORE_OPERANDS = [
    ("multiply", (LAST, Tokens(5, 1))),
    ("multiply", (LAST, Tokens(1, 6))),
    ("multiply", (LAST, Tokens(1, 1))),
    ("add", (LAST, LAST)),
    ("mean", (LAST, LAST)),
    ("concat", (LAST, Tokens(5, 2))),
]


@pytest.mark.parametrize("shape", [LAST, Vector(6, steps=3), Map(6, 4, 5, steps=3)], ids=repr)
@pytest.mark.parametrize("kind", sorted({kind for kind, _, _ in CASES} - {"zeros", "copy_prefix"}))
def test_a_feature_axis_that_is_not_the_first(kind: str, shape: Shape) -> None:
    many = [shapes for other, shapes in MORE_OPERANDS if other == kind and shape is LAST]
    fields = next(fields for other, fields, _ in CASES if other == kind)
    for shapes in [(shape,), *many]:
        for plan in _accepted(kind, fields, shapes):
            assert_equals_single_modules(Stacked(plan, [plan] * 3, dtype=torch.float64), plan)


@pytest.mark.parametrize("dtype", [pytest.param(torch.float64, marks=pytest.mark.slow), torch.float32])
@pytest.mark.parametrize(("kind", "fields", "shapes"), CASES, ids=NAMES)
def test_the_position_of_a_replica_changes_no_bit(
    kind: str, fields: dict[str, Any], shapes: tuple[Shape, ...], dtype: torch.dtype
) -> None:
    torch.set_num_threads(1)
    plan = case_plan(kind, fields, shapes)
    inputs = random_inputs(plan, 9, dtype)
    seen: dict[int, list[torch.Tensor]] = {}
    for order, sick in _arrangements():
        own = Stacked(plan, [plan] * len(order), dtype=dtype)
        for k, number in enumerate(order):
            own.load(k, random_state(plan, number))
        given = [x[list(order)] for x in inputs]
        if sick is not None:
            for x in given:
                x[sick] = float("nan")
            for value in own.parameters_of(sick).values():
                value.detach().fill_(float("nan"))
        y_MB, grads = computed(own, given, order)
        for k, number in enumerate(order):
            if k == sick:
                continue
            found = [y_MB[k], *(grad[k] for grad in grads), *own.spread(k, own.grad).values(), *own.state(k).values()]
            found = [value.detach().clone() for value in found]
            for value, before in zip(found, seen.setdefault(number, found), strict=True):
                assert torch.equal(value, before), (order, k)


def _arrangements() -> Iterator[tuple[tuple[int, ...], int | None]]:
    """Replicas by position, and the position of a replica that is set to NaN."""
    yield from ((order, None) for order in itertools.permutations(range(3)))
    yield (0, 1, 2, 3), 3
    yield (4, 0, 1, 2, 3), 0
    yield tuple(range(9)), None
    yield tuple(range(8, -1, -1)), 4
