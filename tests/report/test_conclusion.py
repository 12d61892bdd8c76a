"""The sentence that a report opens with."""

from hiresnet_graph.report import conclude
from tests.report.studies import Net, study

LOW, HIGH = (80.0, 80.5, 81.0, 80.2), (85.0, 85.7, 85.9, 85.1)


def test_found_differences_have_their_evidence_and_others_their_limit() -> None:
    text = conclude(study(Net("base", LOW), Net("better", HIGH), Net("like it", (80.1, 80.4, 81.1, 80.2))))
    assert text.startswith("better is 5.00 points more accurate than base (95 % CI ")
    assert (
        "p < 0.001 after Holm's correction). No difference from base was found for like it; true differences below"
        in text
    )
    worse = conclude(study(Net("base", HIGH), Net("worse", LOW)))
    assert worse.startswith("worse is 5.00 points less accurate than base (95 % CI ")
    assert "-" not in worse


def test_the_edge_that_matters_most() -> None:
    nets = [Net("none", LOW, edges=()), Net("a>b", HIGH, edges=("a>b",))]
    assert conclude(study(*nets, subsets_of=("a>b",))).startswith(
        "The edge a>b matters most: with it accuracy is 5.00 points higher ("
    )
    nets = [Net("none", HIGH, edges=()), Net("a>b", LOW, edges=("a>b",))]
    assert "5.00 points lower" in conclude(study(*nets, subsets_of=("a>b",)))


def test_what_cannot_be_concluded_is_said() -> None:
    assert conclude(study(Net("a", ("waiting",)))) == (
        "The study is unfinished, with 1 run still to be trained. No run is finished, so nothing can be concluded."
    )
    one_seed = conclude(study(Net("a", (90.0,)), Net("b", (95.0,))))
    assert one_seed == (
        "Nothing can be concluded about differences: the spread over seeds is unknown. Train at least three seeds of "
        "each network."
    )
    assert "not tested" in conclude(study(Net("a", LOW), Net("b", HIGH), is_search=True))


def test_differences_beyond_all_accuracies_are_not_called_detectable() -> None:
    noise = conclude(study(Net("base", (78.55, 36.77)), Net("long", (40.0, 87.0))))
    assert noise == (
        "No difference from base was found for long; with so few runs even the largest possible one would often be "
        "missed, so train more seeds."
    )


def test_rows_of_a_grid_are_named_with_their_settings() -> None:
    slow, fast = {"recipe.lr": 0.01, "width": 8}, {"recipe.lr": 0.1, "width": 8}
    nets = [Net(label, row, setting=at) for at in (slow, fast) for label, row in (("base", LOW), ("new", LOW[::-1]))]
    text = conclude(study(*nets))
    assert "was found for new (lr=0.01, width=8) and new (lr=0.1, width=8); true differences below" in text


def test_labels_are_shown_as_they_are() -> None:
    assert conclude(study(Net("base", LOW), Net("BASELINE", HIGH))).startswith("BASELINE is 5.00 points more accurate ")


def test_differences_without_any_spread_are_not_called_unknown() -> None:
    higher = tuple(score + 5 for score in LOW)
    assert conclude(study(Net("base", LOW), Net("new", higher))) == (
        "Nothing can be concluded about differences: each is the same with every seed, so its error cannot be "
        "estimated. Train more seeds."
    )


def test_one_more_is_in_the_singular() -> None:
    rows = [LOW[i % 4 :] + LOW[: i % 4] for i in range(1, 6)]
    assert "n1, n2, n3, n4 and 1 other; true" in conclude(
        study(Net("base", LOW), *(Net(f"n{i}", row) for i, row in enumerate(rows, 1)))
    )
    better = [Net(f"n{i}", HIGH) for i in range(5)]
    assert conclude(study(Net("base", LOW), *better)).endswith(" 1 more network differs from base.")


def test_long_lists_are_shortened() -> None:
    rows = [LOW[i % 4 :] + LOW[: i % 4] for i in range(1, 8)]
    text = conclude(study(Net("base", LOW), *(Net(f"n{i}", row) for i, row in enumerate(rows, 1))))
    assert text.startswith("No difference from base was found for n1, n2, n3, n4 and 3 others; true differences below ")


def test_effects_are_those_of_each_setting() -> None:
    none, some = {"recipe.lr": 0.1}, {"recipe.lr": 0.01}
    nets = [
        Net("none", LOW, setting=none),
        Net("a>b", LOW[::-1], setting=none, edges=("a>b",)),
        Net("none", LOW, setting=some),
        Net("a>b", HIGH, setting=some, edges=("a>b",)),
    ]
    text = conclude(study(*nets, subsets_of=("a>b",)))
    assert text.startswith("At lr=0.1: No effect was found of a>b; ")
    assert "At lr=0.01: The edge a>b matters most: with it accuracy is 5.00 points higher (" in text
    settings = [{"recipe.lr": 1 / n} for n in range(1, 7)]
    sets: dict[str, tuple[str, ...]] = {"none": (), "a>b": ("a>b",)}
    many = [Net(label, LOW, setting=at, edges=edges) for at in settings for label, edges in sets.items()]
    assert conclude(study(*many, subsets_of=("a>b",))).endswith("The effects at 2 more settings are tested, too.")


def test_effects_without_an_error_are_not_called_effects_without_runs() -> None:
    nets = [Net("none", (80.0, 81.0)), Net("a>b", (82.0, 83.0), edges=("a>b",))]
    assert conclude(study(*nets, subsets_of=("a>b",))) == (
        "Nothing can be concluded about single edges: each effect is the same with every seed, so its error cannot be "
        "estimated. Train more seeds."
    )
