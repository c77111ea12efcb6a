"""What an examination means: for each number a sentence on whether it is good enough for diffusion, and which keys to change if not.

No number proves that a latent can be learned by a diffusion model; these are
rules of thumb. Where they come from:

- PSNR and SSIM: published first stages that diffusion models and transformers were trained on, at 256 x 256. Stable Diffusion's
  kl-f8 has 23.4 dB and 0.69, on COCO 2017 (model card of stabilityai/sdxl-vae); the VQGAN of factor 16 with 1,024 codes has 20.2 dB
  and 0.52 on ImageNet, the lowest of those we found (model card of markweber/taming_vqgan); latent-diffusion's own table has kl-f4
  at 27.5, kl-f8 at 24.2, vq-f8 at 22.4 to 23.1, vq-f16 at 20.8. Those are photographs: simple pictures reach such numbers with
  little learned, so the baseline decides with them.
- The baseline needs no data set: an autoencoder that is no closer than its pictures shrunk to h x w has learned nothing that
  averaging does not know. 1 dB is a fifth less squared error; no more is asked because perceptual and adversarial losses spend
  PSNR on texture. Half of its perceptual distance is asked, whatever the distance: none has a scale that holds for all data.
- Rate: the smallest published latent is 32 codes of 12 bits for 256 x 256 pixels, 0.006 bits per pixel (TiTok, arXiv:2406.07550);
  a picture in 8 bits has no more than 8 bits per channel to tell, so what a latent costs above that is not about the picture.
- Codes: nearly all can be in use (97 % of 16,384, LlamaGen, arXiv:2406.06525), 45 % still made a well-known VQGAN (the model
  card above); below a fifth the codebook has collapsed. Shares are of what so many places could reach.
- Channels: active ones as `census` defines them.
- Extremes: at most one value in 400 can lie 20 deviations out (Chebyshev's inequality), and one that does holds the deviation that
  all others are divided by, while noise, where sampling starts, stays within 6. At |z| = 50 a Gaussian posterior is
  50 ** 2 / 2 = 1,250 nats away from the prior: its divergence is not felt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from ldmctl.evaluation.metrics import Mean
from ldmctl.evaluation.reconstruction import Examination

PSNR = (20.2, 23.4)  # dB: below the first likely too low, from the second on likely enough
SSIM = (0.52, 0.69)
GAIN = 1.0  # dB over the baseline
CLOSER = 0.5  # of the baseline's perceptual distance
RATE = 0.005  # bits per pixel
CODES = (0.2, 0.5)  # shares in use
REACH = 20.0  # deviations
LARGEST = 50.0  # |z|, where a divergence to the standard normal is a loss
FEW = 30  # pictures; of fewer, intervals are wide

LONGER = ["more loop.steps"]
WIDER = ["more autoencoder.channels", "more values in autoencoder.levels"]
NARROWER = ["fewer autoencoder.channels", "fewer autoencoder.levels"]
FINER = ["an entry less in autoencoder.widths"]
LOOSER = ["a smaller autoencoder.kl_weight", "a larger autoencoder.kl_target"]
TIGHTER = ["a larger autoencoder.kl_weight", "a smaller autoencoder.kl_target"]
WEIGHTS = {"losses.perceptual_weight": "perceptual", "adversarial.weight": "adversarial"}

Level = Literal["good", "doubtful", "poor", "unknown"]


class Judgement(NamedTuple):
    """A sentence about one number."""

    about: str
    level: Level
    sentence: str


def verdict(found: Examination) -> list[str]:
    """What was measured, a sentence for each number, and one for all of them; the keys that they name are those of fit-ae."""
    judged = judge(found)
    return [where(found), *found.notes, *(each.sentence for each in judged), conclusion(judged)]


def judge(found: Examination) -> list[Judgement]:
    """What can be said of each number that there is."""
    closeness = [judge_psnr(found), judge_ssim(found), judge_gain(found), *(judge_distance(found, name) for name in found.distances)]
    latent = [judge_rate(found), judge_codes(found), judge_channels(found), judge_extremes(found)]
    return [each for each in [*closeness, *latent] if each is not None]


def where(found: Examination) -> str:
    """What was measured."""
    sample = f"the {found.count:,} pictures" if found.count == found.of else f"{found.count:,} of the {found.of:,} pictures"
    words = f"Measured on {sample} of the {found.split} split."
    if found.split == "train":
        words += " The autoencoder was trained on them, so the numbers flatter it."
    if found.count < FEW:
        words += " They are few: mind the intervals."
    return words


def conclusion(judged: Sequence[Judgement]) -> str:
    """The worst of all decides."""
    poor, doubtful = ([each.about for each in judged if each.level == level] for level in ("poor", "doubtful"))
    if poor:
        return f"All in all likely not good enough for diffusion yet: see to {_listed(poor)} first."
    bound = "samples can look no better than its reconstructions"
    if doubtful:
        return f"All in all likely usable for diffusion, with doubts about {_listed(doubtful)}; {bound}."
    return f"All in all likely good enough for diffusion; {bound}."


# -- closeness ---------------------------------------------------------------


def judge_psnr(found: Examination) -> Judgement:
    """Against published first stages."""
    psnr = found.measures["psnr"]
    text = f"PSNR {_interval(psnr, '.2f')} dB"
    if psnr.mean >= PSNR[1] and _behind(found, "psnr"):
        simple = f"as much as Stable Diffusion's first stage has on photographs ({PSNR[1]} dB), but these pictures are simpler"
        return Judgement("PSNR", "doubtful", f"{text}: {simple}; to raise it, {_ways(found, *LONGER, *WIDER)}.")
    if psnr.mean >= PSNR[1]:
        return Judgement("PSNR", "good", f"{text}: likely good enough; Stable Diffusion's first stage has {PSNR[1]} dB on photographs.")
    if psnr.mean >= PSNR[0]:
        way = _ways(found, *LONGER, *WIDER)
        between = f"{PSNR[0]} dB at factor 16, {PSNR[1]} dB Stable Diffusion's at factor 8"
        return Judgement("PSNR", "doubtful", f"{text}: usable, between published first stages ({between}); to raise it, {way}.")
    way = _ways(found, *LONGER, *WIDER, *FINER)
    return Judgement("PSNR", "poor", f"{text}: likely too low, published first stages have {PSNR[0]} dB or more; to raise it, {way}.")


def judge_ssim(found: Examination) -> Judgement | None:
    """Against published first stages."""
    if "ssim" not in found.measures:
        return None
    ssim = found.measures["ssim"]
    text, way = f"SSIM {_interval(ssim, '.3f')}", _ways(found, *LONGER, *WIDER)
    if ssim.mean >= SSIM[0] and _behind(found, "ssim"):
        simple = f"no more than the {found.baseline['ssim'].mean:.3f} of pictures merely shrunk and enlarged again"
        return Judgement("SSIM", "doubtful", f"{text}: {simple}; to raise it, {way}.")
    if ssim.mean >= SSIM[1]:
        return Judgement("SSIM", "good", f"{text}: likely good enough; Stable Diffusion's first stage has {SSIM[1]} on photographs.")
    if ssim.mean >= SSIM[0]:
        return Judgement(
            "SSIM", "doubtful", f"{text}: usable, between published first stages ({SSIM[0]} to {SSIM[1]}); to raise it, {way}."
        )
    return Judgement("SSIM", "poor", f"{text}: likely too low, published first stages have {SSIM[0]} or more; to raise it, {way}.")


def judge_gain(found: Examination) -> Judgement | None:
    """Against the pictures merely shrunk to the latent's size, in PSNR."""
    if "psnr" not in found.gains:
        return None
    gain, about = found.gains["psnr"], "the gain over shrinking"
    small = f"shrunk to {found.latent.shape[1]} x {found.latent.shape[2]} and enlarged again ({found.baseline['psnr'].mean:.2f} dB)"
    text = f"Against the pictures merely {small} it gains {_interval(gain, '+.2f')} dB"
    if gain.mean >= GAIN and not gain.interval()[1] <= 0:
        return Judgement(about, "good", f"{text}: it keeps clearly more than shrinking does.")
    if gain.mean > 0:
        return Judgement(about, "doubtful", f"{text}: hardly more than shrinking keeps; try {_ways(found, *LONGER, *WIDER)}.")
    if any(_ratio(found, name) <= CLOSER for name in found.distances):
        critic = "a smaller adversarial.weight" + (" where there is a discriminator" if found.losses is None else "")
        way = _ways(found, "a smaller losses.perceptual_weight", critic)
        return Judgement(about, "doubtful", f"{text}: sharper by the perceptual distance but less exact; if forms drift, try {way}.")
    way = _ways(found, *LONGER, "a larger loop.lr", *WIDER, *FINER)
    return Judgement(about, "poor", f"{text}: it keeps less than shrinking does, so most is still to be learned; try {way}.")


def judge_distance(found: Examination, name: str) -> Judgement:
    """A perceptual distance against that of the shrunk pictures."""
    title, ratio = "LPIPS" if name == "lpips" else name, _ratio(found, name)
    text = f"{title} {_interval(found.measures[name], '.4f')}"
    if math.isnan(ratio):
        return Judgement(title, "unknown", f"{text}, where 0 is equal: there is nothing here to compare it with.")
    text += f", {ratio:.2f} times that of the shrunk pictures"
    if ratio <= CLOSER:
        return Judgement(title, "good", f"{text}: likely good enough.")
    louder = "more losses.perceptual_weight" if _counts(found, "losses.perceptual_weight") else "perceptual=lpips"
    way = _listed([louder, *LONGER], "or")
    if ratio < 1:
        return Judgement(title, "doubtful", f"{text}, where half would be convincing; try {way}.")
    return Judgement(title, "poor", f"{text}, so it looks no better than they do; try {way}.")


# -- the latent --------------------------------------------------------------


def judge_rate(found: Examination) -> Judgement | None:
    """What a latent costs to send, where the autoencoder says it."""
    rate, most, about = found.bits_per_pixel, 8 * found.image_channels, "the rate"
    if rate is None:
        return None
    text = f"The latent costs {rate:.3g} bits per pixel"
    if found.used_bits_per_pixel is not None:
        text += f", {found.used_bits_per_pixel:.3g} by how often each code is used"
    if rate < RATE:
        way = _ways(found, *LOOSER, "a larger autoencoder.codebook_size", *WIDER)
        return Judgement(about, "poor", f"{text}: next to nothing comes through; try {way}.")
    if not rate <= most:
        way = _ways(found, *TIGHTER, *NARROWER)
        return Judgement(about, "doubtful", f"{text}: more than the picture's {most}, so much of it is not about the picture; try {way}.")
    return Judgement(about, "good", f"{text}, the picture {most}: nothing unusual.")


def judge_codes(found: Examination) -> Judgement | None:
    """Codes in use over the whole split."""
    codes, about = found.codes, "the use of codes"
    if codes is None:
        return None
    share = codes.used / codes.reachable
    text = f"{codes.used:,} of {codes.size:,} codes are in use, as even as {codes.perplexity:,.0f} equally frequent ones"
    if codes.reachable < 0.95 * codes.size:
        text += f" (pictures as few as these could show {codes.reachable:,.0f})"
    if share >= CODES[1]:
        return Judgement(about, "good", f"{text}: most of the codebook works.")
    fewer = ["a smaller autoencoder.codebook_size", "smaller autoencoder.levels"]
    way = _ways(found, "a smaller autoencoder.revive (0 is never)", *fewer, *LONGER)
    if share >= CODES[0]:
        return Judgement(about, "doubtful", f"{text}: the others are wasted, which diffusion can live with; try {way}.")
    return Judgement(about, "poor", f"{text}: the codebook has collapsed; try {way}.")


def judge_channels(found: Examination) -> Judgement | None:
    """Channels that know something of the picture."""
    latent, about = found.latent, "the latent channels"
    if latent.active is None:
        return None
    spread = f"deviations from {min(latent.deviations):.3g} to {max(latent.deviations):.3g}"
    text = f"{latent.active} of {latent.channels} latent channels are active, {spread}"
    if latent.active == latent.channels:
        return Judgement(about, "good", f"{text}: none is idle, and encode-dataset takes the scale away.")
    if latent.active == 0:
        return Judgement(
            about, "poor", f"{text}: they say nothing of the picture; try {_ways(found, *LOOSER, *LONGER, 'a smaller loop.lr')}."
        )
    way = _ways(found, *LOOSER, *NARROWER, *LONGER)
    return Judgement(about, "doubtful", f"{text}: diffusion would learn the others, which are noise or constant, all the same; try {way}.")


def judge_extremes(found: Examination) -> Judgement:
    """The value that is furthest out."""
    latent, about = found.latent, "extreme latents"
    text = f"The largest latent value is {latent.largest:.3g}, the furthest is {latent.reach:.1f} deviations out"
    if not latent.reach <= REACH:
        way = _ways(found, *TIGHTER, "a larger autoencoder.commitment", "a smaller loop.lr")
        return Judgement(about, "doubtful", f"{text}: diffusion is likely to miss such outliers; try {way}.")
    if not latent.largest <= LARGEST and "kl_weight" in found.keys:
        return Judgement(about, "doubtful", f"{text}: the divergence to the normal is hardly felt; try {_ways(found, *TIGHTER)}.")
    return Judgement(about, "good", f"{text}: nothing that diffusion could not reach.")


# -- words -------------------------------------------------------------------


def _ways(found: Examination, *ways: str) -> str:
    """Of phrases around one dotted key each, those whose key would change something."""
    keys = [next(word for word in way.split() if "." in word) for way in ways]
    return _listed([way for way, key in zip(ways, keys, strict=True) if _counts(found, key)] or LONGER, "or")


def _counts(found: Examination, key: str) -> bool:
    """Whether this autoencoder has the key, and was trained by the loss that it weighs."""
    if key.startswith("autoencoder."):
        return key.removeprefix("autoencoder.") in found.keys
    return key not in WEIGHTS or found.losses is None or WEIGHTS[key] in found.losses


def _listed(words: Sequence[str], joint: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {joint} {words[-1]}"


def _interval(mean: Mean, form: str) -> str:
    middle, low, high = mean.interval()
    return f"{middle:{form}}" if math.isnan(low) else f"{middle:{form}} ({low:{form}} to {high:{form}})"


def _behind(found: Examination, name: str) -> bool:
    """Whether shrinking alone keeps as much by this measure."""
    return name in found.gains and found.gains[name].mean <= 0


def _ratio(found: Examination, name: str) -> float:
    """A distance relative to the baseline's; nan where there is none, or none to be relative to."""
    theirs = found.baseline[name].mean if name in found.baseline else 0.0
    return found.measures[name].mean / theirs if theirs > 0 else math.nan
