"""Desugaring of a section into a block graph, in parts: `passes.desugar` is the pass itself."""
