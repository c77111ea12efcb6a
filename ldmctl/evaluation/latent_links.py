"""The links of a checkup that concern latents: do they decode to their pictures, and are they white?"""

from __future__ import annotations

import math

from ldmctl.errors import LdmctlError
from ldmctl.evaluation.bounds import PSNR
from ldmctl.evaluation.diagnosis import (
    Link,
    judge_channels,
)
from ldmctl.evaluation.lineage import (
    DECODED,
    Lineage,
    Row,
    encoded_by,
    originals,
    statistics_gap,
)
from ldmctl.evaluation.metrics import psnr
from ldmctl.latents.codec import autoencoder_fingerprint
from ldmctl.pictures.loading import on_device

WHITENED = 512  # latents whose mean and deviation are taken
LOST = 0.5  # share of what tells pictures apart that decoding may lose
SAME = 1e-4  # deviations by which equal statistics may differ


def reconstruct(lineage: Lineage) -> tuple[Link, list[Row]]:
    """Whether cached latents decode to their pictures."""
    if not lineage.unseen:
        return Link("reconstruct", "unknown", f"There is no latent to decode. {lineage.lacking}"), []
    items = lineage.take(lineage.unseen, DECODED)
    made = lineage.decode(items.latent)
    rows: list[Row] = [("decoded latents", made)]
    way = f"ldmctl eval-lpips --run {encoded_by(lineage)}"
    longer = "train the autoencoder longer (fit-ae loop.steps), then encode-dataset and fit-diffusion again"
    missing: LdmctlError | None = None
    try:
        found, pictures = originals(lineage, items)
        made, image = made[found], on_device(pictures.image, lineage.engine)
        rows = [("originals", image), ("decoded latents", made)]
    except LdmctlError as error:
        missing = error
    if other := other_autoencoder(lineage):
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


def whiten(lineage: Lineage) -> tuple[Link, list[Row]]:
    """Whether latents have mean 0 and deviation 1 as the run sees them, and are those it was fitted to."""
    if other := other_autoencoder(lineage):
        return other, []
    if lineage.manifest is None or not lineage.splits:
        return Link("whiten", "unknown", f"The autoencoder is the run's own; its latents cannot be measured. {lineage.lacking}"), []
    again = f"ldmctl fit-diffusion --latents {lineage.cache} --out another folder"
    items = lineage.take("train" if "train" in lineage.splits else "val", WHITENED)
    means, deviations, off, broken = judge_channels(items.latent, common=lineage.codec.autoencoder.rescale == "common")
    gap, changed = statistics_gap(lineage), lineage.record.get("cache") not in (None, lineage.manifest.fingerprint)
    worst = max(deviations, key=lambda value: abs(math.log(max(value, 1e-12))))
    facts = {"split": items.split, "count": len(items.latent), "means": means, "deviations": deviations, "channels": off}
    facts |= {"statistics_gap": gap, "cache_changed": changed}
    text = (
        f"{len(items.latent)} whitened {items.split} latents have means from {min(means):.2f} to {max(means):.2f} and standard deviations from "
        f"{min(deviations):.2f} to {max(deviations):.2f}"
    )
    others = " The cache has changed since the run began." if changed else ""
    others += f" The run's statistics are not the cache's: they differ by {gap:.2g} standard deviations." if gap > SAME else ""
    if off:
        channels = f"channel{'s' if len(off) > 1 else ''} {', '.join(map(str, off[:8]))}{', ...' if len(off) > 8 else ''}"
        text += f" where the network wants 0 and 1, by {channels}: noise levels mean something else there.{others}"
        return Link("whiten", "broken" if broken else "weak", text, worst, f"train again on the cache, {again}", facts), []
    if others:
        return Link("whiten", "weak", f"{text}: close enough.{others}", worst, f"fit to the cache as it is now, {again}", facts), []
    return Link("whiten", "good", f"{text}, by the cache's own statistics and autoencoder.", worst, facts=facts), []


def other_autoencoder(lineage: Lineage) -> Link | None:
    """What there is to say where the autoencoder beside the model, or that of the cache, is not the one that the run was fitted with."""
    own = lineage.header["autoencoder"]["fingerprint"]
    if autoencoder_fingerprint(lineage.autoencoder) != own:
        text = f"{lineage.autoencoder} is not the autoencoder that the run was fitted with, so it decodes other latents than the run makes."
        return Link("whiten", "broken", text, change="put the autoencoder.safetensors of its cache beside the model")
    if lineage.manifest is not None and lineage.manifest.autoencoder["fingerprint"] != own:
        text = f"{lineage.cache} was encoded by another autoencoder than the run was fitted with, so nothing here fits together."
        return Link(
            "whiten", "broken", text, change=f"train again on it, ldmctl fit-diffusion --latents {lineage.cache} --out another folder"
        )
    return None
