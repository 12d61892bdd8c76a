"""`hrg schema`: the JSON Schema of specs and studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from hiresnet_graph.cli.arguments import OutputOrStdout
from hiresnet_graph.cli.console import write, write_message
from hiresnet_graph.cli.output import Force, check_output_file
from hiresnet_graph.errors import UsageError
from hiresnet_graph.files import write_atomic

SCHEMA_FILE = "hrg.schema.json"


def schema(
    output: OutputOrStdout = None,
    study: Annotated[bool, typer.Option("--study", help="The schema of study files instead.")] = False,
    force: Force = False,
) -> None:
    """Print the JSON Schema of specs, for editors."""
    if output is None:
        write(json.dumps(_schema(study), indent=2))
        return
    marks = (b'"title": "A study of hiresnet_graph"',) if study else (b'"title": "A network of hiresnet_graph"',)
    output = check_output_file(output, (), force=force, marks=marks)
    write_schema(output, study=study)
    what = "study" if study else "spec"
    write_message(f"Wrote {output}. The first line of a {what} beside it: {schema_line(output.name).rstrip()}")


def _schema(study: bool) -> dict[str, Any]:
    from hiresnet_graph.spec.schema import schema as spec_schema
    from hiresnet_graph.sweep.study_schema import study_schema

    return study_schema() if study else spec_schema()


def write_schema(path: Path, *, study: bool = False) -> None:
    """Write the JSON Schema of specs or studies to a file."""
    write_atomic(path, (json.dumps(_schema(study), indent=1) + "\n").encode(), UsageError)


def schema_line(file: str = SCHEMA_FILE) -> str:
    """The first line of a spec, which names its schema for editors."""
    return f"# yaml-language-server: $schema={file}\n"
