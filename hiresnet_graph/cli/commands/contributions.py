"""`hrg analyze contributions`: what each edge contributes where it arrives."""

from hiresnet_graph.cli.analysis import plain_command

contributions = plain_command(
    "make_contributions",
    """Measure what each edge contributes where it arrives.

Prints the mean absolute activation of each value that is merged at a node, over all images: that of the block
itself, of its shortcut, and of each edge after its projection; and its share, which sums to 1 at each merge. For a
study, the mean (standard deviation) over seeds of each network; a network in time has a merge at each step.
""",
)
