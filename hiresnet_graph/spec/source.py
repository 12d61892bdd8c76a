"""Files and texts in, plain data with positions out, and back.

YAML 1.2 (core schema) and JSON go through one parser, so that both have positions and neither can hide a key written
twice. Containers are a `dict` and a `list` that remember where they were written; everything else is a plain value.
A tree that was read is never changed in place: functions give a new one, which may share parts with the old.

The events of libyaml (or of PyYAML's own scanner, where libyaml is missing) are put together here, without recursion:
that is where limits can be kept and where all mistakes of a file can be collected.
What the data must say is left to the models of `spec`; templates are left to `template`.
"""

from __future__ import annotations

import copy
import difflib
import gc
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from hiresnet_graph.errors import Position, Problem, Source, SpecError
from hiresnet_graph.gc_pause import gc_paused

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_VALUES",
    "MarkedDict",
    "MarkedList",
    "format_path",
    "key_position_at",
    "merge",
    "parse",
    "parse_value",
    "position_at",
    "position_in",
    "read",
    "to_json",
    "to_yaml",
]

MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 64
MAX_VALUES = 1_000_000
_MAX_DIGITS = 300
_WIDTH = 120


class MarkedDict(dict[str, Any]):
    """A mapping that remembers where it, its keys and its values were written; equal to a `dict` of the same items."""

    __slots__ = ("key_positions", "position", "value_positions")

    def __init__(
        self,
        items: Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
        position: Position | None = None,
        key_positions: dict[str, Position] | None = None,
        value_positions: dict[str, Position] | None = None,
    ) -> None:
        super().__init__(items)
        self.position = position
        self.key_positions: dict[str, Position] = {} if key_positions is None else key_positions
        self.value_positions: dict[str, Position] = {} if value_positions is None else value_positions

    def __copy__(self) -> MarkedDict:
        return MarkedDict(self, self.position, dict(self.key_positions), dict(self.value_positions))

    def copy(self) -> MarkedDict:
        """A new mapping of the same values, with its own positions."""
        return self.__copy__()

    def __deepcopy__(self, memo: dict[int, Any]) -> MarkedDict:
        memo[id(self)] = new = MarkedDict((), self.position, dict(self.key_positions), dict(self.value_positions))
        for key, value in self.items():
            new[key] = copy.deepcopy(value, memo)
        return new


class MarkedList(list[Any]):
    """A list that remembers where it and its items were written; equal to a `list` of the same items."""

    __slots__ = ("position", "positions")

    def __init__(
        self, items: Iterable[Any] = (), position: Position | None = None, positions: list[Position] | None = None
    ) -> None:
        super().__init__(items)
        self.position = position
        self.positions: list[Position] = [] if positions is None else positions

    def __copy__(self) -> MarkedList:
        return MarkedList(self, self.position, list(self.positions))

    def copy(self) -> MarkedList:
        """A new list of the same values, with its own positions."""
        return self.__copy__()

    def __deepcopy__(self, memo: dict[int, Any]) -> MarkedList:
        memo[id(self)] = new = MarkedList((), self.position, list(self.positions))
        new.extend(copy.deepcopy(value, memo) for value in self)
        return new


# ---------------------------------------------------------------------------------------------------------- reading


def read(path: Path) -> MarkedDict:
    """The mapping that a YAML or JSON file holds.

    Raises:
        SpecError: The file cannot be read, is no YAML, breaks a limit, or is no mapping; every mistake found.
    """
    name = str(path)
    try:
        if path.is_dir():
            _fail(Source(name, ""), "expected a file, got a folder.")
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
        before = data[: error.start].decode("utf-8")
        position = _moved(Position(Source(name, data.decode("utf-8", "replace")), 1, 1), before)
        kind = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "not UTF-8"
        message = f"a file must be UTF-8, this one is {kind} (byte {error.start})."
        raise SpecError([Problem(message, position, hint="Save it as UTF-8.")]) from None
    return parse(text, name)


def parse(text: str, name: str) -> MarkedDict:
    """The mapping that a YAML or JSON text holds; `name` stands for the file in positions.

    Raises:
        SpecError: The text is no YAML, breaks a limit, or is no mapping; every mistake found.
    """
    source = Source(name, text.removeprefix("\ufeff"))
    with gc_paused():
        tree = _parse(source)
    if tree is _EMPTY:
        _fail(source, "expected a mapping, but there is nothing here.")
    if not isinstance(tree, MarkedDict):
        at = tree.position if isinstance(tree, MarkedList) else _first_position(source)
        _fail(source, f"the top level must be a mapping, got {_kind(tree)}.", at, "Write 'name: value' lines.")
    return tree


def parse_value(text: str, name: str) -> Any:
    """The value written on the right of `key=` on a command line.

    A text in quotes, `[...]` or `{...}` is read as YAML; anything else is one scalar, to which the core schema gives
    its type. So `*.block1`, `in & out` and `$(max(8, w))` need no quotes of YAML here.

    Raises:
        SpecError: The text is no YAML value, or breaks a limit.
    """
    source = Source(name, text)
    stripped = text.strip()
    if stripped[:1] in ("{", "[", '"', "'") and stripped:
        tree = _parse(source)
        return None if tree is _EMPTY else tree
    if problems := _character_problems(source):
        raise SpecError(problems)
    try:
        return _resolve(stripped)
    except ValueError as error:
        _fail(source, str(error))


_EMPTY: Any = object()
_BAD_CHARACTER = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_SEPARATORS = {"\x85": "next line", "\u2028": "line separator", "\u2029": "paragraph separator"}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_CONSTANTS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
# First characters of plain scalars that may be something else than text; "" is the first character of an empty one.
_TYPED = frozenset(["", *"~nNtTfF.+-0123456789"])
_PREFIX = re.compile(r"(?:[&!][^\s,\[\]{}]*\s+)+")
_HEADER = re.compile(r"[^\r\n]*\s*")
_CORE_TAG = "tag:yaml.org,2002:"


def _resolve(text: str) -> Any:
    """The value of a plain scalar in the core schema of YAML 1.2."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text):
        if len(text) > _MAX_DIGITS:
            raise ValueError(f"a number has at most {_MAX_DIGITS} digits, this one has {len(text)}.")
        if text[:2] in ("0o", "0x"):
            return int(text, 0)
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


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


def _fail(source: Source, message: str, position: Position | None = None, hint: str = "") -> NoReturn:
    raise SpecError([Problem(message, position or Position(source, 1, 1), hint=hint)])


def _similar_file(path: Path) -> str:
    """A file beside it whose name is alike; the suffixes do not count, since most files share them."""
    try:
        names = {
            entry.stem: entry.name for entry in path.parent.iterdir() if entry.suffix in (".yaml", ".yml", ".json")
        }
    except (OSError, ValueError):
        return ""
    close = difflib.get_close_matches(path.stem, names, n=1)
    return f"Did you mean '{names[close[0]]}'?" if close else ""


def _moved(position: Position, passed: str) -> Position:
    """The place after the text `passed` that stands at `position`."""
    lines = (passed + "x").splitlines()
    if len(lines) == 1:
        return position.shifted(len(passed))
    return Position(position.source, position.line + len(lines) - 1, len(lines[-1]))


def _position_of_index(source: Source, index: int) -> Position:
    return _moved(Position(source, 1, 1), source.text[:index])


@lru_cache(maxsize=4)
def _lines_of(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _first_position(source: Source) -> Position:
    for number, line in enumerate(source.text.splitlines(), 1):
        stripped = line.strip()
        if stripped and stripped[0] not in "#%" and not stripped.startswith("---"):
            return Position(source, number, len(line) - len(line.lstrip()) + 1)
    return Position(source, 1, 1)


def _character_problems(source: Source) -> list[Problem]:
    problems = []
    for match in _BAD_CHARACTER.finditer(source.text):
        character, code = match[0], f"U+{ord(match[0]):04X}"
        if character in _SEPARATORS:
            message = f"the {_SEPARATORS[character]} character {code} may not stand in a file as it is."
        elif character == "\ufeff":
            message = f"a byte order mark ({code}) may stand at the start of a file only."
        else:
            message = f"a file may not hold the control character {code}."
        hint = f'Remove it, or write "\\u{ord(character):04x}" inside double quotes.'
        if "\ud800" <= character <= "\udfff":
            message, hint = f"a text may not hold half of a surrogate pair, {code}.", "Remove it."
        problems.append(Problem(message, _position_of_index(source, match.start()), hint=hint))
        if len(problems) == 20:
            break
    return problems


class _PurePythonParser(yaml.BaseLoader):
    """PyYAML's own scanner, which takes tabs between tokens where libyaml does."""

    def scan_to_next_token(self) -> None:
        super().scan_to_next_token()
        while self.peek() == "\t" and (self.flow_level or not self.allow_simple_key):
            self.forward()
            super().scan_to_next_token()


def _fast_parser() -> Any:
    return getattr(yaml, "CBaseLoader", _PurePythonParser)


def _parse(source: Source) -> Any:
    """The one value of a text, or `_EMPTY`."""
    if problems := _character_problems(source):
        raise SpecError(problems)
    # Many objects that all stay: looking for garbage among them again and again would take a third of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        try:
            return _Builder(source).run(_fast_parser()(source.text))
        except _SurrogateEscape:
            # libyaml refuses the pairs of escapes that JSON writes for characters above U+FFFF; the other does not.
            return _Builder(source).run(_PurePythonParser(source.text))
    finally:
        if collecting:
            gc.enable()


class _SurrogateEscape(Exception):
    """libyaml met an escape that may be half of a surrogate pair."""


class _Stop(Exception):
    """A mistake after which reading cannot go on."""


class _Anchor:
    """What an anchor names: a value, how much it holds, and whether it is complete and used."""

    __slots__ = ("complete", "height", "position", "size", "used", "value")

    def __init__(self, value: Any, position: Position, complete: bool) -> None:
        self.value, self.position, self.complete = value, position, complete
        self.used, self.size, self.height = False, 1, 0


class _Frame:
    """An open container, while the ones inside it are read."""

    __slots__ = ("anchor", "as_key", "container", "first", "flow", "height", "key")

    def __init__(self, container: MarkedDict | MarkedList, flow: bool, as_key: bool, first: int) -> None:
        self.container, self.flow, self.as_key, self.first = container, flow, as_key, first
        self.key: str | None = None
        self.height = 0
        self.anchor: _Anchor | None = None


class _Builder:
    """Puts the events of one text together, and collects what is wrong with it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.stack: list[_Frame] = []
        self.anchors: dict[str, _Anchor] = {}
        self.all_anchors: list[tuple[str, _Anchor]] = []
        self.root: Any = _EMPTY
        self.total = 0

    def run(self, parser: Any) -> Any:
        try:
            self.read_events(parser)
            for name, anchor in self.all_anchors:
                if not anchor.used and not isinstance(anchor.value, MarkedDict | MarkedList):
                    self.report_anchor(name, anchor.position)
        except _Stop:
            pass
        except yaml.YAMLError as error:
            if not isinstance(parser, _PurePythonParser) and self.is_surrogate_escape(error):
                raise _SurrogateEscape from None
            self.problems.append(self.syntax_problem(error))
        except (ValueError, OverflowError):  # chr() in PyYAML's scanner, on an escape above U+10FFFF
            mark = parser.get_mark()
            position = Position(self.source, mark.line + 1, mark.column + 1)
            self.problems.append(Problem("this escape names no Unicode character.", position))
        finally:
            parser.dispose()
        if self.problems:
            # The scanner may stumble over what has been told already.
            once = {(problem.position, problem.message): problem for problem in reversed(self.problems)}
            raise SpecError(sorted(once.values(), key=lambda problem: (problem.position or (0, 0, 0))[1:]))
        return self.root

    def read_events(self, parser: Any) -> None:
        """The hot loop: scalars are handled in line, everything rarer in methods."""
        get_event = parser.get_event
        source, stack = self.source, self.stack
        new_position = tuple.__new__
        resolved: dict[str, Any] = {}
        container: MarkedDict | MarkedList | None = None
        frame: _Frame | None = None
        documents = 0
        value: Any
        while True:
            event = get_event()
            kind = event.__class__
            if kind is ScalarEvent:
                mark = event.start_mark
                text = event.value
                style = event.style
                self.total += 1
                if event.tag is None and event.anchor is None:
                    if not style:
                        position = new_position(Position, (source, mark.line + 1, mark.column + 1))
                        if text[:1] not in _TYPED:
                            value = text
                        elif text in resolved:
                            value = resolved[text]
                        else:
                            value = resolved[text] = self.resolve(text, position)
                        if "$(" in text and frame is not None and frame.flow:
                            self.check_template(text, position)
                    elif style in ("'", '"'):
                        position = new_position(Position, (source, mark.line + 1, mark.column + 2))
                        value = text
                        if not text.isascii() and _SURROGATE.search(text):
                            value = self.join_surrogates(text, position)
                    else:
                        position = self.block_scalar_position(mark)
                        value = text
                else:
                    value, position = self.decorated_scalar(event)
                if frame is None:
                    self.root = value
                elif isinstance(container, MarkedDict):
                    if frame.key is None:
                        if value.__class__ is not str or (text == "<<" and not style):
                            value = self.bad_key(value, text, position)
                        if value in container.key_positions:
                            self.report_duplicate(container, value, position)
                        else:
                            container.key_positions[value] = position
                        frame.key = value
                        continue
                    container[frame.key] = value
                    container.value_positions[frame.key] = position
                    frame.key = None
                elif isinstance(container, MarkedList):
                    container.append(value)
                    container.positions.append(position)
            elif kind is MappingStartEvent or kind is SequenceStartEvent:
                self.open_container(event, kind is MappingStartEvent)
                frame = stack[-1]
                container = frame.container
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                self.close_container()
                frame = stack[-1] if stack else None
                container = frame.container if frame else None
            elif kind is AliasEvent:
                self.alias(event)
            elif kind is DocumentStartEvent:
                documents += 1
                if documents == 2:
                    mark = event.start_mark
                    self.report("a file holds one document, a second one starts here.", self.at(mark), stop=True)
            elif kind is StreamEndEvent:
                return
            if self.total > MAX_VALUES:
                message = f"a file holds at most {MAX_VALUES:,} values, this one has more."
                self.report(message, self.at(event.start_mark), stop=True)

    # ---- values

    def is_surrogate_escape(self, error: yaml.YAMLError) -> bool:
        mark = getattr(error, "problem_mark", None)
        if mark is None or "invalid Unicode character escape" not in str(getattr(error, "problem", "")):
            return False
        return _SURROGATE_ESCAPE.search(self.source.text, max(0, mark.index - 3), mark.index + 6) is not None

    def resolve(self, text: str, position: Position) -> Any:
        try:
            return _resolve(text)
        except ValueError as error:
            self.report(str(error), position)
            return 0

    def decorated_scalar(self, event: Any) -> tuple[Any, Position]:
        """The value of a scalar with a tag or an anchor, and the place where its text starts."""
        mark, text, tag, style = event.start_mark, event.value, event.tag, event.style
        start = self.at(mark)
        prefix = _PREFIX.match(self.source.text, mark.index)
        position = start
        if prefix and text:
            position = _moved(start, prefix[0])
            if style in ("'", '"'):
                position = position.shifted(1)
        value: Any = text
        if tag is None:
            value = text if style else self.resolve(text, position)
        elif tag != "!":
            value = self.tagged_value(tag, text, start)
        if style == '"' and isinstance(value, str):
            value = self.join_surrogates(value, position)
        if event.anchor is not None:
            anchor = _Anchor(value, start, complete=True)
            if not text and not style:
                anchor.used = True
                self.report_anchor(event.anchor, start)
            self.anchors[event.anchor] = anchor
            self.all_anchors.append((event.anchor, anchor))
        return value, position

    def tagged_value(self, tag: str, text: str, position: Position) -> Any:
        core = tag.removeprefix(_CORE_TAG)
        if core == "str":
            return text
        if core not in ("int", "float", "bool", "null") or core == tag:
            self.report_tag(tag, position)
            return text
        value = self.resolve(text, position)
        if core == "float" and type(value) is int:
            return float(value)
        if {"int": int, "float": float, "bool": bool, "null": type(None)}[core] is not type(value):
            self.report(f"'{text}' is not of the type that the tag '!!{core}' says.", position, hint="Remove the tag.")
        return value

    def join_surrogates(self, text: str, position: Position) -> str:
        if not _SURROGATE.search(text):
            return text
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self.report("this text holds half of a surrogate pair.", position, hint="Write both \\u escapes, or none.")
            return ""

    def check_template(self, text: str, position: Position) -> None:
        start = _cut(text)
        if start >= 0:
            self.report_cut(position_in(position, text, start))

    def block_scalar_position(self, mark: Any) -> Position:
        """The first character of the text below `|` or `>`."""
        match = _HEADER.match(self.source.text, mark.index)
        return _moved(self.at(mark), match[0]) if match else self.at(mark)

    # ---- containers

    def open_container(self, event: Any, is_mapping: bool) -> None:
        position = self.at(event.start_mark)
        if len(self.stack) >= MAX_DEPTH:
            self.report(f"values may be nested {MAX_DEPTH} deep, this one lies deeper.", position, stop=True)
        self.total += 1
        core = _CORE_TAG + ("map" if is_mapping else "seq")
        if event.tag is not None and event.tag not in ("!", core):
            self.report_tag(event.tag, position)
        container = MarkedDict((), position) if is_mapping else MarkedList((), position)
        parent = self.stack[-1] if self.stack else None
        as_key = parent is not None and isinstance(parent.container, MarkedDict) and parent.key is None
        if as_key:
            self.report(f"a key must be text, got {_kind(container)}.", position)
        frame = _Frame(container, event.flow_style, as_key, self.total)
        if event.anchor is not None:
            frame.anchor = self.anchors[event.anchor] = _Anchor(container, position, complete=False)
            self.all_anchors.append((event.anchor, frame.anchor))
        self.stack.append(frame)

    def close_container(self) -> None:
        frame = self.stack.pop()
        if frame.anchor is not None:
            frame.anchor.complete = True
            frame.anchor.size = self.total - frame.first + 1
            frame.anchor.height = frame.height + 1
        if not self.stack:
            self.root = frame.container
            return
        parent = self.stack[-1]
        parent.height = max(parent.height, frame.height + 1)
        if frame.as_key:
            parent.key = "?"
        else:
            position = frame.container.position
            assert position is not None
            self.add(parent, frame.container, position)

    def add(self, frame: _Frame, value: Any, position: Position) -> None:
        if isinstance(frame.container, MarkedList):
            frame.container.append(value)
            frame.container.positions.append(position)
        else:
            assert frame.key is not None
            frame.container[frame.key] = value
            frame.container.value_positions[frame.key] = position
            frame.key = None

    def alias(self, event: Any) -> None:
        name, position = event.anchor, self.at(event.start_mark)
        anchor = self.anchors.get(name)
        value = None
        frame = self.stack[-1] if self.stack else None
        if anchor is None:
            hint = f"Put text that starts with '*' in quotes: '{_word_at(self.source, event.start_mark)}'."
            self.report(f"'*{name}' is an alias of YAML, but there is no anchor '&{name}' above.", position, hint=hint)
            value = f"*{name}"
        elif not anchor.complete:
            anchor.used = True
            self.report(f"the alias '*{name}' would put the value at {_place(anchor.position)} into itself.", position)
            value = f"*{name}"
        else:
            anchor.used = True
            value = anchor.value
            self.total += anchor.size
            if len(self.stack) + anchor.height > MAX_DEPTH:
                message = f"values may be nested {MAX_DEPTH} deep, the alias '*{name}' would lead deeper."
                self.report(message, position, stop=True)
            if self.total > MAX_VALUES:
                message = f"a file holds at most {MAX_VALUES:,} values, with the alias '*{name}' it has more."
                self.report(message, position, stop=True)
            if frame is not None:
                frame.height = max(frame.height, anchor.height)
        if frame is None:
            self.root = value
        elif isinstance(frame.container, MarkedDict) and frame.key is None:
            if not isinstance(value, str):
                value = self.bad_key(value, f"*{name}", position)
            if value in frame.container.key_positions:
                self.report_duplicate(frame.container, value, position)
            frame.container.key_positions.setdefault(value, position)
            frame.key = value
        else:
            self.add(frame, value, position)

    # ---- problems

    def at(self, mark: Any) -> Position:
        return Position(self.source, mark.line + 1, mark.column + 1)

    def path(self) -> str:
        parts: list[str | int] = []
        for frame in self.stack:
            if isinstance(frame.container, MarkedList):
                parts.append(len(frame.container))
            elif frame.key is not None:
                parts.append(frame.key)
        return format_path(parts)

    def report(self, message: str, position: Position, hint: str = "", stop: bool = False) -> None:
        if len(self.problems) >= 1000:
            raise _Stop
        self.problems.append(Problem(message, position, self.path() if len(self.stack) < MAX_DEPTH else "", hint))
        if stop:
            raise _Stop

    def report_duplicate(self, container: MarkedDict, key: str, position: Position) -> None:
        first = container.key_positions[key]
        self.report(f"the key '{key}' stands here and at {_place(first)}.", position, "Keep one of the two.")

    def bad_key(self, value: Any, text: str, position: Position) -> str:
        if value == "<<":
            message = "'<<' (merging of mappings) is not part of this language."
            self.report(message, position, "Use 'extends' or params.")
        elif value is None and not text:
            self.report("a key must be text, got nothing.", position, "Write a name before the ':'.")
        else:
            self.report(f"a key must be text, got {_kind(value)}.", position, f"Put it in quotes: '{text}'.")
        return text

    def report_tag(self, tag: str, position: Position) -> None:
        shown = tag.replace(_CORE_TAG, "!!")
        self.report(f"'{shown}' is a tag, and tags are not part of this language.", position, "Remove the tag.")

    def report_anchor(self, name: str, position: Position) -> None:
        shown = _line_rest(position)
        message = f"'&{name}' is an anchor of YAML that nothing uses."
        hint = f"Put text that starts with '&' in quotes: '{shown}'."
        self.problems.append(Problem(message, position, self.path(), hint))

    def report_cut(self, position: Position) -> None:
        """A template that YAML has cut off at a `,` or a bracket, because it stands inside brackets without quotes."""
        line = position.source.line(position.line)
        start = position.column - 1
        end = _closing(line, start + 1)
        whole = line[start : end + 1] if end > 0 else "$(...)"
        message = "inside {} and [] YAML ends a text at ',' and at brackets, which cuts this template off."
        quote = '"' if "'" in whole else "'"
        self.report(message, position, f"Put the text in quotes: {quote}{whole}{quote}.")

    def syntax_problem(self, error: yaml.YAMLError) -> Problem:
        """What a scanner or parser of YAML complains about, in words for people who do not know YAML."""
        what = str(getattr(error, "problem", None) or error)
        context = str(getattr(error, "context", None) or "")
        mark = getattr(error, "problem_mark", None)
        context_mark = getattr(error, "context_mark", None)
        text = self.source.text
        if mark is None:
            return Problem(f"this is no YAML: {what}.", Position(self.source, 1, 1))
        position, path = self.at(mark), self.path()
        index = min(mark.index, len(text))
        opened = self.at(context_mark) if context_mark is not None else position
        character = text[index : index + 1]
        at_end = index >= len(text.rstrip())
        quotes = "Put text that holds such characters in quotes."
        if context_mark is not None and ("alias" in context or "anchor" in context):
            sign = text[context_mark.index : context_mark.index + 1]
            message = f"a leading '{sign}' has a meaning of its own in YAML."
            return Problem(message, opened, path, f"Put the text in quotes: '{_word_at(self.source, context_mark)}'.")
        line_start = max(text.rfind("\n", 0, index), text.rfind("\r", 0, index)) + 1
        template = _cut(text[line_start:index])
        if template >= 0 and "quoted" not in context:
            problems, self.problems = self.problems, []
            self.report_cut(_position_of_index(self.source, line_start + template))
            cut, self.problems = self.problems[0], problems
            return cut
        if "quoted scalar" in context and ("end of stream" in what or "document indicator" in what):
            return Problem("this quote is never closed.", opened, path)
        if "escape" in what or "hexdecimal" in what or "hexadecimal" in what:
            hint = "Write '\\\\' for a backslash, or use single quotes."
            return Problem("this backslash starts no escape that YAML knows.", position, path, hint)
        flow = [frame for frame in self.stack if frame.flow]
        if at_end and flow:
            start = flow[-1].container.position
            bracket = "{" if isinstance(flow[-1].container, MarkedDict) else "["
            return Problem(f"this '{bracket}' is never closed.", start, path)
        if "',' or" in what:
            close = "}" if "}" in what else "]"
            message = f"expected ',' or '{close}' here, to go on with what opens at {_place(opened)}."
            return Problem(message, position, path, f"Close it, or put text that holds '{character}' in quotes.")
        if "tab character" in what or (character == "\t" and "cannot start" in what):
            return Problem("a tab may not be used for indentation.", position, path, "Indent with spaces.")
        if "cannot start any token" in what:
            return Problem(f"a value may not start with '{character}'.", position, path, "Put the text in quotes.")
        if "mapping values are not allowed" in what:
            hint = "Check the indentation, or put text that holds ': ' in quotes."
            if mark.column > 1024:
                hint = "A key has at most 1,024 characters."
            return Problem("a ':' is not expected here.", position, path, hint)
        if "could not find expected ':'" in what:
            return Problem("expected 'name: value' here, but there is no ': '.", opened, path)
        if "expected key" in what or ("expected <block end>" in what and "mapping" in context):
            message = f"expected the next key of the mapping that starts at {_place(opened)}."
            hint = "Check the indentation, and that quotes enclose the whole text."
            return Problem(message, position, path, hint)
        if "'-' indicator" in what or "expected <block end>" in what:
            message = f"expected the next '- ' of the list that starts at {_place(opened)}."
            return Problem(message, position, path, "Check the indentation.")
        if "sequence entries are not allowed" in what:
            return Problem("an entry of a list may not start here.", position, path, "Write each '- ' on its own line.")
        if "tag" in context or "tag handle" in what:
            return Problem("tags are not part of this language.", position, path, "Remove the tag.")
        if "node content" in what:
            got = f"'{character}'" if character.strip() else "the end of the line"
            return Problem(f"expected a value here, got {got}.", position, path, quotes)
        if "incompatible" in what or "directive" in context:
            return Problem("this '%' line is no directive that YAML 1.2 knows.", position, path, "Remove the line.")
        if "document" in what:
            return Problem("a file holds one document, and nothing after it.", position, path)
        detail = f"{context}: {what}" if context else what
        return Problem(f"this is no YAML: {detail}.", position, path)


_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def _place(position: Position) -> str:
    return f"{position.line}:{position.column}"


def _word_at(source: Source, mark: Any) -> str:
    match = re.compile(r"[^\s,\[\]{}]+").match(source.text, mark.index)
    return match[0][:60] if match else ""


def _line_rest(position: Position) -> str:
    """The text from a position to the end of its value, as far as a line tells."""
    line = position.source.line(position.line)[position.column - 1 :]
    return re.split(r"[,\]}]|\s#", line, maxsplit=1)[0].strip()[:60]


def _closing(text: str, start: int) -> int:
    """The index of the bracket that closes the one at `start`, or -1."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, start):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.start()
    return -1


def _cut(text: str) -> int:
    """The index of the first `$(` that is never closed, or -1."""
    start = text.find("$(")
    while start >= 0:
        end = _closing(text, start + 1)
        if end < 0:
            return start
        start = text.find("$(", end)
    return -1


# -------------------------------------------------------------------------------------------------------- positions


def format_path(path: Sequence[str | int]) -> str:
    """A path as people write it: `edges[7].to`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def position_at(tree: Any, path: Sequence[str | int]) -> Position | None:
    """The place of the value at `path`, or of the nearest value above it whose place is known."""
    position: Position | None = getattr(tree, "position", None)
    for part in path:
        try:
            if isinstance(tree, MarkedDict):
                position = tree.value_positions.get(str(part), position)
            elif isinstance(tree, MarkedList) and isinstance(part, int) and 0 <= part < len(tree.positions):
                position = tree.positions[part]
            tree = tree[part]
        except (LookupError, TypeError):
            break
    return position


def key_position_at(tree: Any, path: Sequence[str | int]) -> Position | None:
    """The place of the key at the end of `path`; that of the value, if it is an item of a list or has no key."""
    if not path:
        return position_at(tree, path)
    parent = tree
    for part in path[:-1]:
        try:
            parent = parent[part]
        except (LookupError, TypeError):
            return position_at(tree, path)
    if isinstance(parent, MarkedDict) and str(path[-1]) in parent.key_positions:
        return parent.key_positions[str(path[-1])]
    return position_at(tree, path)


_ESCAPE = re.compile(r"\\(?:u[dD][89abAB]..\\u....|x..|u....|U........|.)", re.DOTALL)
_FOLD = re.compile(r"[ \t]*(?:\r\n|\r|\n)[ \t\r\n]*")
_SPACES = re.compile(r"[ \t\r\n]*")


def position_in(position: Position, text: str, offset: int) -> Position:
    """The place of character `offset` of a text that starts at `position`.

    Escapes, doubled quotes and texts of several lines are followed in the source; where the two do not agree (a value
    that was computed), the start of the text is given.
    """
    lines = _lines_of(position.source.text)[position.line - 1 :][: len(text) + 2]
    line = lines[0] if lines else ""
    start = position.column - 1
    raw = line[start : start + offset + 1]
    if raw.startswith(text[:offset]) and "\\" not in raw and "''" not in raw:
        return position.shifted(offset)
    raw = "".join(lines)
    index, done = start, 0
    quote = line[start - 1 : start] if start else ""
    while done < offset:
        if index >= len(raw):
            return position
        if quote == '"' and raw[index] == "\\":
            match = _ESCAPE.match(raw, index)
            if match is None:
                return position
            index = match.end()
            if match[0][1:] in ("\n", "\r"):
                spaces = _SPACES.match(raw, index)
                index = spaces.end() if spaces else index
            else:
                done += 1
        elif fold := _FOLD.match(raw, index):
            spaces = _SPACES.match(text, done)
            if spaces is None or spaces.end() == done:
                return position
            index, done = fold.end(), spaces.end()
        elif raw[index] == text[done]:
            index += 2 if quote == "'" and raw.startswith("''", index) else 1
            done += 1
        else:
            return position
    return _moved(position, raw[start:index])


# ---------------------------------------------------------------------------------------------------------- merging


def merge(base: MarkedDict, patch: MarkedDict) -> MarkedDict:
    """`base` with `patch` laid over it: mappings key by key, `null` deletes, anything else replaces.

    Entries of `edges` (at the top, or of an entry of `blocks`) are added, or replace the one of the same name in place.
    What the base does not have is taken as it is. Both inputs stay as they are; the result shares values with them.
    """
    return _merge(base, patch, ())


def _merge(base: MarkedDict, patch: MarkedDict, path: tuple[str, ...]) -> MarkedDict:
    out = base.copy()
    for key, value in patch.items():
        if key in base:
            old = base[key]
            if value is None:
                del out[key]
                out.key_positions.pop(key, None)
                out.value_positions.pop(key, None)
                continue
            if isinstance(old, dict) and isinstance(value, dict):
                out[key] = _merge(_marked(old), _marked(value), (*path, key))
                continue
            if _is_edges((*path, key)) and _is_entries(old) and _is_entries(value):
                out[key] = _merge_entries(old, value)
                continue
        out[key] = value
        for mine, theirs in (
            (out.key_positions, patch.key_positions),
            (out.value_positions, patch.value_positions),
        ):
            if key in theirs:
                mine[key] = theirs[key]
            else:
                mine.pop(key, None)
    return out


def _marked(data: dict[str, Any]) -> MarkedDict:
    return data if isinstance(data, MarkedDict) else MarkedDict(data)


def _is_edges(path: tuple[str, ...]) -> bool:
    return path == ("edges",) or (len(path) == 3 and path[0] == "blocks" and path[2] == "edges")


def _is_entries(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _merge_entries(base: list[Any], patch: list[Any]) -> MarkedList:
    out = MarkedList(base, getattr(base, "position", None))
    positions: list[Position | None] = _positions(base)
    places = {entry["name"]: i for i, entry in enumerate(base) if isinstance(entry.get("name"), str)}
    for entry, position in zip(patch, _positions(patch), strict=True):
        name = entry.get("name")
        if isinstance(name, str) and name in places:
            out[places[name]], positions[places[name]] = entry, position
        else:
            out.append(entry)
            positions.append(position)
    # Positions of items are known all together or not at all, so that an index finds its own.
    if all(position is not None for position in positions):
        out.positions = [position for position in positions if position is not None]
    return out


def _positions(items: list[Any]) -> list[Position | None]:
    known = getattr(items, "positions", [])
    return list(known) if len(known) == len(items) else [None] * len(items)


# ---------------------------------------------------------------------------------------------------------- writing

_PLAIN = re.compile(r"[\w$(](?:[\w$().*+/<>=%-]| (?! |$))*")
_OLD_BOOLEANS = frozenset(("on", "off", "yes", "no"))
_ESCAPED = re.compile("[\x7f-\xa0\xad\u200b-\u200f\u2028-\u202f\u2060-\u206f\ud800-\udfff\ufeff\ufff0-\uffff]")


def to_yaml(data: Any) -> str:
    """Plain or marked data as YAML: keys in order, short inner mappings and lists on one line.

    Raises:
        TypeError: Something is no JSON-like value, or a key is no text.
    """
    if isinstance(data, dict | list | tuple) and data:
        return "\n".join(_yaml_lines(data, 0, top=True)) + "\n"
    return _flow(data, _yaml_scalar, _yaml_text) + "\n"


def to_json(data: Any) -> str:
    """Plain or marked data as JSON: keys in order, short inner objects and arrays on one line.

    Raises:
        TypeError: Something is no JSON-like value, or a key is no text.
        ValueError: A number is not finite; JSON cannot say it.
    """
    return "\n".join(_json_lines(data, 0, top=True)) + "\n"


def _yaml_lines(data: Any, indent: int, top: bool = False) -> list[str]:
    """The lines of a container that is not empty, in block style."""
    pad = " " * indent
    lines: list[str] = []
    if isinstance(data, dict):
        for key, value in data.items():
            head = f"{pad}{_key(key, _yaml_text)}:"
            flow = _short(value, _WIDTH - len(head) - 1, top, _yaml_scalar, _yaml_text)
            if flow is not None:
                lines.append(f"{head} {flow}")
            else:
                lines.append(head)
                lines += _yaml_lines(value, indent + 2)
        return lines
    for value in data:
        flow = _short(value, _WIDTH - indent - 2, False, _yaml_scalar, _yaml_text)
        if flow is not None:
            lines.append(f"{pad}- {flow}")
        else:
            first, *rest = _yaml_lines(value, indent + 2)
            lines += [f"{pad}- {first[indent + 2 :]}", *rest]
    return lines


def _json_lines(data: Any, indent: int, top: bool = False) -> list[str]:
    if not isinstance(data, dict | list | tuple) or not data:
        return [_flow(data, _json_scalar, _json_text)]
    pad = " " * (indent + 2)
    lines: list[str] = []
    is_mapping = isinstance(data, dict)
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        head = f"{pad}{_key(key, _json_text)}: " if is_mapping else pad
        flow = _short(value, _WIDTH - len(head) - 1, top, _json_scalar, _json_text)
        if flow is not None:
            lines.append(f"{head}{flow},")
        else:
            first, *rest = _json_lines(value, indent + 2)
            lines += [f"{head}{first}", *rest]
            lines[-1] += ","
    lines[-1] = lines[-1][:-1]
    opening, closing = "{}" if is_mapping else "[]"
    return [opening, *lines, " " * indent + closing]


def _short(value: Any, room: int, top: bool, scalar: Any, text: Any) -> str | None:
    """A value on one line: a scalar always; a container if it is flat enough to read there, and fits."""
    if not isinstance(value, dict | list | tuple) or not value:
        return _flow(value, scalar, text)
    # `nodes`, `skips` and the like are written in lines, even where one would hold them.
    if not _is_flat(value, 1 if top else 2) or len(value) > room:
        return None
    flow = _flow(value, scalar, text)
    return flow if len(flow) <= room else None


def _is_flat(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list | tuple):
        return True
    return levels > 0 and all(_is_flat(v, levels - 1) for v in (value.values() if isinstance(value, dict) else value))


def _flow(value: Any, scalar: Any, text: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k, text)}: {_flow(v, scalar, text)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(v, scalar, text) for v in value) + "]"
    return str(scalar(value))


def _key(key: Any, text: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key must be text, got {key!r}")
    return str(text(str(key)))


def _yaml_scalar(value: Any) -> str:
    if isinstance(value, str):
        return _yaml_text(str(value))
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return _number(value)


def _json_scalar(value: Any) -> str:
    if isinstance(value, str):
        return _json_text(str(value))
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"JSON has no number {value}")
    return _number(value)


def _number(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value)
    raise TypeError(f"only text, numbers, true, false, null, lists and mappings can be written, got {value!r}")


@lru_cache(maxsize=4096)
def _yaml_text(text: str) -> str:
    """A text as a scalar that is the same inside and outside of brackets."""
    if _PLAIN.fullmatch(text) and text.lower() not in _OLD_BOOLEANS and _is_text(text) and _cut(text) < 0:
        return text
    if text.isprintable() and not _ESCAPED.search(text):
        return "'" + text.replace("'", "''") + "'"
    return _json_text(text)


def _is_text(text: str) -> bool:
    return text not in _CONSTANTS and not _INT.fullmatch(text) and not _FLOAT.fullmatch(text)


@lru_cache(maxsize=4096)
def _json_text(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)
