"""`hrg analyze similarity`: linear CKA between the levels of a trained network, and between its runs."""

from hiresnet_graph.cli.analysis import plain_command

similarity = plain_command(
    "make_similarities",
    """Measure how similar the levels of a trained network are.

Prints linear centred kernel alignment (CKA) for each pair of levels (nodes, and the last blocks of stages): 1 for
the same representation up to rotation and scale. For a study, the mean (standard deviation) over seeds of each
network, and the similarity between its runs with different seeds. A network in time is compared by its last values.
""",
)
