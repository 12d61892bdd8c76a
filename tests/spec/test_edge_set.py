"""Edge sets: grammar, meaning, canonical text, and the place of every mistake."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiresnet_graph.errors import ExpressionError
from hiresnet_graph.spec.edge_set import EdgeSet, EdgeSetError

X = ("x0", "x1", "x2", "x3")


def single(a: str, b: str) -> Iterable[tuple[str, str]]:
    return [(a, b)]


def selected(text: str | Sequence[str], levels: Sequence[str] = X) -> set[str]:
    return {f"{a}>{b}" for a, b in EdgeSet.parse(text).select(levels, single)}


def error(text: str | Sequence[str], levels: Sequence[str] = X) -> EdgeSetError:
    with pytest.raises(EdgeSetError) as caught:
        EdgeSet.parse(text).select(levels, single)
    assert caught.value.message.endswith(".") and (not caught.value.hint or caught.value.hint[-1] in ".?")
    return caught.value


FULL = {"x0>x1", "x0>x2", "x0>x3", "x1>x2", "x1>x3", "x2>x3"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", set()),
        ("full", FULL),
        ("in", {"x0>x1", "x0>x2", "x0>x3"}),
        ("out", {"x0>x3", "x1>x3", "x2>x3"}),
        ("p1", {"x0>x1", "x1>x2", "x2>x3"}),
        ("p2", {"x0>x2", "x1>x3"}),
        ("p03", {"x0>x3"}),
        ("stem>stage2", {"stem>stage2"}),
        (" stem  >\tstage2 ", {"stem>stage2"}),
        ("stage*.block*>stage2.block1.conv2", {"stage*.block*>stage2.block1.conv2"}),
        ("in>out", {"in>out"}),
        ("full - p2", FULL - {"x0>x2", "x1>x3"}),
        ("full-p2-p3", {"x0>x1", "x1>x2", "x2>x3"}),
        ("full - (p2 - p3)", FULL - {"x0>x2", "x1>x3"}),
        ("full - p2 + x0>x2", FULL - {"x1>x3"}),
        ("in & out", {"x0>x3"}),
        ("in + out & p1", {"x0>x1", "x0>x2", "x0>x3", "x2>x3"}),
        ("(in + out) & p1", {"x0>x1", "x2>x3"}),
        ("in & p1 & full", {"x0>x1"}),
        ("((full))", FULL),
        ("none + p3", {"x0>x3"}),
        ("full - a>b", FULL),
        (["p3", "a>b"], {"x0>x3", "a>b"}),
        (["full - p2", "p1", "in - p1"], FULL - {"x1>x3"}),
        ([], set()),
    ],
)
def test_select(text: str | Sequence[str], expected: set[str]) -> None:
    assert selected(text) == expected


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("p1 & p2", "'p1' 3, 'p2' 2"),
        ("in & p1 - p1", "'in & p1' 1, 'p1' 3"),
        ("none - full", "'none' 0, 'full' 6"),
        (["full - full", "none"], "'full' 6, 'full' 6, 'none' 0"),
        ("p1 - p1 - p2 - p3 - in - out - full", "'p1' 3, 'p1' 3, 'p2' 2, 'p3' 1, 'in' 3, 'out' 3, ..."),
        ("none", ""),
        ("none + none & none", ""),
        (["none"], ""),
        ([], ""),
    ],
)
def test_why_a_set_is_empty(text: str | Sequence[str], terms: str) -> None:
    edge_set = EdgeSet.parse(text)
    assert edge_set.select(X, single) == frozenset()
    expected = f"'{edge_set}' selects no edge in all (edges of its terms: {terms})." if terms else ""
    assert edge_set.why_empty(X, single) == expected


def test_single_edges_need_no_levels() -> None:
    assert selected("a>b + none", ()) == {"a>b"}


def test_an_address_may_stand_for_several_edges() -> None:
    def pairs(a: str, b: str) -> Iterable[tuple[str, str]]:
        return ((a, f"b{i}") for i in range(3)) if b == "b*" else [(a, b)]

    assert EdgeSet.parse("a>b* - a>b1").select((), pairs) == {("a", "b0"), ("a", "b2")}


@pytest.mark.parametrize(
    ("text", "offset", "message", "hint"),
    [
        ("", 0, "may not be empty", "'none'"),
        ("  ", 0, "may not be empty", "'none'"),
        ("p9", 0, "'p9' selects nothing: levels x0..x3 have distances 1 to 3.", ""),
        ("full - p4", 7, "levels x0..x3 have distances 1 to 3", ""),
        ("p0", 0, "'p0' selects nothing: distances start at 1.", ""),
        ("in + p00", 5, "'p00' selects nothing", ""),
        ("p99999999999999999999", 0, "too large", ""),
        ("stem", 0, "no set 'stem'", "'stem>TO'"),
        ("in + ful", 5, "no set 'ful'", "Did you mean 'full'?"),
        ("Full", 0, "no set 'Full'", "Did you mean 'full'?"),
        ("p", 0, "no set 'p'", "'p1'"),
        ("a-b>c", 0, "no set 'a'", "'a>TO'"),
        ("b>a-b", 4, "no set 'b'", ""),
        ("a->b", 1, "'->' belongs to 'flow'", "'FROM>TO'"),
        ("full + (a -> b)", 10, "'->' belongs to 'flow'", ""),
        ("(a>b) -> c", 6, "'->' belongs to 'flow'", ""),
        ("a>", 2, "expected a node's name after '>', got the end", ""),
        ("a> + b", 3, "expected a node's name after '>', got '+'", ""),
        (">b", 0, "got '>'", "'FROM>TO'"),
        ("a>b>c", 3, "an edge has two ends", ""),
        ("a..b>c", 0, "'a..b' is no address", ""),
        ("c>a.", 2, "'a.' is no address", ""),
        ("(full", 0, "'(' is never closed", ""),
        ("in + (full & (p1)", 5, "'(' is never closed", ""),
        ("full)", 4, "')' closes nothing", ""),
        ("()", 1, "got ')'", ""),
        ("full p1", 5, "expected '+', '-' or '&' here, got 'p1'", ""),
        ("(full p1)", 6, "expected '+', '-', '&' or ')' here, got 'p1'", ""),
        ("full, p1", 4, "got ','", "list of texts"),
        ("full | p1", 5, "got '|'", "'+'"),
        ("full + ", 6, "got the end", ""),
        ("- full", 0, "got '-'", ""),
        ("full + + p1", 7, "got '+'", ""),
        ("full + é", 7, "got 'é'", ""),
        ("full + $x", 7, "got '$'", ""),
        ("(" * 51 + "full" + ")" * 51, 50, "50 deep", ""),
    ],
)
def test_mistakes(text: str, offset: int, message: str, hint: str) -> None:
    got = error(text)
    assert (got.offset, message in got.message, hint in got.hint) == (offset, True, True), (got.message, got.hint)
    assert got.text == text and got.item is None


@pytest.mark.parametrize("word", ["full", "in", "out", "p1"])
def test_sets_need_levels(word: str) -> None:
    got = error(f"a>b + {word}", ())
    assert got.offset == 6 and "levels:" in got.hint
    assert "one level only" in error(word, ("x0",)).message


def test_two_levels_have_one_distance() -> None:
    assert "levels x0..x1 have distance 1 only" in error("p2", ("a", "b")).message


def test_mistakes_in_a_list_name_the_item() -> None:
    got = error(["full", "in + stm", "a>b"])
    assert (got.item, got.offset, got.text) == (1, 5, "in + stm")
    got = error(["full", "a>b", "in + p7"])
    assert (got.item, got.offset, got.text) == (2, 5, "in + p7")
    got = error(["full", ""])
    assert (got.item, got.offset) == (1, 0)
    with pytest.raises(EdgeSetError) as caught:
        EdgeSet.parse(["full", 3])  # type: ignore[list-item]
    assert caught.value.item == 1 and "got 3" in caught.value.message


@pytest.mark.parametrize(
    ("text", "inner", "offset"),
    [("in + a>b", 0, 5), ("in + a>b", 2, 7), ("in + aa  >  b", 0, 5), ("in + aa  >  b", 3, 12)],
)
def test_mistakes_of_an_address_are_placed(text: str, inner: int, offset: int) -> None:
    def pairs(a: str, b: str) -> Iterable[tuple[str, str]]:
        raise ExpressionError("no such node.", inner, "Look again.")

    for given_, item in ((text, None), (["full", text], 1)):
        with pytest.raises(EdgeSetError) as caught:
            EdgeSet.parse(given_).select(X, pairs)
        got = caught.value
        assert (got.message, got.offset, got.hint, got.item) == ("no such node.", offset, "Look again.", item)


def test_an_edge_that_stands_for_nothing_is_a_mistake() -> None:
    with pytest.raises(EdgeSetError, match=r"'a\*>b' selects nothing") as caught:
        EdgeSet.parse("full + a* > b").select(X, lambda a, b: [])
    assert caught.value.offset == 7


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("full", "full"),
        ("full-p02", "full - p2"),
        (" a >b", "a>b"),
        ("(a>b)", "a>b"),
        ("in+out&p1", "in + out & p1"),
        ("(in+out)&p1", "(in + out) & p1"),
        ("in & (out & p1)", "in & out & p1"),
        ("in + (out + p1)", "in + out + p1"),
        ("in - (out + p1)", "in - out - p1"),
        ("in - (out - p1)", "in - (out - p1)"),
        ("in + (out - p1)", "in + (out - p1)"),
        ("(in - out) + p1", "in - out + p1"),
        (["full - p2", "in - p1", "a>b"], "full - p2 + (in - p1) + a>b"),
        ([], "none"),
    ],
)
def test_canonical_text(text: str | Sequence[str], canonical: str) -> None:
    edge_set = EdgeSet.parse(text)
    assert str(edge_set) == canonical
    assert EdgeSet.parse(canonical) == edge_set and hash(EdgeSet.parse(canonical)) == hash(edge_set)
    assert repr(edge_set) == f"EdgeSet.parse({canonical!r})"


def test_operators() -> None:
    full, p2, edge = EdgeSet.parse("full"), EdgeSet.parse("p2"), EdgeSet.parse("a>b")
    assert full - p2 + edge == EdgeSet.parse("full - p2 + a>b")
    assert full & (p2 + edge) == EdgeSet.parse("full & (p2 + a>b)")
    assert full - "p2 + in" == EdgeSet.parse("full - p2 - in")
    assert str(full) == "full" and str(p2) == "p2"
    with pytest.raises(TypeError):
        full + 3  # type: ignore[operator]


def test_values_are_fixed_and_can_be_copied() -> None:
    edge_set = EdgeSet.parse("full - (p2 - a>b) & in")
    with pytest.raises(AttributeError):
        edge_set._node = None  # type: ignore[misc,assignment]
    for new in (copy.deepcopy(edge_set), pickle.loads(pickle.dumps(edge_set))):
        assert new == edge_set and str(new) == str(edge_set)
    assert len({edge_set, EdgeSet.parse(str(edge_set))}) == 1
    assert edge_set != EdgeSet.parse("full")
    got = pickle.loads(pickle.dumps(error(["full", "in + p9"])))
    assert (got.message, got.offset, got.text, got.item) == (error("p9").message, 5, "in + p9", 1)


def test_many_edges_are_no_deep_tree() -> None:
    texts = [f"a{i}>b{i}" for i in range(20_000)]
    for edge_set in (EdgeSet.parse(texts), EdgeSet.parse(" + ".join(texts))):
        assert len(edge_set.select((), single)) == 20_000
        assert EdgeSet.parse(str(edge_set)) == edge_set
    both = EdgeSet.parse("full")
    with pytest.raises(EdgeSetError, match="50 deep"):
        for _ in range(60):
            both = (both & "in") + "a>b"


TOKENS = ["none", "full", "in", "out", "p1", "p9", "p0", "p", "a", "b.c", "x*", ">", "->", *"+-&(),$é.7 "]
SETS = st.recursive(
    st.sampled_from(["none", "full", "in", "out", "p1", "p2", "x0>x2", "a>b"]),
    lambda inner: st.one_of(st.tuples(inner, st.sampled_from("+-&"), inner), inner),
    max_leaves=8,
)
Tree = str | tuple["Tree", str, "Tree"]


def written(tree: Tree) -> str:
    return tree if isinstance(tree, str) else f"({written(tree[0])}){tree[1]}({written(tree[2])})"


def meant(tree: Tree) -> frozenset[tuple[str, str]]:
    if isinstance(tree, str):
        return EdgeSet.parse(tree).select(X, single)
    a, b = meant(tree[0]), meant(tree[2])
    return a | b if tree[1] == "+" else a - b if tree[1] == "-" else a & b


def built(tree: Tree) -> EdgeSet:
    if isinstance(tree, str):
        return EdgeSet.parse(tree)
    a, b = built(tree[0]), built(tree[2])
    return a + b if tree[1] == "+" else a - b if tree[1] == "-" else a & b


@given(SETS)
def test_text_operators_and_meaning_agree(tree: Tree) -> None:
    edge_set = EdgeSet.parse(written(tree))
    assert edge_set.select(X, single) == meant(tree)
    assert EdgeSet.parse(str(edge_set)) == edge_set
    assert built(tree) == edge_set
    assert EdgeSet.parse(str(edge_set)).select(X, single) == meant(tree)


@given(st.lists(SETS.map(written), max_size=4))
def test_a_list_is_a_union(texts: list[str]) -> None:
    union: frozenset[tuple[str, str]] = frozenset().union(*(EdgeSet.parse(text).select(X, single) for text in texts))
    assert EdgeSet.parse(texts).select(X, single) == union


@settings(deadline=None, max_examples=300)
@given(
    st.one_of(
        st.text(),
        st.lists(st.sampled_from(TOKENS), max_size=20).map("".join),
    )
)
def test_only_edge_set_errors_come_out(text: str) -> None:
    try:
        edge_set = EdgeSet.parse(text)
        assert EdgeSet.parse(str(edge_set)) == edge_set
        edge_set.select(X, single)
    except EdgeSetError as caught:
        assert 0 <= caught.offset <= len(text) and caught.message.endswith(".")
