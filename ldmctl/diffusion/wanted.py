"""Which pictures a command asks for: seeds, and what each is asked to be. Nothing in it grows with their number."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ldmctl.config.schemas.sample import Sample
from ldmctl.config.seeds import Seeds, parse_seeds
from ldmctl.diffusion.asking import Ask, short
from ldmctl.diffusion.labels import NO_LABEL, labels_as_in_data, labels_in_turn
from ldmctl.diffusion.lacking import refuse_lacking
from ldmctl.diffusion.prompts import hears_words, negative_ask, prompts_in_turn
from ldmctl.errors import ConfigError


@dataclass(frozen=True)
class Wanted:
    """Seeds, one picture each, and classes and prompts that they take in turn."""

    seeds: Seeds
    turn: list[Ask]  # empty where classes are drawn as the data has them
    counts: list[int]  # of each class in the data
    drawn: int | None = None  # the one seed by which the class of all of them is drawn, where they go from one seed to another

    def __len__(self) -> int:
        return len(self.seeds)

    def ask(self, position: int) -> Ask:
        """What the picture at this place is asked to be."""
        if self.turn:
            return self.turn[position % len(self.turn)]
        return Ask(labels_as_in_data([self.seeds[position] if self.drawn is None else self.drawn], self.counts)[0])

    def label(self, position: int) -> int:
        """The class index of the picture at this place, -1 for no class."""
        return self.ask(position).label

    @property
    def rows(self) -> list[Ask]:
        """What the rows of a table of them are asked to be; none where there are not several."""
        return self.turn if len(set(self.turn)) > 1 else []


def wanted(config: Sample, header: dict[str, Any], weaker: dict[str, Any] | None = None) -> Wanted:
    """What a config asks of the model with this header, and of a weaker one that guides it; what one does not know, or never learned to do
    without, is a ConfigError."""
    asked = wanted_so_far(config, header)
    asks = asked.turn or [asked.ask(0)]
    refuse_lacking(config, header, asks, negative_ask(config, header))
    if weaker is not None:
        refuse_lacking(config, weaker, asks, None, who=f"The model of autoguide={config.autoguide}")
    return asked


def wanted_so_far(config: Sample, header: dict[str, Any]) -> Wanted:
    """The same of a config to which something may still be added, such as prompts."""
    turn = asks_in_turn(config, header)
    away = negative_ask(config, header)
    if away is not None and set(turn) == {away}:
        raise ConfigError(
            f"negative={config.negative} is what is asked for, so going away from it would change nothing at twice the cost. Name another, or leave "
            "it away."
        )
    if config.interpolate is not None and len(set(turn)) > 1:
        raise ConfigError("interpolate goes between seeds of one label and one prompt: name one, where `all` or a list stands for several.")
    if config.seeds is not None:
        seeds = parse_seeds(config.seeds)
    else:
        count = config.count if config.each is None else config.each * len(turn)
        seeds = Seeds((range(config.seed, config.seed + count),))
    return Wanted(seeds, turn, header["label_counts"], config.interpolate[0] if config.interpolate else None)


def asks_in_turn(config: Sample, header: dict[str, Any]) -> list[Ask]:
    """What pictures are asked to be in turn, each class with each prompt; none where classes are drawn as the data has them.

    A ConfigError for what the model does not know.
    """
    labels, prompts = labels_in_turn(config, header), prompts_in_turn(config, header)
    if not prompts:
        both = hears_words(header) and header["conditioner"] is not None
        if both and not header["left_alone"]["text"] and config.label in NO_LABEL:  # a class alone was never learned
            return [Ask()]
        return [Ask(label) for label in labels]
    if not labels:  # words alone: what class the data would have for them is not known
        labels = [-1]
    return [Ask(label, prompt) for label in labels for prompt in prompts]


def unused(config: Sample) -> str:
    """A sentence on words, maps and pictures that were given and that guidance=0 leaves unused, otherwise nothing."""
    given = [f"--{key}" for key in ("prompt", "map", "picture") if getattr(config, key) is not None]
    if config.guidance or not given:
        return ""
    return f"guidance=0 ignores what is given: {' and '.join(given)} {'are' if given[1:] else 'is'} not used."


def shares(asked: Wanted, name_of: Callable[[Ask], str | None], *, most: int = 12) -> str:
    """How many pictures each label or prompt has: `8 pictures of each of 3 labels: cat, dog, no class`; nothing where not several are asked for."""
    if not asked.rows:
        return ""
    each, more = divmod(len(asked), len(asked.rows))
    kind = "prompts" if any(row.prompt for row in asked.rows) else "labels"
    if not each:
        first = _listed(map(name_of, asked.rows[:more]), most)
        return f"One picture of each of the first {more} of {len(asked.rows)} {kind} ({first}): take --each 1 for one of all."
    many = f"{each} to {each + 1} pictures" if more else f"{each} picture{'s' * (each != 1)}"
    return f"{many} of each of {len(asked.rows)} {kind}, a row of the grid for each: {_listed(map(name_of, asked.rows), most)}."


def _listed(names: Iterable[str | None], most: int) -> str:
    said = [short(name or "no class") for name in names]
    return ", ".join(said[:most]) + (f" and {len(said) - most} more" if len(said) > most else "")
