"""Mappings and lists that remember where they were written, their copies, and paths into trees of them.

A tree that was read is never changed in place: functions give a new one, which may share parts with the old one.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from hiresnet_graph.errors import Position


class MarkedDict(dict[str, Any]):
    """A mapping with the positions of itself, its keys and its values; equal to a `dict` of the same items."""

    __slots__ = ("key_positions", "position", "value_positions")

    def __init__(
        self,
        items: Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
        position: Position | None = None,
        key_positions: dict[str, Position] | None = None,
        value_positions: dict[str, Position] | None = None,
    ) -> None:
        if items:
            super().__init__(items)
        self.position = position
        self.key_positions: dict[str, Position] = {} if key_positions is None else key_positions
        self.value_positions: dict[str, Position] = {} if value_positions is None else value_positions

    def __copy__(self) -> MarkedDict:
        return MarkedDict(self, self.position, dict(self.key_positions), dict(self.value_positions))

    copy = __copy__

    def __deepcopy__(self, memo: dict[int, Any]) -> MarkedDict:
        memo[id(self)] = new = MarkedDict((), self.position, dict(self.key_positions), dict(self.value_positions))
        for key, value in self.items():
            new[key] = copy.deepcopy(value, memo)
        return new

    def take(self, key: str, other: Mapping[str, Any]) -> None:
        """Set an item to that of another mapping, with its positions."""
        self[key] = other[key]
        for name in ("key_positions", "value_positions"):
            mine, theirs = getattr(self, name), getattr(other, name, {})
            if key in theirs:
                mine[key] = theirs[key]
            else:
                mine.pop(key, None)

    def replaced(self, fields: Mapping[str, Any]) -> MarkedDict:
        """A copy with other items added or replaced."""
        new = self.copy()
        for key in fields:
            new.take(key, fields)
        return new

    def subset(self, keys: Iterable[str]) -> MarkedDict:
        """The items with these keys, in the order of `keys`."""
        new = MarkedDict((), self.position)
        for key in keys:
            new.take(key, self)
        return new

    def without(self, *keys: str) -> MarkedDict:
        """A copy without these items, if it has them."""
        new = self.copy()
        for key in keys:
            new.pop(key, None)
            new.key_positions.pop(key, None)
            new.value_positions.pop(key, None)
        return new


class MarkedList(list[Any]):
    """A list with the positions of itself and its items; equal to a `list` of the same items.

    Attributes:
        positions: Those of all items; empty if one of them is unknown.
    """

    __slots__ = ("position", "positions")

    def __init__(
        self, items: Iterable[Any] = (), position: Position | None = None, positions: list[Position] | None = None
    ) -> None:
        if items:
            super().__init__(items)
        self.position = position
        self.positions: list[Position] = [] if positions is None else positions

    def __copy__(self) -> MarkedList:
        return MarkedList(self, self.position, list(self.positions))

    copy = __copy__

    def __deepcopy__(self, memo: dict[int, Any]) -> MarkedList:
        memo[id(self)] = new = MarkedList((), self.position, list(self.positions))
        new.extend(copy.deepcopy(value, memo) for value in self)
        return new


def marked(value: Any, position: Position | None = None) -> Any:
    """Plain mappings and lists as marked ones, with one position for everything in them; marked ones as they are."""
    if isinstance(value, MarkedDict | MarkedList):
        return value
    if isinstance(value, Mapping):
        positions = {} if position is None else dict.fromkeys(value, position)
        items = {key: marked(item, position) for key, item in value.items()}
        return MarkedDict(items, position, dict(positions), dict(positions))
    if isinstance(value, list | tuple):
        items_ = [marked(item, position) for item in value]
        return MarkedList(items_, position, None if position is None else [position] * len(value))
    return value


def merge(base: MarkedDict, patch: MarkedDict) -> MarkedDict:
    """`base` with `patch` applied: mappings are merged key by key, `null` deletes, anything else replaces.

    Entries of `edges` (at the top, or of an entry of `blocks`) are added, or replace in place the one of the same name,
    or without names the one with the same ends; an empty list removes all.
    Values without a counterpart in the base are taken as they are. The result shares values with both.
    """
    return _merge(base, patch, ())


def _merge(base: MarkedDict, patch: MarkedDict, path: tuple[str, ...]) -> MarkedDict:
    deleted = {key for key, value in patch.items() if value is None and key in base}
    new = base.without(*deleted)
    for key, value in patch.items():
        if key in deleted:
            continue
        old = base.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            new[key] = _merge(marked(old), marked(value), (*path, key))
        elif value and _is_edges((*path, key)) and _is_entries(old) and _is_entries(value):
            new[key] = _merge_entries(old, value)
        else:
            new.take(key, patch)
    return new


def _is_edges(path: tuple[str, ...]) -> bool:
    return path == ("edges",) or (len(path) == 3 and path[0] == "blocks" and path[2] == "edges")


def _is_entries(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _merge_entries(base: Any, patch: Any) -> MarkedList:
    found = list(zip(base, _item_positions(base), strict=True))
    known = {_entry_key(entry): i for i, entry in enumerate(base)}
    for entry, position in zip(patch, _item_positions(patch), strict=True):
        # An entry of the base is replaced once; a second one like it is one edge too many, which is reported later.
        at = known.pop(_entry_key(entry), None)
        if at is None:
            found.append((entry, position))
        else:
            found[at] = entry, position
    positions = [position for _, position in found if position is not None]
    is_complete = len(positions) == len(found)
    return MarkedList((entry for entry, _ in found), getattr(base, "position", None), positions if is_complete else [])


def _entry_key(entry: Any) -> str:
    """What an entry of `edges` is recognised by: its name, or its ends."""
    name = entry.get("name")
    return f"name {name}" if isinstance(name, str) else f"ends {entry.get('from')!r} {entry.get('to')!r}"


def texts_in(tree: Any) -> set[str]:
    """All texts among the values of a tree."""
    found: set[str] = set()
    rest = [tree]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            found.add(value)
        elif isinstance(value, dict | list):
            rest.extend(value.values() if isinstance(value, dict) else value)
    return found


def positions_in(tree: Any) -> list[Position]:
    """The positions of all keys and values of a tree."""
    if isinstance(tree, MarkedDict):
        own = [*tree.key_positions.values(), *tree.value_positions.values()]
        return own + [position for value in tree.values() for position in positions_in(value)]
    if isinstance(tree, MarkedList):
        return [*tree.positions, *(position for value in tree for position in positions_in(value))]
    return []


def _item_positions(items: list[Any]) -> list[Position | None]:
    known = getattr(items, "positions", [])
    return list(known) if len(known) == len(items) else [getattr(item, "position", None) for item in items]


# ------------------------------------------------------------------------------------------------ paths and positions


def format_path(path: Iterable[str | int]) -> str:
    """A path in the form of messages: `edges[7].to`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def position_at(tree: Any, path: Sequence[str | int]) -> Position | None:
    """The position of the value at `path`, or of the nearest value above it whose position is known."""
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
    """The position of the key at the end of `path`; that of the value, if it is an item of a list or has no key."""
    parent = tree
    try:
        for part in path[:-1]:
            parent = parent[part]
    except (LookupError, TypeError):
        return position_at(tree, path)
    if path and isinstance(parent, MarkedDict) and str(path[-1]) in parent.key_positions:
        return parent.key_positions[str(path[-1])]
    return position_at(tree, path)


_ESCAPE = re.compile(r"\\(?:u[dD][89abAB]..\\u....|x..|u....|U........|.)", re.DOTALL)
_FOLD = re.compile(r"[ \t]*(?:\r\n|\r|\n)[ \t\r\n]*")
_SPACES = re.compile(r"[ \t\r\n]*")
_BLANK = " \t\r\n"


@lru_cache(maxsize=4)
def _lines_of(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def position_in(position: Position, text: str, offset: int) -> Position:
    """The position of character `offset` of a text that starts at `position`.

    Escapes, doubled quotes and texts of several lines are followed in the source. If source and text do not agree (for
    a value that was computed), the result is the start of the text.
    """
    lines = _lines_of(position.source.text)[position.line - 1 :][: len(text) + 2]
    line = lines[0] if lines else ""
    start = position.column - 1
    if not line[:start].strip(_BLANK) and line[start : start + 1].strip(_BLANK) and text[:1] in _BLANK:
        # A block scalar, whose position is that of its first word.
        offset = max(0, offset - len(text) + len(text.lstrip(_BLANK)))
        text = text.lstrip(_BLANK)
    raw = line[start : start + offset + 1]
    if raw.startswith(text[:offset]) and "\n" not in text[:offset] and "\\" not in raw and "''" not in raw:
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
    return position.after(raw[start:index])
