"""What a conditioner is made with and given in its check, by what it listens to."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ldmctl.testing.promises import calling, expect, is_whole, maker, normal, refusal_allowed, seeded

TEXTS = ["a red circle", "", "A Cat \N{FOX FACE}, \u05d7\u05ea\u05d5\u05dc", "one word after another " * 200]
SIZE, FACTOR = (4, 6), 4  # of latents, and pixels of a cell


@dataclass(frozen=True)
class Said:
    """The context of a conditioner, and what it is given for three pictures."""

    context: Mapping[str, Any]
    given: Callable[[Any], Any]
    form: str
    size: tuple[int, int] | None = None  # of maps
    texts: bool = False


def tokens_of(row: Mapping[str, Tensor]) -> int:
    """How many tokens a prepared text has."""
    return len(next(iter(row.values())))


def padded(rows: Sequence[Mapping[str, Tensor]], length: int) -> dict[str, Tensor]:
    """Rows of several lengths as the host gives them: zeros behind each, and a mask."""
    given = {name: first.new_zeros(len(rows), length, *first.shape[1:]) for name, first in rows[0].items()}
    given["mask"] = torch.zeros(len(rows), length, dtype=torch.bool)
    for number, row in enumerate(rows):
        for name, value in row.items():
            given[name][number, : len(value)] = value
        given["mask"][number, : tokens_of(row)] = True
    return given


def _labels(cls: Any, options: Mapping[str, Any]) -> Iterator[Said]:
    form = "labels int64 [B]"
    yield Said({"classes": ["cat", "dog", "emu"]}, lambda model: torch.tensor([2, 0, -1]), form)


def _texts(cls: Any, options: Mapping[str, Any]) -> Iterator[Said]:
    fitted = None
    if hasattr(cls, "fit"):
        config = cls.Config(type="check", **options)
        with calling("fit"):
            fitted, turned = cls.fit(config, list(TEXTS)), cls.fit(config, TEXTS[::-1])
        try:
            same = json.loads(json.dumps(fitted)) == fitted
        except (TypeError, ValueError):
            same = False
        expect(same, "what fit gave is another thing after it was written as JSON and read again")
        expect(fitted == turned, "fit gave another thing for the same captions in another order")

    def given(model: Any) -> dict[str, Tensor]:
        rows = model.prepare(TEXTS[:3])
        return padded(rows, max(map(tokens_of, rows)))

    yield Said({"fitted": fitted}, given, "prepared texts, padded, and mask bool [B,N]", texts=True)


def _maps(cls: Any, options: Mapping[str, Any]) -> Iterator[Said]:
    """Of classes, and continuous; a conditioner may refuse one of both."""
    kinds: list[Mapping[str, Any]] = [{"classes": ["sky", "sea"], "channels": 1}, {"classes": [], "channels": 2}]
    served: list[dict[str, Any]] = []
    for maps in kinds:
        context: dict[str, Any] = {"maps": maps, "factor": FACTOR, "size": SIZE}
        with refusal_allowed(bool(served) or maps is kinds[0]):
            maker(cls, options, **context)()
            served.append(context)
    for context in served:
        drawn = _drawn(len(context["maps"]["classes"]) or 256, context["maps"]["channels"])
        yield Said(context, partial(_itself, drawn), "maps uint8 [B,K,H,W]", size=SIZE)


def _drawn(numbers: int, channels: int) -> Tensor:
    """Three maps, whose last row of cells has fewer pixels."""
    shape = (3, channels, SIZE[0] * FACTOR - 1, SIZE[1] * FACTOR)
    return torch.randint(0, numbers, shape, dtype=torch.uint8, generator=seeded())


def _itself(given: Tensor, model: Any) -> Tensor:
    return given


def _pictures(cls: Any, options: Mapping[str, Any]) -> Iterator[Said]:
    wants = getattr(cls, "wants", None)
    expect(wants in ("latent", "image"), f"it listens to pictures and wants {wants!r}, not 'latent' or 'image'")
    side = max(SIZE) * FACTOR
    context = {"channels": 5, "size": SIZE, "image_channels": 3, "factor": FACTOR, "side": side}
    if wants == "latent":
        yield Said(context, _hole, "latent [B,c,h,w] and mask [B,1,h,w]", size=SIZE)
    else:
        yield Said(context, _small, "what shrink made, uint8 [B,C,hs,ws]", size=SIZE)


def _hole(model: Any) -> dict[str, Tensor]:
    """What training gives of latents, after a look at it, with a hole that is not all."""
    latent = normal(3, 5, *SIZE)
    with calling("draw"):
        one, again = model.draw(latent, seeded()), model.draw(latent, seeded())
    mask = one["mask"]
    expect(
        mask.shape == (3, 1, *SIZE) and one["latent"].shape == latent.shape,
        "draw gave other shapes than latent [B,c,h,w] and mask [B,1,h,w]",
    )
    expect(bool(((mask >= 0) & (mask <= 1)).all()), "draw gave a mask beyond 0 and 1")
    expect(torch.equal(mask, again["mask"]), "draw gave two masks by the same generator")
    mask = torch.zeros_like(mask)
    mask[..., :1] = 1
    return {"latent": latent, "mask": mask}


def _small(model: Any) -> Tensor:
    picture = torch.randint(0, 256, (3, 3, SIZE[0] * FACTOR, SIZE[1] * FACTOR), dtype=torch.uint8, generator=seeded())
    with calling("shrink"):
        small = model.shrink(picture)
    expect(small.dtype == torch.uint8 and small.ndim == 4 and len(small) == 3, "shrink gave no uint8 [B,C,hs,ws]")
    expect(all(is_whole(side) for side in small.shape[2:]), "shrink gave nothing")
    return small


SLOTS: dict[str, Callable[[Any, Mapping[str, Any]], Iterator[Said]]] = {
    "label": _labels,
    "text": _texts,
    "map": _maps,
    "picture": _pictures,
}
