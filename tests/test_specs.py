"""Every shipped spec: what its header says, what the published tables say, and how it is written."""

from __future__ import annotations

import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph.lower import interpret
from hiresnet_graph.matching import adjust
from hiresnet_graph.shipped import spec_names, spec_path

FAMILIES = ("none", "full", "in", "out", "p1", "p2", "p3")
BASES = {"plain": 265_050, "basic": 267_834, "resnext": 70_842}
SKIPS = {"none": 0, "full": 5_632, "in": 1_728, "out": 4_480, "p1": 2_752, "p2": 1_728, "p3": 1_152}

PUBLISHED = {
    "resnet18": (11_689_512, 1.814),
    "resnet34": (21_797_672, 3.664),
    "resnet50": (25_557_032, 4.089),
    "resnet101": (44_549_160, 7.801),
    "resnext50_32x4d": (25_028_904, 4.230),
    "wide_resnet50_2": (68_883_240, 11.398),
    "vgg16": (138_357_544, 15.470),
    "densenet121": (7_978_856, 2.834),
    "vit_base": (86_567_656, 17.564),
    "swin_tiny": (28_288_354, 4.491),
    "convnext_tiny": (28_589_128, 4.456),
}
"""Parameters and GMACs: torchvision's weights metadata."""


@pytest.mark.parametrize("block", BASES)
@pytest.mark.parametrize("edges", FAMILIES)
def test_the_parameters_of_the_paper(block: str, edges: str) -> None:
    net = hrg.load("hiresnet18").override({"block": block}).with_edges(edges)
    assert net.cost().parameters == BASES[block] + SKIPS[edges]


def test_tables_1_and_2_print_as_in_the_paper() -> None:
    """17 entries of 14 networks, in thousands with one decimal."""
    net = hrg.load("hiresnet18")
    printed = {
        ("plain", "none"): 265.0,
        ("plain", "full"): 270.7,
        ("basic", "none"): 267.8,
        ("basic", "full"): 273.5,
        ("resnext", "none"): 70.8,
        ("resnext", "full"): 76.5,
        ("basic", "in"): 269.6,
        ("basic", "out"): 272.3,
        ("basic", "p1"): 270.6,
        ("basic", "p2"): 269.6,
        ("basic", "p3"): 269.0,
    }
    for (block, edges), thousands in printed.items():
        count = net.override({"block": block}).with_edges(edges).cost().parameters
        # 265,050 is printed as 265.0: halves go to the even digit, as numpy rounds.
        assert round(count / 100) / 10 == thousands, (block, edges, count)
    for block, thousands in {"plain": 270.7, "basic": 273.5, "resnext": 76.5}.items():
        count = hrg.load(f"hiresnet18_{block}_adjusted").cost().parameters
        assert round(count / 100) / 10 == thousands, (block, count)


@pytest.mark.parametrize(("block", "target"), [("plain", 270_682), ("basic", 273_466), ("resnext", 76_474)])
def test_the_adjusted_baselines_are_what_the_solver_gives(block: str, target: int) -> None:
    base = hrg.load("hiresnet18").override({"block": block}).with_edges("none")
    found = adjust(base, target)
    shipped = hrg.load(f"hiresnet18_{block}_adjusted")
    assert abs(found.off) <= 50
    assert found.parameters == found.architecture.cost().parameters == target + found.off
    assert shipped.plan.digest() == found.architecture.plan.digest()
    if block == "resnext":
        assert all(width % 4 == 0 for width in found.hidden.values())


@pytest.mark.parametrize(
    ("name", "changes", "hidden"),
    [
        ("hiresvit_tiny", {"width": 48, "depth": 3}, {"encoder.block1", "encoder.block2", "encoder.block3"}),
        (
            "mixer_s16",
            {"width": 32, "depth": 2, "input.height": 64, "input.width": 64},
            {"mixer.block1", "mixer.block2"},
        ),
        ("hireshybrid_tiny", {"depth": 2}, None),
    ],
)
def test_baselines_of_transformers_are_widened_between_their_linear_maps(
    name: str, changes: dict[str, int], hidden: set[str] | None
) -> None:
    """Heads and the width of the tokens stay."""
    base = hrg.load(name).override(changes)
    target = base.cost().parameters * 11 // 10
    found = adjust(base, target)
    assert abs(found.off) < 0.002 * target and found.parameters == found.architecture.cost().parameters
    assert hidden is None or set(found.hidden) == hidden
    for before, after in zip(base.plan.nodes, found.architecture.plan.nodes, strict=True):
        assert before.shape == after.shape


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_macs_of_torchvision(name: str) -> None:
    cost = hrg.load(name).cost()
    parameters, gmacs = PUBLISHED[name]
    assert cost.parameters == parameters
    assert round(cost.macs / 1e9, 3) == gmacs


@pytest.mark.parametrize(
    ("name", "option_a", "option_b"),
    [("resnet20", 269_722, 272_474), ("resnet56", 853_018, 855_770), ("resnet110", 1_727_962, 1_730_714)],
)
def test_parameters_of_the_cifar_resnets(name: str, option_a: int, option_b: int) -> None:
    net = hrg.load(name)
    assert net.cost().parameters == net.variant("a").cost().parameters == option_a
    assert net.variant("b").cost().parameters == option_b


@pytest.mark.parametrize(("n", "option_a", "option_b"), [(5, 464_154, 466_906), (7, 658_586, 661_338)])
def test_depths_between_the_shipped_ones(n: int, option_a: int, option_b: int) -> None:
    net = hrg.load("resnet20").override({"n": n})
    assert net.cost().parameters == option_a
    assert net.variant("b").cost().parameters == option_b


def test_activations_and_macs_of_pycls() -> None:
    """pycls counts a bias as one MAC for each output; we count multiply-adds alone."""
    r56, r50, x50 = hrg.load("resnet56").variant("b"), hrg.load("resnet50"), hrg.load("resnext50_32x4d")
    assert r56.cost().activations == 544_778
    assert r50.cost().activations == 11_315_688
    assert x50.cost().activations == 14_602_216
    assert r56.cost().macs + 10 == 125_747_850
    assert r50.cost().macs + 1000 == 4_089_185_256
    assert x50.cost().macs + 1000 == 4_230_480_872


@pytest.mark.parametrize(("name", "parameters"), [("ror3_56", 762_746), ("densenet40", 599_050), ("unet", 482_754)])
def test_parameters_of_the_others(name: str, parameters: int) -> None:
    assert hrg.load(name).cost().parameters == parameters


@pytest.mark.parametrize("name", spec_names())
def test_a_shipped_spec_is_valid_short_and_says_its_source(name: str) -> None:
    path = spec_path(name)
    assert path is not None
    text = path.read_text()
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    assert len(text.splitlines()) <= 60
    assert max(len(line) for line in text.splitlines()) <= 120
    assert "ource:" in header
    net = hrg.load(name)
    net.validate()
    assert net.name == name
    assert f"{net.cost().parameters:,}" in header


HIERARCHICAL = {
    "hiresnet50": PUBLISHED["resnet50"][0],
    "hiresnet101": PUBLISHED["resnet101"][0],
    "hiresnet56": 855_770,
    "hiresnet110": 1_730_714,
    "hireshybrid_tiny": None,
}
"""Parameters without skips, where they are those of a published network."""


@pytest.mark.parametrize("name", HIERARCHICAL)
def test_headers_give_the_parameters_of_variants(name: str) -> None:
    path = spec_path(name)
    assert path is not None
    (line,) = [line for line in path.read_text().splitlines() if line.startswith("# Parameters:")]
    shown = dict(part.split() for part in line.removeprefix("# Parameters:").strip(" .").split("; "))
    assert list(shown) == ["none", "full", "blocks_full"]
    for variant, count in shown.items():
        assert f"{hrg.load(name).variant(variant).cost().parameters:,}" == count
    assert HIERARCHICAL[name] in (None, int(shown["none"].replace(",", "")))


def test_skips_between_the_levels_of_a_vision_transformer_have_no_parameters() -> None:
    net = hrg.load("hiresvit_tiny")
    numbers = {"none": 0, "full": 78, "in": 12, "out": 12, "p1": 12, "p2": 11, "p3": 10}
    assert set(net.variants) == set(numbers)
    for variant, number in numbers.items():
        plan = net.variant(variant).plan
        assert sum(edge.family == "skip" for edge in plan.edges) == number
        assert net.variant(variant).cost().parameters == 5_362_762


def test_the_shares_of_nodes_and_edges_add_up() -> None:
    from hiresnet_graph.cost import count_parts

    plan = hrg.load("hiresnet18").variant("full").plan
    parts = count_parts(plan)
    named = {record.name for record in plan.nodes} | {record.name for record in plan.edges}
    assert set(parts) <= named
    skips = [record.name for record in plan.edges if record.family == "skip"]
    assert len(skips) == 6
    assert sum(parts[name].parameters for name in skips if name in parts) == 5_632
    assert "edges.stem__stage1" not in parts  # the identity x0 -> x1


@pytest.mark.slow
@pytest.mark.parametrize("name", spec_names())
def test_a_shipped_spec_exports_and_compiles_as_one_graph(name: str) -> None:
    """Equal bits in eval mode; ImageNet's networks at 64x64, since only the size of the images makes them slow."""
    net = hrg.load(name)
    if max(net.plan.inputs["input"].spatial) > 64:
        size = {"size": 64} if "size" in net.tree.get("params", {}) else {"input.height": 64, "input.width": 64}
        net = net.override(size)
    if name == "vgg16":
        net = net.override({"hidden": 64})
    module = net.build().eval()
    x = torch.randn(2, *net.plan.inputs["input"])
    with torch.no_grad():
        expected = interpret(net.plan, module, x)
        assert torch.equal(module(x), expected)
        assert torch.equal(torch.export.export(module, (x,)).module()(x), expected)
        torch._dynamo.reset()
        assert torch.equal(torch.compile(module, fullgraph=True, backend="aot_eager")(x), expected)
