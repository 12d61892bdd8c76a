"""What the tests share."""

from __future__ import annotations

import os

# Before torch is imported: the workers of pytest-xdist already use every core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

import hiresnet_graph as hrg

# A busy machine is no failure of a property.
settings.register_profile("default", deadline=None, print_blob=True)
settings.load_profile("default")

TINY = """
name: tiny
params: {width: 4}
input: {channels: 1, height: 8, width: 8}
nodes:
  stem: {block: conv, width: $width, stride: 2}
  stage1: {block: conv, width: $width, depth: 1}
  stage2: {block: conv, width: $(2 * width), depth: 1, stride: 2}
  head: {block: classifier, classes: 10}
flow: stem -> stage1 -> stage2 -> head
skips: {levels: [stem, stages], edges: full}
variants:
  original: {edges: none}
  full: {edges: full}
"""


@pytest.fixture
def tiny() -> hrg.Architecture:
    """A network for the digits that trains in a moment; three levels, so three skips."""
    return hrg.loads(TINY, "tiny.yaml")
