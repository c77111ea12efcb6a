"""Whether pictures differ at all: from ones that are all alike an autoencoder learns nothing, however long it is trained."""

from __future__ import annotations

from torch import Tensor

from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.images import to_float

LEVEL = 1 / 127.5  # one of 256 levels, in [-1, 1]
LOOKED_AT = 16  # pictures, evenly over the training split


class Sameness:
    """How many pictures are of one colour, and how many are like the first one; a lossy file may be a level off."""

    def __init__(self) -> None:
        self.count = self.flat = self.like_first = 0
        self._first: Tensor | None = None

    def add(self, image: Tensor) -> None:
        """Pictures [B,C,H,W] in [-1, 1]."""
        image = image.float()
        self._first = image[:1] if self._first is None else self._first
        spread = (image - image.mean(dim=(-2, -1), keepdim=True)).abs().amax(dim=(1, 2, 3))
        apart = (image - self._first).abs().mean(dim=(1, 2, 3))
        self.count += len(image)
        self.flat += int((spread <= 2 * LEVEL).sum())
        self.like_first += int((apart <= LEVEL).sum())

    @property
    def suspected(self) -> bool:
        """Whether nothing seen so far differs."""
        return self.count > 0 and self.count in (self.flat, self.like_first)

    @property
    def sentence(self) -> str:
        """What is wrong with the pictures; '' where nothing is."""
        if self.count > 1 and self.like_first == self.count:
            return f"All {self.count:,} pictures looked at are the same picture: there is nothing to learn from them, however long the training. {WAY}"
        if self.count and self.flat == self.count:
            which = "The one picture looked at is" if self.count == 1 else f"All {self.count:,} pictures looked at are each"
            return f"{which} of a single colour: there is nothing in them to encode, however long the training. {WAY}"
        return ""

    @property
    def note(self) -> str:
        """How many pictures are of one colour where that is one in ten or more of them but not all; otherwise ''."""
        if self.flat < self.count <= 10 * self.flat:
            return (
                f"{self.flat:,} of the {self.count:,} pictures are each of a single colour, which makes the numbers better than they are."
            )
        return ""


WAY = "Check the data: is it the right folder, and were the files converted correctly?"


def look_at(pictures: Pictures, found: Sameness, *, count: int = LOOKED_AT) -> Sameness:
    """Add a few pictures, evenly over a split."""
    total = min(count, len(pictures))
    for place in range(total):
        found.add(to_float(pictures.batch([(place * len(pictures) // total, None)]).image))
        if not found.suspected:
            break
    return found
