"""Writes docs/gallery: all shipped specs and studies with pictures and counts, and options of diagrams side by side.

python docs/gallery.py
"""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

from typer.testing import CliRunner

import hiresnet_graph as hrg
from hiresnet_graph.cli.app import app
from hiresnet_graph.formats import format_si
from hiresnet_graph.shipped import spec_names, spec_path, study_names, study_path

FOLDER = Path(__file__).parent / "gallery"
RESULTS = Path(__file__).parents[1] / "results"
HEAD = """# Gallery

Every shipped spec with the command that draws it, and its cost for one input. [Studies](studies.md) has the shipped
studies, and [options of diagrams](options.md) what else `hrg render` draws.

```{toctree}
:hidden:

studies
options
```
"""
STUDIES_HEAD = """# Studies

Every shipped study: a sheet of its networks (of large studies, their network alone), the commands that show and train
it, and the table of accuracies where it was run. Nothing was
run with the full schedule of a paper yet; the tables are those of the shorter studies in the [results](../results.md),
which say how they differ.
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
    (
        "Variants on a sheet",
        "hiresnet18",
        ["--level stages --variants all --no-counts", "--level stages --variants in,out,p3 --columns 1 --width double"],
    ),
    ("The networks of a study", "digits", ["--level stages --no-counts"]),
)
"""Titles, specs, and options of each picture."""
COLUMN = 832
"""Width of the text of a page, in pixels. Pictures of the gallery fill it, unless their natural size is smaller."""
DEEP, MANY = 300, 10
"""Of a network with more calls, or a study with more variants, the page of studies shows one diagram, not all."""
RUN = {
    "table1-cifar10": ["plain_cifar10"],
    "table1-cifar100": ["plain_cifar100"],
    "table2": ["table2_cifar10", "subsets_cifar10"],
    "table2-hiresvit": ["hiresvit_cifar10"],
    "frnn3-transitions": ["frnn3_transitions"],
}
"""Shipped study -> studies in `results` that ask the same with a shorter schedule."""


def printed(*words: str) -> str:
    """What a command of `hrg` prints."""
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def picture(name: str, options: str, file: str, text: str, *, enlarged: bool = True) -> str:
    """Draw a picture; its command and the picture, which leads to the file in its full size.

    Args:
        enlarged: Show it as large as the page allows, up to its natural size, rather than in the width of the options.
    """
    printed("render", name, *shlex.split(options), "-o", str(FOLDER / file), "--force")
    command = " ".join(filter(None, ("hrg render", name, options, "-o net.svg")))
    width = r'viewBox="\S+ \S+ ([\d.]+) ' if enlarged else r' width="([\d.]+)pt"'
    drawn = re.search(f"<svg[^>]*{width}", (FOLDER / file).read_text(encoding="utf-8"))
    assert drawn is not None, file
    pixels = min(round(float(drawn[1]) / 0.75), COLUMN)
    return f"`{command}`\n\n```{{image}} {file}\n:alt: {text}\n:width: {pixels}px\n```"


def source(path: Path, name: str) -> str:
    """A file in a fold."""
    text = path.read_text(encoding="utf-8").rstrip()
    return f"<details><summary><code>{name}</code></summary>\n\n```yaml\n{text}\n```\n\n</details>"


def spec_section(name: str) -> str:
    """The entry of a spec; draws its diagram."""
    network = hrg.load(name)
    path = spec_path(name)
    assert path is not None
    cost = network.cost()
    variants = f" Variants: {', '.join(f'`{label}`' for label in network.variants)}." if network.variants else ""
    counts = f"{cost.parameters:,} parameters, {format_si(cost.macs)} MACs."
    parts = [
        f"## {name}",
        f"{network.tree.get('description', '')} {counts}{variants}".strip(),
        picture(name, "--level stages --width double", f"{name}.svg", f"Diagram of {name}"),
        source(path, f"specs/{name}.yaml"),
        "",
    ]
    return "\n\n".join(parts)


def study_section(name: str, measured: dict[str, str]) -> str:
    """The entry of a study; draws the sheet of its networks."""
    study = hrg.read_study(name)
    path = study_path(name)
    assert path is not None
    network = study.base()
    is_large = len(network.plan.calls) > DEEP or len(study.variants or ()) > MANY
    drawn = network.name if is_large else name
    options = "--level stages --no-counts --width double" + ("" if is_large else " --columns 1")
    parts = [
        f"## {name}",
        study.description,
        picture(drawn, options, f"study-{name}.svg", f"Diagram of {drawn}"),
        f"`hrg show {name}` lists its networks and runs; `hrg ablate {name} -o runs/{name}` trains them.",
        *(f"*With less computing*: {measured.pop(folder)}" for folder in RUN.get(name, ())),
        source(path, f"specs/studies/{name}.yaml"),
        "",
    ]
    return "\n\n".join(parts)


def measured_studies() -> dict[str, str]:
    """Folder in `results` -> its description, and its table as far as it was run."""
    study_page = runpy.run_path(str(RESULTS / "make.py"))["StudyPage"]
    found = {}
    for path in sorted(RESULTS.glob("*/study.yaml")):
        folder = path.parent
        study = hrg.read_study(str(path))
        table = study_page(folder).table() if (folder / "ledger.sqlite").exists() else "Not begun."
        command = f"`hrg ablate results/{folder.name}/study.yaml -o results/{folder.name}`"
        found[folder.name] = f"{study.description}\n\n{command}\n\n{table}"
    return found


def option_section(title: str, spec: str, options: list[str]) -> str:
    """The pictures of a kind of option."""
    stem = f"option-{title.lower().replace(' ', '-')}"
    pictures = [
        picture(spec, option, f"{stem}-{i}.svg", f"{title}: {option or 'without options'}", enlarged=False)
        for i, option in enumerate(options)
    ]
    return "\n\n".join([f"## {title}", *pictures, ""])


def main() -> None:
    """Draw all diagrams and write the pages."""
    FOLDER.mkdir(exist_ok=True)
    measured = measured_studies()
    studies = [study_section(name, measured) for name in study_names()]
    others = [f"## {folder}\n\n{text}\n" for folder, text in measured.items()]
    pages = {
        "options": [OPTIONS_HEAD, *(option_section(*option) for option in OPTIONS)],
        "studies": [STUDIES_HEAD, *studies, *others],
        "index": [HEAD, *map(spec_section, spec_names())],
    }
    for name, parts in pages.items():
        (FOLDER / f"{name}.md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
