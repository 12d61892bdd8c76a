"""LaTeX documents with diagrams."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.render import RenderOptions, make_scene
from hiresnet_graph.render.layout.make import make_layout
from hiresnet_graph.render.picture.make import make_picture
from hiresnet_graph.render.writers.tikz import to_tikz
from tests.render.networks import DELAYS
from tests.render.test_writers import NASTY


def tikz(network: hrg.Architecture, options: RenderOptions, title: str = "") -> str:
    scene = make_scene(network.plan, level=options.level, title=title or network.title)
    return to_tikz(make_picture(scene, make_layout(scene, options.direction), options))


def compiled(text: str, folder: Path) -> Path:
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    (folder / "net.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "net.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="latin-1")
    assert done.returncode == 0, done.stdout[-1500:]
    assert "(1 page" in done.stdout and "Missing character" not in done.stdout
    return folder / "net.pdf"


def test_styles_have_names_and_are_those_that_are_used() -> None:
    text = tikz(hrg.load("hiresnet18").variant("full"), RenderOptions())
    defined = re.findall(r"(?m)^  (hrg [^/]+)/\.style", text)
    used = {name.split(", ")[0] for name in re.findall(r"\\(?:draw|node)\[(hrg [^\]]*)\]", text)}
    assert set(defined) == used and {"hrg skip 1", "hrg skip 3", "hrg box block", "hrg glyph"} <= used
    colors = set(re.findall(r"\\definecolor\{(hrg-[\w-]+)\}", text))
    assert colors == set(re.findall(r"(?<=[=\[])hrg-[\w-]+", text))
    assert r"\definecolor{hrg-hue2}{HTML}{D55E00}" in text and "dash pattern=on 7bp off 3bp" in text


@pytest.mark.parametrize("width", ["", "single"])
def test_pdflatex_makes_one_page_of_the_width_of_the_figure(tmp_path: Path, width: str) -> None:
    options = RenderOptions(level="stages", width=width, theme="dark" if width else "light")
    pdf = compiled(tikz(hrg.loads(DELAYS), options), tmp_path).read_bytes()
    found = re.search(rb"/MediaBox ?\[([^]]*)\]", pdf)
    if found is not None and width:  # not in a compressed object
        assert float(found[1].split()[2]) == pytest.approx(8.5 / 2.54 * 72, abs=2)


def test_pdflatex_accepts_any_name(tmp_path: Path) -> None:
    network = hrg.load("hiresnet18")
    scene = make_scene(network.plan, title=" ".join([*NASTY, r"\input{x} $a_b^c$ ~ #1 “quoted”"]))
    boxes = tuple(replace(box, title=name) for box, name in zip(scene.boxes, NASTY, strict=False))
    scene = replace(scene, boxes=boxes + scene.boxes[len(boxes) :])
    text = to_tikz(make_picture(scene, make_layout(scene), RenderOptions()))
    assert r"Größe $\to$ [U+6A21][U+578B]" in text
    compiled(text, tmp_path)
