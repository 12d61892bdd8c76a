"""Lesions of edges, compared with networks without the edges, and with values that are replaced by hand."""

import itertools

import pytest
import torch

import hiresnet_graph as hrg
import hiresnet_graph.analysis.lesions as lesions
from hiresnet_graph.analysis import ProbedNetwork, lesion
from hiresnet_graph.analysis.lesions import random_sets
from hiresnet_graph.errors import UsageError
from hiresnet_graph.seeding import derive_seed
from hiresnet_graph.train import Run
from tests.analysis.small import TEXT
from tests.train.states import TEXT as STATES

SKIPS = ("edges.stem__stage1", "edges.stage1__stage2", "edges.stem__stage2")


def outputs(network: ProbedNetwork, x, sets, replacement="zero", size=90):  # type: ignore[no-untyped-def]
    """The output for all images with each set of edges replaced, the intact one first."""
    found: list[list[torch.Tensor]] = [[] for _ in range(len(sets) + 1)]
    number = itertools.count()

    def forward(function, batch):  # type: ignore[no-untyped-def]
        out = function(batch)
        found[next(number) % len(found)].append(out)
        return out

    labels = torch.zeros(len(x), dtype=torch.long)
    with torch.no_grad():
        if replacement == "mean":
            number = itertools.chain([0] * len(x.split(size)), itertools.count())
        lesion(network, lambda: zip(x.split(size), labels.split(size), strict=True), sets, replacement, forward=forward)
    if replacement == "mean":
        found[0] = found[0][: len(found[1])]
    return [torch.cat(one) for one in found]


def without(trained: Run, text: str) -> torch.nn.Module:
    """The network of other edges with the weights of the run."""
    module = hrg.loads(TEXT).with_edges(text).build().eval()
    weights = trained.model().state_dict()
    module.load_state_dict({name: weights[name] for name in module.state_dict()})
    return module


def test_zeros_equal_the_network_without_the_edges(trained: Run, images) -> None:
    x, labels = images
    network = ProbedNetwork(trained.architecture, trained.model())
    assert network.skips == SKIPS
    sets = [frozenset({SKIPS[0]}), frozenset({SKIPS[2]}), frozenset(SKIPS[1:]), frozenset(SKIPS)]
    texts = ["full - stem>stage1", "full - stem>stage2", "stem>stage1", "none"]
    found = outputs(network, x, sets)
    with torch.no_grad():
        assert torch.equal(found[0], trained.model()(x))
        for one, text in zip(found[1:], texts, strict=True):
            assert torch.allclose(one, without(trained, text)(x), atol=1e-5)
            assert not torch.allclose(one, found[0], atol=1e-2)
        values = lesion(network, lambda: [(x, labels)], [(), *sets])
    assert values[0] == trained.record.test_accuracy
    for value, one in zip(values, found, strict=True):
        assert value == (one.argmax(1) == labels).double().mean().item()


def test_means_and_resampled_values_equal_those_that_are_replaced_by_hand(trained: Run, images) -> None:
    x = images[0][:200]
    order = others(200)

    network = ProbedNetwork(trained.architecture, trained.model())
    changes = {
        "mean": lambda value: value.mean(0, keepdim=True).expand_as(value),
        "resample": lambda value: value[order],
    }
    for name, change in changes.items():
        by_hand = trained.model()
        projection = by_hand.get_submodule("edges.stem__stage2.norm")
        projection.register_forward_hook(lambda module, inputs, value, change=change: change(value))
        with torch.no_grad():
            found = outputs(network, x, [{SKIPS[2]}], name, 200)[1]
            assert torch.allclose(found, by_hand(x), atol=1e-5)
            assert not torch.allclose(found, trained.model()(x), atol=1e-2)


def others(images: int) -> torch.Tensor:
    """The other image of each image of the first batch."""
    order = lesions.other_images(images, derive_seed(0, "resample", 0))
    assert sorted(order.tolist()) == list(range(images)) and not (order == torch.arange(images)).any()
    return order


def test_an_edge_in_time_is_replaced_at_all_steps() -> None:
    arch = hrg.loads(STATES)
    masked = hrg.loads(STATES.replace("s2: brc2, s3: brc2}\n  s2:", "s2: {block: brc2, scale: 0}, s3: brc2}\n  s2:"))
    assert masked.plan.digest() != arch.plan.digest()
    module, reference = arch.build(seed=1).eval(), masked.build().eval()
    reference.load_state_dict(module.state_dict())
    x = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    network = ProbedNetwork(arch, module)
    with torch.no_grad():
        intact, found = outputs(network, x, [{"edges.s1__s2"}])
        assert torch.equal(intact, module(x))
        assert torch.allclose(found, reference(x), atol=1e-6) and not torch.allclose(found, intact, atol=1e-4)


def test_edges_are_selected_by_sets_and_by_name(trained: Run) -> None:
    network = ProbedNetwork(trained.architecture, trained.model())
    assert network.select("in") == (SKIPS[0], SKIPS[2])
    assert network.select("full - p1") == (SKIPS[2],)
    assert network.select("stem>stage1") == (SKIPS[0],)  # the skip, not the edge of the flow beside it
    assert network.select("stage2>head + out") == (SKIPS[1], SKIPS[2], "flow.stage2__head")
    assert network.labels["edges.stem__stage1"] == "stem>stage1"


def test_without_skips_the_edges_of_the_flow_that_meet_are_named() -> None:
    head = "name: net\ninput: {channels: 1, height: 8, width: 8}\n"
    nodes = "nodes: {a: {block: conv, width: 4}, b: {block: conv, width: 4}, c: relu}\nflow: [a -> b -> c, a -> c]\n"
    arch = hrg.loads(head + nodes)
    network = ProbedNetwork(arch, arch.build().eval())
    with pytest.raises(UsageError, match=r"The meeting edges of the flow of 'net': a>c, b>c\."):
        network.select("a>d")
    assert network.select("a>c") == ("flow.a__c",)


NESTED = """
name: nested
input: {channels: 1, height: 8, width: 8}
blocks:
  twice:
    params: {width: null}
    nodes:
      conv: {block: conv, width: $width}
      add: identity
      last: {block: conv, width: $width}
      gate: sigmoid
      product: {block: identity, merge: multiply}
      sum: relu
    flow: [input -> conv -> add -> last -> product -> sum, last -> gate -> product, add -> sum]
    edges: [{from: input, to: add, projection: {spatial: stride}}]
nodes: {stem: {block: conv, width: 4}, stage: {block: twice, width: 6, depth: 2}, head: {block: classifier, classes: 3}}
flow: stem -> stage -> head
"""


def test_shortcuts_inside_blocks_of_the_spec() -> None:
    arch = hrg.loads(NESTED)
    module = arch.build(seed=1).eval()
    network = ProbedNetwork(arch, module, inner=True)
    names = [f"stage.block{number}.{edge}" for number in (1, 2) for edge in ("input>add", "add>sum")]
    assert sorted(network.shortcuts) == sorted(names)
    assert [network.labels[name] for name in names] == names and network.skips == ()
    assert network.select("stage.block2.add>sum") == (names[3],)
    assert ProbedNetwork(arch, module).shortcuts == ()
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for name, old, new in (
        ("add>sum", "last -> gate -> product, add -> sum]", "last -> gate -> product]"),
        ("input>add", "    edges: [{from: input, to: add, projection: {spatial: stride}}]\n", ""),
    ):
        assert old in NESTED
        without = hrg.loads(NESTED.replace(old, new)).build().eval()
        without.load_state_dict({key: module.state_dict()[key] for key in without.state_dict()})
        both = frozenset(one for one in names if one.endswith(name))
        with torch.no_grad():
            intact, found = outputs(network, x, [both])
            assert torch.equal(intact, module(x))
            assert torch.allclose(found, without(x), atol=1e-6) and not torch.allclose(found, intact, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "stem>stage3",
            "edges 'stem>stage3', character 1: 'stem>stage3' selects nothing: it stands for no edge. Did you mean "
            "'stem>stage2'? The edges beside the flow of 'small': stem>stage1, stage1>stage2, stem>stage2.",
        ),
        ("none", "edges 'none' selects no edge of 'small'. The edges beside the flow of 'small': stem>stage1"),
        ("stem>", "edges 'stem>', character 6: expected a node's name after '>', got the end."),
        ("full - full", "selects no edge"),
        ("p7", "edges 'p7', character 1: 'p7' selects nothing"),
    ],
)
def test_a_set_without_edges_is_an_error(trained: Run, text: str, message: str) -> None:
    network = ProbedNetwork(trained.architecture, trained.model())
    with pytest.raises(UsageError) as caught:
        network.select(text)
    assert message in str(caught.value)


def test_unknown_edges_and_no_images_are_errors(trained: Run) -> None:
    network = ProbedNetwork(trained.architecture, trained.model())
    with pytest.raises(UsageError, match=r"'small' has no edge 'a'\. Edges: flow\.input__stem, "):
        lesion(network, lambda: [], [{"a"}])
    with pytest.raises(UsageError, match="there are no images"):
        lesion(network, lambda: [], [()])


def test_random_sets_differ_and_have_one_size() -> None:
    edges = [str(i) for i in range(30)]
    assert random_sets(edges[:4], 1, 9) == [frozenset(one) for one in edges[:4]]
    for size in (2, 15):
        found = random_sets(edges, size, 20)
        assert len(set(found)) == 20 and {len(one) for one in found} == {size}
        assert found == random_sets(edges, size, 20) != random_sets(edges, size, 20, seed=1)
