"""Which package a plugin came from is recorded, compared, and named where it is missing; a key may change its name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ldmctl.config.base import PluginConfig
from ldmctl.config.documents import read_config

TINY = Path(__file__).parents[1] / "tiny"
MIXER = """
from pydantic import AliasChoices, Field
class Mixer(nn.Module):
    class Config(PluginConfig):
        {key}
    def __init__(self, config, *, channels, size, vector_dim=0, token_dim=0, map_channels=0):
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)
    def forward(self, x, timestep, condition=None):
        return {factor} * self.mix(x)
"""
SAMPLER = """
class Still:
    Config = Plain
    def __init__(self, config): pass
    def __call__(self, denoise, x, sigmas, noise): return denoise(x, sigmas[0]) * {factor}
"""
WIDTH = "width: int = 3"
HOST = ["--device", "cpu", "--precision", "fp32"]


@pytest.fixture
def mixed(install, said, vae_cache, tmp_path):
    """The words that train a denoiser `mixer` of ldmctl-mixer 1.0, two steps of which are made."""
    install("ldmctl-mixer", "1.0", denoiser={"mixer": "Mixer"}, source=MIXER.format(key=WIDTH, factor=1))
    words = [
        "fit-diffusion",
        "--config",
        TINY / "fit-diffusion.yaml",
        "--latents",
        vae_cache,
        "--out",
        tmp_path / "ldm",
        "conditioner=null",
    ]
    words += ["denoiser={type: mixer, width: 5}", "loop.decay=constant"]
    assert said(*words, "loop.steps=2")[0] == 0
    return words


@pytest.fixture
def sampling(mixed, tmp_path):
    return ["sample", "--run", tmp_path / "ldm", "-n", "2", "--steps", "2", "--out", tmp_path / "out", *HOST, "--json"]


def test_an_upgrade_is_said_and_old_pictures_do_not_count_as_made(install, said, sampling):
    assert json.loads(said(*sampling)[1])["made"] == 2
    assert json.loads(said(*sampling)[1])["made"] == 0
    install("ldmctl-mixer", "1.1", denoiser={"mixer": "Mixer"}, source=MIXER.format(key=WIDTH, factor=3))
    code, _, err = said(*sampling)
    assert code == 6 and "--overwrite" in err
    code, out, more = said(*sampling, "--overwrite")
    assert code == 0 and json.loads(out)["made"] == 2
    assert (err + more).count("The denoiser 'mixer' was ldmctl-mixer 1.0's when this was made, and here it is ldmctl-mixer 1.1's") == 1


def test_a_run_that_goes_on_with_another_version_says_so(install, said, mixed):
    install("ldmctl-mixer", "1.1", denoiser={"mixer": "Mixer"}, source=MIXER.format(key=WIDTH, factor=1))
    code, _, err = said(*mixed, "loop.steps=3")
    assert code == 0 and "The denoiser mixer was ldmctl-mixer 1.0's when this run was begun, and here it is ldmctl-mixer 1.1's" in err


def test_what_is_uninstalled_is_named_with_its_package_and_how_to_have_it_again(install, said, sampling):
    install.remove("ldmctl-mixer")
    code, _, err = said(*sampling)
    assert code == 4 and "No denoiser is called 'mixer'" in err
    assert "it came from ldmctl-mixer 1.0: pip install ldmctl-mixer==1.0" in err


def test_what_begins_with_it_or_repeats_it_names_its_package_too(install, said, mixed, tmp_path):
    install.remove("ldmctl-mixer")
    for words in (["--init", tmp_path / "ldm"], ["--config", tmp_path / "ldm" / "config.yaml"]):
        code, _, err = said("fit-diffusion", *words, *mixed[3:5], "--out", tmp_path / "new")
        assert (
            code == 4 and "No denoiser is called 'mixer'" in err and "it came from ldmctl-mixer 1.0: pip install ldmctl-mixer==1.0" in err
        )


def test_a_run_of_what_is_uninstalled_says_so_too_before_it_goes_on(install, said, tmp_path, monkeypatch):
    source = """
class Set:
    Config = Plain
    classes = []
    def __init__(self, config, *, split): pass
    def __len__(self): return 8
    def __getitem__(self, index): return Example(torch.zeros(3, 16, 16, dtype=torch.uint8))
    def stamp(self, index): return str(index)
"""
    install("zip-set", "0.3", dataset={"zipped": "Set"}, source=source)
    words = ["fit-ae", "--config", TINY / "fit-ae.yaml", "--out", tmp_path / "ae", "perceptual=null", "dataset={type: zipped}"]
    assert said(*words, "loop.steps=1")[0] == 0
    install.remove("zip-set")
    for again in ([*words, "loop.steps=2"], ["encode-dataset", "--run", tmp_path / "ae", "--out", tmp_path / "cache"]):
        code, _, err = said(*again)
        assert code == 4 and "it came from zip-set 0.3: pip install zip-set==0.3" in err


def test_a_sampler_of_another_version_makes_its_pictures_again(install, said, sample_words, tmp_path):
    install("still", "1.0", sampler={"still": "Still"}, source=SAMPLER.format(factor=1))
    words = [*sample_words, "--sampler", "still", "--json"]
    assert [json.loads(said(*words)[1])["made"] for _ in range(2)] == [2, 0]
    text = json.loads(Image.open(tmp_path / "samples" / "000000.png").text["ldmctl"])
    assert text["plugins"] == ["sampler still (still 1.0)"]
    install("still", "1.1", sampler={"still": "Still"}, source=SAMPLER.format(factor=2))
    code, _, err = said(*words)
    assert code == 6 and "--overwrite" in err
    assert json.loads(said(*words, "--overwrite")[1])["made"] == 2


def test_pictures_of_built_in_plugins_say_no_versions(said, sample_words, tmp_path):
    assert said(*sample_words)[0] == 0
    assert "plugins" not in json.loads(Image.open(tmp_path / "samples" / "000000.png").text["ldmctl"])


def test_a_key_under_a_new_name_resumes_and_samples(install, said, mixed, sampling, tmp_path):
    renamed = 'channels: int = Field(3, validation_alias=AliasChoices("channels", "width"))'
    install("ldmctl-mixer", "1.0", denoiser={"mixer": "Mixer"}, source=MIXER.format(key=renamed, factor=1))
    code, _, err = said(*mixed, "loop.steps=3")
    assert code == 0 and "Resumed" in err, err
    assert said(*sampling)[0] == 0
    assert "\n  channels\n" in said("plugins", "show", "denoiser", "mixer")[1]
    changed = [word.replace("width: 5", "channels: 6") if isinstance(word, str) else word for word in mixed]
    code, _, err = said(*changed, "loop.steps=4")
    assert code == 6 and "denoiser.channels: 5 there, 6 asked for" in err


@pytest.mark.parametrize("alias", ["alias='wide'", "validation_alias='wide'"])
def test_a_key_that_is_given_under_another_name_alone_is_read_back_from_files(install, said, mixed, sampling, tmp_path, alias):
    key = f"channels: int = Field(3, {alias})"
    install("ldmctl-mixer", "1.0", denoiser={"mixer": "Mixer"}, source=MIXER.format(key=key, factor=1))
    given = [word.replace("width: 5", "wide: 5") if isinstance(word, str) else word for word in mixed]
    assert said(*given, "--overwrite", "loop.steps=1")[0] == 0
    code, _, err = said(*given, "loop.steps=2")
    assert code == 0 and "Resumed" in err, err
    assert said(*sampling)[0] == 0
    changed = [word.replace("wide: 5", "wide: 6") if isinstance(word, str) else word for word in given]
    code, _, err = said(*changed, "loop.steps=3")
    assert code == 6 and "denoiser.channels: 5 there, 6 asked for" in err


@pytest.mark.parametrize("key", [r"seed: bytes = b'\xff'", "act: object = print", "start: object = torch.zeros(2)"])
def test_a_value_that_no_file_can_hold_is_a_sentence(install, said, mixed, key):
    install("ldmctl-mixer", "1.0", denoiser={"mixer": "Mixer"}, source=MIXER.format(key=f"{key}\n        width: int = 3", factor=1))
    code, _, err = said(*mixed, "--overwrite")
    assert code == 4 and "The plugin 'mixer' has a key whose value cannot be written into a file" in err and "Traceback" not in err


class Words(PluginConfig):
    words: set[str] = {"b", "a", "c"}
    groups: dict[str, list[frozenset[int]]] = {"x": [frozenset({3, 1, 2})]}


def test_sets_are_written_in_one_order():
    assert Words().model_dump(mode="json") == {"type": "", "words": ["a", "b", "c"], "groups": {"x": [[1, 2, 3]]}}
    assert Words().words == {"a", "b", "c"}  # and stay sets
    program = "from test_versions import Words; print(Words().model_dump_json())"
    said = set()
    for seed in range(4):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
        said.add(subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(said) == 1


def test_a_run_with_a_set_resumes_whatever_order_was_written_then(install, said, mixed, tmp_path):
    import yaml

    several = "words: set[str] = {'a', 'b', 'c', 'd'}\n        width: int = 3"
    install("ldmctl-mixer", "1.0", denoiser={"mixer": "Mixer"}, source=MIXER.format(key=several, factor=1))
    assert said(*mixed, "loop.steps=2", "--overwrite")[0] == 0
    config = read_config(tmp_path / "ldm")
    assert config["denoiser"]["words"] == ["a", "b", "c", "d"]
    config["denoiser"]["words"] = ["c", "a", "d", "b"]
    (tmp_path / "ldm" / "config.yaml").write_text(yaml.safe_dump(config))
    code, _, err = said(*mixed, "loop.steps=3")
    assert code == 0 and "Resumed" in err, err
