"""A custom block, merge and projection, used in a spec: `python examples/own_kinds.py`.

Each is a class with fields, registered under its `kind`. From then on it is available in specs, tables, modules,
emitted source and diagrams.
"""

from typing import ClassVar

import torch

import hiresnet_graph as hrg
from hiresnet_graph.blocks import BLOCKS, Block
from hiresnet_graph.merges import MERGES, Merge
from hiresnet_graph.ops import Count
from hiresnet_graph.projections import PROJECTIONS, Projection
from hiresnet_graph.shapes import Map, Shape
from hiresnet_graph.wire import Wire


@BLOCKS.register
class Inception(Block):
    """Three convolutions with kernels 1, 3 and 5 side by side, concatenated."""

    kind: ClassVar[str] = "inception"
    width: Count

    def expand(self, x: Wire) -> Wire:
        """(1x1 | 3x3 | 5x5) - norm - relu - concatenation."""
        branches = [x.conv2d(self.width, k, name=f"conv{k}").batch_norm(f"norm{k}").relu() for k in (1, 3, 5)]
        return branches[0].concat(*branches[1:])


@MERGES.register
class MeanOfRest(Merge):
    """The first value plus the mean of all others, so that the number of skips has no effect on the scale."""

    kind: ClassVar[str] = "mean_of_rest"

    def combine(self, wires: tuple[Wire, ...]) -> Wire:
        """F(x) + (P1 + ... + Pn) / n."""
        first, *rest = wires
        return first.add(rest[0].mean(*rest[1:]) if len(rest) > 1 else rest[0])


@PROJECTIONS.register
class Grouped(Projection):
    """Average pooling to any size, then a 1x1 convolution in groups: fewer parameters than `standard`."""

    kind: ClassVar[str] = "grouped"
    groups: Count = 4

    def project(self, x: Wire, target: Shape) -> Wire:
        """pool - grouped 1x1 convolution - norm; no operation between equal shapes."""
        if x.shape == target:
            return x
        if isinstance(target, Map) and x.shape.spatial != target.spatial:
            x = x.adaptive_avg_pool(target.spatial, name="pool")
        return x.conv2d(target.channels, 1, groups=self.groups, name="conv").batch_norm("norm")


SPEC = """
name: own
input: {channels: 3, height: 16, width: 16}
nodes:
  stem: {block: conv, width: 12}
  mix: {block: inception, width: 8}
  stage1: {block: basic, width: 24, depth: 2, stride: 2}
  head: {block: classifier, classes: 10}
flow: stem -> mix -> stage1 -> head
skips:
  levels: [stem, mix, stage1]
  edges: full - p1
  merge: mean_of_rest
  projection: {kind: grouped, groups: 2}
"""


def main() -> None:
    """Build the network and run it on noise."""
    net = hrg.loads(SPEC, "own.yaml")
    logits = net.build(seed=0)(torch.randn(2, 3, 16, 16))
    print(f"{net.name}: {net.cost().parameters:,} parameters, logits of shape {tuple(logits.shape)}")


if __name__ == "__main__":
    main()
