"""Names that several packages have, groups that nobody reads, classes that are none: said, and never in the way of what works."""

import json
import warnings
from pathlib import Path

import pytest
from PIL import Image

from ldmctl import registry
from ldmctl.errors import ConfigError, PluginError, PluginWarning
from ldmctl.storage.weights import read_header
from ldmctl.template.package import write_package

CONFIG = Path(__file__).parents[1] / "tiny" / "fit-diffusion.yaml"
SAMPLER = """
class Mine:
    class Config(PluginConfig):
        speed: int = 1
    def __init__(self, config): pass
    def __call__(self, denoise, x, sigmas, noise): return x * 0
"""


def test_a_foreign_plugin_named_like_a_built_in_is_in_nobodys_way(install, said, sample_words):
    install("foreign", "3.1", sampler={"ddim": "Mine"}, source=SAMPLER)
    code, _, err = said(*sample_words, "--sampler", "ddim")
    assert code == 0
    assert err.count("warning: sampler 'ddim' is offered by ") == 1
    assert "ddim alone is ldmctl's own, the other is foreign:ddim" in err and "foreign 3.1" in err
    with pytest.warns(PluginWarning):
        assert registry.find("sampler", "ddim").built_in


NOTHING = """
class Mine:
    class Config(PluginConfig):
        speed: int = 1
    def __init__(self, *given, **more): raise RuntimeError("the foreign one was made")
"""


def test_those_named_like_the_defaults_of_training_and_sampling_are_in_nobodys_way_either(install, said, sample_words, tmp_path, vae_cache):
    kinds = {"sampler": "unipc", "denoiser": "unet", "conditioner": "label"}
    train = ["fit-diffusion", "--config", CONFIG, "--latents", vae_cache, "--out", tmp_path / "ldm", "--device", "cpu", "loop.steps=1"]
    for version, words in (("3.1", train), ("3.2", sample_words)):  # a process says a sentence once
        install("foreign", version, source=NOTHING, **{kind: {name: "Mine"} for kind, name in kinds.items()})
        code, _, err = said(*words)
        assert code == 0 and "the foreign one was made" not in err
        warned = {kind: err.count(f"{kind} '{name}' is offered by ") for kind, name in kinds.items()}
        assert warned["sampler"] == 1 and max(warned.values()) == 1 and (words is not train or min(warned.values()) == 1), err
    header = read_header(tmp_path / "ldm" / "model.safetensors")
    assert "foreign" not in json.dumps(header) and "foreign" not in (tmp_path / "ldm" / "run.json").read_text()
    assert json.loads(Image.open(tmp_path / "samples" / "000000.png").text["ldmctl"])["sampler"]["corrected"] is True, (
        "a key of ldmctl's own"
    )


def test_the_other_one_is_had_by_its_package_everywhere(install, said, sample_words, tmp_path, vae_cache):
    install("my-foreign", "3.1", sampler={"ddim": "Mine"}, source=SAMPLER)
    code, _, err = said(*sample_words, "--sampler", "my-foreign:ddim")
    assert code == 0 and "warning" not in err
    with pytest.raises(AssertionError):
        assert said(*sample_words, "--sampler", "elsewhere:ddim")[0] == 0
    assert said(*sample_words, "sampler={type: my_foreign:ddim, speed: 3}", "--overwrite")[0] == 0
    assert said("plugins", "check", "sampler", "my-foreign:ddim")[0] == 4  # it is the foreign one, which is none
    assert "speed" in said("plugins", "show", "sampler", "my-foreign:ddim")[1]
    tiny = ["--latents", vae_cache, "--out", tmp_path / "ldm", "preview.sampler={type: my-foreign:ddim}", "loop.steps=1", "--dry-run"]
    code, out, _ = said("fit-diffusion", *tiny, "--device", "cpu")
    assert code == 0 and "my-foreign:ddim" in out


def test_two_foreign_ones_of_a_name_are_told_apart(install):
    install("one", sampler={"still": "Mine"}, source=SAMPLER)
    install("two", "2.0", sampler={"still": "Mine"}, source=SAMPLER)
    with pytest.raises(PluginError, match=r"is offered by one 1\.0 and two 2\.0; say which: one:still or two:still"):
        registry.find("sampler", "still")
    assert registry.find("sampler", "two:still").source == "two 2.0"
    assert registry.find("sampler", "still", recorded="one 0.9").source == "one 1.0"


def test_the_schema_for_editors_has_both(install):
    from ldmctl.config.json_schema import config_schema

    install("foreign", sampler={"ddim": "Mine"}, source=SAMPLER)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = json.dumps(config_schema("sample")[0])
    assert '"foreign:ddim"' in text and '"ddim"' in text


def test_doctor_and_the_list_show_clashes_and_groups_that_nobody_reads(install, said):
    install("foreign", sampler={"ddim": "Mine"}, source=SAMPLER)
    install("singular", "0.2", group="ldmctl.sampler", sampler={"still": "Mine"}, source=SAMPLER)
    install("hyphens", "0.3", group="ldmctl-schedules", sampler={"slow": "Mine"}, source=SAMPLER)
    stray = "singular 0.2 offers 'still' in the group ldmctl.sampler, which ldmctl does not read. Did you mean 'ldmctl.samplers'?"
    for command in (["plugins", "list"], ["doctor"]):
        _, out, err = said(*command)
        assert stray in out + err and "the other is foreign:ddim" in out + err
        assert "hyphens 0.3 offers 'slow' in the group ldmctl-schedules" in out + err
    code, _, err = said("plugins", "show", "sampler", "still")
    assert code == 4 and stray in err
    listed = json.loads(said("plugins", "list", "--json")[1])
    assert listed["ignored"] == list(registry.strays()) and len(listed["clashes"]) == 1


@pytest.mark.parametrize("config", ["None", "dict", "Plain()", "type('Config', (), {})", "__import__('pydantic').BaseModel"])
def test_a_class_whose_config_is_none_is_shown_by_doctor(install, said, config):
    install("odd", sampler={"odd": "Mine"}, source=f"class Mine:\n    Config = {config}\n")
    code, out, _ = said("doctor")
    assert code == 0 and "sampler 'odd' from odd 1.0 is broken: TypeError: Mine.Config is not a " in out


def test_a_new_plugin_never_takes_the_package_of_another(install, tmp_path):
    install("ldmctl-ralston", sampler={"ralston": "Mine"}, source=SAMPLER)
    for name in ("ralston", "Ralston"):
        with pytest.raises(
            ConfigError, match=r"ldmctl-ralston is installed already, with a sampler 'ralston'.*such as [rR]alston-schedule"
        ):
            write_package(tmp_path / "here", "schedule", name)
    assert not (tmp_path / "here").exists()
    assert write_package(tmp_path / "here", "schedule", "ralston-schedule")


def test_a_name_of_another_kind_is_said(install):
    with pytest.raises(PluginError, match="There is a sampler of that name"):
        registry.find("schedule", "ddim")


@pytest.mark.parametrize("verb", ["fit-ae", "encode-dataset", "fit-diffusion", "sample", "eval-lpips"])
def test_the_example_in_help_is_a_key_of_the_verb(said, verb, monkeypatch):
    import re

    from ldmctl.config.documents import parse_override
    from ldmctl.config.presets import _has
    from ldmctl.config.schemas.verbs import VERBS

    monkeypatch.setenv("COLUMNS", "300")
    shown = " ".join(said(verb, "--help")[1].split())
    example = re.search(r"Any key of the config, such as (\S+?)\.(?= |$)", shown)[1]
    assert _has(VERBS[verb], parse_override(example))


def test_a_plugin_named_with_its_package_is_the_same_plugin(install, said, sample_words, tmp_path, vae_cache):
    assert said(*sample_words, "--sampler", "ddim")[0] == 0
    code, out, err = said(*sample_words, "sampler={type: ldmctl:ddim}", "--json")
    assert code == 0 and json.loads(out)["made"] == 0, err
    words = ["fit-diffusion", "--config", CONFIG, "--latents", vae_cache, "--out", tmp_path / "ldm", "--device", "cpu"]
    assert said(*words, "loop.steps=2", "schedule=ldmctl:flow")[0] == 0
    assert said(*words, "loop.steps=3", "schedule=flow", "denoiser.type=ldmctl:unet")[0] == 0
    assert "ldmctl:" not in (tmp_path / "ldm" / "config.yaml").read_text()
    install("foreign", "3.1", sampler={"still": "Mine"}, source=SAMPLER)
    assert registry.plain("sampler", "foreign:still") == "still" and registry.plain("sampler", "nowhere:still") == "nowhere:still"
    install("foreign", "3.1", sampler={"ddim": "Mine"}, source=SAMPLER)
    assert registry.plain("sampler", "Foreign:ddim") == "foreign:ddim" and registry.plain("sampler", "ldmctl:ddim") == "ddim"
