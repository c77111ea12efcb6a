"""How good an autoencoder is, in numbers: over held-out pictures, beside the same pictures downsampled and enlarged again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ldmctl import registry
from ldmctl.attribution import expect_shape
from ldmctl.console import Console
from ldmctl.errors import DataError
from ldmctl.evaluation.frechet import FeatureStatistics, frechet_distance
from ldmctl.evaluation.metrics import Mean, psnr, ssim
from ldmctl.evaluation.sameness import Sameness, look_at
from ldmctl.evaluation.scores import Codes, Evaluation
from ldmctl.latents.codec import Codec
from ldmctl.latents.statistics import LatentStatistics
from ldmctl.latents.usage import CodeUsage
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.images import crop_to, pad_to, to_float, to_uint8
from ldmctl.pictures.loading import in_order, on_device
from ldmctl.training.engine import Engine
from ldmctl.training.order import generator

WINDOW = 11  # pixels that SSIM looks through


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
    """Measures a codec without statistics on the first of these splits that has pictures, {"val": ..., "train": ...}: all, or `count`, spread evenly.

    `perceptual` is a distance, several, or None; `losses` says which of perceptual and adversarial the training had, and whether they had `shares`.
    Memory is that of one batch and of sums.
    """
    split, chosen = held_out(pictures)
    autoencoder, size = codec.autoencoder, chosen.settings.size
    given = perceptual if isinstance(perceptual, list | tuple) else [perceptual]
    distances = {title_of(each): each for each in given if each is not None}
    total = min(count or len(chosen), len(chosen))
    known, notes = usable_ssim(size)
    sums, done = Sums(codec, ["psnr", *known, *distances], distances), 0

    with (console or Console(quiet=True)).bar(f"examining {split}", total) as bar:
        for rows in in_order(chosen, batch, engine, wanted=workers, count=count):
            good = [row for row, (asked, used) in enumerate(zip(rows.index, rows.used, strict=True)) if asked == used]
            bar.advance(done := done + len(rows.index), amount=done)
            if good:
                sums.add(on_device(rows.image[good], engine), generator(engine.device, "examine", done))

    if not sums.means["made"]:
        raise DataError(f"None of the {total:,} pictures of the {split} split that were to be examined could be read.")
    measured, same = sums.means["made"]["psnr"].count, sums.same
    if measured < total:
        notes.append(f"{total - measured:,} of {total:,} pictures could not be read and are not in these numbers.")
    notes += [same.note] if same.note else []
    if same.suspected and split == "val" and len(pictures.get("train", ())):  # a few held-out ones may be alike by chance
        same = look_at(pictures["train"], same)
    return Evaluation(
        split=split,
        count=measured,
        of=len(chosen),
        size=(size, size),
        image_channels=chosen.settings.channels,
        measures=sums.means["made"],
        distances=list(distances),
        baseline=sums.means["baseline"],
        gains=sums.means["gain"],
        latent=sums.latents.facts(autoencoder.rescale),
        **sums.bits_and_codes(size * size),
        frechet={name: frechet_of(sets) for name, sets in sums.features.items() if measured > 1},
        keys=changeable(autoencoder),
        losses=losses,
        notes=notes,
        alike=same.sentence,
    )


def changeable(autoencoder: Any) -> frozenset[str]:
    """The keys of its Config that advice may name: all but its type, and its shortcuts where it has them."""
    keys = frozenset(getattr(getattr(type(autoencoder), "Config", None), "model_fields", {})) - {"type"}
    has_shortcuts = getattr(getattr(autoencoder, "encoder", None), "shortcut", None) is not None
    return keys - {"shortcuts"} if has_shortcuts else keys


class Sums:
    """What is known of the pictures that a codec without statistics was given; its memory does not grow with their number."""

    def __init__(self, codec: Codec, measures: list[str], distances: Mapping[str, Any]):
        self.codec, self.measures, self.distances = codec, measures, distances
        self.means: dict[str, dict[str, Mean]] = {"made": {}, "baseline": {}, "gain": {}}
        self.embedded = {name: each for name, each in distances.items() if hasattr(each, "embed")}
        self.features: dict[str, dict[str, FeatureStatistics]] = {name: {} for name in self.embedded}
        self.latents, self.codes, self.bits, self.same = LatentStatistics(), code_usage(codec.autoencoder), Mean(), Sameness()

    def add(self, image: Tensor, noise: torch.Generator) -> None:
        """A batch of pictures [B,C,H,W] in [-1, 1]; `noise` draws its latents."""
        self.same.add(image)
        autoencoder, (height, width) = self.codec.autoencoder, image.shape[-2:]
        moments = self.codec.encode(image)
        mode = without_noise(autoencoder, moments)
        made = as_saved(self.codec.decode(self.codec.whiten(mode), (height, width)))
        self._compare(image, made, shrunk(image, mode.shape[-2:], autoencoder.factor))
        self.latents.add(self.codec.draw(moments, noise), mode)
        if self.codes is not None:
            self.codes.add(autoencoder.codes(moments))
        if hasattr(autoencoder, "bits"):
            self.bits.add(autoencoder.bits(moments))

    def _compare(self, image: Tensor, made: Tensor, small: Tensor | None) -> None:
        """Reconstructions, and pictures that were merely shrunk where there are any, with the originals [B,C,H,W]."""
        engine = self.codec.engine
        found = {"made": measure(made, image, self.measures, self.distances, engine)}
        if small is not None:
            found["baseline"] = measure(small, image, self.measures, self.distances, engine)
            found["gain"] = {
                name: (found["baseline"][name] - value) if name in self.distances else value - found["baseline"][name]
                for name, value in found["made"].items()
            }
        for name, each in self.embedded.items():
            for kind, pictures in {"real": image, "made": made, **({} if small is None else {"baseline": small})}.items():
                with engine.autocast():
                    self.features[name].setdefault(kind, FeatureStatistics()).add(each.embed(pictures))
        for kind, values in found.items():
            for name, value in values.items():
                self.means[kind].setdefault(name, Mean()).add(value)

    def bits_and_codes(self, pixels: int) -> dict[str, Any]:
        """How many bits a pixel of a picture of so many costs, and which codes were used; None where there are none."""
        if (codes := self.codes) is None:
            return {"bits_per_pixel": self.bits.mean / pixels if self.bits.count else None, "used_bits_per_pixel": None, "codes": None}
        per_picture = codes.places / self.means["made"]["psnr"].count
        return {
            "bits_per_pixel": (self.bits.mean if self.bits.count else per_picture * math.log2(codes.size)) / pixels,
            "used_bits_per_pixel": per_picture * codes.entropy / pixels,
            "codes": Codes(codes.size, codes.used, codes.reachable, codes.entropy, codes.perplexity),
        }


def frechet_of(sets: Mapping[str, FeatureStatistics]) -> tuple[float, float | None]:
    """The Frechet distances of reconstructions and of the baseline to the pictures, in the features of a perceptual network."""
    made = frechet_distance(sets["made"], sets["real"])
    return made, frechet_distance(sets["baseline"], sets["real"]) if "baseline" in sets else None


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
