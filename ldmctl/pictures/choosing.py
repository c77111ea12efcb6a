"""Pictures left out on purpose: those whose shorter side is below `image.smallest`.

They are found before the first step, by their headers alone, so that a split is what
it will be: nothing takes their place, and no order depends on when they are met.
"""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from ldmctl.errors import DataError, LdmctlError
from ldmctl.pictures.opening import BROKEN, limits
from ldmctl.pictures.pillow import size_of
from ldmctl.pictures.promised import stamp_as_promised
from ldmctl.protocols import Dataset, Example

LEAST = 2  # pixels; smaller pictures cannot be used at all


class Chosen:
    """Some items of a dataset, as a dataset."""

    def __init__(self, dataset: Dataset, places: list[int], left_out: list[dict[str, Any]]):
        self.dataset, self.places, self.left_out = dataset, places, left_out
        for name in ("note", "captions", "content", "map_stamp"):  # what is asked of an item by its number
            if hasattr(dataset, name):
                setattr(self, name, partial(self._of, name))

    def __getattr__(self, name: str) -> Any:
        if name in ("dataset", "places", "left_out"):  # not yet there while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Example:
        return self.dataset[self.places[index]]

    @property
    def chosen_from(self) -> Dataset:
        """The whole set."""
        return self.dataset

    @property
    def classes(self) -> list[str]:
        """Names of the labels: those of the whole set."""
        return self.dataset.classes

    @property
    def counts(self) -> dict[str, int] | None:
        """Those of the whole set without what was left out; None where that cannot be known without opening a picture."""
        whole = getattr(self.dataset, "counts", None)
        if whole is None or not hasattr(self.dataset, "note"):
            return None
        gone = [row["index"] for row in self.left_out]
        try:
            notes = [self.dataset.note(index) for index in gone]
        except LdmctlError:  # which the item says again when it is used
            return None
        lost = {"labels": sum(label >= 0 for label, _ in notes), "captions": sum(bool(text) for _, text in notes)}
        if hasattr(self.dataset, "map_stamp"):
            lost["maps"] = sum(bool(self.dataset.map_stamp(index)) for index in gone)
        return {name: max(int(count) - lost.get(name, 0), 0) for name, count in whole.items()}

    def stamp(self, index: int) -> str:
        """Name and version of an item."""
        return self.dataset.stamp(self.places[index])

    def _of(self, name: str, index: int) -> Any:
        return getattr(self.dataset, name)(self.places[index])


def large_enough(dataset: Dataset, smallest: int, split: str) -> Dataset:
    """The pictures with at least so many pixels on the shorter side, the others noted in `left_out`; a DataError where none is left.

    What cannot be opened stays: it is unreadable, which is another matter.
    """
    if smallest <= LEAST or not len(dataset):
        return dataset
    places, left_out, largest = [], [], 0
    for index, size in _sizes(dataset):
        if size is None or min(size) >= smallest:
            places.append(index)
            continue
        largest = max(largest, min(size))
        reason = f"It is {size[0]}x{size[1]} pixels, and image.smallest is {smallest}."
        left_out.append({"index": index, "file_name": name_of(dataset, index), "reason": reason, "left_out": True})
    if not places and split == "train":
        raise DataError(
            f"All {len(dataset):,} pictures of the {split} split are smaller than image.smallest={smallest}: "
            f"the largest has {largest} pixels on its shorter side."
        )
    return Chosen(dataset, places, left_out) if left_out else dataset  # type: ignore[return-value]


def left_out_of(dataset: Dataset) -> list[dict[str, Any]]:
    """{"index", "file_name", "reason", "left_out"} of what was left out on purpose."""
    return dataset.left_out if isinstance(dataset, Chosen) else []


def name_of(dataset: Dataset, index: int) -> str:
    """The name of an item."""
    return named(stamp_as_promised(dataset, index))


def named(stamp: str) -> str:
    """The name in a stamp: without size and time."""
    return re.sub(r"(:\d+){2}$", "", stamp)


def spread(total: int, count: int) -> list[int]:
    """Rows of a split of `total`: `count` of them, spread from its first to its last, ascending; all where it has no more.

    Items lie sorted by path, so the first of them are of the first classes alone.
    """
    count = min(count, total)
    if count < 2:
        return [0] * count
    step = (total - 1) / (count - 1)
    from_both_ends = [step * row if row < count // 2 else total - 1 - step * (count - 1 - row) for row in range(count)]
    return [round(row) for row in from_both_ends]


def _sizes(dataset: Dataset) -> Iterator[tuple[int, tuple[int, int] | None]]:
    """Width and height of each picture in order, None where it cannot be opened."""
    with limits(1 << 62):
        for index in range(len(dataset)):
            try:
                picture = dataset[index].picture
                yield index, size_of(picture)
            except (DataError, *BROKEN):
                yield index, None
