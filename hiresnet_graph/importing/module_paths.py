"""The modules of a network that is one flat program, as the names of its weights show them.

Compiled networks, exported programs and ONNX files call their operations one after another. Their weights still have
names like `layer1.0.conv1.weight`, so operations with weights show in which module they were.
"""

from __future__ import annotations

from hiresnet_graph.importing.primitives import Flat
from hiresnet_graph.importing.recognition import ACTIVATIONS
from hiresnet_graph.importing.regions import own_frames
from hiresnet_graph.importing.trace import ModuleCall

_ENDINGS = ACTIVATIONS | {"add", "multiply", "mean", "concat"}
"""Operations without weights with which modules often end."""
_SHORTCUTS = frozenset({"subsample", "pad_channels"})
_BEGINNINGS = _SHORTCUTS | {"fit_grid", "merge_patches"}
"""Operations without weights that are in the module of what reads them."""
Path = tuple[str, ...]


def with_module_paths(flat: Flat) -> Flat:
    """A network whose operations lie in no modules, with the modules that its weights show; others as they are."""
    if any(len(own_frames(primitive)) > 1 for primitive in flat.primitives):
        return flat
    leaves = [_leaf(flat, index) for index in range(len(flat.primitives))]
    paths: list[Path] = []
    for index, leaf in enumerate(leaves):
        following = next((one[:-1] for one in leaves[index:] if one is not None), ())
        paths.append(leaf[:-1] if leaf is not None else _guess(flat, index, paths, following))
    _move_into_readers(flat, paths)
    root = ModuleCall("", "Module", 0, False)
    number = 0
    open_: list[ModuleCall] = []
    for primitive, path, leaf in zip(flat.primitives, paths, leaves, strict=True):
        kept = 0
        while kept < min(len(open_), len(path)) and open_[kept].path == ".".join(path[: kept + 1]):
            kept += 1
        del open_[kept:]
        for depth in range(kept, len(path)):
            number += 1
            open_.append(ModuleCall(".".join(path[: depth + 1]), _kind(path[: depth + 1]), number, False))
        number += 1
        own = () if leaf is None else (ModuleCall(".".join(leaf), "Layer", number, True),)
        primitive.frames = (root, *open_, *own)
    return flat


def _leaf(flat: Flat, index: int) -> Path | None:
    """The address of the layer whose weights a primitive has; None without weights."""
    names = [stored.name for stored in flat.primitives[index].stored.values()]
    return tuple(names[0].split(".")[:-1]) or (flat.primitives[index].op.kind,) if names else None


def _guess(flat: Flat, index: int, paths: list[Path], following: Path) -> Path:
    """The module of a primitive without weights: of its operands if it may end a module, else what surrounds it."""
    primitive = flat.primitives[index]
    around = _common(paths[index - 1], following) if index else ()
    own = [one for one in primitive.operands if one >= 0 and flat.primitives[one].op.kind not in _SHORTCUTS]
    operands = sorted(own, reverse=True)
    if primitive.op.kind not in _ENDINGS or not operands:
        return around
    latest = paths[operands[0]]
    outer = [
        paths[one] for one in operands if len(around) < len(paths[one]) and paths[one] == latest[: len(paths[one])]
    ]
    return max(min(outer, key=len, default=around), around, key=len)


def _move_into_readers(flat: Flat, paths: list[Path]) -> None:
    """Put parts of shortcuts without weights where their sums are, and other operations where their readers are."""
    readers: dict[int, list[int]] = {}
    for index, primitive in enumerate(flat.primitives):
        for operand in primitive.operands:
            readers.setdefault(operand, []).append(index)
    for index in reversed(range(len(paths))):
        if flat.primitives[index].op.kind in _BEGINNINGS and len(readers.get(index, ())) == 1:
            paths[index] = max(paths[index], paths[readers[index][0]], key=len)


def _common(one: Path, other: Path) -> Path:
    shared = 0
    while shared < min(len(one), len(other)) and one[shared] == other[shared]:
        shared += 1
    return one[:shared]


def _kind(path: Path) -> str:
    named = next((part for part in reversed(path) if not part.isdigit()), "module")
    plain = named.rstrip("0123456789_") or named
    return plain if plain.endswith("block") else f"{plain}_block"
