"""Networks for the tests of diagrams, beside those of `specs/`."""

STATES = """
name: states
params: {steps: 4}
input: {channels: 2, height: 8, width: 8}
nodes:
  pre: {block: conv, width: 4}
  s1: {block: state, shape: [4, 8, 8]}
  s2: {block: state, shape: [8, 4, 4]}
  s3: {block: state, shape: [8, 2, 2]}
  post: {block: classifier, classes: 3}
flow: [pre -> s1, s3 -> post]
transitions:
  s1: {s1: {block: brc2, identity: true}, s2: brc2, s3: brc2}
  s2: {s1: brd2, s2: {block: brc2, identity: true}, s3: brc2}
  s3: {s1: brd2, s2: brd2, s3: {block: brc2, identity: true}}
time: {steps: $steps, input: first}
"""
"""Three states, each joined to each, in four steps."""

DELAYS = """
name: delays
input: {channels: 3, height: 8, width: 8}
nodes:
  a: {block: basic, width: 4, depth: 2}
  b: {block: basic, width: 4, depth: 2}
  c: {block: conv, width: 4}
  d: {block: conv, width: 4}
  g: {block: conv, width: 1}
  head: {block: classifier, classes: 3}
flow: [a -> b -> c -> d -> head, b -> g]
skips: {levels: [a, b, c, d], edges: full - p1}
edges:
  - {from: d, to: a, delay: 2, slot: output}
  - {from: c, to: b, delay: 1, slot: output, at: [3, 4, 5]}
  - {from: c, to: c, delay: 3}
  - {from: c, to: c, delay: 1, name: again, gate: g}
time: {steps: 7, delay: 1, input: every}
"""
"""Stages, skips, a gate, delays up to 3, and an edge that is open at some steps."""

STREAMS = """
name: streams
input: {channels: 3, height: 8, width: 8}
nodes:
  lgn: {block: conv, width: 4}
  dorsal: {block: conv, width: 4}
  ventral: {block: conv, width: 4}
  it: {block: conv, width: 4}
  head: {block: classifier, classes: 3}
flow: [lgn -> dorsal -> it -> head, lgn -> ventral -> it]
edges:
  - {from: dorsal, to: ventral, delay: 1}
  - {from: ventral, to: dorsal, delay: 1}
  - {from: it, to: lgn, delay: 2, slot: output}
  - {from: it, to: it, delay: 1}
time: {steps: 5, input: every}
"""
"""Two streams side by side: no chain."""

ZEROS = """
name: zeros
input: {channels: 3, height: 8, width: 8}
nodes:
  a: {block: conv, width: 4}
  b: {block: conv, width: 4}
  c: {block: conv, width: 4}
  head: {block: classifier, classes: 3}
flow: c -> head
edges:
  - {from: input, to: a, block: conv, width: 4}
  - {from: a, to: b, delay: 1, block: conv, width: 4}
  - {from: b, to: c, delay: 1, block: conv, width: 4}
  - {from: c, to: c, delay: 1}
time: {steps: 4, input: every, empty: zeros}
"""
"""As CORnet-RT: nodes compute on zeros until something arrives."""

FIRE = """
name: fire
input: {channels: 3, height: 32, width: 32}
blocks:
  fire:
    nodes:
      squeeze: {block: conv2d, width: 16, kernel_size: 1}
      one: {block: conv2d, width: 64, kernel_size: 1}
      three: {block: conv2d, width: 64}
      out: {block: identity, merge: {kind: concat, order: [one, three]}}
    flow: [squeeze -> one -> out, squeeze -> three -> out]
nodes: {fire: fire, head: {block: classifier, classes: 10}}
flow: fire -> head
"""
"""Two branches in one block, as in SqueezeNet."""

TREE = """
name: dla_tree
input: {channels: 3, height: 32, width: 32}
nodes:
  stem: {block: conv, width: 16}
  a1: {block: basic, width: 16}
  a2: {block: basic, width: 16}
  root1: {block: conv2d, width: 16, kernel_size: 1, merge: {kind: concat, order: [a1, a2]}}
  pool: {block: max_pool, kernel_size: 2, stride: 2}
  b1: {block: basic, width: 32, stride: 2}
  b2: {block: basic, width: 32}
  root2: {block: conv2d, width: 32, kernel_size: 1, merge: {kind: concat, order: [pool, b1, b2]}}
  head: {block: classifier, classes: 10}
flow:
  - stem -> a1 -> a2 -> root1 -> b1 -> b2 -> root2 -> head
  - a1 -> root1
  - b1 -> root2
  - root1 -> pool -> root2
"""
"""As deep layer aggregation."""

CELL = """
name: nas_cell
input: {channels: 3, height: 32, width: 32}
blocks:
  cell:
    nodes:
      pre: {block: conv, width: 16}
      n1: {block: conv, width: 16}
      n2: {block: conv, width: 16}
      n3: {block: conv, width: 16}
      n4: {block: conv, width: 16}
      p1: {block: max_pool, kernel_size: 3, stride: 1, padding: 1}
      out: {block: identity, merge: {kind: concat, order: [n1, n2, n3, n4]}}
    flow: [pre -> n1 -> out, pre -> n2 -> out, pre -> n3 -> n4 -> out, n3 -> out, pre -> p1 -> n3]
    edges:
      - {from: n1, to: n3}
      - {from: n1, to: n4}
      - {from: n2, to: n4}
nodes: {stem: {block: conv, width: 16}, c1: cell, c2: cell, c3: {block: cell}, head: {block: classifier, classes: 10}}
flow: [stem -> c1 -> c2 -> c3 -> head]
edges:
  - {from: stem, to: c2, slot: output, projection: {channels: conv1x1}}
"""
"""A cell as from architecture search, in which calls feed several later ones."""

TWICE = """
name: twice
input: {channels: 2, height: 8, width: 8}
nodes:
  a: {block: conv, width: 4}
  b: {block: squeeze_excite}
  c: {block: conv2d, width: 4, kernel_size: 1, merge: concat}
flow: [a -> b -> c, a -> c]
edges:
  - {from: a, to: c, slot: output}
  - {from: a, to: c, slot: output, name: again}
"""
"""Two edges with the same ends."""

SIDES = """
name: sides
input: {channels: 3, height: 32, width: 32}
nodes:
  lgn: {block: conv, width: 8}
  dorsal: {block: conv, width: 16}
  ventral: {block: basic, width: 16, depth: 3}
  mt: {block: conv, width: 16}
  it: {block: conv, width: 32, merge: concat}
  head: {block: classifier, classes: 3}
flow: [lgn -> dorsal -> mt -> it -> head, lgn -> ventral -> it]
edges:
  - {from: dorsal, to: ventral, slot: output}
  - {from: lgn, to: it, slot: output, projection: {spatial: avg, channels: conv1x1, norm: batch}}
  - {from: ventral, to: mt}
"""
"""Two streams, one with a stage, and edges between them that have labels."""
