"""Random mistakes in the text of a spec: what a person, an editor or a merge conflict may do to it. Seeded."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

# A spec with what the shipped ones lack, so that mutations reach it too.
RICH = """\
name: rich
description: Everything at once.
params:
  width: 4
  twice: $(2 * width)
  shape: {spatial: adaptive, norm: group}
input:
  left: {channels: 2, height: 9, width: 8}
  right: {channels: 3}
blocks:
  conv3: {block: conv, kernel_size: 3, norm: group}
  halve: {block: pool, pool: max, kernel_size: 2, stride: 2, ceil_mode: true}
  cell:
    params: {width: , scale: 1}
    nodes:
      a: {block: conv3, width: $(scale * width), kernel_size: 1}
      b: {block: basic, width: $width, depth: 2}
      out: {block: identity, merge: concat}
    flow: [input -> a -> out, input -> b -> out]
    edges: [{from: input, to: out, projection: {channels: none, norm: none}}]
nodes:
  stem: {block: conv, width: $width, activation: gelu}
  stage1: {block: basic, width: $width, depth: 3, hidden: $(width + 2 * i), weights: tied}
  stage2: {block: bottleneck, width: $twice, depth: 2, stride: 2}
  stage3: {block: preact_basic, width: $twice, depth: 2, weights: shared, per_step: none, shortcut: {norm: none}}
  stage*.block2: {norm: batch}
  stage1.block3.conv2: {bias: true}
  cell1: {block: cell, width: $twice, scale: 2}
  squeeze: {block: adaptive_avg_pool, size: 1}
  gate: {block: conv, width: $twice, kernel_size: 1, norm: none, activation: sigmoid, merge: mean}
  join: {block: identity, merge: {kind: concat, order: [cell1, stem]}}
  tail: {block: classifier, classes: 3, dropout: 0.25}
  vector: {block: linear, width: 5}
flow:
  - left -> stem -> stage1 -> stage2 -> stage3 -> cell1 -> join -> tail
  - stem -> squeeze -> gate
  - right -> vector
skips:
  near: {levels: [stem, "stage*.block*"], edges: full - p1 + stem>stage2, merge: weighted}
  far:
    edges: ["stem>join", "stage1.block1>join"]
    slot: input
    projection: $shape
    merge: {kind: concat, order: [cell1, stem]}
edges:
  - {from: stem, to: stage2, slot: residual, gate: gate, projection: {spatial: max}, name: gated}
  - from: [stage1.block1.conv1, stem]
    to: cell1
    slot: output
    block: conv3
    width: 4
    projection: {spatial: stride, channels: pad, norm: none}
outputs: [tail, vector]
variants:
  none: {skips: {near: {edges: none}, far: {edges: none}}}
  wide: {params: {width: 8}, nodes: {stage2: {hidden: null}}}
  less:
    skips: {far: null}
    edges: [{from: stem, to: stage2, name: gated, slot: output, projection: standard}]
"""

# And the language of time.
IN_TIME = """\
name: in time
params: {width: 4, steps: 8, late: [2, 4]}
input: {channels: 2, height: 8, width: 8}
blocks:
  self: {block: brc2, identity: true}
  loop:
    params: {times: 2}
    nodes: {drive: {block: conv, width: $in_width, per_step: all}, held: {block: conv, width: $in_width}}
    flow: input -> drive -> held
    edges: [{from: held, to: held, delay: 1, at: [1]}]
    time: {steps: $times, input: first, per_step: norm_stats, empty: zeros}
nodes:
  pre: {block: conv, width: $width}
  s1: {block: state, shape: [$width, 8, 8]}
  s2: {block: state, shape: [$(2 * width), 4, 4], merge: mean}
  s3: {block: state, shape: [6, 2, 3]}
  area: {block: basic, width: 6, depth: 2, weights: shared, per_step: norm_stats}
  again: {block: loop, times: 3}
  pool: adaptive_avg_pool
  gate: {block: conv, width: 1, kernel_size: 1, norm: none, activation: sigmoid, per_step: none}
  post: {block: classifier, classes: 3}
flow:
  - pre -> s1
  - s3 -> area -> again -> post
  - pre -> pool -> gate
skips: {edges: [pre>s1], projection: {norm: layer}, delay: 2, slot: output}
transitions:
  edges: all - s3>s2 + feedback
  s1: {s1: self, s2: brc2, s3: {block: brc2, norm: group, at: $late, hidden: 3, per_step: all}}
  s2:
    s1: {block: brd2, spatial: nearest, gate: gate}
    s2: [{block: brc2, weights: w}, {block: relu, delay: 2, name: slow}]
    s3: {projection: {spatial: adaptive}}
  s3: {s1: {block: brd2, delay: 3}, s2: brd2, s3: {block: brc2, weights: own}}
edges:
  - {from: area, to: s3, delay: 1, projection: {when: always, norm: none}}
  - {from: post, to: post, delay: 1, slot: output, merge: gated}
time: {steps: $steps, delay: 1, input: every, empty: skip, readout: last, per_step: norm, past: last, norm_scale: 0.1}
variants:
  adjacent: {transitions: {edges: adjacent, s1: {s2: {at: [1, 2, 3]}, s3: null}}}
  film: {time: {input: sequence, readout: all, empty: zeros}, transitions: {s3: {s1: null}}}
"""

_TOKEN = re.compile(r"[A-Za-z_][\w.]*|\d+(?:\.\d+)?|->|[^\s\w]")
# fmt: off
_WORDS = [
    "name", "params", "input", "nodes", "blocks", "flow", "skips", "edges", "levels", "merge", "projection",
    "variants", "outputs", "extends", "description", "block", "depth", "width", "stride", "hidden", "weights",
    "shared", "tied", "norm", "batch", "none", "full", "in", "out", "p1", "p2", "p9", "stem", "stage1", "stage2",
    "head", "stages", "from", "to", "slot", "residual", "output", "gate", "delay", "conv", "basic", "plain",
    "bottleneck", "identity", "classifier", "add", "concat", "mean", "channels", "height", "spatial", "avg",
    "stride", "conv1x1", "when", "always", "i", "$i", "$width", "$(1/0)", "$(width", "$)", "$(", "$()",
    "$(width**width)", "time", "transitions", "stage1.block1", "stage*.block*", "*.block1", "__", "a__b", "null",
    "true", ".nan", ".inf", "-.inf", "~", "[]", "{}", "->", ">", "+", "-", "&", "(", ")", ":", ",", '"', "'", "|",
    "steps", "readout", "at", "first", "every", "sequence", "zeros", "skip", "last", "all", "per_step", "norm_stats",
    "past", "empty", "state", "shape", "brc2", "brd2", "s1", "s2", "s3", "feedback", "lateral", "bypass", "adjacent",
    "#", "$$", "*x", "&x", "!!python/object:os.system", "!!int", "<<",
]
_NUMBERS = [
    "-1", "0", "1", "2", "3", "7", "10", "1.5", "-0.0", "1e9", "1e400", "10000", "1000000", "1000001",
    "1000000000000000", "99999999999999999999999", "0x10", "0o17", "08", "1_000", '"4"', "four", ".5", "5.",
    "-.inf",
]
# fmt: on
_LINES = """
  extra: 1
unknown: {a: 1}
  new: {block: conv, width: 4}
  new: conv
edges: [{from: stem, to: head}]
edges: [{from: a, to: b, delay: 1}]
skips: {edges: full}
skips: {levels: [stages, stem], edges: full - p1, merge: concat}
outputs: [head, nothing]
time: {steps: 3}
time: {steps: 3, input: sequence, readout: all, per_step: all, empty: zeros}
time:
transitions: {stem: {head: brc2}, edges: all}
transitions: {stem: {stem: [brc2, {block: relu, name: other}]}}
  s1: {s2: null, s1: {at: []}}
  s4: {block: state, shape: [3]}
edges: [{from: stem, to: stem, delay: 1, at: 1, per_step: norm, weights: stem}]
extends: resnet20
extends: no_such_spec
extends: .
extends: /
variants: {v: {edges: p1}, w: {params: {width: null}}, x: null, y: {nodes: {head: null}}, z: {input: {channels: 0}}}
- item
}
{
"
\t- tab
--- # document
...
%YAML 9.9
? complex: key
: value
a: &a [*a]
a: &a {b: [1, 2]}
b: *a
  stage1.block1.conv2: {stride: 3, width: 9}
  "*.block1": {width: 3}
  "*": {norm: none}
""".splitlines()[1:]
_CHARACTERS = "\u00e9\u00df\u4e2d\u0437\U0001f600\u200b\u00a0\ufeff\u2028\x85\x00\x07\ud800\t\\'\"`@%|>&*!?#\r\n"


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _delete_line(rng: random.Random, text: str) -> str:
    lines = _lines(text)
    del lines[rng.randrange(len(lines))]
    return "".join(lines)


def _duplicate_line(rng: random.Random, text: str) -> str:
    lines = _lines(text)
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
    return "".join(lines)


def _swap_lines(rng: random.Random, text: str) -> str:
    lines = _lines(text)
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]
    return "".join(lines)


def _insert_line(rng: random.Random, text: str) -> str:
    lines = _lines(text)
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(_LINES) + "\n")
    return "".join(lines)


def _indent_line(rng: random.Random, text: str) -> str:
    lines = _lines(text)
    i = rng.randrange(len(lines))
    lines[i] = lines[i].lstrip(" ") if rng.random() < 0.4 else rng.choice([" ", "  ", "    ", "\t"]) + lines[i]
    return "".join(lines)


def _token(rng: random.Random, text: str, pattern: re.Pattern[str] = _TOKEN) -> tuple[int, int] | None:
    # Comments are left alone: a change there says nothing.
    code = re.sub(r"#.*", lambda match: " " * len(match[0]), text)
    found = [match.span() for match in pattern.finditer(code)]
    return rng.choice(found) if found else None


def _replace(rng: random.Random, text: str, pattern: re.Pattern[str], words: list[str]) -> str:
    span = _token(rng, text, pattern)
    return text if span is None else text[: span[0]] + rng.choice(words) + text[span[1] :]


def _change_token(rng: random.Random, text: str) -> str:
    return _replace(rng, text, _TOKEN, _WORDS)


def _change_number(rng: random.Random, text: str) -> str:
    return _replace(rng, text, re.compile(r"\b\d+(?:\.\d+)?\b"), _NUMBERS)


def _change_value(rng: random.Random, text: str) -> str:
    values = [
        "null",
        "[]",
        "{}",
        "[1, [2]]",
        "{a: {b: c}}",
        "true",
        "text",
        "-3",
        "1.5",
        "$width",
        "$(width",
        "''",
        "[a, b]",
    ]
    return _replace(rng, text, re.compile(r"(?<=: )[^\n{}\[\],#]+"), values)


def _change_flow(rng: random.Random, text: str) -> str:
    return _replace(rng, text, re.compile(r"->|>"), ["->", ">", "<-", "-", "--", "->->", ",", "", "-> ->", "=>"])


def _break_expression(rng: random.Random, text: str) -> str:
    words = ["+", "(", ")", "&", "-", "p0", "p9", "1/0", "x", "$", "**9**9", "'", "[0]", ".real", "lambda: 0", "%"]
    span = _token(rng, text, re.compile(r"\$\([^)\n]*\)|edges: [^\n{}\[\]]+"))
    if span is None:
        return _change_token(rng, text)
    at = rng.randint(*span)
    return text[:at] + rng.choice(words) + text[at:]


def _delete_token(rng: random.Random, text: str) -> str:
    span = _token(rng, text)
    return text if span is None else text[: span[0]] + text[span[1] :]


def _swap_tokens(rng: random.Random, text: str) -> str:
    one, two = _token(rng, text), _token(rng, text)
    if one is None or two is None or one[1] > two[0]:
        return text
    return text[: one[0]] + text[slice(*two)] + text[one[1] : two[0]] + text[slice(*one)] + text[two[1] :]


def _insert_character(rng: random.Random, text: str) -> str:
    at = rng.randint(0, len(text))
    return text[:at] + rng.choice(_CHARACTERS) + text[at:]


def _truncate(rng: random.Random, text: str) -> str:
    return text[: rng.randrange(len(text))]


def _rename(rng: random.Random, text: str) -> str:
    """One word everywhere: to another word of the text, or to one of the language."""
    span, other = _token(rng, text, re.compile(r"[A-Za-z_]\w*")), _token(rng, text)
    if span is None or other is None:
        return text
    word = rng.choice([text[slice(*other)], rng.choice(_WORDS)])
    return re.sub(rf"\b{re.escape(text[slice(*span)])}\b", lambda _: word, text)


MUTATIONS: tuple[Callable[[random.Random, str], str], ...] = (
    _delete_line,
    _duplicate_line,
    _swap_lines,
    _insert_line,
    _indent_line,
    _change_token,
    _change_token,
    _change_number,
    _change_number,
    _change_value,
    _change_flow,
    _break_expression,
    _break_expression,
    _delete_token,
    _swap_tokens,
    _insert_character,
    _truncate,
    _rename,
)


def mutated(rng: random.Random, text: str) -> str:
    """The text with one to three mistakes in it."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        text = rng.choice(MUTATIONS)(rng, text) or " "
    return text
