"""A study from Python: three networks, two seeds each, on scikit-learn's digits: `python examples/small_study.py`."""

import tempfile

import hiresnet_graph as hrg


def main() -> None:
    """Train, then print the test accuracy of every run."""
    net = hrg.load("hiresnet18").override({"width": 4, "input.channels": 1, "input.height": 8, "input.width": 8})
    study = hrg.Study(
        network=net,
        variants=("none", "full"),
        controls=("adjusted",),  # "none", as large as "full"
        seeds=2,
        recipe=hrg.Recipe(epochs=2),
        data="digits",
    )
    with tempfile.TemporaryDirectory() as folder:
        results = hrg.ablate(study, out=folder)
    for row in results.rows:
        network = results.networks[row.network]
        assert row.record is not None and row.record.test_accuracy is not None
        accuracy = f"{100 * row.record.test_accuracy:.1f} %"
        print(f"{network.label:10}{network.parameters:>8,} parameters, seed {row.seeds}: {accuracy}")


if __name__ == "__main__":  # the workers import this file
    main()
