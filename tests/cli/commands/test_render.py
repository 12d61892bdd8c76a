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


def test_render_draws_two_networks_in_one_picture_or_several_on_a_sheet(hrg, folder):
    assert hrg("render", "hiresnet18@in", "-o", "diff.dot", "--diff", "hiresnet18@out").exit_code == 0
    text = (folder / "diff.dot").read_text()
    assert "hiresnet18, in \u2192 hiresnet18, out: 2 added, 2 removed, 0 changed" in text
    assert hrg("render", "hiresnet18", "-o", "sheet.svg", "--level", "stages", "--variants", "all").exit_code == 0
    sheet = (folder / "sheet.svg").read_text()
    assert all(f">{name}</text>" in sheet for name in ("original", "full", "in", "out", "p1", "p2", "p3"))


def test_the_picture_of_a_study_is_a_sheet_of_its_different_networks(hrg, folder):
    assert hrg("render", "frnn3-transitions", "-o", "sheet.svg", "--no-counts").exit_code == 0
    sheet = (folder / "sheet.svg").read_text()
    assert all(f">{name}</text>" in sheet for name in ("all", "no feedback", "no lateral", "no bypass"))
    assert ">adjacent</text>" not in sheet  # the same network as without bypasses
    assert hrg("render", "table1-cifar10", "-o", "grid.svg", "--level", "stages", "--no-counts").exit_code == 0
    assert ">adjusted, block=resnext</text>" in (folder / "grid.svg").read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["table2", "--edges", "in"], "'table2' is a study, which takes no --edges."),
        (["hiresnet18", "--variants", "ful"], "'hiresnet18' has no variant 'ful'. Did you mean 'full'?"),
        (["unet", "--variants", "all"], "'unet' has no variants, so there is no sheet of them."),
        (["unet", "--variants", "a", "--diff", "unet"], "'--diff' and '--variants' are two kinds of pictures."),
        (
            ["unet", "--columns", "2"],
            "'--columns' is for a sheet of several networks. Add '--variants', or give a study.",
        ),
        (["unet", "--width", "wide"], "the width 'wide' must be single, double, or a number of centimetres"),
    ],
)
def test_wrong_options_of_pictures_are_wrong_usage(hrg, folder, args, message):
    result = hrg("render", *args, "-o", "x.svg")
    assert result.exit_code == 2 and message in result.stderr
    assert not (folder / "x.svg").exists()
