"""How good an autoencoder is, in numbers: over held-out pictures, beside the same pictures merely shrunk and enlarged again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ldmctl import registry
from ldmctl.attribution import expect_shape
from ldmctl.config.documents import write_json
from ldmctl.console import Console
from ldmctl.errors import DataError, MissingError
from ldmctl.evaluation.metrics import Mean, psnr, ssim
from ldmctl.evaluation.sameness import Sameness, look_at
from ldmctl.latents.codec import Codec
from ldmctl.latents.statistics import LatentFacts, LatentStatistics
from ldmctl.latents.usage import CodeUsage
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.images import crop_to, pad_to, to_float, to_uint8
from ldmctl.pictures.loading import in_order, on_device
from ldmctl.training.engine import Engine
from ldmctl.training.order import generator

WINDOW = 11  # pixels that SSIM looks through


@dataclass(frozen=True)
class Codes:
    """Which codes of a codebook a split uses."""

    size: int
    used: int
    reachable: float  # how many of them could be expected in so few places
    entropy: float  # bits per code
    perplexity: float


@dataclass(frozen=True)
class Evaluation:
    """What `examine` found. Measures are means over pictures by name: psnr, ssim and the perceptual distances by their titles."""

    split: str
    count: int  # pictures measured
    of: int  # pictures in the split
    size: tuple[int, int]  # H, W of a picture
    image_channels: int
    measures: dict[str, Mean]
    distances: list[str]  # which of the measures are distances: lower is closer
    baseline: dict[str, Mean]  # of pictures shrunk to h x w; empty where a latent is as large as its picture
    gains: dict[str, Mean]  # picture by picture, by how much reconstructions are closer than the baseline
    latent: LatentFacts
    bits_per_pixel: float | None = None  # what a latent costs to send; None when the autoencoder does not say
    used_bits_per_pixel: float | None = None  # of codes, by how often each is used
    codes: Codes | None = None
    keys: frozenset[str] = frozenset()  # of the autoencoder's Config: what can be changed about it
    losses: frozenset[str] | None = None  # which of perceptual and adversarial it was trained with; None where nobody knows
    notes: list[str] = field(default_factory=list)  # sentences on what could not be measured
    alike: str = ""  # what is wrong with the pictures where they do not differ

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None where there is no number: {"split", "count", "psnr": {"mean", "low", "high"}, ...}."""
        out: dict[str, Any] = {"split": self.split, "count": self.count, **_intervals(self.measures)}
        out |= {"bits_per_pixel": self.bits_per_pixel}
        if self.codes is not None:
            out |= {"used_bits_per_pixel": self.used_bits_per_pixel}
            out |= {"codes_used": self.codes.used, "code_count": self.codes.size, "codes_perplexity": self.codes.perplexity}
        out["latent"] = asdict(self.latent)
        out["baseline"] = None
        if self.baseline:
            out["baseline"] = {"size": self.latent.shape[1:], **_intervals(self.baseline), "gain": _intervals(self.gains)}
        return dict(json.loads(write_json(out)))


@torch.no_grad()
def evaluate(
    codec: Codec,
    pictures: Mapping[str, Pictures],
    perceptual: Any,
    engine: Engine,
    *,
    count: int | None = None,
    batch: int = 32,
    workers: int | None = None,
    losses: frozenset[str] | None = None,
    console: Console | None = None,
) -> Evaluation:
    """Measures a codec without statistics on the first of these splits that has pictures, {"val": ..., "train": ...}: all, or the first `count`.

    `perceptual` is a distance, several, or None; `losses` says which of perceptual and adversarial the training had.
    Memory is that of one batch and of sums.
    """
    split, chosen = held_out(pictures)
    autoencoder, size = codec.autoencoder, chosen.settings.size
    given = perceptual if isinstance(perceptual, list | tuple) else [perceptual]
    distances = {title_of(each): each for each in given if each is not None}
    total = min(count or len(chosen), len(chosen))
    means: dict[str, dict[str, Mean]] = {"made": {}, "baseline": {}, "gain": {}}
    latents, codes, bits, done = LatentStatistics(), code_usage(autoencoder), Mean(), 0
    measures, notes, same = ["psnr", *usable_ssim(size)[0], *distances], usable_ssim(size)[1], Sameness()

    with (console or Console(quiet=True)).bar(f"examining {split}", total) as bar:
        for rows in in_order(chosen, batch, engine, wanted=workers, count=count):
            good = [row for row, (asked, used) in enumerate(zip(rows.index, rows.used, strict=True)) if asked == used]
            bar.advance(done := done + len(rows.index), amount=done)
            if not good:
                continue
            image = on_device(rows.image[good], engine)
            same.add(image)
            moments = codec.encode(image)
            mode = without_noise(autoencoder, moments)
            made = as_saved(codec.decode(codec.whiten(mode), (size, size)))
            found = {"made": measure(made, image, measures, distances, engine)}
            if (small := shrunk(image, mode.shape[-2:], autoencoder.factor)) is not None:
                found["baseline"] = measure(small, image, measures, distances, engine)
                found["gain"] = {
                    name: (found["baseline"][name] - value) if name in distances else value - found["baseline"][name]
                    for name, value in found["made"].items()
                }
            for kind, values in found.items():
                for name, value in values.items():
                    means[kind].setdefault(name, Mean()).add(value)
            latents.add(codec.draw(moments, generator(engine.device, "examine", done)), mode)
            if codes is not None:
                codes.add(autoencoder.codes(moments))
            if hasattr(autoencoder, "bits"):
                bits.add(autoencoder.bits(moments))

    if not means["made"]:
        raise DataError(f"None of the {total:,} pictures of the {split} split that were to be examined could be read.")
    measured, pixels = means["made"]["psnr"].count, size * size
    if measured < total:
        notes.append(f"{total - measured:,} of {total:,} pictures could not be read and are not in these numbers.")
    notes += [same.note] if same.note else []
    if same.suspected and split == "val" and len(pictures.get("train", ())):  # a few held-out ones may be alike by chance
        same = look_at(pictures["train"], same)
    per_picture = codes.places / measured if codes else 0.0
    nominal = per_picture * math.log2(codes.size) if codes else None
    sent = bits.mean if bits.count else nominal
    return Evaluation(
        split=split,
        count=measured,
        of=len(chosen),
        size=(size, size),
        image_channels=chosen.settings.channels,
        measures=means["made"],
        distances=list(distances),
        baseline=means["baseline"],
        gains=means["gain"],
        latent=latents.facts(autoencoder.rescale),
        bits_per_pixel=None if sent is None else sent / pixels,
        used_bits_per_pixel=per_picture * codes.entropy / pixels if codes else None,
        codes=Codes(codes.size, codes.used, codes.reachable, codes.entropy, codes.perplexity) if codes else None,
        keys=frozenset(getattr(getattr(type(autoencoder), "Config", None), "model_fields", {})) - {"type"},
        losses=losses,
        notes=notes,
        alike=same.sentence,
    )


def held_out(pictures: Mapping[str, Pictures]) -> tuple[str, Pictures]:
    """(name, pictures) of the first split that has any, or a DataError."""
    for split, each in pictures.items():
        if len(each):
            return split, each
    raise DataError(f"There are no pictures to examine: the {' and the '.join(pictures)} split is empty.")


def title_of(plugin: Any, kind: str = "perceptual") -> str:
    """What reports call a perceptual distance, or another kind: its title, else the name it is registered under, in lower case as result keys are."""
    target = f"{type(plugin).__module__}:{type(plugin).__qualname__}"
    registered = [each.name for each in registry.plugins(kind) if each.target == target]
    return str(getattr(plugin, "title", None) or (registered or [type(plugin).__name__])[0]).lower()


def measure(made: Tensor, image: Tensor, measures: list[str], distances: Mapping[str, Any], engine: Engine) -> dict[str, Tensor]:
    """[B] per measure of pictures [B,C,H,W] against their originals; networks in the engine's precision."""
    values = {}
    for name in measures:
        if name in distances:
            with engine.autocast():
                distance = distances[name](made, image)
            expect_shape(distance, (len(made),), distances[name], "forward")
            values[name] = distance.float()
        else:
            values[name] = psnr(made, image) if name == "psnr" else ssim(made, image)
    return values


def usable_ssim(size: int) -> tuple[list[str], list[str]]:
    """(["ssim"], []), or ([], a note why not): its absence must not cost the other numbers."""
    if size < WINDOW:
        return [], [f"SSIM was not measured: it looks through a window of {WINDOW} x {WINDOW} pixels, and image.size is {size}."]
    try:
        ssim(torch.zeros(1, 1, WINDOW, WINDOW), torch.zeros(1, 1, WINDOW, WINDOW))
    except MissingError as error:
        return [], [f"SSIM was not measured. {error}"]
    return ["ssim"], []


def shrunk(image: Tensor, size: tuple[int, ...], factor: int) -> Tensor | None:
    """[B,C,H,W] averaged down to a latent's (h, w) and enlarged again by a bicubic filter, in 8 bits; None where that is the picture's
    own size. What any autoencoder must beat: as many places, and no learning."""
    padded = pad_to(image, factor)
    if tuple(padded.shape[-2:]) == tuple(size):
        return None
    small = F.interpolate(padded, size=tuple(size), mode="area")
    large = F.interpolate(small, size=tuple(padded.shape[-2:]), mode="bicubic", align_corners=False)
    return as_saved(crop_to(large, (image.shape[-2], image.shape[-1])))


def without_noise(autoencoder: Any, moments: Tensor) -> Tensor:
    """[B,m,h,w] -> [B,c,h,w] float32: the mode where the autoencoder has one."""
    return getattr(autoencoder, "mode", autoencoder.draw)(moments).float()


def as_saved(image: Tensor) -> Tensor:
    """[-1, 1] rounded to the 256 values that a file can hold."""
    return to_float(to_uint8(image))


def code_usage(autoencoder: Any) -> CodeUsage | None:
    """A census for an autoencoder that has countable codes, else None."""
    size = getattr(autoencoder, "code_count", None)
    return CodeUsage(int(size)) if size and hasattr(autoencoder, "codes") else None


def _intervals(means: Mapping[str, Mean]) -> dict[str, dict[str, float]]:
    return {name: dict(zip(("mean", "low", "high"), mean.interval(), strict=True)) for name, mean in means.items()}
