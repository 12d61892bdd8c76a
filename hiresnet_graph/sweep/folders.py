"""The folders of a study's runs: how they are named, and which runs lie in them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from hiresnet_graph.errors import RunError
from hiresnet_graph.spec.edge_set import PLUS
from hiresnet_graph.train.record import RunRecord, Seeds, read_record, read_settings

# Not a file: the folder and its parent, and the devices of Windows, whatever follows the first dot.
_NO_FILE = re.compile(r"\.{1,2}$|(con|prn|aux|nul|com\d|lpt\d)\.", re.IGNORECASE)


class FoundRun(NamedTuple):
    """A run in a folder; `record` is None if it is not finished."""

    name: str
    key: str
    record: RunRecord | None


def find_unrecorded(runs: Path, known: Iterable[str]) -> list[FoundRun]:
    """The runs in folders that a ledger does not know, as of a ledger that was moved away; finished ones first.

    Folders that cannot be read are left out; their runs report that.

    Args:
        runs: The folder with the folders of all runs.
        known: Names of the folders in the ledger, which are not read.
    """
    recorded = {name.casefold() for name in known}
    found = []
    for name in sorted(folder_names(runs)):
        if name.casefold() in recorded or not (runs / name).is_dir():
            continue
        try:
            record = read_record(runs / name)
            settings = None if record is not None else read_settings(runs / name)
        except RunError:
            continue
        if (held := record or settings) is not None:
            found.append(FoundRun(name, held.key, record))
    return sorted(found, key=lambda run: run.record is None)


def folder_names(folder: Path) -> set[str]:
    """The names in a folder, which need not exist: one call instead of one for each run."""
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()


def run_folder(label: str, setting: Mapping[str, object], seeds: Seeds) -> str:
    """The name of a run's folder, below `runs`."""
    values = (value if isinstance(value, str) else json.dumps(value) for value in setting.values())
    chosen = "".join(f"-{name.rpartition('.')[2]}={value}" for name, value in zip(setting, values, strict=True))
    return f"{_file_name(label)}{_file_name(chosen) if chosen else ''}-seed{str(seeds).replace('/', '-')}"


def _file_name(label: str) -> str:
    """A label as part of a file name without characters that a shell interprets; unique for each label."""
    text = label.replace(">", "-to-").replace(PLUS, "+").replace("without ", "without-")
    if re.fullmatch(r"[\w.+=-]{1,100}", text, re.ASCII) and not _NO_FILE.match(text):
        return text
    text = f"_{text}" if _NO_FILE.match(text) else text
    return re.sub(r"[^\w.+=-]+", "_", text, flags=re.ASCII)[:80] + "-" + hashlib.sha256(label.encode()).hexdigest()[:8]
