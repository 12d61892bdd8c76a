"""Linear CKA, compared with its definition on all images at once."""

import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.analysis import ProbedNetwork, Representations, cka, represent
from hiresnet_graph.analysis.similarity import levels_of
from hiresnet_graph.errors import UsageError
from hiresnet_graph.train import Run
from tests.train.states import states


def unbiased_hsic(K: torch.Tensor, L: torch.Tensor) -> float:
    """Song et al. 2012, Eq. 5, term by term."""
    n = len(K)
    K, L = K - K.diag().diag(), L - L.diag().diag()
    one = torch.ones(n, 1, dtype=K.dtype)
    trace = (K @ L).trace()
    product = (one.T @ K @ one) * (one.T @ L @ one) / ((n - 1) * (n - 2))
    mixed = 2 / (n - 2) * (one.T @ K @ L @ one)
    return ((trace + product - mixed) / (n * (n - 3))).item()


def reference(x: torch.Tensor, y: torch.Tensor) -> float:
    """The unbiased linear CKA of two sets of features of all images."""
    K, L = (value.flatten(1).double() @ value.flatten(1).double().T for value in (x, y))
    return unbiased_hsic(K, L) / (unbiased_hsic(K, K) * unbiased_hsic(L, L)) ** 0.5


def represented(network: ProbedNetwork, x: torch.Tensor, size: int) -> Representations:
    with torch.no_grad():
        return represent(network, x.split(size))


def test_with_one_batch_it_is_that_of_all_images(trained: Run, images) -> None:
    x = images[0][:60]
    network = ProbedNetwork(trained.architecture, trained.model())
    levels = levels_of(network)
    assert list(levels) == ["stem", "stage1", "stage2", "head"]
    with torch.no_grad():
        values = network.run(x)
    found = cka(*[represented(network, x, 60)] * 2)
    for i, a in enumerate(levels.values()):
        for j, b in enumerate(levels.values()):
            assert found[i, j].item() == pytest.approx(reference(values[a], values[b]), rel=1e-9)
    assert found.diagonal().tolist() == pytest.approx([1.0] * 4, abs=1e-12)
    assert 0.05 < found[0, 3] < 0.95


def test_batches_estimate_that_of_all_images(trained: Run, images) -> None:
    x = images[0][torch.randperm(359, generator=torch.Generator().manual_seed(0))]
    network = ProbedNetwork(trained.architecture, trained.model())
    all_images, small = (cka(*[represented(network, x, size)] * 2) for size in (359, 30))
    assert torch.allclose(all_images, small, atol=0.05)


def test_between_networks_rotations_and_scales_do_not_matter_and_unrelated_ones_give_zero(trained: Run, images) -> None:
    x = images[0]
    arch = trained.architecture
    network = ProbedNetwork(arch, trained.model())
    other = ProbedNetwork(arch, arch.build(seed=9).eval())
    between = cka(represented(network, x, 90), represented(other, x, 90))
    back = cka(represented(other, x, 90), represented(network, x, 90))
    assert torch.allclose(between, back.T) and 0 < between[0, 0] < 1
    scaled = trained.model()
    with torch.no_grad():
        scaled.get_submodule("head.linear").weight *= -3
        scaled.get_submodule("head.linear").bias += 5
    assert cka(represented(network, x, 90), represented(ProbedNetwork(arch, scaled), x, 90))[3, 3] == pytest.approx(1)
    noise = torch.Generator().manual_seed(1)
    grams = [torch.randn(300, 20, generator=noise, dtype=torch.float64) for _ in range(2)]
    assert abs(reference(*grams)) < 0.02  # the biased estimate would be 0.06


def test_a_network_in_time_has_the_last_value_of_each_state() -> None:
    arch = states()
    network = ProbedNetwork(arch, arch.build().eval())
    assert levels_of(network)["s3"] == "s3.input.add.step4" and "input" not in levels_of(network)
    found = cka(*[represented(network, torch.randn(9, 1, 8, 8), 5)] * 2)
    assert found.isfinite().all()


def test_few_images_are_an_error() -> None:
    arch = hrg.load("resnet20")
    with pytest.raises(UsageError, match="similarity requires batches of at least 4 images"):
        represent(ProbedNetwork(arch, arch.build().eval()), [torch.randn(3, 3, 32, 32)])
