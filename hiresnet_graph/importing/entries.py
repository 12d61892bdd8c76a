"""Modules of one structure as one entry of `blocks`, with a param for each number that differs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hiresnet_graph.blocks import BLOCKS
from hiresnet_graph.importing.items import Item, walk
from hiresnet_graph.importing.primitives import Flat
from hiresnet_graph.importing.recognition import with_norms
from hiresnet_graph.importing.regions import Boundaries
from hiresnet_graph.importing.sections import SectionText, flow_lines, legal_name, own_defaults, section
from hiresnet_graph.ops import OPS


class Entries:
    """The entries of `blocks`, made of the items of a network.

    Attributes:
        blocks: Name -> entry.
        defaults: Name -> defaults of its params; and those of norms, with the fields that the file sets for all.
    """

    def __init__(self, flat: Flat, edges: Boundaries, items: Sequence[Item], norms: Mapping[str, float]) -> None:
        self.flat, self.edges = flat, edges
        self.blocks: dict[str, Any] = {}
        self.defaults: dict[str, dict[str, Any]] = {
            kind: with_norms(op.model_construct(), norms).model_dump()
            for kind, op in ((kind, OPS.get(kind)) for kind in OPS)
            if op.normalizes
        }
        groups: dict[int, dict[int, list[Item]]] = {}
        for item in walk(items):
            if item.inner is not None:
                groups.setdefault(_height(item), {}).setdefault(item.structure, []).append(item)
        for height in sorted(groups):
            for uses in groups[height].values():
                self._add(uses)

    def _add(self, uses: Sequence[Item]) -> None:
        by_form: dict[str, list[tuple[Item, SectionText]]] = {}
        for item in uses:
            assert item.inner is not None
            _project(item.inner, self.flat, self.edges)
            text = section(item.inner, {item.operands[0]: "input"}, [item.output], item.path, self.edges, self.defaults)
            by_form.setdefault(_form(text), []).append((item, text))
        for alike in by_form.values():
            self._make(alike)

    def _make(self, alike: Sequence[tuple[Item, SectionText]]) -> None:
        name = self._free_name(alike[0][0].kind)
        texts = [text for _, text in alike]
        widths = [self.flat.shape(item.operands[0]).channels for item, _ in alike]
        nodes, params = self._unified(texts, widths)
        entry: dict[str, Any] = {}
        defaults = {"stride": 1} if "stride" in params and 1 in params["stride"] else {}
        if params:
            entry["params"] = {param: defaults.get(param) for param in params}
        entry["nodes"] = {node: _short(fields) for node, fields in nodes.items()}
        flow = [list(chain) for chain in texts[0].flow]
        edges = []
        for number, (source, target, _) in enumerate(texts[0].projections):
            chosen = next((text.projections[number][2] for text in texts if text.projections[number][2]), None)
            if chosen:
                edges.append({"from": source, "to": target, "projection": chosen})
            else:
                flow.append([source, target])
        entry["flow"] = flow_lines(flow, "" if edges else "input")
        if edges:
            entry["edges"] = edges
        self.blocks[name], self.defaults[name] = entry, defaults
        for index, (item, text) in enumerate(alike):
            item.block = name
            item.fields = {param: values[index] for param, values in params.items()}
            item.tensors = text.tensors

    def _unified(
        self, texts: Sequence[SectionText], widths: Sequence[int]
    ) -> tuple[dict[str, dict[str, Any]], dict[str, list[Any]]]:
        """Nodes that serve all uses, and the params with their values for each use."""
        params: dict[str, list[Any]] = {}
        nodes: dict[str, dict[str, Any]] = {}
        for node, first in texts[0].nodes.items():
            own = own_defaults(first["block"], self.defaults) if "block" in first else {}
            fields: dict[str, Any] = {}
            for name in dict.fromkeys(name for text in texts for name in text.nodes[node]):
                values = [text.nodes[node].get(name, own.get(name)) for text in texts]
                if any(value != values[0] for value in values):
                    fields[name] = _template(values, widths, params, node, name)
                elif name not in own or values[0] != own[name]:
                    fields[name] = values[0]
            nodes[node] = fields
        return nodes, params

    def _free_name(self, kind: str) -> str:
        kind = kind.replace("NeXt", "Next")
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind).lower()
        name = legal_name(words)
        name = f"{name}_block" if name in BLOCKS or name in OPS else name
        number, unique = 1, name
        while unique in self.blocks:
            number += 1
            unique = f"{name}{number}"
        return unique


def _height(item: Item) -> int:
    return 1 + max((_height(one) for one in item.inner or () if one.inner is not None), default=0)


def _short(fields: Mapping[str, Any]) -> Any:
    return fields["block"] if set(fields) == {"block"} else dict(fields)


def _form(text: SectionText) -> str:
    """What texts of one entry have in common."""
    nodes = {
        name: (
            fields.get("block"),
            sorted(key for key in fields if key not in ("stride", "block")),
            fields.get("merge"),
        )
        for name, fields in text.nodes.items()
    }
    return repr((nodes, text.flow, [edge[:2] for edge in text.projections], text.outputs))


def _project(items: list[Item], flat: Flat, edges: Boundaries) -> None:
    """Put 1x1 convolutions with a batch norm that lead into a sum onto the edge, as its projection.

    A sum with a value that is not projected gets the same edge: its projection does nothing where shapes are equal.
    """
    by_output = {item.output: item for item in items}
    for merged in items:
        if merged.merge != "add" or len(merged.operands) != 2:
            continue
        inside = [operand for operand in merged.operands if operand in by_output]
        for operand in merged.operands:
            item = by_output.get(operand)
            if item is None:
                if len(inside) == 1:
                    merged.projections[operand] = ({}, {})
                    merged.operands = [inside[0], operand]
                break
            projection = _as_projection(item, flat, edges)
            if projection is not None and item.operands[0] not in by_output:
                other = next(one for one in merged.operands if one != operand)
                source = item.operands[0]
                merged.projections[source] = (projection, item.tensors)
                merged.operands = [other, source]
                merged.members |= item.members
                items.remove(item)
                break


def _as_projection(item: Item, flat: Flat, edges: Boundaries) -> dict[str, Any] | None:
    """The projection that an item computes, if it is one."""
    expected = {"kernel_size", "activation", "width", "stride", "bias"}
    fields = item.fields
    if (
        item.block != "conv"
        or fields.get("kernel_size") != 1
        or fields.get("activation") != "none"
        or set(fields) - expected
        or len(edges.readers.get(item.output, ())) != 1
        or flat.shape(item.operands[0]) == flat.shape(item.output)
        or any(
            "bias" in flat.primitives[index].stored and not flat.primitives[index].op.normalizes
            for index in item.members
        )
    ):
        return None
    return {"spatial": "stride"}


def _template(values: list[Any], widths: Sequence[int], params: dict[str, list[Any]], node: str, name: str) -> str:
    """A template that has the value of each use; adds a param if it needs one."""
    if values == list(widths):
        return "$in_width"
    for param, known in params.items():
        if known == values:
            return f"${param}"
    numbers = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
    if numbers and name in ("width", "groups", "hidden", "start"):
        for other, known in [("in_width", list(widths)), *params.items()]:
            factor = _factor(values, known)
            if factor:
                return f"$({factor.format(other)})"
    param = name if name not in params else f"{node}_{name}"
    number = 1
    while param in params or param in ("in_width", "i"):
        number += 1
        param = f"{node}_{name}{number}"
    params[param] = values
    return f"${param}"


def _factor(values: Sequence[int], known: Sequence[Any]) -> str:
    """How values are whole multiples, or whole parts, of others; empty if they are not."""
    if not all(isinstance(value, int) and not isinstance(value, bool) and value > 0 for value in known):
        return ""
    if all(value % base == 0 for value, base in zip(values, known, strict=True)):
        factors = {value // base for value, base in zip(values, known, strict=True)}
        return f"{factors.pop()} * {{}}" if len(factors) == 1 else ""
    factors = {base // value for value, base in zip(values, known, strict=True)}
    factor = factors.pop() if len(factors) == 1 else 0
    if factor > 1 and all(base // factor == value for value, base in zip(values, known, strict=True)):
        return f"{{}} // {factor}"
    return ""
