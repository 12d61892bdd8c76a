"""`python -m hiresnet_graph.cli` is `hrg`."""

from hiresnet_graph.cli import main

main()
