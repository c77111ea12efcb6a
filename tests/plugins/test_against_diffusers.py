"""Samplers ask the network about what diffusers' schedulers ask it about, and end where they end, where the formulas are the same."""

import pytest
import torch
from small_network import SmallNetwork, assert_same_way

from ldmctl import registry
from ldmctl.diffusion.denoise import Denoise
from ldmctl.diffusion.spacing import levels, start

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SAID = {"eps": "epsilon", "v": "v_prediction"}
SAME = [
    ("euler", {}, "EulerDiscreteScheduler", {}),
    ("heun", {}, "HeunDiscreteScheduler", {}),
    ("euler-ancestral", {}, "EulerAncestralDiscreteScheduler", {}),
    ("dpmpp-2m", {}, "DPMSolverMultistepScheduler", {"solver_order": 2, "final_sigmas_type": "zero"}),
    ("dpmpp-2m-sde", {}, "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "final_sigmas_type": "zero"}),
    ("unipc", {}, "UniPCMultistepScheduler", {"final_sigmas_type": "zero"}),
    ("unipc", {"order": 3}, "UniPCMultistepScheduler", {"solver_order": 3, "final_sigmas_type": "zero"}),
    ("deis", {"order": 1}, "DEISMultistepScheduler", {"solver_order": 1}),
    ("deis", {}, "DEISMultistepScheduler", {"solver_order": 2}),
    ("unipc", {"corrected": False}, "UniPCMultistepScheduler", {"disable_corrector": list(range(50)), "final_sigmas_type": "zero"}),
]


def made(kind, name, **options):
    plugin = registry.load(kind, name)
    return plugin(plugin.Config(type=name, **options))


@pytest.mark.parametrize("steps", [8, 20])
@pytest.mark.parametrize("prediction", SAID)
@pytest.mark.parametrize(("name", "options", "kind", "theirs"), SAME, ids=str)
def test_a_sampler_goes_where_the_scheduler_goes(name, options, kind, theirs, prediction, steps):
    diffusers = pytest.importorskip("diffusers")
    scheduler = getattr(diffusers, kind)(**BETAS, prediction_type=SAID[prediction], timestep_spacing="trailing", **theirs)
    scheduler.set_timesteps(steps)
    first = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    draws = torch.Generator().manual_seed(1)
    more = {"generator": draws} if kind in ("EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler") else {}
    x, their_network, our_network = first * scheduler.init_noise_sigma, SmallNetwork(), SmallNetwork()
    for k in scheduler.timesteps:
        x = scheduler.step(their_network(scheduler.scale_model_input(x, k), k), k, x, **more).prev_sample
    schedule, draws = made("schedule", "scaled-linear"), torch.Generator().manual_seed(1)
    _, sigmas = levels(schedule, steps, "trailing")
    drawn = torch.float32 if kind == "DPMSolverMultistepScheduler" else torch.float64  # as theirs draws it
    noise = lambda sigma, sigma_next: torch.randn(first.shape, generator=draws, dtype=drawn)
    begun = start(first, sigmas) if scheduler.init_noise_sigma == 1 else first * scheduler.init_noise_sigma
    ours = made("sampler", name, **options)(Denoise(our_network, schedule, prediction), begun, sigmas, noise)
    ends = [] if kind == "DEISMultistepScheduler" else [(ours, x)]  # theirs stops at the lowest level, where a little noise is left
    assert_same_way(
        [*our_network.asked, *(end for end, _ in ends)], [*their_network.asked, *(end for _, end in ends)], atol=2e-4, rtol=1e-3
    )
