"""What may be done to the noise of training: offset noise and input perturbation, which change nothing where they are off."""

import pytest
import torch

from ldmctl import registry
from ldmctl.config.resolve import plugin_config
from ldmctl.diffusion import objective
from ldmctl.diffusion.process import draw_times, noised, target
from ldmctl.diffusion.weighting import positions
from ldmctl.errors import ConfigError
from ldmctl.latents.codec import Codec
from ldmctl.storage import weights
from ldmctl.training.engine import Engine
from ldmctl.training.order import generator

HOST = Engine(torch.device("cpu"), torch.float32)
COUNT, SHAPE, KEY = 192, (3, 8, 8), ("noise", 0, 5)


@pytest.fixture
def draw(tiny):
    """draw("noise.offset=0.1") -> what a step learns from, of latents that are 0, whose x is sigma times the noise seen."""
    codec = Codec(registry.build("autoencoder", plugin_config("autoencoder", {"type": "identity"}), image_channels=3), HOST)
    plan = registry.build("schedule", plugin_config("schedule", {"type": "flow"}))

    def go(*words, rows=slice(0, COUNT), clean=0.0):
        config = tiny("fit-diffusion", "schedule=flow", "prediction=eps", *words, below={"latents": "nowhere"})
        read = objective.rows_read(rows, COUNT)
        stored = torch.full((COUNT, *SHAPE), clean)[read]
        return objective.draw(config, COUNT, rows, stored, torch.zeros(COUNT, dtype=torch.long)[read], codec, plan, HOST, KEY)

    return go


def seen(drawn):
    """The noise [B,c,h,w] in what the network sees, of clean latents that are 0."""
    return drawn.x / (drawn.timesteps / 1000).reshape(-1, 1, 1, 1)


def test_off_is_the_noise_that_training_always_had(draw, tiny):
    config, found = tiny("fit-diffusion", below={"latents": "nowhere"}), draw(clean=0.5)
    plan = registry.build("schedule", plugin_config("schedule", {"type": "flow"}))
    t = draw_times(plan, positions(config.times, COUNT, generator("cpu", *KEY), "cpu"))
    chunks = [torch.randn(objective.CHUNK, *SHAPE, generator=generator("cpu", *KEY, start)) for start in range(0, COUNT, objective.CHUNK)]
    clean = torch.full((COUNT, *SHAPE), 0.5)
    assert torch.equal(found.target, target("eps", plan, clean, torch.cat(chunks), t))
    assert torch.equal(found.x, noised(plan, clean, torch.cat(chunks), t))


def test_offset_moves_the_noise_of_each_channel_as_a_whole(draw):
    off, plain = draw("noise.offset=0.3"), draw()
    moved = off.target - plain.target
    torch.testing.assert_close(moved, moved[:, :, :1, :1].expand_as(moved), atol=1e-6, rtol=0)
    each = moved[:, :, 0, 0]
    assert each.std().item() == pytest.approx(0.3, rel=0.1) and each.mean().abs() < 0.05
    torch.testing.assert_close(seen(off), off.target, atol=1e-3, rtol=1e-3)  # it is seen, and it is to be said


def test_perturbation_is_seen_and_not_to_be_said(draw):
    off, plain = draw("noise.perturbation=0.2"), draw()
    assert torch.equal(off.target, plain.target) and torch.equal(off.timesteps, plain.timesteps)
    more = seen(off) - off.target
    assert more.std().item() == pytest.approx(0.2, rel=0.05)
    assert torch.corrcoef(torch.stack([more.flatten(), plain.target.flatten()]))[0, 1].abs() < 0.02


def test_both_are_drawn_for_the_global_batch_from_seed_and_step(draw):
    words = ["noise.offset=0.1", "noise.perturbation=0.1"]
    whole = draw(*words)
    for rows in (slice(0, 96), slice(96, 192), slice(100, 101)):
        part = draw(*words, rows=rows)
        assert torch.equal(part.x, whole.x[rows]) and torch.equal(part.target, whole.target[rows])


@pytest.mark.slow
def test_a_run_with_both_trains_and_goes_on_as_if_it_had_not_stopped(tmp_path, fit_diffusion, vae_cache):
    words = ["noise.offset=0.1", "noise.perturbation=0.1", "loop.decay=constant"]
    whole = fit_diffusion(tmp_path / "whole", vae_cache, *words, "loop.steps=4")
    fit_diffusion(tmp_path / "parts", vae_cache, *words, "loop.steps=2")
    parts = fit_diffusion(tmp_path / "parts", vae_cache, *words, "loop.steps=4")
    plain = fit_diffusion(tmp_path / "plain", vae_cache, "loop.decay=constant", "loop.steps=4")
    ends = [weights.load(run / "model.safetensors")[0] for run in (whole, parts, plain)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert any(not torch.equal(ends[0][name], ends[2][name]) for name in ends[0])


def test_less_than_none_is_refused(tiny):
    with pytest.raises(ConfigError, match=r"noise\.offset: input should be greater than or equal to 0"):
        tiny("fit-diffusion", "noise.offset=-0.1", below={"latents": "nowhere"})
