"""Reading YAML 1.2 (core schema) and JSON: files and texts in, plain data with positions out.

Both formats go through one parser, so that both have positions and neither hides a duplicate key. PyYAML's composer (on
libyaml, or on its own scanner where that is missing) makes a tree of nodes, and one walk over them makes the data and
collects all errors. What the data must contain is checked by the models of `spec`; templates are left to `template`.
"""

from __future__ import annotations

import difflib
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.nodes import MappingNode, ScalarNode, SequenceNode

from hiresnet_graph.errors import MAX_PROBLEMS, Position, Problem, Source, SpecError
from hiresnet_graph.files import is_file
from hiresnet_graph.gc_pause import gc_paused
from hiresnet_graph.shipped import study_path
from hiresnet_graph.spec.foreign import refuse_foreign
from hiresnet_graph.spec.marked import MarkedDict, MarkedList, format_path, position_in
from hiresnet_graph.spec.scalar import TYPED, resolve
from hiresnet_graph.spec.syntax import (
    character_problems,
    comment,
    cut_template,
    explain_syntax,
    find_comment,
    find_cut,
    unsupported,
)

SUFFIXES = (".yaml", ".yml", ".json")
"""Of files that `read` reads."""
MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 64
MAX_VALUES = 1_000_000
_BOM = "\ufeff"
_SPEC_KEYS = {"nodes", "flow", "extends", "input", "blocks", "edges"}
_STUDY_KEYS = {
    "seeds",
    "data",
    "recipe",
    "subsets",
    "controls",
    "baseline",
    "grid",
    "search",
    "published",
    "weights",
    "reinit",
}
_MAY_BE_STUDY = re.compile("|".join(["network", *sorted(_STUDY_KEYS)]).encode())
"""The byte order mark at the start of a file, which editors do not show."""


# -------------------------------------------------------------------------------------------------- files and texts


def read(path: Path) -> MarkedDict:
    """The mapping that a YAML or JSON file contains.

    Raises:
        SpecError: The file cannot be read, is not valid YAML, exceeds a limit, or is not a mapping; with all errors.
        UsageError: It is the file of another program, by its suffix.
    """
    refuse_foreign(path)
    name = str(path)
    try:
        if path.is_dir():
            spec = path / "spec.yaml"
            hint = (
                f"The spec of the run in it is '{spec}', its weights are '--weights {path}'." if spec.is_file() else ""
            )
            _fail(Source(name, ""), "expected a file, got a folder.", hint=hint)
        if path.exists() and not path.is_file():
            hint = "Write its content to a file."
            _fail(Source(name, ""), "expected a file, got a pipe or a device, whose text may never end.", hint=hint)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        _fail(Source(name, ""), "there is no such file.", hint=_similar_file(path))
    except PermissionError:
        _fail(Source(name, ""), "the file may not be read.", hint="Check its permissions.")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        _fail(Source(name, ""), f"the file cannot be read: {reason}.")
    if len(data) > MAX_BYTES:
        _fail(Source(name, ""), f"a file has at most {MAX_BYTES // 1024**2} MiB, this one has more.")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        start = Position(Source(name, data.decode("utf-8", "replace").removeprefix(_BOM)), 1, 1)
        kind = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "not UTF-8"
        message = f"a file must be UTF-8, this one is {kind} (byte {error.start})."
        _fail(
            start.source,
            message,
            start.after(data[: error.start].decode("utf-8").removeprefix(_BOM)),
            "Save it as UTF-8.",
        )
    return parse(text, name)


def is_study(name: str) -> bool:
    """Whether a word of a command line refers to a study rather than a spec.

    A file does by its key `network`; or, where that is missing or misspelt, by another key that only studies have, if
    it has none of a spec's.

    Raises:
        SpecError: The file cannot be read.
        UsageError: It is the file of another program, by its suffix.
    """
    if not (name.endswith(SUFFIXES) or is_file(name)):
        return study_path(name) is not None
    path = Path(name)
    with suppress(OSError):  # which `read` reports
        if path.is_file() and not _MAY_BE_STUDY.search(path.read_bytes()):  # faster than to parse a large spec twice
            return False
    if not is_file(name):
        return False
    keys = read(path).keys()
    return "network" in keys or (not _STUDY_KEYS.isdisjoint(keys) and _SPEC_KEYS.isdisjoint(keys))


def parse(text: str, name: str) -> MarkedDict:
    """The mapping that a YAML or JSON text contains; `name` stands for the file in positions.

    Raises:
        SpecError: The text is not valid YAML, exceeds a limit, or is not a mapping; with all errors.
    """
    source = Source(name, text.removeprefix(_BOM))
    tree, at = _parse(source)
    if tree is _EMPTY:
        _fail(source, "expected a mapping, but there is nothing here.")
    if not isinstance(tree, MarkedDict):
        _fail(source, f"the top level must be a mapping, got {_kind(tree)}.", at, "Write 'name: value' lines.")
    return tree


def parse_value(text: str, name: str) -> Any:
    """The value written on the right of `key=` on a command line.

    A text in quotes, `[...]` or `{...}` is read as YAML; anything else is one scalar, to which the core schema gives
    its type. So `*.block1`, `in & out` and `$(max(8, w))` need no quotes of YAML here.

    Raises:
        SpecError: The text is not a YAML value, or exceeds a limit.
    """
    source = Source(name, text)
    stripped = text.strip()
    if stripped.startswith(("{", "[", '"', "'")):
        tree, _ = _parse(source)
        return None if tree is _EMPTY else tree
    if problems := character_problems(source):
        raise SpecError(problems)
    try:
        return resolve(stripped)
    except ValueError as error:
        _fail(source, str(error))


def _fail(source: Source, message: str, position: Position | None = None, hint: str = "") -> NoReturn:
    raise SpecError([Problem(message, position or Position(source, 1, 1), hint=hint)])


def _similar_file(path: Path) -> str:
    """A hint that names a file in the same folder with a similar name; suffixes are not compared."""
    try:
        names = {entry.stem: entry.name for entry in path.parent.iterdir() if entry.suffix in SUFFIXES}
    except (OSError, ValueError):
        return ""
    close = difflib.get_close_matches(path.stem, names, n=1)
    return f"Did you mean '{names[close[0]]}'?" if close else ""


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"text '{value[:40]}'" if isinstance(value, str) else f"the number {value}"


# ---------------------------------------------------------------------------------------------------------- composing

_EMPTY: Any = object()
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_TOO_DEEP = f"values may be nested {MAX_DEPTH} deep, this one is deeper."


class _BoundedComposer:
    """Limits on depth and size for a composer of PyYAML, enforced in the methods that it calls around each node.

    A composer calls itself for nested nodes: libyaml's would overflow the stack of the process, and either could fill
    the memory.
    """

    def __init__(self, source: Source) -> None:
        super().__init__(source.text)  # type: ignore[call-arg]
        # Parent, and key node or index, of each node that is being composed.
        self.open: list[tuple[Any, Any]] = []
        open_, count, max_open, max_count = self.open, 0, MAX_DEPTH + 1, MAX_VALUES

        def descend(parent: Any, item: Any) -> None:
            nonlocal count
            open_.append((parent, item))
            count += 1
            if len(open_) > max_open:
                _fail(source, _TOO_DEEP, _at(source, parent))
            if count > max_count:
                _fail(source, f"a file holds at most {max_count:,} values, this one has more.", _at(source, parent))

        # Attributes of the instance, since they are called for each node.
        self.descend_resolver = descend
        self.ascend_resolver: Any = open_.pop
        self.resolve = lambda kind, value, implicit: None  # the tag of a node without one

    def path(self) -> str:
        """Of the node that is being composed."""
        items = (item.value if isinstance(item, ScalarNode) else item for _, item in self.open)
        return format_path(item for item in items if item is not None)


class _PythonComposer(_BoundedComposer, yaml.BaseLoader):
    """PyYAML's own scanner and parser, taking tabs between tokens where libyaml does."""

    def scan_to_next_token(self) -> None:
        super().scan_to_next_token()
        while self.peek() == "\t" and (self.flow_level or not self.allow_simple_key):
            self.forward()
            super().scan_to_next_token()


class _LibyamlComposer(_BoundedComposer, getattr(yaml, "CBaseLoader", yaml.BaseLoader)):  # type: ignore[misc]
    """libyaml's scanner and parser."""


_Composer: type[Any] = _LibyamlComposer if yaml.__with_libyaml__ else _PythonComposer


def _parse(source: Source) -> tuple[Any, Position]:
    """The value of a text, or `_EMPTY`, and its position."""
    if problems := character_problems(source):
        raise SpecError(problems)
    with gc_paused():
        try:
            return _compose(source, _Composer)
        except _SurrogateEscape:
            # libyaml refuses the pairs of escapes that JSON writes for characters above U+FFFF; PyYAML does not.
            return _compose(source, _PythonComposer)


class _SurrogateEscape(Exception):
    """libyaml found an escape that may be half of a surrogate pair."""


def _compose(source: Source, composer_type: type[Any]) -> tuple[Any, Position]:
    composer = composer_type(source)
    try:
        root = composer.get_single_node()
    except yaml.YAMLError as error:
        index = getattr(getattr(error, "problem_mark", None), "index", 0)
        is_escape = composer_type is _LibyamlComposer and "Unicode character escape" in str(error)
        if is_escape and _SURROGATE_ESCAPE.search(source.text, max(0, index - 3), index + 6):
            raise _SurrogateEscape from None
        raise SpecError([explain_syntax(error, source, composer.path())]) from None
    except (ValueError, OverflowError):  # chr() in PyYAML's scanner, on an escape above U+10FFFF
        mark = composer.get_mark()
        _fail(source, "this escape is not a Unicode character.", Position(source, mark.line + 1, mark.column + 1))
    return (_EMPTY, Position(source, 1, 1)) if root is None else _Walk(source).run(root)


def _at(source: Source, node: Any) -> Position:
    mark = node.start_mark
    return tuple.__new__(Position, (source, mark.line + 1, mark.column + 1))


# ---------------------------------------------------------------------------------------------------------- the walk

_HEADER = re.compile(r"[^\r\n]*[ \t\r\n]*")
"""The first line of a block scalar (`|`, `>2`), and what is blank after it."""
_SURROGATE = re.compile("[\ud800-\udfff]")

Part = str | int | None
"""The key or index of a value; None for a key."""


class _Walk:
    """One walk over the nodes of a text, which makes the data with their positions, and collects the errors."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: dict[tuple[Position | None, str], Problem] = {}
        self.omitted = 0
        self.path: list[Part] = []  # of the open container
        self.resolved: dict[str, Any] = {}
        self.may_be_decorated = "&" in source.text or "!" in source.text  # with anchors or tags

    def run(self, root: Any) -> tuple[Any, Position]:
        """The value of the root node, and its position."""
        value, position = self.scalar(root, False, None) if root.__class__ is ScalarNode else self.container(root, None)
        if self.problems:
            raise SpecError(self.problems.values(), self.omitted)
        return value, position

    def scalar(self, node: Any, in_flow: bool, part: Part) -> tuple[Any, Position]:
        """A scalar, and the position of its text."""
        mark, text, style = node.start_mark, node.value, node.style
        if self.may_be_decorated and self.is_decorated(node, part):
            return text, _at(self.source, node)
        if not style:
            position = tuple.__new__(Position, (self.source, mark.line + 1, mark.column + 1))
            if "$(" in text and in_flow and (cut := find_cut(text)) >= 0:
                self.add(cut_template(position_in(position, text, cut), self.path_of(part)))
            if "/" in text and in_flow and (start := find_comment(text, self.source)) >= 0:
                self.add(comment(position_in(position, text, start), self.path_of(part)))
            return text if text[:1] not in TYPED else self.resolve(text, position, part), position
        if style in ("'", '"'):
            position = tuple.__new__(Position, (self.source, mark.line + 1, mark.column + 2))
            return text if text.isascii() else self.join_surrogates(text, position, part), position
        header = _HEADER.match(self.source.text, mark.index)
        return text, _at(self.source, node).after(header[0] if header else "")

    def container(self, node: Any, part: Part) -> tuple[Any, Position]:
        """A mapping or list, and its position."""
        position = _at(self.source, node)
        if len(self.path) >= MAX_DEPTH:
            self.report(_TOO_DEEP, position, part)
        if self.may_be_decorated and self.is_decorated(node, part):
            return None, position  # not walked: nested aliases could repeat it exponentially often
        self.path.append(part)
        value = self.mapping(node, position) if node.__class__ is MappingNode else self.sequence(node, position)
        self.path.pop()
        return value, position

    def mapping(self, node: Any, position: Position) -> MarkedDict:
        out = MarkedDict((), position)
        keys, values, in_flow, scalar = out.key_positions, out.value_positions, node.flow_style, self.scalar
        for key_node, value_node in node.value:
            is_scalar = key_node.__class__ is ScalarNode
            key, at = scalar(key_node, in_flow, None) if is_scalar else self.container(key_node, None)
            if key.__class__ is not str or key in keys or (key == "<<" and not key_node.style):
                key = self.bad_key(key, key_node, at, keys)
            keys.setdefault(key, at)
            is_scalar = value_node.__class__ is ScalarNode
            out[key], values[key] = scalar(value_node, in_flow, key) if is_scalar else self.container(value_node, key)
        node.value = ()
        return out

    def sequence(self, node: Any, position: Position) -> MarkedList:
        out = MarkedList((), position)
        positions, in_flow = out.positions, node.flow_style
        for index, item in enumerate(node.value):
            is_scalar = item.__class__ is ScalarNode
            value, at = self.scalar(item, in_flow, index) if is_scalar else self.container(item, index)
            out.append(value)
            positions.append(at)
        node.value = ()
        return out

    def is_decorated(self, node: Any, part: Part) -> bool:
        """Whether a node has an anchor or a tag, which is reported."""
        index = node.start_mark.index
        if self.source.text[index : index + 1] not in ("&", "!") or node.end_mark.index == index:
            return False
        self.add(unsupported(_at(self.source, node), self.path_of(part)))
        return True

    def resolve(self, text: str, position: Position, part: Part) -> Any:
        if text not in self.resolved:
            try:
                self.resolved[text] = resolve(text)
            except ValueError as error:
                self.report(str(error), position, part)
                return text
        return self.resolved[text]

    def join_surrogates(self, text: str, position: Position, part: Part) -> str:
        if not _SURROGATE.search(text):
            return text
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            hint = "Write both \\u escapes, or none."
            self.report("this text holds half of a surrogate pair.", position, part, hint)
            return ""

    def bad_key(self, value: Any, node: Any, position: Position, known: dict[str, Position]) -> str:
        """Report a key that is a duplicate or not text, and give a text that stands for it."""
        hint = ""
        if isinstance(value, str) and value in known:
            message = f"the key '{value}' is given here and at {known[value].line}:{known[value].column}."
            hint = "Keep one of the two."
        elif value == "<<":
            message, hint = "'<<' (merging of mappings) is not supported.", "Use 'extends' or params."
        else:
            text = node.value if node.__class__ is ScalarNode else ""
            found = {MappingNode: "a mapping", SequenceNode: "a list"}.get(node.__class__)
            message = f"a key must be text, got {found or (_kind(value) if text else 'nothing')}."
            hint = f"Put it in quotes: '{text}'." if text else "Write a name before the ':'."
        self.report(message, position, None, hint)
        # Never the text of a container: that of nested anchors and aliases grows exponentially.
        return node.value if node.__class__ is ScalarNode else "?"

    def path_of(self, part: Part) -> str:
        return format_path(part for part in [*self.path, part] if part is not None)

    def report(self, message: str, position: Position, part: Part, hint: str = "") -> None:
        self.add(Problem(message, position, self.path_of(part), hint))

    def add(self, problem: Problem) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.setdefault((problem.position, problem.message), problem)
        else:
            self.omitted += 1
