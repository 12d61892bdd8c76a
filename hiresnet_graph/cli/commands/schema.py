"""`hrg schema`: the JSON Schema of specs."""

from __future__ import annotations

import json
from pathlib import Path

from hiresnet_graph.cli.arguments import OutputOrStdout
from hiresnet_graph.cli.console import write, write_message
from hiresnet_graph.cli.output import Force, check_output_file
from hiresnet_graph.errors import UsageError
from hiresnet_graph.files import write_atomic

SCHEMA_FILE = "hrg.schema.json"


def schema(output: OutputOrStdout = None, force: Force = False) -> None:
    """Print the JSON Schema of specs, for editors."""
    if output is None:
        from hiresnet_graph.spec.schema import schema as make_schema

        write(json.dumps(make_schema(), indent=2))
        return
    output = check_output_file(output, (), force=force, marks=(b'"title": "A network of hiresnet_graph"',))
    write_schema(output)
    write_message(f"Wrote {output}. The first line of a spec beside it: {schema_line(output.name).rstrip()}")


def write_schema(path: Path) -> None:
    """Write the JSON Schema to a file."""
    from hiresnet_graph.spec.schema import schema as make_schema

    write_atomic(path, (json.dumps(make_schema(), indent=1) + "\n").encode(), UsageError)


def schema_line(file: str = SCHEMA_FILE) -> str:
    """The first line of a spec, which names its schema for editors."""
    return f"# yaml-language-server: $schema={file}\n"
