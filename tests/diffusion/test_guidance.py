"""Guidance: what each way of it comes to where the answer is known, and when it works at all."""

import math
import shutil

import pytest
import torch
from torch import nn

from ldmctl import registry
from ldmctl.config.editing import Guiding
from ldmctl.config.presets import compose
from ldmctl.config.resolve import plugin_config
from ldmctl.config.schemas.sample import Sample
from ldmctl.diffusion.denoise import Denoise
from ldmctl.diffusion.guidance import Guidance
from ldmctl.errors import ConfigError, MismatchError
from ldmctl.protocols import Condition


def schedule(name="flow"):
    return registry.build("schedule", plugin_config("schedule", {"type": name}))


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Two(nn.Module):
    """Says one of two things, by its condition, and counts the rows that it is asked for."""

    def __init__(self, better, weaker):
        super().__init__()
        self.better, self.weaker, self.rows = better, weaker, []

    def forward(self, x, timesteps, condition=None):
        self.rows.append(len(x))
        said = [
            self.better[row % len(self.better)] if row_says > 0 else self.weaker[row % len(self.weaker)]
            for row, row_says in self._rows(x, condition)
        ]
        return torch.stack(said)

    def _rows(self, x, condition):
        return enumerate(condition.vector.flatten().tolist() if condition is not None else [1.0] * len(x))


BETTER, WEAKER = random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1)
YES, NO = Condition(vector=torch.ones(2, 1)), Condition(vector=torch.zeros(2, 1))


def guided(weight, prediction="x0", sigma=1.0, better=BETTER, weaker=WEAKER, still=math.inf, **manner):
    network = Two(better, weaker)
    guidance = Guidance(weight, Guiding(**manner), still=still)
    denoise = Denoise(network, schedule(), prediction, condition=YES, null=NO, guidance=guidance)
    return denoise(random(2, 3, 4, 4, seed=2), sigma), network


@pytest.mark.parametrize("manner", [{}, {"interval": (0.1, 9.0)}, {"rescale": 0.7}, {"method": "apg", "eta": 0.5}, {"method": "zero-star"}])
def test_guidance_1_is_the_plain_condition_bit_for_bit_and_0_none_each_in_one_forward(manner):
    for weight, said in ((1.0, BETTER), (0.0, WEAKER)):
        clean, network = guided(weight, **manner)
        assert torch.equal(clean, said) and network.rows == [2]


def test_guidance_is_one_forward_of_both_and_goes_on_from_none_past_the_condition():
    clean, network = guided(3.0)
    assert torch.allclose(clean, 3 * BETTER - 2 * WEAKER, atol=1e-5) and network.rows == [4]


# -- where it works ------------------------------------------------------------------------------


def test_outside_its_interval_guidance_is_1_and_costs_one_half():
    for sigma, inside in ((0.2, False), (0.2001, True), (1.5, True), (1.5001, False)):
        clean, network = guided(3.0, sigma=sigma, interval=(0.2, 1.5))
        assert network.rows == [4 if inside else 2]
        assert torch.equal(clean, BETTER) != inside


def test_an_interval_over_all_levels_is_plain_guidance():
    assert torch.equal(guided(3.0, interval=(0.0, 1e9))[0], guided(3.0)[0])


def test_the_interval_is_decided_at_each_evaluation_of_a_step():
    """Heun's second look at a lower level may lie outside where its first lay inside."""
    from ldmctl.template.sampler import Template

    network = Two(BETTER, WEAKER)
    denoise = Denoise(network, schedule(), "x0", condition=YES, null=NO, guidance=Guidance(3.0, Guiding(interval=(1.0, 4.0))))
    sigmas = torch.tensor([8.0, 3.0, 0.5, 0.0], dtype=torch.float64)
    Template(Template.Config())(denoise, random(2, 3, 4, 4), sigmas, None)
    assert network.rows == [2, 4, 4, 2, 2], "8: out; 3: in, twice; 0.5: out, twice"


# -- rescale ---------------------------------------------------------------------------------------


def test_rescaling_gives_the_clean_estimate_the_deviation_of_the_plain_one():
    plain, whole, half = guided(4.0)[0], guided(4.0, rescale=1.0)[0], guided(4.0, rescale=0.5)[0]
    deviations = lambda image: image.flatten(1).std(dim=1)
    assert torch.allclose(deviations(whole), deviations(BETTER), atol=1e-5)
    assert torch.allclose(half, (plain + whole) / 2, atol=1e-5)
    assert (deviations(plain) > 1.5 * deviations(BETTER)).all(), "without it, guidance saturates"


def test_rescaling_is_done_to_the_clean_estimate_whatever_the_network_predicts():
    """An eps network that means the same clean latents gives the same guided ones."""
    x, sigma = random(2, 3, 4, 4, seed=2), 1.0
    as_noise = lambda clean: (x - clean) / sigma
    by_noise = guided(4.0, "eps", better=as_noise(BETTER), weaker=as_noise(WEAKER), rescale=0.7)[0]
    assert torch.allclose(by_noise, guided(4.0, rescale=0.7)[0], atol=1e-4)


# -- APG -------------------------------------------------------------------------------------------


def test_apg_with_all_of_the_update_is_plain_guidance():
    assert torch.allclose(guided(3.0, method="apg", eta=1.0)[0], guided(3.0)[0], atol=1e-5)


def test_apg_without_the_parallel_part_leaves_the_length_along_the_estimate():
    clean = guided(5.0, method="apg")[0]
    along = (clean * BETTER).flatten(1).sum(1) / (BETTER * BETTER).flatten(1).sum(1)
    assert torch.allclose(along, torch.ones(2), atol=1e-5), "Dc + (w - 1) update: nothing is added along Dc"
    assert (clean - BETTER).abs().max() > 1


def test_apg_at_a_weight_near_1_gives_the_condition_and_not_what_is_weaker():
    assert torch.allclose(guided(1 + 1e-6, method="apg", eta=0.0)[0], BETTER, atol=1e-4)


def test_apg_bounds_each_pictures_update():
    change = (guided(2.0, method="apg", eta=1.0, norm=0.25)[0] - BETTER).flatten(1).norm(dim=1)
    assert torch.allclose(change, torch.full((2,), 0.25), atol=1e-5)


def test_apgs_momentum_adds_a_share_of_the_update_before():
    network = Two(BETTER, WEAKER)
    guidance = Guidance(2.0, Guiding(method="apg", eta=1.0, momentum=-0.5))
    denoise = Denoise(network, schedule(), "x0", condition=YES, null=NO, guidance=guidance)
    first, second, third = (denoise(random(2, 3, 4, 4), sigma) - BETTER for sigma in (3.0, 2.0, 1.0))
    assert torch.allclose(second, first * 0.5, atol=1e-5) and torch.allclose(third, first * 0.75, atol=1e-5)


def test_apgs_momentum_remembers_no_graph():
    guidance = Guidance(2.0, Guiding(method="apg", momentum=-0.5))
    x = random(2, 3, 4, 4).requires_grad_()
    for _ in range(2):
        assert guidance.projected(2 * x, x * x).requires_grad, "masks and guides differentiate the step itself"
        assert guidance.update.grad_fn is None


# -- CFG-Zero* ----------------------------------------------------------------------------------------


def test_zero_star_between_parallel_velocities_is_the_condition_at_any_weight():
    network_says = guided(4.0, "flow", weaker=0.4 * BETTER, method="zero-star")[0]
    assert torch.allclose(network_says, guided(1.0, "flow")[0], atol=1e-5)


def test_zero_star_between_velocities_at_right_angles_leaves_the_weaker_one_out():
    better, weaker = torch.zeros(2, 2, 2, 1), torch.zeros(2, 2, 2, 1)
    better[:, 0], weaker[:, 1] = 1.0, 1.0
    guidance = Guidance(3.0, Guiding(method="zero-star"))
    assert torch.allclose(guidance.outputs(better, weaker), 3.0 * better)


def test_zero_steps_stand_still_without_asking_the_network():
    x = random(2, 3, 4, 4, seed=2)
    clean, network = guided(3.0, "flow", sigma=9.0, still=4.0, method="zero-star", zero_steps=1)
    assert not network.rows
    next_x = clean + (x - clean) * (4.0 / 9.0)  # a step of Euler's to level 4
    assert torch.allclose(next_x / (1 + 4.0), x / (1 + 9.0), atol=1e-6), "the picture alpha x = x / (1 + level) of flow is the same"


# -- another network ------------------------------------------------------------------------------------


def test_autoguidance_goes_from_a_weaker_network_past_the_better_one():
    better, weaker = Two(BETTER, BETTER), Two(WEAKER, WEAKER)
    for condition in (YES, None):
        denoise = Denoise(better, schedule(), "x0", condition=condition, null=condition, guidance=2.0, weaker=weaker)
        assert torch.allclose(denoise(random(2, 3, 4, 4), 1.0), 2 * BETTER - WEAKER, atol=1e-5)


# -- keys -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["guiding.eta=0.5", "guidance=2"], "guiding.eta belongs to guiding.method=apg, and the method is plain"),
        (["guiding.method=apg", "guiding.rescale=0.7", "guidance=2"], "leave one away"),
        (["guiding.interval=[3,1]", "guidance=2"], "from a low to a higher level"),
        (["guiding.zero_steps=1", "guidance=2"], "belongs to guiding.method=zero-star"),
        (["guiding.method=zero-star", "guiding.zero_steps=50", "guidance=2"], "leaves none of steps=20"),
        (["guiding.rescale=0.5"], "guiding does nothing at guidance=1: take another"),
        (["negative=cat"], "negative does nothing at guidance=1"),
        (["autoguide=runs/ldm", "guidance=0"], "autoguide does nothing at guidance=0"),
        (["autoguide=runs/ldm", "guidance=0.5"], "goes towards the weaker model"),
        (["autoguide=runs/ldm", "negative=cat", "guidance=2"], "both say what to go away from"),
    ],
)
def test_what_cannot_be_combined_is_refused_with_the_reason(words, said):
    with pytest.raises(ConfigError, match=said):
        compose(Sample, overrides=words)


# -- whole runs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ldm(tmp_path_factory, fit_diffusion, vae_cache):
    """A run of fit-diffusion with labels and one earlier snapshot. Read only."""
    words = ["loop.lr=1e-2", "loop.ema=0", "loop.steps=8", "loop.save=4", "loop.keep.every=4"]
    return fit_diffusion(tmp_path_factory.mktemp("guided") / "ldm", vae_cache, *words)


def sampled(run, **keys):
    from ldmctl import api

    return api.load(run, device="cpu", precision="fp32").sample(2, steps=2, batch=2, label="red circle", **keys).images


def test_a_negative_label_and_a_snapshot_change_the_picture_and_none_is_the_default(ldm):
    plain = sampled(ldm, guidance=3)
    assert torch.equal(sampled(ldm, guidance=3, negative="none"), plain)
    others = [sampled(ldm, guidance=3, negative="blue square"), sampled(ldm, guidance=3, autoguide=f"{ldm}@4")]
    assert not any(torch.equal(other, plain) for other in others) and not torch.equal(*others)


def test_a_model_does_not_guide_itself_under_whatever_name(ldm, tmp_path):
    shutil.copytree(ldm, tmp_path / "copy")
    for name in (ldm, tmp_path / "copy"):
        with pytest.raises(ConfigError, match="is the same model as the one that it should guide"):
            sampled(ldm, guidance=3, autoguide=name)


def test_autoguidance_by_a_run_of_another_kind_is_refused(ldm, tmp_path, fit_diffusion, vae_cache):
    other = fit_diffusion(tmp_path / "other", vae_cache, "prediction=eps", "schedule=linear", "loop.steps=1")
    with pytest.raises(MismatchError, match="was trained under another schedule than the model it should guide") as caught:
        sampled(ldm, guidance=2, autoguide=other)
    assert caught.value.exit_code == 6
    with pytest.raises(MismatchError, match="There is no run folder"):
        sampled(ldm, guidance=2, autoguide=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("schedule", {"type": "linear", "config": {}, "terminal_snr": 1}, "under another schedule"),
        ("prediction", "eps", "to predict something else"),
        ("latent", [4, 4, 4], "on latents of another shape"),
        ("statistics", {"mean": [1.0], "deviation": [1.0]}, "on latents that were whitened otherwise"),
        ("autoencoder", {"fingerprint": "another"}, "on latents of another autoencoder"),
        ("classes", ["a", "b"], "with other classes"),
    ],
)
def test_each_thing_that_a_weaker_model_must_share_is_looked_at_by_itself(ldm, key, value, said):
    from ldmctl.diffusion.autoguidance import load_weaker
    from ldmctl.storage import weights
    from ldmctl.training.engine import Engine

    engine, header = Engine(torch.device("cpu"), torch.float32), weights.read_header(ldm / "model.safetensors")
    assert load_weaker(str(ldm), header, "better", engine).header["prediction"] == header["prediction"]
    with pytest.raises(MismatchError, match=said):
        load_weaker(str(ldm), {**header, key: value}, "better", engine)


def test_zero_star_is_refused_where_no_velocity_is_predicted(ldm):
    with pytest.raises(ConfigError, match="this model was trained with prediction=x0"):
        sampled(ldm, guidance=2, guiding={"method": "zero-star"})


def test_momentum_is_refused_with_a_sampler_that_tries_steps_again(ldm):
    with pytest.raises(ConfigError, match=r"momentum=-0\.5 needs a sampler that takes each step once"):
        sampled(ldm, guidance=2, sampler="adaptive", guiding={"method": "apg", "momentum": -0.5})
    assert sampled(ldm, guidance=2, sampler="heun", guiding={"method": "apg", "momentum": -0.5}).shape[0] == 2


def test_settings_name_what_changes_pixels_and_stay_as_they_were_without_it(ldm):
    from ldmctl import api

    model = api.load(ldm, device="cpu", precision="fp32")
    settings = lambda *words: model.settings(compose(Sample, overrides=list(words))[0])
    assert set(settings("guidance=2")) == {"model", "autoencoder", "precision", "sampler", "steps", "spacing", "guidance", "batch"}
    found = settings("guidance=2", f"autoguide={ldm}@4", "guiding.interval=[0.1,5]")
    assert found["guiding"]["interval"] == [0.1, 5.0] and found["autoguide"].endswith("@4") and len(found["weaker"]) == 64
    assert settings("guidance=2", "negative=red circle")["negative"] == "red circle"
