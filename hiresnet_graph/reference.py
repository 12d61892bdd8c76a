"""Writes the reference pages of the documentation from the code: `python -m hiresnet_graph.reference docs/reference`.

What a key, a field, a command or a function means is said once, where it is defined; these pages only put it in order.
Kinds of other packages are left out.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import typer
from pydantic import BaseModel

from hiresnet_graph import load
from hiresnet_graph.blocks import BLOCKS, Block
from hiresnet_graph.cli.app import app
from hiresnet_graph.data import DATASETS
from hiresnet_graph.merges import MERGES
from hiresnet_graph.ops import OPS, Op
from hiresnet_graph.passes.names import RESERVED
from hiresnet_graph.projections import PROJECTIONS
from hiresnet_graph.registry import Kind, Registry
from hiresnet_graph.shipped import spec_names, spec_path
from hiresnet_graph.spec import edge_set, template
from hiresnet_graph.spec.model import (
    ArchitectureSpec,
    EdgeSpec,
    InputSpec,
    NodeSpec,
    SectionSpec,
    SkipSpec,
    TimeSpec,
    TransitionSpec,
)
from hiresnet_graph.spec.schema import documented
from hiresnet_graph.spec.source import to_yaml

_COMMAND = "python -m hiresnet_graph.reference docs/reference"
_PACKAGE = "hiresnet_graph"
_MAP_AND_VECTOR = "`CxHxW` is a feature map of C channels, a single number the length of a vector."


def pages() -> dict[str, str]:
    """Every page: name of its file -> text in Markdown."""
    made = {
        "spec-keys.md": _spec_keys(),
        "grammar.md": _grammar(),
        "blocks.md": _kinds(
            "Blocks",
            "What a node can be (`block: NAME`), with the fields that stand beside it. Any [operation](operations.md) "
            "is a block, too.",
            BLOCKS,
        ),
        "operations.md": _kinds(
            "Operations",
            "The primitives of which everything else is made. Each can be used as a block.",
            OPS,
        ),
        "merges.md": _kinds(
            "Merges",
            "How the values that arrive at one slot become one: `merge: NAME`, or a mapping with `kind` and fields.",
            MERGES,
        ),
        "projections.md": _kinds(
            "Projections",
            "How an edge brings its source to the shape that is wanted: `projection: NAME`, or a mapping of fields "
            "(`kind` is `standard` unless told). Skips have `standard`, other edges `identity`.",
            PROJECTIONS,
        ),
        "datasets.md": _kinds(
            "Data sets",
            "What `--data` can name: `NAME`, or with fields `NAME:FIELD=VALUE,FIELD=VALUE`; in a study file also a "
            "mapping like `{kind: NAME, FIELD: VALUE}`. The file of `npz` and the folder of `imagefolder` stand right "
            "behind the colon: `npz:FILE`, `imagefolder:DIR,size=32`. [How to use them](../how-to.md#use-a-data-set).",
            DATASETS,
        ),
        "specs.md": _specs(),
        "cli.md": _cli(),
        "python.md": _python(),
    }
    titles = {name: text.splitlines()[2].removeprefix("# ") for name, text in made.items()}
    index = [
        _head("Reference", "The pages of this folder are written by one command from the code:"),
        f"\n```bash\n{_COMMAND}\n```\n",
        *(f"- [{title}]({name})" for name, title in titles.items()),
        "\nThe language as a whole, with examples, is in [the spec language](../spec-language.md).\n",
    ]
    return {"README.md": "\n".join(index), **made}


def write(folder: Path) -> list[Path]:
    """Write the pages into a folder, and remove pages that are no longer made."""
    folder.mkdir(parents=True, exist_ok=True)
    made = pages()
    for path in folder.glob("*.md"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in made]


def _head(title: str, text: str) -> str:
    return f"<!-- Written by `{_COMMAND}`: change the code, not this page. -->\n\n# {title}\n\n{text}"


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


# --------------------------------------------------------------------------------------------------------- spec keys


def _spec_keys() -> str:
    models: list[tuple[str, str, type[BaseModel], str]] = [
        ("The file", "", ArchitectureSpec, ""),
        ("`input`", "", InputSpec, "Several inputs: a mapping of names to these. `channels` alone is a vector."),
        ("A node", "", NodeSpec, "The fields of the block stand beside these keys. `stem: relu` is `{block: relu}`."),
        ("`skips`", "", SkipSpec, "One group with these keys, or a mapping of names to groups."),
        ("An entry of `edges`", "", EdgeSpec, "With `block`, the fields of the block stand beside these keys."),
        ("An entry of `transitions`", "", TransitionSpec, "The name of a block alone is short for `{block: NAME}`."),
        ("`time`", "", TimeSpec, ""),
        (
            "An entry of `blocks` that is a small network",
            "",
            SectionSpec,
            "It has one `input` and one end; `$in_width` is the number of channels of its input. An entry with `block` "
            "instead of `nodes` is a kind with some fields set.",
        ),
    ]
    parts = [_head("Keys of a spec", "Unknown keys are errors. Every value may be a [template](grammar.md#templates).")]
    for title, _, model, remark in models:
        parts += [f"\n## {title}\n", (inspect.getdoc(model) or "") + (f" {remark}" if remark else ""), ""]
        parts.append(_table(("key", "value", "default", "meaning"), _model_rows(model)))
    return "\n".join([*parts, ""])


def _model_rows(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        key = field.alias or name
        required = field.is_required()
        default = "required" if required else _value(field.get_default(call_default_factory=True))
        yield f"`{key}`", _type(properties[key]), default, field.description or ""


def _value(value: Any) -> str:
    """A default as it is written in a spec."""
    if isinstance(value, Kind):
        fields = {name: item for name, item in value.model_dump().items() if item is not None}
        return f"`{{{', '.join(f'{name}: {_plain(item)}' for name, item in fields.items())}}}`"
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value == "":
        return '""'
    return str(value)


def _type(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(option) for option in schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(f"`{_plain(value)}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{_plain(schema['const'])}`"
    if "$ref" in schema:
        return f"a {schema['$ref'].rsplit('/', 1)[-1].lower()}"
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return _range("whole number" if kind == "integer" else "number", schema)
    if kind == "array":
        if "prefixItems" in schema:
            return "two values" if len(schema["prefixItems"]) == 2 else f"{len(schema['prefixItems'])} values"
        return f"list of {_several(_type(schema.get('items', {})))}"
    words = {"string": "text", "boolean": "`true`, `false`", "null": "`null`", "object": "mapping"}
    return words.get(str(kind), "any value")


def _several(noun: str) -> str:
    return re.sub(r"\b(number|text|mapping|value)\b", r"\1s", noun)


def _range(noun: str, schema: Mapping[str, Any]) -> str:
    bounds = [
        (" from {}", "minimum"),
        (" above {}", "exclusiveMinimum"),
        (" to {}", "maximum"),
        (" below {}", "exclusiveMaximum"),
    ]
    # A million is "any size": it only keeps a slip of the finger from asking for all memory.
    given = [words.format(f"{schema[key]:g}") for words, key in bounds if schema.get(key) not in (None, 1_000_000)]
    return noun + "".join(given)


# ------------------------------------------------------------------------------------------------------------- kinds


def _own(registry: Registry[Any]) -> dict[str, type[Kind]]:
    """The kinds of a family that this package defines."""
    kinds = {name: registry.get(name) for name in registry}
    return {name: kind for name, kind in kinds.items() if kind.__module__.split(".")[0] == _PACKAGE}


def _kinds(title: str, text: str, registry: Registry[Any]) -> str:
    kinds = _own(registry)
    parts = [_head(title, text), "\n" + " · ".join(f"[`{name}`](#{name})" for name in kinds)]
    for name, kind in kinds.items():
        parts.append(f"\n## `{name}`\n\n{_told(kind)}")
        if issubclass(kind, Block):
            parts.append(f"\n{_first_line(kind.expand)} Slots: {', '.join(f'`{slot}`' for slot in kind.slots)}.")
        if issubclass(kind, Op):
            parts.append(f"\nOutput: {_first_line(kind.shape)[:1].lower()}{_first_line(kind.shape)[1:]}")
        rows = list(_field_rows(kind))
        if rows:
            parts.append("\n" + _table(("field", "value", "default", "meaning"), rows))
    return "\n".join(parts) + "\n"


def _first_line(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")


def _told(kind: type) -> str:
    """The docstring of a kind, without what it says of single fields."""
    text = inspect.getdoc(kind) or ""
    text = re.sub(r"(?m)^(.*?) ?(?:Class attributes|Attributes):\n(?: {4}.*\n?)+", r"\1\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


# What fields mean that are called alike everywhere, and that a kind has nothing to add to.
_COMMON = {
    "activation": "The activation.",
    "bias": "Whether a bias is added.",
    "classes": "Number of logits.",
    "dilation": "Pixels from one tap of the kernel to the next.",
    "dropout": "Probability of dropping a value in train mode.",
    "eps": "Added to the variance.",
    "groups": "Groups of channels that do not see each other.",
    "kernel_size": "Height and width of the kernel.",
    "momentum": "Share of the newest batch in the running statistics.",
    "norm": "The norm.",
    "p": "Probability of dropping a value in train mode.",
    "padding": "Zeros at each border.",
    "scale": "The factor.",
    "size": "Height and width of the output.",
    "stride": "Pixels from one window to the next.",
    "width": "Output channels.",
}


def _field_rows(kind: type[Kind]) -> Iterator[tuple[str, ...]]:
    properties, told = kind.model_json_schema().get("properties", {}), documented(kind)
    for name, field in kind.model_fields.items():
        if name in properties:
            default = "required" if field.is_required() else _value(field.get_default(call_default_factory=True))
            yield f"`{name}`", _type(properties[name]), default, told.get(name, _COMMON.get(name, ""))


# ----------------------------------------------------------------------------------------------------------- grammar


def _grammar() -> str:
    grammar = inspect.getdoc(edge_set) or ""
    rules = "\n".join(line[4:] for line in grammar.splitlines() if line.startswith("    "))
    functions = [
        (f"`{name}`", f"{least}" if least == most else f"{least} to {most}")
        for name, (_, least, most) in template.FUNCTIONS.items()
    ]
    sets = [
        ("`none`", "no edge"),
        ("`full`", "every xi > xj with i < j"),
        ("`in`", "every edge from x0"),
        ("`out`", "every edge into xL"),
        ("`p1`, `p2`, ...", "every edge over exactly so many levels: xi > x(i+k)"),
        ("`all`", "every xi > xj, i and j alike or not: for `transitions`"),
        ("`forward`, `feedback`, `lateral`", "of these, those to a later level, to an earlier one, and to itself"),
        ("`adjacent`, `bypass`", "those to itself and the two levels next to it, and those farther than that"),
        ("`stem>stage2`", "one edge, between any two nodes; a pattern (`stem>stage*`) stands for several"),
        ("`A + B`", "union; a list of texts is one, too"),
        ("`A - B`", "difference"),
        ("`A & B`", "intersection; binds tighter than `+` and `-`"),
        ("`( )`", "brackets"),
    ]
    addresses = [
        ("`stage2`", "a node; a stage is its last block as a source, and as a target its first (slot `input`) or last"),
        ("`stage2.block1`", "the first block of a stage"),
        ("`stage2.block1.conv2`", "a part of a block, as a source of an edge or in a patch"),
        ("`stage*.block1`", "a pattern: `*` stands for any characters between two dots"),
        ("`stages`, `blocks`", "in `levels`: all nodes with `depth`, or all their blocks"),
    ]
    names = ", ".join(f"`{name}`" for name in sorted(RESERVED))
    return "\n".join(
        [
            _head("Edge sets, addresses, templates", "The small languages inside the texts of a spec."),
            "\n## Edge sets\n",
            "In `skips.edges`, in `transitions.edges`, in `--edges` and in Python. Levels x0 ... xL of skips are those "
            "of `levels`, in flow order; those of transitions are the nodes of the matrix, in the order of `nodes`, "
            "and a set chooses among its entries.\n",
            f"```text\n{rules}\n```\n",
            _table(("set", "edges"), sets),
            "\nA part that selects nothing is an error, unless it is `none`.\n",
            "## Addresses\n",
            _table(("address", "means"), addresses),
            f"\nNames have letters, digits and `_`, a letter first, no `__`. Reserved: {names}; and the words that are "
            "attributes of every torch module (`train`, `forward`, `type`, ...) or keywords of Python.\n",
            "## Templates\n",
            "`$name` and `$(expression)` in any text of a spec. A text that is one template has the type of its value; "
            "in a longer text the value is written out. `$$` is a `$`.\n",
            f"An expression has numbers, texts, names, {_operators()}, `and`, `or`, `not`, `a if c else b`, `x[i]`, "
            "lists, and these functions:\n",
            _table(("function", "arguments"), functions),
            "\nNames: the `params` of the file (or of the block); in the fields of a stage also `i`, the index of the "
            "block from 0; inside a block of `blocks` its own params and `in_width`. Quotes are needed inside `{}` "
            'where the expression has a comma, a bracket `[` or a colon: `depth: "$(depths[0])"`.\n',
            f"Limits: {template.MAX_EXPRESSION:,} characters, {template.MAX_NESTING} levels of nesting, whole numbers "
            f"up to {template.MAX_INT:,}. Nothing is ever passed to `eval`.\n",
        ]
    )


def _operators() -> str:
    return " ".join(
        f"`{sign}`" for sign in ("+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in")
    )


# ------------------------------------------------------------------------------------------------------ shipped specs


def _specs() -> str:
    parts = [
        _head(
            "Shipped specs",
            "Each can be named wherever a command or `hrg.load` wants a spec. Parameters and MACs are those of the "
            f"file as it is, without a variant. {_MAP_AND_VECTOR}",
        ),
        "",
    ]
    rows = []
    for name in spec_names():
        network = load(name)
        cost, plan = network.cost(), network.plan
        rows.append(
            (
                f"[`{name}`](#{name})",
                " ".join(str(shape) for shape in plan.inputs.values()),
                f"{cost.parameters:,}",
                f"{cost.macs:,}",
            )
        )
    parts.append(_table(("spec", "input", "parameters", "MACs"), rows))
    for name in spec_names():
        path = spec_path(name)
        assert path is not None
        text = path.read_text(encoding="utf-8")
        header = [line.removeprefix("#").removeprefix(" ") for line in text.splitlines() if line.startswith("#")]
        tree = load(name).tree
        params = to_yaml(tree["params"]).strip() if tree.get("params") else ""
        parts += [f"\n## `{name}`\n", str(tree.get("description", "")), f"\n```text\n{chr(10).join(header)}\n```"]
        if params:
            parts.append(f"\nParams:\n\n```text\n{params}\n```")
        if tree.get("variants"):
            parts.append(f"\nVariants: {', '.join(f'`{variant}`' for variant in tree['variants'])}.")
    return "\n".join(parts) + "\n"


# ------------------------------------------------------------------------------------------------------- command line


def _cli() -> str:
    group: Any = typer.main.get_command(app)
    settings = {"terminal_width": 100, "max_content_width": 100, "help_option_names": ["-h", "--help"]}
    context = group.context_class(group, info_name="hrg", **settings)
    parts = [
        _head("Command line", "`hrg COMMAND --help` prints the same."),
        f"\n```text\n{group.get_help(context)}\n```",
        "\nExit codes: 0 all is well; 1 mistakes were found, or a run failed; 2 wrong usage; 3 an optional tool is "
        "missing; 130 interrupted. Results go to stdout, messages for people to stderr.",
    ]

    def tell(group: Any, context: Any) -> None:
        for name, command in group.commands.items():
            inner = command.context_class(command, info_name=name, parent=context, **settings)
            parts.append(f"\n## `{inner.command_path}`\n\n```text\n{command.get_help(inner)}\n```")
            if hasattr(command, "commands"):
                tell(command, inner)

    tell(group, context)
    return "\n".join(parts) + "\n"


# -------------------------------------------------------------------------------------------------------- Python API

# Module -> a remark, and the names to tell of; without names, those of its `__all__`.
_MODULES: dict[str, tuple[str, tuple[str, ...]]] = {
    "hiresnet_graph": ("Import it as `hrg`.", ()),
    "hiresnet_graph.matching": ("", ("Adjusted",)),
    "hiresnet_graph.plan": ("", ("Plan", "Call")),
    "hiresnet_graph.cost": ("", ("Cost", "count", "count_parts")),
    "hiresnet_graph.shapes": ("", ("Map", "Vector", "Clip", "Series")),
    "hiresnet_graph.passes.timing": ("", ("Timing",)),
    "hiresnet_graph.lower": ("Networks in time, as `Architecture.build` gives them.", ("Recurrent", "State")),
    "hiresnet_graph.render": ("", ()),
    "hiresnet_graph.interop": ("", ()),
    "hiresnet_graph.data": ("", ()),
    "hiresnet_graph.train": ("", ()),
    "hiresnet_graph.stack": ("", ()),
    "hiresnet_graph.sweep": ("", ()),
    "hiresnet_graph.report": ("", ()),
    "hiresnet_graph.registry": ("For kinds of your own.", ("Registry", "load_plugins")),
    "hiresnet_graph.blocks.base": ("For blocks of your own, with `BLOCKS.register`.", ("Block",)),
    "hiresnet_graph.merges.base": ("For merges of your own, with `MERGES.register`.", ("Merge",)),
    "hiresnet_graph.projections.base": (
        "For projections of your own, with `PROJECTIONS.register`.",
        ("Projection",),
    ),
    "hiresnet_graph.wire": ("What blocks, merges and projections are written in.", ("Wire",)),
    "hiresnet_graph.ops.base": (
        "For operations of your own, with `OPS.register`.",
        ("Op", "Tensor", "Layer", "Apply", "Arg", "Weight"),
    ),
    "hiresnet_graph.errors": (
        "",
        ("SpecError", "RegistryError", "UsageError", "RunError", "MissingToolError", "Problem", "Position"),
    ),
}


def _python() -> str:
    parts = [_head("Python", "Every public module, with what it offers.")]
    told: set[int] = set()
    for name, (remark, names) in _MODULES.items():
        module = importlib.import_module(name)
        summary = (inspect.getdoc(module) or "").split("\n\n")[0].replace("\n", " ")
        parts.append(f"\n## `{name}`\n\n{f'{summary} {remark}'.strip()}")
        for item in names or module.__all__:
            value = getattr(module, item)
            if id(value) not in told:
                told.add(id(value))
                parts.append(_item(item, value, told))
    return "\n".join(parts) + "\n"


def _item(name: str, value: Any, told: set[int]) -> str:
    if inspect.isclass(value):
        lines = [f"\n### class `{name}`\n\n{_sections(_told_class(value))}"]
        for member, function in _methods(value, told):
            lines.append(f"\n**`{_signature(member, function)}`** {_sections(inspect.getdoc(function) or '')}")
        return "\n".join(lines)
    if inspect.isfunction(value):
        return f"\n### `{_signature(name, value)}`\n\n{_sections(inspect.getdoc(value) or '')}"
    if isinstance(value, Registry):
        return f"\n### `{name}`\n\nThe table of the kinds of {value.family}, a `Registry`."
    members = get_args(value) or tuple(value)
    return f"\n### `{name}`\n\n{', '.join(f'`{member}`' for member in members)}."


def _told_class(value: type) -> str:
    """The docstring that a class has itself; pydantic, enum and NamedTuple make up one of their own."""
    text = inspect.cleandoc(value.__dict__.get("__doc__") or "")
    return "" if text.startswith(f"{value.__name__}(") else text


def _methods(value: type, told: set[int]) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that this package defines; those of a base only where they are told first."""
    if issubclass(value, Enum | BaseException):
        return
    seen: set[str] = set()
    for base in value.__mro__:
        if base.__module__.split(".")[0] != _PACKAGE:
            continue
        for name, member in list(vars(base).items()):
            function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            function = getattr(function, "func", None) or getattr(function, "fget", None) or function
            if name.startswith("_") or name in seen or not inspect.isfunction(function) or not function.__doc__:
                continue
            seen.add(name)
            if id(function) in told:
                continue
            told.add(id(function))
            is_value = isinstance(member, property) or type(member).__name__ == "cached_property"
            yield name, _Property(function) if is_value else function


class _Property:
    """A function that is read like a value."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__doc__ = function.__doc__


def _signature(name: str, function: Any) -> str:
    if isinstance(function, _Property):
        returned = inspect.signature(function.function).return_annotation
        return name if returned is inspect.Signature.empty else f"{name}: {returned}"
    shown, star = [], False
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            shown.append("*")
            star = True
        mark = "*" * (parameter.kind == parameter.VAR_POSITIONAL) + "**" * (parameter.kind == parameter.VAR_KEYWORD)
        star = star or parameter.kind is parameter.VAR_POSITIONAL
        text = mark + parameter.name
        if parameter.annotation is not parameter.empty:
            text += f": {parameter.annotation}"
        if parameter.default is not parameter.empty:
            default = parameter.default
            text += f" = {default.__name__ if inspect.isfunction(default) else repr(default)}"
        shown.append(text)
    returned = signature.return_annotation
    arrow = "" if returned is signature.empty else f" -> {returned}"
    return f"{name}({', '.join(shown)}){arrow}"


_SECTION = re.compile(r"(Args|Attributes|Class attributes|Raises|Returns|Yields):$")


def _sections(text: str) -> str:
    """A docstring as Markdown: sections (`Args:`, `Raises:`, ...) as lists, other indented lines as they are."""
    out: list[str] = []
    mode = ""
    for line in text.splitlines():
        indented = line.startswith("    ")
        if mode == "text" and line and not indented:
            while not out[-1]:
                out.pop()
            out += ["```", ""]
        if line and not indented:
            mode = ""
        match = _SECTION.search(line) if not indented else None
        if match:
            before = line[: match.start()].strip()
            out += [*([before] if before else []), *([""] if before or (out and out[-1]) else []), f"{match[1]}:", ""]
            mode = "section"
        elif mode == "section" and line.startswith("        "):
            out[-1] += f" {line.strip()}"
        elif mode == "section" and indented:
            out.append(f"- {_item_line(line.strip())}")
        elif indented:
            out += ["```text"] if mode != "text" else []
            mode = "text"
            out.append(line[4:])
        else:
            out += [""] if line and out and out[-1].startswith("- ") else []
            out.append(line)
    return "\n".join([*out, "```"] if mode == "text" else out).strip()


def _item_line(text: str) -> str:
    name, colon, rest = text.partition(": ")
    return f"`{name}`: {rest}" if colon and re.fullmatch(r"[\w, *`./-]+", name) else text


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {_COMMAND}")
    for written in write(Path(sys.argv[1])):
        print(written)
