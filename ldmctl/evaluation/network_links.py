"""The links of a checkup that concern the denoiser: one step, labels, samples, averaged weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ldmctl import registry
from ldmctl.config.resolve import resolve
from ldmctl.config.schemas.sample import Sample
from ldmctl.diffusion.asking import Ask
from ldmctl.diffusion.labels import learned_classes
from ldmctl.diffusion.network import Network
from ldmctl.diffusion.sampling import even_threads, rows_of, sample_latents
from ldmctl.errors import LdmctlError, MismatchError
from ldmctl.evaluation.diagnosis import (
    STILL,
    Link,
    Verdict,
    distance,
    judge_labels,
    judge_ratios,
    judge_samples,
    shorter_average,
    strayed,
)
from ldmctl.evaluation.lineage import (
    DECODED,
    SHOWN,
    Items,
    Lineage,
    Row,
    error_ratio,
    estimated,
    initial_weights,
    noise_levels,
    noise_of,
    originals,
    raw_network,
)

DENOISED = 64  # latents that noise is added to
RAW = (0.8, 0.5)  # times the average's error that raw weights make


def denoise(lineage: Lineage) -> tuple[Link, list[Row]]:
    """Whether one step knows more of the clean latent than a linear guess, at five noise levels."""
    if not lineage.unseen:
        return Link("denoise", "unknown", f"There is no latent to add noise to. {lineage.lacking}"), []
    items = lineage.take(lineage.unseen, DENOISED)
    rows: list[Row] = []
    ratios, sigmas = [], noise_levels(lineage.schedule)
    for sigma in sigmas:
        x = items.latent + sigma * noise_of(items.latent, sigma)
        estimate = estimated(lineage, lineage.network, items, x, sigma)
        ratios.append(error_ratio(estimate, items.latent, sigma))
        rows.append((f"noised, sigma/alpha {sigma:.3g}", lineage.decode(x[:SHOWN] / math.sqrt(1 + sigma**2))))
        rows.append((f"estimate, {ratios[-1]:.2f} of the linear guess's error", lineage.decode(estimate[:SHOWN])))
    verdict, said, change = judge_ratios(ratios, sigmas, lineage.header["prediction"], lineage.trained)
    facts = {"split": items.split, "count": len(items.latent), "levels": sigmas, "ratios": ratios}
    listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    at = ", ".join(f"{sigma:.3g}" for sigma in sigmas)
    text = f"One step errs by {listed} times the best linear guess at sigma/alpha {at}: {said}."
    return Link("denoise", verdict, text, ratios[len(ratios) // 2], change, facts), rows


def labels(lineage: Lineage) -> tuple[Link, list[Row]]:
    """Whether cached labels are those of their pictures, and whether the network errs less with them than with others."""
    if not lineage.unseen:
        return Link("labels", "unknown", f"There is no label to try. {lineage.lacking}"), []
    items = lineage.take(lineage.unseen, DENOISED)
    known = items.labels >= 0
    classes = items.labels[known].unique()
    if len(classes) < 2:
        text = f"{len(items.latent)} {items.split} latents have {len(classes)} classes: there is none to compare with."
        return Link("labels", "unknown", text), []
    wrong = wrong_share(lineage, items)
    items = Items(items.split, items.rows[known], items.latent[known], items.labels[known])
    others = classes[(torch.searchsorted(classes, items.labels) + 1) % len(classes)]
    gains = torch.stack([label_gains(lineage, items, others, sigma) for sigma in noise_levels(lineage.schedule)[2:]]).mean(0)
    means = torch.stack([gains[items.labels == label].mean() for label in classes])
    verdict, said, change = judge_labels(means, wrong, lineage.trained)
    facts = {"split": items.split, "count": len(gains), "classes": len(classes), "wrong": wrong}
    return Link("labels", verdict, f"Of {len(gains)} {items.split} latents, {said}.", float(means.mean()), change, facts), []


def wrong_share(lineage: Lineage, items: Items) -> float | None:
    """The share of cached labels that are not those of their pictures; None where fewer than half of the pictures are found."""
    try:
        found, pictures = originals(lineage, items)
    except LdmctlError:
        return None
    if 2 * len(found) < len(items.latent):
        return None
    return sum(int(items.labels[row]) != label for row, label in zip(found, pictures.label, strict=True)) / len(found)


def label_gains(lineage: Lineage, items: Items, others: Tensor, sigma: float) -> Tensor:
    """How much less one step errs with each latent's own label than with the other [N], relative to the mean error with others, float64."""
    x = items.latent + sigma * noise_of(items.latent, sigma)
    own, other = (
        (estimated(lineage, lineage.network, each, x, sigma) - items.latent).to("cpu", torch.float64).square().flatten(1).mean(1)
        for each in (items, items._replace(labels=others))
    )
    return (other - own) / other.mean()


def sample(lineage: Lineage) -> tuple[Link, list[Row]]:
    """Whether samples by the default sampler are as wide as latents and no noise."""
    settings = resolve(Sample, [{}], source="The defaults of ldmctl sample")
    classes = learned_classes(lineage.header)
    steps = min(settings.steps, getattr(lineage.schedule, "timesteps", settings.steps))
    with even_threads():
        latent = sample_latents(
            lineage.network,
            lineage.schedule,
            registry.build("sampler", settings.sampler),
            lineage.engine,
            prediction=lineage.header["prediction"],
            shape=tuple(lineage.header["latent"]),
            seeds=range(DECODED),
            asks=[Ask(classes[index % len(classes)] if classes else -1) for index in range(DECODED)],
            guidance=settings.guidance,
            steps=steps,
            batch=rows_of(DECODED),
            spacing=settings.spacing,
        )
    rows: list[Row] = [("samples", lineage.decode(latent[:SHOWN]))]
    real = lineage.take(lineage.unseen, DENOISED).latent if lineage.unseen else None
    verdict, said, change, facts = judge_samples(latent, real)
    deviation = facts["deviation"]
    return Link("sample", verdict, f"{DECODED} samples of {steps} {settings.sampler.type} steps {said}.", deviation, change, facts), rows


def average(lineage: Lineage) -> tuple[Link, list[Row]]:
    """Whether the averaged weights, which are what is used, have left their initial values and are no worse than the raw ones."""
    held = lineage.network.state_dict()
    bad = [name for name, value in held.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        way = "take an earlier snapshot (--run FOLDER@best), then a smaller loop.lr"
        return Link("average", "broken", f"{len(bad)} of {len(held)} weights are not finite, {bad[0]} first; {way}.", change=way), []
    steps = int(lineage.header.get("step", 0))
    shorter = f"loop.ema={shorter_average(steps):g} or more loop.steps (loop.ema is {lineage.config.get('loop', {}).get('ema', 'unknown')})"
    initial = initial_weights(lineage)
    moved = distance(held, initial)
    facts: dict[str, Any] = {"moved": moved}
    if moved is not None and moved <= STILL:
        text = f"The averaged weights are still the initial ones after {steps:,} steps, and samples are made of them; {shorter}."
        return Link("average", "broken", text, change=shorter, facts=facts), []
    said = "The averaged weights" + (" are finite" if moved is None else f" have moved by {moved:.2g} times their initial size")
    try:
        raw = raw_network(lineage)
        if moved is not None and initial is not None and (fault := strayed(held, initial, raw.state_dict())):
            another = "take another snapshot (--run FOLDER@best), or train again"
            return Link("average", "broken", f"{fault}: they are no average of this run; {another}.", change=another, facts=facts), []
        ratio, sigma = raw_against_average(lineage, raw)
    except MismatchError as error:
        text = f"{said}; whether raw ones are better cannot be tried. {error}"
        return Link("average", "unknown" if moved is None else "good", text, facts=facts), []
    text = f"{said}; raw ones make {ratio:.2f} times their error at sigma/alpha {sigma:.3g}"
    if not ratio >= RAW[0]:
        level: Verdict = "weak" if ratio >= RAW[1] else "broken"
        return Link("average", level, f"{text}, so the average lags behind; {shorter}.", ratio, shorter, facts), []
    return Link("average", "good", f"{text}: averaging does no harm.", ratio, facts=facts), []


def raw_against_average(lineage: Lineage, raw: Network) -> tuple[float, float]:
    """(raw weights' denoising error relative to the averaged ones', sigma / alpha) at the middle noise level, or a MismatchError."""
    if not lineage.unseen:
        raise MismatchError(lineage.lacking)
    items, sigmas = lineage.take(lineage.unseen, DENOISED), noise_levels(lineage.schedule)
    sigma = sigmas[len(sigmas) // 2]
    x = items.latent + sigma * noise_of(items.latent, sigma)
    own, theirs = (error_ratio(estimated(lineage, network, items, x, sigma), items.latent, sigma) for network in (raw, lineage.network))
    return own / max(theirs, 1e-12), sigma
