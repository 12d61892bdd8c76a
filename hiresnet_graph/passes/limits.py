"""Limits on the size of a network, so that a short line cannot request more than a machine can hold."""

MAX_NODES = 100_000
MAX_EDGES = 100_000
MAX_LEVELS = 1_000
"""Of one section of a spec."""
MAX_CALLS = 100_000
"""Blocks and operations of a network."""
MAX_UNROLLED_CALLS = 200_000
"""Operations of a network in time, over all steps."""
MAX_TIMED_CALLS = 1_000_000
"""Operations, over all steps, in the search for the number of steps with which every edge reaches the readout."""
MAX_NESTING = 32
"""Definitions of blocks in terms of each other."""


class TooLarge(Exception):
    """A limit is exceeded. The problem is recorded."""
