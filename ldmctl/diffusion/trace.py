"""How samples come about: noisy latents and clean estimates at some of the steps, as a strip, a GIF and an animated WebP.

The pictures are made once more and watched, so that those that were asked for are what they are without it.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ldmctl.config.schemas.sample import Sample
from ldmctl.diffusion.asking import Ask
from ldmctl.diffusion.beginning import sides_of
from ldmctl.diffusion.editing import Look
from ldmctl.errors import ConfigError, MismatchError
from ldmctl.pictures.album import KEY, TRACE, is_foreign
from ldmctl.pictures.images import to_uint8
from ldmctl.pictures.png import GAP, grid, write_png
from ldmctl.storage.leftovers import unfinished

SHOWN = 4  # pictures that are followed at most
SIDE = 64  # pixels, the least that a picture is shown with
FRAMES = 60  # of an animation at most, where the steps are not listed
MOMENT, REST = 90, 1500  # milliseconds of a frame, and of the last one
WIDE = 3.0  # deviations of a latent from black to white


class Moment(NamedTuple):
    """What is shown of one evaluation."""

    words: str
    latent: Tensor  # uint8 [B,C,H,W], the channels beside each other
    picture: Tensor  # uint8 [B,C,H,W]


def refuse_foreign_trace(folder: Path) -> None:
    """A MismatchError if a file that a trace would replace is none of ldmctl's."""
    own = (folder / TRACE[0]).exists() and not is_foreign(folder / TRACE[0])
    for name in TRACE:
        if os.path.lexists(folder / name) and not own:
            raise MismatchError(f"{folder / name} is there already and no trace of ldmctl's, so it is not replaced. Name another --out.")


def refuse_steps_beyond(config: Sample, sampler: Any) -> None:
    """A ConfigError if a step is to be shown that is beyond the last, as far as that is known before."""
    if isinstance(config.trace, int) or (last := evaluations_of(config, sampler)) is None or config.trace[-1] <= last:
        return
    if not last:
        raise ConfigError("trace names steps, and at strength=0 there are none: leave it away.")
    raise ConfigError(
        f"trace names step {config.trace[-1]}, and there are {last}: it counts evaluations of the network, of which most samplers make one in a step."
    )


def evaluations_of(config: Sample, sampler: Any) -> int | None:
    """How often the network is asked for one picture; None where that is not known before."""
    if config.level == 0:
        return 0
    count, last = (sampler.evaluations(steps) if hasattr(sampler, "evaluations") else steps for steps in (config.steps, 1))
    if count is None or config.painting.method != "repaint":
        return count
    return config.painting.repeats * (count - last) + last  # all steps but the last


def write_trace(model: Any, config: Sample, seeds: Sequence[int], asks: Sequence[Ask], folder: Path, text: str) -> str:
    """trace.png with a column for each step that is shown, trace.gif and trace.webp of the first seeds in a folder -> a sentence on steps
    that were never taken, otherwise nothing."""
    looks: list[Look] = []
    count = min(SHOWN, config.batch or SHOWN, len(seeds))
    made, _ = model.make(config, seeds[:count], asks[:count], model.given(config)._replace(watch=looks.append))
    columns, every = columns_of(config, len(looks)), frames_of(config, len(looks))
    moments = {number: moment_of(model, config, looks[number], count) for number in {*every, *columns, *range(len(looks))[-1:]}}
    last = Moment("the sample", moments[len(looks) - 1].latent if looks else magnified(made), magnified(made))
    shown = [*(moments[number] for number in columns), last]
    write_png(folder / TRACE[0], torch.cat([column(each) for each in shown], dim=2), {KEY: text})
    frames = [Image.fromarray(column(each).permute(1, 2, 0).numpy()) for each in [*(moments[number] for number in every), last]]
    for name, options in ((TRACE[1], {"comment": text.encode()}), (TRACE[2], {"lossless": True, "minimize_size": True})):
        animate(folder / name, frames, **options)
    beyond = [] if isinstance(config.trace, int) else [step for step in config.trace if step > len(looks)]
    return f"The network was asked {len(looks)} times, so step {beyond[0]} and later ones are not in the trace." if beyond else ""


def columns_of(config: Sample, count: int) -> list[int]:
    """The numbers, from 0, of those of `count` evaluations that the strip shows."""
    return spread(count, config.trace) if isinstance(config.trace, int) else [step - 1 for step in config.trace if step <= count]


def frames_of(config: Sample, count: int) -> list[int]:
    """The same of the animations, which are finer than a strip unless the steps are listed."""
    return spread(count, FRAMES) if isinstance(config.trace, int) else columns_of(config, count)


def spread(count: int, wanted: int) -> list[int]:
    """The numbers of at most `wanted` of `count` evaluations, the first and the last among them."""
    if count <= wanted:
        return list(range(count))
    return sorted({round(place * (count - 1) / max(wanted - 1, 1)) for place in range(wanted)})


def moment_of(model: Any, config: Sample, look: Look, count: int) -> Moment:
    """An evaluation as it is shown: its level, the deviation of x, the channels of x, and what is clean, decoded."""
    x = look.x[:count].float().cpu()
    words = f"sigma {look.sigma:.3g}\nsd {x.std().item():.3g}"
    picture = to_uint8(model.codec.decode(look.clean[:count], sides_of(config, model.header))).cpu()
    grey = to_uint8((x / math.sqrt(1 + look.sigma**2)) / WIDE)
    tiles = torch.stack([grid(channels[:, None]) for channels in grey]).expand(-1, 3, -1, -1)
    shown = magnified(picture)
    return Moment(words, F.interpolate(tiles.float(), shown.shape[2:], mode="nearest").to(torch.uint8), shown)


def magnified(picture: Tensor) -> Tensor:
    """uint8 [B,C,H,W] -> [B,3,H,W], a whole number of times larger until its short side has SIDE pixels; alpha is left out."""
    times = max(1, math.ceil(SIDE / min(picture.shape[2:])))
    colour = picture[:, :3].expand(-1, 3, -1, -1)
    return colour.repeat_interleave(times, 2).repeat_interleave(times, 3)


def column(moment: Moment) -> Tensor:
    """uint8 [3,H,W]: the words, and under them the latent and the picture of each sample."""
    pairs = torch.stack([moment.latent, moment.picture], dim=1).flatten(0, 1)
    stack = F.pad(grid(pairs, columns=1), (GAP, GAP, GAP, GAP), value=255)
    paper = Image.new("RGB", (stack.shape[2], 28), "white")
    ImageDraw.Draw(paper).multiline_text((GAP, GAP), moment.words, fill="black", font=ImageFont.load_default(10), spacing=1)
    words = torch.frombuffer(bytearray(paper.tobytes()), dtype=torch.uint8).view(28, -1, 3).permute(2, 0, 1)
    return torch.cat([words, stack], dim=1)


def animate(path: Path, frames: Sequence[Image.Image], **options: Any) -> None:
    """Write an animation, all or nothing, that starts over for ever."""
    partial = unfinished(path, "part")
    times = [MOMENT] * (len(frames) - 1) + [REST]
    try:
        frames[0].save(partial, path.suffix[1:].upper(), save_all=True, append_images=frames[1:], duration=times, loop=0, **options)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
