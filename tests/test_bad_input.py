"""Every kind of error in a spec: position, message and hint. `«` marks each position in a text."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import SpecError
from hiresnet_graph.spec.reader import MAX_BYTES

MARK = "«"
BASE = """\
name: net
params: {width: 4}
input: {channels: 3, height: 8, width: 8}
nodes:
  a: {block: conv, width: $width}
  b: {block: basic, width: 8, stride: 2}
  head: {block: classifier, classes: 2}
flow: a -> b -> head
"""
CELL = "blocks:\n  cell:\n    params: {w: , v: 2}\n    nodes: {x: {block: conv, width: $w}}\n"


def changed(text: str, changes: Iterable[str]) -> str:
    """A text with each `old => new`."""
    for change in changes:
        old, new = change.split(" => ")
        assert text.count(old) == 1, f"'{old}' is there {text.count(old)} times"
        text = text.replace(old, new)
    return text


def but(*changes: str, more: str = "") -> str:
    """The base with each `old => new`, and lines added at its end."""
    return changed(BASE, changes) + more


def with_block(entry: str, *changes: str, use: str = "{block: cell}") -> str:
    """The base with an entry of `blocks`, used by node b."""
    return but("nodes:\n => " + entry + "nodes:\n", "{block: basic, width: 8, stride: 2} => " + use, *changes)


TIMED = """\
name: net
input: {channels: 2, height: 8, width: 8}
nodes:
  pre: {block: conv, width: 4}
  s1: {block: state, shape: [4, 8, 8]}
  s2: {block: state, shape: [6, 4, 4]}
  post: {block: classifier, classes: 3}
flow: [pre -> s1, s2 -> post]
transitions:
  s1: {s1: {block: brc2, identity: true}, s2: brc2}
  s2: {s1: brd2, s2: brc2}
time: {steps: 5, input: first}
"""


def timed(*changes: str, more: str = "") -> str:
    """A network in time with each `old => new`, and lines added at its end."""
    return changed(TIMED, changes) + more


def loop(time: str) -> str:
    """The base with a block that has this time, used by node b."""
    return with_block(
        "blocks:\n  cell:\n    nodes: {x: relu}\n    edges: [{from: x, to: x, delay: 1}]\n    time: " + time + "\n"
    )


class Case(NamedTuple):
    """A text with marks, and for each mark, in their order, words that its line must contain."""

    text: str
    words: tuple[tuple[str, ...], ...]


def case(text: str, *words: str) -> Case:
    """For a text with one error."""
    return Case(text, (words,))


TWO = "{l: {channels: 3, height: 8, width: 8}, «r: {channels: 3, height: 8, width: 8}}"
ONE = "input: {channels: 3, height: 8, width: 8}"

CASES: dict[str, Case] = {
    # keys
    "unknown key": case(but(more="«skipz: {}\n"), "unknown key 'skipz'", "Did you mean 'skips'?"),
    "unknown key of a node": case(but("stride: 2 => «strid: 2"), "nodes.b.strid", "Did you mean 'stride'?"),
    "unknown key of the input": case(but("height => «hight"), "input.hight", "Did you mean 'height'?"),
    "unknown key of a skip": case(
        but(more="skips: {levels: [a, b], edges: full, «mrge: add}\n"), "skips.mrge", "Did you mean 'merge'?"
    ),
    "unknown key of an edge": case(
        but(more="edges: [{from: a, to: b, «slto: output}]\n"), "edges[0].slto", "Did you mean 'slot'?"
    ),
    "unknown key of an edge's block": case(
        but(more="edges: [{from: a, to: b, slot: output, block: conv, width: 8, «strde: 2}]\n"),
        "Did you mean 'stride'?",
    ),
    "unknown key of a merge": case(
        but(more="skips: {edges: [a>b], merge: {kind: add, «oder: [a]}}\n"), "skips.merge.oder", "'order'?"
    ),
    "unknown key of a projection": case(
        but(more="skips: {edges: [a>b], projection: {«spatail: avg}}\n"), "skips.projection.spatail", "'spatial'?"
    ),
    "unknown key of a shortcut": case(
        but("stride: 2 => stride: 2, shortcut: {«spatail: avg}"), "nodes.b.shortcut.spatail", "'spatial'?"
    ),
    "unknown key of a variant": case(but(more="variants: {x: {«edgs: none}}\n"), "variants.x.edgs", "'edges'?"),
    "unknown key of a written block": case(
        with_block("blocks:\n  cell:\n    nodes: {x: relu}\n    «flwo: x\n"), "blocks.cell.flwo", "'flow'?"
    ),
    "unknown key of a written block that nothing uses": case(
        but("nodes:\n => blocks:\n  cell:\n    nodes: {x: relu}\n    «flwo: x\nnodes:\n"), "blocks.cell.flwo", "'flow'?"
    ),
    "a block of neither kind": case(with_block("blocks: {cell: «{nodez: {}}}\n"), "blocks.cell", "'block'", "'nodes'"),
    "duplicate key": case(but(more="«name: again\n"), "'name'", "1:1", "Keep one"),
    "duplicate node": case(but("  head =>   «a: relu\n  head"), "'a'", "5:3", "Keep one"),
    "missing keys": Case("«name: x\n", (("the key 'nodes' is missing",), ("the key 'input' is missing",))),
    "missing name": case(but("name: net\n => «"), "the key 'name' is missing"),
    "missing block": case(but("{block: conv, width: $width} => «{width: 4}"), "nodes.a", "the key 'block' is missing"),
    "misspelt block": case(
        but("{block: conv, width: $width} => «{blok: conv, width: 4}"), "nodes.a", "'block' instead of 'blok'?"
    ),
    "missing field": case(
        but("{block: classifier, classes: 2} => «{block: classifier}"), "the key 'classes' is missing"
    ),
    "missing edges of a skip": case(but(more="skips: «{levels: [a, b]}\n"), "the key 'edges' is missing"),
    # types
    "text for a number": case(but("width: 8, s => width: «wide, s"), "nodes.b.width", "a whole number, got 'wide'"),
    "fraction": case(but("width: 8, s => width: «8.5, s"), "a whole number, got 8.5"),
    "true for a number": case(but("width: 8, s => width: «true, s"), "a whole number, got true"),
    "nothing for a number": case(but("width: 8, s => width: «null, s"), "a whole number, got nothing"),
    "negative": case(but("width: 8, s => width: «-8, s"), "at least 1, got -8"),
    "zero": case(but("width: 8, s => width: «0, s"), "at least 1, got 0"),
    "too large": case(but("width: 8, s => width: «1000000000, s"), "at most 1,000,000"),
    "infinite": case(but("classes: 2 => classes: 2, dropout: «.inf"), "a finite number, got inf"),
    "depth too large": case(but("stride: 2 => depth: «100000"), "nodes.b.depth", "at most 1,000, got 100000"),
    "depth zero": case(but("stride: 2 => depth: «0"), "at least 1, got 0"),
    "depth of a block of a stage": case(
        but("stride: 2 => depth: 2", "  head =>   b.block2: {«depth: 3}\n  head"), "block of a stage"
    ),
    "list for a mapping": case(
        "name: n\ninput: {channels: 3}\nnodes: «[a, b]\n", "nodes: ", "a mapping, got a list of 2"
    ),
    "number for a mapping": case(but("{channels: 3, height: 8, width: 8} => «3"), "input: ", "a mapping, got 3"),
    "mapping for a text": case(but("a -> b -> head => «{a: b}"), "flow: ", "text or a list, got a mapping"),
    "mapping for a list": case(but(more="edges: «{from: a, to: b}\n"), "edges: ", "a list, got a mapping"),
    "list for a pair": case(
        but("width: $width => width: 4, kernel_size: «[3, 3, 3]"), "a whole number or a list of 2, got a list of 3"
    ),
    "text in a pair": case(but("width: $width => width: 4, kernel_size: [3, «x]"), "kernel_size[1]", "a whole number"),
    "word of no use here": case(but("width: $width => width: 4, activation: «rellu"), "'relu', 'relu6'", "got 'rellu'"),
    "a node that is a list": case(but("{block: conv, width: $width} => «[conv]"), "nodes.a", "a mapping like"),
    "a block that is a list": case(but("block: conv => block: «[conv]"), "nodes.a.block", "text, got a list of 1"),
    "a patch that is a number": case(but("  head =>   b.conv1: «3\n  head"), "a patch must be a mapping"),
    "number for an edge set": case(but(more="skips: {levels: [a, b], edges: «3}\n"), "skips.edges", "text or a list"),
    "nothing for the nodes": case("name: n\ninput: {channels: 3}\nnodes:«\n", "nodes: ", "a mapping, got nothing"),
    "no nodes": case("name: n\ninput: {channels: 3}\nnodes: «{}\n", "there are no nodes", "stem: {...}"),
    # kinds
    "unknown block": case(but("block: conv => block: «conf"), "there is no block 'conf'", "Did you mean 'conv'?"),
    "unknown block alone": case(
        but("{block: conv, width: $width} => «conf"), "no block 'conf'", "Did you mean 'conv'?"
    ),
    "unknown block of an edge": case(
        but(more="edges: [{from: a, to: b, slot: output, block: «conf}]\n"), "edges[0].block", "Did you mean 'conv'?"
    ),
    "unknown merge": case(but(more="skips: {edges: [a>b], merge: «ad}\n"), "no merge 'ad'", "Did you mean 'add'?"),
    "unknown merge of a node": case(
        but("classes: 2 => classes: 2, merge: {kind: «ad}"), "nodes.head.merge.kind", "'add'?"
    ),
    "unknown projection": case(
        but(more="skips: {edges: [a>b], projection: «standart}\n"), "no projection 'standart'", "'standard'?"
    ),
    "unknown shortcut": case(
        but("stride: 2 => shortcut: «idenity"), "nodes.b.shortcut", "no projection 'idenity'", "'identity'?"
    ),
    "unknown slot": case(
        but(more="edges: [{from: a, to: b, slot: «side}]\n"), "'input', 'residual' or 'output', got 'side'"
    ),
    "slot residual of conv": case(
        but(more="edges: [{from: input, to: a, slot: «residual}]\n"),
        "edges[0].slot",
        "(conv)",
        "It has: input, output.",
    ),
    "slot residual of conv in skips": case(
        but(more="skips: {edges: [input>a], slot: «residual}\n"), "skips.slot", "no slot 'residual'", "input, output."
    ),
    "fields that exclude each other": case(
        but("{block: conv, width: $width} => «{block: upsample, width: 3}"), "'width' requires 'mode: deconv'"
    ),
    # names
    "reserved name": case(but("  head =>   «stages: relu\n  head"), "'stages' is reserved", "Choose another"),
    "two underscores": case(but("  head =>   «a__b: relu\n  head"), "'a__b' is not a valid name", "without '__'"),
    "dash in a name": case(but("  head =>   «a-b: relu\n  head"), "'a-b' is not a valid name"),
    "node called input": case(but("  head =>   «input: relu\n  head"), "'input' is already an input"),
    "a list of nodes as flow": case(
        but("flow: a -> b -> head => flow: «[a, b, head]"), "a list holds chains", "Write 'flow: a -> b -> ...'."
    ),
    "unknown node in flow": case(but("-> b => -> «bb"), "flow: there is no node 'bb'", "Did you mean 'b'?"),
    "unknown node in edges": case(but(more="edges: [{from: a, to: «heat}]\n"), "edges[0].to", "Did you mean 'head'?"),
    "unknown node in a list": case(but(more="edges: [{from: [a, «c], to: head}]\n"), "edges[0].from[1]", "node 'c'"),
    "unknown node in levels": case(
        but(more="skips: {levels: [a, «c], edges: full}\n"), "skips.levels[1]", "Known: a, b, head, input."
    ),
    "unknown node in outputs": case(but(more="outputs: [head, «tail]\n"), "outputs[1]", "no node 'tail'"),
    "unknown scale": case(
        but(more="edges: [{from: a, to: head, scale: «gates}]\n"),
        "edges[0].scale",
        "expected 'none', 'learned' or 'gate' or a number or a mapping, got 'gates'",
    ),
    "a scale that is no finite number": case(
        but(more="edges: [{from: a, to: head, scale: «.nan}]\n"), "edges[0].scale", "a finite number"
    ),
    "a scale out of range": case(
        but(more="edges: [{from: a, to: head, scale: «1e39}]\n"), "edges[0].scale", "a number of at most 1,000,000"
    ),
    "an unknown key of a scale": case(
        but(more="edges: [{from: a, to: head, scale: {«inti: 0}}]\n"), "unknown key 'inti'", "Did you mean 'init'?"
    ),
    "a fixed gate": case(
        but(more="edges: [{from: a, to: head, scale: «{gate: true, learned: false, init: 0}}]\n"),
        "edges[0].scale",
        "a gate is learned",
    ),
    "a fixed scale without a value": case(
        but(more="edges: [{from: a, to: head, scale: «{learned: false}}]\n"), "requires its value, 'init'"
    ),
    "an initial value of a node's gate": case(
        but(more="edges: [{from: a, to: head, gate: a, scale: {gate: true, «init: -2}}]\n"),
        "a gate has no 'init' where its value is the output of a node, here of 'a'",
    ),
    "unknown gate": case(but(more="edges: [{from: a, to: head, gate: «g}]\n"), "edges[0].gate", "no node 'g'"),
    "unknown node in a merge's order": case(
        but("head: {block: classifier, classes: 2} => head: «{block: classifier, classes: 2, merge: {order: [x, b]}}"),
        "'order' of merge 'add' names 'x'",
        "Known: a, b, head, input.",
    ),
    "a pattern without match": case(but(more="edges: [{from: '«z*', to: head}]\n"), "matches no node"),
    "edge into an input": case(
        but(more="edges: [{from: a, to: «input}]\n"), "'input' is an input; no edge may end there"
    ),
    "flow into an input": case(but("a -> b => a -> «input -> b"), "'input' is an input; no edge may end there"),
    "edge into a part": case(but(more="edges: [{from: a, to: «b.conv1}]\n"), "inside a block", "a slot of the block"),
    "edge from no part": case(
        but(more="edges: [«{from: b.conv7, to: head}]\n"), "'b' has no part 'conv7'", "conv1, conv2"
    ),
    "a part as output": case(but(more="outputs: «b.conv1\n"), "an output must be a single node"),
    "a pattern as output": case(but(more="outputs: ['«*']\n"), "an output must be a single node, and '*' is not"),
    "a pattern as gate": case(but(more="edges: [{from: a, to: head, gate: '«*'}]\n"), "a gate must be a single node"),
    "one name for several edges": case(
        but(more="edges: [{from: [a, input], to: head, name: «e}]\n"), "one name cannot serve several edges"
    ),
    # edges
    "duplicate edge": case(
        but(more="edges: [{from: a, to: b, slot: output, projection: standard}, «{from: a, to: b, slot: residual}]\n"),
        "the edge 'a__b' already exists, in edges[0]",
        "'name'",
    ),
    "duplicate edge of a skip": case(
        but(more="skips: {edges: «[a>b]}\nedges: [{from: a, to: b, slot: output, projection: standard}]\n"),
        "the edge 'a__b' already exists, in edges[0]",
    ),
    "duplicate edge of the flow": case(
        but("a -> b -> head => [a -> b -> head, a -> «b]"), "a -> b already exists", "flow[0]; remove one"
    ),
    "duplicate name of an edge": case(
        but(
            more="edges: [{from: a, to: b, name: e, slot: output, projection: standard}, «{from: a, to: b, name: e}]\n"
        ),
        "the edge 'e' already exists",
    ),
    "cycle": case(
        but(more="edges: [«{from: b, to: a, projection: {spatial: nearest}}]\n"),
        "the cycle a -> b -> a has total delay 0",
        "Reverse the edge that closes the loop",
    ),
    "cycle in flow": Case(
        but("flow: a -> b -> head => flow: «a -> b -> a", "  head =>   «head"),
        (("no path leads", "'head'"), ("a -> b -> a",)),
    ),
    "edge from a node to itself": case(but(more="edges: [«{from: b, to: b}]\n"), "the cycle b -> b has total delay 0"),
    "cycle through all": case(but(more="edges: [«{from: head, to: a}]\n"), "a -> b -> head -> a"),
    "two merges at one slot": case(
        but(more="skips: {edges: «[input>b], merge: mean}\nedges: [{from: a, to: b, slot: output, merge: add}]\n"),
        "'b' gets merge 'mean' at its slot 'output', but has 'add' there",
        "{block: identity}",
    ),
    "two orders at one slot": case(
        but(
            "classes: 2 => classes: 2, merge: {kind: concat, order: [a, b]}",
            more="edges: [«{from: a, to: head, projection: standard, merge: {kind: concat, order: [b, a]}}]\n",
        ),
        "'concat' at its slot 'input', but has 'concat' with other fields there",
    ),
    "empty position in a chain": case(but("a -> b => a -> «-> b"), "a node on each side of '->'", "'FROM -> TO'"),
    "empty chain": case(but('a -> b -> head => "«"'), "a node on each side of '->'"),
    "wrong arrow": case(but("a -> b => «a > b"), "'a > b' is not a node name", "'FROM -> TO'"),
    "comma in a chain": case(but("a -> b => «a, b"), "'a, b' is not a node name"),
    # shapes
    "shapes differ": case(
        but(more="edges: [«{from: a, to: head}]\n"),
        "'head' (add) requires 8x4x4 at its slot 'input', but 'a' gives 4x8x8",
        "'a' is at bad.yaml:5:6; 'head' is at bad.yaml:7:9",
        "Set 'projection:",
    ),
    "shapes differ in flow": case(
        but("a -> b -> head => [«a -> b -> head, a -> head]"),
        "'head' (add) requires 4x8x8",
        "'b' gives 8x4x4",
        "'edges:'",
    ),
    "no projection of channels": case(
        but(more="edges: [«{from: a, to: b, slot: output, projection: {channels: none}}]\n"),
        "requires 8x4x4 at its slot 'output', but 'a' gives 4x8x8",
        "Set 'projection: {channels: conv1x1}'.",
    ),
    "no projection to a vector": case(
        but(more="skips: {edges: «[a>head]}\n"),
        "requires a vector of 2",
        "gives 4x8x8",
        "between a feature map and a vector",
    ),
    "no projection upwards": case(
        but(
            "  head =>   c: {block: upsample, scale: 2}\n  head",
            "b -> head => b -> c -> head",
            more="edges: [«{from: b, to: c, projection: standard, slot: output}]\n",
        ),
        "requires 8x8x8",
        "gives 8x4x4",
        "'spatial: avg' shrinks, but the target is larger",
        "Set 'projection: {spatial: nearest}'.",
    ),
    "no pooling": case(
        but(
            "{block: basic, width: 8, stride: 2} => {block: conv2d, width: 8, kernel_size: 4, padding: 0}",
            more="skips: {edges: «[a>b]}\n",
        ),
        "requires 8x5x5",
        "gives 4x8x8",
        "8x8 to 5x5",
        "adaptive",
    ),
    "groups": case(
        but("{block: basic, width: 8, stride: 2} => «{block: basic, width: 8, groups: 3}"), "multiples of 3"
    ),
    "map for a linear map": case(
        but("{block: classifier, classes: 2} => «{block: linear, width: 3}"), "8x4x4", "flatten"
    ),
    "window too large": case(
        but("{block: conv, width: $width} => «{block: pool, kernel_size: 20}"), "20-wide window", "3x8x8"
    ),
    "gate of another shape": case(
        but(
            "a -> b -> head => [a -> b -> head, a -> c]",
            "  head =>   c: {block: conv, width: 3}\n  head",
            more="edges: [«{from: a, to: b, slot: output, gate: c, projection: standard}]\n",
        ),
        "the gate 'c' gives 3x8x8, but it multiplies 8x4x4",
        "1x1 height and width",
    ),
    "block of an edge": case(
        but(more="edges: [«{from: a, to: b, slot: output, block: conv, width: 6, groups: 4}]\n"),
        "the block on the edge from 'a' cannot be applied to 4x8x8",
        "multiples of 4",
    ),
    "no projection at all": case(
        but(more="edges: [«{from: a, to: b, slot: output, projection: identity}]\n"),
        "'b' (add) requires 8x4x4",
        "'a' gives 4x8x8",
        "without a projection",
    ),
    "computed field out of range": case(
        but("{block: basic, width: 8, stride: 2} => «{block: dense_layer, growth: 1000000}"), "4000000", "out of range"
    ),
    # structure
    "unreachable": case(
        but(
            "  head =>   «c: {block: conv, width: 8}\n  head",
            "flow: a -> b -> head => flow: [a -> b -> head, c -> head]",
        ),
        "no path leads from the input to 'c'",
        "'input -> c'",
    ),
    "a node of no chain": case(but("  head =>   «c: relu\n  head"), "no path leads from the input to 'c'"),
    "two ends": case(
        but("  head =>   «c: relu\n  head", "a -> b -> head => [a -> b -> head, a -> c]"),
        "there are 2 ends: c, head",
        "'outputs: [c, head]'",
    ),
    "output twice": case(but(more="outputs: [head, «head]\n"), "'head' is listed twice"),
    "no outputs": case(but(more="outputs: «[]\n"), "at least one node"),
    "unused input": case(
        but(ONE + " => input: " + TWO, "flow: a => flow: l -> a"), "input 'r' is not used", "'flow: [r -> ...]'"
    ),
    "unused inputs": Case(
        but(ONE + " => input: " + TWO.replace("{l", "{«l")), (("input 'l' is not used",), ("input 'r' is not used",))
    ),
    # edge sets
    "set with two signs": case(
        but(more="skips: {levels: [a, b], edges: full - «- p1}\n"), "expected a set or an edge here, got '-'"
    ),
    "unknown set": case(but(more="skips: {levels: [a, b], edges: «ful}\n"), "no set 'ful'", "Did you mean 'full'?"),
    "set that selects nothing": case(
        but(more="skips: {levels: [a, b], edges: full - «p9}\n"), "'p9' selects nothing", "x0..x1"
    ),
    "set of two that have no edge in common": case(
        but(more="skips: {levels: [a, b, head], edges: «p1 & p2}\n"),
        "'p1 & p2' selects no edge in all (edges of its terms: 'p1' 2, 'p2' 1). Write 'none' for no edges.",
    ),
    "list of sets without edges": case(
        but(more="skips: {levels: [a, b], edges: «[full - in, full - full]}\n"),
        "'full - in + (full - full)' selects no edge in all (edges of its terms: 'full' 1, 'in' 1, 'full - full' 0).",
    ),
    "bracket never closed": case(
        but(more="skips: {levels: [a, b], edges: [full, «(p1]}\n"), "skips.edges[1]", "never closed"
    ),
    "unknown node in a set": case(
        but(more="skips: {levels: [a, b], edges: full - a>«c}\n"), "no node 'c'", "Known: a, b"
    ),
    "arrow of flow in a set": case(but(more="skips: {edges: a «-> b}\n"), "'->' belongs to 'flow'", "'FROM>TO'"),
    "set without levels": case(but(more="skips: {edges: «p1}\n"), "there are none", "Give 'levels:'"),
    "level twice": case(but(more="skips: {levels: «[a, b, a], edges: full}\n"), "the levels name 'a' twice"),
    "tensor twice": case(
        but("stride: 2 => stride: 2, depth: 2", more="skips: {levels: «[a, b, b.block2], edges: full}\n"),
        "'b' and 'b.block2' (one tensor)",
        "Remove one.",
    ),
    "no stages": case(but(more="skips: {levels: «stages, edges: full}\n"), "'stages' selects no node", "'depth'"),
    "input as a later level": case(
        but(
            ONE + " => input: " + TWO.replace("«", ""),
            "a -> b -> head => [l -> a -> b -> head, r -> a]",
            more="skips: {levels: «[l, r, a], edges: full}\n",
        ),
        "'r' is an input; no edge may end there",
    ),
    "too many edges": case(
        but("stride: 2 => stride: 2, depth: 600", more="skips: {levels: blocks, edges: «full}\n"),
        "more than 100,000 edges",
    ),
    "too many levels": case(
        but("stride: 2 => stride: 2, depth: 1000", more="skips: {levels: «[a, blocks], edges: full}\n"), "1,001 levels"
    ),
    # templates
    "unknown name": case(but("$width => $«widht"), "no name 'widht' here", "Did you mean 'width'?"),
    "division by zero": case(but("$width => $(«width // 0)"), "nodes.a.width", "'//' would divide by zero"),
    "number times text": case(but("$width => $(«width * 'x')"), "'*' cannot be applied to a number and text"),
    "fraction from a template": case(but("$width => «$(width / 3)"), "a whole number, got 1.33"),
    "no expression": case(but("$width => $(width +«)"), "not a valid expression"),
    "a call": case(but("$width => \"$(«__import__('os'))\""), "no function '__import__'", "Known: abs"),
    "an attribute": case(but("$width => $(«width.real)"), "'width.real' is not allowed in an expression"),
    "too large a number": case(but("$width => $(«9**9**9)"), "the result of '**' is too large"),
    "template cut off": case(but("$width => «$(max(8, width))"), "cuts this template off", "'$(max(8, width))'"),
    "template in a depth": case(but("stride: 2 => depth: $(«n)"), "nodes.b.depth", "no name 'n'"),
    "template in a list": case(but("$width => 4, kernel_size: [3, $«k]"), "nodes.a.kernel_size[1]", "no name 'k'"),
    "template in the input": case(but("channels: 3 => channels: $«c"), "input.channels", "no name 'c'"),
    "cycle of params": case(but("{width: 4} => {width: «$w, w: $width}"), "width -> w -> width"),
    "missing param": case(but("params: {width: 4}\n => ", "$width => $«width"), "no name 'width' here"),
    "missing param of a block": case(
        with_block(CELL, use="«{block: cell}"), "the key 'w' is missing", "block 'cell' has no default"
    ),
    "unknown param of a block": case(with_block(CELL, use="{block: cell, w: 3, «u: 3}"), "key 'u'", "Known: v, w."),
    "outer param in a block": case(
        with_block(CELL.replace("$w", "$«width"), use="{block: cell, w: 3}"), "blocks.cell.nodes.x.width", "'in_width'?"
    ),
    "bad default in a block": case(
        with_block(CELL.replace("v: 2", "v: $«u"), use="{block: cell, w: 3}"), "blocks.cell.params.v", "no name 'u'"
    ),
    "mistakes inside a block": Case(
        with_block("blocks:\n  cell:\n    nodes: {x: {block: «conf}, y: relu}\n    flow: y -> «z\n"),
        (("blocks.cell.nodes.x.block", "'conv'?"), ("blocks.cell.flow", "no node 'z'")),
    ),
    "a block that is itself": case(with_block("blocks: {cell: «{block: cell}}\n"), "cell -> cell"),
    "a block inside itself": case(
        with_block("blocks: {cell: {nodes: {x: «cell}}}\n"), "limit is 32", "must not contain itself"
    ),
    "a product as text": case(
        but("{block: basic, width: 8 => {block: basic, width: «2 * 4"), "whole number, got '2 * 4'", "Write '$(2 * 4)'"
    ),
    # patches
    "patch of nothing": case(
        but("  head =>   «c.block1: {width: 3}\n  head"), "'c.block1' patches nothing", "Known: a, b"
    ),
    "patch of no block": case(
        but("stride: 2 => depth: 2", "  head =>   «b.block3: {hidden: 3}\n  head"), "patches nothing", "'b.block2'?"
    ),
    "patch of no part": case(
        but("  head =>   a.conv9: «{width: 3}\n  head"), "no part 'conv9'", "'a' has the parts conv, norm, relu."
    ),
    "patch by a pattern of nothing": case(but("  head =>   '«z*': {width: 3}\n  head"), "'z*' patches nothing"),
    "unknown field of a part": case(but("  head =>   a.conv: {«widht: 3}\n  head"), "nodes.a.conv.widht", "'width'?"),
    "two patterns on one field": case(
        but("stride: 2 => depth: 2", "  head =>   'b.*': {hidden: 3}\n  '*.block1': {«hidden: 4}\n  head"),
        "'*.block1' and 'b.*' both set 'hidden' of 'b.block1'",
        "under 'b.block1' itself",
    ),
    "two patterns on one field of a part": case(
        but(
            "stride: 2 => depth: 2", "  head =>   'b.*.conv1': {bias: true}\n  '*.block1.conv1': «{bias: true}\n  head"
        ),
        "both set 'bias' of 'b.block1.conv1'",
        "without '*'",
    ),
    # weights
    "weights of unequal shape": case(
        but(
            "$width => 4, weights: w",
            "  head =>   c: «{block: conv, width: 4, weights: w}\n  head",
            "a -> b => a -> c -> b",
        ),
        "'a.conv' and 'c.conv' share the weights 'w.conv'",
        "[4, 3, 3, 3] and weight [4, 4, 3, 3]",
    ),
    "weights of two kinds": case(
        but(
            "$width => 3, weights: w, norm: batch",
            "  head =>   c: «{block: conv, width: 3, weights: w, norm: layer}\n  head",
            "a -> b => a -> c -> b",
        ),
        "one is a 'batch_norm' and the other a 'layer_norm'",
    ),
    "weights: shared without depth": case(
        but("$width => 4, weights: «shared"), "no 'depth'", "a name that another node"
    ),
    "tied blocks of unequal shape": case(
        but("{block: basic, width: 8, stride: 2} => «{block: basic, width: 8, depth: 2, weights: shared}"),
        "'b.block1.conv1' and 'b.block2.conv1' share the weights 'b.conv1'",
    ),
    "per_step alone": case(but("$width => 4, per_step: «norm"), "'weights: shared'"),
    # time
    "delay without time": case(
        but(more="edges: [{from: b, to: a, «delay: 1}]\n"),
        "edges[0].delay: 'delay' requires 'time'",
        "'time: {steps: 5}'",
    ),
    "delay of skips without time": case(
        but(more="skips: {edges: [a>b], «delay: 1}\n"), "skips.delay: ", "requires 'time'"
    ),
    "step of arrival without time": case(but(more="edges: [{from: a, to: b, «at: 2}]\n"), "'at' requires 'time'"),
    "copies without time": case(
        but(more="edges: [{from: a, to: b, «per_step: norm}]\n"), "edges[0].per_step: ", "requires 'time'"
    ),
    "transitions without time": case(but(more="«transitions: {a: {b: conv}}\n"), "'transitions' requires 'time'"),
    "time that is a number": case(timed("{steps: 5, input: first} => «5"), "expected a mapping, got 5"),
    "time without steps, with copies": case(
        timed("time: {steps: 5, input: first} => «time: {per_step: norm_stats}"),
        "time: 'time' requires 'steps'",
        "'per_step: norm_stats' keeps a copy for each",
        "Add 'steps: 5'.",
    ),
    "time without steps": case(
        timed("time: {steps: 5, input => «time: {per_step: none, input"), "'time' requires 'steps'"
    ),
    "no steps": case(timed("steps: 5 => steps: «0"), "a number of at least 1, got 0"),
    "steps in words": case(timed("steps: 5 => steps: «five"), "a whole number, got 'five'"),
    "more steps than can be": case(timed("steps: 5 => steps: «100000"), "at most 10,000"),
    "unknown key of time": case(timed("input: first => «redout: 3"), "Did you mean 'readout'?"),
    "unknown input in time": case(timed("input: first => input: «once"), "'first', 'every' or 'sequence', got 'once'"),
    "time.delay of two": case(timed("input: first => delay: «2"), "0 or 1, got 2"),
    "unknown readout": case(timed("input: first => readout: «end"), "'last' or 'all' or a whole number, got 'end'"),
    "readout beyond the steps": case(
        timed("input: first => readout: «5"), "readout is step 5, but steps go from 0 to 4", "Set 'steps' to 6 or more"
    ),
    "several mistakes in time": Case(
        timed("{steps: 5, input: first} => {steps: «0, readout: 7, input: «once, per_step: «norms}"),
        (("at least 1",), ("'once'",), ("'norms'",)),
    ),
    "norm scale below zero": case(timed("input: first => norm_scale: «-1"), "at least 0"),
    "arrival before the first step": case(timed("s2: brc2}\n  s2 => s2: {block: brc2, at: «-1}}\n  s2"), "at least 0"),
    "arrival at no step": case(
        timed("s2: brc2}\n  s2 => s2: {block: brc2, at: «[]}}\n  s2"), "a whole number or a list of at least 1"
    ),
    "cycle without delay": case(
        timed("s2: brc2}\n  s2 => s2: «{block: brc2, delay: 0}}\n  s2", "s1: brd2 => s1: {block: brd2, delay: 0}"),
        "transitions.s1.s2: the cycle s1 -> s2 -> s1 has total delay 0",
        "Give one of its edges 'delay: 1'.",
    ),
    "a node to itself without delay": case(
        timed("s2: brc2}\ntime => s2: «{block: brc2, delay: 0}}\ntime"), "the cycle s2 -> s2 has total delay 0"
    ),
    "a cycle through a gate": case(
        timed(
            "post]\n => post, s1 -> g]\n", "  post: =>   g: sigmoid\n  post:", "{block: brc2 => «{gate: g, block: brc2"
        ),
        "the cycle s1 -> g -> s1",
    ),
    "too few steps": case(
        timed("post: { => post: «{", "steps: 5 => steps: 1"),
        "1 step is too few: the output 'post' first depends on the input at step 1",
        "Set 'time.steps' to 2 or more.",
    ),
    "too few steps where zeros are read": case(
        timed("post: { => post: «{", "steps: 5, => steps: 1, empty: zeros,"), "1 step is too few"
    ),
    "a readout that is too early": case(
        timed("post: { => post: «{", "input: first => readout: 0"),
        "a readout at step 0 is too early",
        "Read out at step 1 or later.",
    ),
    "an output that is empty at its readout": case(
        timed(
            "post: { => post: «{",
            "{s1: {block: brc2, identity: true}, s2: brc2} => {s2: {block: brc2, at: [1, 2, 4]}, s1: {block: brc2}}",
            "  s2: {s1: brd2, s2: brc2}\n => ",
            "steps: 5 => steps: 8",
        ),
        "the output 'post' holds no value at its readout, step 7",
        "It holds one at steps 1, 2 and 4.",
        "give a node an edge to itself",
    ),
    "an output that is never filled": case(
        timed("  post: =>   «post:", ", s2: brc2}\n  s2 => }\n  s2"),
        "no path leads from the input to 'post'",
    ),
    "too few steps in a block": case(
        with_block(
            "blocks:\n  cell:\n    nodes: {x: relu, y: «relu}\n"
            "    edges: [{from: input, to: x}, {from: x, to: y, delay: 2}]\n    time: {steps: 2}\n"
        ),
        "blocks.cell.nodes.y: the output 'b' holds no value at its readout, step 1",
        "In 2 steps it never holds one.",
    ),
    "all steps read in a block": case(
        loop("{steps: 2, readout: «all}"), "blocks.cell.time.readout: ", "one value for one value", "'last' or a step"
    ),
    "a sequence in a block": case(
        loop("{steps: 2, input: «sequence}"), "one value for one value", "'first' or 'every'"
    ),
    "time of a block without steps": case(
        with_block("blocks:\n  cell:\n    nodes: {x: relu}\n    «time: {per_step: norm}\n"), "requires 'steps'"
    ),
    # transitions
    "transitions that are a list": case(
        timed(
            "transitions:\n  s1: {s1: {block: brc2, identity: true}, s2: brc2}\n  s2: {s1: brd2, s2: brc2}\n => "
            "transitions: «[s1]\n"
        ),
        "a mapping, got a list of 1",
    ),
    "a row that is a text": case(
        timed("s2: {s1: brd2, s2: brc2} => s2: «brc2"), "transitions.s2: a row", "'s1: {s2: brc2}'"
    ),
    "a row of no node": case(
        timed("  s2: {s1: brd2 =>   «pst: {s1: brd2"),
        "there is no node 'pst'",
        "Did you mean 'post'?",
    ),
    "a column of no node": case(timed("{s1: brd2 => {«prr: brd2"), "there is no node 'prr'", "Did you mean 'pre'?"),
    "a pattern as a row": case(timed("  s2: {s1: brd2 =>   «s*: {s1: brd2"), "a single node"),
    "a transition to an input": case(timed("{s1: brd2 => {«input: brd2"), "no edge may end there"),
    "an entry that is a number": case(timed("{s1: brd2 => {s1: «3"), "the name of a block, or a mapping"),
    "an entry of no block": case(timed("{s1: brd2 => {s1: «brd3"), "there is no block 'brd3'", "Did you mean 'brd2'?"),
    "an entry with a wrong field": case(
        timed("{s1: brd2 => {s1: {block: brd2, «spatal: nearest}"), "unknown key 'spatal'", "Did you mean 'spatial'?"
    ),
    "an entry with a wrong key": case(timed("{s1: brd2 => {s1: {«blok: brd2}"), "unknown key", "Did you mean 'block'?"),
    "two entries of one pair": case(
        timed("{s1: brd2 => {s1: [brd2, «{block: brd2, delay: 2}]"),
        "'s2__s1' already exists",
        "give this one a 'name'",
    ),
    "two entries of one name": case(
        timed("{s1: brd2 => {s1: [{block: brd2, name: x}, «{block: brd2, name: x}]"), "'x' already exists"
    ),
    "a transition that is an edge, too": case(
        timed("s2: brc2}\n  s2 => s2: «brc2}\n  s2", "\ntime => \nedges: [{from: s1, to: s2, delay: 1}]\ntime"),
        "'s1__s2' already exists, in edges[0]",
    ),
    "a set of no word": case(timed("transitions:\n => transitions:\n  edges: «feedbck\n"), "Did you mean 'feedback'?"),
    "a set that selects nothing": case(
        timed("transitions:\n => transitions:\n  edges: all - «bypass\n"), "'bypass' selects nothing"
    ),
    "a set of entries that the matrix lacks": case(
        timed(
            "{s1: {block: brc2, identity: true}, s2: brc2} => {s2: brc2}",
            "brd2, s2: brc2} => brd2}",
            "transitions:\n => transitions:\n  edges: «lateral\n",
        ),
        "'lateral' selects no edge in all (edges of its terms: 'lateral' 2). Write 'none' for no edges.",
    ),
    "a pair that is not in the matrix": case(
        timed("transitions:\n => transitions:\n  edges: [all, «s1>post]\n"), "'s1>post' selects nothing"
    ),
    "brc2 to a larger state": case(
        timed("{s1: brd2 => {s1: «brc2"), "transitions.s2.s1: ", "'brc2' cannot enlarge 4x4 to 8x8", "Use 'brd2' there."
    ),
    "brd2 to a smaller state": case(
        timed("s2: brc2}\n  s2 => s2: «brd2}\n  s2"), "'brd2' cannot shrink 8x8 to 4x4", "Use 'brc2' there."
    ),
    "a size that no stride gives": case(
        timed(
            "[4, 8, 8] => [4, 32, 32]",
            "[6, 4, 4] => [6, 12, 12]",
            "width: 8} => width: 32}",
            "height: 8 => height: 32",
            "s2: brc2}\n  s2 => s2: «brc2}\n  s2",
        ),
        "no stride maps 32x32 to 12x12",
        "multiples of each other",
    ),
    "a size that no pooling gives": case(
        timed(
            "[6, 4, 4] => [6, 3, 3]",
            "s2: brc2}\n  s2 => s2: «{block: brc2, spatial: avg}}\n  s2",
            "{s1: brd2, s2 => {s2",
        ),
        "no pooling with kernel = stride maps 8x8 to 3x3",
    ),
    "both ways at once": case(
        timed("[6, 4, 4] => [6, 16, 4]", "s2: brc2}\n  s2 => s2: «brc2}\n  s2", "{s1: brd2, s2 => {s2"),
        "'brc2' cannot enlarge 8x8 to 16x4",
        "along both axes",
    ),
    "a transition between a map and a vector": case(
        timed("[6, 4, 4] => [6]", "s2: brc2}\n  s2 => s2: «brc2}\n  s2", "{s1: brd2, s2: brc2} => {}"),
        "'brc2' connects feature maps",
    ),
    "identity between unequal states": case(
        timed("s2: brc2}\n  s2 => s2: «{block: brc2, identity: true}}\n  s2"), "'identity: true' cannot add the source"
    ),
    "a transition without block or projection": case(
        timed("s2: brc2}\n  s2 => s2: «{}}\n  s2"), "'s2' (add) requires 6x4x4", "'s1' gives 4x8x8", "'projection: {"
    ),
    "a state of two numbers": case(timed("[6, 4, 4] => «[6, 4]"), "a shape is [channels, height, width] or [features]"),
    "a state of another shape": case(
        timed("conv, width: 4} => conv, width: 5}", "flow: [ => flow: [«"),
        "'s1' (add) requires 4x8x8",
        "'pre' gives 5x8x8",
    ),
    "shared weights of unequal shape": case(
        timed(
            "s2: brc2}\n  s2 => s2: {block: brc2, weights: w}}\n  s2",
            "s2: brc2}\ntime => s2: «{block: brc2, weights: w}}\ntime",
        ),
        "share the weights 'w.norm1', but the tensors would be weight [4], bias [4] and weight [6], bias [6]",
    ),
    "weights of no name": case(timed("{s1: brd2 => {s1: {block: brd2, weights: «a b}"), "'a b' is not a valid name"),
    "a concatenation of what comes later": case(
        "name: x\ninput: {channels: 2}\nnodes: {a: {block: linear, width: 3, merge: concat}, b: gelu}\nflow: a -> b\n"
        "edges: [«{from: b, to: a, delay: 1}]\ntime: {steps: 3}\noutputs: b\n",
        "the shape of 'b' must be known at 'a' (concat)",
        "{block: state, shape: [C, H, W]}",
    ),
    "a shape that comes back from later nodes": Case(
        "name: x\ninput: {channels: 2}\nnodes: {a: «relu, b: «relu, c: relu}\nflow: [input -> a -> c]\n"
        "edges: [{from: b, to: a}, {from: a, to: b, delay: 1}]\ntime: {steps: 3}\noutputs: c\n",
        (("the shape of 'a' cannot be inferred", "{block: state, shape: [C, H, W]}"), ("the shape of 'b'",)),
    ),
    "a name that networks in time have": case(
        but("  a: =>   «step:", "flow: a -> b => flow: step -> b"), "the name 'step' is taken"
    ),
    "a variant that wants the impossible": case(
        timed(more="variants: {v: {transitions: {s2: {s1: «brc2}}}}\n"), "'brc2' cannot enlarge"
    ),
    "a variant with too few steps": case(
        timed("post: { => post: «{", more="variants: {v: {time: {steps: 1}}}\n"), "1 step is too few"
    ),
    # extends and variants
    "extends what is not": case(
        "name: x\nextends: «resnet19\n", "no shipped spec 'resnet19'", "Did you mean 'resnet18'?"
    ),
    "extends no file": case("name: x\nextends: «no/such.yaml\n", "extends: ", "no file 'no/such.yaml'", "relative"),
    "extends a folder": case("name: x\nextends: «.\n", "is a folder"),
    "extends a number": case("name: x\nextends: «3\n", "the name of a spec or a file"),
    "extends a name no file can have": case("name: x\nextends: «" + "x" * 5000 + "\n", "there is no file"),
    "variant of a set without skips": case(but(more="variants: {v: {edges: «none}}\n"), "the spec has no skips"),
    "variant of a set with named skips": case(
        but(more="skips: {g: {edges: [a>b]}, h: {edges: [a>b], slot: input}}\nvariants: {v: {edges: «full}}\n"),
        "the skips are in named groups: g, h",
        "{g: {edges: ...}}",
    ),
    "variant that is a text": case(but(more="variants: {v: «none}\n"), "variants.v", "a mapping of changes", "'{}'"),
    "variants that are a list": case(but(more="variants: «[v]\n"), "a mapping, got a list of 1"),
    "mistake in a variant": case(
        but(more="variants: {v: {nodes: {b: {width: «wide}}}}\n"), "nodes.b.width", "got 'wide'"
    ),
    # YAML
    "python tag": case(
        but(more="description: «!!python/object/apply:os.system [ls]\n"), "a tag of YAML", "not supported"
    ),
    "merge key": case("c: {«<<: {b: 1}}\n", "'<<'", "'extends'"),
    "alias of nothing": case(but(more="edges: [{from: «*a, to: b}]\n"), "an alias of YAML", "in quotes: '*a'"),
    "bomb": Case(
        "a: «&a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{new}: «&{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcde", "bcdef", strict=True)
        ),
        (("an anchor of YAML",),) * 6,
    ),
    "nested too deep": case("a: " + "[" * 63 + "«[[" + "\n", "64 deep"),
    "tab": case("nodes:\n«\ta: conv\n", "a tab may not be used", "spaces"),
    "never closed": case("nodes: «{a: conv\n", "this '{' is never closed"),
    "no space after the colon": case("name: x\n«flow:a\n", "name: value"),
    "empty": case("«", "there is nothing here"),
    "comments alone": case("«# nothing\n", "there is nothing here"),
    "a list": case("«- a\n", "the top level must be a mapping, got a list"),
    "a text": case("«hello\n", "the top level must be a mapping, got text 'hello'"),
    "two documents": case("name: x\n«---\nname: y\n", "one document"),
    "what a terminal obeys": case(
        '{"name": "x", "input": {"channels": 3}, "nodes": {"a": "relu"}, "«\\u001b[2J\\n": 1}',
        "unknown key '\\x1b[2J\\n'",
    ),
    "control character": case("name: x«\x07y\n", "U+0007"),
}


def marked(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without its marks, and the line and column of each."""
    clean, *rest = text.split(MARK)
    positions = []
    for piece in rest:
        lines = (clean + "x").splitlines()
        positions.append((len(lines), len(lines[-1])))
        clean += piece
    return clean, positions


def problems_of(call: Callable[[], Any]) -> tuple[hrg.errors.Problem, ...]:
    with pytest.raises(SpecError) as caught:
        call()
    return caught.value.problems


@pytest.mark.parametrize("name", CASES)
def test_an_error_is_reported_with_its_position(name: str) -> None:
    text, positions = marked(CASES[name].text)
    expected = CASES[name].words
    if len(positions) < len(expected):
        positions = positions * len(expected)
    problems = problems_of(lambda: hrg.loads(text, "bad.yaml").validate())
    lines = "\n".join(str(problem) for problem in problems)
    assert [(p.position.line, p.position.column) for p in problems if p.position] == positions, lines
    for problem, words in zip(problems, expected, strict=True):
        line, column = problem.position.line, problem.position.column  # type: ignore[union-attr]
        assert str(problem).startswith(f"bad.yaml:{line}:{column}: ")
        for word in words:
            assert word in str(problem), f"'{word}' is not in: {problem}"
        assert problem.message[-1] in ".?!" or problem.message.endswith(".)")


def test_the_number_of_cases() -> None:
    assert len(CASES) >= 200


def test_the_bases_are_valid() -> None:
    hrg.loads(BASE, "base.yaml").validate()
    hrg.loads(TIMED, "timed.yaml").validate()
    hrg.loads(loop("{steps: 2}"), "loop.yaml").validate()


def test_six_errors_are_reported_together_in_their_order() -> None:
    text, positions = marked(
        """\
name: net
params: {width: 4}
input: {channels: 3, height: 8, width: 8}
nodes:
  a: {block: «conf, width: $width}
  b: {block: basic, width: «wide, stride: 2}
  c: {block: conv, width: $«widht}
  head: {block: classifier, classes: 2, «clases: 3}
flow: a -> b -> c -> «hed
skips: {levels: [a, b], edges: full - «p9}
edges: [{from: a, to: head, «slt: output}]
"""
    )
    problems = problems_of(lambda: hrg.loads(text, "six.yaml").validate())
    assert [(p.position.line, p.position.column) for p in problems if p.position] == positions
    for problem, word in zip(
        problems, ["'conf'", "got 'wide'", "'widht'", "'clases'", "'hed'", "'p9'", "'slt'"], strict=True
    ):
        assert word in problem.message


def test_errors_of_variants_are_reported_with_the_others_in_their_order() -> None:
    skips = "skips: {levels: [a, b], edges: none}\n"
    variants = "variants: {x: {edges: «ful}, y: {nodes: {a: {«widht: 3}}}, z: {edges: «p9}}\n"
    text, positions = marked(but("stride: 2 => «strid: 2", more=skips + variants))
    problems = problems_of(lambda: hrg.loads(text, "bad.yaml").validate())
    assert [(p.position.line, p.position.column) for p in problems if p.position] == positions


def test_errors_in_time_are_reported_on_the_command_line(tmp_path: Path) -> None:
    """Each with file, line and column, the line with a caret under it, and a hint."""
    texts = {name: case.text for name, case in CASES.items() if "time:" in case.text and MARK in case.text}
    assert len(texts) > 50
    files, positions = [], []
    for i, text in enumerate(texts.values()):
        clean, marks = marked(text)
        files.append(tmp_path / f"bad{i}.yaml")
        files[-1].write_text(clean, encoding="utf-8")
        positions += [f"{files[-1]}:{line}:{column}: " for line, column in marks]
    command = [sys.executable, "-m", "hiresnet_graph.cli", "validate", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for position in positions:
        at = next((i for i, line in enumerate(lines) if line.startswith(position)), None)
        assert at is not None, f"{position} in {done.stdout}"
        assert lines[at + 2].strip() == "^", lines[at : at + 4]
    assert done.stdout.count("  hint: ") > len(files) / 2


def test_warnings_in_time_are_not_errors(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text(timed("  post: =>   s3: {block: state, shape: [6, 4, 4]}\n  post:"))
    command = [sys.executable, "-m", "hiresnet_graph.cli", "validate", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert f"{path}:7:7: nodes.s3: warning: 's3' never holds a value that depends on the input." in done.stdout


# ------------------------------------------------------------------------------------------------------------- files


def message_of(call: Callable[[], Any]) -> str:
    (problem,) = problems_of(call)
    assert problem.position is not None
    return str(problem)


def test_missing_file(tmp_path: Path) -> None:
    (tmp_path / "network.yaml").write_text(BASE)
    path = tmp_path / "netwerk.yaml"
    assert message_of(lambda: hrg.load(path)) == f"{path}:1:1: there is no such file. Did you mean 'network.yaml'?"


def test_unknown_shipped_spec() -> None:
    assert "hiresnet81:1:1: " in message_of(lambda: hrg.load("hiresnet81"))
    assert "Did you mean 'hiresnet18'?" in message_of(lambda: hrg.load("hiresnet81"))


def test_folder(tmp_path: Path) -> None:
    assert f"{tmp_path}:1:1: expected a file, got a folder." in message_of(lambda: hrg.load(tmp_path))


def test_file_too_large(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"# " + b"x" * MAX_BYTES)
    assert "at most 16 MiB" in message_of(lambda: hrg.load(path))


@pytest.mark.parametrize(
    ("data", "place", "words"),
    [
        (b"name: caf\xe9\n", "1:10", "not UTF-8 (byte 9)"),
        ("name: x\n".encode("utf-16"), "1:1", "UTF-16"),
        (b"name: x\nvalue: \xff\n", "2:8", "not UTF-8"),
    ],
)
def test_not_utf8(tmp_path: Path, data: bytes, place: str, words: str) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(data)
    message = message_of(lambda: hrg.load(path))
    assert message.startswith(f"{path}:{place}: ") and words in message and "Save it as UTF-8." in message


def test_byte_order_mark_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + BASE.encode())
    hrg.load(path).validate()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied"), "may not be read"),
        (OSError(5, "Input/output error"), "Input/output error"),
    ],
)
def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, words: str) -> None:
    # Tests may run as root, whom permissions do not stop.
    path = tmp_path / "secret.yaml"
    path.write_text(BASE)

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Path, "open", refuse)
    message = message_of(lambda: hrg.load(path))
    assert message.startswith(f"{path}:1:1: ") and words in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permissions(tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text(BASE)
    path.chmod(0)
    assert "may not be read" in message_of(lambda: hrg.load(path))


def test_files_that_extend_each_other(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("name: one\nextends: two.yaml\n")
    two.write_text("name: two\nextends: one.yaml\n")
    message = message_of(lambda: hrg.load(one))
    assert message.startswith(f"{two}:2:10: extends: ") or message.startswith(f"{one}:2:10: extends: ")
    assert "extends itself" in message and "Break the circle." in message


def test_an_error_of_the_base_has_its_position_there(tmp_path: Path) -> None:
    base, net = tmp_path / "base.yaml", tmp_path / "net.yaml"
    base.write_text(BASE.replace("stride: 2", "strid: 2"))
    net.write_text("name: net2\nextends: base.yaml\nnodes: {a: {wdth: 3}}\n")
    problems = problems_of(lambda: hrg.load(net).validate())
    assert sorted(str(problem.position) for problem in problems) == [f"{base}:6:31", f"{net}:3:13"]


# ---------------------------------------------------------------------------------------------------------- Python


NET = hrg.load("hiresnet18")


@pytest.mark.parametrize(
    ("key", "value", "place", "words"),
    [
        ("widht", 3, "1:1", "there is no param 'widht'. Did you mean 'width'?"),
        ("stage9.depth", 3, "1:1", "there is no node 'stage9'. Did you mean 'stage"),
        ("stage1.", 3, "1:1", "'stage1.' is no address. Write 'NODE.FIELD=VALUE'."),
        ("stage1.depht", 3, "1:1", "unknown key 'depht'"),
        ("stage1.depth", "x", "1:14", "got 'x'"),
        ("stage1.block9.hidden", 3, "1:1", "'stage1.block9' patches nothing"),
        ("stage1.block1.conv9.bias", True, "1:26", "there is no part 'conv9'"),
        ("stage2.stride", "$w", "1:16", "there is no name 'w' here"),
        ("input.hight", 3, "1:1", "Did you mean 'height'?"),
        ("skips.edges", "ful", "1:13", "Did you mean 'full'?"),
        ("skips.near.edges", "full", "1:1", "the skips have no group 'near'"),
        ("params.x", 3, "1:1", "there is no param 'x'"),
        ("nodes.stage9.width", 3, "", "stage9"),
        ("blocks.x", 3, "1:10", "an entry of 'blocks'"),
        ("name", 3, "1:6", "text, got 3"),
        ("flow", "stem", "1:1", "there is no param 'flow'. Change 'flow' in 'variants' of the spec"),
    ],
)
def test_override(key: str, value: Any, place: str, words: str) -> None:
    problems = problems_of(lambda: NET.override({key: value}).validate())
    assert any(f"override:{place}" in str(problem) and words in str(problem) for problem in problems), problems


@pytest.mark.parametrize(
    ("edges", "column", "words"),
    [
        ("full - p9", 8, "'p9'"),
        ("fulll", 1, "'full'?"),
        ("in + stem>stage9", 11, "'stage9'"),
        ("(in", 1, "never closed"),
        (
            "stem>stage3 - p3",
            1,
            "'stem>stage3 - p3' selects no edge in all (edges of its terms: 'stem>stage3' 1, 'p3' 1)",
        ),
    ],
)
def test_edges_from_the_command_line(edges: str, column: int, words: str) -> None:
    message = message_of(lambda: NET.with_edges(edges).validate())
    assert message.startswith(f"--edges:1:{column}: skips.edges: ") and words in message


def test_edges_of_a_spec_without_skips() -> None:
    assert "the spec has no skips" in message_of(lambda: hrg.load("vgg16").with_edges("full").validate())


def test_unknown_variant() -> None:
    message = message_of(lambda: NET.variant("fulll"))
    assert "there is no variant 'fulll'. Did you mean 'full'?" in message


def test_an_error_in_a_dict_has_a_position_too() -> None:
    net = hrg.from_dict({"name": "x", "input": {"channels": 3}, "nodes": {"a": {"block": "conf"}}})
    assert message_of(net.validate) == "dict:5:21: nodes.a.block: there is no block 'conf'. Did you mean 'conv'?"
