"""Latents out of noise, a fixed number at a time, so that a picture depends on its seed and not on its neighbours."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ldmctl.attribution import expect_shape
from ldmctl.diffusion.denoise import Denoise, Noise
from ldmctl.diffusion.network import Network, check_condition
from ldmctl.diffusion.process import Prediction
from ldmctl.diffusion.spacing import Spacing, levels, start
from ldmctl.training.engine import Engine


def rows_of(batch: int) -> int:
    """Rows of the forward in which `batch` pictures are made: a power of two, where CPU kernels round every row alike."""
    return 1 << (batch - 1).bit_length()


@contextmanager
def even_threads() -> Iterator[None]:
    """As many threads as a power of two: the pieces into which CPU kernels cut their work are then all of one size.

    The end of an odd piece is rounded by other instructions, so that a picture would depend on its place in the batch.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 << (before.bit_length() - 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
    known: dict[float, tuple[float, float, float]] | None = None,
) -> Tensor:
    """Clean latents [N,c,h,w] of mean 0 and deviation 1, one for each seed; labels are class indices, -1 for none.

    At most `batch` of them; fewer are padded to exactly `batch`. `known` keeps from one batch to the next where levels lie in the schedule.
    """
    filled = [*range(len(seeds)), *[len(seeds) - 1] * (batch - len(seeds))]
    noise = Noise([seeds[row] for row in filled], shape, engine.device)
    condition = null = None
    if network.conditioner is not None:
        condition = network.condition(torch.tensor([labels[row] for row in filled], device=engine.device))
        null = network.conditioner.null(len(filled))  # type: ignore[operator]
        check_condition(condition, network.conditioner, len(filled), "encode")
        check_condition(null, network.conditioner, len(filled), "null")
    denoise = Denoise(network.denoiser, schedule, prediction, condition=condition, null=null, guidance=guidance, known=known)
    _, sigmas = levels(schedule, steps, spacing)
    with engine.autocast():
        latent = sampler(denoise, start(noise.first(), sigmas), sigmas, noise)
    expect_shape(latent, (len(filled), *shape), sampler, "the call")
    return latent[: len(seeds)].float()
