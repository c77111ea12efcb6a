"""Pictures that go with a verdict: reconstructions beside their originals, what each latent channel shows, rows with captions."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ldmctl.evaluation.reconstruction import held_out
from ldmctl.latents.codec import Codec
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.images import crop_to, to_tensor, to_uint8
from ldmctl.pictures.loading import on_device, shown_items
from ldmctl.pictures.png import grid, write_png
from ldmctl.training.engine import Engine
from ldmctl.training.order import generator

LOUDER = 4  # times the absolute error is amplified
SIDE = 96  # pixels that a shown picture has at least: small ones are enlarged by a whole number
MOST = 16  # latent channels shown
SPAN = 3  # deviations of a channel that go to black and to white


@torch.no_grad()
def write_pictures(folder: str | Path, codec: Codec, pictures: Mapping[str, Pictures], engine: Engine) -> list[Path]:
    """Writes verdict.png and latents.png of eight pictures, spread evenly, of the first split that has any -> where they are."""
    split, chosen = held_out(pictures)
    image = on_device(shown_items(chosen), engine)
    made = codec.reconstruct(image)
    moments = codec.encode(image)
    latent = codec.draw(moments, generator(engine.device, "exhibits"))
    sheets = {"verdict": compared(image, made), "latents": latents_shown(image, latent, codec.autoencoder.factor)}
    texts = {
        "verdict": f"{split} pictures. Rows: originals, reconstructions, absolute error times {LOUDER}.",
        "latents": f"{split} pictures. Rows: originals, then {min(latent.shape[1], MOST)} of {latent.shape[1]} latent channels as drawn, grey "
        f"from -{SPAN} to +{SPAN} standard deviations around the mean of the channel over these pictures.",
    }
    paths = [Path(folder) / f"{name}.png" for name in sheets]
    for path, (name, sheet) in zip(paths, sheets.items(), strict=True):
        write_png(path, grid(enlarged(sheet), columns=len(image)), {"Description": texts[name]})
    return paths


def compared(image: Tensor, made: Tensor) -> Tensor:
    """[n,C,H,W] twice in [-1, 1] -> uint8 [3n,C,H,W]: originals, reconstructions, error; an error in alpha is not shown."""
    error = ((made - image).abs() * LOUDER - 1).clamp(-1, 1)
    error[:, 3:] = 1
    return torch.cat([to_uint8(each) for each in (image, made, error)])


def latents_shown(image: Tensor, latent: Tensor, factor: int) -> Tensor:
    """[n,C,H,W] and [n,c,h,w] -> uint8 [(1 + c)n,3,H,W]: originals, then a row for each channel."""
    rows = latent[:, :MOST].transpose(0, 1)  # [c,n,h,w]
    centred = rows - rows.mean((1, 2, 3), keepdim=True)
    deviation = centred.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
    size = (image.shape[-2], image.shape[-1])
    grey = crop_to((centred / (SPAN * deviation)).clamp(-1, 1).repeat_interleave(factor, 2).repeat_interleave(factor, 3), size)
    originals = image.expand(-1, 3, -1, -1) if image.shape[1] == 1 else image[:, :3]
    return torch.cat([to_uint8(originals), to_uint8(grey.flatten(0, 1)[:, None].expand(-1, 3, -1, -1))])


def enlarged(image: Tensor) -> Tensor:
    """uint8 [B,C,H,W] with every pixel as large a square as it takes to be `SIDE` pixels wide."""
    times = -(-SIDE // image.shape[-1])
    return image.repeat_interleave(times, 2).repeat_interleave(times, 3)


def captioned(rows: Sequence[tuple[str, Tensor]], *, columns: int) -> Tensor:
    """uint8 [C,H',W'] of rows of at most so many pictures [n,C,H,W] in [-1, 1], each row after a tile with its caption."""
    tiles = []
    for caption, image in rows:
        shown = enlarged(to_uint8(image[:columns].nan_to_num(0.0)).cpu())
        blank = torch.full((columns - len(shown), *shown.shape[1:]), 255, dtype=torch.uint8)
        tiles += [written(caption, shown.shape[1:])[None], shown, blank]
    return grid(torch.cat(tiles), columns=columns + 1)


def written(text: str, shape: Sequence[int]) -> Tensor:
    """uint8 [C,H,W] of this shape: black text on white, wrapped to its width."""
    channels, height, width = shape
    image = Image.new({1: "L", 3: "RGB", 4: "RGBA"}[channels], (width, height), "white")
    lines = "\n".join(textwrap.wrap(text, max((width - 8) // 6, 4)))
    ImageDraw.Draw(image).multiline_text((4, 4), lines, fill="black")
    return to_tensor(image)
