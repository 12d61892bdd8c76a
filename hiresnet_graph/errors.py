"""Every error that hiresnet_graph raises, and its text.

    HrgError
    ├── SpecError         a spec is wrong; holds every Problem found, each with its position
    ├── ExpressionError   bare: a template or edge-set expression is wrong at one character
    ├── ShapeError        bare: an operation does not accept a shape, or cannot produce one
    ├── RegistryError     a kind is unknown, or its name is already registered
    ├── UnsupportedNetwork  a network of another library has parts that no spec can express
    ├── UsageError        the arguments of a command or a call are wrong
    │   └── MissingDataError  a data set is not on this machine
    ├── RunError          training failed, or a run folder cannot be read
    │   └── OutOfMemory   memory was insufficient for a training step
    └── MissingToolError  an optional program or package is not installed

*Bare* errors have no position; the public verb that reads the file adds it, and raises a SpecError. This module imports
nothing of the package.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Source:
    """A text that was read, so that an error can show the line that it refers to."""

    name: str
    text: str = field(repr=False)

    def line(self, number: int) -> str:
        """The line with this 1-based number, or an empty string."""
        lines = _lines(self.text)
        return lines[number - 1] if 1 <= number <= len(lines) else ""


@lru_cache(maxsize=4)
def _lines(text: str) -> list[str]:
    return text.splitlines()


class Position(NamedTuple):
    """A position in a source; lines and columns count from 1."""

    source: Source
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}:{self.column}"

    def shifted(self, columns: int) -> Position:
        """The position `columns` characters to the right."""
        return self._replace(column=self.column + columns)

    def after(self, text: str) -> Position:
        """The position after a text that starts here."""
        lines = (text + "x").splitlines()
        if len(lines) == 1:
            return self.shifted(len(text))
        return Position(self.source, self.line + len(lines) - 1, len(lines[-1]))


class Related(NamedTuple):
    """Another position that a problem depends on, like that of a param used by the wrong value."""

    label: str
    position: Position

    def __str__(self) -> str:
        return f"{self.label} at {self.position}."


@dataclass(frozen=True, slots=True)
class Problem:
    """One error: where, what must hold and what was found, and what to do.

    Attributes:
        message: What must hold and what we got, one sentence with its full stop.
        position: Position in the file, if the error has one.
        path: The address inside the spec, like `edges[7].to`.
        hint: What to do, one sentence with its full stop.
        related: Other positions that the error depends on.
    """

    message: str
    position: Position | None = None
    path: str = ""
    hint: str = ""
    related: tuple[Related, ...] = ()

    def __post_init__(self) -> None:
        # The text repeats parts of the file, which may contain line breaks or control sequences.
        for name in ("message", "path", "hint"):
            text = getattr(self, name)
            if not text.isprintable():
                shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
                object.__setattr__(self, name, shown)

    def __str__(self) -> str:
        where = f"{self.position}: " if self.position else ""
        path = f"{self.path}: " if self.path else ""
        return f"{where}{path}{self.message}" + (f" {self.advice}" if self.advice else "")

    @property
    def advice(self) -> str:
        """The hint and the related positions, as one text."""
        return " ".join([*([self.hint] if self.hint else []), *map(str, self.related)])


class HrgError(Exception):
    """Any error of this package; its text is written for users."""


MAX_PROBLEMS = 200
"""The number of errors that a SpecError reports; further ones are counted."""


class SpecError(HrgError):
    """A spec is wrong.

    Attributes:
        problems: Every error found, in the order of the file.
        omitted: The number of further errors, where there are very many.
    """

    def __init__(self, problems: Iterable[Problem], omitted: int = 0) -> None:
        self.problems: tuple[Problem, ...] = _in_file_order(problems)
        self.omitted = omitted
        more = [f"{omitted:,} further problems."] if omitted else []
        super().__init__("\n".join([*map(str, self.problems), *more]))

    def __reduce__(self) -> tuple[type[SpecError], tuple[tuple[Problem, ...], int]]:
        return type(self), (self.problems, self.omitted)


def _in_file_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Problems in the order of files and lines; those without a position come first."""
    found = tuple(problems)
    names = [problem.position.source.name if problem.position else "" for problem in found]
    rank = {name: i for i, name in enumerate(dict.fromkeys(["", *names]))}
    key = {i: (rank[names[i]], *(problem.position or (None, 0, 0))[1:]) for i, problem in enumerate(found)}
    return tuple(found[i] for i in sorted(key, key=key.__getitem__))


class ExpressionError(HrgError):
    """A template or an edge-set expression is wrong at character `offset` (from 0) of its text."""

    def __init__(self, message: str, offset: int = 0, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.offset, self.hint = message, offset, hint


class ShapeError(HrgError):
    """An operation does not accept a shape, or cannot produce one."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class RegistryError(HrgError):
    """A kind is unknown, or a name is registered twice."""


class UsageError(HrgError):
    """The arguments of a command or a call are wrong."""


class MissingDataError(UsageError):
    """A data set is not on this machine: what does not depend on its images can still be checked."""


class RunError(HrgError):
    """Training failed, or a run folder cannot be read."""


class OutOfMemory(RunError):
    """Memory was insufficient for a training step."""


# Messages of torch on a GPU, of its CPU allocator, and of the operating system.
_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


def first_line(error: BaseException) -> str:
    """The first line of the message of an exception; empty without a message."""
    return (str(error).splitlines() or [""])[0]


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an exception, or one in its context, was caused by insufficient memory."""
    while error is not None:
        if isinstance(error, MemoryError | OutOfMemory) or any(words in str(error).lower() for words in _NO_MEMORY):
            return True
        error = error.__context__
    return False


class UnsupportedNetwork(HrgError):
    """A network of another library has parts that no spec can express.

    Attributes:
        faults: Each of them, with its location.
    """

    def __init__(self, message: str, faults: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.faults = tuple(faults)


class MissingToolError(HrgError):
    """An optional program or package is not installed."""


_SYNONYM_ROWS = {
    "width": "out_channels channels filters num_filters features out_features units neurons planes dim size",
    "width channels": "n_channels num_channels",
    "kernel_size": "kernel ksize kernel_shape filter_size k window",
    "stride": "strides subsampling downsampling",
    "padding": "pad",
    "groups": "group cardinality num_groups",
    "hidden": "mid_channels bottleneck_width inner",
    "activation": "act act_fn activation_fn nonlinearity nonlin",
    "norm": "normalization normalisation norm_layer batchnorm bn",
    "shortcut projection": "downsample skip_projection",
    "classes": "num_classes n_classes nclasses num_labels",
    "depth": "num_blocks n_blocks blocks repeat repeats times num_layers n_layers",
    "block": "type kind layer module op operation",
    "kind": "type name",
    "nodes": "layers modules stages vertices",
    "edges": "connections links arcs",
    "skips": "skip skip_connections shortcuts long_skips residuals",
    "params": "parameters variables hyperparameters args arguments vars",
    "input": "inputs input_shape in",
    "outputs": "output out",
    "from": "source src start",
    "to": "target dst dest destination end",
    "merge": "combine aggregation reduce fusion join",
    "gate": "attention gating gated_by",
    "steps": "time_steps timesteps num_steps T",
    "time": "recurrence recurrent unroll",
    "extends": "base inherits parent",
    "conv conv2d": "convolution conv_layer cnn",
    "basic shortcut": "residual resblock residual_block resnet basicblock",
    "squeeze_excite": "se se_block channel_attention",
    "attention": "self_attention mhsa msa multihead_attention multi_head_attention",
    "encoder": "transformer transformer_block transformer_encoder_layer vit_block",
    "patch_embed": "patch_embedding patchify",
    "classifier linear": "fc dense output_layer softmax",
    "identity": "input_layer none noop passthrough",
    "max_pool max": "maxpool maxpool2d max_pool2d",
    "avg_pool avg": "avgpool avgpool2d average_pool average mean_pool mean",
    "adaptive_avg_pool": "global_average_pool global_avg_pool gap adaptiveavgpool2d",
    "batch_norm batch": "batchnorm batchnorm2d bn batch_norm2d",
    "layer_norm layer": "layernorm ln",
    "layer_norm2d layer2d": "layernorm2d channel_norm",
    "local_response_norm": "lrn localresponsenorm",
    "drop_path": "stochastic_depth stochasticdepth droppath",
    "layer_scale": "layerscale gamma",
    "group_norm group": "groupnorm gn",
    "conv_transpose2d deconv": "deconvolution transposed_conv convtranspose2d conv_transpose",
    "silu": "swish",
    "leaky_relu": "lrelu leakyrelu",
    "none": "linear identity off false no",
    "add": "sum addition plus residual",
    "concat": "cat concatenate concatenation",
    "multiply": "mul product times prod",
    "lr": "learning_rate rate",
    "batch_size": "batch batchsize",
    "epochs": "epoch n_epochs num_epochs max_epochs",
    "optimizer": "optim optimiser",
    "network": "spec architecture model net",
    "data": "dataset data_set",
    "recipe": "training train hyperparameters",
}
"""Names -> words of other libraries for them. Of several names, the first that is known in its place counts."""
_YES = frozenset({"on", "yes", "true"})
_SYNONYMS: dict[str, list[str]] = {}
for _names, _words in _SYNONYM_ROWS.items():
    for _word in _words.split():
        _SYNONYMS.setdefault(_word.lower(), []).extend(_names.split())


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence with the closest known word, or with all words if none is close and they are few."""
    names: Sequence[str] = sorted({str(name) for name in known})
    if close := similar(word, names):
        if unicodedata.normalize("NFC", close) == unicodedata.normalize("NFC", word):
            return f"'{close}' is written with other characters that look the same (Unicode NFC, NFD): copy it."
        choices = [f"'{name}'" for name in _as_similar(word, close, names)]
        return f"Did you mean {' or '.join([', '.join(choices[:-1]), choices[-1]] if choices[1:] else choices)}?"
    if word in ("in_channels", "in_features", "input_channels", "in_planes") and "width" in names:
        return "Leave it out: the input of a block follows from its edges."
    if names and len(names) <= 24:
        return "Known: " + ", ".join(names) + "."
    return ""


def _as_similar(word: str, close: str, names: Sequence[str]) -> list[str]:
    """A similar name and those that are as close to the word, three at most: `stage` may be `stage1` or `stage2`.

    The similar name alone if it is another spelling of the word, or a synonym.
    """
    if _plain(close) == _plain(word) or close in _SYNONYMS.get(_plain(word), ()):
        return [close]
    measure = difflib.SequenceMatcher(b=word)

    def closeness(name: str) -> float:
        measure.set_seq1(name)
        return measure.ratio()

    closest = closeness(close)
    return [name for name in names if closeness(name) == closest][:3]


def similar(word: str, names: Sequence[str]) -> str:
    """The name that a word stands for: another spelling, a synonym, or a similar name; empty if there is none."""
    plain = _plain(word)
    for name in names:
        if _plain(name) == plain:
            return name
    if plain in _YES:
        return ""  # 'none' is spelt like 'on', and means the opposite
    for synonym in _SYNONYMS.get(plain, ()):
        if synonym in names:
            return synonym
    return next(iter(difflib.get_close_matches(word, names, n=1, cutoff=0.6)), "")


def _plain(word: str) -> str:
    """A word without what spellings differ in: case, dashes and Unicode forms."""
    return unicodedata.normalize("NFKC", word).lower().replace("-", "_")
