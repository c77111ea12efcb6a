"""Once per command: which pictures were left out on purpose, and what was noticed while the others were prepared."""

from collections.abc import Mapping

from ldmctl.console import Console
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.tally import Noticed, remarks, together
from ldmctl.training.engine import Engine, from_all


def say_left_out(splits: Mapping[str, Pictures], console: Console, listed: object = None) -> None:
    """How many pictures are below image.smallest, and which file names them."""
    count = sum(len(pictures.left_out) for pictures in splits.values())
    if count:
        smallest = next(iter(splits.values())).settings.smallest  # type: ignore[attr-defined]
        of = count + sum(map(len, splits.values()))
        verb = "is" if count == 1 else "are"
        named = f"; {listed} names them" if listed else ""
        console.say(f"{count:,} of {of:,} pictures {verb} left out: less than image.smallest={smallest} pixels on the shorter side{named}.")


class Telling:
    """What was noticed, said once: when every training picture was seen, or at the end."""

    def __init__(self, splits: Mapping[str, Pictures], engine: Engine, console: Console):
        self.splits, self.engine, self.console = splits, engine, console
        self.told = False

    def when_all_are_seen(self) -> None:
        """Say it if one process has seen all; of several each sees its share, and they tell at the end."""
        train = self.splits["train"]
        if not self.told and self.engine.world == 1 and train.tally.seen + len(train.bad) >= len(train):
            self._say([pictures.tally.noticed for pictures in self.splits.values()])

    def at_the_end(self) -> None:
        """Say it if it was not said; every rank has to come here."""
        if not self.told:
            ranks = from_all(self.engine, [pictures.tally.noticed for pictures in self.splits.values()])
            self._say([together(split) for split in zip(*ranks, strict=True)])

    def _say(self, splits: list[Noticed]) -> None:
        self.told = True
        for sentence in remarks(splits, self.splits["train"].settings.size):
            self.console.say(sentence)
