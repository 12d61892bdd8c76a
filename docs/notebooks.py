"""Writes docs/notebooks: the scripts of examples/notebooks with what their cells print and draw.

python docs/notebooks.py

A notebook is a Python script in the percent format: `# %%` starts a cell of code, `# %% [markdown]` a cell of text in
comments. Jupytext, VS Code, PyCharm and Spyder open such scripts as notebooks.
"""

from __future__ import annotations

import ast
import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parents[1] / "examples" / "notebooks"
FOLDER = Path(__file__).parent / "notebooks"
HEAD = """# Notebooks

Scripts in the percent format, which Jupytext, VS Code, PyCharm and Spyder open as notebooks; executed when this page
was made.

"""


def cells(text: str) -> list[tuple[str, str]]:
    """Kind (`markdown` or `python`) and text of each cell."""
    found = []
    for part in text.split("# %%")[1:]:
        head, _, body = part.partition("\n")
        kind = "markdown" if "[markdown]" in head else "python"
        if kind == "markdown":
            body = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.splitlines())
        found.append((kind, body.strip()))
    return found


def evaluate(code: str, names: dict[str, Any]) -> tuple[str, Any]:
    """Run a cell; what it prints, and the value of its last expression."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names) if last is not None else None
    return printed.getvalue(), value


def picture(value: Any) -> str | None:
    """The SVG of a network or a chart; None of anything else."""
    if hasattr(value, "_repr_svg_"):
        return str(value._repr_svg_())
    if hasattr(value, "to_dict"):
        svg = io.StringIO()
        value.save(svg, format="svg")
        return svg.getvalue()
    return None


def page(script: Path, folder: Path) -> str:
    """The page of a notebook, whose pictures are written into a folder."""
    names: dict[str, Any] = {"__name__": "__main__"}
    parts = []
    title = ""
    for number, (kind, text) in enumerate(cells(script.read_text(encoding="utf-8"))):
        if kind == "markdown":
            title = title or text.splitlines()[0].removeprefix("# ")
            parts.append(text)
            continue
        printed, value = evaluate(text, names)
        parts.append(f"```python\n{text}\n```")
        if printed:
            parts.append(f"```text\n{printed.rstrip()}\n```")
        svg = picture(value)
        if svg is not None:
            name = f"{script.stem}-{number}{'-chart' if hasattr(value, 'to_dict') else ''}.svg"
            (folder / name).write_text(svg, encoding="utf-8")
            parts.append(f"![{title}: the value of this cell]({name})")
    source = f"The notebook is `examples/notebooks/{script.name}`."
    return "\n\n".join([parts[0], source, *parts[1:], ""])


def main() -> None:
    """Execute all notebooks and write their pages."""
    FOLDER.mkdir(exist_ok=True)
    scripts = sorted(SCRIPTS.glob("*.py"))
    for script in scripts:
        (FOLDER / f"{script.stem}.md").write_text(page(script, FOLDER), encoding="utf-8")
    pages = "\n".join(script.stem for script in scripts)
    (FOLDER / "index.md").write_text(f"{HEAD}```{{toctree}}\n{pages}\n```\n", encoding="utf-8")


if __name__ == "__main__":
    main()
