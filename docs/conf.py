"""Configuration of the documentation site: `make docs` builds it into build/docs, with warnings as errors."""

from __future__ import annotations

import os
import re
import runpy
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from pygments.lexers.shell import BashSessionLexer

project = "hiresnet_graph"
author = "the developers of hiresnet_graph"
copyright = "2026, the developers of hiresnet_graph"
version = release = installed_version("hiresnet-graph")
extensions = ["myst_parser", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
root_doc = "index"
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 4
nitpicky = True
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = "hiresnet_graph"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_use_index = False  # no page has entries for it
# Not dashes: `--` begins an option.
smartquotes_action = "qe"
# Prompts are not copied, and neither is what a command prints.
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True
copybutton_line_continuation_character = "\\"
pygments_style = "friendly"
pygments_dark_style = "monokai"

suppress_warnings = ["misc.highlighting_failure"]  # of printed text in console sessions

DOCS = Path(__file__).parent
ROOT = DOCS.parent
# Files outside of `docs` that are pages of the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "results/README.md": "results.md",
}
LINK = re.compile(r"\]\((?P<path>[^)#:\s]+)(?P<fragment>#[^)]*)?\)")


def with_site_links(text: str, folder: Path, page: Path) -> str:
    """Markdown whose links between files of the repository lead to the pages of the site.

    Args:
        folder: Of the file with this text.
        page: The page that shows it.
    """

    def link(match: re.Match[str]) -> str:
        target = os.path.relpath(folder / match["path"], ROOT)
        fragment = match["fragment"] or ""
        if target.startswith("benchmarks/results/"):
            place, fragment = DOCS / "benchmarks.md", f"#{Path(target).stem}"
        else:
            place = DOCS / PAGES[target] if target in PAGES else ROOT / target
        return f"]({os.path.relpath(place, page.parent)}{fragment})"

    return LINK.sub(link, text)


def _read(app: Any, name: str, content: list[str]) -> None:
    page = DOCS / f"{name}.md"
    content[0] = with_site_links(content[0], page.parent, page)


def _included(app: Any, path: Path, name: str, content: list[str]) -> None:
    file = (DOCS / path).resolve()
    content[0] = with_site_links(content[0], file.parent, DOCS / f"{name}.md")


def _draw(app: Any) -> None:
    for script in ("gallery.py", "notebooks.py"):
        runpy.run_path(str(DOCS / script), run_name="__main__")


class SessionLexer(BashSessionLexer):
    """Commands after `$ ` and what they print, which may begin with `#`, as comments of a printed file do."""

    _ps1rgx = re.compile(r"^(\$ )(.*\n?)")
    _venv = re.compile(r"(?!)")  # of no environment: what is printed may begin with a bracket


def setup(app: Any) -> None:
    """Connect the steps before and while pages are read."""
    app.add_lexer("console", SessionLexer)
    app.connect("builder-inited", _draw)
    app.connect("source-read", _read)
    app.connect("include-read", _included)
