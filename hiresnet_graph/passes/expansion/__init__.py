"""Expansion of a block graph into an operation graph, in parts: `passes.expand` is the pass itself."""
