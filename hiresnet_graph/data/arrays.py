"""Arrays of an .npz file: the size that a header claims is compared with the file before memory is allocated."""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hiresnet_graph.errors import MissingDataError, RunError, first_line
from hiresnet_graph.formats import format_bytes

Array = npt.NDArray[Any]
_MAGIC = b"\x93NUMPY"
_HEADER = 12 + 10_000  # the longest header that numpy reads, in bytes
# The methods that numpy writes, and how much longer than its compressed form an array can be.
_RATIOS = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1_040}
_MAX_AXES = 32
# What zipfile raises; RuntimeError includes what it has not implemented.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, RuntimeError, ValueError)


def read_arrays(path: Path, names: Sequence[str]) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Those of the named arrays that an .npz file contains, and the names of all its arrays.

    Raises:
        MissingDataError: The file does not exist.
        RunError: It cannot be read, is damaged, or has one of these arrays in a form that cannot be read.
    """
    try:
        if os.path.exists(path) and not (path.is_dir() or path.is_file()):  # opening a pipe would wait for ever
            raise RunError(f"{path} is a pipe or device. Save the arrays in a file.")
        # Opened here, since zipfile does not close a damaged file.
        with path.open("rb") as file:
            return _read(path, file, names)
    except FileNotFoundError:
        raise MissingDataError(f"the file {path} does not exist.") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}.") from None
    except _DAMAGE as error:
        raise RunError(f"{path} is damaged, perhaps truncated: {_reason(error)}. Write or copy it again.") from None
    except MemoryError:
        raise RunError(f"{path}: its arrays are larger than the free memory. Use fewer or smaller images.") from None


def _read(path: Path, file: io.BufferedReader, names: Sequence[str]) -> tuple[dict[str, Array], tuple[str, ...]]:
    start = file.read(len(_MAGIC))
    if start == _MAGIC:
        raise RunError(f"{path} contains a single array without a name. Save it with 'numpy.savez' and names.")
    if start and not start.startswith(b"PK"):
        raise RunError(f"{path} is not an .npz file. Save the arrays with 'numpy.savez'.")
    with zipfile.ZipFile(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        found = {}
        for name in names:
            if name in members:
                try:
                    found[name] = _read_array(archive, members[name], os.fstat(file.fileno()).st_size)
                except (ValueError, RuntimeError) as error:
                    raise RunError(f"{path}: array '{name}' cannot be read: {_reason(error)}.") from None
        return found, tuple(members)


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, available: int) -> Array:
    """One array of an archive with this many bytes.

    Raises:
        ValueError: It has an odd form, or its header does not fit its size.
        RuntimeError: zipfile cannot read it.
    """
    if info.flag_bits & 1:
        raise ValueError("it is encrypted. Save it without a password")
    if info.compress_type not in _RATIOS:
        raise ValueError(
            f"numpy does not write its method of compression ({info.compress_type}). Use 'numpy.savez_compressed'"
        )
    available = min(available - info.header_offset, info.compress_size)
    if info.file_size > available * _RATIOS[info.compress_type] + 1_000:
        raise ValueError(f"it claims {format_bytes(info.file_size)}, of which the file has {format_bytes(available)}")
    with archive.open(info) as member:
        header = io.BytesIO(member.read(_HEADER))
    shape, dtype = _read_header(header)
    needed, available = math.prod(shape) * dtype.itemsize, info.file_size - header.tell()
    if needed != available:
        sizes = " x ".join(map(str, shape))[:60] or "a single value"
        raise ValueError(
            f"its header claims {sizes} of type {dtype} ({format_bytes(min(needed, 2**63))}), and the file has "
            f"{format_bytes(available)}"
        )
    with archive.open(info) as member:
        array: Array = np.lib.format.read_array(member, allow_pickle=False)
    return array


def _read_header(header: io.BytesIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if not header.getvalue().startswith(_MAGIC):
        raise ValueError("it is not an array of numpy. Save it with 'numpy.savez'")
    version = np.lib.format.read_magic(header)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its format {version[0]}.{version[1]} is for arrays with fields. Save plain numbers")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = read(header)
    except Exception as error:  # numpy evaluates the header as a Python literal, with errors of many types
        raise ValueError(f"its header is broken: {_reason(error)}") from None
    if dtype.hasobject:
        raise ValueError("it contains Python objects, which could run any program. Save plain numbers or text")
    if len(shape) > _MAX_AXES or not all(0 <= size < 2**63 for size in shape) or dtype.itemsize == 0:
        raise ValueError("its header is broken: it claims an impossible shape or type")
    return shape, dtype


def _reason(error: Exception) -> str:
    return (first_line(error) or type(error).__name__).rstrip(".")
