"""Latents out of noise, a fixed number at a time, so that a picture depends on its seed and not on its neighbours."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ldmctl.diffusion import Denoise, Noise, Prediction, Spacing, levels, start
from ldmctl.engine import Engine, generator
from ldmctl.network import Network


@torch.no_grad()
def sample_latents(
    network: Network,
    schedule: Any,
    sampler: Any,
    engine: Engine,
    *,
    prediction: Prediction,
    shape: tuple[int, int, int],
    seeds: Sequence[int],
    labels: Sequence[int],
    guidance: float,
    steps: int,
    batch: int,
    spacing: Spacing = "trailing",
) -> Tensor:
    """Clean latents [N,c,h,w] of mean 0 and deviation 1, one for each seed; labels are class indices, -1 for none.

    At most `batch` of them; fewer are padded to exactly `batch`.
    """
    filled = [*range(len(seeds)), *[len(seeds) - 1] * (batch - len(seeds))]
    noise = Noise([seeds[row] for row in filled], shape, engine.device)
    condition = null = None
    if network.conditioner is not None:
        condition = network.condition(torch.tensor([labels[row] for row in filled], device=engine.device))
        null = network.conditioner.null(len(filled))  # type: ignore[operator]
    denoise = Denoise(network.denoiser, schedule, prediction, condition=condition, null=null, guidance=guidance)
    _, sigmas = levels(schedule, steps, spacing)
    with engine.autocast():
        latent = sampler(denoise, start(noise.first(), sigmas), sigmas, noise)
    return latent[: len(seeds)].float()


def labels_as_in_data(seeds: Sequence[int], counts: Sequence[int]) -> list[int]:
    """A class index for each seed, drawn as often as the data has it; -1 for all when nothing is labelled."""
    if not sum(counts):
        return [-1] * len(seeds)
    shares = torch.tensor(counts, dtype=torch.float64)
    return [int(torch.multinomial(shares, 1, generator=generator("cpu", "label", seed))) for seed in seeds]
