"""`hrg adjust`."""

import pytest

import hiresnet_graph as hg

pytestmark = pytest.mark.usefixtures("folder")


def test_adjust_reaches_the_target_and_writes_an_extension(hrg, folder):
    result = hrg("adjust", "hiresnet18", "block=plain", "--edges", "none", "-p", "270682")
    text = result.stdout
    assert "extends: hiresnet18" in text and "hidden" in text and "0 off the target" in result.stderr
    assert hg.loads(text).cost().parameters == 270_682
    assert hrg("adjust", "hiresnet18", "block=plain", "--edges=none", "-p", "270682", "-o", "adj.yaml").exit_code == 0
    assert hg.load("adj.yaml").cost().parameters == 270_682 and hg.load("adj.yaml").name == "adj"


def test_adjust_of_a_file_extends_it_from_where_it_is_written(hrg, folder):
    (folder / "sub").mkdir()
    assert hrg("init", "-o", "net.yaml").exit_code == 0
    assert hrg("adjust", "net.yaml", "-p", "200000", "-o", "sub/adj.yaml").exit_code == 0
    assert abs(hg.load("sub/adj.yaml").cost().parameters - 200_000) < 50


@pytest.mark.parametrize("variant", ["original", "in"])
def test_adjust_of_a_variant_has_its_changes(hrg, folder, variant):
    wanted = 273_466
    result = hrg("adjust", f"hiresnet18@{variant}", "-p", str(wanted + 5000), "-o", "adj.yaml")
    assert result.exit_code == 0, result.stderr
    found, plain = hg.load("adj.yaml"), hg.load("hiresnet18").variant(variant)
    assert abs(found.cost().parameters - wanted - 5000) < 50
    assert [edge.name for edge in found.plan.edges] == [edge.name for edge in plain.plan.edges]


@pytest.mark.parametrize("args", [["hiresnet18", "-p", "5"], ["hiresnet18@full", "-p", "5"], ["vgg16", "-p", "9"]])
def test_adjust_errors_are_wrong_usage(hrg, args):
    result = hrg("adjust", *args)
    assert result.exit_code == 2 and result.stderr.startswith("hrg adjust: ")
