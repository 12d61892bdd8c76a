"""A benchmark in parts: each is written to the JSON file when it is done; a later call goes on with what is missing.

So a measurement that takes long can be cut into calls of a few minutes, with one command: the same one again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.measure import Options, keep, machine


def part_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that cut a benchmark into calls."""
    parser.add_argument("--parts", metavar="A,B", help="only parts whose names begin so; a part that is done is redone")
    parser.add_argument("--minutes", type=float, metavar="N", help="begin no part after N minutes; call again for them")


def results_of(
    name: str, parts: Mapping[str, Callable[[], dict[str, Any]]], settings: dict[str, Any], given: Options
) -> tuple[dict[str, Any], list[str]]:
    """The results of all parts that are done, here or in a call before; and the names of those that are not.

    Args:
        parts: What measures each part, as plain data.
        settings: What the numbers depend on. A file with others is not added to.
    """
    chosen = None if given.more.parts is None else tuple(given.more.parts.split(","))
    if chosen and not all(any(part.startswith(start) for part in parts) for start in chosen):
        raise SystemExit(f"--parts: these begin the name of no part. There are: {', '.join(parts)}.")
    before = _before(name, settings, given)
    done: dict[str, Any] = {part: before[part] for part in parts if part in before}
    start = time.perf_counter()
    for part, measured in parts.items():
        wanted = part not in done if chosen is None else part.startswith(chosen)
        late = given.more.minutes is not None and time.perf_counter() - start > 60 * given.more.minutes
        if not wanted or late:
            continue
        began = time.perf_counter()
        found = measured()
        done[part] = {"seconds": round(time.perf_counter() - began, 1), **found}
        keep(name, _together(settings, done), given)
    return done, [part for part in parts if part not in done]


def _together(settings: dict[str, Any], done: Mapping[str, Any]) -> dict[str, Any]:
    return {"settings": settings, "parts": done}


def told(settings: dict[str, Any], done: Mapping[str, Any], missing: list[str]) -> tuple[dict[str, Any], str]:
    """What `finish` writes, and a line about what is missing (empty if nothing is)."""
    line = f"Not measured yet: {', '.join(missing)}. The same command goes on with them.\n\n" if missing else ""
    return _together(settings, done), line


def _before(name: str, settings: dict[str, Any], given: Options) -> dict[str, Any]:
    """The parts that are in the file already."""
    if given.json is None or not given.json.exists():
        return {}
    data = json.loads(given.json.read_text())
    here = machine()
    same = {
        "benchmark": (data["benchmark"], name),
        "--quick": (data["quick"], given.quick),
        "settings": (data["results"].get("settings"), json.loads(json.dumps(settings))),
        **{key: (data["machine"].get(key), here[key]) for key in ("processor", "versions", "gpu")},
    }
    for what, (there, now) in same.items():
        if there != now:
            raise SystemExit(
                f"{given.json}: its {what} is {there}, now it is {now}: these numbers do not belong together. "
                "Give another file, or delete this one."
            )
    parts: dict[str, Any] = data["results"]["parts"]
    return parts
