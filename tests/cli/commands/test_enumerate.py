"""`hrg enumerate`."""

import json

import pytest

import hiresnet_graph as hg


@pytest.mark.parametrize(
    ("rule", "number"), [("all", 64), ("size:0-1", 7), ("leave-one-out", 7), ("one-at-a-time", 7), ("family", 7)]
)
def test_enumerate_counts_the_subsets(hrg, rule, number):
    data = json.loads(hrg("enumerate", "hiresnet18", "--subsets", rule, "--json").stdout)
    assert len(data["variants"]) == number
    for row in data["variants"][:7]:
        expected = hg.load("hiresnet18").with_edges(row["edges"]).cost()
        assert (row["parameters"], row["macs"]) == (expected.parameters, expected.macs)


def test_enumerate_prints_a_table(hrg):
    result = hrg("enumerate", "hiresnet18", "block=plain", "--subsets", "family")
    assert ["2", "full", "270,682"] in [line.split()[:3] for line in result.stdout.splitlines()]
    assert result.stderr == "7 variants, 7 different networks.\n"


def test_enumerate_without_skips_has_a_hint(hrg):
    result = hrg("enumerate", "resnet18", "--subsets", "all")
    assert result.exit_code == 2 and "no skips" in result.stderr
    result = hrg("enumerate", "hiresnet18", "--subsets", "al")
    assert result.exit_code == 2 and "Did you mean 'all'?" in result.stderr
    assert "random:K, size:A-B, size:K." in hrg("enumerate", "hiresnet18", "--subsets", "foo").stderr
