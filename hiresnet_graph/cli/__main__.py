"""Runs `hrg` for `python -m hiresnet_graph.cli`."""

from hiresnet_graph.cli import main

main()
