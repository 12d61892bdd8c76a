"""Networks to networkx and back from random graphs."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import pytest
import torch

import hiresnet_graph as hrg
from hiresnet_graph import from_networkx
from hiresnet_graph.errors import SpecError, UsageError

INPUT = {"channels": 3, "height": 8, "width": 8}
CONV = {"block": "conv", "width": 4}


def random_dag(seed: int) -> nx.DiGraph[int]:
    """A small-world graph whose edges go from the lower node to the higher (Xie et al. 2019)."""
    graph: nx.DiGraph[int] = nx.DiGraph()
    small_world = nx.connected_watts_strogatz_graph(12, 4, 0.75, seed=seed)
    graph.add_nodes_from(range(12))
    graph.add_edges_from(sorted((min(edge), max(edge)) for edge in small_world.edges))
    return graph


def test_costs_and_edges_are_attributes() -> None:
    network = hrg.load("hiresnet18").variant("full")
    graph = network.to_networkx()
    assert nx.is_directed_acyclic_graph(graph)
    cost = network.cost()
    everything = [data for _, data in graph.nodes(data=True)] + [data for *_, data in graph.edges(data=True)]
    assert sum(data["parameters"] for data in everything) == cost.parameters
    assert sum(data["macs"] for data in everything) == cost.macs
    assert graph.nodes["stage2.block1"]["block"] == "basic"
    assert graph.nodes["stage2.block1"]["shape"] == "32x16x16"
    skip = graph.edges["stem", "stage2.block3", "edges.stem__stage2"]
    assert (skip["family"], skip["slot"], skip["merge"]) == ("skip", "output", "add")


def test_shortcuts_can_be_edges() -> None:
    network = hrg.load("hiresnet18").variant("full")
    graph = network.to_networkx(shortcuts=True)
    loops = [data for *_, data in graph.edges(data=True) if data["family"] == "shortcut"]
    assert len(loops) == 8
    total = sum(data["parameters"] for _, data in graph.nodes(data=True))
    assert total + sum(data["parameters"] for *_, data in graph.edges(data=True)) == network.cost().parameters


def test_graphml_keeps_everything(tiny: hrg.Architecture, tmp_path: Path) -> None:
    graph = tiny.to_networkx()
    nx.write_graphml(graph, tmp_path / "tiny.graphml")
    read = nx.read_graphml(tmp_path / "tiny.graphml", force_multigraph=True)
    assert sorted(read.nodes) == sorted(graph.nodes)
    assert all(read.nodes[name] == graph.nodes[name] for name in graph)
    found = sorted((u, v, sorted(data.items())) for u, v, data in read.edges(data=True))
    expected = sorted((u, v, sorted(data.items())) for u, v, data in graph.edges(data=True))
    assert [(u, v) for u, v, _ in found] == [(u, v) for u, v, _ in expected]
    for (_, _, got), (_, _, want) in zip(found, expected, strict=True):
        assert [pair for pair in got if pair[0] != "id"] == want


@pytest.mark.parametrize("seed", range(3))
def test_a_random_graph_becomes_a_network_that_runs(seed: int) -> None:
    graph = random_dag(seed)
    network = from_networkx(
        graph, name="small world", input=INPUT, default=CONV, head={"block": "classifier", "classes": 5}
    )
    module = network.build()
    assert module(torch.randn(2, 3, 8, 8)).shape == (2, 5)
    again = hrg.loads(network.to_yaml()).to_networkx()
    inner = {(source, target) for source, target in again.edges() if source != "input" and target != "head"}
    assert inner == {(f"n{source}", f"n{target}") for source, target in graph.edges}


def test_attributes_are_fields() -> None:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_node("a", block="conv", width=4)
    graph.add_node("b", block="conv", width=8, stride=2)
    graph.add_node("c", block="classifier", classes=2)
    graph.add_edges_from([("a", "b"), ("b", "c")])
    graph.add_edge("a", "b", slot="output", projection={"spatial": "avg", "channels": "conv1x1", "norm": "batch"})
    graph.add_edge("a", "c", merge="concat", projection={"spatial": "avg", "channels": "none", "norm": "none"})
    with pytest.raises(SpecError, match="no edge arrives at the input of 'b'"):
        _ = from_networkx(graph, input=INPUT).plan
    multi: nx.MultiDiGraph[str] = nx.MultiDiGraph(graph)
    multi.add_edge("a", "b", name="main")
    assert "edges.a__b.conv.weight" in from_networkx(multi, input=INPUT).build().state_dict()


def test_what_cannot_be_a_network_is_refused() -> None:
    with pytest.raises(UsageError, match="undirected"):
        from_networkx(nx.path_graph(3), input=INPUT, default=CONV)
    loop: nx.DiGraph[int] = nx.DiGraph([(0, 1), (1, 2), (2, 1)])
    with pytest.raises(UsageError, match=r"cycle: 1 -> 2 -> 1\. Reverse one of its edges; or give 'steps'"):
        from_networkx(loop, input=INPUT, default=CONV)
    with pytest.raises(UsageError, match="no nodes"):
        from_networkx(nx.DiGraph(), input=INPUT)
    with pytest.raises(UsageError, match="the same name"):
        from_networkx(nx.DiGraph([(1, "n1")]), input=INPUT, default=CONV)
    with pytest.raises(UsageError, match="'head'"):
        from_networkx(nx.DiGraph([("a", "head")]), input=INPUT, default=CONV, head=CONV)


def test_a_network_in_time_is_one_node_for_all_steps_with_delays_on_the_edges(tmp_path: Path) -> None:
    network = hrg.load("rnn_resnet3")
    graph = network.to_networkx()
    assert set(graph) == {node.name for node in network.plan.nodes}
    assert not nx.is_directed_acyclic_graph(graph)
    delays = {(source, target): data["delay"] for source, target, data in graph.edges(data=True)}
    assert delays["pre", "s1"] == 0 and delays["s1", "s1"] == delays["s1", "s2"] == 1
    opens = {(source, target): data["at"] for source, target, data in graph.edges(data=True)}
    assert opens["s1", "s1"] == "" and opens["s1", "s2"] == "4" and opens["s2", "s3"] == "7"
    everything = [data for _, data in graph.nodes(data=True)] + [data for *_, data in graph.edges(data=True)]
    assert sum(data["parameters"] for data in everything) == network.cost().parameters
    assert sum(data["macs"] for data in everything) == network.cost().macs
    nx.write_graphml(graph, tmp_path / "states.graphml")
    read = nx.read_graphml(tmp_path / "states.graphml", force_multigraph=True)
    assert sorted(data["at"] for *_, data in read.edges(data=True)) == sorted(opens.values())


HEAD = {"block": "classifier", "classes": 3}


def edges_of(network: hrg.Architecture) -> set[tuple[str, str, int]]:
    return {(edge.source, edge.target, edge.delay) for edge in network.plan.edges if edge.family != "shortcut"}


@pytest.mark.parametrize("name", ["hiresnet18", "unet", "frnn3", "rnn_resnet3"])
def test_the_structure_survives_graphml(name: str, tmp_path: Path) -> None:
    network = hrg.load(name)
    nx.write_graphml(network.to_networkx(), tmp_path / "net.graphml")
    graph = nx.DiGraph(nx.read_graphml(tmp_path / "net.graphml"))
    steps = None if network.plan.folded is None else 3
    again = from_networkx(
        graph,
        input=INPUT,
        default=CONV,
        edge_default={"projection": {}},
        attributes={"delay": "delay"},
        rename=True,
        steps=steps,
    )
    expected = {
        (source.replace(".", "_"), target.replace(".", "_"), delay) for source, target, delay in edges_of(network)
    }
    assert edges_of(again) == expected
    assert again.build()(torch.randn(2, 3, 8, 8)).shape[0] == 2


def test_edges_that_close_a_cycle_are_delayed() -> None:
    # The search from 'a' is a, b, c, d: the edges c -> a and d -> b lead back, as does the loop at d. b -> d does not.
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_edges_from([("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "b"), ("d", "d"), ("b", "d")])
    network = from_networkx(graph, input=INPUT, default=CONV, edge_default={"projection": {}}, head=HEAD, steps=3)
    delayed = {(source, target) for source, target, delay in edges_of(network) if delay}
    assert delayed == {("c", "a"), ("d", "b"), ("d", "d")}
    assert network.build()(torch.randn(2, 3, 8, 8)).shape == (2, 3)
    assert from_networkx(graph, input=INPUT, default=CONV, head=HEAD, steps=3, name="x").graph.time is not None


def test_given_delays_are_kept() -> None:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_edge("a", "b", delay=2)
    graph.add_edges_from([("b", "a"), ("input", "a")])
    network = from_networkx(graph, input=INPUT, default=CONV, edge_default={"projection": {}}, head=HEAD, steps=4)
    assert {edge for edge in edges_of(network) if edge[2]} == {("a", "b", 2)}
    graph.edges["a", "b"]["delay"] = 0
    graph.edges["b", "a"]["delay"] = 0
    with pytest.raises(UsageError, match=r"cycle: a -> b -> a\. Give one of its edges a delay\."):
        from_networkx(graph, input=INPUT, default=CONV, steps=4)


def test_names_of_any_kind() -> None:
    graph: nx.DiGraph[object] = nx.DiGraph()
    nx.add_path(graph, ["Area 1", "für", "fur", "class", 7, "7", "input_", "a__b", "漢字", ("x", 2)])
    network = from_networkx(graph, input=INPUT, default=CONV, rename=True)
    names = [node.name for node in network.plan.nodes]
    assert names[1:] == ["Area_1", "fur", "fur_2", "class_2", "n7", "n7_2", "input_2", "a_b", "n", "x_2"]
    with pytest.raises(SpecError, match=r"'Area 1' is not a valid name"):
        from_networkx(nx.DiGraph([("Area 1", "b")]), input=INPUT, default=CONV).validate()


def test_attributes_of_other_programs() -> None:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_node("a", label="V1", kernel=5, channels=8)
    graph.add_node("b", label="V2", kernel=3, channels=4)
    graph.add_edge("a", "b", weight=0.25, color="red")
    fields = {"kernel": "kernel_size", "channels": "width", "weight": "scale"}
    network = from_networkx(graph, input=INPUT, default={"block": "conv"}, attributes=fields, head=HEAD)
    sizes = [(node.name, str(node.shape)) for node in network.plan.nodes]
    assert sizes[1:3] == [("a", "8x8x8"), ("b", "4x8x8")]
    assert "{from: a, to: b, scale: 0.25}" in network.to_yaml()
    bare = from_networkx(graph, input=INPUT, default=CONV, attributes={}, head=HEAD)
    assert [str(node.shape) for node in bare.plan.nodes[1:3]] == ["4x8x8", "4x8x8"]
