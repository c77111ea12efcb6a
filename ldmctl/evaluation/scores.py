"""What was measured of an autoencoder, and its plain values for JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ldmctl.config.documents import write_json
from ldmctl.evaluation.metrics import Mean
from ldmctl.latents.statistics import LatentFacts


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
    """What `evaluate` found. Measures are means over pictures by name: psnr, ssim and the perceptual distances by their titles."""

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
    frechet: dict[str, tuple[float, float | None]] = field(
        default_factory=dict
    )  # by distance with `embed`: of reconstructions, of the baseline
    keys: frozenset[str] = frozenset()  # of the autoencoder's Config: what can be changed about it
    losses: frozenset[str] | None = (
        None  # which of perceptual and adversarial it was trained with, and whether by shares; None where nobody knows
    )
    causes: list[str] = field(default_factory=list)  # sentences on what the curves of its run show
    notes: list[str] = field(default_factory=list)  # sentences on what could not be measured
    alike: str = ""  # what is wrong with the pictures where they do not differ

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None where there is no number: {"split", "count", "psnr": {"mean", "low", "high"}, ...}."""
        out: dict[str, Any] = {"split": self.split, "count": self.count, **_intervals(self.measures)}
        out |= {"bits_per_pixel": self.bits_per_pixel}
        if self.frechet:
            out["frechet"] = {name: {"made": made, "baseline": shrunk} for name, (made, shrunk) in self.frechet.items()}
        if self.codes is not None:
            out |= {"used_bits_per_pixel": self.used_bits_per_pixel}
            out |= {"codes_used": self.codes.used, "code_count": self.codes.size, "codes_perplexity": self.codes.perplexity}
        out["latent"] = asdict(self.latent)
        out["baseline"] = None
        if self.baseline:
            out["baseline"] = {"size": self.latent.shape[1:], **_intervals(self.baseline), "gain": _intervals(self.gains)}
        return dict(json.loads(write_json(out)))


def _intervals(means: Mapping[str, Mean]) -> dict[str, dict[str, float]]:
    return {name: dict(zip(("mean", "low", "high"), mean.interval(), strict=True)) for name, mean in means.items()}
