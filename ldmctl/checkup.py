"""Why does only noise come out? The chain of a diffusion run, link by link: a number, a sentence and rows of pictures for each.

reconstruct: cached latents decode to the pictures they were made of. whiten: they have mean 0 and deviation 1 as the run sees them.
denoise: one step from each of five noise levels. sample: all steps, from noise alone. average: the EMA weights, which all of this
uses, against the raw ones. A link that fails does not end the walk. Where the bounds come from:

- Whitened channels: a mean of 0.1 or a deviation of 0.9 to 1.1 moves the signal-to-noise ratio of every level by a fifth, which a
  network trained on them does not notice, and is what chance makes of a few hundred latents (a standard error of 0.04 where all
  values of a latent move together). A factor of two shifts each level to another one's place: that is broken.
- Denoising: of latents with deviation 1 the best linear guess is x / (1 + sigma^2), its squared error sigma^2 / (1 + sigma^2)
  (Wiener). Every network can do that, so a ratio of errors above 1 is less than nothing learned; a tenth is left to chance and
  rounding. At the lowest level a ratio near 1 is usual, since a posterior's own noise cannot be guessed, and near pure noise too.
- Samples: latents have deviation 1, so samples should; those of a few seeds differ from it by a fifth at most. Where neighbours in
  the data correlate and in samples hardly, samples are noise.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ldmctl import engine as engines
from ldmctl import manifest as manifests
from ldmctl import registry, states, weights
from ldmctl.codec import Codec, autoencoder_fingerprint, load_autoencoder, statistics_of
from ldmctl.config import resolve
from ldmctl.diffusion import Denoise, levels
from ldmctl.documents import write_json
from ldmctl.engine import Engine, generator, micro_batches
from ldmctl.errors import LdmctlError, MismatchError
from ldmctl.exhibits import enlarged
from ldmctl.feed import on_device, open_pictures
from ldmctl.images import grid, to_tensor, to_uint8, write_png
from ldmctl.latents import Latents, open_latents
from ldmctl.manifest import Manifest
from ldmctl.measures import psnr
from ldmctl.network import Network, build_network, build_schedule, load_network
from ldmctl.presets import pictures_of
from ldmctl.run import config_of, make_folder, model_file
from ldmctl.sampling import even_threads, rows_of, sample_latents
from ldmctl.schemas import Coding, Compute, EncodeDataset, Sample
from ldmctl.sharding import whole
from ldmctl.verdict import PSNR
from ldmctl.voice import Voice

SHOWN = 8  # pictures in a row
DECODED = 16  # latents that are decoded and compared, and samples
DENOISED = 64  # latents that noise is added to
WHITENED = 512  # latents whose mean and deviation are taken
SEARCHED = 1024  # pictures among which those of the first latents are looked for
LOST = 0.5  # share of what tells pictures apart that decoding may lose
MEAN = (0.1, 0.5)  # of a whitened channel, its absolute value: weak beyond the first, broken beyond the second
DEVIATION = (1.1, 2.0)  # of a whitened channel, or 1 / deviation
SAME = 1e-4  # deviations by which equal statistics may differ
LEVELS = (0.1, 25.6)  # sigma / alpha of the first and the last of five: a hundredth of noise, and next to no signal
KNOWS, WORSE = 0.9, 1.1  # times the linear guess's error: below it knows more, above less
SPREAD = (1.25, 2.0)  # deviation of samples, or 1 / deviation
FAR, OUTSIDE = 4.0, 0.01  # deviations, and the share of values that may lie beyond
ALIKE = 0.2  # correlation of neighbours in the data from which noise can be told by it
STILL = 1e-4  # relative change of weights that have not moved
RAW = (0.8, 0.5)  # times the average's error that raw weights make

Verdict = Literal["good", "weak", "broken", "unknown"]
Row = tuple[str, Tensor]  # caption, pictures [n,C,H,W] in [-1, 1]
CAUSES = ("reconstruct", "whiten", "average", "denoise", "sample")  # what breaks one of them breaks those after it


@dataclass(frozen=True)
class Link:
    """What was found of one link; `change` is what to do first if it is broken."""

    name: str
    verdict: Verdict
    sentence: str
    number: float | None = None
    change: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None where there is no number: {"name", "verdict", "sentence", "number", "change", and the facts}."""
        values = asdict(self)
        return dict(json.loads(write_json({**values, **values.pop("facts")})))


class Items(NamedTuple):
    """Whitened latents of one split, the first of it or evenly over it."""

    split: str
    latent: Tensor  # [N,c,h,w]
    labels: Tensor  # [N]


@dataclass(frozen=True)
class Chain:
    """A run of fit-diffusion and what can still be found of what it was fitted to."""

    folder: Path
    header: dict[str, Any]
    network: Network
    schedule: Any
    codec: Codec
    engine: Engine
    autoencoder: Path  # its file
    config: dict[str, Any]
    record: dict[str, Any]
    cache: Path
    manifest: Manifest | None = None
    splits: dict[str, Latents] = field(default_factory=dict)
    lacking: str = ""  # why there is no cache

    @property
    def size(self) -> tuple[int, int]:
        """H, W of a picture."""
        return (int(self.header["image"]["size"]), int(self.header["image"]["size"]))

    @property
    def unseen(self) -> str:
        """The split that tells most: held out, else training; '' without latents."""
        return next((split for split in ("val", "train") if split in self.splits), "")

    @property
    def trained(self) -> str:
        """How long the run was trained, with the keys that say so."""
        lr = self.config.get("loop", {}).get("lr")
        return f"after {self.header.get('step', 0):,} steps" + (f" at loop.lr={lr:g}" if isinstance(lr, int | float) else "")

    def take(self, split: str, count: int, *, evenly: bool = False) -> Items:
        """The first `count` whitened latents of a split, or as many evenly over it; posterior noise is always the same."""
        latents = self.splits[split]
        count = min(count, len(latents))
        rows = torch.linspace(0, len(latents) - 1, count, dtype=torch.float64).round().long() if evenly else torch.arange(count)
        moments = latents.moments(rows).to(self.engine.device)
        drawn = self.codec.draw(moments, generator(self.engine.device, "checkup", "posterior", split))
        return Items(split, self.codec.whiten(drawn), latents.labels[rows])

    def decode(self, latent: Tensor) -> Tensor:
        """Whitened latents [N,c,h,w] -> pictures [N,C,H,W] in [-1, 1]."""
        return torch.cat([self.codec.decode(latent[rows], self.size) for rows in micro_batches(len(latent), SHOWN)])


@torch.no_grad()
def checkup(run: str, *, out: str | Path | None = None, device: Any = "auto", voice: Voice | None = None) -> dict[str, Any]:
    """{"run", "links": [{"name", "verdict", "sentence", "number", ...}], "conclusion", "picture"} of a run folder of fit-diffusion.

    checkup.png is written into `out`, or into checkup/ of the run folder. Fixed seeds: the same run gives the same numbers.
    """
    source = model_file(run, verb="fit-diffusion")
    if weights.read_header(source).get("kind") == "autoencoder":
        raise MismatchError(f"{run} is a run of fit-ae, which has one link alone: `ldmctl eval-lpips --run {run}` examines it.")
    chain = open_chain(source, engines.start(Compute(device=device)))
    folder = Path(out).expanduser() if out else chain.folder / "checkup"
    make_folder(folder)

    walk: dict[str, Callable[[Chain], tuple[Link, list[Row]]]]
    walk = {"reconstruct": reconstruct, "whiten": whiten, "denoise": denoise, "sample": sample, "average": average}
    links, rows = [], []
    with (voice or Voice(quiet=True)).bar("checkup", len(walk), unit="links") as bar:
        for done, (name, look) in enumerate(walk.items(), start=1):
            try:
                link, shown = look(chain)
            except LdmctlError as error:  # the other links are worth knowing all the same
                link, shown = Link(name, "broken", f"This could not be tried: {error}", change=f"see to this: {error}"), []
            links.append(link)
            rows += shown
            bar.advance(done, amount=done)

    picture = folder / "checkup.png"
    description = " ".join(f"{link.name}: {link.verdict}. {link.sentence}" for link in links)
    if rows:
        write_png(picture, sheet(rows), {"Description": f"Rows: {'; '.join(caption for caption, _ in rows)}. {description}"})
    shown_at = str(picture) if rows else None
    return {"run": run, "links": [link.as_dict() for link in links], "conclusion": conclusion(links), "picture": shown_at}


def conclusion(links: Sequence[Link]) -> str:
    """The first broken link, a cause before its effects, and what to change; or that there is none."""
    found = {link.name: link for link in links}
    ordered = [found[name] for name in CAUSES if name in found]
    if broken := [link for link in ordered if link.verdict == "broken"]:
        return f"The first broken link is {broken[0].name}: {broken[0].change}."
    words = ["The chain holds."]
    words += [f"Its weakest link is {link.name}: {link.change}." for link in ordered if link.verdict == "weak"][:1]
    if untried := [link.name for link in ordered if link.verdict == "unknown"]:
        words.append(f"Nothing is known of {' and '.join(untried)}.")
    return " ".join(words)


def open_chain(source: Path, engine: Engine) -> Chain:
    """The run that a model's file belongs to; its cache where that is still there and whole."""
    folder = source.parent.parent if source.parent.name == "snapshots" else source.parent
    network, header, _ = load_network(source, engine)
    config = config_of(folder) if (folder / "config.yaml").exists() else {}
    record = recorded(folder)
    cache = Path(str(config.get("latents") or record.get("parent") or "cache")).expanduser()
    file = next((place for place in (folder, cache) if (place / "autoencoder.safetensors").exists()), folder) / "autoencoder.safetensors"
    codec = Codec(load_autoencoder(file, engine)[0], engine, statistics_of(header), tile=Coding().tile)
    chain = Chain(folder, header, network, build_schedule(header), codec, engine, file, config, record, cache)
    try:
        manifest = manifests.read(cache)
        if manifest.latent != tuple(header["latent"]):
            raise MismatchError(f"{cache} holds latents of {manifest.latent}, the run was fitted to {tuple(header['latent'])}.")
        splits = {split: open_latents(cache, manifest, split) for split in ("train", "val") if manifest.count(split)}
    except MismatchError as error:
        return replace(chain, lacking=str(error))
    return replace(chain, manifest=manifest, splits=splits)


def recorded(folder: Path) -> dict[str, Any]:
    """What run.json says; {} without one that can be read."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


# -- reconstruct -------------------------------------------------------------


def reconstruct(chain: Chain) -> tuple[Link, list[Row]]:
    """Whether cached latents decode to their pictures."""
    if not chain.unseen:
        return Link("reconstruct", "unknown", f"There is no latent to decode. {chain.lacking}"), []
    items = chain.take(chain.unseen, DECODED)
    made = chain.decode(items.latent)
    rows: list[Row] = [("decoded latents", made)]
    way = f"ldmctl eval-lpips --run {encoded_by(chain)}"
    longer = "train the autoencoder longer (fit-ae loop.steps), then encode-dataset and fit-diffusion again"
    if other := other_autoencoder(chain):
        return Link("reconstruct", "broken", other.sentence, change=other.change), rows
    if not bool(made.isfinite().all()):
        return Link("reconstruct", "broken", "Decoded latents are not finite: the autoencoder has diverged.", change=longer), rows
    try:
        found, image = originals(chain, items)
    except LdmctlError as error:
        apart = float(made.std(0).mean()) if len(made) > 1 else math.inf
        if apart < 1 / 255:
            return Link("reconstruct", "broken", f"All latents decode to the same picture. {way} says more.", change=longer), rows
        text = f"Latents decode to pictures that differ; whether to the right ones, see the first row, since originals are missing. {error}"
        return Link("reconstruct", "unknown", text), rows
    made = made[found]
    rows = [("originals", image), ("decoded latents", made)]
    value = float(psnr(made, image).mean())
    scatter = float((image - image.mean(0)).square().sum() / max(len(image) - 1, 1) / image[0].numel())
    lost = float((made - image).square().mean()) / max(scatter, 1e-12)
    facts = {"split": items.split, "count": len(image), "lost": lost}
    text = f"{len(image)} decoded {items.split} latents have {value:.1f} dB PSNR against their pictures"
    if len(image) > 1 and lost >= LOST:
        text += f" and miss {min(lost, 1):.0%} of what tells those apart: no denoiser can make up for it; {longer}."
        return Link("reconstruct", "broken", text, value, longer, facts), rows
    if value < PSNR[0]:
        text += f": usable, but published first stages have {PSNR[0]} dB or more, and samples can look no better; {way} names the keys."
        return Link("reconstruct", "weak", text, value, way, facts), rows
    return Link("reconstruct", "good", f"{text}: autoencoder and cache are sound.", value, facts=facts), rows


def originals(chain: Chain, items: Items) -> tuple[list[int], Tensor]:
    """(which of the first latents of a split have their picture still, those pictures [n,C,H,W]); a DataError or another if none has."""
    layer = pictures_of(chain.cache)
    pictures = open_pictures(resolve(EncodeDataset, [layer], source=f"{chain.cache / 'config.yaml'}"), items.split)
    stamps = [item["stamp"] for item in islice(chain.splits[items.split].items(), len(items.latent))]
    places = {pictures.stamp(index): index for index in range(min(len(pictures), SEARCHED))}
    found = [row for row, stamp in enumerate(stamps) if stamp in places]
    if not found:
        raise MismatchError(f"The {items.split} pictures of {layer.get('data') or 'the data set'} are not those of {chain.cache} any more.")
    return found, on_device(pictures.batch([(places[stamps[row]], None) for row in found]).image, chain.engine)


def encoded_by(chain: Chain) -> str:
    """The run of fit-ae that the cache was made by."""
    return str((config_of(chain.cache) if (chain.cache / "config.yaml").exists() else {}).get("run") or "runs/ae")


# -- whiten ------------------------------------------------------------------


def whiten(chain: Chain) -> tuple[Link, list[Row]]:
    """Whether latents have mean 0 and deviation 1 as the run sees them, and are those it was fitted to."""
    if other := other_autoencoder(chain):
        return other, []
    if chain.manifest is None or not chain.splits:
        return Link("whiten", "unknown", f"The autoencoder is the run's own; its latents cannot be measured. {chain.lacking}"), []
    again = f"ldmctl fit-diffusion --latents {chain.cache} --out another folder"
    items = chain.take("train" if "train" in chain.splits else "val", WHITENED, evenly=True)
    means, deviations, off, broken = judge_channels(items.latent, common=chain.codec.autoencoder.rescale == "common")
    gap, changed = statistics_gap(chain), chain.record.get("cache") not in (None, chain.manifest.fingerprint)
    worst = max(deviations, key=lambda value: abs(math.log(max(value, 1e-12))))
    facts = {"split": items.split, "count": len(items.latent), "means": means, "deviations": deviations, "channels": off}
    facts |= {"statistics_gap": gap, "cache_changed": changed}
    text = (
        f"{len(items.latent)} whitened {items.split} latents have means from {min(means):.2f} to {max(means):.2f} and deviations from "
        f"{min(deviations):.2f} to {max(deviations):.2f}"
    )
    others = " The cache has changed since the run began." if changed else ""
    others += f" The run's statistics are not the cache's: they differ by {gap:.2g} deviations." if gap > SAME else ""
    if off:
        channels = f"channel{'s' if len(off) > 1 else ''} {', '.join(map(str, off[:8]))}{', ...' if len(off) > 8 else ''}"
        text += f" where the network wants 0 and 1, by {channels}: noise levels mean something else there.{others}"
        return Link("whiten", "broken" if broken else "weak", text, worst, f"fit to the cache anew, {again}", facts), []
    if others:
        return Link("whiten", "weak", f"{text}: close enough.{others}", worst, f"fit to the cache as it is now, {again}", facts), []
    return Link("whiten", "good", f"{text}, by the cache's own statistics and autoencoder.", worst, facts=facts), []


def other_autoencoder(chain: Chain) -> Link | None:
    """What there is to say where the autoencoder beside the model, or that of the cache, is not the one that the run was fitted with."""
    own = chain.header["autoencoder"]["fingerprint"]
    if autoencoder_fingerprint(chain.autoencoder) != own:
        text = f"{chain.autoencoder} is not the autoencoder that the run was fitted with, so it decodes other latents than the run makes."
        return Link("whiten", "broken", text, change="put the autoencoder.safetensors of its cache beside the model")
    if chain.manifest is not None and chain.manifest.autoencoder["fingerprint"] != own:
        text = f"{chain.cache} was encoded by another autoencoder than the run was fitted with, so nothing here fits together."
        return Link("whiten", "broken", text, change=f"fit to it anew, ldmctl fit-diffusion --latents {chain.cache} --out another folder")
    return None


def judge_channels(latent: Tensor, *, common: bool) -> tuple[list[float], list[float], list[int], bool]:
    """(means, deviations, channels that are off, whether one is far off) of whitened latents [N,c,h,w], in float64.

    Where all channels were divided by one `common` number, it is their joint deviation that counts.
    """
    values = latent.to("cpu", torch.float64).transpose(0, 1).flatten(1)
    mean, variance = values.mean(1), values.var(1, correction=0)
    counts = (variance.mean().expand_as(variance) if common else variance).sqrt()
    factor = torch.maximum(counts, 1 / counts.clamp_min(1e-12))
    off, far = (~((mean.abs() <= MEAN[level]) & (factor <= DEVIATION[level])) for level in (0, 1))  # nan is off
    return mean.tolist(), counts.tolist(), off.nonzero().flatten().tolist(), bool(far.any())


def statistics_gap(chain: Chain) -> float:
    """How far the run's statistics are from the cache's: the largest difference in the cache's deviations."""
    assert chain.manifest is not None
    own, theirs = statistics_of(chain.header), chain.manifest.statistics
    if len(own.mean) != len(theirs.mean):
        return math.inf
    rows = zip(own.mean, own.deviation, theirs.mean, theirs.deviation, strict=True)
    return max(max(abs(mean - m), abs(deviation - d)) / d for mean, deviation, m, d in rows)


# -- denoise -----------------------------------------------------------------


def denoise(chain: Chain) -> tuple[Link, list[Row]]:
    """Whether one step knows more of the clean latent than a linear guess, at five noise levels."""
    if not chain.unseen:
        return Link("denoise", "unknown", f"There is no latent to add noise to. {chain.lacking}"), []
    items = chain.take(chain.unseen, DENOISED)
    rows: list[Row] = []
    ratios, sigmas = [], noise_levels(chain.schedule)
    for sigma in sigmas:
        x = items.latent + sigma * noise_of(items.latent, sigma)
        estimate = estimated(chain, chain.network, items, x, sigma)
        ratios.append(error_ratio(estimate, items.latent, sigma))
        rows.append((f"noised, sigma/alpha {sigma:.3g}", chain.decode(x[:SHOWN] / math.sqrt(1 + sigma**2))))
        rows.append((f"estimate, {ratios[-1]:.2f} x linear", chain.decode(estimate[:SHOWN])))
    verdict, said, change = judge_ratios(ratios, sigmas, chain.header["prediction"], chain.trained)
    facts = {"split": items.split, "count": len(items.latent), "levels": sigmas, "ratios": ratios}
    listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    at = ", ".join(f"{sigma:.3g}" for sigma in sigmas)
    text = f"One step errs by {listed} times the best linear guess at sigma/alpha {at}: {said}."
    return Link("denoise", verdict, text, ratios[len(ratios) // 2], change, facts), rows


def judge_ratios(ratios: Sequence[float], sigmas: Sequence[float], prediction: str, trained: str) -> tuple[Verdict, str, str]:
    """(verdict, what it means, what to change) of five error ratios from little noise to nearly nothing else."""
    longer = "more loop.steps, or another loop.lr"
    if not all(map(math.isfinite, ratios)):
        way = "take an earlier snapshot (--run FOLDER@best), then a smaller loop.lr or machine.precision=fp32"
        return "broken", f"the network says what is not finite; {way}", way
    if min(ratios) >= KNOWS:
        return "broken", f"it has learned nothing {trained}; train longer ({longer}) and look whether loss falls in metrics.jsonl", longer
    detail, structure = ratios[:2], ratios[2:]
    if min(structure[:2]) >= KNOWS or max(structure) > WORSE:
        lost = min(structure[:2]) >= 1
        where = sigmas[2 + max(range(len(structure)), key=structure.__getitem__)]
        steadier = "" if prediction != "eps" else ", or prediction=v, since eps says little of what is clean near pure noise"
        said = f"it removes little noise, but structure is missing, most at {where:.3g}; {longer}{steadier}"
        return "broken" if lost else "weak", said, f"{longer}{steadier}"
    if max(detail) > WORSE:
        finer = "" if prediction != "x0" else ", or prediction=v, since x0 has to repeat all that is clean already"
        return "weak", f"it finds structure, but detail is missing at little noise; {longer}{finer}", f"{longer}{finer}"
    return "good", "it knows more than the mean, of structure and of detail", ""


def noise_levels(schedule: Any, count: int = 5) -> list[float]:
    """sigma / alpha of `count` noise levels, evenly in log-SNR, the last near pure noise; within what 50 steps of the schedule visit."""
    _, sigmas = levels(schedule, min(50, getattr(schedule, "timesteps", 50)))
    low, high = max(LEVELS[0], float(sigmas[-2])), min(LEVELS[1], float(sigmas[0]))
    return [low * (high / low) ** (index / (count - 1)) for index in range(count)]


def error_ratio(estimate: Tensor, clean: Tensor, sigma: float) -> float:
    """Mean squared error relative to the best linear guess's from clean + sigma * noise, for clean [B,c,h,w] of deviation 1."""
    return float((estimate - clean).to("cpu", torch.float64).square().mean()) / (sigma**2 / (1 + sigma**2))


def estimated(chain: Chain, network: Network, items: Items, x: Tensor, sigma: float) -> Tensor:
    """The clean latents [N,c,h,w] float32 that a network finds in x = clean + sigma * noise, knowing the labels."""
    found = []
    for rows in micro_batches(len(x), DECODED):
        condition = network.condition(items.labels[rows].to(chain.engine.device))
        clean = Denoise(network.denoiser, chain.schedule, chain.header["prediction"], condition=condition)
        with chain.engine.autocast():
            found.append(clean(x[rows], sigma).float())
    return torch.cat(found)


def noise_of(latent: Tensor, sigma: float) -> Tensor:
    """Standard normal noise in the shape of a latent, always the same for a level."""
    return torch.randn(latent.shape, generator=generator("cpu", "checkup", "noise", sigma)).to(latent.device)


# -- sample ------------------------------------------------------------------


def sample(chain: Chain) -> tuple[Link, list[Row]]:
    """Whether samples by the default sampler are as wide as latents and no noise."""
    settings = resolve(Sample, [{}], source="The defaults of ldmctl sample")
    classes = chain.header["classes"] if chain.network.conditioner is not None else []
    steps = min(settings.steps, getattr(chain.schedule, "timesteps", settings.steps))
    with even_threads():
        latent = sample_latents(
            chain.network,
            chain.schedule,
            registry.build("sampler", settings.sampler),
            chain.engine,
            prediction=chain.header["prediction"],
            shape=tuple(chain.header["latent"]),
            seeds=range(DECODED),
            labels=[index % len(classes) if classes else -1 for index in range(DECODED)],
            guidance=settings.guidance,
            steps=steps,
            batch=rows_of(DECODED),
            spacing=settings.spacing,
        )
    rows: list[Row] = [("samples", chain.decode(latent[:SHOWN]))]
    real = chain.take(chain.unseen, DENOISED).latent if chain.unseen else None
    verdict, said, change, facts = judge_samples(latent, real)
    deviation = facts["deviation"]
    return Link("sample", verdict, f"{DECODED} samples of {steps} {settings.sampler.type} steps {said}.", deviation, change, facts), rows


def judge_samples(latent: Tensor, real: Tensor | None) -> tuple[Verdict, str, str, dict[str, Any]]:
    """(verdict, what it means, what to change, numbers) of sampled latents [N,c,h,w], beside those of the data where there are any."""
    finite = bool(latent.isfinite().all())
    deviation = float(latent.to("cpu", torch.float64).square().mean().sqrt())
    outside = share_outside(latent)
    facts: dict[str, Any] = {"finite": finite, "deviation": deviation, "outside": outside, "neighbours": neighbour_correlation(latent)}
    facts |= {"outside_in_data": None, "neighbours_in_data": None}
    if real is not None:
        facts |= {"outside_in_data": share_outside(real), "neighbours_in_data": neighbour_correlation(real)}
    longer = "more loop.steps, or another loop.lr"
    if not finite:
        way = "a smaller loop.lr, or --precision fp32"
        return "broken", f"are not finite: the sampler diverges; {way}", way, facts
    said = f"have a deviation of {deviation:.2f} where latents have 1, and {outside:.2%} of their values lie beyond {FAR:g}"
    if max(deviation, 1 / max(deviation, 1e-12)) > SPREAD[0]:
        level: Verdict = "broken" if max(deviation, 1 / max(deviation, 1e-12)) > SPREAD[1] else "weak"
        wide = "they diverge, and guidance above 1 makes it worse" if deviation > 1 else "they are washed out"
        return level, f"{said}: {wide}; {longer}", longer, facts
    here, there = facts["neighbours"], facts["neighbours_in_data"]
    if there is not None and there > ALIKE and here < there / 2:
        alike = f"neighbouring values correlate by {here:.2f}, in the data by {there:.2f}"
        return "broken" if here < there / 4 else "weak", f"{said}, but {alike}: they are mostly noise; {longer}", longer, facts
    if outside > max(OUTSIDE, 4 * (facts["outside_in_data"] or 0)):
        return "weak", f"{said}: outliers that the data does not have; {longer}", longer, facts
    return "good", f"{said}: as wide as they should be", "", facts


def share_outside(latent: Tensor) -> float:
    """Share of values more than `FAR` deviations of 1 from 0."""
    return float((latent.abs() > FAR).float().mean())


def neighbour_correlation(latent: Tensor) -> float | None:
    """How much values of [N,c,h,w] correlate with those beside and below them, over all channels; None without any neighbours."""
    if min(latent.shape[-2:]) < 2:
        return None
    centred = (latent - latent.mean((0, 2, 3), keepdim=True)).to("cpu", torch.float64)
    beside = (centred[..., 1:] * centred[..., :-1]).mean()
    below = (centred[..., 1:, :] * centred[..., :-1, :]).mean()
    return float((beside + below) / 2 / centred.square().mean().clamp_min(1e-12))


# -- average -----------------------------------------------------------------


def average(chain: Chain) -> tuple[Link, list[Row]]:
    """Whether the averaged weights, which are what is used, have left their initial values and are no worse than the raw ones."""
    held = chain.network.state_dict()
    bad = [name for name, value in held.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        way = "take an earlier snapshot (--run FOLDER@best), then a smaller loop.lr"
        return Link("average", "broken", f"{len(bad)} of {len(held)} weights are not finite, {bad[0]} first; {way}.", change=way), []
    steps = int(chain.header.get("step", 0))
    shorter = f"loop.ema={shorter_average(steps):g} or more loop.steps (loop.ema is {chain.config.get('loop', {}).get('ema', 'unknown')})"
    moved = distance(held, initial_weights(chain))
    facts: dict[str, Any] = {"moved": moved}
    if moved is not None and moved <= STILL:
        text = f"The averaged weights are still the initial ones after {steps:,} steps, and samples are made of them; {shorter}."
        return Link("average", "broken", text, change=shorter, facts=facts), []
    said = "The averaged weights" + (" are finite" if moved is None else f" have moved by {moved:.2g} times their initial size")
    try:
        ratio, sigma = raw_against_average(chain)
    except MismatchError as error:
        text = f"{said}; whether raw ones are better cannot be tried. {error}"
        return Link("average", "unknown" if moved is None else "good", text, facts=facts), []
    text = f"{said}; raw ones make {ratio:.2f} times their error at sigma/alpha {sigma:.3g}"
    if not ratio >= RAW[0]:
        level: Verdict = "weak" if ratio >= RAW[1] else "broken"
        return Link("average", level, f"{text}, so the average lags behind; {shorter}.", ratio, shorter, facts), []
    return Link("average", "good", f"{text}: averaging does no harm.", ratio, facts=facts), []


def raw_against_average(chain: Chain) -> tuple[float, float]:
    """(raw weights' denoising error relative to the averaged ones', sigma / alpha) at the middle noise level, or a MismatchError."""
    raw = raw_network(chain)
    if not chain.unseen:
        raise MismatchError(chain.lacking)
    items, sigmas = chain.take(chain.unseen, DENOISED), noise_levels(chain.schedule)
    sigma = sigmas[len(sigmas) // 2]
    x = items.latent + sigma * noise_of(items.latent, sigma)
    own, theirs = (error_ratio(estimated(chain, network, items, x, sigma), items.latent, sigma) for network in (raw, chain.network))
    return own / max(theirs, 1e-12), sigma


def shorter_average(steps: int) -> float:
    """The decay that averages over the last tenth of so many steps."""
    return max(0.0, round(1 - 10 / max(steps, 1), 6))


def initial_weights(chain: Chain) -> dict[str, Tensor] | None:
    """What the network was before its first step, built again from the run's seed; None when that is not known."""
    seed = chain.config.get("loop", {}).get("seed")
    if seed is None:
        return None
    with torch.random.fork_rng(devices=[]):
        engines.reseed("weights", seed, "denoiser")
        return build_network(chain.header).state_dict()


def distance(held: dict[str, Tensor], others: dict[str, Tensor] | None) -> float | None:
    """How far weights are from others, relative to the size of those; None without others of the same shapes."""
    if others is None or {name: value.shape for name, value in held.items()} != {name: value.shape for name, value in others.items()}:
        return None
    apart = sum(float((held[name].to("cpu", torch.float64) - value.double()).square().sum()) for name, value in others.items())
    size = sum(float(value.double().square().sum()) for value in others.values())
    return math.sqrt(apart / max(size, 1e-24))


def raw_network(chain: Chain) -> Network:
    """The network with the weights that the optimizer holds; a MismatchError where the state has none, or of another step."""
    file, prefix = chain.folder / "state.safetensors", "diffusion.weights."
    if not file.exists():
        raise MismatchError(f"There is no {file}.")
    step = weights.read_header(file).get("scalars", {}).get("step")
    if step != chain.header.get("step"):
        raise MismatchError(f"{file} is of step {step}, this model of step {chain.header.get('step')}.")
    saved, _ = states.load(chain.folder, chain.engine) or ({}, {})
    tensors = {name.removeprefix(prefix): whole(value) for name, value in saved.items() if name.startswith(prefix)}
    network = build_network(chain.header)
    weights.load_into(network, tensors, file)
    return network.to(chain.engine.device).eval().requires_grad_(False)


# -- the picture -------------------------------------------------------------


def sheet(rows: Sequence[Row]) -> Tensor:
    """uint8 [C,H',W'] of rows of at most `SHOWN` pictures, each after a tile with its caption."""
    tiles = []
    for caption, image in rows:
        shown = enlarged(to_uint8(image[:SHOWN].nan_to_num(0.0)).cpu())
        blank = torch.full((SHOWN - len(shown), *shown.shape[1:]), 255, dtype=torch.uint8)
        tiles += [written(caption, shown.shape[1:])[None], shown, blank]
    return grid(torch.cat(tiles), columns=SHOWN + 1)


def written(text: str, shape: Sequence[int]) -> Tensor:
    """uint8 [C,H,W] of this shape: black text on white, wrapped to its width."""
    channels, height, width = shape
    image = Image.new({1: "L", 3: "RGB", 4: "RGBA"}[channels], (width, height), "white")
    lines = "\n".join(textwrap.wrap(text, max((width - 8) // 6, 4)))
    ImageDraw.Draw(image).multiline_text((4, 4), lines, fill="black")
    return to_tensor(image)
