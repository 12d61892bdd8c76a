"""Networks whose source is a special case."""

from __future__ import annotations

from typing import Any

import hiresnet_graph as hrg


def network(nodes: str, flow: str, more: str = "", size: int = 8) -> hrg.Architecture:
    shape = f"{{channels: 8, height: {size}, width: {size}}}"
    return hrg.loads(f"name: net\ninput: {shape}\nnodes:\n{nodes}\nflow: {flow}\n{more}")


CELL = """
blocks:
  cell:
    params: {width: 8}
    nodes:
      a: {block: conv, width: $width}
      b: {block: basic, width: $width}
      out: {block: identity, merge: concat}
    flow: input -> a -> b -> out
    edges: [{from: input, to: out, block: conv, width: 4}, {from: a, to: out}]
  twice:
    params: {width: 8}
    nodes: {one: {block: cell, width: $width}, fit: {block: conv2d, width: $width, kernel_size: 1}}
    flow: one -> fit
"""
CASES = {
    "shared weights with another stride": network(
        "  a: {block: conv, width: 8, weights: w}\n  b: {block: conv, width: 8, stride: 2, weights: w}",
        "input -> a -> b",
    ),
    "shared weights, called alike": network(
        "  a: {block: conv, width: 8, weights: w}\n  b: {block: conv, width: 8, weights: w}", "input -> a -> b"
    ),
    "shared weights at another size": network(
        "  a: {block: basic, width: 8, weights: w}\n  p: {block: pool}\n  b: {block: basic, width: 8, weights: w}",
        "input -> a -> p -> b",
    ),
    "weights below other weights": network(
        "  a: {block: conv, width: 8, weights: w}\n  b: {block: conv2d, width: 8, weights: w}", "input -> a -> b"
    ),
    "tied stage": network("  s: {block: bottleneck, width: 8, depth: 3, weights: shared}", "input -> s"),
    "tied stage with one set of norms": network(
        "  s: {block: basic, width: 8, depth: 3, weights: shared, per_step: none}", "input -> s"
    ),
    "tied stage with a stride": network(
        "  s: {block: bottleneck, width: 8, stride: 2, depth: 2, weights: shared, shortcut: {when: always}}",
        "input -> s",
    ),
    "nested blocks": network(
        "  s: {block: twice, depth: 2}\n  t: {block: twice, width: 12}\n  h: {block: classifier, classes: 2}",
        "input -> s -> t -> h",
        CELL,
    ),
    "nested blocks with shared weights": network(
        "  s: {block: twice, weights: w}\n  t: {block: twice, weights: w}", "input -> s -> t", CELL
    ),
    "edges with blocks": network(
        "  a: {block: conv, width: 8}\n  b: {block: basic, width: 8}\n  c: {block: plain, width: 8}",
        "input -> a -> b -> c",
        CELL
        + """
edges:
  - {from: a, to: c, slot: output, block: basic, width: 8}
  - {from: a, to: b, slot: residual, block: basic, width: 8}
  - {from: input, to: c, slot: residual, block: cell, projection: {spatial: avg}}
""",
    ),
    "gates": network(
        "  g: sigmoid\n  a: {block: conv, width: 8}\n  b: {block: basic, width: 8}\n  c: {block: basic, width: 8}",
        "[input -> a -> b -> c, input -> g]",
        """
edges:
  - {from: a, to: c, slot: output, gate: g}
  - {from: a, to: b, slot: residual, gate: g, block: conv, width: 8}
""",
    ),
    "weighted, gated and mean": network(
        "  a: {block: conv, width: 8}\n  b: {block: basic, width: 12, stride: 2}\n  c: {block: basic, width: 8}\n"
        "  d: {block: conv, width: 8}",
        "input -> a -> b -> c -> d",
        """
edges:
  - {from: a, to: b, slot: output, merge: weighted, projection: {spatial: avg}}
  - {from: a, to: c, slot: output, merge: gated, projection: {spatial: avg}}
  - {from: b, to: c, slot: output, merge: gated, projection: {spatial: avg}}
  - {from: a, to: d, slot: output, merge: mean, projection: {spatial: max}}
  - {from: b, to: d, slot: output, merge: mean, projection: {spatial: max}}
""",
    ),
    "scales of edges": network(
        "  a: {block: conv, width: 8}\n  b: {block: basic, width: 8}\n  c: {block: basic, width: 8}\n  g: sigmoid",
        "[input -> a -> b -> c, a -> g]",
        """
edges:
  - {from: input, to: b, slot: residual, scale: learned, projection: {channels: pad}}
  - {from: input, to: c, slot: output, scale: {init: 0.25}, projection: {channels: pad}}
  - {from: a, to: c, slot: output, scale: {gate: true, init: -2}}
  - {from: a, to: b, slot: output, scale: -0.5, gate: g}
  - {from: a, to: c, slot: residual, scale: gate, name: other}
outputs: c
""",
    ),
    "concat": network(
        "  a: {block: conv, width: 8}\n  b: {block: conv, width: 4}\n  c: {block: conv, width: 4}",
        "input -> a -> b -> c",
        "skips: {levels: [input, a, b, c], edges: full - p1, merge: concat}",
    ),
    "multiply": network(
        "  a: {block: conv, width: 8}\n  b: {block: conv, width: 8}",
        "input -> a -> b",
        "edges: [{from: input, to: b, slot: output, merge: multiply}]",
    ),
    "edge from inside a block": network(
        "  a: {block: basic, width: 8}\n  b: {block: conv, width: 8}",
        "input -> a -> b",
        "edges: [{from: a.conv1, to: b, slot: output}]",
    ),
    "edges that pool one value alike": network(
        "  a: {block: conv, width: 8}\n  b: {block: conv, width: 12, stride: 2}\n  c: {block: conv, width: 16}",
        "input -> a -> b -> c",
        "skips: {levels: [a, b, c], edges: full}",
    ),
    "edges in groups": network(
        "  a: {block: conv, width: 8}\n  b: {block: conv, width: 8}\n  c: {block: conv, width: 8}",
        "input -> a -> b -> c",
        """
skips:
  near: {levels: [a, b, c], edges: p1, projection: {when: always}}
  far: {levels: [a, b, c], edges: p2, projection: {when: always}}
""",
    ),
    "names of methods": network(
        "  a: {block: conv, width: 8}\n  b: {block: conv, width: 8}\n  pop: {block: conv, width: 8}",
        "input -> a -> b -> pop",
        """
edges:
  - {from: a, to: b, slot: output, name: update, projection: {when: always}}
  - {from: a, to: pop, slot: output, name: keys, projection: {when: always}}
""",
    ),
    "names that Python uses": network(
        "  F: {block: conv, width: 8}\n  nn: {block: basic, width: 8}\n  x: {block: conv, width: 8}\n"
        "  torch: {block: conv, width: 8}\n  Tensor: {block: conv2d, width: 8}\n  ConvBlock: {block: conv, width: 8}",
        "input -> F -> nn -> x -> torch -> Tensor -> ConvBlock",
        "skips: {levels: [F, nn, x, torch, Tensor, ConvBlock], edges: full}",
    ),
    "dropout on two ways": network(
        "  a: {block: conv, width: 8}\n  d: {block: dropout, p: 0.5}\n"
        "  b: {block: dense_layer, growth: 8, dropout: 0.5}\n"
        "  c: {block: basic, width: 8}\n  e: {block: dropout, p: 0.5}",
        "[input -> a -> b -> c, input -> d -> e]",
        """
edges:
  - {from: a, to: c, slot: residual, block: dropout, p: 0.4}
  - {from: d, to: b, slot: output, block: dropout, p: 0.4, projection: {channels: pad, norm: none}}
  - {from: e, to: c, slot: output}
""",
    ),
    "long sums": network(
        "  a_node_with_a_long_name: {block: conv, width: 8}\n"
        "  another_node_with_a_long_name: {block: conv, width: 8, stride: 2}\n"
        "  the_last_node_with_a_long_name: {block: conv, width: 8, stride: 2}\n"
        "  all_of_the_nodes_in_one_place: {block: conv, width: 8, merge: concat}",
        "input -> a_node_with_a_long_name -> another_node_with_a_long_name -> the_last_node_with_a_long_name -> "
        "all_of_the_nodes_in_one_place",
        """
skips:
  sums:
    levels: [a_node_with_a_long_name, another_node_with_a_long_name, the_last_node_with_a_long_name]
    edges: full
  rows:
    levels: [input, "*_node_with*", all_of_the_nodes_in_one_place]
    edges: in + out - p1
    slot: input
    merge: concat
""",
    ),
    "only an input": network("  a: identity", "input -> a"),
    "several inputs and outputs": hrg.loads(
        """
name: net
input: {left: {channels: 2, height: 8, width: 8}, right: {channels: 3, height: 4, width: 4}, F: {channels: 4}}
nodes:
  a: {block: conv, width: 4}
  b: {block: conv, width: 4}
  c: {block: basic, width: 4}
  d: {block: linear, width: 4}
  m: to_map
  one: {block: classifier, classes: 3}
  two: {block: classifier, classes: 2}
flow: [left -> a -> c -> one, right -> b, c -> two, F -> d -> m]
edges:
  - {from: b, to: c, merge: concat, projection: {spatial: nearest, channels: none, norm: none}}
  - {from: m, to: c, slot: output, merge: multiply}
outputs: [one, two, c]
"""
    ),
}

STATES = """
name: net
input: {channels: 2, height: 8, width: 8}
nodes:
  pre: {block: conv, width: 4}
  s1: {block: state, shape: [4, 8, 8]}
  s2: {block: state, shape: [6, 4, 4]}
  post: {block: classifier, classes: 3}
flow: [pre -> s1, s2 -> post]
transitions:
  s1: {s1: {block: brc2, identity: true}, s2: brc2}
  s2: {s1: brd2, s2: {block: brc2, identity: true}}
time: {steps: 5, input: first}
"""


def timed(changes: str = "", **time: Any) -> hrg.Architecture:
    """Two states with other fields of `time`, and with changes (a variant in YAML)."""
    net = hrg.loads(STATES + f"variants: {{v: {{{changes}}}}}\n").variant("v")
    return net.override({f"time.{key}": value for key, value in time.items()})


IN_TIME = {
    "several steps": timed(),
    "one step": hrg.loads("name: net\ninput: {channels: 2, height: 8, width: 8}\nnodes: {a: relu}\ntime: {steps: 1}"),
    "a sequence, read at all steps": timed(input="sequence", readout="all"),
    "a series of vectors": hrg.loads(
        """
name: net
input: {channels: 4}
nodes: {h: {block: state, shape: [4]}, norm: batch_norm, out: {block: linear, width: 2}}
flow: input -> h -> norm -> out
transitions: {h: {h: {block: linear, width: 4}}}
time: {steps: 4, input: sequence, readout: all, per_step: norm_stats}
"""
    ),
    "zeros": timed(empty="zeros", input="every"),
    "no copies": timed(per_step="none"),
    "statistics apart": timed(per_step="norm_stats", input="every"),
    "all weights apart": timed(per_step="all"),
    "scaled norms": timed(norm_scale=0.1),
    "a readout before the end": timed(steps=9, readout=6),
    "copies of some": timed(
        "transitions: {s1: {s1: {per_step: all}, s2: {per_step: none}}, s2: {s1: {per_step: norm_stats}}}"
    ),
    "windows": timed("transitions: {s1: {s1: {at: [1, 3]}, s2: {at: [2, 4]}}, s2: {s1: null}}"),
    "long delays": timed("transitions: {s1: {s1: {delay: 2}}}", steps=6, input="every"),
    "weights shared by transitions": timed(
        "nodes: {s2: {shape: [4, 8, 8]}}, "
        "transitions: {s1: {s1: {weights: own}}, s2: {s1: {block: brc2}, s2: {weights: own}}}"
    ),
    "residual blocks with copies": timed(
        "nodes: {mid: {block: basic, width: 8, depth: 2, stride: 2}}, flow: [pre -> s1, s2 -> mid -> post]",
        readout="all",
    ),
    "a tied stage": timed(
        "nodes: {mid: {block: basic, width: 6, depth: 2, weights: shared}}, flow: [pre -> s1, s2 -> mid -> post]",
        readout="all",
    ),
    "time in a block": hrg.loads(
        """
name: net
input: {channels: 4, height: 8, width: 8}
blocks:
  loop:
    nodes: {c: {block: conv, width: 4}}
    edges: [{from: c, to: c, delay: 1}]
    time: {steps: 3, per_step: norm_stats, empty: zeros}
nodes: {a: {block: loop, depth: 2}, b: loop, head: {block: classifier, classes: 2}}
flow: input -> a -> b -> head
edges: [{from: b, to: b, delay: 1}]
time: {steps: 3, per_step: norm}
"""
    ),
    "gates and weighted sums": timed(
        """nodes: {pool: {block: adaptive_avg_pool}, g: {block: conv, width: 4, kernel_size: 1, norm: none}},
        flow: [pre -> s1, s2 -> post, pre -> pool -> g],
        transitions: {s1: {s1: {merge: weighted, gate: g}}}""",
        input="every",
    ),
    "scales of transitions": timed(
        "transitions: {s1: {s1: {scale: {init: 0.5}, per_step: all}, s2: {scale: gate}}, s2: {s1: {scale: 0.5}}}",
        input="every",
    ),
    "concatenation with zeros for what is not there": hrg.loads(
        """
name: net
input: {channels: 2, height: 4, width: 4}
nodes: {a: {block: conv, width: 4}, b: {block: conv, width: 4}, c: {block: conv, width: 4, merge: concat}}
flow: [input -> a -> b -> c]
edges: [{from: a, to: c, delay: 1, projection: {norm: none}}, {from: c, to: a, delay: 1, slot: output}]
time: {steps: 4, readout: all}
"""
    ),
}
