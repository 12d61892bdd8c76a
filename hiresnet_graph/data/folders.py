"""Finding the images of a data set in folders: each real file once, hidden ones skipped."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hiresnet_graph.data.pixels import SUFFIXES
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.formats import format_count

# Of file managers and archive programs. Names that begin with a dot are hidden, too.
_HIDDEN = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found", "__pycache__"})
_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
# Of data sets for segmentation or detection: pictures in one folder, what is to be predicted of each in another.
_PICTURES = {"image", "images", "img", "imgs", "jpegimages"}
_TARGETS = {"annotation", "annotations", "gt", "label", "labels", "mask", "masks", "segmentation", "segmentationclass"}
_PART_OF = {name: part for part, names in _NAMES.items() for name in names}
_Identity = tuple[int, int]  # device and inode


class ImageFolder(NamedTuple):
    """A folder whose images, at any depth, have one class and belong to one part of the data.

    Attributes:
        name: Relative to the folder of the data set, with `/`.
        part: Number of the part: 0 for training.
    """

    name: str
    part: int


class FoundImages(NamedTuple):
    """The images of some folders.

    Attributes:
        names: Of each folder, sorted; relative to the folder of the data set, with `/`.
        skipped: What was found and is not read; empty if there is nothing.
    """

    names: tuple[tuple[str, ...], ...]
    skipped: str


class _Image(NamedTuple):
    name: str
    identity: _Identity
    is_linked: bool


def find_images(root: Path, folders: Sequence[ImageFolder]) -> FoundImages:
    """The images in the folders of a data set.

    A file counts where it lies: links to images that are found without them are skipped, as are links to folders above.
    A file that only links lead to belongs to the last part that has one of them, so that no image of the test set
    enters training.

    Args:
        root: The folder of the data set.
        folders: Distinct, none inside another. Those of one part have different classes.

    Raises:
        RunError: A folder has no images of its own, or cannot be read; a name is not UTF-8; a link leads to no file;
            or links in two classes lead to the same file.
    """
    scan = _Scan(root)
    found = [list(scan.images(folder.name)) for folder in folders]
    kept = _once(root, folders, found)
    for folder, names, images in zip(folders, kept, found, strict=True):
        if not names:
            suffixes = ", ".join(sorted(SUFFIXES))
            what = f"images of its own: its {len(images):,} are links into other folders" if images else "images"
            raise RunError(
                f"data: the folder {root / folder.name} contains no {what} ({suffixes}). "
                "Put images of this class into it, or delete it."
            )
    scan.links += sum(map(len, found)) - sum(map(len, kept))
    return FoundImages(tuple(kept), scan.describe_skipped())


def class_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones.

    Raises:
        RunError: It cannot be read, or a name is not UTF-8.
    """
    entries = _entries(folder)
    names = sorted(entry.name for entry in entries if not _is_hidden(entry.name) and os.path.isdir(entry.path))
    for name in names:
        _check_name(folder / name)
    return names


def part_folders(root: Path, folders: Sequence[str]) -> dict[str, str]:
    """The folder of each part of the data: `train`, `validation`, `test`; empty if the folders are classes.

    Args:
        root: The folder that contains them.
        folders: Their names. Those of parts may be written in several ways, in any case.

    Raises:
        UsageError: Two folders are the same part, or there are parts but none for training; or the folders seem to be
            parts, but with other names.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in folders:
        if name.lower() in _PART_OF:
            found[_PART_OF[name.lower()]].append(name)
    is_complete = sum(map(len, found.values())) == len(folders)
    if not found or not (is_complete or ("train" in found and len(found) > 1)):
        _check_classes(root, folders)
        return {}
    for part, names in found.items():
        if len(names) > 1:
            raise UsageError(
                f"data: {root} has several folders for {part}: {', '.join(map(repr, names))}. Keep one of them there."
            )
    if "train" not in found:
        shown = " and ".join(found)
        raise UsageError(
            f"data: {root} has folders for {shown}, but none for training. Add a folder 'train', with a "
            "folder for each class."
        )
    return {part: found[part][0] for part in _NAMES if part in found}


def _check_classes(root: Path, folders: Sequence[str]) -> None:
    """Refuse folders that seem to be no classes, by their names (`train2017`, `images`) or by what they contain."""
    words = [re.sub(r"(set|s)?([^a-z].*)?$", "", name.lower(), count=1) for name in folders]
    if len(folders) > 1 and (all(word in _PART_OF for word in words) or _contain_classes(root, folders)):
        raise UsageError(
            f"data: the folders {', '.join(map(repr, folders))} in {root} seem to be parts of the data, "
            f"not classes. Name them 'train', 'val' and 'test', and move others elsewhere; or rename the classes."
        )
    plain = {name.lower() for name in folders}
    if plain & _PICTURES and plain & _TARGETS and plain <= _PICTURES | _TARGETS:
        raise UsageError(
            f"data: the folders {', '.join(map(repr, folders))} in {root} seem to contain images and their masks or "
            "annotations, not classes. Classification needs a folder for each class; or rename the classes."
        )


def _contain_classes(root: Path, folders: Sequence[str]) -> bool:
    """Whether a folder named like a part contains only folders, and another has the same ones, or none.

    A class may be called `train`, with images; or with folders, if those of the other classes have other names.
    """
    for part in folders:
        if (
            part.lower() in _PART_OF
            and len(own := set(class_folders(root / part))) > 1
            and not _has_images(root / part)
        ):
            inside = [set(class_folders(root / other)) for other in folders if other != part]
            return any(not names or names & own for names in inside)
    return False


def _has_images(folder: Path) -> bool:
    return any(_is_image(entry) for entry in _entries(folder))


def describe_unread(root: Path, folders: Sequence[ImageFolder]) -> str:
    """The images and folders beside the folders of a data set, which are not read; empty if there are none.

    Raises:
        RunError: A folder cannot be read.
    """
    known = {path for folder in folders for path in _paths(folder.name)}
    images, unread = 0, []
    for parent in sorted({path.rpartition("/")[0] for path in known}):
        for entry in _entries(root / parent):
            name = f"{parent}/{entry.name}" if parent else entry.name
            if _is_hidden(entry.name) or name in known:
                continue
            if os.path.isdir(entry.path):
                unread.append(name)
            images += _is_image(entry)
    shown = ", ".join(map(repr, unread[:5]))
    parts = [
        format_count(images, "image") + " outside the folders of classes" if images else "",
        format_count(len(unread), "folder") + f" beside the parts of the data ({shown})" if unread else "",
    ]
    return ", ".join(filter(None, parts))


def _is_image(entry: os.DirEntry[str]) -> bool:
    return not _is_hidden(entry.name) and Path(entry.name).suffix.lower() in SUFFIXES and os.path.isfile(entry.path)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _HIDDEN


def _check_name(path: Path) -> None:
    try:
        path.name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise RunError(f"data: the name of {shown} is not UTF-8. Rename it.") from None


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder contains, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise RunError(f"data: the folder {folder} cannot be read: {error.strerror}.") from None


def _identity(path: Path) -> _Identity:
    status = path.stat()
    return status.st_dev, status.st_ino


class _Scan:
    """Finds images below a folder, and counts what it skips."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._above = {_identity(path) for path in (root, *root.resolve().parents)}
        self.hidden, self.links = 0, 0
        self.other: Counter[str] = Counter()

    def images(self, inside: str) -> Iterator[_Image]:
        """The images below a folder, sorted by name; those in linked folders last."""
        seen = set(self._above)
        is_linked = any((self._root / part).is_symlink() for part in _paths(inside))
        real, linked = deque([] if is_linked else [inside]), deque([inside] if is_linked else [])
        while real or linked:
            is_linked = not real
            folder = (real or linked).popleft()
            try:
                identity = _identity(self._root / folder)
            except OSError as error:
                raise RunError(f"data: the folder {self._root / folder} cannot be read: {error.strerror}.") from None
            if identity in seen:  # only a link leads to it
                self.links += 1
                continue
            seen.add(identity)
            for entry in _entries(self._root / folder):
                if _is_hidden(entry.name):
                    self.hidden += 1
                elif os.path.isdir(entry.path):  # unlike `entry.is_dir`, without an error for links in a circle
                    _check_name(self._root / folder / entry.name)
                    (linked if is_linked or entry.is_symlink() else real).append(f"{folder}/{entry.name}")
                elif (suffix := Path(entry.name).suffix.lower()) not in SUFFIXES:
                    self.other[suffix] += 1
                elif (image := self._image(folder, entry, is_linked)) is not None:
                    yield image

    def _image(self, folder: str, entry: os.DirEntry[str], is_linked: bool) -> _Image | None:
        path = self._root / folder / entry.name
        _check_name(path)
        try:
            status = entry.stat()
        except OSError as error:
            raise RunError(
                f"{path}: this image of the data set is a link that leads to no file ({error.strerror}). Restore it, "
                "or delete the link."
            ) from None
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            self.other["a pipe or device"] += 1
            return None
        return _Image(f"{folder}/{entry.name}", (status.st_dev, status.st_ino), is_linked or entry.is_symlink())

    def describe_skipped(self) -> str:
        """What was skipped; empty if nothing was."""
        kinds = sorted(self.other)
        shown = ", ".join(kind or "without suffix" for kind in kinds[:5] if kind.isprintable())
        parts = [
            format_count(self.hidden, "hidden file or folder", "hidden files and folders") if self.hidden else "",
            format_count(self.links, "link") + " to images that are read elsewhere" if self.links else "",
            format_count(self.other.total(), "file that is no image", "files that are no images") + f" ({shown})"
            if self.other
            else "",
        ]
        return ", ".join(filter(None, parts))


def _paths(inside: str) -> Iterator[str]:
    """The folders on the path to a folder, and itself."""
    parts = inside.split("/")
    return ("/".join(parts[: i + 1]) for i in range(len(parts)))


def _once(root: Path, folders: Sequence[ImageFolder], found: Sequence[Sequence[_Image]]) -> list[tuple[str, ...]]:
    """The names of the images of each folder, sorted: each file once in a folder, and linked ones in one folder."""
    real = {image.identity for images in found for image in images if not image.is_linked}
    owners: dict[_Identity, tuple[int, str]] = {}
    for i in sorted(range(len(folders)), key=lambda i: -folders[i].part):
        for image in found[i]:
            owner, name = owners.setdefault(image.identity, (i, image.name))
            if image.identity not in real and owner != i and folders[owner].part == folders[i].part:
                raise RunError(
                    f"data: {root / name} and {root / image.name} are links to the same file, in two classes. "
                    "Delete one of them."
                )
    kept = []
    for i, images in enumerate(found):
        once: dict[_Identity, str] = {}
        for image in sorted(images, key=lambda image: (image.is_linked, image.name)):
            if not image.is_linked or (image.identity not in real and owners[image.identity][0] == i):
                once.setdefault(image.identity, image.name)
        kept.append(tuple(sorted(once.values())))
    return kept
