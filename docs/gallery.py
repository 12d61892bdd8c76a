"""Writes docs/gallery: every shipped spec with its diagram, counts and source.

python docs/gallery.py
"""

from __future__ import annotations

from pathlib import Path

import hiresnet_graph as hrg
from hiresnet_graph.formats import format_si
from hiresnet_graph.shipped import spec_names, spec_path

FOLDER = Path(__file__).parent / "gallery"
HEAD = """# Gallery

Every shipped spec, as `hrg render NAME --level stages` draws it, with its cost for one input.
"""


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


def main() -> None:
    """Draw all diagrams and write the page."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "index.md").write_text("\n".join([HEAD, *map(section, spec_names())]), encoding="utf-8")


if __name__ == "__main__":
    main()
