"""What a verdict says of the latent: its price, its codes, its channels, its extremes."""

from __future__ import annotations

from ldmctl.evaluation.bounds import CODES, LARGEST, RATE, REACH
from ldmctl.evaluation.judgement import LONGER, LOOSER, NARROWER, TIGHTER, WIDER, Judgement, _ways
from ldmctl.evaluation.scores import Evaluation


def judge_rate(found: Evaluation) -> Judgement | None:
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


def judge_codes(found: Evaluation) -> Judgement | None:
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


def judge_channels(found: Evaluation) -> Judgement | None:
    """Channels that know something of the picture."""
    latent, about = found.latent, "the latent channels"
    if latent.active is None:
        return None
    spread = f"standard deviations from {min(latent.deviations):.3g} to {max(latent.deviations):.3g}"
    text = f"{latent.active} of {latent.channels} latent channels are active, {spread}"
    if latent.active == latent.channels:
        return Judgement(about, "good", f"{text}: none is idle, and encode-dataset takes the scale away.")
    if latent.active == 0:
        return Judgement(
            about, "poor", f"{text}: they say nothing of the picture; try {_ways(found, *LOOSER, *LONGER, 'a smaller loop.lr')}."
        )
    way = _ways(found, *LOOSER, *NARROWER, *LONGER)
    return Judgement(about, "doubtful", f"{text}: diffusion would learn the others, which are noise or constant, all the same; try {way}.")


def judge_extremes(found: Evaluation) -> Judgement:
    """The value that is furthest out."""
    latent, about = found.latent, "extreme latents"
    text = f"The largest latent value is {latent.largest:.3g}, the furthest is {latent.reach:.1f} standard deviations out"
    if not latent.reach <= REACH:
        way = _ways(found, *TIGHTER, "a larger autoencoder.commitment", "a smaller loop.lr")
        return Judgement(about, "doubtful", f"{text}: diffusion is likely to miss such outliers; try {way}.")
    if not latent.largest <= LARGEST and "kl_weight" in found.keys:
        return Judgement(about, "doubtful", f"{text}: the divergence to the normal is hardly felt; try {_ways(found, *TIGHTER)}.")
    return Judgement(about, "good", f"{text}: nothing that diffusion could not reach.")
