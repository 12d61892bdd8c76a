"""`hrg render`."""

import pytest

pytestmark = pytest.mark.usefixtures("folder")


def test_render_writes_a_diagram(hrg, folder):
    result = hrg("render", "hiresnet18@full", "-o", "fig.dot", "--level", "stages", "--direction", "TB")
    assert result.exit_code == 0, result.stderr
    text = (folder / "fig.dot").read_text()
    assert text.lstrip().startswith("digraph") and "stage3" in text and "hiresnet18, full" in text


@pytest.mark.parametrize(
    "args", [["-o", "f.xyz"], ["-o", "f.dot", "--level", "x"], ["-o", "f.dot", "--direction", "x"]]
)
def test_render_errors_are_wrong_usage(hrg, args):
    result = hrg("render", "unet", *args)
    assert result.exit_code == 2 and result.stderr.startswith("hrg render: ")


def test_render_unrolls_a_network_in_time(hrg, folder):
    assert hrg("render", "frnn2", "-o", "rolled.dot").exit_code == 0
    assert hrg("render", "frnn2", "-o", "flat.dot", "--unrolled").exit_code == 0
    rolled, flat = ((folder / name).read_text() for name in ("rolled.dot", "flat.dot"))
    assert "t+1" in rolled and "s1.step1" not in rolled
    assert "s1.step1" in flat and "t = 1" in flat and "t+1" not in flat
    result = hrg("render", "unet", "-o", "x.dot", "--unrolled")
    assert result.exit_code == 2 and "'unet' has no 'time', so there is nothing to unroll." in result.stderr
