import pytest

import hiresnet_graph as hrg
from hiresnet_graph.ops import Identity
from hiresnet_graph.passes import desugar, expand, prune, unroll
from hiresnet_graph.passes.timing import timing
from hiresnet_graph.render.scene.trace import Trace, trace
from tests.recurrent.graphs import make
from tests.render.networks import STATES, ZEROS


def traced(network: hrg.Architecture) -> Trace:
    assert network.plan.folded is not None
    return trace(network.plan.folded)


@pytest.mark.parametrize("seed", range(40))
def test_the_trace_agrees_with_the_calls(seed: int) -> None:
    """On random graphs: a node or edge that computes is traced at exactly the steps at which it has calls."""
    graph = expand(make(seed).arch.graph)
    found = trace(graph)
    parts = found.nodes.keys() | found.edges
    calls = {
        (node.owner, node.step)
        for node in prune(unroll(graph)).nodes
        if node.op is not None and node.op.kind not in ("frame", "stack", "zeros")
    }
    assert calls <= parts
    # A node may hold what arrives behind its own calls, and have none itself.
    behind = {edge.target for edge in graph.records.edges if edge.slot != "input"}
    computing = {
        node.owner
        for node in graph.nodes
        if node.op is not None and not isinstance(node.op, Identity) and node.role in ("call", "edge")
    } - behind
    assert {part for part in parts if part[0] in computing} <= calls


@pytest.mark.parametrize("seed", range(40))
def test_values_that_depend_on_the_input_agree_with_timing(seed: int) -> None:
    folded = make(seed).arch.plan.folded
    assert folded is not None
    holds = timing(folded).holds
    for (name, step), depends in trace(folded).nodes.items():
        assert depends == (step in holds[name]), (name, step)


@pytest.mark.parametrize("seed", range(60))
def test_edges_that_are_never_traced_are_silent(seed: int) -> None:
    """And only those, where nothing is computed from zeros."""
    folded = make(seed).arch.plan.folded
    assert folded is not None and folded.time is not None
    edges = {edge.name for edge in folded.records.edges if edge.family != "shortcut"}
    silent = {edge.name for edge in timing(folded).silent}
    never = edges - {name for name, _ in trace(folded).edges}
    assert never == silent if folded.time.empty == "skip" else never <= silent


def test_a_state_with_one_value_is_traced_though_it_has_no_call() -> None:
    network = hrg.loads(STATES)
    assert not any(call.owner == "s1" and call.step == 0 for call in network.plan.calls)
    found = traced(network)
    assert found.nodes["s1", 0] and ("flow.pre__s1", 0) in found.edges
    assert found.outputs == {("post", 3)}
    assert sorted(step for name, step in found.nodes if name == "s1") == [0, 1, 2]
    assert sorted(step for name, step in found.edges if name == "edges.s2__s1") == [2]


def test_values_from_zeros_alone_are_marked() -> None:
    found = traced(hrg.loads(ZEROS))
    assert {key for key, depends in found.nodes.items() if not depends} == {("b", 0), ("c", 0), ("c", 1)}
    assert ("edges.b__c", 1) in found.edges


def test_all_readouts_are_outputs() -> None:
    found = traced(hrg.loads(STATES).override({"time.readout": "all"}))
    assert found.outputs == {("post", 1), ("post", 2), ("post", 3)}


def test_a_node_counts_if_a_part_of_it_is_read() -> None:
    text = STATES.replace("flow:", "edges: [{from: pre.norm, to: s1, delay: 1}]\nflow:")
    network = hrg.loads(text.replace("s1: {s1: {block: brc2, identity: true}, s2: brc2, s3: brc2}", "s1: {s2: brc2}"))
    assert sorted(step for name, step in traced(network).nodes if name == "pre") == [0]
    assert ("edges.pre_norm__s1", 1) in traced(network).edges


def test_the_trace_requires_only_an_expanded_graph() -> None:
    section, problems = hrg.loads(STATES).section()
    graph = desugar(section, problems)
    assert graph is not None and trace(expand(graph)) == traced(hrg.loads(STATES))
