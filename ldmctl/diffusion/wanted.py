"""Which pictures a command asks for: seeds, and the class that each is of. Nothing in it grows with their number."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ldmctl.config.schemas.sample import Sample
from ldmctl.config.seeds import Seeds, parse_seeds
from ldmctl.diffusion.labels import labels_as_in_data, labels_in_turn
from ldmctl.errors import ConfigError


@dataclass(frozen=True)
class Wanted:
    """Seeds, one picture each, and class indices that they take in turn, -1 for no class."""

    seeds: Seeds
    turn: list[int]  # empty where classes are drawn as the data has them
    counts: list[int]  # of each class in the data
    drawn: int | None = None  # the one seed by which the class of all of them is drawn, where they go from one seed to another

    def __len__(self) -> int:
        return len(self.seeds)

    def label(self, position: int) -> int:
        """The class index of the picture at this place."""
        if self.turn:
            return self.turn[position % len(self.turn)]
        return labels_as_in_data([self.seeds[position] if self.drawn is None else self.drawn], self.counts)[0]

    @property
    def rows(self) -> list[int]:
        """The classes of the rows of a table of them; none where there are not several."""
        return self.turn if len(set(self.turn)) > 1 else []


def wanted(config: Sample, header: dict[str, Any]) -> Wanted:
    """What a config asks of the model with this header; labels or guidance that it does not know are a ConfigError."""
    turn = labels_in_turn(config, header)
    if config.interpolate is not None and len(set(turn)) > 1:
        raise ConfigError("interpolate goes between seeds of one label: name one, where `all` or a list stands for several.")
    if config.seeds is not None:
        seeds = parse_seeds(config.seeds)
    else:
        count = config.count if config.each is None else config.each * len(turn)
        seeds = Seeds((range(config.seed, config.seed + count),))
    return Wanted(seeds, turn, header["label_counts"], config.interpolate[0] if config.interpolate else None)


def shares(asked: Wanted, name_of: Callable[[int], str | None], *, most: int = 12) -> str:
    """How many pictures each label has: `8 pictures of each of 3 labels: cat, dog, no class`; nothing where not several are asked for."""
    if not asked.rows:
        return ""
    each, more = divmod(len(asked), len(asked.rows))
    many = f"{each} to {each + 1} pictures" if more else f"{each} picture{'s' * (each != 1)}"
    return f"{many} of each of {len(asked.rows)} labels, a row of the grid for each: {_listed(map(name_of, asked.rows), most)}."


def _listed(names: Iterable[str | None], most: int) -> str:
    said = [name or "no class" for name in names]
    return ", ".join(said[:most]) + (f" and {len(said) - most} more" if len(said) > most else "")
