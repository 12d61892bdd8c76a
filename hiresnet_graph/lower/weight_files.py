"""Files of weights: reading them, and how they fit a network."""

from __future__ import annotations

import hashlib
import io
import json
import math
import warnings
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load

from hiresnet_graph.errors import HrgError, RunError
from hiresnet_graph.files import read_bytes
from hiresnet_graph.formats import format_count

# In the folder of a run.
_FILE = "model.safetensors"
# Of DataParallel and its kin, and of torch.compile.
_PREFIXES = ("module.", "_orig_mod.")
# Of the tensors of edges, in the names of a network.
_EDGES = "edges."
_SHOWN = 3
_LONGEST = 120
REINIT_HINT = "To keep initial values for what does not fit: '--reinit'."
"""What to do about weights that do not fit, where the command line has this option."""

Tensors = dict[str, torch.Tensor]
Shapes = Mapping[str, tuple[int, ...]]


class WeightFile(NamedTuple):
    """The tensors of a file.

    Attributes:
        path: The file; of a run's folder, that of its weights.
        note: A sentence on what was read of it; empty if it has tensors alone.
        map: The file by whose map the tensors were renamed; None if they have their own names.
    """

    path: Path
    tensors: Tensors
    note: str = ""
    map: Path | None = None

    def digest(self) -> str:
        """A hash of names, types, shapes and values: 32 hexadecimal digits, the same for both file formats."""
        found = hashlib.blake2b(digest_size=16)
        for name, value in sorted(self.tensors.items()):
            found.update(f"{name}:{value.dtype}:{tuple(value.shape)}\n".encode())
            found.update(value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()


class Fit(NamedTuple):
    """How the tensors of a file fit a network, by address.

    Attributes:
        tensors: Those that the network has, with the same shape.
        lacking: Tensors of the network that the file does not have.
        reshaped: Tensors that both have, with other shapes: name -> the shape in the file, and in the network.
        unused: Tensors of the file that the network does not have.
        prefix: The prefix that was removed from all names.
    """

    path: Path
    tensors: Tensors
    lacking: tuple[str, ...]
    reshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    unused: tuple[str, ...]
    prefix: str

    @classmethod
    def of(cls, file: WeightFile, own: Shapes) -> Self:
        """The fit of a file.

        Args:
            own: The shapes of the tensors of the network, by name.
        """
        tensors, prefix = _without_prefix(file.tensors, own)
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        return cls(
            file.path,
            {name: value for name, value in tensors.items() if shapes[name] == own.get(name)},
            tuple(name for name in own if name not in tensors),
            {name: (shapes[name], own[name]) for name in own if name in shapes and shapes[name] != own[name]},
            tuple(name for name in tensors if name not in own),
            prefix,
        )

    @property
    def drawn(self) -> tuple[str, ...]:
        """The tensors of the network that the file does not give."""
        return (*self.lacking, *self.reshaped)

    def refusal(self, *, reinit: bool = False, allow_unused: bool = False, hint: str = "") -> str:
        """Why the weights are not those of the network; empty if they are, or if the rest may keep initial values.

        Args:
            reinit: Tensors that do not fit keep their initial values.
            allow_unused: The network may lack tensors of the file.
            hint: What to do, unless that is done already (`reinit`).
        """
        if reinit and self.tensors:
            return ""
        faults = [f"'{name}' is {list(found)}, not {list(shape)}" for name, (found, shape) in self.reshaped.items()]
        faults += [f"it lacks '{name}'" for name in self.lacking]
        faults += [] if allow_unused else [f"'{_short(name)}' is not in the network" for name in self.unused]
        if not faults:
            return ""
        if reinit:
            return f"{self.path}: no tensor of this file fits the network: {'; '.join(faults[:_SHOWN])}."
        if len(faults) == len(self.lacking) and all(name.startswith(_EDGES) for name in self.lacking):
            fault = f"the network has edges that the weights lack: {_some(self.lacking)}."
            return f"{self.path}: {fault} {hint}".rstrip()
        more = f", and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        fault = f"these weights belong to another network: {'; '.join(faults[:_SHOWN])}{more}."
        return f"{self.path}: {fault} {hint}".rstrip()

    def sentences(self) -> list[str]:
        """What was changed and what does not fit, as sentences."""
        found = []
        if self.prefix:
            found.append(f"Removed the prefix '{self.prefix}' from the names of the weights in {self.path}.")
        if self.lacking:
            found.append(f"{self.path} lacks {_some(self.lacking)}: initial values are kept.")
        if self.reshaped:
            found.append(f"{self.path} has {_some(tuple(self.reshaped))} in another shape: initial values are kept.")
        if self.unused:
            found.append(f"{self.path} has {_some(self.unused)}, which the network lacks: not used.")
        return found


def _short(name: str) -> str:
    """A name of a file of others, in a message."""
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{_short(name)}'" for name in names[:_SHOWN])
    return shown + (f" and {format_count(len(names) - _SHOWN, 'more tensor')}" if len(names) > _SHOWN else "")


def read_weights(path: Path, error: type[HrgError] = RunError, maps: Iterable[Path] = ()) -> WeightFile:
    """The tensors of a file.

    Files of the library that a network was imported from have other names. They are replaced by the addresses in the
    spec if a map that `hrg import` wrote has more of the names.

    Args:
        path: A safetensors file; a file of `torch.save` that holds tensors by name, alone or as an entry; or the folder
            of a run, for its weights of the epoch of best validation.
        maps: Files that may have such a map, as of `maps_beside`.

    Raises:
        error: The file cannot be read, or holds anything else. No code in it is run.
    """
    found = _read(_file_in(path, error) if path.is_dir() else path, error)
    for candidate in maps:
        if candidate != found.path and (renamed := _renamed(found, candidate)) is not None:
            return renamed
    return found


def maps_beside(specs: Iterable[Path]) -> tuple[Path, ...]:
    """The weights that `hrg import` wrote beside specs, with the same names but for the suffix."""
    beside = (spec.absolute().with_suffix(".safetensors") for spec in specs)
    return tuple(path for path in beside if path.is_file())


def _renamed(file: WeightFile, path: Path) -> WeightFile | None:
    """The tensors of a file with the addresses of the spec for the names of the original; None if it has neither.

    Tensors that the import saw and left out are left out here, too; those that it never saw keep their names.

    Args:
        path: Has the map in its header.
    """
    try:
        with safe_open(path, "pt") as opened:
            header = opened.metadata() or {}
            names, left_out = json.loads(header.get("names", "{}")), json.loads(header.get("left_out", "[]"))
            shapes = {address: opened.get_slice(address).get_shape() for address in opened.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, SafetensorError, ValueError):  # any other file beside the spec
        return None
    addresses = {name: address for address, name in names.items()} if isinstance(names, dict) else {}
    tensors, _ = _without_prefix(file.tensors, addresses)
    known = addresses.keys() & tensors.keys()
    if len(known) <= len(set(addresses.values()) & tensors.keys()):
        return None
    moved = {}
    for name in sorted(known):
        value, shape = tensors[name], shapes.get(addresses[name], ())
        moved[addresses[name]] = value.reshape(shape) if value.numel() == math.prod(shape) else value
    notes = [
        file.note,
        f"Renamed {format_count(len(known), 'tensor')} of {file.path} by the map of the import in {path}.",
    ]
    surplus = {name: value for name, value in tensors.items() if name not in known and name not in left_out}
    return WeightFile(file.path, {**surplus, **moved}, " ".join(filter(None, notes)), path)


def _read(path: Path, error: type[HrgError]) -> WeightFile:
    try:
        # From bytes, not mapped: the file may be replaced while the module is in use.
        content = read_bytes(path)
        # A safetensors file begins with the length of its header, whose first byte may be that of a pickle.
        if content.startswith((b"PK", b"\x80")) and content[8:9] != b"{":
            tensors, note = _unpickled(path, content, error)
            _check_dense(path, tensors, error)
            return WeightFile(path, tensors, note)
        return WeightFile(path, load(content))
    except OSError as reason:
        raise error(f"{path}: cannot be read: {reason.strerror}.") from reason
    except KeyError as reason:
        raise error(f"{path}: holds numbers of the type {reason}, which is not supported.") from None
    except SafetensorError as reason:
        raise error(f"{path}: {_describe(content) or f'not a safetensors file, or damaged: {reason}.'}") from None


def _file_in(folder: Path, error: type[HrgError]) -> Path:
    """The file with the weights of the run in a folder."""
    path = folder / _FILE
    if path.is_file():
        return path
    if (folder / "runs").is_dir():
        raise error(f"{folder} holds a study, which has no weights. Give a folder below '{folder / 'runs'}'.")
    raise error(f"{folder}: there is no file '{_FILE}' in this folder. A run writes it when it has finished.")


def _unpickled(path: Path, content: bytes, error: type[HrgError]) -> tuple[Tensors, str]:
    """The tensors of a file of `torch.save`, and which entry has them."""
    if _is_npz(content):
        raise error(f"{path}: this is a file of NumPy arrays, such as a data set, not of weights.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # whatever torch raises for a damaged file, or for one with more than tensors
        raise error(
            f"{path}: this file of torch.save is damaged, or holds more than tensors, such as a whole module. Loading "
            "that would run code of the file, so it is not read. Save 'module.state_dict()' instead."
        ) from None
    if _is_tensors(found):
        return dict(found), ""
    entries = {key: value for key, value in found.items() if _is_tensors(value)} if isinstance(found, dict) else {}
    if len(entries) != 1:
        several = f", but several dicts of tensors: {', '.join(map(repr, entries))}" if entries else ""
        raise error(f"{path}: holds no dict of tensors by name{several}. Save 'module.state_dict()' alone.")
    ((key, value),) = entries.items()
    return dict(value), f"The weights in {path} are those of its entry '{key}'."


def _check_dense(path: Path, tensors: Tensors, error: type[HrgError]) -> None:
    """Refuse tensors that no network has: torch would raise an error, or drop a part of them."""
    for name, value in tensors.items():
        is_dense = value.layout == torch.strided and not value.is_quantized
        if not is_dense or value.is_complex():
            kind = "complex" if is_dense else "quantized" if value.is_quantized else "sparse"
            raise error(f"{path}: '{_short(name)}' is {kind}. Save it as an ordinary tensor of real numbers.")


def _is_npz(content: bytes) -> bool:
    """Whether this is a ZIP archive of NumPy arrays alone; the files of `torch.save` are ZIP archives, too."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return all(name.endswith(".npy") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _is_tensors(value: object) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(key, str) and isinstance(item, torch.Tensor) for key, item in value.items())
    )


def _describe(content: bytes) -> str:
    """What a file is that has no weights, and what to do; empty if that is unknown."""
    if content.startswith(b"version https://git-lfs"):
        return "this is a pointer of Git LFS, not the weights. Fetch them with 'git lfs pull'."
    if not content:
        return "the file is empty."
    if all(byte >= 32 or byte in b"\t\r\n" for byte in content[:64]):
        return "this is a text, not a safetensors file."
    return ""


def _without_prefix(tensors: Tensors, own: Collection[str]) -> tuple[Tensors, str]:
    """The tensors without the prefixes that all of their names have and a network's names lack; and these."""
    removed = ""
    while True:
        shared = (prefix for prefix in _PREFIXES if tensors and all(name.startswith(prefix) for name in tensors))
        prefix = next(shared, "")
        if not prefix or any(name.startswith(prefix) for name in own):
            return tensors, removed
        removed += prefix
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
