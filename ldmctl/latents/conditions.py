"""What is known of the items of a cache beside their latents, as each training step is given it.

Captions are prepared once each, by the frozen half of their conditioner, and kept under `conditions/` in the cache (`prepared`); latents
are not touched. Which of several captions an item has in a step, and what is mirrored, is a function of seed and step.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from ldmctl.config.schemas.shared import Loop
from ldmctl.console import Console
from ldmctl.errors import Stopped
from ldmctl.latents import prepared
from ldmctl.latents.inventory import FOLDER
from ldmctl.latents.prepared import Prepared, Row, Shard, gathered, key_of, padded
from ldmctl.latents.reader import Latents
from ldmctl.signals import Signals
from ldmctl.storage.leftovers import sweep
from ldmctl.training.engine import Engine, on_all
from ldmctl.training.order import generator

T = TypeVar("T")
TOGETHER = 2048  # captions of one shard


class Known(NamedTuple):
    """What is known of a batch in one slot."""

    value: Any  # as its conditioner's `encode` takes it; rows that are not there may hold anything of the right shape
    there: Tensor | None = None  # bool [B], whether it is known of each item; None: of all


class Source(Protocol):
    """What is known of the items of a split in one slot."""

    @property
    def share(self) -> float:
        """Of the items, how many have it."""

    def known(self, items: Tensor, mirrored: Tensor | None = None, chosen: Tensor | None = None) -> Known:
        """Of items [B]; where `mirrored` bool [B], of the mirrored picture. `chosen` [B] in [0, 1) picks one of several; None: the first."""


class Captions:
    """The prepared captions of a split."""

    def __init__(self, rows: Prepared, captions: Sequence[Sequence[str]]):
        self.rows = rows
        self.starts = np.concatenate([[0], np.cumsum([len(each) for each in captions])]).astype(np.int64)
        self.known_as = list(rows.places)
        order = {key: number for number, key in enumerate(self.known_as)}
        numbers = {text: order[key_of(text)] for text in {text for each in captions for text in each}}
        self.flat = np.array([numbers[text] for each in captions for text in each], dtype=np.int64)
        self.nothing = {name: value[:1] * 0 for name, value in rows.row(self.known_as[0]).items()} if order else {}

    def known(self, items: Tensor, mirrored: Tensor | None = None, chosen: Tensor | None = None) -> Known:
        """Padded tokens with their mask; see `Source`."""
        first, last = self.starts[items.numpy()], self.starts[items.numpy() + 1]
        count = last - first
        place = (
            first if chosen is None else first + np.minimum((chosen.double().numpy() * count).astype(np.int64), np.maximum(count - 1, 0))
        )
        rows: list[Row] = [
            self.rows.row(self.known_as[self.flat[at]]) if many else self.nothing for at, many in zip(place, count, strict=True)
        ]
        return Known(padded(rows), torch.from_numpy(count > 0))

    def cut(self) -> tuple[int, int]:
        """(how many different captions have an end that is not heard, how many there are)."""
        different = np.unique(self.flat)
        return sum(self.rows.is_cut(self.known_as[number]) for number in different), len(different)

    def longer_than(self, share: float) -> int:
        """An item whose first caption has as many tokens as this share of all of them have at most; 1: as the longest."""
        some = np.flatnonzero(np.diff(self.starts) > 0)
        if not len(some):
            return 0
        lengths = self.rows.counts()[self.flat[self.starts[some]]]
        return int(some[np.argsort(lengths, kind="stable")[math.ceil(share * len(some)) - 1]])

    @property
    def share(self) -> float:
        """Of the items, how many have a caption."""
        counts = np.diff(self.starts)
        return float((counts > 0).mean()) if len(counts) else 1.0


class Several:
    """What is known of the items of a split beside their labels, by slot."""

    def __init__(self, sources: Mapping[str, Source]):
        self.sources = sources

    def known(self, items: Tensor, mirrored: Tensor | None = None, chosen: Tensor | None = None) -> dict[str, Known]:
        """Of items [B], on the CPU; see `Source`."""
        return {slot: source.known(items, mirrored, chosen) for slot, source in self.sources.items()}

    def share(self, slot: str) -> float:
        """Of the items, how many have what is known in a slot; 1 where nothing is."""
        return self.sources[slot].share if slot in self.sources else 1.0


NOTHING = Several({})


def on_device(known: Mapping[str, Known], device: torch.device) -> dict[str, Known]:
    """The same on a device, to which an accelerator copies while others compute."""
    return {slot: Known(_moved(each.value, device), _moved(each.there, device)) for slot, each in known.items()}


def of_rows(known: Mapping[str, Known], rows: slice) -> dict[str, Known]:
    """The same of some rows of a batch."""
    return {slot: Known(_cut(each.value, rows), _cut(each.there, rows)) for slot, each in known.items()}


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Mapping):
        return {name: _moved(each, device) for name, each in value.items()}
    if value is None or device.type == "cpu":
        return value
    return (value.pin_memory() if device.type == "cuda" and value.device.type == "cpu" else value).to(device, non_blocking=True)


def _cut(value: Any, rows: slice) -> Any:
    return {name: each[rows] for name, each in value.items()} if isinstance(value, Mapping) else value if value is None else value[rows]


def chosen_in(loop: Loop, step: int) -> Tensor:
    """[B] in [0, 1): which of several captions each item of a step's global batch has."""
    return torch.rand(loop.batch, generator=generator("cpu", "caption", loop.seed, step), dtype=torch.float64)


def captions_of(latents: Latents) -> list[tuple[str, ...]]:
    """Every caption of each item of a split, () where it has none."""
    found = (tuple(item.get("texts") or ()) or (item["text"],) for item in latents.items())
    return [tuple(text for text in each if text.strip()) for each in found]


def prepare_captions(conditioner: Any, cache: Path, captions: Iterable[Sequence[str]], engine: Engine, console: Console) -> Prepared:
    """Every distinct caption through the frozen half of a conditioner, those that the cache has not kept from before; ranks share them."""
    every = sorted({text for each in captions for text in each})
    if not getattr(conditioner, "kept", True):  # made faster than read
        return in_memory(conditioner, every)

    def make(texts: Sequence[str]) -> list[tuple[Row, bool]]:
        rows = conditioner.prepare(texts, device=engine.device)
        return list(zip(rows, are_cut(conditioner, texts, rows), strict=True))

    folder = folder_of_captions(conditioner, cache)
    about = {"slot": "text", **getattr(conditioner, "about", {"type": type(conditioner).__name__.lower()})}
    return kept(folder, {key_of(text): text for text in every}, make, engine, console, what="captions", together=TOGETHER, about=about)


def folder_of_captions(conditioner: Any, cache: Path) -> Path:
    """Where the captions that a conditioner has prepared are kept."""
    return cache / FOLDER / f"text-{conditioner.fingerprint[:16]}"


def kept(
    folder: Path,
    wanted: Mapping[bytes, T],
    make: Callable[[Sequence[T]], Sequence[tuple[Row, bool] | None]],
    engine: Engine,
    console: Console,
    *,
    what: str,
    together: int,
    about: Mapping[str, Any],
) -> Prepared:
    """The rows of a folder, with those that are `wanted` made and written where they are missing, `together` in a shard; ranks share them.

    `make` gives a row of each, and whether its end was cut off, or None where there is nothing to keep. `about` says what makes them.
    """
    there = prepared.opened(folder)
    lacking = on_all(engine, lambda: [key for key in wanted if key not in there])  # of one rank, since another may have written by now
    if not lacking:
        return there if all(key in there for key in wanted) else prepared.opened(folder)
    missing = [(key, wanted[key]) for key in lacking]
    mine, turns, done = missing[engine.rank :: engine.world], -(-len(missing) // (together * engine.world)), 0
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    if engine.leads:
        prepared.note(folder, about)
    with Signals(console.say) as signals, console.bar(what, len(mine), unit=what) as bar:
        for turn in range(turns):
            part = mine[turn * together : (turn + 1) * together]
            made = zip(part, make([each for _, each in part]), strict=True)
            if found := [(key, *each) for (key, _), each in made if each is not None]:
                keys, rows, cut = zip(*found, strict=True)
                prepared.write(folder, rows, keys, cut)
            done += len(part)
            bar.advance(done, amount=done)
            if engine.any(signals.asked):
                ready = min(done * engine.world, len(missing))
                raise Stopped(f"Stopped after {ready:,} of {len(missing):,} {what}, which are kept. The same command continues.")
    engine.barrier()
    return prepared.opened(folder)


def in_memory(conditioner: Any, texts: Sequence[str]) -> Prepared:
    """The same of these texts, kept nowhere."""
    if not texts:
        return Prepared([])
    rows = conditioner.prepare(texts)
    return Prepared([Shard(gathered(rows, [key_of(text) for text in texts], are_cut(conditioner, texts, rows)))])


def are_cut(conditioner: Any, texts: Sequence[str], rows: Sequence[Row]) -> list[bool]:
    """Of each text, whether its end is not heard: asked of the longest alone, since a text that is cut has as many tokens as any."""
    counts = [len(next(iter(row.values()))) for row in rows]
    longest = max(counts, default=0)
    return [count == longest and bool(conditioner.cut(text)) for count, text in zip(counts, texts, strict=True)]
