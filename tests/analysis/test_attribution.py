"""The logit of the right class as a sum over edges."""

import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.analysis import ProbedNetwork, attribute
from hiresnet_graph.errors import UsageError
from hiresnet_graph.train import Run
from tests.analysis.small import TEXT
from tests.train.states import states


def test_before_pooling_and_a_linear_layer_the_parts_sum_to_the_logit(trained: Run, images) -> None:
    x, labels = images
    module = trained.model()
    with torch.no_grad():
        found = attribute(ProbedNetwork(trained.architecture, module), zip(x.split(80), labels.split(80), strict=True))
        logits = module(x).gather(1, labels[:, None]).double()
        # By hand: the weights of the right class, times the pooled value of an edge.
        seen: list[torch.Tensor] = []
        module.get_submodule("edges.stem__stage2.norm").register_forward_hook(lambda _, args, out: seen.append(out))
        module(x)
    head = module.get_submodule("head.linear")
    expected = (head.weight[labels] * seen[0].mean((2, 3))).sum(1).mean().item()
    names = [(one.target, one.slot, one.edge) for one in found.operands]
    assert found.is_linear and names == [
        ("stage2.block1", "output", edge) for edge in ("stage2.block1", "stage1>stage2", "stem>stage2")
    ]
    assert found.values[2] == pytest.approx(expected, abs=1e-5)
    assert found.logit == pytest.approx(logits.mean().item(), abs=1e-5) and found.error < 1e-5
    assert sum(found.values) + found.constant == pytest.approx(found.logit, abs=1e-5)
    assert found.constant == pytest.approx(head.bias[labels].mean().item(), abs=1e-5)


def test_before_an_activation_the_integral_is_complete_up_to_its_error(trained: Run, images) -> None:
    x, labels = images
    arch = hrg.loads(TEXT).override({"skips.slot": "residual", "stage*.activation": "silu"})
    module = arch.build().eval()
    module.load_state_dict(trained.model().state_dict())
    network = ProbedNetwork(arch, module)
    with torch.no_grad():
        coarse, fine = (attribute(network, [(x, labels)], steps=steps) for steps in (2, 64))
    assert not fine.is_linear and [one.kind for one in fine.operands] == ["function", "shortcut", "skip", "skip"]
    assert fine.error < 0.05 * abs(fine.logit) and fine.error < coarse.error
    assert sum(fine.values) + fine.constant == pytest.approx(fine.logit, abs=fine.error + 1e-6)


def test_before_a_layer_norm_the_parts_sum_to_the_logit() -> None:
    small = {"width": 12, "heads": 3, "depth": 2, "patch": 4, "size": 8, "input.channels": 1}
    arch = hrg.load("hiresvit_tiny").variant("full").override(small)
    network = ProbedNetwork(arch, arch.build(3).eval())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        found = attribute(network, [(torch.randn(16, 1, 8, 8, generator=generator), torch.arange(16) % 10)])
    assert not found.is_linear and found.error < 1e-4
    assert sum(found.values) + found.constant == pytest.approx(found.logit, abs=1e-4)
    assert abs(found.logit) > 1e-3


def test_a_network_in_time_is_attributed_at_its_last_merge() -> None:
    arch = states()
    network = ProbedNetwork(arch, arch.build().eval())
    with torch.no_grad():
        found = attribute(network, [(torch.randn(4, 1, 8, 8), torch.arange(4))])
    assert [(one.target, one.call.step, one.edge) for one in found.operands] == [
        ("s3", 4, edge) for edge in ("s1>s3", "s2>s3", "s3>s3")
    ]
    assert found.is_linear and found.error < 1e-5


def test_a_network_without_merges_is_an_error() -> None:
    arch = hrg.loads(TEXT.replace("basic", "plain")).with_edges("none")
    with pytest.raises(UsageError, match="'small, edges=none' merges nothing"):
        attribute(ProbedNetwork(arch, arch.build().eval()), [])
