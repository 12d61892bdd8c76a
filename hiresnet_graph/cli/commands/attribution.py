"""`hrg analyze attribution`: the logit of the right class as a sum over edges."""

from hiresnet_graph.cli.analysis import plain_command

attribution = plain_command(
    "make_attributions",
    """Write the logit of the right class as a sum over edges.

Prints what each value that meets at the last merge adds to the logit of the right class, and what remains without
them; means over images. The sum is exact where the network is linear after that merge, as before global average
pooling and a linear layer. Otherwise the parts are integrated gradients, and the error of their sum is printed.
""",
)
