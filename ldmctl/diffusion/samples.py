"""Pictures in memory, nothing is written: what a loaded model makes by the keys of `ldmctl sample`, or by a validated config."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ldmctl.config.presets import compose
from ldmctl.config.schemas.sample import Sample
from ldmctl.config.seeds import parse_seeds
from ldmctl.diffusion.beginning import Given, refuse_size
from ldmctl.diffusion.cautions import cautions
from ldmctl.diffusion.editing import Look
from ldmctl.diffusion.grouping import together, with_batch
from ldmctl.diffusion.wanted import wanted
from ldmctl.errors import ConfigError
from ldmctl.pictures.canvas import open_canvas


class Samples(NamedTuple):
    """Pictures with what they are of. `images / 127.5 - 1` has them in [-1, 1]."""

    images: Tensor  # uint8 [N,C,H,W] from 0 to 255, on the CPU: the pixels of the PNG files; or the latents, where these were asked for
    labels: list[str | None]  # None is no class
    seeds: list[int]


def sample(
    model: Any,
    count: int | None = None,
    *,
    seed: int | None = None,
    seeds: str | int | Sequence[int] | None = None,
    each: int | None = None,
    label: str | int | Sequence[str | int] | None = None,
    prompt: str | Sequence[str] | None = None,
    token: str | Path | Sequence[str | Path] | None = None,
    map: str | Path | None = None,
    picture: str | Path | None = None,
    guidance: float | None = None,
    steps: int | None = None,
    sampler: str | Mapping[str, Any] | None = None,
    spacing: str | None = None,
    batch: int | None = None,
    guiding: Mapping[str, Any] | None = None,
    negative: str | None = None,
    autoguide: str | Path | None = None,
    start: Any = None,
    strength: float | None = None,
    mask: Any = None,
    outpaint: str | Sequence[int] | None = None,
    painting: Mapping[str, Any] | None = None,
    size: str | Sequence[int] | None = None,
    interpolate: Sequence[int] | None = None,
    between: int | None = None,
    guides: Any = None,
    callback: Callable[[Look], None] | None = None,
    output: Literal["images", "latents"] = "images",
) -> Samples:
    """Pictures in memory, nothing is written; the keys are those of `ldmctl sample`. `sampler` is a name, or {"type": ..., its keys}.
    With `seeds`, a `count` is as many as these.

    `map` and `picture` are files or folders, for models that listen to these. `start` (--from) and `mask` are files, or pictures in
    memory: Pillow images, uint8 [C,H,W], several of them; a mask is white, or True, where it is painted. `guides` are names,
    {"type": ..., their keys}, functions from pictures [B,C,H,W] in [-1, 1] to losses [B], or objects with such a `loss`; one, or several.
    `callback` is shown a `Look` of each evaluation.

    With output="latents" they stay float32 [N,c,h,w] of mean 0 and deviation 1, which `codec.decode` takes.
    """
    wanted_guides = several(guides)
    refuse_dumb(wanted_guides, callback)
    keys: dict[str, Any] = {
        "seeds": plain(seeds),
        "each": each,
        "count": agreed(count, plain(seeds)),
        "seed": seed,
        "label": plain(label),
        "prompt": plain(prompt),
        "token": token and [str(each) for each in several(token)],
        "map": map and str(map),
        "picture": picture and str(picture),
        "guidance": guidance,
        "steps": steps,
        "spacing": spacing,
        "batch": batch,
    }
    keys |= {"guiding": plain(guiding), "negative": negative, "autoguide": autoguide and str(autoguide)}
    keys |= {"strength": strength, "outpaint": plain(outpaint), "painting": plain(painting)}
    keys |= {"size": plain(size), "interpolate": plain(interpolate), "between": between}
    keys |= {"guide": [plain(each) for each in wanted_guides if isinstance(each, str | Mapping)]}
    keys |= {"start": written(start), "mask": written(mask)}
    config, _ = compose(Sample, overrides=[], flags={**keys, "sampler": plain(sampler)})
    canvas = None if start is None else open_canvas(start, mask, model.header["image"], size=config.size, margins=config.outpaint)
    model.listings.clear()  # there may be other files than at the last call
    in_memory = [each for each in wanted_guides if not isinstance(each, str | Mapping)]
    return model.samples(config, Given(canvas, [*model.guides(config), *in_memory], callback), output=output)


def refuse_dumb(guides: Sequence[Any], callback: Any) -> None:
    """A ConfigError for a guide or a callback that cannot be asked."""
    for guide in guides:
        if not (isinstance(guide, str | Mapping) or callable(guide) or hasattr(guide, "loss")):
            raise ConfigError(f"A guide is a name, {{'type': ...}}, a function or an object with a `loss`, and not {guide!r:.80}.")
    if callback is not None and not callable(callback):
        raise ConfigError(f"callback is a function that is shown a Look, and not {callback!r:.80}.")


def samples(model: Any, config: Sample, given: Given | None = None, *, output: Literal["images", "latents"] = "images") -> Samples:
    """The pictures that a validated config asks for; a DivergedError if some are not finite, a UserWarning for each of `cautions`."""
    if output not in ("images", "latents"):
        raise ConfigError(f"output={output!r} is neither images nor latents.")
    asked = wanted(config, model.header_for(config), (weaker := model.weaker(config)) and weaker.header)
    seeds, asks = list(asked.seeds), [asked.ask(place) for place in range(len(asked))]
    refuse_size(config, model.header, model.codec, model.network)
    for sentence in cautions(config, model, seeds):
        warnings.warn(sentence, stacklevel=3)  # where `sample` was called
    config = with_batch(config, model)
    images, done = [], 0
    while done < len(seeds):
        rows = slice(done, done + together(config, model, len(seeds) - done, asks[done], given))
        made, bad = model.make(config, seeds[rows], asks[rows], given, output=output)
        model.refuse(bad, config)
        images.append(made)
        done = rows.stop
    return Samples(torch.cat(images), [model.name_of(ask.label, config) for ask in asks], seeds)


def plain(given: Any) -> Any:
    """Arrays, sequences and mappings as lists and dicts, which a config holds; a single value as it is."""
    if hasattr(given, "tolist"):
        return given.tolist()
    if isinstance(given, Mapping):
        return dict(given)
    return given if isinstance(given, str) or not isinstance(given, Iterable) else [plain(each) for each in given]


def several(given: Any) -> list[Any]:
    """What was given, one or several, as a list; None is none."""
    single = isinstance(given, str | Mapping) or hasattr(given, "loss") or not isinstance(given, Iterable)
    return [] if given is None else [given] if single else list(given)


def agreed(count: int | None, seeds: Any) -> int | None:
    """How many pictures, None where `seeds` say it, in numbers or in words; a ConfigError where they are not as many."""
    if count is None or seeds is None:
        return count
    try:
        many = len(parse_seeds(",".join(map(str, several(seeds)))))
    except ValueError:  # which the schema explains
        return None
    if many != count:
        raise ConfigError(f"count={count} pictures of {many} seeds cannot be: leave count away, or name as many seeds.")
    return None


def written(given: Any) -> str | None:
    """How a config names a picture or a mask; one in memory has no name of its own."""
    return None if given is None else str(given) if isinstance(given, str | Path) else "(in memory)"
