"""Edge sets: which edges over a list of levels x0 ... xL a line like `full - p2 + stem>stage2` means.

    set   = and (("+" | "-") and)*          left to right
    and   = atom ("&" atom)*                "&" binds tighter
    atom  = none | full | in | out | p<k> | kind | address ">" address | "(" set ")"
    kind  = all | forward | feedback | lateral | adjacent | bypass

The kinds are of edges in both directions, as networks in time have them: `lateral` from a level to itself, `forward` to
a later one, `feedback` to an earlier one, `adjacent` to itself and the two next to it, `bypass` farther than these.

One grammar serves files, the command line and Python. What an address stands for is for the caller to say; here it is
text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from hiresnet_graph.errors import ExpressionError, did_you_mean

__all__ = ["PLUS", "EdgeSet", "EdgeSetError", "write_edges"]

Edges = frozenset[tuple[str, str]]
Pairs = Callable[[str, str], Iterable[tuple[str, str]]]

MAX_NESTING = 50
PLUS = " + "
"""Between the edges of a set that is written as text."""
_SHOWN_TERMS = 6
_KINDS: dict[str, Callable[[int], bool]] = {
    "all": lambda way: True,
    "forward": lambda way: way > 0,
    "feedback": lambda way: way < 0,
    "lateral": lambda way: way == 0,
    "adjacent": lambda way: abs(way) <= 1,
    "bypass": lambda way: abs(way) > 1,
}
"""Kind -> whether an edge is of it that goes this many levels up."""
_FAMILIES = ("full", "in", "out")
_WORDS = ("none", *_FAMILIES, *_KINDS)


def write_edges(edges: Iterable[str]) -> str:
    """Edges as a set, like `stem>stage2 + stage1>stage3`; `none` if there are none."""
    return PLUS.join(edges) or "none"


class EdgeSetError(ExpressionError):
    """An edge-set expression is wrong at character `offset` of `text`, which is item `item` of the list that was given.

    `item` is None if a single text was given.
    """

    def __init__(
        self, message: str, offset: int = 0, hint: str = "", *, text: str = "", item: int | None = None
    ) -> None:
        super().__init__(message, offset, hint)
        self.text, self.item = text, item

    def __reduce__(self) -> tuple[Any, ...]:
        return _error, (self.message, self.offset, self.hint, self.text, self.item)


def _error(message: str, offset: int, hint: str, text: str, item: int | None) -> EdgeSetError:
    return EdgeSetError(message, offset, hint, text=text, item=item)


@dataclass(frozen=True, slots=True)
class _Where:
    """Where an atom was written."""

    text: str
    offset: int
    item: int | None

    def fail(self, message: str, hint: str = "", shift: int = 0) -> NoReturn:
        raise EdgeSetError(message, self.offset + shift, hint, text=self.text, item=self.item)


@dataclass(frozen=True, slots=True)
class _Family:
    """`none`, `full`, `in`, `out`, a kind, or `p<k>` as ("p", k)."""

    word: str
    distance: int
    where: _Where = field(compare=False, repr=False)

    depth = 0

    def __str__(self) -> str:
        return f"p{self.distance}" if self.word == "p" else self.word

    def select(self, levels: Sequence[str], pairs: Pairs) -> Edges:
        if self.word == "none":
            return frozenset()
        count = len(levels)
        if count == 0:
            hint = "Give 'levels:', like [stem, stages], or name edges, like 'stem>stage2 + stem>stage3'."
            self.where.fail(f"'{self}' counts over levels, and there are none.", hint)
        if count == 1 and self.word not in ("all", "lateral", "adjacent"):
            self.where.fail(f"'{self}' selects nothing: there is one level only, x0.", "Give two levels or more.")
        last = count - 1
        if self.word in _KINDS:
            found = {(levels[i], levels[j]) for i in range(count) for j in range(count) if _KINDS[self.word](j - i)}
            if not found:
                self.where.fail(f"'{self}' selects nothing: there are {count} levels only.")
            return frozenset(found)
        if self.word == "full":
            return frozenset((levels[i], levels[j]) for i in range(count) for j in range(i + 1, count))
        if self.word == "in":
            return frozenset((levels[0], target) for target in levels[1:])
        if self.word == "out":
            return frozenset((source, levels[last]) for source in levels[:last])
        if self.distance > last:
            span = f"distances 1 to {last}" if last > 1 else "distance 1 only"
            self.where.fail(f"'{self}' selects nothing: levels x0..x{last} have {span}.")
        return frozenset(zip(levels, levels[self.distance :], strict=False))


@dataclass(frozen=True, slots=True)
class _Single:
    """One `A>B`."""

    source: str
    target: str
    where: _Where = field(compare=False, repr=False)
    target_shift: int = field(compare=False, repr=False)

    depth = 0

    def __str__(self) -> str:
        return f"{self.source}>{self.target}"

    def select(self, levels: Sequence[str], pairs: Pairs) -> Edges:
        try:
            found = frozenset(pairs(self.source, self.target))
        except ExpressionError as error:
            # The offset counts in `A>B`; spaces may have been written around the `>`.
            target = len(self.source) + 1
            shift = error.offset if error.offset < target else error.offset - target + self.target_shift
            raise EdgeSetError(
                error.message, self.where.offset + shift, error.hint, text=self.where.text, item=self.where.item
            ) from None
        if not found:
            self.where.fail(f"'{self}' selects nothing: it stands for no edge.")
        return found


@dataclass(frozen=True, slots=True)
class _Sum:
    """Terms that are added or taken away, from left to right; the first is added."""

    terms: tuple[tuple[str, _Node], ...]
    depth: int = field(compare=False, repr=False)

    def __str__(self) -> str:
        (_, first), *rest = self.terms
        return str(first) + "".join(f" {sign} {_bracketed(term, _Sum)}" for sign, term in rest)

    def select(self, levels: Sequence[str], pairs: Pairs) -> Edges:
        found: set[tuple[str, str]] = set()
        for sign, term in self.terms:
            if sign == "+":
                found |= term.select(levels, pairs)
            else:
                found -= term.select(levels, pairs)
        return frozenset(found)


@dataclass(frozen=True, slots=True)
class _Both:
    """Terms whose common edges are selected."""

    terms: tuple[_Node, ...]
    depth: int = field(compare=False, repr=False)

    def __str__(self) -> str:
        return " & ".join(_bracketed(term, _Sum) for term in self.terms)

    def select(self, levels: Sequence[str], pairs: Pairs) -> Edges:
        first, *rest = [term.select(levels, pairs) for term in self.terms]
        return first.intersection(*rest)


_Node = _Family | _Single | _Sum | _Both


def _bracketed(node: _Node, kind: type[_Sum]) -> str:
    return f"({node})" if isinstance(node, kind) else str(node)


def _is_none(node: _Node) -> bool:
    """Whether all words of a set are `none`."""
    if isinstance(node, _Sum):
        return all(_is_none(term) for _, term in node.terms)
    if isinstance(node, _Both):
        return all(map(_is_none, node.terms))
    return isinstance(node, _Family) and node.word == "none"


def _sum(left: _Node, sign: str, right: _Node) -> _Node:
    return _sum_of([("+", left), (sign, right)])


def _sum_of(given: Iterable[tuple[str, _Node]]) -> _Node:
    """One flat sum. Brackets go where they say nothing: a ± (b + c) is a ± b ± c; a ± (b - c) has to stay."""
    terms: list[tuple[str, _Node]] = []
    for sign, node in given:
        if not isinstance(node, _Sum):
            terms.append((sign, node))
        elif not terms:
            terms += node.terms
        elif all(inner == "+" for inner, _ in node.terms):
            terms += [(sign, term) for _, term in node.terms]
        else:
            terms.append((sign, node))
    return terms[0][1] if len(terms) == 1 else _Sum(tuple(terms), max(term.depth for _, term in terms) + 1)


def _both(left: _Node, right: _Node) -> _Node:
    terms = tuple(term for node in (left, right) for term in (node.terms if isinstance(node, _Both) else (node,)))
    return _Both(terms, max(term.depth for term in terms) + 1)


@dataclass(frozen=True, slots=True)
class EdgeSet:
    """A set of edges, as written: which edges it means is known once there are levels.

    Equal if written alike, up to spaces and to brackets that say nothing. `+ - &` give new sets; a text may stand on
    their right.
    """

    _node: _Node

    @classmethod
    def parse(cls, text: str | Sequence[str]) -> EdgeSet:
        """The set that a text means, or the union of those of several texts.

        Raises:
            EdgeSetError: At a character of the text (of item `.item` of the texts).
        """
        if isinstance(text, str):
            return cls(_Parser(text, None).parse())
        nodes = [_Parser(item, i).parse() for i, item in enumerate(text)]
        if not nodes:
            return cls(_Family("none", 0, _Where("none", 0, None)))
        return cls(_sum_of(("+", node) for node in nodes))

    def select(self, levels: Sequence[str], pairs: Pairs) -> Edges:
        """The selected edges.

        Args:
            levels: x0 ... xL in flow order; may be empty where only single edges are named.
            pairs: Gives the edges of one `A>B`; it may raise an ExpressionError with its offset inside `A>B`.
        Raises:
            EdgeSetError: A part selects nothing (and is not `none`), at its character.
        """
        return self._node.select(levels, pairs)

    def why_empty(self, levels: Sequence[str], pairs: Pairs) -> str:
        """Why the set selects no edge, as a sentence that counts the edges of its terms; empty if all of it is `none`.

        Args:
            levels, pairs: As of `select`.
        """
        if _is_none(self._node):
            return ""
        nodes = [self._node]
        if isinstance(self._node, _Sum):
            nodes = [term for _, term in self._node.terms]
        elif isinstance(self._node, _Both):
            nodes = list(self._node.terms)
        counts = [f"'{node}' {len(node.select(levels, pairs))}" for node in nodes[:_SHOWN_TERMS]]
        more = ", ..." if len(nodes) > _SHOWN_TERMS else ""
        return f"'{self}' selects no edge in all (edges of its terms: {', '.join(counts)}{more})."

    def __str__(self) -> str:
        return str(self._node)

    def __repr__(self) -> str:
        return f"EdgeSet.parse({str(self)!r})"

    def __add__(self, other: EdgeSet | str) -> EdgeSet:
        return self._joined(other, lambda node: _sum(self._node, "+", node))

    def __sub__(self, other: EdgeSet | str) -> EdgeSet:
        return self._joined(other, lambda node: _sum(self._node, "-", node))

    def __and__(self, other: EdgeSet | str) -> EdgeSet:
        return self._joined(other, lambda node: _both(self._node, node))

    def _joined(self, other: EdgeSet | str, join: Callable[[_Node], _Node]) -> EdgeSet:
        if isinstance(other, str):
            other = EdgeSet.parse(other)
        if not isinstance(other, EdgeSet):
            return NotImplemented
        node = join(other._node)
        if node.depth > MAX_NESTING:
            raise EdgeSetError(f"an edge set may be nested {MAX_NESTING} deep, this one would be deeper.")
        return EdgeSet(node)


_TOKEN = re.compile(r"\s*(?:([A-Za-z0-9_.*]+)|(.))", re.DOTALL)
_WORD = re.compile(r"[A-Za-z0-9_.*]+")
_PART = re.compile(r"[A-Za-z0-9_*]+(?:\.[A-Za-z0-9_*]+)*")
_DISTANCE = re.compile(r"p([0-9]+)")
_EDGE_HINT = "An edge is written 'FROM>TO', with the names of two nodes."


class _Parser:
    """One text, from left to right."""

    def __init__(self, text: str, item: int | None) -> None:
        self.text, self.item = text, item
        if not isinstance(text, str):
            self.text = ""
            self.fail(f"an edge set is text, got {text!r}.", 0)
        self.tokens = [
            (match[1] or match[2], match.start(1) if match[1] else match.start(2))
            for match in _TOKEN.finditer(text.rstrip())
        ]
        self.index = 0

    def fail(self, message: str, offset: int, hint: str = "") -> NoReturn:
        raise EdgeSetError(message, offset, hint, text=self.text, item=self.item)

    def parse(self) -> _Node:
        if not self.tokens:
            self.fail("an edge set may not be empty.", 0, "Write 'none' for no edges.")
        node = self.sum(0)
        token, offset = self.peek()
        if token == ")":
            self.fail("this ')' closes nothing.", offset)
        if token:
            self.unexpected("expected '+', '-' or '&' here", token, offset)
        return node

    def peek(self, ahead: int = 0) -> tuple[str, int]:
        index = self.index + ahead
        return self.tokens[index] if index < len(self.tokens) else ("", len(self.text.rstrip()))

    def unexpected(self, wanted: str, token: str, offset: int) -> NoReturn:
        got = f"'{token}'" if token else "the end"
        hint = ""
        if token == ",":
            hint = "Write '+' between sets, or a list of texts."
        elif token == ">":
            hint = _EDGE_HINT
        elif token == "|":
            hint = "A union is written '+'."
        self.fail(f"{wanted}, got {got}.", offset, hint)

    def sum(self, depth: int) -> _Node:
        terms: list[tuple[str, _Node]] = []
        sign = "+"
        while True:
            node = self.both(depth)
            terms.append((sign, node))
            token, offset = self.peek()
            if token not in ("+", "-"):
                break
            sign = token
            self.index += 1
            if token == "-" and self.peek() == (">", offset + 1):
                self.fail("'->' belongs to 'flow'.", offset, _EDGE_HINT)
        return _sum_of(terms)

    def both(self, depth: int) -> _Node:
        terms: list[_Node] = []
        while True:
            node = self.atom(depth)
            terms += node.terms if isinstance(node, _Both) else [node]
            if self.peek()[0] != "&":
                break
            self.index += 1
        return terms[0] if len(terms) == 1 else _Both(tuple(terms), max(term.depth for term in terms) + 1)

    def atom(self, depth: int) -> _Node:
        token, offset = self.peek()
        if token == "(":
            if depth >= MAX_NESTING:
                self.fail(f"an edge set may be nested {MAX_NESTING} deep, this one is deeper.", offset)
            self.index += 1
            node = self.sum(depth + 1)
            closing, at = self.peek()
            if closing == "":
                self.fail("this '(' is never closed.", offset)
            if closing != ")":
                self.unexpected("expected '+', '-', '&' or ')' here", closing, at)
            self.index += 1
            return node
        if not token or not _is_word(token):
            self.unexpected("expected a set or an edge here", token, offset)
        self.index += 1
        if self.peek()[0] == ">":
            return self.edge(token, offset)
        if self.peek()[0] == "-" and self.peek(1) == (">", self.peek()[1] + 1):
            self.fail("'->' belongs to 'flow'.", self.peek()[1], _EDGE_HINT)
        return self.family(token, offset)

    def edge(self, source: str, offset: int) -> _Node:
        self.index += 1
        target, at = self.peek()
        if not target or not _is_word(target):
            self.unexpected("expected a node's name after '>'", target, at)
        self.index += 1
        for address, place in ((source, offset), (target, at)):
            if not _PART.fullmatch(address):
                self.fail(f"'{address}' is no address: a part between its dots is empty.", place)
        after, place = self.peek()
        if after == ">":
            self.fail("an edge has two ends.", place, "Write 'a>b + b>c' for two edges.")
        return _Single(source, target, _Where(self.text, offset, self.item), at - offset)

    def family(self, word: str, offset: int) -> _Node:
        where = _Where(self.text, offset, self.item)
        if word in _WORDS:
            return _Family(word, 0, where)
        if match := _DISTANCE.fullmatch(word):
            digits = match[1].lstrip("0")
            if not digits:
                self.fail(f"'{word}' selects nothing: distances start at 1.", offset)
            if len(digits) > 9:
                self.fail("this distance is too large.", offset)
            return _Family("p", int(digits), where)
        hint = did_you_mean(word, (*_WORDS, "p1"))
        if hint.startswith("Did"):
            hint = f"{hint} {_EDGE_HINT}"
        else:
            hint = f"Sets are none, full, in, out and p1, p2, ...; an edge is written '{word}>TO'."
        self.fail(f"there is no set '{word}'.", offset, hint)


def _is_word(token: str) -> bool:
    return _WORD.fullmatch(token) is not None
