"""A small network of three states for the digits, for the tests of training in time."""

import hiresnet_graph as hrg

TEXT = """\
name: states
params: {steps: 5, width: 4}
input: {channels: 1, height: 8, width: 8}
nodes:
  pre: {block: conv, width: $width, stride: 2}
  s1: {block: state, shape: [$width, 4, 4]}
  s2: {block: state, shape: [$width, 2, 2]}
  s3: {block: state, shape: [$(2 * width), 2, 2]}
  norm: batch_norm
  head: {block: classifier, classes: 10}
flow: [pre -> s1, s3 -> norm -> head]
transitions:
  s1: {s1: {block: brc2, identity: true}, s2: brc2, s3: brc2}
  s2: {s1: brd2, s2: {block: brc2, identity: true}, s3: brc2}
  s3: {s2: brd2, s3: {block: brc2, identity: true}}
time: {steps: $steps, input: first, per_step: norm}
"""


def states(**time: object) -> hrg.Architecture:
    """The network, with fields of `time` changed."""
    return hrg.loads(TEXT, "states.yaml").override({f"time.{name}": value for name, value in time.items()})
