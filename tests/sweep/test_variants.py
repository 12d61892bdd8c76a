import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import SpecError, UsageError
from hiresnet_graph.sweep import Study, Variant, enumerate_variants
from hiresnet_graph.sweep.networks import networks_of
from hiresnet_graph.sweep.variants import entries_of, variant_of


def edges_of(arch: hrg.Architecture) -> set[tuple[str, str]]:
    return {edge.ends for edge in arch.plan.edges if edge.family == "skip"}


def grouped() -> hrg.Architecture:
    return hrg.loads(
        """
name: grouped
input: {channels: 1, height: 4, width: 4}
nodes: {a: {block: conv, width: 2}, b: {block: conv, width: 2}, c: {block: conv, width: 2}}
flow: a -> b -> c
skips:
  short: {edges: [a>b, b>c]}
  long: {levels: [a, b, c], edges: a>c, slot: input}
"""
    )


def test_every_family_of_the_paper_is_a_variant() -> None:
    arch = hrg.load("hiresnet18")
    variants = enumerate_variants(arch, "family")
    assert [variant.label for variant in variants] == ["none", "full", "in", "out", "p1", "p2", "p3"]
    for variant in variants[1:]:
        assert variant.apply(arch).plan.digest() == arch.variant(variant.label).plan.digest()
    assert variants[0].apply(arch).plan.digest() == arch.variant("original").plan.digest()


def test_all_subsets_of_the_paper_s_network() -> None:
    arch = hrg.load("hiresnet18")
    variants = enumerate_variants(arch, "all")
    assert len({variant.label for variant in variants}) == len(variants) == 64
    assert (variants[0].label, variants[-1].label) == ("none", "all")
    for variant in (variants[0], variants[5], variants[20], variants[-1]):
        chosen = {tuple(edge.split(">")) for edge in str(variant.edges).split(" + ") if ">" in edge}
        assert edges_of(variant.apply(arch)) == chosen


def test_leaving_one_out(tiny: hrg.Architecture) -> None:
    variants = enumerate_variants(tiny, "leave-one-out")
    whole = {("stem", "stage1"), ("stem", "stage2"), ("stage1", "stage2")}
    assert variants[0].label == "all"
    assert edges_of(variants[0].apply(tiny)) == whole
    for variant in variants[1:]:
        source, target = variant.label.removeprefix("without ").split(">")
        assert edges_of(variant.apply(tiny)) == whole - {(source, target)}
    assert len({variant.label for variant in variants}) == 4


def test_the_edges_are_those_that_the_network_has(tiny: hrg.Architecture) -> None:
    variants = enumerate_variants(tiny.with_edges("in"), "one-at-a-time")
    assert [variant.label for variant in variants] == ["none", "stem>stage1", "stem>stage2"]


def test_groups_of_skips_are_separate() -> None:
    arch = grouped()
    variants = enumerate_variants(arch, "one-at-a-time", "short")
    assert variants == [
        Variant("none", "none", "short"),
        Variant("a>b", "a>b", "short"),
        Variant("b>c", "b>c", "short"),
    ]
    assert edges_of(variants[1].apply(arch)) == {("a", "b"), ("a", "c")}
    assert [variant.label for variant in enumerate_variants(arch, "family", "long")][-1] == "p2"
    with pytest.raises(UsageError, match=r"are in groups. Choose one with '--group': long, short"):
        enumerate_variants(arch, "all")
    with pytest.raises(SpecError):
        enumerate_variants(arch, "family", "other")
    with pytest.raises(UsageError, match=r"no skips in a group 'shrt'. Did you mean 'short'"):
        enumerate_variants(arch, "all", "shrt")


def test_none_is_without_the_skips_of_all_groups() -> None:
    arch = hrg.from_dict({**grouped().tree, "variants": {"bare": {"edges": "none"}}})
    (none, whole) = named(arch, ["none", "grouped"])
    assert edges_of(none.apply(arch)) == edges_of(arch.variant("bare")) == set()
    assert whole.apply(arch).plan.digest() == arch.plan.digest() and len(edges_of(arch)) == 3
    with pytest.raises(SpecError, match="Write '--edges GROUP=EXPR', or 'none' for no skips at all"):
        _ = arch.with_edges("full").plan


def test_a_network_without_skips_has_no_subsets(tiny: hrg.Architecture) -> None:
    with pytest.raises(UsageError, match="'tiny' has no skips to take subsets of"):
        enumerate_variants(tiny.with_edges("none"), "all")
    without = {key: value for key, value in tiny.tree.items() if key not in ("skips", "variants")}
    with pytest.raises(UsageError, match=r"no key 'skips': move the edges that may be absent from 'flow' to it"):
        enumerate_variants(hrg.from_dict(without), "all")


def named(arch: hrg.Architecture, names: list[str] | dict[str, object]) -> list[Variant]:
    return [variant_of(arch, label, value) for _, label, value in entries_of(names)]


def test_named_variants_are_those_of_the_spec_or_edge_sets(tiny: hrg.Architecture) -> None:
    variants = named(tiny, ["original", " in", "full - p1"])
    assert variants == [Variant("original", variant="original"), Variant("in", "in"), Variant("full - p1", "full - p1")]
    assert edges_of(variants[0].apply(tiny)) == set()
    assert edges_of(variants[1].apply(tiny)) == {("stem", "stage1"), ("stem", "stage2")}
    assert edges_of(variants[2].apply(tiny)) == {("stem", "stage2")}
    assert named(tiny, ["tiny", "in"]) == [Variant("tiny"), Variant("in", "in")]
    assert named(tiny.variant("full"), ["full"]) == [Variant("full", variant="full")]
    with pytest.raises(UsageError, match="'orginal' is neither a variant nor an edge set"):
        named(tiny, ["orginal"])
    with pytest.raises(SpecError, match="nowhere"):
        _ = named(tiny, ["stem>nowhere"])[0].apply(tiny).plan


def test_a_label_may_stand_for_changes(tiny: hrg.Architecture) -> None:
    variants = named(
        tiny,
        {
            "base": "original",
            "long": "p2",
            "two": {"edges": ["p2", "stem>stage1"]},
            "wide": {"variant": "original", "width": 8, "stage1.depth": 2},
        },
    )
    assert [variant.label for variant in variants] == ["base", "long", "two", "wide"]
    base, long, two, wide = (variant.apply(tiny) for variant in variants)
    assert edges_of(base) == edges_of(wide) == set() and edges_of(long) == {("stem", "stage2")}
    assert edges_of(two) == {("stem", "stage2"), ("stem", "stage1")}
    expected = tiny.variant("original").override({"width": 8, "stage1.depth": 2})
    assert wide.plan.digest() == expected.plan.digest() != base.plan.digest()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "'x' must be an edge set, the name of a variant, or changes"),
        ({"changes": {"width": 8}}, "'x': changes stand beside 'edges', without 'changes'"),
        (None, "'x' must be an edge set"),
        ({"edges": 3}, "the edges of 'x' must be an edge set"),
        ({"variant": "ful"}, "'tiny' has no variant 'ful'. Did you mean 'full'"),
        ("ful", "'ful' is neither a variant nor an edge set. Did you mean 'full'"),
    ],
)
def test_invalid_changes_are_reported(tiny: hrg.Architecture, value: object, message: str) -> None:
    with pytest.raises(UsageError) as error:
        variant_of(tiny, "x", value)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("names", [[], ["in", "in"], ["in", ""]])
def test_variants_have_different_names(tiny: hrg.Architecture, names: list[str]) -> None:
    with pytest.raises(UsageError, match="variants"):
        networks_of(Study(network=tiny, variants=names))


def test_a_wrong_rule_names_the_right_one(tiny: hrg.Architecture) -> None:
    with pytest.raises(UsageError, match=r"there is no subset rule 'famly'. Did you mean 'family'"):
        enumerate_variants(tiny, "famly")
    with pytest.raises(UsageError, match="sizes range from 0 to 3"):
        enumerate_variants(tiny, "size:9")
