"""What the numbers of a checkup mean: bounds, a verdict and a sentence for each link of a chain. Where the bounds come from:

- Whitened channels: a mean of 0.1 or a deviation of 0.9 to 1.1 moves the signal-to-noise ratio of every level by a fifth, which a
  network trained on them does not notice, and is what chance makes of a few hundred latents (a standard error of 0.04 where all
  values of a latent move together). A factor of two shifts each level to another one's place: that is broken.
- Denoising: of latents with deviation 1 the best linear guess is x / (1 + sigma^2), its squared error sigma^2 / (1 + sigma^2)
  (Wiener). Every network can do that, so a ratio of errors above 1 is less than nothing learned; a tenth is left to chance and
  rounding. At the lowest level a ratio near 1 is usual, since a posterior's own noise cannot be guessed, and near pure noise too.
- Labels: what the network errs less with a latent's own label than with another is averaged by class, since labels that mean nothing
  move all latents of a class alike; three standard errors over five classes or more are rarely chance. One label of the few
  that are looked at may have been corrected in the data since, one in ten is another order.
- Averages of a run's weights lie near the way from the initial ones to the raw ones, and nearer to one of its ends than these are to each other.
- Samples: latents have deviation 1, so samples should; those of a few seeds differ from it by a fifth at most. Where pairs of
  values go together in the data and in samples hardly do, samples are noise; by all pairs, since neighbours alone hardly correlate in
  small latents, such as 7x7 of a digit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ldmctl.config.documents import write_json

MEAN = (0.1, 0.5)  # of a whitened channel, its absolute value: weak beyond the first, broken beyond the second
DEVIATION = (1.1, 2.0)  # of a whitened channel, or 1 / deviation
KNOWS, WORSE = 0.9, 1.1  # times the linear guess's error: below it knows more, above less
SURE = 3.0  # standard errors
FEW = 5  # classes, below which three of these errors are met by chance once in 50 times or more
WRONG = (0.02, 0.1)  # share of labels that are not those of their pictures
STILL, MOVED = 1e-4, 1e-2  # relative change of weights that have not moved, and that have
APART = 0.9  # of the way from initial to raw weights, which averaged ones are from both
SPREAD = (1.25, 2.0)  # deviation of samples, or 1 / deviation
FAR, OUTSIDE = 4.0, 0.01  # deviations, and the share of values that may lie beyond
ALIKE = 0.2  # what the others of a latent tell of a value in the data, from which noise can be told by it
NOISE = (0.5, 0.25)  # of that, in samples

Verdict = Literal["good", "weak", "broken", "unknown"]
CAUSES = ("reconstruct", "whiten", "average", "denoise", "labels", "sample")  # what breaks one of them breaks those after it


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


def judge_labels(gains: Tensor, wrong: float | None, trained: str) -> tuple[Verdict, str, str]:
    """(verdict, what it means, what to change) of how much less the error is with a latent's own label than with another, by class [K].

    `wrong` is the share of labels that are not those of their pictures, None where that is not known.
    """
    gain, error = float(gains.mean()), float(gains.std() / math.sqrt(len(gains)))
    longer = "more loop.steps, or another loop.lr"
    if wrong is not None and wrong > WRONG[0]:
        again = "encode-dataset again, which rewrites labels without encoding, then fit-diffusion"
        said = f"{wrong:.0%} of the cached labels are not those of their pictures; {again}"
        return "broken" if wrong > WRONG[1] else "weak", said, again
    if not math.isfinite(gain):
        way = "take an earlier snapshot (--run FOLDER@best), then a smaller loop.lr"
        return "broken", f"the network says what is not finite; {way}", way
    if len(gains) < FEW:
        return "unknown", f"{len(gains)} classes are too few to tell from chance whether the network listens to them", ""
    if gain < -SURE * error:
        way = "look at the labels of the data, then encode-dataset and fit-diffusion again"
        return (
            "broken",
            f"with labels of other classes it errs less than with their own ({-gain:.1%}): it has learned other labels; {way}",
            way,
        )
    said = "" if wrong is None else "cached labels are those of their pictures; "
    if gain > SURE * error:
        return "good", f"{said}with them the network errs by {gain:.1%} less than with labels of other classes: it listens", ""
    deaf = f"{said}the network errs as much with labels of other classes ({gain:+.1%}): it does not listen to them {trained}"
    return "weak", f"{deaf}; {longer}", longer


def strayed(held: Mapping[str, Tensor], initial: Mapping[str, Tensor], raw: Mapping[str, Tensor]) -> str:
    """What shows that weights are no average of those between the initial and the raw ones; '' when nothing does."""
    names = [name for name, value in initial.items() if value.is_floating_point()]
    ends = [distance(held, other, size=initial) or 0 for other in (initial, raw)]
    way = distance(raw, initial) or 0
    if min(ends) > APART * way:
        return f"The averaged weights are {min(ends):.2g} times their initial size from the initial and from the raw ones, which are {way:.2g} apart"
    still = [name for name in names if torch.equal(held[name].cpu(), initial[name].cpu())]
    still = [name for name in still if (distance({name: raw[name]}, {name: initial[name]}) or 0) > MOVED]
    if still:
        return f"{len(still)} of {len(names)} averaged weights are still the initial ones where the raw ones have moved, {still[0]} first"
    return ""


def distance(held: Mapping[str, Tensor], others: Mapping[str, Tensor] | None, *, size: Mapping[str, Tensor] | None = None) -> float | None:
    """How far weights are from others, relative to the `size` of those or of yet others; None without others of the same shapes."""
    if others is None or {name: value.shape for name, value in held.items()} != {name: value.shape for name, value in others.items()}:
        return None
    apart = sum(
        float((held[name].to("cpu", torch.float64) - value.to("cpu", torch.float64)).square().sum()) for name, value in others.items()
    )
    whole = sum(float(value.to("cpu", torch.float64).square().sum()) for value in (size or others).values())
    return math.sqrt(apart / max(whole, 1e-24))


def judge_samples(latent: Tensor, real: Tensor | None) -> tuple[Verdict, str, str, dict[str, Any]]:
    """(verdict, what it means, what to change, numbers) of sampled latents [N,c,h,w], beside those of the data where there are any."""
    finite = bool(latent.isfinite().all())
    deviation = float(latent.to("cpu", torch.float64).square().mean().sqrt())
    outside = share_outside(latent)
    facts: dict[str, Any] = {"finite": finite, "deviation": deviation, "outside": outside, "outside_in_data": None, "likeness": None}
    if real is not None:
        facts |= {"outside_in_data": share_outside(real), "likeness": likeness(latent, real)}
    longer = "more loop.steps, or another loop.lr"
    if not finite:
        way = "a smaller loop.lr, or --precision fp32"
        return "broken", f"are not finite: the sampler diverges; {way}", way, facts
    said = f"have a standard deviation of {deviation:.2f} where latents have 1, and {outside:.2%} of their values lie beyond {FAR:g}"
    if max(deviation, 1 / max(deviation, 1e-12)) > SPREAD[0]:
        level: Verdict = "broken" if max(deviation, 1 / max(deviation, 1e-12)) > SPREAD[1] else "weak"
        wide = "they diverge, and guidance above 1 makes it worse" if deviation > 1 else "they are washed out"
        return level, f"{said}: {wide}; {longer}", longer, facts
    alike = facts["likeness"]
    if alike is not None and alike < NOISE[0]:
        lost = f"but their values go together {max(alike, 0):.0%} as much as those of the data"
        return "weak" if alike >= NOISE[1] else "broken", f"{said}, {lost}: they are mostly noise; {longer}", longer, facts
    if outside > max(OUTSIDE, 4 * (facts["outside_in_data"] or 0)):
        return "weak", f"{said}: outliers that the data does not have; {longer}", longer, facts
    return "good", f"{said}: as wide as they should be", "", facts


def share_outside(latent: Tensor) -> float:
    """Share of values more than `FAR` deviations of 1 from 0."""
    return float((latent.abs() > FAR).float().mean())


def likeness(latent: Tensor, real: Tensor) -> float | None:
    """How much values of samples [N,c,h,w] go together as those of the data [M,c,h,w] do: 0 in noise, 1 in other data of the kind.

    Half of the data against the other half is what 1 means; None where that shows nothing, as in white latents or very few.
    """
    halves = real[::2], real[1::2]
    among = together(*halves)
    if not among > max(ALIKE, 6 / math.sqrt(max(len(halves[0]) * len(halves[1]), 1))):
        return None
    return together(latent, real) / among


def together(one: Tensor, other: Tensor) -> float:
    """For a value of [N,c,h,w] and [M,c,h,w], the sum over all others of its mean product with each in the one times that in the other.

    By Gram matrices, so that no matrix of all pairs of values is made; chance alone gives 0, give or take 1.4 / sqrt(N M).
    """
    rows, columns = (each.to("cpu", torch.float64).flatten(1) for each in (one, other))
    if not len(rows) or not len(columns):
        return 0.0
    every = (rows @ columns.T).square().mean()
    own = (rows.square().mean(0) * columns.square().mean(0)).sum()
    return float(every - own) / rows.shape[1]


def shorter_average(steps: int) -> float:
    """The decay that averages over the last tenth of so many steps."""
    return max(0.0, round(1 - 10 / max(steps, 1), 6))
