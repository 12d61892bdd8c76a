"""What operations say of themselves: those that are affine in evaluation mode."""

from itertools import groupby

import pytest
import torch

from hiresnet_graph.lower import build
from tests.stack.test_lowering import EXAMPLES, OTHERS, Case, case_plan

BY_KIND = {kind: list(cases) for kind, cases in groupby(sorted(EXAMPLES + OTHERS, key=str), key=lambda case: case[0])}


def is_affine(case: Case) -> bool:
    """Whether a mixture of inputs gives the same mixture of outputs."""
    plan = case_plan(*case)
    module, generator = build(plan, 0).double().eval(), torch.Generator().manual_seed(0)
    a, b = (
        [3 * torch.randn(4, *shape.sizes, generator=generator, dtype=torch.float64) for shape in plan.inputs.values()]
        for _ in range(2)
    )
    mixed = [0.3 * x + 0.7 * y for x, y in zip(a, b, strict=True)]
    return torch.allclose(module(*mixed), 0.3 * module(*a) + 0.7 * module(*b), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", sorted(BY_KIND))
def test_an_operation_says_rightly_whether_it_is_affine(kind: str) -> None:
    (says,) = {call.op.is_affine for case in BY_KIND[kind] for call in case_plan(*case).calls}
    assert all(map(is_affine, BY_KIND[kind])) == says
