"""Editors know every key: presets and configs of runs fit the JSON Schema, and what ldmctl refuses does not."""

import json
import re
import sys
import textwrap
from importlib.resources import files
from pathlib import Path

import pytest

from ldmctl import registry
from ldmctl.cli.app import run
from ldmctl.config import presets
from ldmctl.config.base import section_of, slot_of
from ldmctl.config.documents import read_yaml, write_yaml
from ldmctl.config.json_schema import SUBJECTS, config_schema, plugin_schema
from ldmctl.config.presets import compose
from ldmctl.config.resolve import resolve
from ldmctl.errors import ConfigError

jsonschema = pytest.importorskip("jsonschema")
SHIPPED = ("data", "fit-ae", "fit-diffusion")
PRESETS = [(folder, name) for folder in SHIPPED for name in presets.names(folder)]
CONFIGS = Path(str(files("ldmctl_configs")))


@pytest.fixture(scope="module")
def wrong():
    """wrong("fit-ae", "loop: {steps: x}") -> what the schema says against it, [] where it fits."""
    validators = {subject: jsonschema.Draft202012Validator(config_schema(subject, built_in=True)[0]) for subject in SUBJECTS}

    def errors(subject, text):
        return [error.message for error in validators[subject].iter_errors(read_yaml(text, source="test"))]

    return errors


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Two samplers of another package, one of which cannot be imported."""
    metadata = tmp_path / "site" / "still-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "entry_points.txt").write_text("[ldmctl.samplers]\nstill = json_still:Still\nbroken = json_broken:Broken\n")
    (tmp_path / "site" / "json_broken.py").write_text("raise RuntimeError('no driver')")
    still = """
        from typing import Any, Callable
        from ldmctl.config import PluginConfig
        class Still:
            "Stands still."
            class Config(PluginConfig):
                speed: int = 1
                curve: Callable[[Any], Any] | None = None
    """
    (tmp_path / "site" / "json_still.py").write_text(textwrap.dedent(still))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    registry._advertised.cache_clear()
    yield
    registry._advertised.cache_clear()


# -- what fits -----------------------------------------------------------------


@pytest.mark.parametrize("subject", SUBJECTS)
def test_it_is_a_schema_of_draft_2020_12(subject):
    document, broken = config_schema(subject)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema" and not broken
    jsonschema.Draft202012Validator.check_schema(document)


@pytest.mark.parametrize(("folder", "name"), PRESETS)
def test_every_preset_fits(folder, name, wrong):
    assert len(PRESETS) >= 20
    assert wrong(folder, presets.text(folder, name)) == []


@pytest.mark.parametrize(("folder", "name"), PRESETS)
def test_every_preset_names_its_schema_where_editors_look(folder, name):
    header = [line for line in presets.text(folder, name).splitlines() if line.startswith("#")]
    (line,) = [line for line in header[1:] if re.match(r"^#\s+yaml-language-server\s*:", line)]  # the first line describes the preset
    assert (CONFIGS / folder / line.partition("$schema=")[2]).resolve() == (CONFIGS / "schema" / f"{folder}.json").resolve()


@pytest.mark.parametrize("verb", [subject for subject in SUBJECTS if subject != "data"])
def test_the_config_that_a_run_writes_fits(verb, wrong, monkeypatch):
    monkeypatch.delenv("LDMCTL_OVERRIDES", raising=False)
    words = {
        "fit-ae": ["discriminator=patchgan", "perceptual=lpips", "tracker=csv", "data=shapes"],
        "fit-diffusion": ["conditioner=label"],
    }
    config, _ = compose(SUBJECTS[verb], overrides=words.get(verb, []))
    assert wrong(verb, write_yaml(config.model_dump(mode="json"))) == []


@pytest.mark.parametrize("kind", registry.GROUPS)
def test_the_defaults_of_every_plugin_fit(kind):
    assert registry.plugins(kind)
    for plugin in registry.plugins(kind):
        model, schema = plugin.load().Config, plugin_schema(plugin)
        needed = {name: 0 if field.annotation is int else "red" for name, field in model.model_fields.items() if field.is_required()}
        jsonschema.validate(model(**{**needed, "type": plugin.name}).model_dump(mode="json"), schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("fit-ae", "autoencoder: vqvae"),
        ("fit-ae", "autoencoder: {norm_groups: 8}"),  # of the default, vae
        ("fit-ae", "dataset: {val_share: 0.1}"),  # `data` names the type
        ("fit-ae", "discriminator: null"),
        ("fit-ae", "loop: {betas: [0.9, 0.95], micro: auto, lr: 1e-4}"),
        ("fit-diffusion", "conditions: {label: {dim: 64}}"),  # of the type that the cache asks for
        ("fit-diffusion", "preview: {sampler: {type: ddpm}, count: 4}"),
        ("data", "dataset: {type: folder, path: birds}"),
        ("data", "{}"),
    ],
)
def test_what_may_be_written_fits(subject, text, wrong):
    assert wrong(subject, text) == []


# -- what does not -------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("fit-ae", "autoencodr: vae"),
        ("fit-ae", "loop: {step: 10}"),
        ("fit-ae", "loop: {steps: many}"),
        ("fit-ae", "loop: {steps: 0}"),
        ("fit-ae", "loop: {steps: true}"),
        ("fit-ae", "loop: {ema: 1.0}"),
        ("fit-ae", "losses: {pixel: l3}"),
        ("fit-ae", "autoencoder: vqvea"),
        ("fit-ae", "autoencoder: null"),
        ("fit-ae", "autoencoder: {type: vae, codebook_size: 512}"),  # a key of vqvae
        ("fit-ae", "autoencoder: {codebook_size: 512}"),
        ("fit-ae", "autoencoder: {type: vae, widths: 64}"),
        ("fit-ae", "discriminator: {widths: [64]}"),  # which?
        ("fit-ae", "denoiser: unet"),  # a key of another verb
        ("fit-diffusion", "preview: {sampler: {type: ddpm, etta: 1}}"),
    ],
)
def test_what_ldmctl_refuses_does_not_fit(subject, text, wrong):
    assert len(wrong(subject, text)) == 1
    with pytest.raises((ConfigError, registry.PluginError)):
        resolve(SUBJECTS[subject], [read_yaml(text, source="test")], source="test")


@pytest.mark.parametrize("text", ["dataset: {path: birds}", "dataset: null", "loop: {steps: 5}", "image: {size: 2}"])
def test_a_data_preset_names_its_dataset_and_nothing_else_but_pictures(text, wrong):
    assert len(wrong("data", text)) == 1


# -- what editors show ---------------------------------------------------------


def test_keys_say_what_they_mean_their_default_and_their_range():
    ema = config_schema("fit-ae")[0]["$defs"]["Loop"]["properties"]["ema"]
    assert ema.items() >= {"type": "number", "default": 0.999, "minimum": 0, "exclusiveMaximum": 1}.items()
    assert "averaged weights" in ema["description"]
    steps = config_schema("fit-ae")[0]["$defs"]["Loop"]["properties"]["steps"]
    assert steps["description"] == "optimizer steps; may change when a run is resumed" and "free" not in steps


def test_a_slot_offers_every_plugin_by_name_and_says_what_each_is():
    slot = config_schema("fit-diffusion", built_in=True)[0]["properties"]["schedule"]
    names, *variants = slot["anyOf"]
    assert {"cosine", "flow", "linear"} <= set(names["enum"]) and slot["default"] == "cosine" and slot["description"]
    assert [variant["properties"]["type"]["const"] for variant in variants] == names["enum"]
    assert all(variant["description"] for variant in variants)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_key_that_has_a_description_keeps_it(subject):
    document, seen = config_schema(subject)[0], 0

    def walk(model, place):
        nonlocal seen
        for name, field in model.model_fields.items():
            seen += 1
            key = place["properties"][name]
            assert (field.description or "") in key.get("description", ""), name
            assert slot_of(field) is None or key["description"]
            if (section := section_of(field)) is not None:
                walk(section, document["$defs"][section.__name__])

    walk(SUBJECTS[subject], document)
    assert seen > 5


# -- plugins of others ---------------------------------------------------------


def test_a_broken_plugin_is_left_out_and_named(broken, capsys):
    assert run(["configs", "schema", "sample"]) == 0
    said = capsys.readouterr()
    slot = json.loads(said.out)["properties"]["sampler"]
    assert "still" in slot["anyOf"][0]["enum"] and "broken" not in slot["anyOf"][0]["enum"]
    assert "warning: Left out of the schema: sampler 'broken' from still 1.0 is broken: RuntimeError: no driver" in said.err


def test_a_key_that_json_has_no_word_for_may_be_anything(broken):
    still = plugin_schema(registry.find("sampler", "still"))
    assert set(still["properties"]) == {"type", "speed", "curve"} and still["description"] == "Stands still."
    jsonschema.Draft202012Validator.check_schema(still)


def test_shipped_schemas_hold_only_the_plugins_of_ldmctl(broken):
    assert {"ddim", "ddpm", "heun"} <= set(config_schema("sample", built_in=True)[0]["properties"]["sampler"]["anyOf"][0]["enum"])


# -- files ---------------------------------------------------------------------


@pytest.mark.parametrize("subject", SHIPPED)
def test_the_shipped_schema_is_fresh(subject):
    shipped = json.loads((CONFIGS / "schema" / f"{subject}.json").read_text(encoding="utf-8"))
    command = f"ldmctl configs schema {subject} --built-in --out configs/schema/{subject}.json"
    assert shipped == config_schema(subject, built_in=True)[0], f"keys have changed since it was written: {command}"


def test_a_schema_for_each_folder_of_presets_is_shipped_and_no_other():
    assert sorted(file.stem for file in (CONFIGS / "schema").iterdir()) == sorted(SHIPPED)


def test_the_command_writes_a_file_and_says_the_line_that_editors_want(tmp_path, capsys):
    file = tmp_path / "editors" / "fit-ae.json"
    assert run(["configs", "schema", "fit-ae", "--out", str(file)]) == 0
    assert json.loads(file.read_text()) == config_schema("fit-ae")[0]
    assert f"# yaml-language-server: $schema={file.as_uri()}\n" in capsys.readouterr().out


def test_a_schema_that_cannot_be_written_is_a_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(["configs", "schema", "fit-ae", "--out", str(tmp_path / "file" / "schema.json")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_preset_that_is_shown_names_its_schema_by_the_full_path(capsys):
    assert run(["configs", "show", "fit-ae/mnist"]) == 0
    shown = capsys.readouterr().out
    (line,) = [line for line in shown.splitlines() if "yaml-language-server" in line]
    assert line.endswith((CONFIGS / "schema" / "fit-ae.json").as_uri())
    assert read_yaml(shown, source="shown") == presets.read("fit-ae", "mnist")


def test_a_subject_that_is_not_there_gives_the_nearest(capsys):
    assert run(["configs", "schema", "fit-aee"]) == 2
    assert "Did you mean 'fit-ae'?" in capsys.readouterr().err
