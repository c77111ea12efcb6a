"""What the scores of an autoencoder mean: for each number a sentence on whether it is good enough for diffusion, and which keys to change if not.

`bounds` has the numbers and their sources.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ldmctl.evaluation.bounds import CLOSER, FEW, GAIN, PSNR, SSIM
from ldmctl.evaluation.judgement import (
    FINER,
    LONGER,
    SHORTCUT,
    WIDER,
    Judgement,
    _behind,
    _counts,
    _interval,
    _listed,
    _ratio,
    _ways,
    _weight,
)
from ldmctl.evaluation.latent_verdict import judge_channels, judge_codes, judge_extremes, judge_rate
from ldmctl.evaluation.scores import Evaluation


def verdict(found: Evaluation) -> list[str]:
    """What was measured, a sentence for each number, and one for all of them; the keys that they name are those of fit-ae."""
    judged = judge(found)
    return [where(found), *found.notes, *(each.sentence for each in judged), *found.causes, conclusion(judged)]


def judge(found: Evaluation) -> list[Judgement]:
    """What can be said of each number that there is; of pictures that do not differ, only that."""
    if found.alike:
        return [Judgement("the pictures", "poor", found.alike)]
    closeness = [judge_psnr(found), judge_ssim(found), judge_gain(found), *(judge_distance(found, name) for name in found.distances)]
    latent = [judge_rate(found), judge_codes(found), judge_channels(found), judge_extremes(found)]
    return [each for each in [*closeness, *latent] if each is not None]


def where(found: Evaluation) -> str:
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


def judge_psnr(found: Evaluation) -> Judgement:
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


def judge_ssim(found: Evaluation) -> Judgement | None:
    """Against published first stages."""
    if "ssim" not in found.measures:
        return None
    ssim = found.measures["ssim"]
    text, way = f"SSIM {_interval(ssim, '.3f')}", _ways(found, *LONGER, *WIDER)
    if ssim.mean >= SSIM[0] and _behind(found, "ssim"):
        simple = f"no more than the {found.baseline['ssim'].mean:.3f} of pictures downsampled and enlarged again"
        return Judgement("SSIM", "doubtful", f"{text}: {simple}; to raise it, {way}.")
    if ssim.mean >= SSIM[1]:
        return Judgement("SSIM", "good", f"{text}: likely good enough; Stable Diffusion's first stage has {SSIM[1]} on photographs.")
    if ssim.mean >= SSIM[0]:
        return Judgement(
            "SSIM", "doubtful", f"{text}: usable, between published first stages ({SSIM[0]} to {SSIM[1]}); to raise it, {way}."
        )
    return Judgement("SSIM", "poor", f"{text}: likely too low, published first stages have {SSIM[0]} or more; to raise it, {way}.")


def judge_gain(found: Evaluation) -> Judgement | None:
    """Against the pictures downsampled to the latent's size, in PSNR."""
    if "psnr" not in found.gains:
        return None
    gain, about = found.gains["psnr"], "the gain over shrinking"
    small = f"downsampled to {found.latent.shape[1]} x {found.latent.shape[2]} and enlarged again ({found.baseline['psnr'].mean:.2f} dB)"
    text = f"Against the pictures {small} it gains {_interval(gain, '+.2f')} dB"
    if gain.mean >= GAIN and not gain.interval()[1] <= 0:
        return Judgement(about, "good", f"{text}: it keeps clearly more than shrinking does.")
    if gain.mean > 0:
        return Judgement(about, "doubtful", f"{text}: hardly more than shrinking keeps; try {_ways(found, *LONGER, *WIDER)}.")
    if any(_ratio(found, name) <= CLOSER for name in found.distances):
        critic = f"a smaller {_weight(found, 'adversarial')}" + (" where there is a discriminator" if found.losses is None else "")
        way = _ways(found, f"a smaller {_weight(found, 'perceptual')}", critic)
        return Judgement(about, "doubtful", f"{text}: sharper by the perceptual distance but less exact; if forms drift, try {way}.")
    way = _ways(found, *LONGER, *SHORTCUT, "a larger loop.lr", *WIDER, *FINER)
    return Judgement(about, "poor", f"{text}: it keeps less than shrinking does, so most is still to be learned; try {way}.")


def judge_distance(found: Evaluation, name: str) -> Judgement:
    """A perceptual distance against that of the downsampled pictures."""
    title, ratio = "LPIPS" if name == "lpips" else name, _ratio(found, name)
    text = f"{title} {_interval(found.measures[name], '.4f')}"
    if math.isnan(ratio):
        return Judgement(title, "unknown", f"{text}, where 0 is equal: there is nothing here to compare it with.")
    text += f", {ratio:.2f} times that of the downsampled pictures"
    if ratio <= CLOSER:
        return Judgement(title, "good", f"{text}: likely good enough.")
    weight = _weight(found, "perceptual")
    louder = f"more {weight}" if _counts(found, weight) else "perceptual=lpips"
    way = _listed([louder, *([] if found.causes else LONGER)], "or")
    if ratio < 1:
        return Judgement(title, "doubtful", f"{text}, where half would be convincing; try {way}.")
    return Judgement(title, "poor", f"{text}, so it looks no better than they do; try {way}.")


# -- the latent --------------------------------------------------------------


# -- words -------------------------------------------------------------------
