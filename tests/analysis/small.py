"""A small network of residual blocks with three skips, and a study of it."""

from pathlib import Path

import hiresnet_graph as hrg
from hiresnet_graph.sweep import Study, ablate
from hiresnet_graph.train import Recipe
from tests.sweep.works import Inline

TEXT = """\
name: small
params: {width: 4}
input: {channels: 1, height: 8, width: 8}
nodes:
  stem: {block: conv, width: $width}
  stage1: {block: basic, width: $width, depth: 1}
  stage2: {block: basic, width: $(2 * width), depth: 1, stride: 2}
  head: {block: classifier, classes: 10}
flow: stem -> stage1 -> stage2 -> head
skips: {levels: [stem, stages], edges: full}
variants:
  original: {edges: none}
  full: {edges: full}
"""


def train_study(folder: Path) -> None:
    """Train two variants with two seeds each."""
    wanted = Study(
        network=hrg.loads(TEXT, "small.yaml"),
        variants={"original": "none", "full": "full"},
        seeds=2,
        recipe=Recipe(epochs=3, batch_size=100, record_gradients=True),
    )
    ablate(wanted, out=folder, executor=Inline())
