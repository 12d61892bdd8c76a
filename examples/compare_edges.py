"""What each edge set of hiresnet18 costs, from Python: `python examples/compare_edges.py`."""

import hiresnet_graph as hrg


def main() -> None:
    """One line for each of the paper's variants."""
    net = hrg.load("hiresnet18")
    base = net.variant("original").cost()
    for name in net.variants:
        cost = net.variant(name).cost()
        more = cost.parameters - base.parameters
        print(f"{name:10}{cost.parameters:>9,} parameters (+{more:,}){cost.macs / 1e6:8.2f} M multiply-adds")


if __name__ == "__main__":
    main()
