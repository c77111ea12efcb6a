"""A class can be used without being installed, made without a config file, and overrides given as one string."""

import json

import pytest
import torch

from ldmctl import api, registry
from ldmctl.config import PluginConfig
from ldmctl.config.presets import compose
from ldmctl.config.schemas.fit_ae import FitAE
from ldmctl.config.schemas.sample import Sample
from ldmctl.errors import ConfigError, PluginError


class Still:
    """A sampler that takes one step."""

    class Config(PluginConfig):
        factor: float = 1.0

    def __init__(self, config):
        self.factor = config.factor

    def __call__(self, denoise, x, sigmas, noise):
        return denoise(x, sigmas[0]) * self.factor


class Mixer(torch.nn.Module):
    class Config(PluginConfig):
        pass

    def __init__(self, config, *, channels, size, vector_dim=0, token_dim=0, map_channels=0):
        super().__init__()
        self.mix = torch.nn.Conv2d(channels, channels, 1)

    def forward(self, x, timestep, condition=None):
        return self.mix(x)


@pytest.fixture(autouse=True)
def forgotten():
    yield
    for plugin, cls in list(registry._registered().items()):
        registry.loaded().pop(cls, None)
        registry._registered().pop(plugin)


def test_a_registered_class_is_a_plugin_like_any_other(ldm_run, tmp_path, said):
    registry.register("sampler", "still", Still)
    made = api.sample("sampler.factor=0.5", run=ldm_run, count=1, steps=1, sampler="still", out=tmp_path / "out", device="cpu")
    assert made["made"] == 1
    listed = json.loads(said("plugins", "list", "sampler", "--json")[1])["plugins"]
    assert {"still": f"registered {__name__}:Still"}.items() <= {row["name"]: row["from"] for row in listed}.items()


def test_the_same_name_again_replaces_it_as_a_cell_does_that_runs_twice():
    registry.register("sampler", "still", Still)
    other = type("Still", (Still,), {})
    registry.register("samplers", "still", other)
    assert registry.load("sampler", "still") is other and [p.name for p in registry.plugins("sampler")].count("still") == 1


@pytest.mark.parametrize(
    ("name", "cls", "complaint"),
    [
        ("ddim", Still, "The sampler 'ddim' is there already, from ldmctl "),
        ("my sampler", Still, "cannot be a plugin's name"),
        ("mine", Still(Still.Config()), "cannot be the sampler 'mine': it is no class"),
        ("mine", lambda config: None, "cannot be the sampler 'mine': it is no class"),
        (None, Still, "None cannot be a plugin's name"),
        ("mine", int, "cannot be the sampler 'mine': AttributeError"),
        ("mine", type("Odd", (), {"Config": dict}), "Odd.Config is not a pydantic model"),
        ("mine", type("Odd", (Still,), {"api": 7}), "plugin API 7"),
    ],
)
def test_what_cannot_be_registered_is_refused(name, cls, complaint):
    with pytest.raises(PluginError, match=complaint):
        registry.register("sampler", name, cls)


def test_what_was_made_with_it_says_later_what_is_missing(vae_cache, tmp_path, said):
    registry.register("denoiser", "mixer", Mixer)
    words = "loop.steps=1 loop.batch=4 loop.preview=1 preview.count=1 preview.steps=1 conditioner=null denoiser={type:\\ mixer}"
    api.fit_diffusion(words, latents=vae_cache, out=tmp_path / "ldm", device="cpu", precision="fp32")
    for plugin in list(registry._registered()):
        registry.loaded().pop(registry._registered().pop(plugin), None)
    code, _, err = said("sample", "--run", tmp_path / "ldm", "-n", "1", "--out", tmp_path / "out", "--device", "cpu")
    assert code == 4 and "No denoiser is called 'mixer'" in err
    assert f"It was the class {__name__}:Mixer, registered in a Python session: register it again" in err


def test_a_config_is_made_without_naming_its_type():
    assert Still.Config().factor == 1.0 and Still(Still.Config(factor=2)).factor == 2.0


def test_one_string_of_overrides_is_words_of_a_shell():
    config, _ = compose(FitAE, overrides='loop.steps=5 data="shapes"')
    assert config.loop.steps == 5
    assert compose(Sample, overrides="steps=7")[0].steps == 7
    with pytest.raises(ConfigError, match="cannot be split into words: No closing quotation"):
        compose(Sample, overrides='run="a')


def test_one_folder_for_a_pair_is_refused():
    with pytest.raises(ConfigError, match="is one folder; two are compared"):
        api.eval_lpips(pairs="folder")
