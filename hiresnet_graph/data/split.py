"""Splits of data sets, the same on every machine and with every version of every library."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from hiresnet_graph.errors import UsageError

# Chosen by us, for data sets without a published test set.
TEST_SHARE = 0.2


class Split(NamedTuple):
    """Indices of the images of each part, ascending."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def hold_out(labels: Sequence[int], test_share: float, validation_share: float, seed: int) -> Split:
    """A stratified split: the classes are represented equally in all parts, up to one image.

    Args:
        labels: The class of each image.
        test_share: Fraction of all images that is held out for the test.
        validation_share: Fraction of the remaining images that is held out for validation.
        seed: Random seed of the split.
    """
    order = stratified_order(labels, seed)
    test = round(len(order) * test_share)
    validation = test + round((len(order) - test) * validation_share)
    return Split(
        train=tuple(sorted(order[validation:])),
        validation=tuple(sorted(order[test:validation])),
        test=tuple(sorted(order[:test])),
    )


def keep_test(labels: Sequence[int], test: int, validation_share: float, seed: int) -> Split:
    """The split of a data set whose last `test` images are its test set: validation is held out of the others."""
    rest = len(labels) - test
    return hold_out(labels[:rest], 0.0, validation_share, seed)._replace(test=tuple(range(rest, len(labels))))


def check_split(
    name: str,
    split: Split,
    labels: Sequence[int],
    class_names: Sequence[str],
    complete: Sequence[str] = ("train", "test"),
) -> None:
    """Check that there are two classes, that every part has images, and those in `complete` images of every class.

    Raises:
        UsageError: They have not.
    """
    if len(class_names) < 2:
        raise UsageError(
            f"data '{name}': there is {f'a single class, {class_names[0]!r}' if class_names else 'no class'}, and "
            "training requires two or more. Add images of another class."
        )
    for part, indices in split._asdict().items():
        if not indices:
            raise UsageError(
                f"data '{name}': {len(labels):,} images are too few for the split: none is left for {part}. "
                "Add images, or change 'validation_share'."
            )
    counts = Counter(labels)
    for part in complete:
        present = {labels[index] for index in getattr(split, part)}
        for label, class_name in enumerate(class_names):
            if label not in present:
                raise UsageError(
                    f"data '{name}': class '{class_name}' has too few images for the split: {counts[label]:,} in "
                    f"total, none of them for {part}. Add images, or omit the class."
                )


def stratified_order(labels: Sequence[int], seed: int) -> list[int]:
    """A random order of the indices of `labels` in which the classes are represented equally in every segment."""
    # Hashes instead of a random generator: no library guarantees its stream of random numbers for ever.
    draws = [hashlib.sha256(f"{seed}:{index}".encode()).digest() for index in range(len(labels))]
    by_class: defaultdict[int, list[int]] = defaultdict(list)
    for index in sorted(range(len(labels)), key=draws.__getitem__):
        by_class[labels[index]].append(index)
    quantile = {index: (rank + 0.5) / len(group) for group in by_class.values() for rank, index in enumerate(group)}
    return sorted(quantile, key=lambda index: (quantile[index], draws[index]))
