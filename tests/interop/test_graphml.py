"""Specs of GraphML files of other programs."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import SpecError, UsageError
from hiresnet_graph.interop.graphml import spec_from_graphml

# As python-igraph 1.0 writes it: each number is a double.
IGRAPH = """<?xml version="1.0" encoding="UTF-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
  <key id="v_name" for="node" attr.name="name" attr.type="string"/>
  <key id="v_block" for="node" attr.name="block" attr.type="string"/>
  <key id="v_width" for="node" attr.name="width" attr.type="double"/>
  <key id="v_stride" for="node" attr.name="stride" attr.type="double"/>
  <key id="v_norm" for="node" attr.name="norm" attr.type="string"/>
  <key id="e_delay" for="edge" attr.name="delay" attr.type="double"/>
  <key id="e_weight" for="edge" attr.name="weight" attr.type="double"/>
  <graph id="G" edgedefault="directed">
    <node id="v.0">
      <data key="v_name">retina</data> <data key="v_block">conv</data>
      <data key="v_width">16</data> <data key="v_stride">2</data> <data key="v_norm"></data>
    </node>
    <node id="v.1">
      <data key="v_name">V1</data> <data key="v_block">conv</data>
      <data key="v_width">8.0</data> <data key="v_stride">NaN</data> <data key="v_norm">none</data>
    </node>
    <edge source="v.0" target="v.1"> <data key="e_delay">0</data> <data key="e_weight">0.1</data> </edge>
    <edge source="v.1" target="v.0"> <data key="e_delay">1</data> <data key="e_weight">0.2</data> </edge>
  </graph>
</graphml>
"""
SIZES = {"channels": 3, "height": 8, "width": 8}


def written(folder: Path, text: str) -> Path:
    path = folder / "areas.graphml"
    path.write_text(text)
    return path


def test_numbers_without_a_fraction_are_whole(tmp_path: Path) -> None:
    text = IGRAPH.replace('key="v_stride">2<', 'key="v_stride">1e0<')
    found = spec_from_graphml(written(tmp_path, text), input=SIZES, steps=3)
    assert found.ids == {"v_0": "v.0", "v_1": "v.1"}
    nodes, edges = found.spec["nodes"], found.spec["edges"]
    assert nodes == {
        "v_0": {"block": "conv", "width": 16, "stride": 1},
        "v_1": {"block": "conv", "width": 8, "norm": "none"},
    }
    assert all(type(node["width"]) is int for node in nodes.values())
    assert [(edge["from"], edge["to"], edge.get("delay")) for edge in edges] == [
        ("input", "v_0", None),
        ("v_0", "v_1", 0),
        ("v_1", "v_0", 1),
    ]
    assert hrg.from_dict(found.spec).plan.tensors()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("16<", "16.5<"), "node 'v.0', width: expected a whole number, got 16.5."),
        (("16<", "-1<"), "node 'v.0', width: expected "),
        (('delay">1<', 'delay">1.5<'), "edge 'v.1' -> 'v.0', delay: expected a whole number, got 1.5."),
        (("none<", "nun<"), "node 'v.1', norm: "),
        # The stride, and so the shapes: an edge back to a larger map.
        (
            ("16<", "16<"),
            "edge 'v.1' -> 'v.0': 'v_0' (add) requires 3x8x8 at its slot 'input', but 'v_1' gives 8x4x4: ",
        ),
    ],
)
def test_faults_name_the_file_and_the_ids_in_it(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    path = written(tmp_path, IGRAPH.replace(*change))
    found = spec_from_graphml(path, input=SIZES, steps=3)
    with pytest.raises(SpecError) as caught:
        _ = hrg.from_dict(found.spec).plan
    assert "dict:" in str(caught.value)
    (problem,) = found.located(caught.value).problems
    assert str(problem).startswith(f"{path}: {message}") and "dict:" not in str(problem)


def test_a_node_called_input_is_the_input(tmp_path: Path) -> None:
    graph = nx.DiGraph([("input", "a"), ("a", "b")])
    graph.add_edge("b", "a", delay=2)
    nx.write_graphml(graph, tmp_path / "g.graphml")
    block = {"block": "conv", "width": 3}
    found = spec_from_graphml(tmp_path / "g.graphml", input=SIZES, block=block, steps=3).spec
    assert found["nodes"] == {"a": block, "b": block}
    assert [(edge["from"], edge["to"]) for edge in found["edges"]] == [("input", "a"), ("a", "b"), ("b", "a")]


def test_a_block_that_does_not_exist_is_no_missing_block(tmp_path: Path) -> None:
    path = written(tmp_path, IGRAPH.replace(">conv<", ">bottelneck<", 1))
    with pytest.raises(UsageError, match=r"the node 'v.0' has the block 'bottelneck', which does not exist\."):
        spec_from_graphml(path, input=SIZES, block={"block": "conv", "width": 4}, steps=3)
