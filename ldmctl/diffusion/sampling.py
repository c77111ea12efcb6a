"""Latents out of noise, a fixed number at a time, so that a picture depends on its seed and not on its neighbours."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ldmctl.attribution import expect_shape
from ldmctl.config.editing import Guiding
from ldmctl.config.levels import Spacing
from ldmctl.diffusion.asking import Ask, known_of
from ldmctl.diffusion.conditions import check_condition
from ldmctl.diffusion.denoise import Denoise, Noise
from ldmctl.diffusion.editing import FROM_NOISE, Corrected, Edit, Watched, levels_below
from ldmctl.diffusion.guidance import Guidance, tries_steps
from ldmctl.diffusion.network import Network
from ldmctl.diffusion.process import Prediction
from ldmctl.latents.conditions import Known
from ldmctl.protocols import Condition
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
    asks: Sequence[Ask],
    guidance: float,
    steps: int,
    batch: int,
    spacing: Spacing | str = "beta",
    guiding: Guiding | None = None,
    negative: Ask | None = None,
    pictures: Mapping[str, Known] | None = None,
    weaker: Network | None = None,
    edit: Edit = FROM_NOISE,
    known: dict[float, tuple[float, float, float]] | None = None,
) -> Tensor:
    """Clean latents [N,c,h,w] of mean 0 and deviation 1, one for each seed, as they are asked for.

    At most `batch` of them; fewer are padded to exactly `batch`. Guidance goes away from what is heard of nothing, or of `negative`, or
    from what a network `weaker` says of the same asks. An `edit`, and what is known beside the asks (`pictures`), have `batch` rows.
    `known` keeps from one batch to the next where levels lie in the schedule.
    """
    filled = [*range(len(seeds)), *[len(seeds) - 1] * (batch - len(seeds))]
    noise = Noise([seeds[row] if edit.stream is None else edit.stream for row in filled], shape, engine.device)
    asked, like = [asks[row] for row in filled], torch.empty(len(filled), *shape, device=engine.device)
    condition = condition_of(network, asked, engine, like, pictures)
    null = null_of(network, like) if negative is None else condition_of(network, [negative] * len(asked), engine, like, pictures)
    if edit.latent is not None and edit.strength == 0:
        return edit.latent[: len(seeds)].float()
    sigmas = levels_below(schedule, steps, spacing, edit.strength)
    twice = tries_steps(sampler)  # else what is heard would depend on the neighbours
    still = sigmas[min(guiding.zero_steps, len(sigmas) - 1)].item() if guiding and guiding.zero_steps else float("inf")
    denoise: Callable[[Tensor, Tensor | float], Tensor] = Denoise(
        network.voice(twice=twice),
        schedule,
        prediction,
        condition=condition,
        null=null if weaker is None else condition_of(weaker, asked, engine, like, pictures),
        guidance=Guidance(guidance, guiding, still=still),
        weaker=weaker.voice(twice=twice) if weaker else None,
        known=known,
        asker=(sampler, like.shape),
    )
    if edit.corrections:
        denoise = Corrected(denoise, edit.corrections)
    if edit.watch is not None:
        denoise = Watched(denoise, edit.watch, seeds)
    steps_by = sampler if edit.repaint is None else edit.repaint(sampler)
    with engine.autocast():
        latent = steps_by(denoise, edit.start(noise.first(), sigmas[0].item()), sigmas, noise)
    expect_shape(latent, (len(filled), *shape), sampler, "the call", like=like)
    return latent[: len(seeds)].float()


def condition_of(
    network: Network, asks: Sequence[Ask], engine: Engine, like: Tensor, pictures: Mapping[str, Known] | None = None
) -> Condition | None:
    """What a network hears of these asks, of as many latents `like` [B,c,h,w]; None without a conditioner."""
    return checked(network, network.condition(known_of(network, asks, engine, pictures), like=like), len(asks), "encode")


def null_of(network: Network, like: Tensor) -> Condition | None:
    """The null condition of as many pictures as `like` [B,c,h,w] has; None without a conditioner."""
    return checked(network, network.null(like), len(like), "null")


def checked(network: Network, condition: Condition | None, count: int, method: str) -> Condition | None:
    """The condition, which of a single conditioner is what that has announced, or it is a PluginError."""
    if len(network.conditioners) == 1:
        check_condition(condition, next(iter(network.conditioners.values())), count, method)
    return condition
