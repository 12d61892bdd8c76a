"""The JSON Schema of spec files, with which an editor completes and checks while one types.

It is made from the models and the registries, so that every block, operation, merge and projection is in it with its
fields and its documentation, those of installed packages included. It is more lenient than `validate`: what a file
extends, what a template gives and what a pattern names is known there alone.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema

from hiresnet_graph.blocks import BLOCKS
from hiresnet_graph.merges import MERGES
from hiresnet_graph.ops import OPS
from hiresnet_graph.projections import PROJECTIONS
from hiresnet_graph.registry import Kind, Registry
from hiresnet_graph.spec.model import (
    ArchitectureSpec,
    EdgeSpec,
    InputSpec,
    NodeSpec,
    NormsSpec,
    ScaleSpec,
    SectionSpec,
    SkipSpec,
    TimeSpec,
    TransitionSpec,
)

Schema = dict[str, Any]

_NAME = "^(?!.*__)[A-Za-z0-9_]+$"
_ADDRESS = r"^[A-Za-z0-9_*]+(\.[A-Za-z0-9_*]+)+$|\*"
_TEXTS: Schema = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


def schema() -> Schema:
    """The JSON Schema (2020-12) of a spec file.

    Every field may hold a template (a text with `$`), and every node may be of a block that the schema does not know.
    """
    root = _properties(ArchitectureSpec)
    root |= {
        "input": _or_template(_reference("input", root["input"])),
        "nodes": _reference("nodes", root["nodes"]),
        "flow": _either(root["flow"], "null"),
        "skips": _or_template(_reference("skips", root["skips"])),
        "edges": _or_template(_either({**root["edges"], "items": {"$ref": "#/$defs/edge"}}, "null")),
        "time": _or_template(_either({**root["time"], "$ref": "#/$defs/time"}, "null")),
        "norms": _or_template(_either({"description": root["norms"]["description"], **_mapping(NormsSpec)}, "null")),
        "transitions": _or_template(_either({**root["transitions"], "$ref": "#/$defs/transitions"}, "null")),
        "blocks": {**root["blocks"], "additionalProperties": {"$ref": "#/$defs/own_block"}, "propertyNames": _names()},
    }
    patch = {key: value for key, value in root.items() if key not in ("variants", "extends", "$schema")}
    patch["edges"] = {
        "description": "Single edges to add; or an edge set for the skips, like `skips.edges`.",
        "anyOf": [*_TEXTS["anyOf"], root["edges"]],
    }
    root["variants"] = {
        **{key: value for key, value in root["variants"].items() if key != "type"},
        "type": ["object", "null"],
        "additionalProperties": {"type": ["object", "null"], "properties": patch, "additionalProperties": False},
    }
    section = _properties(SectionSpec)
    section |= {key: root[key] for key in ("nodes", "flow", "skips", "edges", "transitions", "time")}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A network of hiresnet_graph",
        "type": "object",
        "properties": root,
        "additionalProperties": False,
        "if": {"required": ["extends"]},
        "else": {
            "required": ["name", "input", "nodes"],
            "properties": {"time": {"if": {"type": "object"}, "then": {"required": ["steps"]}}},
        },
        "$defs": _definitions(section),
    }


def _definitions(section: Mapping[str, Schema]) -> Schema:
    """What the schema refers to.

    Args:
        section: The keys of an entry of `blocks` with nodes.
    """
    kinds = {name: OPS.get(name) for name in OPS} | {name: BLOCKS.get(name) for name in BLOCKS}
    fields = {name: _fields(kind) for name, kind in kinds.items()}
    node_keys, edge_keys = _node_keys(), _connection(EdgeSpec)
    return {
        "template": {
            "description": "A template: `$name`, or `$(2 * width)` with arithmetic over `params`.",
            "type": "string",
            "pattern": r"\$",
        },
        "input": _input(),
        "nodes": {
            "type": "object",
            "patternProperties": {_NAME: {"$ref": "#/$defs/node"}, _ADDRESS: {"$ref": "#/$defs/patch"}},
            "additionalProperties": False,
        },
        "node": _node(kinds),
        "patch": _patch(fields),
        "edge": _edge(kinds),
        "skips": _skips(),
        "time": _mapping(TimeSpec),
        "transitions": _transitions(kinds),
        "skip_group": {"type": "object", "properties": _connection(SkipSpec), "additionalProperties": False},
        "own_block": {
            "description": "A block of this file: a kind with fields set, or a small network of its own.",
            "if": {"type": "object", "required": ["nodes"]},
            "then": {"type": "object", "properties": section, "additionalProperties": False},
            "else": {"$ref": "#/$defs/node"},
        },
        "merge": _choice(MERGES, "add"),
        "projection": _choice(PROJECTIONS, "standard"),
        **{f"kind.{name}": _kind(kinds[name], fields[name]) for name in kinds},
        "node_keys": {"properties": node_keys},
        "edge_keys": {"properties": edge_keys},
        **{f"node.{name}": _with_fields(node_keys, "node_keys", name, fields[name]) for name in kinds},
        **{f"edge.{name}": _with_fields(edge_keys, "edge_keys", name, fields[name]) for name in kinds},
    }


def _reference(definition: str, described: Schema) -> Schema:
    """A reference, with the description that stood in its place."""
    return {"description": described.get("description", ""), "$ref": f"#/$defs/{definition}"}


def _either(first: Schema, second: str) -> Schema:
    """A value of a schema, or of a type."""
    description = {"description": first["description"]} if "description" in first else {}
    rest = {key: value for key, value in first.items() if key not in ("description", "default")}
    options = rest["anyOf"] if set(rest) == {"anyOf"} else [rest]
    return {**description, "anyOf": [*options, {"type": second}]}


def _or_template(section: Schema) -> Schema:
    """A section, or a template that stands for all of it."""
    description = {key: value for key, value in section.items() if key == "description"}
    rest = {key: value for key, value in section.items() if key != "description"}
    options = rest["anyOf"] if set(rest) == {"anyOf"} else [rest]
    return {**description, "anyOf": [*options, {"$ref": "#/$defs/template"}]}


def _names() -> Schema:
    return {"pattern": _NAME}


# ------------------------------------------------------------------------------------------------------------- models


def _properties(model: type[BaseModel]) -> dict[str, Schema]:
    """The schemas of a model's fields, without the titles that pydantic makes up."""
    try:
        properties = model.model_json_schema()["properties"]
    except PydanticInvalidForJsonSchema:  # a field of some Python type, in a kind of another package
        properties = {field.alias or name: {} for name, field in model.model_fields.items()}
    return {name: _untitled(value) for name, value in properties.items()}


def _untitled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untitled(inner) for key, inner in value.items() if key != "title" or not isinstance(inner, str)}
    return [_untitled(inner) for inner in value] if isinstance(value, list) else value


def _fields(kind: type[Kind]) -> dict[str, Schema]:
    """The fields of a kind; each may be a template, and has what its documentation says."""
    meanings = documented(kind)
    found = {}
    for name, value in _properties(kind).items():
        field = _templated(value)
        field.setdefault("description", meanings.get(name, ""))
        if not field["description"]:
            del field["description"]
        found[name] = field
    return found


def documented(kind: type) -> dict[str, str]:
    """What the docstring of a class (and those of its bases) says of each attribute."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        lines = inspect.cleandoc(base.__dict__.get("__doc__") or "").splitlines()
        starts = [i for i, line in enumerate(lines) if line.rstrip().endswith("Attributes:")]
        names: list[str] = []
        for line in lines[starts[0] + 1 :] if starts else []:
            match = re.match(r" {4}(\w+(?:, \w+)*): (.*)", line)
            if match:
                names = match[1].split(", ")
                found |= dict.fromkeys(names, match[2])
            elif line.startswith(" " * 8):
                found |= {name: f"{found[name]} {line.strip()}" for name in names}
            elif line.strip():
                break
    return found


def _summary(kind: type) -> str:
    return (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ").removesuffix(" Attributes:")


def _templated(field: Schema) -> Schema:
    """A field that may hold a template in each of its places."""
    kept: Schema = {key: field[key] for key in ("description", "default") if key in field}
    return {**kept, "anyOf": [*_options(field), {"$ref": "#/$defs/template"}]}


def _options(field: Schema) -> Iterable[Schema]:
    if "anyOf" in field:
        for option in field["anyOf"]:
            yield from _options(option)
        return
    bare = {key: value for key, value in field.items() if key not in ("description", "default")}
    if bare.get("$ref", "").endswith("/Projection"):
        bare = {"$ref": "#/$defs/projection"}
    elif bare.get("$ref", "").endswith("/Merge"):
        bare = {"$ref": "#/$defs/merge"}
    elif "$ref" in bare:  # a model of another package's own, which is checked by `validate` alone
        bare = {}
    for key in ("items", "additionalProperties"):
        if isinstance(bare.get(key), dict):
            bare[key] = _templated(bare[key])
    if "prefixItems" in bare:
        bare["prefixItems"] = [_templated(item) for item in bare["prefixItems"]]
    yield bare


# -------------------------------------------------------------------------------------------------------------- kinds


def _kind(kind: type[Kind], fields: Mapping[str, Schema]) -> Schema:
    return {"description": _summary(kind), "type": "object", "properties": dict(fields)}


def _named(kinds: Mapping[str, type], other: str) -> Schema:
    """The name of a kind: those that are registered with what they are, a template, or another name."""
    known = [{"const": name, "description": _summary(kind)} for name, kind in kinds.items()]
    return {"anyOf": [*known, {"$ref": "#/$defs/template"}, {"type": "string", "description": other}]}


def _with_fields(keys: Iterable[str], keys_at: str, kind: str, fields: Iterable[str]) -> Schema:
    """A node or an edge of one kind: the fields of the kind, and its own keys."""
    own = {name: {"$ref": f"#/$defs/kind.{kind}/properties/{name}"} for name in fields}
    common = {name: {"$ref": f"#/$defs/{keys_at}/properties/{name}"} for name in keys}
    return {"properties": {**own, **common}, "additionalProperties": False}


def _if_block(level: str, kinds: Iterable[str]) -> list[Schema]:
    return [
        {
            "if": {"required": ["block"], "properties": {"block": {"const": name}}},
            "then": {"$ref": f"#/$defs/{level}.{name}"},
        }
        for name in kinds
    ]


def _choice(registry: Registry[Any], default: str) -> Schema:
    """A kind by its name alone, or as a mapping with `kind` and fields."""
    kinds = {name: registry.get(name) for name in registry}
    name = _named(kinds, f"Another {registry.family}.")
    branches = []
    for known, kind in kinds.items():
        chosen: Schema = {"required": ["kind"], "properties": {"kind": {"const": known}}}
        if known == default:
            chosen = {"anyOf": [{"not": {"required": ["kind"]}}, chosen]}
        properties = {"kind": {}, **_fields(kind)}
        branches.append({"if": chosen, "then": {"properties": properties, "additionalProperties": False}})
    mapping = {"type": "object", "properties": {"kind": name}, "allOf": branches}
    return {"anyOf": [*name["anyOf"], mapping]}


# ----------------------------------------------------------------------------------------------------- parts of a spec


def _input() -> Schema:
    sizes = {name: _templated(field) for name, field in _properties(InputSpec).items()}
    one: Schema = {"type": "object", "properties": sizes, "additionalProperties": False}
    return {
        "type": "object",
        "properties": {name: {"description": field.get("description", "")} for name, field in sizes.items()},
        "if": {"anyOf": [{"properties": {name: {"type": ["number", "string"]}}, "required": [name]} for name in sizes]},
        "then": one,
        "else": {"additionalProperties": one, "propertyNames": _names()},
    }


def _node_keys() -> dict[str, Schema]:
    keys = {name: _templated(field) for name, field in _properties(NodeSpec).items()}
    keys["block"] = {"description": _properties(NodeSpec)["block"]["description"]}
    keys["merge"] = _reference("merge", keys["merge"])
    return keys


def _node(kinds: Mapping[str, type]) -> Schema:
    name = _named(kinds, "An entry of `blocks`, or a block of another package.")
    keys = {**_node_keys(), "block": {**_node_keys()["block"], **name}}
    mapping = {"type": "object", "properties": keys, "allOf": _if_block("node", kinds)}
    return {
        "description": "A block with its fields, or its name alone.",
        "anyOf": [*name["anyOf"], mapping, {"type": "null"}],
    }


def _patch(fields: Mapping[str, Mapping[str, Schema]]) -> Schema:
    """A patch of a block or of a part of one: any field of any kind."""
    options: dict[str, list[Schema]] = {}
    for own in fields.values():
        for name, field in own.items():
            for option in field["anyOf"]:
                if option not in options.setdefault(name, []):
                    options[name].append(option)
    properties: dict[str, Schema] = {}
    for name, schemas in options.items():
        null = [] if {"type": "null"} in schemas else [{"type": "null"}]
        properties[name] = {"anyOf": [*schemas, *null]}
    return {
        "description": "Changes of one block of a stage (`stage2.block1`), of several (`stage*.block1`), or of a part.",
        "type": ["object", "null"],
        "properties": {**properties, "merge": {"$ref": "#/$defs/merge"}},
    }


def _connection(model: type[BaseModel]) -> dict[str, Schema]:
    keys = {name: _templated(field) for name, field in _properties(model).items()}
    keys["merge"] = _reference("merge", keys["merge"])
    keys["projection"] = _reference("projection", keys["projection"])
    fields = {name: _templated(field) for name, field in _properties(ScaleSpec).items()}
    full: Schema = {"type": "object", "properties": fields, "additionalProperties": False}
    keys["scale"]["anyOf"] = [option or full for option in keys["scale"]["anyOf"]]
    return keys


def _skips() -> Schema:
    group = {"$ref": "#/$defs/skip_group"}
    is_group = {"anyOf": [{"required": [key]} for key in _connection(SkipSpec)]}
    named = {"type": ["object", "null"], "additionalProperties": {"anyOf": [group, {"type": "null"}]}}
    named["propertyNames"] = _names()
    # The keys of a group are listed here too: an editor completes what stands outside of `then`.
    keys = {key: {"description": field.get("description", "")} for key, field in _connection(SkipSpec).items()}
    return {"if": {"type": "object", **is_group}, "then": group, "else": named, "properties": keys}


def _edge(kinds: Mapping[str, type]) -> Schema:
    keys = _connection(EdgeSpec)
    block = _named(kinds, "An entry of `blocks`, or a block of another package.")
    with_block = {**keys, "block": {"description": keys["block"]["description"], **block}}
    return {
        "type": "object",
        "required": ["from", "to"],
        "properties": with_block,
        "if": {"required": ["block"]},
        "then": {"allOf": _if_block("edge", kinds)},
        "else": {"properties": {name: {} for name in keys}, "additionalProperties": False},
    }


def _mapping(model: type[BaseModel]) -> Schema:
    """A mapping with the keys of a model, each of which may be a template."""
    keys = {name: _templated(field) for name, field in _properties(model).items()}
    return {"type": ["object", "null"], "properties": keys, "additionalProperties": False}


def _transitions(kinds: Mapping[str, type]) -> Schema:
    """Rows of columns of entries, and beside the rows the key `edges`."""
    keys = _connection(TransitionSpec)
    block = _named(kinds, "An entry of `blocks`, or a block of another package.")
    mapping = {
        "type": "object",
        "properties": {**keys, "block": {"description": keys["block"]["description"], **block}},
        "if": {"required": ["block"]},
        "then": {"allOf": _if_block("edge", kinds)},
        "else": {"properties": {name: {} for name in keys}, "additionalProperties": False},
    }
    entry: Schema = {"anyOf": [*block["anyOf"], mapping, {"type": "null"}]}
    columns = {"anyOf": [entry, {"type": "array", "items": entry}]}
    rows = {"type": ["object", "null"], "additionalProperties": columns}
    edges = {"description": "Selected entries: an edge set over the nodes of the matrix.", **_TEXTS}
    return {"type": ["object", "null"], "properties": {"edges": edges}, "additionalProperties": rows}
