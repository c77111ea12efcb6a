"""Which noise levels a denoiser is trained at, and how much each of them counts.

Times are drawn for the global batch, as positions u in [0, 1) that `diffusion.draw_times`
maps to the schedule. Weights are stated once, for the squared error of the clean latent,
and carried over to every prediction by how far an error of the output moves the clean
latent: loss of the prediction x `clean_error_factor` = loss of the clean latent.

A level is sigma / alpha, as everywhere; SNR = 1 / level^2.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ldmctl.config.schemas.fit_diffusion import Times, Weighting
from ldmctl.diffusion.process import Prediction, draw_times
from ldmctl.diffusion.spacing import CEILING
from ldmctl.protocols import Schedule

EDGES = (1 / 3, 1.0, 3.0)  # levels between the bins of a validation loss
BELOW_ONE = 1 - 2**-24  # the largest float32 below 1
GOLDEN = (math.sqrt(5) - 1) / 2

# -- times -------------------------------------------------------------------------


def positions(times: Times, count: int, random: torch.Generator, device: torch.device | str) -> Tensor:
    """Positions u [count] in [0, 1) of a global batch, drawn from `random`, a generator on `device`.

    uniform: each alone. stratified: one in each of `count` equal parts, in random order, so that ranks
    and micro-batches see all levels. logit-normal: sigmoid(mean + deviation n), n normal (arXiv:2403.03206).
    """
    if times.sampling == "logit-normal":
        normal = _wide(torch.randn(count, generator=random, device=device))
        return torch.sigmoid(times.mean + times.deviation * normal).clamp(max=BELOW_ONE)
    u = torch.rand(count, generator=random, device=device)
    if times.sampling == "stratified":
        part = torch.randperm(count, generator=random, device=device)
        return ((part + _wide(u)) / count).clamp(max=BELOW_ONE)
    return u


def validation_times(schedule: Schedule, count: int) -> Tensor:
    """Times t [count], float64, always the same: the middles of `count` equal parts, neighbours far apart.

    So data sorted by class has each class at all levels.
    """
    stride = max(round(GOLDEN * count), 1)
    while math.gcd(stride, count) > 1:
        stride += 1
    return draw_times(schedule, (torch.arange(count, dtype=torch.float64) * stride % count + 0.5) / max(count, 1))


def _wide(value: Tensor) -> Tensor:
    return value if value.device.type == "mps" else value.double()  # which has no float64


# -- weights -----------------------------------------------------------------------


def clean_error_factor(prediction: Prediction, alpha: Tensor, sigma: Tensor) -> Tensor:
    """|d clean / d output|^2 [B] of `diffusion.clean_from`: squared error of the output -> squared error of the clean latent.

    Infinite for eps where alpha is 0, as its limit is.
    """
    return _gains(prediction, alpha, sigma)[0].square()


def noise_error_factor(prediction: Prediction, alpha: Tensor, sigma: Tensor) -> Tensor:
    """|d noise / d output|^2 [B] = SNR x `clean_error_factor`; infinite for x0 where sigma is 0."""
    return _gains(prediction, alpha, sigma)[1].square()


def _gains(prediction: Prediction, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """How far the clean latent and the noise that an output stands for move with it; x_t = alpha clean + sigma noise stays."""
    if prediction == "eps":
        return sigma / alpha, torch.ones_like(alpha)
    if prediction == "x0":
        return torch.ones_like(alpha), alpha / sigma
    whole = alpha**2 + sigma**2 if prediction == "v" else alpha + sigma
    return sigma / whole, alpha / whole


def loss_weight(weighting: Weighting, prediction: Prediction, schedule: Schedule, t: Tensor) -> Tensor:
    """The weight [B], float32 and finite, of each item's squared error of the prediction at t [B].

    On the clean latent min-snr is min(SNR, gamma) (arXiv:2303.09556), soft-min-snr SNR gamma / (SNR + gamma)
    (arXiv:2401.11605). Without a weighting, and with a learned one, it is 1.
    """
    if weighting.kind in ("none", "learned"):
        return torch.ones(len(t), device=t.device)
    alpha, sigma = schedule.marginal(t)
    clean = weighting.gamma * clean_error_factor(prediction, alpha, sigma)
    noise = noise_error_factor(prediction, alpha, sigma)  # is SNR x the factor, without 0 x infinity at the ends
    if weighting.kind == "min-snr":
        return torch.minimum(noise, clean).float()
    return (1 / (1 / noise + 1 / clean)).float()


def log_level(schedule: Schedule, t: Tensor) -> Tensor:
    """ln(sigma / alpha) [B] at t [B], float32, no further from 0 than that of CEILING."""
    alpha, sigma = schedule.marginal(t)
    return (sigma / alpha).clamp(1 / CEILING, CEILING).log().float()


# -- learned weights ---------------------------------------------------------------


class Uncertainty(nn.Module):
    """u(level): the logarithm of the loss that is to be expected at a noise level, learned along with the denoiser.

    Each loss is divided by exp(u) and pays u, so that all levels come to count alike (arXiv:2312.02696, after
    arXiv:1705.07115). A linear map of random Fourier features of ln(level) / 4; it begins as 0, weight 1.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, features: int = 128, *, seed: int = 0):
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(features, generator=random))
        self.register_buffer("phases", 2 * math.pi * torch.rand(features, generator=random))
        self.linear = nn.Linear(features, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, log_level: Tensor) -> Tensor:
        """ln(sigma / alpha) [B] -> u [B], float32."""
        angles = (log_level.float() / 4)[:, None] * self.frequencies + self.phases
        return self.linear(math.sqrt(2) * angles.cos())[:, 0]


def with_uncertainty(losses: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """losses [B], u [B] -> what the denoiser minimizes [B], what the uncertainty minimizes [B].

    Their gradients are those of losses / exp(u) + u; apart, each can have its own loss scale.
    """
    return losses / u.detach().exp(), losses.detach() / u.exp() + u


# -- validation --------------------------------------------------------------------


def binned(values: Tensor, log_levels: Tensor, edges: Sequence[float] = EDGES, *, name: str = "val/loss") -> dict[str, float]:
    """Means of values [B] in bins of sigma / alpha, by names that say the bin; bins without any are left out.

    The bins are val/loss_sigma_0-0.33, _0.33-1, _1-3 and _3-inf, the quarters of `flow` and nearly those of
    `cosine`. They are the same for every schedule, so that runs can be compared.
    """
    levels, values = log_levels.cpu().double().exp(), values.cpu().double()
    place = torch.bucketize(levels, torch.tensor(edges, dtype=torch.float64), right=True)
    bounds = [f"{bound:.2g}" for bound in (0.0, *edges, math.inf)]
    means = {index: values[place == index].mean() for index in place.unique().tolist()}
    return {f"{name}_sigma_{bounds[index]}-{bounds[index + 1]}": float(mean) for index, mean in means.items()}
