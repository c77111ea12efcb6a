"""Why does only noise come out? The chain of a diffusion run, link by link: a number, a sentence and rows of pictures for each.

reconstruct: cached latents decode to the pictures they were made of. whiten: they have mean 0 and deviation 1 as the run sees them.
denoise: one step from each of five noise levels. labels: they are those of the pictures, and help; where the network listens to any.
sample: all steps, from noise alone. average: the EMA weights, which all of this uses, against the raw ones. A link that fails does
not end the walk. `chain` has what is looked at, `diagnosis` the bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldmctl import registry
from ldmctl.config.resolve import resolve
from ldmctl.config.schemas.sample import Sample
from ldmctl.config.schemas.shared import Compute
from ldmctl.console import Voice
from ldmctl.diffusion.network import Network
from ldmctl.diffusion.sampling import even_threads, rows_of, sample_latents, trained_classes
from ldmctl.errors import LdmctlError, MismatchError
from ldmctl.evaluation.diagnosis import (
    STILL,
    Link,
    Verdict,
    conclusion,
    distance,
    judge_channels,
    judge_labels,
    judge_ratios,
    judge_samples,
    shorter_average,
    strayed,
)
from ldmctl.evaluation.figures import captioned
from ldmctl.evaluation.lineage import (
    Chain,
    Items,
    encoded_by,
    error_ratio,
    estimated,
    initial_weights,
    noise_levels,
    noise_of,
    open_chain,
    originals,
    raw_network,
    statistics_gap,
)
from ldmctl.evaluation.metrics import psnr
from ldmctl.evaluation.verdict import PSNR
from ldmctl.latents.codec import autoencoder_fingerprint
from ldmctl.pictures.loading import on_device
from ldmctl.pictures.png import write_png
from ldmctl.storage import weights
from ldmctl.storage.record import model_file
from ldmctl.storage.run import make_folder
from ldmctl.training import engine as engines

SHOWN = 8  # pictures in a row
DECODED = 16  # latents that are decoded and compared, and samples
DENOISED = 64  # latents that noise is added to
WHITENED = 512  # latents whose mean and deviation are taken
LOST = 0.5  # share of what tells pictures apart that decoding may lose
SAME = 1e-4  # deviations by which equal statistics may differ
RAW = (0.8, 0.5)  # times the average's error that raw weights make

Row = tuple[str, Tensor]  # caption, pictures [n,C,H,W] in [-1, 1]


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
    walk = {"reconstruct": reconstruct, "whiten": whiten, "denoise": denoise, "labels": labels, "sample": sample, "average": average}
    if chain.network.conditioner is None:
        del walk["labels"]
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
        write_png(
            picture, captioned(rows, columns=SHOWN), {"Description": f"Rows: {'; '.join(caption for caption, _ in rows)}. {description}"}
        )
    shown_at = str(picture) if rows else None
    return {"run": run, "links": [link.as_dict() for link in links], "conclusion": conclusion(links), "picture": shown_at}


def reconstruct(chain: Chain) -> tuple[Link, list[Row]]:
    """Whether cached latents decode to their pictures."""
    if not chain.unseen:
        return Link("reconstruct", "unknown", f"There is no latent to decode. {chain.lacking}"), []
    items = chain.take(chain.unseen, DECODED)
    made = chain.decode(items.latent)
    rows: list[Row] = [("decoded latents", made)]
    way = f"ldmctl eval-lpips --run {encoded_by(chain)}"
    longer = "train the autoencoder longer (fit-ae loop.steps), then encode-dataset and fit-diffusion again"
    missing: LdmctlError | None = None
    try:
        found, pictures = originals(chain, items)
        made, image = made[found], on_device(pictures.image, chain.engine)
        rows = [("originals", image), ("decoded latents", made)]
    except LdmctlError as error:
        missing = error
    if other := other_autoencoder(chain):
        return Link("reconstruct", "broken", other.sentence, change=other.change), rows
    if not bool(made.isfinite().all()):
        return Link("reconstruct", "broken", "Decoded latents are not finite: the autoencoder has diverged.", change=longer), rows
    if missing is not None:
        apart = float(made.std(0).mean()) if len(made) > 1 else math.inf
        if apart < 1 / 255:
            return Link("reconstruct", "broken", f"All latents decode to the same picture. {way} says more.", change=longer), rows
        text = (
            f"Latents decode to pictures that differ; whether to the right ones, see the first row, since originals are missing. {missing}"
        )
        return Link("reconstruct", "unknown", text), rows
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


def whiten(chain: Chain) -> tuple[Link, list[Row]]:
    """Whether latents have mean 0 and deviation 1 as the run sees them, and are those it was fitted to."""
    if other := other_autoencoder(chain):
        return other, []
    if chain.manifest is None or not chain.splits:
        return Link("whiten", "unknown", f"The autoencoder is the run's own; its latents cannot be measured. {chain.lacking}"), []
    again = f"ldmctl fit-diffusion --latents {chain.cache} --out another folder"
    items = chain.take("train" if "train" in chain.splits else "val", WHITENED)
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
        rows.append((f"estimate, {ratios[-1]:.2f} of the linear guess's error", chain.decode(estimate[:SHOWN])))
    verdict, said, change = judge_ratios(ratios, sigmas, chain.header["prediction"], chain.trained)
    facts = {"split": items.split, "count": len(items.latent), "levels": sigmas, "ratios": ratios}
    listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    at = ", ".join(f"{sigma:.3g}" for sigma in sigmas)
    text = f"One step errs by {listed} times the best linear guess at sigma/alpha {at}: {said}."
    return Link("denoise", verdict, text, ratios[len(ratios) // 2], change, facts), rows


def labels(chain: Chain) -> tuple[Link, list[Row]]:
    """Whether cached labels are those of their pictures, and whether the network errs less with them than with others."""
    if not chain.unseen:
        return Link("labels", "unknown", f"There is no label to try. {chain.lacking}"), []
    items = chain.take(chain.unseen, DENOISED)
    known = items.labels >= 0
    classes = items.labels[known].unique()
    if len(classes) < 2:
        text = f"{len(items.latent)} {items.split} latents have {len(classes)} classes: there is none to compare with."
        return Link("labels", "unknown", text), []
    wrong = wrong_share(chain, items)
    items = Items(items.split, items.rows[known], items.latent[known], items.labels[known])
    others = classes[(torch.searchsorted(classes, items.labels) + 1) % len(classes)]
    gains = torch.stack([label_gains(chain, items, others, sigma) for sigma in noise_levels(chain.schedule)[2:]]).mean(0)
    means = torch.stack([gains[items.labels == label].mean() for label in classes])
    verdict, said, change = judge_labels(means, wrong, chain.trained)
    facts = {"split": items.split, "count": len(gains), "classes": len(classes), "wrong": wrong}
    return Link("labels", verdict, f"Of {len(gains)} {items.split} latents, {said}.", float(means.mean()), change, facts), []


def wrong_share(chain: Chain, items: Items) -> float | None:
    """The share of cached labels that are not those of their pictures; None where fewer than half of the pictures are found."""
    try:
        found, pictures = originals(chain, items)
    except LdmctlError:
        return None
    if 2 * len(found) < len(items.latent):
        return None
    return sum(int(items.labels[row]) != label for row, label in zip(found, pictures.label, strict=True)) / len(found)


def label_gains(chain: Chain, items: Items, others: Tensor, sigma: float) -> Tensor:
    """How much less one step errs with each latent's own label than with the other [N], relative to the mean error with others, float64."""
    x = items.latent + sigma * noise_of(items.latent, sigma)
    own, other = (
        (estimated(chain, chain.network, each, x, sigma) - items.latent).to("cpu", torch.float64).square().flatten(1).mean(1)
        for each in (items, items._replace(labels=others))
    )
    return (other - own) / other.mean()


def sample(chain: Chain) -> tuple[Link, list[Row]]:
    """Whether samples by the default sampler are as wide as latents and no noise."""
    settings = resolve(Sample, [{}], source="The defaults of ldmctl sample")
    classes = trained_classes(chain.header["label_counts"]) if chain.network.conditioner is not None else []
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
            labels=[classes[index % len(classes)] if classes else -1 for index in range(DECODED)],
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


def average(chain: Chain) -> tuple[Link, list[Row]]:
    """Whether the averaged weights, which are what is used, have left their initial values and are no worse than the raw ones."""
    held = chain.network.state_dict()
    bad = [name for name, value in held.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        way = "take an earlier snapshot (--run FOLDER@best), then a smaller loop.lr"
        return Link("average", "broken", f"{len(bad)} of {len(held)} weights are not finite, {bad[0]} first; {way}.", change=way), []
    steps = int(chain.header.get("step", 0))
    shorter = f"loop.ema={shorter_average(steps):g} or more loop.steps (loop.ema is {chain.config.get('loop', {}).get('ema', 'unknown')})"
    initial = initial_weights(chain)
    moved = distance(held, initial)
    facts: dict[str, Any] = {"moved": moved}
    if moved is not None and moved <= STILL:
        text = f"The averaged weights are still the initial ones after {steps:,} steps, and samples are made of them; {shorter}."
        return Link("average", "broken", text, change=shorter, facts=facts), []
    said = "The averaged weights" + (" are finite" if moved is None else f" have moved by {moved:.2g} times their initial size")
    try:
        raw = raw_network(chain)
        if moved is not None and initial is not None and (fault := strayed(held, initial, raw.state_dict())):
            another = "take another snapshot (--run FOLDER@best), or fit anew"
            return Link("average", "broken", f"{fault}: they are no average of this run; {another}.", change=another, facts=facts), []
        ratio, sigma = raw_against_average(chain, raw)
    except MismatchError as error:
        text = f"{said}; whether raw ones are better cannot be tried. {error}"
        return Link("average", "unknown" if moved is None else "good", text, facts=facts), []
    text = f"{said}; raw ones make {ratio:.2f} times their error at sigma/alpha {sigma:.3g}"
    if not ratio >= RAW[0]:
        level: Verdict = "weak" if ratio >= RAW[1] else "broken"
        return Link("average", level, f"{text}, so the average lags behind; {shorter}.", ratio, shorter, facts), []
    return Link("average", "good", f"{text}: averaging does no harm.", ratio, facts=facts), []


def raw_against_average(chain: Chain, raw: Network) -> tuple[float, float]:
    """(raw weights' denoising error relative to the averaged ones', sigma / alpha) at the middle noise level, or a MismatchError."""
    if not chain.unseen:
        raise MismatchError(chain.lacking)
    items, sigmas = chain.take(chain.unseen, DENOISED), noise_levels(chain.schedule)
    sigma = sigmas[len(sigmas) // 2]
    x = items.latent + sigma * noise_of(items.latent, sigma)
    own, theirs = (error_ratio(estimated(chain, network, items, x, sigma), items.latent, sigma) for network in (raw, chain.network))
    return own / max(theirs, 1e-12), sigma
