"""Writes docs/gallery: all shipped specs with diagram, counts and source, and options of diagrams side by side.

python docs/gallery.py
"""

from __future__ import annotations

import shlex
from pathlib import Path

import hiresnet_graph as hrg
from hiresnet_graph.cli.app import app
from hiresnet_graph.formats import format_si
from hiresnet_graph.shipped import spec_names, spec_path

FOLDER = Path(__file__).parent / "gallery"
HEAD = """# Gallery

Every shipped spec, as `hrg render NAME --level stages` draws it, with its cost for one input.
[Options of diagrams](options.md) shows what else `hrg render` draws.

```{toctree}
:hidden:

options
```
"""
OPTIONS_HEAD = """# Options of diagrams

Each picture with the command that draws it. [Figures and numbers](../how-to/figures.md) explains the options.
"""
OPTIONS = (
    ("Levels of detail", "hiresnet18@full", ["--level stages", "--level blocks", "--level ops --width double"]),
    ("Widths", "hiresnet18@full", ["--level stages --width single", "--level stages --width double"]),
    ("Text", "hiresnet18@full", ["--level stages --no-counts --no-footer", "--level stages --font 'DejaVu Serif'"]),
    ("Themes", "unet", ["--theme light", "--theme dark"]),
    ("Directions", "resnet20", ["--direction LR", "--direction TB"]),
    ("Networks in time", "frnn3", ["", "--unrolled"]),
    ("Two networks in one picture", "hiresnet18@in", ["--diff hiresnet18@out", "--level stages --diff resnet20"]),
    ("Variants on a sheet", "hiresnet18", ["--level stages --variants all --no-counts"]),
)
"""Titles, specs, and options of each picture."""


def section(name: str) -> str:
    """The entry of one spec; draws its diagram."""
    network = hrg.load(name)
    network.render(FOLDER / f"{name}.svg", level="stages")
    path = spec_path(name)
    assert path is not None
    cost = network.cost()
    variants = f" Variants: {', '.join(f'`{label}`' for label in network.variants)}." if network.variants else ""
    counts = f"{cost.parameters:,} parameters, {format_si(cost.macs)} MACs."
    source = path.read_text(encoding="utf-8").rstrip()
    return "\n".join(
        [
            f"## {name}",
            "",
            f"{network.tree.get('description', '')} {counts}{variants}".strip(),
            "",
            f"![Diagram of {name}]({name}.svg)",
            "",
            f"<details><summary><code>specs/{name}.yaml</code></summary>",
            "",
            "```yaml",
            source,
            "```",
            "",
            "</details>",
            "",
        ]
    )


def option_sections() -> list[str]:
    """The pictures of the page of options; draws them with the commands that it shows."""
    sections = []
    for title, spec, options in OPTIONS:
        parts = [f"## {title}"]
        for i, option in enumerate(options):
            name = f"option-{title.lower().replace(' ', '-')}-{i}.svg"
            words = ["render", spec, *shlex.split(option), "-o", str(FOLDER / name), "--force"]
            app(words, standalone_mode=False)
            command = " ".join(filter(None, ("hrg render", spec, option, "-o net.svg")))
            parts += [f"`{command}`", f"![{title}: {option or 'without options'}]({name})"]
        sections.append("\n\n".join([*parts, ""]))
    return sections


def main() -> None:
    """Draw all diagrams and write the pages."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "options.md").write_text("\n".join([OPTIONS_HEAD, *option_sections()]), encoding="utf-8")
    (FOLDER / "index.md").write_text("\n".join([HEAD, *map(section, spec_names())]), encoding="utf-8")


if __name__ == "__main__":
    main()
