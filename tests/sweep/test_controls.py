import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import UsageError
from hiresnet_graph.sweep import Study
from hiresnet_graph.sweep.controls import Control, control_of, controlled_variant
from hiresnet_graph.sweep.networks import Network, networks_of


def small() -> hrg.Architecture:
    return hrg.load("hiresnet18").override({"width": 4})


def members(*controls: object, variants: object = ("none", "full", "in"), **others: object) -> dict[str, Network]:
    study = Study(network=small(), variants=variants, controls=controls, **others)  # type: ignore[arg-type]
    return {member.info.label: member for member in networks_of(study).members}


def test_a_control_is_a_word_or_a_mapping() -> None:
    assert control_of("adjusted") == Control("adjusted")
    assert control_of("random-edges:full - p2") == Control("random-edges", ("full - p2",))
    assert control_of({"adjusted": ["a", "b"]}) == Control("adjusted", ("a", "b"))
    assert control_of({"random-edges": "in", "draws": 3, "seed": 2}) == Control("random-edges", ("in",), 3, 2)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("ajusted", "there is no control 'ajusted'. Did you mean 'adjusted'?"),
        ("adjusted:", "'adjusted:' lacks the label of a variant."),
        ({}, "a control is missing."),
        ({"random": "in"}, "unknown key 'random'. Did you mean 'random-edges'?"),
        ({"adjusted": "in", "draws": 2}, "unknown key 'draws'."),
        ({"random-edges": []}, "'random-edges' requires the label of a variant, or a list of labels."),
        ({"random-edges": "in", "draws": 0}, "'draws' must be a number from 1 to 1,000, not 0."),
        ({"random-edges": "in", "seed": True}, "'seed' must be a whole number of at least 0, not True."),
    ],
)
def test_invalid_controls_are_reported(entry: object, message: str) -> None:
    with pytest.raises(UsageError) as error:
        control_of(entry)  # type: ignore[arg-type]
    assert message in str(error.value)


def test_the_adjusted_baseline_follows_the_baseline() -> None:
    found = members("adjusted")
    assert list(found) == ["none", "adjusted", "full", "in"]
    none, adjusted, full = (found[label].info for label in ("none", "adjusted", "full"))
    assert none.parameters < adjusted.parameters and abs(adjusted.parameters - full.parameters) <= 20
    assert adjusted.edges == ()
    # the named baseline is widened
    found = members("adjusted", baseline="in")
    assert list(found) == ["none", "full", "in", "adjusted"]
    assert found["adjusted"].info.edges == found["in"].info.edges
    # if the baseline is a control itself, the first variant is widened
    assert members("adjusted", baseline="adjusted")["adjusted"].info.edges == ()


def test_the_baseline_may_be_widened_to_each_variant() -> None:
    found = members({"adjusted": ["full", "in"]})
    assert list(found) == ["none", "adjusted (full)", "adjusted (in)", "full", "in"]
    for label in ("full", "in"):
        off = found[f"adjusted ({label})"].info.parameters - found[label].info.parameters
        assert abs(off) <= 20


def test_each_setting_of_a_grid_has_its_own_widths() -> None:
    study = Study(network=small(), variants=["none", "full"], controls=["adjusted"], grid={"width": [4, 8]})
    counts = [member.info.parameters for member in networks_of(study).members]
    assert len(counts) == 6 and abs(counts[1] - counts[2]) <= 20 and abs(counts[4] - counts[5]) <= 20


def test_random_edges_are_as_many_and_different() -> None:
    found = members("random-edges:in", "random-edges:p2", variants=["none", "in", "p2"])
    assert list(found) == ["none", "in", "3 random edges (in)", "p2", "2 random edges (p2)"]
    for label, number in (("in", 3), ("p2", 2)):
        drawn = found[f"{number} random edges ({label})"].info
        assert len(drawn.edges) == number and set(drawn.edges) != set(found[label].info.edges)
    # independent of the other variants
    assert members("random-edges:in")["3 random edges (in)"].info == found["3 random edges (in)"].info
    assert found["3 random edges (in)"].info.edges == ("stage1>stage2", "stage2>stage3", "stem>stage3")


def test_several_sets_of_random_edges() -> None:
    found = members({"random-edges": "in", "draws": 19})
    drawn = [frozenset(member.info.edges) for label, member in found.items() if label.startswith("3 random")]
    assert len(set(drawn)) == 19 and frozenset(found["in"].info.edges) not in drawn  # all possible sets
    assert list(found)[-1] == "3 random edges (in) 19"
    assert [controlled_variant(label) for label in ("in", "1 random edge (a (b))", list(found)[-1])] == [
        None,
        "a (b)",
        "in",
    ]
    others = members({"random-edges": "in", "draws": 2, "seed": 1})
    assert others["3 random edges (in) 1"].info.edges != found["3 random edges (in) 1"].info.edges


def test_without_labels_all_variants_with_edges_are_controlled() -> None:
    found = members("random-edges", variants=["none", "in", "p3"])
    assert list(found) == ["none", "in", "3 random edges (in)", "p3", "1 random edge (p3)"]


@pytest.mark.parametrize(
    ("controls", "message"),
    [
        (["random-edges"], "no random edges for 'full': there is no other set of 6 among the 6 possible edges"),
        ([{"random-edges": "in", "draws": 20}], "there are only 19 other of 3 among the 6 possible edges"),
        (["adjusted:inn"], "there is no variant 'inn'. Did you mean 'in'?"),
        (["adjusted", "adjusted"], "the label 'adjusted' is given twice"),
    ],
)
def test_impossible_controls_are_reported(controls: list[object], message: str) -> None:
    with pytest.raises(UsageError) as error:
        members(*controls)
    assert message in str(error.value) and str(error.value).startswith("controls[")


def test_a_baseline_that_cannot_be_widened_is_an_error(tiny: hrg.Architecture) -> None:
    with pytest.raises(UsageError, match=r"cannot be widened to .* of 'none': .* already has .* parameters, more than"):
        members("adjusted:none", variants=["full", "none"])
    with pytest.raises(UsageError, match="'tiny' has no block with hidden channels"):
        networks_of(Study(network=tiny, variants=["none", "full"], controls=["adjusted"]))
    with pytest.raises(UsageError, match=r"controls\[0\]: the spec has no skips"):
        networks_of(Study(network="resnet20", variants={"a": {"n": 1}}, controls=["random-edges"]))
