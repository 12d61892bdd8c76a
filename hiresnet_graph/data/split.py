"""Splits a data set the same way on every machine and with every version of every library."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from hiresnet_graph.errors import UsageError

# Chosen by us, for sets that come without a test set of their own.
TEST_SHARE = 0.2


class Split(NamedTuple):
    """Places in the data set of the images of each part, ascending."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def hold_out(labels: Sequence[int], test_share: float, validation_share: float, seed: int) -> Split:
    """A stratified split: each part has every class in its share, give or take one image.

    Args:
        labels: The class of each image.
        test_share: Share of all images that is held out for the test.
        validation_share: Share of the remaining images that is held out for validation.
        seed: Chooses the images.
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
    """The split of a set whose last `test` images are its test set: validation is held out of the others."""
    rest = len(labels) - test
    return hold_out(labels[:rest], 0.0, validation_share, seed)._replace(test=tuple(range(rest, len(labels))))


def check_split(
    name: str,
    split: Split,
    labels: Sequence[int],
    class_names: Sequence[str],
    complete: Sequence[str] = ("train", "test"),
) -> None:
    """Make sure that every part has images, and those in `complete` have images of every class.

    Raises:
        UsageError: It is not so.
    """
    for part, places in split._asdict().items():
        if not places:
            raise UsageError(
                f"data '{name}': {len(labels):,} images are too few for the split: no image is left for {part}. "
                "Give it more images, or change 'validation_share'."
            )
    counts = Counter(labels)
    for part in complete:
        present = {labels[place] for place in getattr(split, part)}
        for label, class_name in enumerate(class_names):
            if label not in present:
                raise UsageError(
                    f"data '{name}': class '{class_name}' has too few images for the split: {counts[label]:,} in all, "
                    f"none of them for {part}. Give it more images, or leave the class out."
                )


def stratified_order(labels: Sequence[int], seed: int) -> list[int]:
    """A random order of the places in `labels` in which every stretch has each class in its share."""
    # Hashes instead of a random generator: no library promises its stream of random numbers for ever.
    chance = [hashlib.sha256(f"{seed}:{place}".encode()).digest() for place in range(len(labels))]
    by_class: defaultdict[int, list[int]] = defaultdict(list)
    for place in sorted(range(len(labels)), key=chance.__getitem__):
        by_class[labels[place]].append(place)
    quantile = {place: (rank + 0.5) / len(places) for places in by_class.values() for rank, place in enumerate(places)}
    return sorted(quantile, key=lambda place: (quantile[place], chance[place]))
