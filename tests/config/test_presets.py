"""Presets are documents that work, and the layers of a config stand in the order that the README says."""

import pytest

from ldmctl.config import presets
from ldmctl.config.presets import compose, expand_data
from ldmctl.config.schemas.encode_dataset import EncodeDataset
from ldmctl.config.schemas.fit_ae import FitAE
from ldmctl.config.schemas.fit_diffusion import FitDiffusion
from ldmctl.config.schemas.sample import Sample
from ldmctl.errors import ConfigError, DataError
from ldmctl.latents.manifest import Manifest
from ldmctl.latents.recipe import recipe

TRAINING = [(verb, name) for verb in ("fit-ae", "fit-diffusion") for name in presets.names(verb)]


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """An empty folder, and no environment that could choose."""
    monkeypatch.chdir(tmp_path)
    for name in ("LDMCTL_OVERRIDES", "LDMCTL_DATA"):
        monkeypatch.delenv(name, raising=False)


def latents(**changes):
    """What fit-diffusion knows of a cache."""
    raw = {
        "format": 1,
        "moments": (8, 8, 8),
        "latent": (4, 8, 8),
        "dtype": "float16",
        "flipped": True,
        "statistics": {"mean": [0.0], "deviation": [1.0]},
        "classes": ["a", "b"],
        "label_counts": [1, 1],
        "data": "shapes",
        "image": {},
        "autoencoder": {"type": "vae", "fingerprint": ""},
        "fingerprint": "",
        "splits": {},
    }
    return recipe(Manifest.model_validate(raw | changes))


# -- documents ---------------------------------------------------------------


def test_there_are_presets_for_data_and_for_both_trainings():
    assert {"celebhq", "fashion-mnist", "mnist", "shapes"} <= set(presets.names("data"))
    assert len(TRAINING) >= 4


@pytest.mark.parametrize(("verb", "name"), TRAINING)
def test_a_preset_describes_a_run_of_its_verb(verb, name):
    schema, below = (FitAE, None) if verb == "fit-ae" else (FitDiffusion, latents())
    config, source = compose(schema, config=name, below=below)
    assert config.loop.steps > 0 and source == f"--config {name}"


@pytest.mark.parametrize(("verb", "name"), TRAINING)
def test_a_preset_begins_with_what_it_is_and_the_command_that_runs_it(verb, name):
    first, *rest = presets.text(verb, name).splitlines()
    head = [line for line in rest if line.startswith("#")]
    assert first.startswith("# ") and any(f"ldmctl {verb}" in line for line in head)


@pytest.mark.parametrize("name", presets.names("data"))
def test_a_data_preset_names_a_dataset_and_says_what_it_is(name):
    assert presets.text("data", name).startswith("# ") and expand_data(name)["dataset"]["type"]
    config, _ = compose(FitAE, flags={"data": name})
    assert config.data == name and config.dataset is not None


# -- which preset ------------------------------------------------------------


@pytest.fixture
def shelf(monkeypatch):
    """A shelf of presets to look through."""
    known = {
        "fit-ae": {"shapes-vqvae": "loop: {steps: 1}", "shapes": "loop: {steps: 2}", "default": "loop: {steps: 3}"},
        "fit-diffusion": {"shapes-vae": "loop: {steps: 4}", "default": "loop: {steps: 5}"},
    }
    monkeypatch.setattr(presets, "names", lambda folder: sorted(known.get(folder, ["shapes", "mnist"] if folder == "data" else [])))
    read = presets.text
    monkeypatch.setattr(presets, "text", lambda folder, name: known[folder][name] if folder in known else read(folder, name))


@pytest.mark.parametrize(
    ("flags", "steps", "name"),
    [
        ({"data": "shapes", "autoencoder": "vqvae"}, 1, "shapes-vqvae"),
        ({"data": "shapes", "autoencoder": "vae"}, 2, "shapes"),
        ({"data": "shapes"}, 2, "shapes"),
        ({"data": "mnist", "autoencoder": "vae"}, 3, "default"),
        ({}, 3, "default"),
    ],
)
def test_fit_ae_looks_for_data_with_autoencoder_then_data_then_default(shelf, flags, steps, name):
    config, source = compose(FitAE, flags=flags)
    assert (config.loop.steps, source) == (steps, f"preset fit-ae/{name}")


@pytest.mark.parametrize(
    ("below", "flags", "overrides", "size"),
    [
        ({}, {}, [], 64),  # pictures of which nothing says a size
        ({"image": {"size": 96}}, {}, [], 96),  # as those of a run that is begun with
        ({}, {"data": "celebhq"}, [], 256),
        ({}, {}, ["image.size=128"], 128),
    ],
)
def test_the_size_of_the_default_preset_gives_way_to_any_other(monkeypatch, below, flags, overrides, size):
    shown = presets.text
    monkeypatch.setattr(presets, "names", lambda folder: ["default"] if folder == "fit-ae" else ["celebhq"])
    monkeypatch.setattr(presets, "text", lambda folder, name: "image: {size: 64}" if folder == "fit-ae" else shown(folder, name))
    config, _ = compose(FitAE, flags=flags, overrides=overrides, below=below)
    assert config.image.size == size


@pytest.mark.parametrize(("data", "steps"), [("shapes", 4), ("mnist", 5), (None, 5), ("some/shapes", 5)])
def test_fit_diffusion_looks_by_the_data_and_autoencoder_of_the_cache(shelf, data, steps):
    assert compose(FitDiffusion, below=latents(data=data))[0].loop.steps == steps


def test_a_config_may_be_a_file_of_any_name_with_a_suffix(tmp_path):
    (tmp_path / "mine.yaml").write_text("loop: {steps: 7}")
    assert compose(FitAE, config="mine.yaml")[0].loop.steps == 7


# -- layers ------------------------------------------------------------------


def test_environment_beats_preset_words_beat_environment_flags_beat_words(monkeypatch, tmp_path):
    (tmp_path / "p.yaml").write_text("loop: {steps: 1, batch: 1, report: 1}\nmachine: {precision: bf16}")
    monkeypatch.setenv("LDMCTL_OVERRIDES", "loop.steps=2 loop.batch=2 machine.precision=auto")
    words, flags = ["loop.steps=3", "machine.precision=fp32", "machine.device=auto"], {"machine": {"device": "cpu"}}
    config, _ = compose(FitAE, config="p.yaml", overrides=words, flags=flags)
    assert (config.loop.report, config.loop.batch, config.loop.steps) == (1, 2, 3)
    assert (config.machine.precision, config.machine.device) == ("fp32", "cpu")


def test_data_named_beside_a_config_that_spells_out_another_set_are_taken(tmp_path):
    (tmp_path / "run.yaml").write_text("data: mnist\ndataset: {type: idx, path: MNIST/raw}\nimage: {size: 28, channels: 1}")
    (tmp_path / "photos").mkdir()
    for given in ({"flags": {"data": "photos"}}, {"overrides": ["data=photos"]}):
        config, _ = compose(FitAE, config="run.yaml", **given)
        assert (config.data, config.dataset.type, config.dataset.path, config.image.size) == (
            "photos",
            "folder",
            str(tmp_path / "photos"),
            28,
        )
    assert compose(FitAE, config="run.yaml", flags={"data": "mnist"})[0].dataset.path == "MNIST/raw"


def test_a_key_of_the_environment_that_another_verb_has_is_left_to_it(monkeypatch):
    monkeypatch.setenv("LDMCTL_OVERRIDES", "loop.steps=2 spacing=linspace")
    assert compose(Sample)[0].spacing.type == "linspace"
    assert compose(FitAE)[0].loop.steps == 2


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("lop.steps=3", "no verb has the key 'lop.steps'. Did you mean 'loop'?"),
        ("loop.stps=3", "no verb has the key 'loop.stps'"),
        ("nonsense", "'nonsense' is not KEY=VALUE"),
        ("loop.steps='3", "cannot be split into words"),
    ],
)
def test_a_mistake_in_the_environment_is_named_as_such(monkeypatch, value, said):
    monkeypatch.setenv("LDMCTL_OVERRIDES", value)
    with pytest.raises(ConfigError) as caught:
        compose(FitAE)
    assert "LDMCTL_OVERRIDES" in str(caught.value) and said in str(caught.value)


def test_a_value_of_the_environment_may_be_quoted(monkeypatch):
    monkeypatch.setenv("LDMCTL_OVERRIDES", "run='my runs/ae'")
    assert compose(EncodeDataset)[0].run == "my runs/ae"


def test_other_data_replaces_a_parents_pictures_but_not_how_they_are_prepared(tmp_path):
    (tmp_path / "mine").mkdir()
    below = {"data": "shapes", "dataset": {"type": "shapes", "count": 8}, "image": {"size": 24}}
    config, _ = compose(EncodeDataset, flags={"data": "mine"}, below=below)
    assert (config.dataset.type, config.image.size) == ("folder", 24)


# -- data --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "shapes"])
def test_a_folder_called_as_a_preset_gets_the_default_one(tmp_path, name):
    (tmp_path / "photos" / name).mkdir(parents=True)
    assert compose(FitAE, flags={"data": f"photos/{name}"})[1] == "preset fit-ae/default"
    assert compose(FitDiffusion, below={"data": str(tmp_path / "photos" / name)})[1] == "preset fit-diffusion/default"


def test_a_folder_is_looked_for_here_and_below_the_data_root(tmp_path, monkeypatch):
    (tmp_path / "root" / "pets").mkdir(parents=True)
    monkeypatch.setenv("LDMCTL_DATA", str(tmp_path / "root"))
    assert expand_data("pets")["dataset"]["path"] == str(tmp_path / "root" / "pets")


def test_data_that_is_nowhere_names_the_nearest_preset_or_every_place(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'shapes'"):
        expand_data("shaps")
    with pytest.raises(DataError, match=str(tmp_path / "data" / "no" / "where")):
        expand_data("no/where")


def test_a_misspelt_preset_names_the_nearest():
    with pytest.raises(ConfigError, match=r"No fit-ae preset is called 'shaps'\. Did you mean 'shapes'\?"):
        compose(FitAE, config="shaps")


@pytest.mark.parametrize(("content", "said"), [(b"- 1\n- 2\n", "holds list"), (b"\xff\xfe", "not text"), (b"loop: {\n", "not YAML")])
def test_a_config_file_that_is_no_config_is_refused(tmp_path, content, said):
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        compose(FitAE, config="c.yaml")


def test_a_config_that_is_a_folder_or_missing_is_refused(tmp_path):
    (tmp_path / "d.yaml").mkdir()
    for name in ("d.yaml", "none.yaml"):
        with pytest.raises(ConfigError, match="cannot be read"):
            compose(FitAE, config=name)
