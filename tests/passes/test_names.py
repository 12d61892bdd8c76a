"""Names and addresses: what a name, a pattern or a keyword refers to, at each end of an edge."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hiresnet_graph as hrg
from hiresnet_graph.errors import ExpressionError, SpecError
from hiresnet_graph.passes.names import Addresses, End, name_fault
from hiresnet_graph.spec.pattern import matches

STAGE1 = ["stage1.block1", "stage1.block2"]
STAGE2 = ["stage2.block1", "stage2.block2", "stage2.block3"]
ADDRESSES = Addresses(
    ["input", "right"], ["stem", *STAGE1, "pool", *STAGE2, "head"], {"stage1": STAGE1, "stage2": STAGE2}
)


@pytest.mark.parametrize(
    ("address", "call", "label", "part"),
    [
        ("stem", "stem", "stem", ""),
        ("input", "input", "input", ""),
        ("stage1", "stage1.block2", "stage1", ""),
        ("stage1.block2", "stage1.block2", "stage1", ""),
        ("stage1.block1", "stage1.block1", "stage1.block1", ""),
        ("stage2.block1.conv2", "stage2.block1", "stage2.block1.conv2", "conv2"),
        ("stem.residual.add", "stem", "stem.residual.add", "residual.add"),
    ],
)
def test_a_source_is_the_last_block_of_a_stage(address: str, call: str, label: str, part: str) -> None:
    assert ADDRESSES.sources(address) == [End(call, label, part)]


@pytest.mark.parametrize(
    ("address", "slot", "call", "label"),
    [
        ("stage2", "input", "stage2.block1", "stage2"),
        ("stage2", "residual", "stage2.block3", "stage2"),
        ("stage2", "output", "stage2.block3", "stage2"),
        ("stage2.block1", "input", "stage2.block1", "stage2"),
        ("stage2.block1", "output", "stage2.block1", "stage2.block1"),
        ("stage2.block3", "output", "stage2.block3", "stage2"),
        ("stage2.block3", "input", "stage2.block3", "stage2.block3"),
        ("head", "output", "head", "head"),
    ],
)
def test_a_target_is_the_first_block_for_the_input_and_the_last_for_other_slots(
    address: str, slot: str, call: str, label: str
) -> None:
    assert ADDRESSES.targets(address, slot) == [End(call, label)]


def test_two_names_of_one_end_have_one_label() -> None:
    assert ADDRESSES.sources("stage1") == ADDRESSES.sources("stage1.block2")
    assert ADDRESSES.targets("stage2", "input") == ADDRESSES.targets("stage2.block1", "input")
    assert ADDRESSES.targets("stage2", "output") == ADDRESSES.targets("stage2.block3", "output")


def test_patterns_stay_within_one_part() -> None:
    assert [end.call for end in ADDRESSES.sources("stage1.*")] == STAGE1
    assert [end.call for end in ADDRESSES.sources("*.block1")] == ["stage1.block1", "stage2.block1"]
    assert [end.label for end in ADDRESSES.sources("s*")] == ["stage1", "stage2", "stem"]
    assert [end.call for end in ADDRESSES.targets("stage*", "input")] == ["stage1.block1", "stage2.block1"]
    # No target is an input.
    assert "input" in [end.call for end in ADDRESSES.sources("*")]
    assert "input" not in [end.call for end in ADDRESSES.targets("*", "output")]


def test_levels() -> None:
    assert ADDRESSES.levels(["stem", "stages"]) == ["stem", "stage1", "stage2"]
    assert ADDRESSES.levels(["blocks"]) == [*STAGE1, *STAGE2]
    assert ADDRESSES.levels(["stage*.block1", "head"]) == ["stage1.block1", "stage2.block1", "head"]
    assert ADDRESSES.levels(["input", "pool"]) == ["input", "pool"]


@pytest.mark.parametrize(
    ("call", "words", "hint"),
    [
        (lambda: ADDRESSES.sources("stage3"), "no node 'stage3'", "Did you mean 'stage"),
        (lambda: ADDRESSES.sources("x*"), "matches no node", "Known: input, right"),
        (lambda: ADDRESSES.targets("x*", "input"), "matches no node", "Known: input"),
        (lambda: ADDRESSES.targets("input", "input"), "no edge may end there", ""),
        (lambda: ADDRESSES.targets("stem.conv", "input"), "inside a block", "a slot of the block"),
        (lambda: ADDRESSES.targets("nothing.conv", "input"), "no node 'nothing.conv'", ""),
        (lambda: ADDRESSES.levels(["stem", "x*"]), "'x*' selects no node", ""),
        (lambda: Addresses([], ["a"], {}).levels(["stages"]), "'stages' selects no node", "'depth'"),
    ],
)
def test_unknown_addresses(call: object, words: str, hint: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        call()  # type: ignore[operator]
    assert words in caught.value.message and hint in caught.value.hint


def test_an_error_gives_the_index_of_the_wrong_level() -> None:
    with pytest.raises(ExpressionError) as caught:
        ADDRESSES.levels(["stem", "stages", "hed"])
    assert caught.value.offset == 2


@given(st.text("ab*_.", max_size=8), st.text("ab_.", max_size=8))
def test_patterns_match_like_regular_expressions_within_parts(pattern: str, name: str) -> None:
    regex = re.escape(pattern).replace(r"\*", "[^.]*")
    assert matches(pattern, name) == (re.fullmatch(regex, name) is not None)


def test_many_stars_are_fast() -> None:
    start = time.process_time()
    assert not matches("a*" * 200, "a" * 5000 + "b" + "c" * 100 + ".")
    assert matches("*a" * 200, "a" * 5000)
    assert time.process_time() - start < 1


@pytest.mark.parametrize("name", ["a", "stage1", "V1", "x_y", "resnet18_2"])
def test_names(name: str) -> None:
    assert not name_fault(name)


@pytest.mark.parametrize(
    "name", ["", "1a", "_a", "a-b", "a.b", "a b", "a__b", "é", "input", "edges", "stages", "blocks", "train", "class"]
)
def test_invalid_names(name: str) -> None:
    assert name_fault(name).endswith(".")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("import", "is taken: it is a keyword of Python"),
        ("train", "is taken: it is an attribute of every PyTorch module"),
        ("step3", "is reserved: it is that of a copy of weights for a time step"),
    ],
)
def test_a_name_is_refused_with_its_reason_alone(name: str, reason: str) -> None:
    text = f"name: n\ninput: {{channels: 3}}\nnodes: {{{name}: relu}}\n"
    with pytest.raises(SpecError) as caught:
        _ = hrg.loads(text).plan
    assert [reason in problem.message for problem in caught.value.problems] == [True]
