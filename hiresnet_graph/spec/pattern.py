"""Patterns in addresses: `stage*.block1`."""

from __future__ import annotations


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern matches a name: `*` stands for any characters within one part between dots."""
    if "*" not in pattern:
        return pattern == name
    parts, own = pattern.split("."), name.split(".")
    return len(parts) == len(own) and all(map(_part_matches, parts, own))


def _part_matches(pattern: str, name: str) -> bool:
    # A regular expression with many stars would take exponential time.
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    *middle, last = rest
    start, end = len(first), len(name) - len(last)
    if start > end or not name.startswith(first) or not name.endswith(last):
        return False
    for piece in middle:
        found = name.find(piece, start, end)
        if found < 0:
            return False
        start = found + len(piece)
    return True
