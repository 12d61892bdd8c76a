"""What a user may write: the keys of a spec, after templates are evaluated."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from hiresnet_graph.float32 import Float32Model
from hiresnet_graph.ops import Factor
from hiresnet_graph.shapes import Map, Shape, Tokens, Vector

Count = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
Step = Annotated[int, Field(ge=0, le=10_000, strict=True)]
Texts = str | list[str]
Slot = Literal["input", "residual", "output"]
PerStep = Literal["none", "norm_stats", "norm", "all"]
"""What has one copy for each call: nothing, running statistics of norms, norms whole, or all weights."""
MAX_DEPTH = 1_000
"""Blocks that one stage may have."""
MAX_STEPS = 10_000
"""Time steps that a network may be asked for."""


class Model(Float32Model):
    """Frozen; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)


class InputSpec(Model):
    """The shape of one input: a feature map; with `length` or `grid`, tokens; with `channels` alone, a vector."""

    channels: Count = Field(description="Channels of an image, features of a token, or the length of a vector.")
    height: Count | None = Field(None, description="Pixels; that of `width`, if a feature map has no other.")
    width: Count | None = Field(None, description="Pixels; that of `height`, if a feature map has no other.")
    length: Count | None = Field(None, description="Number of tokens.")
    grid: tuple[Count, Count] | None = Field(None, description="Height and width that tokens came from.")
    prefix: Annotated[int, Field(ge=0, le=1_000_000, strict=True)] | None = Field(
        None, description="Class and register tokens before those of the grid."
    )

    @model_validator(mode="after")
    def _check(self) -> InputSpec:
        if self.length is None and self.grid is None:
            if self.prefix is not None:
                raise ValueError("'prefix' requires tokens. Set 'length' or 'grid'.")
            return self
        if self.height is not None or self.width is not None:
            raise ValueError("tokens have 'length' or 'grid'; 'height' and 'width' are those of a feature map.")
        try:
            self.shape  # noqa: B018
        except ValueError as error:
            raise ValueError(f"{error} Leave out 'length'.") from None
        return self

    @property
    def shape(self) -> Shape:
        """Without the batch."""
        if self.length is not None or self.grid is not None:
            prefix, own = self.prefix or 0, 0 if self.grid is None else self.grid[0] * self.grid[1]
            return Tokens(self.length or prefix + own, self.channels, self.grid, prefix)
        if self.height is None and self.width is None:
            return Vector(self.channels)
        return Map(self.channels, self.height or self.width or 1, self.width or self.height or 1)


class NodeSpec(Model):
    """A node: these keys, and beside them the fields of its block."""

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)
    block: str = Field(description="A registered block, a primitive operation, or an entry of `blocks`.")
    depth: Annotated[int, Field(ge=1, le=MAX_DEPTH, strict=True)] | None = Field(
        None, description="The node is a stage of this many blocks, named NODE.block1, NODE.block2, ..."
    )
    weights: str | None = Field(
        None, description="Name of the weights, to share them; `shared` ties all blocks of a stage."
    )
    per_step: PerStep | None = Field(
        None,
        description="What has a copy for each time step; in a tied stage, for each block (there `norm` by default).",
    )
    merge: str | dict[str, Any] | None = Field(None, description="How the values at the slot `input` become one.")


class ScaleSpec(Model):
    """The factor of an edge, in full."""

    learned: bool = Field(True, strict=True, description="Whether it is a parameter; otherwise it is always `init`.")
    gate: bool = Field(False, strict=True, description="Whether the factor is the sigmoid of the parameter.")
    init: Factor | None = Field(None, description="Initial value of the parameter; 1, or 0 for a gate.")


class ConnectionSpec(Model):
    """What skips and edges have in common."""

    slot: Slot | None = Field(
        None,
        description="Where it arrives: `input`; `residual`, before the last activation of a residual block; `output`.",
    )
    merge: str | dict[str, Any] | None = Field(None, description="A merge, or a mapping with `kind` and its fields.")
    projection: str | dict[str, Any] | None = Field(
        None, description="A registered projection, or a mapping with spatial, channels, norm and when."
    )
    delay: Annotated[int, Field(ge=0, le=1000, strict=True)] | None = Field(
        None, description="Time steps that the value takes."
    )
    at: Step | Annotated[list[Step], Field(min_length=1)] | None = Field(
        None, description="The step, or steps, at which a value may arrive; without it, at each."
    )
    scale: Literal["none", "learned", "gate"] | Factor | ScaleSpec | None = Field(
        None,
        description="A factor on each of these edges alone, after its projection: one learned number, a learned gate, "
        "or a constant; by default none, or that of the merge.",
    )
    gate: str | None = Field(None, description="A node by whose output the value is multiplied.")


class SkipSpec(ConnectionSpec):
    """A group of skips."""

    levels: Texts | None = Field(None, description="Nodes, patterns, `stages` or `blocks`: x0 ... xL.")
    edges: Texts = Field(description="An edge-set expression, or a list of them.")


class EdgeSpec(ConnectionSpec):
    """One edge (or all pairs of two lists): these keys, and beside them the fields of its block."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True, defer_build=True)
    source: Texts = Field(alias="from", description="A node, a list of nodes or a pattern.")
    target: Texts = Field(alias="to", description="A node, a list of nodes or a pattern.")
    name: str | None = Field(None, description="Name of its weights in the state_dict, below `edges`.")
    block: str | None = Field(None, description="A block on the edge.")
    weights: str | None = Field(None, description="Name of the weights on the edge, to share them.")
    per_step: PerStep | None = Field(None, description="What on the edge has a copy for each time step.")


class TransitionSpec(ConnectionSpec):
    """An entry of `transitions`: these keys, and beside them the fields of its block."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True, defer_build=True)
    block: str | None = Field(None, description="A block on the edge, like `brc2`.")
    name: str | None = Field(None, description="Name of its weights in the state_dict, below `edges`.")
    weights: str | None = Field(None, description="Name of the weights on the edge, to share them.")
    per_step: PerStep | None = Field(None, description="What on the edge has a copy for each time step.")


class TimeSpec(Model):
    """How a network runs in time: steps t = 0 ... steps - 1, and nothing holds a value before."""

    steps: Annotated[int, Field(ge=1, le=MAX_STEPS, strict=True)] = Field(description="Number of time steps.")
    delay: Literal[0, 1] = Field(
        0, description="Default delay of flow and skips; from the input and into an output it is 0."
    )
    input: Literal["first", "every", "sequence"] = Field(
        "every", description="The input holds x at step 0, at every step, or x[:, t]."
    )
    empty: Literal["skip", "zeros"] = Field(
        "skip", description="What stands for a value that is not there: it is left out, or is a zero tensor."
    )
    readout: Literal["last", "all"] | Step = Field(
        "last", description="The step whose output comes out, or all that have one, stacked on axis 1."
    )
    per_step: PerStep = Field("norm", description="What has a copy for each time step.")
    past: Literal["error", "last"] = Field(
        "error",
        description="What a norm uses at a step for which it has no copy: that is an error, or the latest one before.",
    )
    norm_scale: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Initial scale of the norms; Cooijmans et al. 2016 (arXiv:1603.09025) start at 0.1."
    )


class NormsSpec(Model):
    """Fields of all norms of a file that do not set them."""

    eps: Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="Added to the variance.")
    momentum: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Weight of a new batch in the running statistics of batch norms."
    )


class SectionSpec(Model):
    """The keys that a spec and an entry of `blocks` share."""

    params: dict[str, Any] = Field(default_factory=dict, description="Names for templates, with their default values.")
    nodes: dict[str, Any] = Field(description="Name -> block and its fields; a dotted key patches what it names.")
    flow: Texts = Field(default_factory=list, description="Chains like `stem -> stage1 -> head`.")
    skips: dict[str, Any] | None = Field(None, description="A group of skips, or named groups.")
    edges: list[dict[str, Any]] = Field(default_factory=list, description="Single edges.")
    transitions: dict[str, Any] | None = Field(
        None,
        description="Edges that take one time step, as a matrix: row -> column -> block; `edges` selects some of them.",
    )
    time: dict[str, Any] | None = Field(None, description="Steps, delays and readout of a recurrent network.")


class ArchitectureSpec(SectionSpec):
    """A spec file."""

    name: str = Field(description="Name of the network.")
    description: str = Field("", description="A sentence about it.")
    extends: str | None = Field(None, description="A shipped spec or a file (relative to this one) that this patches.")
    input: dict[str, Any] = Field(description="Channels, height and width; or several named inputs.")
    blocks: dict[str, Any] = Field(default_factory=dict, description="Own blocks: a kind with fields, or a small file.")
    norms: dict[str, Any] | None = Field(None, description="`eps` and `momentum` of all norms that do not set them.")
    outputs: Texts | None = Field(None, description="Nodes whose values come out, where there are several.")
    prune: Literal["dead"] | None = Field(
        None, description="`dead`: leave out nodes that no input reaches or that reach no output."
    )
    variants: dict[str, Any] = Field(default_factory=dict, description="Named patches of this file.")
    schema_: str | None = Field(None, alias="$schema", description="For editors.")
