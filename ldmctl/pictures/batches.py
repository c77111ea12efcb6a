"""A dataset as training sees it: batches of prepared pictures, the same whatever the number of workers.

An order is a sequence of (position, index): which item stands where in the
stream of training. Crop and flip are drawn from a seed that belongs to the
position. A broken item is replaced by the next readable one, always the same,
and reported; more than one in a hundred stops the run, a single one never does.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Generator, Tensor

from ldmctl.attribution import expect
from ldmctl.errors import DataError
from ldmctl.pictures import images
from ldmctl.pictures.choosing import large_enough, left_out_of, name_of, spread
from ldmctl.pictures.opening import BROKEN, MOST, is_pillows, limits, why_not_opened
from ldmctl.pictures.pillow import Facts, Settings
from ldmctl.pictures.promised import item_as_promised, label_as_promised, note_as_promised, stamp_as_promised
from ldmctl.pictures.tally import Tally
from ldmctl.protocols import Dataset, Example

Order = Iterable[Sequence[tuple[int, int]]]
OVERHEAD = 2048  # bytes that Python and torch keep beside a small tensor


def evenly(total: int, count: int) -> Tensor:
    """The rows of `spread` as a tensor [n]."""
    return torch.tensor(spread(total, count), dtype=torch.int64)


@dataclass(frozen=True)
class Batch:
    """Pictures with what is known of them."""

    image: Tensor  # uint8 [B,C,size,size]
    index: list[int]  # as asked for
    used: list[int]  # as given: another one where an item was unreadable
    label: list[int]
    text: list[str]
    bad: list[dict[str, Any]]  # {"index", "file_name", "reason"} of the unreadable items met for the first time
    content: list[str]  # hash of each one's file, '' unless `contents` asks for it
    facts: list[Facts] = field(default_factory=list)  # of the used ones


@dataclass(frozen=True)
class Prepared:
    """One item before crop and flip."""

    image: Tensor  # uint8 [C,h,w]
    index: int
    label: int
    text: str
    facts: Facts


class Pictures:
    """A dataset with its settings: one prepared picture by index. Kept in memory when the whole set fits."""

    def __init__(self, dataset: Dataset, settings: Settings, *, memory: int = 1 << 30, split: str = "train"):
        self.dataset = dataset = large_enough(dataset, getattr(settings, "smallest", 0), split)
        self.left_out = left_out_of(dataset)  # pictures below image.smallest, which are not among these
        self.tally = Tally(len(dataset), settings.size)
        self.settings = settings
        self.contents = False  # whether batches say what their files hold
        self.bad: list[dict[str, Any]] = []  # every unreadable item met so far
        pixels = settings.channels * settings.size**2
        whole = 2 if settings.crop == "random" else 1  # the longer side is not known before decoding
        self.fits = len(dataset) * (pixels * whole + OVERHEAD) <= memory
        self._kept: dict[int, Prepared] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}, "fits": False, "left_out": [], "tally": Tally(len(self), self.settings.size)}

    @property
    def classes(self) -> list[str]:
        """Names of the labels."""
        return self.dataset.classes

    @property
    def allowed(self) -> int:
        """How many items may be unreadable: one in a hundred, and at least one."""
        return max(1, len(self) // 100)

    def stamp(self, index: int) -> str:
        """Name and version of an item, without decoding it."""
        return stamp_as_promised(self.dataset, index)

    @property
    def hashed(self) -> bool:
        """Whether items are files whose content can be hashed; their stamps then end in size and time."""
        return hasattr(self.dataset, "content")

    def content(self, index: int) -> str:
        """Hash of what an item's file holds, however it is called and dated; '' where the dataset has none or it cannot be read."""
        try:
            found = self.dataset.content(index) if self.hashed else ""  # type: ignore[attr-defined]
        except (DataError, OSError):
            return ""
        expect(isinstance(found, str), self.dataset, f"the content of item {index} is {found!r:.80}, not a string")
        return str(found)

    def note(self, index: int) -> tuple[int, str]:
        """(label, caption) of an item as the dataset gives it, without opening the picture where it can; DataError where that must and cannot."""
        if hasattr(self.dataset, "note"):
            return note_as_promised(self.dataset, index)
        example = item_as_promised(self.dataset, index, self.dataset[index])
        return label_as_promised(self.dataset, index, example.label), example.text

    def captions(self, index: int) -> tuple[str, ...]:
        """Every caption of an item that has several, its text first; () otherwise."""
        found = self.dataset.captions(index) if hasattr(self.dataset, "captions") else ()
        several = not isinstance(found, str) and all(isinstance(each, str) for each in found)
        expect(several, self.dataset, f"the captions of item {index} are {found!r:.80}, not a sequence of strings")
        return tuple(found) if len(found) > 1 else ()

    def label(self, index: int) -> int:
        """Index of the item's class, -1 when unknown."""
        return self.at(index).label

    def text(self, index: int) -> str:
        """The item's caption."""
        return self.at(index).text

    def prepared(self, index: int) -> Tensor:
        """uint8 [C,h,w] before crop and flip."""
        return self.at(index).image

    def item(self, index: int, seed: int | None = None) -> Tensor:
        """uint8 [C,size,size], crop and flip drawn from `seed`; without one the center, not flipped."""
        return self._finish(self.at(index), seed)

    def at(self, index: int) -> Prepared:
        """The item, or the next readable one in its place; DataError when too many are unreadable."""
        found, bad = self.look(index)
        self.report(bad)
        if found is None:
            self._give_up()
        assert found is not None
        self.tally.add(found.index, found.facts)
        return found

    def look(self, index: int) -> tuple[Prepared | None, list[dict[str, Any]]]:
        """The item or the next readable one, and the unreadable ones passed on the way; None after too many of these."""
        if index in self._kept:
            return self._kept[index], []
        with limits(getattr(self.settings, "max_pixels", MOST)):
            found, bad = readable(self.dataset, index, self._prepare, self.allowed)
        if found is not None and self.fits:
            self._kept[index] = found
        return found, bad

    def report(self, bad: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Remember unreadable items; -> those that are new. DataError when they have become too many."""
        known = {item["index"] for item in self.bad}
        new = list({item["index"]: item for item in bad if item["index"] not in known}.values())
        self.bad += new
        if len(self.bad) > self.allowed:
            self._give_up()
        return new

    def batch(self, wanted: Sequence[tuple[int, int | None]]) -> Batch:
        """The items of (index, seed) pairs; DataError when too many are unreadable."""
        return self.checked(self.assemble(wanted))

    def checked(self, batch: Batch) -> Batch:
        """The batch with only what is new in `bad`; DataError when too many are unreadable."""
        new = self.report(batch.bad)
        for index, facts in zip(batch.used, batch.facts, strict=True):
            self.tally.add(index, facts)
        return replace(batch, bad=new) if len(batch.used) == len(batch.index) else self._give_up()

    def assemble(self, wanted: Sequence[tuple[int, int | None]]) -> Batch:
        """A batch not yet checked, as a worker makes it: without image where something could not be replaced."""
        looked = [self.look(index) for index, _ in wanted]
        bad = [item for _, passed in looked for item in passed]
        items = [found for found, _ in looked if found is not None]
        complete = len(items) == len(wanted)
        image = [self._finish(item, seed) for item, (_, seed) in zip(items, wanted, strict=True)] if complete else []
        return Batch(
            torch.stack(image) if image else torch.empty(0, dtype=torch.uint8),
            [index for index, _ in wanted],
            [item.index for item in items],
            [item.label for item in items],
            [item.text for item in items],
            bad,
            [self.content(item.index) if self.contents else "" for item in items],
            [item.facts for item in items],
        )

    def _prepare(self, index: int, example: Example) -> Prepared:
        item_as_promised(self.dataset, index, example)
        image, facts = images.prepare_noting(example.picture, self.settings)
        return Prepared(image, index, label_as_promised(self.dataset, index, example.label), example.text, facts)

    def _finish(self, item: Prepared, seed: int | None) -> Tensor:
        generator = None if seed is None else Generator().manual_seed(seed)
        return images.finish(item.image, self.settings, generator)

    def _give_up(self) -> Any:
        some = "\n  ".join(item["reason"] for item in self.bad[:5])
        allowed = min(self.allowed, len(self) - 1)
        raise DataError(
            f"{len(self.bad)} of {len(self)} pictures cannot be used, and at most {allowed} may be (one in a hundred):\n"
            f"  {some}\nMend or remove them, then give the same command again."
        )


def readable(
    dataset: Dataset, index: int, prepare: Callable[[int, Example], Prepared], allowed: int
) -> tuple[Prepared | None, list[dict[str, Any]]]:
    """The prepared item at `index` or the next readable one after it (around the end), and the unreadable ones passed."""
    bad: list[dict[str, Any]] = []
    for offset in range(min(len(dataset), allowed + 1)):
        at = (index + offset) % len(dataset)
        try:
            return prepare(at, dataset[at]), bad
        except DataError as error:
            reason = str(error)
        except BROKEN as error:
            if not is_pillows(error):
                raise
            reason = why_not_opened(name_of(dataset, at), error)
        bad.append({"index": at, "file_name": name_of(dataset, at), "reason": reason})
    return None, bad
