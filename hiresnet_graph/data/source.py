"""Data sets from text or mappings, as in the command line, a study file or Python."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hiresnet_graph.data.kind import DATASETS, DatasetKind
from hiresnet_graph.errors import UsageError, did_you_mean
from hiresnet_graph.spec.problems import Problems

if TYPE_CHECKING:
    from hiresnet_graph.data.dataset import Dataset

_SETTING = re.compile(r"([a-z_]+)=(.*)", re.DOTALL)


def data_source(given: str | Mapping[str, Any] | DatasetKind, *, download: bool = False) -> DatasetKind:
    """The data set with a name and fields, without loading it.

    Args:
        given: `cifar10`, `npz:FILE`, `imagefolder:DIR,size=32`, `synthetic:classes=3,images=500`; or a mapping of
            `kind` and the fields.
        download: Download it if it is not found; ignored by data sets that cannot be downloaded.

    Raises:
        UsageError: There is no such data set, or the fields are wrong; lists all errors.
    """
    if isinstance(given, DatasetKind):
        source = given
    else:
        source = _make(*(_parse(given) if isinstance(given, str) else _read_mapping(given)))
    if download and source.can_download():
        source = source.changed({"download": True})
    return source


def load_dataset(source: str | Mapping[str, Any] | DatasetKind) -> Dataset:
    """The images of a data set, their labels and the split.

    Args:
        source: As for `data_source`.

    Raises:
        UsageError: There is no such data set, or its files do not make one.
        MissingDataError: Its files are not found.
        RunError: One of its files is damaged.
    """
    kind = data_source(source)
    dataset = kind.load()
    if kind.mean is None or kind.std is None:
        return dataset
    return dataclasses.replace(dataset, normalization=(kind.mean, kind.std))


def _parse(text: str) -> tuple[str, dict[str, Any]]:
    """Name and fields of a text like `imagefolder:DIR,size=32`."""
    name, _, rest = text.partition(":")
    if name not in DATASETS:
        return name, {}
    kind = DATASETS.get(name)
    fields: dict[str, Any] = {}
    last = ""
    # A comma belongs to a path, unless a setting follows.
    for part in re.split(r",(?=[a-z_]+=)", rest) if rest else []:
        setting = _SETTING.fullmatch(part)
        if last and _continues(kind, fields[last], part):
            fields[last] += f",{part}"
        elif setting and (setting[1] in kind.model_fields or not _is_argument(kind, fields, part)):
            if (last := setting[1]) in fields:
                raise UsageError(f"data '{name}': '{last}' is set twice. Give it once.")
            fields[last] = setting[2]
        elif kind.argument:
            fields[last := kind.argument] = part
        else:
            raise UsageError(f"data '{name}': '{part}' is not a setting. Write '{name}:FIELD=VALUE'.")
    return name, fields


def _continues(kind: type[DatasetKind], value: str, part: str) -> bool:
    """Whether a part that looks like a setting belongs to the path before it: `/a,b=c.npz`."""
    is_field = part.partition("=")[0] in kind.model_fields
    return _exists(f"{value},{part}") and not (is_field and _exists(value))


def _is_argument(kind: type[DatasetKind], fields: Mapping[str, Any], part: str) -> bool:
    """Whether a part that looks like an unknown setting is the path that comes first: `x=y.npz`.

    Raises:
        UsageError: It may be either, and there is no such file or folder.
    """
    if fields or not kind.argument:
        return False
    if not _exists(part):
        raise UsageError(
            f"data '{kind.kind}': '{part}' is not a file or folder, and '{part.partition('=')[0]}' is not a field. "
            f"{did_you_mean(part.partition('=')[0], kind.model_fields)} For a path, write '{kind.kind}:./{part}'."
        )
    return True


def _exists(path: str) -> bool:
    return os.path.exists(os.path.expanduser(path))


def _read_mapping(given: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    name = given.get("kind")
    if not isinstance(name, str):
        raise UsageError("data: a mapping requires 'kind', the name of a data set. See 'hrg list datasets'.")
    # Not a copy, since the mapping has the positions of its values in the file.
    return name, given


def _make(name: str, fields: Mapping[str, Any]) -> DatasetKind:
    if name not in DATASETS:
        if (head := name.split(",")[0]) in DATASETS:
            fields_text = name.removeprefix(head).lstrip(", ")
            raise UsageError(f"data: fields follow a colon: '{head}:{fields_text}', not '{name}'.")
        is_file = name.endswith(".npz")
        if is_file or os.path.isdir(name):
            hint = f"Did you mean '{'npz' if is_file else 'imagefolder'}:{name}'?"
        else:
            own = "For others, write their arrays with numpy and use 'npz:FILE', or their images and 'imagefolder:DIR'."
            hint = did_you_mean(name, DATASETS)
            hint = f"{hint} {own}" if hint.startswith("Known") else hint
        raise UsageError(f"data: there is no data set '{name}'. {hint}".strip())
    kind = DATASETS.get(name)
    if kind.argument and kind.argument not in fields:
        raise UsageError(f"data '{name}': '{kind.argument}' is missing. Write '{kind.usage()}'.")
    problems = Problems(fields)
    source = problems.model(kind, {key: value for key, value in fields.items() if key != "kind"}, ())
    if source is None:
        raise UsageError("\n".join(f"data '{name}': {problem}" for problem in problems.found))
    return source
