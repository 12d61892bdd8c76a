"""Costs of the edge sets of hiresnet18: `python examples/compare_edges.py`."""

import hiresnet_graph as hrg


def main() -> None:
    """Print one line for each variant of the paper."""
    net = hrg.load("hiresnet18")
    base = net.variant("original").cost()
    for name in net.variants:
        cost = net.variant(name).cost()
        more = cost.parameters - base.parameters
        print(f"{name:10}{cost.parameters:>9,} parameters (+{more:,}){cost.macs / 1e6:8.2f} M multiply-adds")


if __name__ == "__main__":
    main()
