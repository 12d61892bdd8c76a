"""The built site: links lead somewhere, searches find something, and the gallery is complete."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import typer
from sphinx.search.en import SearchEnglish

from hiresnet_graph.cli.app import app
from hiresnet_graph.shipped import spec_names, study_names

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SEARCHES = {
    "ablation": "how-to/ablations",
    "auxiliary loss": "how-to/training",
    "BPTT": "how-to/time",
    "feature extraction": "how-to/pytorch",
    "fine-tuning": "how-to/import",
    "hooks": "how-to/pytorch",
    "lesion": "how-to/analyses",
    "pretrained": "how-to/import",
    "residual": "how-to/networks",
    "significance": "how-to/statistics",
    "skip connection": "faq",
    "Slurm": "how-to/scale",
}
"""What people search for -> the page that should have it in its text, and in a heading."""


class Site:
    """The pages of a built site."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def pages(self) -> dict[str, str]:
        """Path below the folder -> HTML."""
        return {str(path.relative_to(self.folder)): path.read_text() for path in self.folder.rglob("*.html")}

    @cached_property
    def index(self) -> dict[str, Any]:
        """The index of the search page."""
        text = (self.folder / "searchindex.js").read_text()
        return dict(json.loads(text.removeprefix("Search.setIndex(").removesuffix(")")))

    def find(self, words: str) -> set[str]:
        """Pages with all words in their text, as the search page finds them."""
        stem = SearchEnglish({}).stem
        names = self.index["docnames"]
        found = []
        for word in re.findall(r"\w+", words.lower()):
            pages = [self.index[kind].get(stem(word), []) for kind in ("terms", "titleterms")]
            found.append({names[i] for page in pages for i in (page if isinstance(page, list) else [page])})
        return set.intersection(*found)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        str(ROOT / "docs"),
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Site(folder)


def test_links_of_the_site_lead_somewhere(site: Site) -> None:
    ids = {name: set(re.findall(r'\bid="([^"]+)"', text)) for name, text in site.pages.items()}
    broken = []
    links = 0
    for name, text in site.pages.items():
        for target in re.findall(r'(?:href|src)="([^"]+)"', text):
            parts = urlsplit(html.unescape(target))
            if parts.scheme or parts.netloc or not (parts.path or parts.fragment):
                continue
            path = (site.folder / name).parent / unquote(parts.path) if parts.path else site.folder / name
            page = str(path.resolve().relative_to(site.folder.resolve()))
            links += 1
            if not path.exists() or (parts.fragment and page in ids and unquote(parts.fragment) not in ids[page]):
                broken.append(f"{name}: {target}")
    assert links > 1000
    assert broken == []


@pytest.mark.parametrize("words", SEARCHES)
def test_a_search_finds_the_page(site: Site, words: str) -> None:
    page = SEARCHES[words]
    assert page in site.find(words)
    headings = re.findall(r"<h[1-4]>(.*?)<a", site.pages[f"{page}.html"])
    stem = words.lower().removesuffix("ing").split()
    assert any(all(word in heading.lower() for word in stem) for heading in headings), headings


def test_a_word_that_is_nowhere_is_not_found(site: Site) -> None:
    assert site.find("zygomorphic") == set()


def test_options_keep_their_hyphens_and_only_commands_have_prompts(site: Site) -> None:
    texts = {name: html.unescape(re.sub(r"<[^>]+>", "", text)) for name, text in site.pages.items()}
    assert "With --weights" in texts["reference/cli.html"]
    dashes = {name: re.findall(r"[\s(\u2018']\u2013[a-z]\S*", text) for name, text in texts.items()}
    assert {name: found for name, found in dashes.items() if found} == {}
    prompts = {prompt for text in site.pages.values() for prompt in re.findall(r'<span class="gp">(.*?)</span>', text)}
    assert prompts == {"$ "}
    assert "gp-VirtualEnv" not in "".join(site.pages.values())
    assert re.findall(r'<(?:code|span class="pre")[^>]*>[^<]*[\u2018\u2019]', site.pages["reference/python.html"]) == []


def test_names_in_the_pictures_of_the_gallery_can_be_read(site: Site) -> None:
    small = []
    for page in ("index", "studies"):
        for src, pixels in re.findall(r'src="([^"]+\.svg)" style="width: (\d+)px', site.pages[f"gallery/{page}.html"]):
            svg = (site.folder / "gallery" / src).read_text()
            (width,) = re.findall(r'<svg[^>]* viewBox="\S+ \S+ ([\d.]+) ', svg)
            size = max(map(float, re.findall(r'font-size="([\d.]+)', svg))) * int(pixels) / float(width)
            small += [f"{src}: {size:.1f} px"] if size < 9 else []
    assert small == []


def test_the_gallery_shows_every_spec_and_study(site: Site) -> None:
    for page, names, command in (
        ("index", spec_names(), "hrg render {0} --level stages --width double"),
        ("studies", study_names(), "hrg ablate {0} -o"),
    ):
        text = site.pages[f"gallery/{page}.html"]
        for name in names:
            (section,) = re.findall(rf'(?s)<section id="{name.replace("_", "-")}">.*?</section>', text)
            assert "<img" in section and "<details>" in section, name
            assert command.format(name) in re.sub(r"<[^>]+>", "", section), name
    for folder in (path.parent.name for path in (ROOT / "results").glob("*/study.yaml")):
        assert f"results/{folder}/study.yaml" in site.pages["gallery/studies.html"]


def test_the_gallery_shows_every_option_of_render(site: Site) -> None:
    text = re.sub(r"<[^>]+>", "", site.pages["gallery/options.html"])
    options = typer.main.get_command(app).commands["render"].params  # type: ignore[attr-defined]
    of_networks = {"spec", "changes", "variant", "edges", "output", "force"}
    shown = {
        option.name: [*option.opts, *option.secondary_opts] for option in options if option.name not in of_networks
    }
    assert {"level", "width", "theme", "diff"} <= set(shown)
    assert [name for name, words in shown.items() if not any(word in text for word in words)] == []
