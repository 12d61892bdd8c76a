"""Recurrent networks for the tests of diagrams, beside those of `specs/`."""

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
