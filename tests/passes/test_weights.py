"""Names of shared weights."""

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import SpecError

EYES = """
name: eyes
input: {channels: 3, height: 8, width: 8}
nodes:
  left: {block: conv2d, width: 3, weights: eye}
  right: {block: conv2d, width: 3, weights: eye}
  stage: {block: conv, width: 3, depth: 2}
  head: {block: classifier, classes: 2}
flow: left -> right -> stage -> head
variants:
  without: {flow: left -> stage -> head, nodes: {right: null}}
"""


def warnings(
    change: tuple[str, str] = ("", ""), variant: str | None = None, **override: str
) -> list[tuple[str, str, str]]:
    """Path, message and hint of each warning."""
    net = hrg.loads(EYES.replace(*change)).variant(variant)
    made = net.override({key.replace("_", "."): value for key, value in override.items()})
    return [(problem.path, problem.message, problem.hint) for problem in made.warnings]


def test_weights_with_several_users_are_no_warning() -> None:
    assert warnings() == []
    assert (
        warnings(("weights: eye}\n  stage", "weights: left}\n  stage"), left_weights="left") == []
    )  # the name of a node


def test_a_misspelt_name_is_a_warning() -> None:
    found = warnings(("weights: eye}\n  stage", "weights: eyes}\n  stage"))
    message = "no other node or edge has the weights '{}', so that nothing is shared."
    assert found == [
        ("nodes.left", message.format("eye"), "Did you mean 'eyes'?"),
        ("nodes.right", message.format("eyes"), "Did you mean 'eye'?"),
    ]


def test_a_stage_that_was_meant_to_be_tied_is_a_warning() -> None:
    ((path, message, hint),) = warnings(stage_weights="tied")
    assert (
        path == "nodes.stage"
        and "'tied'" in message
        and hint == "To tie the blocks of the stage, write 'weights: shared'."
    )
    assert warnings(stage_weights="shared") == []


def test_weights_whose_other_user_was_removed_are_no_warning() -> None:
    assert warnings(variant="without") == []


def test_an_edge_and_a_block_of_the_spec_are_users() -> None:
    edge = "edges: [{from: left, to: stage, block: conv2d, width: 3, name: e, weights: %s}]\nvariants:"
    assert [path for path, *_ in warnings(("variants:", edge % "own"))] == ["edges[0]"]
    assert warnings(("variants:", edge % "eye")) == []
    block = "blocks: {b: {nodes: {c: {block: conv2d, width: 3, weights: %s}}, flow: c}}\nvariants:"
    assert warnings(("variants:", block % "tied"), stage_weights="tied") == []


@pytest.mark.parametrize("word", ["none", "None", "no", "off", "'true'", "'null'", "'0'"])
def test_a_name_that_reads_like_no_weights_is_refused(word: str) -> None:
    """Two nodes with 'weights: none' would share them."""
    edge = f"edges: [{{from: left, to: stage, block: conv2d, width: 3, weights: {word}}}]\nvariants:"
    for text in (EYES.replace("weights: eye", f"weights: {word}"), EYES.replace("variants:", edge)):
        with pytest.raises(SpecError, match="would be the name of weights that are shared"):
            hrg.loads(text).validate()
