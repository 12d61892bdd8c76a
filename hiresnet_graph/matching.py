"""Parameter-matched baselines: networks widened, block by block, to a given number of parameters.

The "adjusted" baselines of the paper are of this kind: without them, a network with more edges could be better merely
because it is larger.
"""

from __future__ import annotations

from dataclasses import dataclass

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.blocks import Block
from hiresnet_graph.errors import UsageError

_BEAM = 4000  # partial sums that the search retains
_AROUND = 3  # widths tried on either side of the common factor


@dataclass(frozen=True)
class Adjusted:
    """A widened network.

    Attributes:
        architecture: The network, with one `hidden` patch for each widened block.
        hidden: Block -> its hidden channels, for the widened blocks.
        parameters: Number of parameters; `off` is its difference from the target.
    """

    architecture: Architecture
    hidden: dict[str, int]
    parameters: int
    off: int


@dataclass(frozen=True)
class _Choice:
    """The possible hidden widths of a block: its own, and larger ones in steps of its groups."""

    block: str
    base: int
    step: int

    def width(self, factor: float) -> int:
        """The largest possible width up to `factor` times the base."""
        return self.base + int(self.base * (factor - 1) / self.step) * self.step


def adjust(architecture: Architecture, parameters: int) -> Adjusted:
    """The network with hidden channels widened to about the given number of parameters.

    Every block with hidden channels gets its own number of them, a multiple of its groups and at least its present one.
    Blocks of transformers are widened between their linear maps, so that heads and tokens stay. All are widened by
    about the same factor: among the combinations near it, the closest to the target is selected, and among equally
    close ones the most uniform.

    Raises:
        UsageError: No block has hidden channels, or the network already has more parameters.
    """
    have = architecture.cost().parameters
    choices = _choices(architecture)
    if not choices:
        raise UsageError(
            f"'{architecture.name}' has no block with hidden channels to widen. Residual blocks and those of "
            "transformers have them ('hidden'); other networks are widened by hand, with 'width'."
        )
    if have > parameters:
        raise UsageError(
            f"'{architecture.name}' already has {have:,} parameters, more than {parameters:,}. Reduce its widths first."
        )
    factor = _even_factor(architecture, choices, parameters)
    added = _Added(architecture, have)
    widths = _closest(choices, factor, parameters - have, added)
    hidden = {choice.block: widths[choice.block] for choice in choices if widths[choice.block] != choice.base}
    result = _widened(architecture, hidden)
    count = result.cost().parameters
    return Adjusted(result, hidden, count, count - parameters)


def _choices(architecture: Architecture) -> list[_Choice]:
    """The blocks with weights of their own whose hidden channels can be set."""
    shapes = {node.name: node.shape for node in architecture.plan.nodes}
    found = []
    for node in architecture.graph.nodes:
        if isinstance(node.block, Block) and node.weights == node.name and node.name in shapes:
            base = node.block.hidden_channels(shapes[node.name])
            if base is not None:
                found.append(_Choice(node.name, base, node.block.hidden_step))
    return found


def _widened(architecture: Architecture, hidden: dict[str, int]) -> Architecture:
    return architecture.override({f"{name}.hidden": width for name, width in hidden.items()})


def _even_factor(architecture: Architecture, choices: list[_Choice], parameters: int) -> float:
    """The common factor at which the widened network reaches the target, before rounding to possible widths."""
    low, high = 1.0, 2.0

    def count(factor: float) -> int:
        return _widened(architecture, {c.block: c.width(factor) for c in choices}).cost().parameters

    while count(high) < parameters:
        low, high = high, 2 * high
        if high > 1e5:
            raise UsageError(f"no width gives '{architecture.name}' {parameters:,} parameters.")
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if count(middle) < parameters else (low, middle)
    return low


class _Added:
    """The number of parameters that a block's width adds, counted on the network once per width."""

    def __init__(self, architecture: Architecture, have: int) -> None:
        self._architecture, self._have = architecture, have
        self._known: dict[tuple[str, int], int] = {}

    def __call__(self, block: str, width: int) -> int:
        key = (block, width)
        if key not in self._known:
            self._known[key] = _widened(self._architecture, {block: width}).cost().parameters - self._have
        return self._known[key]


def _closest(choices: list[_Choice], factor: float, missing: int, added: _Added) -> dict[str, int]:
    """Widths near the common factor whose sum of added parameters is closest to `missing`.

    A beam search over partial sums, block by block: for each sum it retains the most uniform widths, and of all sums
    those from which the remaining blocks come closest to the target.
    """
    options = []
    for choice in choices:
        middle = choice.width(factor)
        widths = [middle + k * choice.step for k in range(-_AROUND, _AROUND + 1)]
        options.append([(w, added(choice.block, w), abs(w / choice.base - factor)) for w in widths if w >= choice.base])
    expected_rest = [0.0] * (len(choices) + 1)
    for i in range(len(choices) - 1, -1, -1):
        nearest = min(options[i], key=lambda option: option[2])
        expected_rest[i] = expected_rest[i + 1] + nearest[1]
    sums: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    for i, choice_options in enumerate(options):
        following: dict[int, tuple[float, tuple[int, ...]]] = {}
        for total, (deviation, widths_so_far) in sums.items():
            for width, more, distance in choice_options:
                candidate = (deviation + distance**2, (*widths_so_far, width))
                key = total + more
                if key not in following or candidate < following[key]:
                    following[key] = candidate
        retained = sorted(following, key=lambda total: abs(total + expected_rest[i + 1] - missing))[:_BEAM]
        sums = {total: following[total] for total in retained}
    best = min(sums, key=lambda total: (abs(total - missing), sums[total][0]))
    return dict(zip((choice.block for choice in choices), sums[best][1], strict=True))
