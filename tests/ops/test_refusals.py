"""The shapes that operations refuse, with the message and the remedy."""

from __future__ import annotations

import pytest

from hiresnet_graph.errors import ShapeError
from hiresnet_graph.ops import (
    Add,
    AvgPool,
    Concat,
    Conv2d,
    ConvTranspose2d,
    DotProductAttention,
    DropPrefix,
    Frame,
    GroupNorm,
    Linear,
    MaxPool,
    MergePatches,
    Multiply,
    Op,
    PadChannels,
    PositionEmbedding,
    Resize,
    SelectToken,
    SliceChannels,
    StackSteps,
    TokenMean,
    TransposeTokens,
)
from hiresnet_graph.ops.tokens import ToMap
from hiresnet_graph.shapes import Map, Shape, Tokens, Vector

MAP = Map(4, 5, 6)
REFUSED: list[tuple[Op, tuple[Shape, ...], str, str]] = [
    (
        Conv2d(width=6, groups=4),
        (MAP,),
        "A convolution in 4 groups requires multiples of 4 channels, not 4 in and 6 out.",
        "Change 'groups', or the widths to multiples of 4.",
    ),
    (
        ConvTranspose2d(width=4, groups=4),
        (Map(6, 5, 5),),
        "A transposed convolution in 4 groups requires multiples of 4 channels, not 6 in and 4 out.",
        "Change 'groups', or the widths to multiples of 4.",
    ),
    (
        Conv2d(width=4, kernel_size=(3, 6), padding=0, dilation=2),
        (MAP,),
        "A 6-wide kernel (dilation 2, padding 0) does not fit into 4x5x6.",
        "Use a larger input, a smaller kernel or more padding.",
    ),
    (
        ConvTranspose2d(width=4, kernel_size=1, stride=1, padding=3),
        (MAP,),
        "Padding 3 removes all of 4x5x6.",
        "Use less padding.",
    ),
    (
        ConvTranspose2d(width=4, output_padding=2),
        (MAP,),
        "'output_padding' 2 must be smaller than the stride 2.",
        "",
    ),
    (
        MaxPool(kernel_size=3, padding=2),
        (MAP,),
        "Padding 2 is more than half of the kernel 3.",
        "Use less padding.",
    ),
    (
        AvgPool(kernel_size=6),
        (MAP,),
        "A 6-wide window does not fit into 4x5x6.",
        "Use a larger input or a smaller window.",
    ),
    (Resize(), (MAP,), "Resizing requires either 'scale' or 'size'.", "Set one of them."),
    (Resize(scale=2, size=3), (MAP,), "Resizing requires either 'scale' or 'size'.", "Set one of them."),
    (Add(), (MAP, MAP, Map(4, 5, 5)), "A sum requires equal shapes, not 4x5x6 and 4x5x5.", ""),
    (
        Multiply(),
        (MAP, Map(1, 5, 6), Map(2, 1, 1)),
        "A product requires factors of 4x5x6, with 1 channel or of 1x1 size, not 2x1x1.",
        "",
    ),
    (
        Concat(),
        (MAP, Map(9, 5, 6), Map(4, 6, 6)),
        "A concatenation requires equal height and width, not 4x5x6 and 4x6x6.",
        "",
    ),
    (
        PadChannels(width=3),
        (MAP,),
        "Channel padding cannot reduce 4 channels to 3.",
        "Use 'slice' or 'conv1x1'.",
    ),
    (
        SliceChannels(width=3, start=2),
        (MAP,),
        "Channels 2 to 5 are out of range for 4x5x6.",
        "Use 'pad' or 'conv1x1'.",
    ),
    (
        SliceChannels(width=3, start=-1),
        (MAP,),
        "Channels -1 to 2 are out of range for 4x5x6.",
        "Use 'pad' or 'conv1x1'.",
    ),
    (
        GroupNorm(groups=3),
        (MAP,),
        "Group norm in 3 groups requires a multiple of 3 channels, not 4.",
        "Change 'groups'.",
    ),
    (
        Linear(width=3),
        (MAP,),
        "A linear map requires a vector, not a feature map of 4x5x6.",
        "Place 'flatten' or a global pooling before it.",
    ),
    (
        Conv2d(width=3),
        (Vector(4),),
        "A convolution requires a feature map (channels x height x width), not a vector of 4.",
        "Place it before the flattening.",
    ),
    (
        Conv2d(width=3),
        (Tokens(6, 4, (2, 3)),),
        "A convolution requires a feature map (channels x height x width), not tokens of 6x4 (grid 2x3).",
        "Place 'to_map' before it.",
    ),
    (
        Conv2d(width=3),
        (Tokens(7, 4, (2, 3), 1),),
        "A convolution requires a feature map (channels x height x width), not tokens of 7x4 (grid 2x3, 1 before it).",
        "Place 'drop_prefix' and 'to_map' before it.",
    ),
    (
        Conv2d(width=3),
        (Tokens(6, 4),),
        "A convolution requires a feature map (channels x height x width), not tokens of 6x4 (grid unknown).",
        "Tokens of a known grid become a feature map with 'to_map': give the input a 'grid'.",
    ),
    (
        MaxPool(kernel_size=2),
        (MAP.in_time(3),),
        "Pooling requires a feature map (channels x height x width), not a sequence of 3x4x5x6.",
        "Place it before the flattening.",
    ),
    (
        Add(),
        (Tokens(6, 4, (2, 3)), Tokens(6, 4, (3, 2))),
        "A sum requires equal shapes, not tokens of 6x4 (grid 2x3) and tokens of 6x4 (grid 3x2).",
        "",
    ),
    (
        Concat(),
        (Tokens(6, 4, (2, 3)), Tokens(6, 4)),
        "A concatenation requires equal shapes, not tokens of 6x4 (grid 2x3) and tokens of 6x4 (grid unknown).",
        "",
    ),
    (
        DotProductAttention(heads=2),
        (Tokens(6, 4, (2, 3)),),
        "Attention requires queries, keys and values side by side, not 4 features.",
        "Use the block 'attention', which computes them.",
    ),
    (
        DotProductAttention(heads=2, shift=1),
        (Tokens(6, 12, (2, 3)),),
        "'shift' and 'relative_positions' require a 'window'.",
        "Set 'window', or remove them.",
    ),
    (
        DotProductAttention(heads=2, window=2),
        (Tokens(6, 12, (2, 3)),),
        "A grid of 2x3 does not consist of windows of 2x2.",
        "Place 'fit_grid' before it, or change 'window' or the size of the input.",
    ),
    (
        PositionEmbedding(encoding="sincos"),
        (Tokens(6, 6, (2, 3)),),
        "Sines and cosines of rows and columns require a multiple of 4 features, not 6.",
        "Change the width, or use 'encoding: learned'.",
    ),
    (
        MergePatches(),
        (Tokens(6, 6, (2, 3)),),
        "A grid of 2x3 does not consist of patches of 2x2.",
        "Place 'fit_grid' before it, or change the size of the input.",
    ),
    (SelectToken(index=6), (Tokens(6, 6),), "Token 6 is out of range for tokens of 6x6 (grid unknown).", "Use 0 to 5."),
    (
        DropPrefix(),
        (Tokens(2, 6, None, 2),),
        "'drop_prefix' would leave nothing of tokens of 2x6 (grid unknown, 2 before it).",
        "Remove it.",
    ),
    (
        TokenMean(),
        (Tokens(2, 6, None, 2),),
        "'token_mean' requires tokens of a grid, not tokens of 2x6 (grid unknown, 2 before it).",
        "Use 'select_token'.",
    ),
    (
        TransposeTokens(grid=(2, 2)),
        (Tokens(2, 6),),
        "6 features are no grid of 2x2.",
        "Change 'grid', or leave it out.",
    ),
    (
        TokenMean(),
        (Vector(3),),
        "'token_mean' requires tokens (length x features), not a vector of 3.",
        "Place it before the pooling.",
    ),
    (ToMap(), (MAP,), "'to_map' requires tokens or a vector, not a feature map of 4x5x6.", "Remove it."),
    (
        Frame(step=0),
        (MAP,),
        "'frame' requires a sequence, not a feature map of 4x5x6.",
        "Set 'time: {input: sequence}'.",
    ),
    (Frame(step=3), (MAP.in_time(3),), "step 3 is out of range for a sequence of 3 steps.", ""),
    (StackSteps(), (MAP, MAP, Map(3, 5, 6)), "A sequence requires equal shapes, not 4x5x6, 3x5x6.", ""),
]
ACCEPTED: list[tuple[Op, tuple[Shape, ...], Shape]] = [
    (Conv2d(width=8, groups=4), (MAP,), Map(8, 5, 6)),
    (Conv2d(width=4, kernel_size=(5, 6), padding=0), (MAP,), Map(4, 1, 1)),
    (ConvTranspose2d(width=4, output_padding=1), (MAP,), Map(4, 11, 13)),
    (MaxPool(kernel_size=4, padding=2), (MAP,), Map(4, 2, 2)),
    (AvgPool(kernel_size=(5, 6)), (MAP,), Map(4, 1, 1)),
    (Resize(scale=2), (MAP,), Map(4, 10, 12)),
    (Resize(size=(2, 9)), (MAP,), Map(4, 2, 9)),
    (Multiply(), (MAP, Map(1, 5, 6), Map(4, 1, 1), Map(1, 1, 1)), MAP),
    (Concat(), (MAP, Map(9, 5, 6), Map(1, 5, 6)), Map(14, 5, 6)),
    (PadChannels(width=4), (MAP,), MAP),
    (PadChannels(width=7), (MAP,), Map(7, 5, 6)),
    (SliceChannels(width=2, start=2), (MAP,), Map(2, 5, 6)),
    (SliceChannels(width=4), (MAP,), MAP),
    (GroupNorm(groups=2), (MAP,), MAP),
    (Linear(width=3), (Vector(4),), Vector(3)),
    (ToMap(), (Vector(4),), Map(4, 1, 1)),
    (Frame(step=2), (MAP.in_time(3),), MAP),
    (StackSteps(), (MAP, MAP), MAP.in_time(2)),
]


@pytest.mark.parametrize(("op", "inputs", "message", "hint"), REFUSED, ids=[message for _, _, message, _ in REFUSED])
def test_a_wrong_shape_is_refused_with_a_remedy(op: Op, inputs: tuple[Shape, ...], message: str, hint: str) -> None:
    with pytest.raises(ShapeError) as error:
        op.shape(*inputs)
    assert (error.value.message, error.value.hint) == (message, hint)


@pytest.mark.parametrize(("op", "inputs", "shape"), ACCEPTED, ids=str)
def test_shapes_at_the_limits_are_accepted(op: Op, inputs: tuple[Shape, ...], shape: Shape) -> None:
    assert op.shape(*inputs) == shape
