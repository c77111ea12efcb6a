"""Maps and pictures to follow that have another shape than the pictures that are made: of these the middle alone is shown to the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ldmctl.config.schemas.sample import Sample
from ldmctl.diffusion.beginning import sides_of
from ldmctl.diffusion.shown import LOOKED_AT, PURPOSE, in_turn
from ldmctl.pictures.images import opened
from ldmctl.pictures.stored_maps import frame_of


def cropped(config: Sample, model: Any, seeds: Iterable[int]) -> Iterator[str]:
    """A sentence for `--map` and for `--picture` on files of which a part is cut off."""
    height, width = sides_of(config, model.header)
    some = list(islice(seeds, LOOKED_AT))
    for slot, purpose in PURPOSE.items():
        given: str | None = getattr(config, slot)
        if given is None or config.guidance == 0 or getattr(model.network, slot) is None:
            continue
        files = dict.fromkeys(in_turn(given, some, purpose, model.listings))
        cut = [(file, size) for file in files if is_cut(size := size_as_seen(file), (width, height))]
        if cut:
            file, (wide, high) = cut[0]
            more = f" (and {len(cut) - 1} more)" if cut[1:] else ""
            yield (
                f"The {slot} {file}{more} has {wide}x{high} pixels, another shape than the pictures of {width}x{height}: the middle of it is "
                "used, as large as fits, and the rest is cut off."
            )


def size_as_seen(file: Path) -> tuple[int, int]:
    """Width and height of a picture once it is upright; nothing is decoded."""
    with opened(file) as image:
        return frame_of(image, None).upright


def is_cut(size: tuple[int, int], wanted: tuple[int, int]) -> bool:
    """Whether a picture that covers the wanted one reaches beyond it by more than is lost in rounding."""
    scale = max(wanted[0] / size[0], wanted[1] / size[1])
    return any(round(side * scale) - want > 1 for side, want in zip(size, wanted, strict=True))
