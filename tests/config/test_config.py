"""Layers, overrides and YAML mean what a reader of YAML 1.2 expects, and every mistake is named with its path."""

import json
import shlex
from typing import Annotated, ClassVar

import pytest
from pydantic import Field, ValidationError

from ldmctl.config.base import Config, Free, PluginConfig, Slot
from ldmctl.config.differences import fixed_differences, flatten, free_keys
from ldmctl.config.documents import parse_override, parse_overrides, read_yaml, write_override, write_yaml
from ldmctl.config.resolve import explained, merge, plugin_config, resolve, spell_out
from ldmctl.config.schemas.fit_ae import FitAE
from ldmctl.errors import ConfigError, PluginError


class Inner(Config):
    every: int = 1
    rate: float = 1e-4
    sampler: Annotated[PluginConfig, Slot("sampler", default="ddim")]


class Keep(Config):
    last: int = 0


class Verb(Config):
    verb: ClassVar[str] = "try-it"
    steps: int = Field(10, ge=1, json_schema_extra=Free)
    name: str = "x"
    betas: tuple[float, float] = (0.9, 0.99)
    schedule: Annotated[PluginConfig, Slot("schedule", default="cosine")]
    autoencoder: Annotated[PluginConfig | None, Slot("autoencoder")] = None
    tracker: Annotated[PluginConfig | None, Slot("tracker")] = Field(None, json_schema_extra=Free)
    inner: Inner = Field(default_factory=Inner.model_construct)
    keep: Keep = Field(Keep(), json_schema_extra=Free)


def made(*layers):
    return resolve(Verb, layers, source="The test")


def refused(*layers) -> str:
    with pytest.raises(ConfigError) as caught:
        made(*layers)
    return str(caught.value)


# -- layers ------------------------------------------------------------------


def test_later_layers_are_stronger_and_defaults_are_spelled_out():
    config = made({"steps": 20, "inner": {"every": 2}}, {"inner": {"rate": 0.5}}, {"steps": 30})
    assert (config.steps, config.inner.every, config.inner.rate) == (30, 2, 0.5)
    assert config.schedule.type == "cosine" and config.inner.sampler.type == "ddim"
    assert "eta" in config.model_dump()["inner"]["sampler"]
    assert made().model_dump() == made({}).model_dump()


def test_what_was_spelled_out_resolves_to_itself():
    spelled = made({"autoencoder": "vae", "schedule": "linear"}).model_dump(mode="json")
    assert made(spelled).model_dump(mode="json") == spelled
    assert made(read_yaml(write_yaml(spelled), source="a file")).model_dump(mode="json") == spelled


def test_layers_are_not_changed_by_resolving():
    layers = [{"inner": {"every": 2}, "autoencoder": "vae"}, {"schedule": {"type": "linear"}}]
    made(*layers)
    assert layers == [{"inner": {"every": 2}, "autoencoder": "vae"}, {"schedule": {"type": "linear"}}]


def test_a_slot_may_be_written_as_a_name():
    assert spell_out(Verb, {"schedule": "linear", "name": "y", "inner": {"sampler": "ddpm"}}) == {
        "schedule": {"type": "linear"},
        "name": "y",
        "inner": {"sampler": {"type": "ddpm"}},
    }
    assert made({"inner": {"sampler": "ddpm"}}).inner.sampler.type == "ddpm"


@pytest.mark.parametrize(
    ("layers", "merged"),
    [
        # naming another type drops what was written for the first
        ([{"s": {"type": "a", "x": 1}}, {"s": {"type": "b"}}], {"type": "b"}),
        # naming the same keeps it
        ([{"s": {"type": "a", "x": 1}}, {"s": {"type": "a", "y": 2}}], {"type": "a", "x": 1, "y": 2}),
        # layers without a type survive, before and after
        ([{"s": {"x": 1}}, {"s": {"type": "b"}}, {"s": {"y": 2}}], {"x": 1, "type": "b", "y": 2}),
        ([{"s": {"type": "a", "x": 1}}, {"s": {"y": 2}}, {"s": {"type": "b", "z": 3}}], {"y": 2, "type": "b", "z": 3}),
        # back to the first type: its own keys count again
        ([{"s": {"type": "a", "x": 1}}, {"s": {"type": "b", "y": 2}}, {"s": {"type": "a"}}], {"type": "a", "x": 1}),
        # nothing, and something after nothing
        ([{"s": {"type": "a", "x": 1}}, {"s": None}], None),
        ([{"s": {"type": "a", "x": 1}}, {"s": None}, {"s": {"y": 2}}], {"y": 2}),
    ],
)
def test_merging_a_slot(layers, merged):
    assert merge(layers) == {"s": merged}


def test_merging_sections_goes_down_and_replaces_values():
    assert merge([{"a": {"b": {"c": 1, "d": [1, 2]}}, "e": 1}, {"a": {"b": {"d": [3]}}}, {"f": 2}]) == {
        "a": {"b": {"c": 1, "d": [3]}},
        "e": 1,
        "f": 2,
    }


def test_an_optional_slot_stays_empty_and_can_be_emptied():
    assert made().autoencoder is None
    assert made({"autoencoder": "vae"}, {"autoencoder": None}).autoencoder is None


def test_only_the_plugins_that_are_named_are_loaded(monkeypatch):
    from ldmctl import registry

    loaded = []
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda kind, name: (loaded.append((kind, name)), load(kind, name))[1])
    made({"schedule": "cosine"}, {"schedule": "linear"})
    assert loaded == [("schedule", "linear"), ("sampler", "ddim")]


# -- mistakes ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"step": 5}, "step: unknown key. Did you mean 'steps'? Keys here: steps, name, "),
        ({"every": 5}, "every: unknown key. Did you mean 'inner.every'? Keys here: "),
        ({"inner": {"steps": 5}}, "inner.steps: unknown key. Did you mean 'steps'? Keys here: "),
        ({"inner": {"evry": 5}}, "inner.evry: unknown key. Did you mean 'every'? Keys here: every, rate, sampler."),
        ({"inner": {"sampler": {"etta": 1}}}, "inner.sampler.etta: unknown key. Did you mean 'eta'?"),
        (
            {"autoencoder": {"type": "vae", "codebook_size": 8}},
            "autoencoder.codebook_size: unknown key. It is a key of vqvae. Keys here: channels, ",
        ),
        ({"autoencoder": {"type": "vae", "wdths": [8]}}, "autoencoder.wdths: unknown key. Did you mean 'widths'?"),
        ({"keep": {"lst": 1}}, "keep.lst: unknown key. Did you mean 'last'? Keys here: last."),
        ({"steps": 0}, "steps: input should be greater than or equal to 1 (got 0)"),
        ({"steps": "many"}, "steps: input should be a valid integer"),
        ({"betas": [0.9]}, "betas.1: is missing"),
        ({"inner": 5}, "inner: "),
        ({"schedule": 5}, "schedule: "),
        ({"schedule": None}, "schedule: "),
    ],
)
def test_a_mistake_is_named_with_its_full_path(layer, said):
    message = refused(layer)
    assert message.startswith("The test does not describe a try-it run:\n  ") and said in message


def test_every_mistake_is_named_at_once():
    message = refused({"step": 5, "inner": {"evry": 5}, "steps": 0})
    assert len(message.splitlines()) == 4


def test_a_slot_without_a_type_lists_what_there_is():
    message = refused({"autoencoder": {"widths": [8]}})
    assert "autoencoder.type is missing: name a autoencoder" in message or "autoencoder.type is missing: name an autoencoder" in message
    assert "vae" in message and "vqvae" in message


@pytest.mark.parametrize("given", [False, 5, ["words"], "none", "Off", {"type": "no"}])
def test_what_names_no_plugin_lists_what_there_is_and_says_that_null_switches_it_off(tiny, given):
    said = r"conditions\.text.* names no conditioner: take one of inpaint, label, lowres, map, text, words, or null for none"
    with pytest.raises(ConfigError, match=said):
        tiny("fit-diffusion", f"conditions.text={json.dumps(given)}")
    with pytest.raises(ConfigError, match=r"denoiser.* names no denoiser: take one of dit, unet"):
        tiny("fit-diffusion", f"denoiser={json.dumps(given)}")


def test_a_slot_that_must_be_filled_is_not_told_of_null():
    assert "null for none" not in refused({"schedule": None})


def test_an_unknown_plugin_is_a_plugin_error_with_the_nearest_name():
    with pytest.raises(PluginError, match=r"No autoencoder is called 'veqvae'\. Did you mean 'vqvae'\?"):
        made({"autoencoder": "veqvae"})


def test_values_never_change_after_loading():
    with pytest.raises(ValueError, match="frozen"):
        made().steps = 5


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_numbers_are_finite(value):
    assert "inner.rate" in refused({"inner": {"rate": value}})


def test_the_config_of_one_plugin_is_checked_alike():
    assert plugin_config("autoencoder", {"type": "vae"}).type == "vae"
    with pytest.raises(ConfigError, match=r"autoencoder 'vae' cannot be made:\n  wdths: unknown key\. Did you mean 'widths'\?"):
        plugin_config("autoencoder", {"type": "vae", "wdths": [8]})


# -- YAML --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("+2.5e+3", 2500.0),
        ("-.5", -0.5),
        ("3.", 3.0),
        (".inf", float("inf")),
        ("10", 10),
        ("-3", -3),
        ("0", 0),
        ("010", 10),
        ("08", 8),
        ("-007", -7),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("off", "off"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2026-01-31", "2026-01-31"),
        ("1.2.3", "1.2.3"),
        ("1e", "1e"),
        ("'1e-4'", "1e-4"),
        ("[1e-3, no, 2]", [1e-3, "no", 2]),
        ("{a: 1e-3}", {"a": 1e-3}),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    found = read_yaml(text, source="the test")
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("text", ["a: [1, 2", "a: b: c", "\ta: 1", "!!python/object:os.system x", "a: *nobody", "9" * 5000])
def test_what_is_not_yaml_is_a_sentence_with_its_source(text):
    with pytest.raises(ConfigError, match=r"^preset fit-ae/mnist "):
        read_yaml(text, source="preset fit-ae/mnist")


FLOATS = [1e-4, 1e-5, 1.5e-7, 3e-320, 1e22, 1.7976931348623157e308, 0.1, -0.0, 2.0, 100000.0, 1e16, 123456789.123456789]
WORDS = ["", "x", "no", "on", "true", "null", "~", "1", "1.5", "010", "08", "1e-4", "1e5", "-2E+3", "2026-01-31", "a: b", "# no", "ä é"]


@pytest.mark.parametrize(
    "value",
    [*FLOATS, *WORDS, "line\nline", " padded ", 0, 10, -3, 10**20, True, False, None, [1, 2.5, "x"], [], {}, {"a": {"b": [1e-5]}}],
)
def test_written_values_are_read_back(value):
    found = read_yaml(write_yaml({"key": value}), source="the test")["key"]
    assert found == value and type(found) is type(value) and repr(found) == repr(value)


def test_written_floats_are_floats_to_yaml_1_1_too():
    import yaml

    text = write_yaml({"a": 1e-4, "b": 1e-5, "c": 1e22, "d": 2.0, "e": [1e-8]})
    assert yaml.safe_load(text) == {"a": 1e-4, "b": 1e-5, "c": 1e22, "d": 2.0, "e": [1e-8]}
    assert all(type(value) is float for value in [*list(yaml.safe_load(text).values())[:4], *yaml.safe_load(text)["e"]])


def test_keys_keep_their_order_and_lists_one_line():
    assert write_yaml({"b": 1, "a": [1, 2, 3]}) == "b: 1\na: [1, 2, 3]\n"


# -- KEY=VALUE ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "layer"),
    [
        ("steps=5", {"steps": 5}),
        ("a.b.c=1e-3", {"a": {"b": {"c": 1e-3}}}),
        ("name=x=y", {"name": "x=y"}),
        ("name=", {"name": None}),
        ("autoencoder=null", {"autoencoder": None}),
        ("betas=[0.5, 0.9]", {"betas": [0.5, 0.9]}),
        ("inner={every: 3}", {"inner": {"every": 3}}),
        ("name='5'", {"name": "5"}),
        ("name=no", {"name": "no"}),
        ("name=a b", {"name": "a b"}),
    ],
)
def test_an_override_is_a_layer_of_one_key(word, layer):
    assert parse_override(word) == layer


@pytest.mark.parametrize(
    "value", [3, 1e-5, True, None, "features", "/a b/c.pth", "5", "no", "true", "", "a: b", "[x", ["layer1", "a,b"], {"every": 3}]
)
def test_an_override_is_written_as_it_is_read(value):
    (word,) = shlex.split(write_override("a.b", value))
    assert parse_override(word) == {"a": {"b": value}}


@pytest.mark.parametrize("word", ["steps", "=5", ".steps=5", "a..b=1", "a.=1", ""])
def test_what_is_not_key_value_is_a_sentence(word):
    with pytest.raises(ConfigError, match=r"is not KEY=VALUE, such as loop\.steps=500"):
        parse_override(word)


def test_a_forgotten_flag_is_guessed():
    with pytest.raises(ConfigError, match=r"'dry-run' is not KEY=VALUE.* Did you mean --dry-run\?"):
        parse_override("dry-run")


def test_overrides_apply_in_order():
    assert made(*parse_overrides(["steps=5", "inner.every=2", "steps=7", "inner.rate=1e-3"])).model_dump(include={"steps", "inner"}) == (
        made({"steps": 7, "inner": {"every": 2, "rate": 1e-3}}).model_dump(include={"steps", "inner"})
    )


def test_an_override_of_one_key_in_a_slot_keeps_the_type_below():
    config = made({"autoencoder": {"type": "vqvae"}}, *parse_overrides(["autoencoder.widths=[8,16]"]))
    assert config.autoencoder.type == "vqvae" and list(config.autoencoder.widths) == [8, 16]


# -- what may change ---------------------------------------------------------


def test_free_keys_are_paths_of_keys_slots_and_sections():
    assert free_keys(Verb) == {"steps", "tracker", "keep"}


def test_flatten_gives_every_leaf():
    assert dict(flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None})) == {"a.b": 1, "a.c.d": [2], "e": None}


def test_fixed_differences_are_named_and_free_ones_are_not():
    old = made({"autoencoder": "vae"}).model_dump(mode="json")
    free = made({"autoencoder": "vae", "steps": 99, "tracker": "tensorboard", "keep": {"last": 3}}).model_dump(mode="json")
    assert fixed_differences(Verb, old, free) == []
    changed = made({"autoencoder": {"type": "vae", "widths": [8, 8]}, "name": "y", "inner": {"every": 2}}).model_dump(mode="json")
    differences = {path: (before, after) for path, before, after in fixed_differences(Verb, old, changed)}
    assert set(differences) == {"autoencoder.widths", "name", "inner.every"}
    assert differences["inner.every"] == (1, 2) and differences["autoencoder.widths"][1] == [8, 8]


def test_another_plugin_or_none_is_a_fixed_difference():
    old, new = (made({"autoencoder": name}).model_dump(mode="json") for name in ("vae", "vqvae"))
    assert ("autoencoder.type", "vae", "vqvae") in fixed_differences(Verb, old, new)
    none = made().model_dump(mode="json")
    assert ("autoencoder.type", None, "vae") in fixed_differences(Verb, none, old)
    assert ("autoencoder.type", "vae", None) in fixed_differences(Verb, old, none)


def test_a_config_read_back_from_its_file_differs_in_nothing():
    config = made({"autoencoder": "vqvae", "inner": {"rate": 1e-5}})
    written = read_yaml(write_yaml(config.model_dump(mode="json")), source="a file")
    assert fixed_differences(Verb, written, config.model_dump(mode="json")) == []


def test_a_plugins_key_younger_than_a_run_had_its_default():
    old = made({"autoencoder": {"type": "vae"}}).model_dump(mode="json")
    new = made({"autoencoder": {"type": "vae"}}).model_dump(mode="json")
    there = old["autoencoder"].pop("layers")
    assert fixed_differences(Verb, old, new) == []
    assert fixed_differences(Verb, old, made({"autoencoder": {"type": "vae", "layers": 5}}).model_dump(mode="json")) == [
        ("autoencoder.layers", there, 5)
    ]
    assert ("autoencoder.type", "vae", "fsq") in fixed_differences(
        Verb, old, made({"autoencoder": {"type": "fsq"}}).model_dump(mode="json")
    )


def test_a_key_younger_than_a_run_had_its_default():
    old, new = made().model_dump(mode="json"), made().model_dump(mode="json")
    del old["betas"], old["inner"]["every"]
    assert fixed_differences(Verb, old, new) == []
    asked = made({"betas": [0.5, 0.9], "inner": {"every": 2}}).model_dump(mode="json")
    assert fixed_differences(Verb, old, asked) == [("betas", [0.9, 0.99], [0.5, 0.9]), ("inner.every", 1, 2)]


def test_keys_of_plugins_that_are_free_are_found_by_the_plugin_that_is_named():
    from ldmctl.config.schemas.fit_ae import FitAE

    values = {"autoencoder": {"type": "vae"}, "dataset": {"type": "folder"}, "discriminator": None}
    free, noted = (free_keys(FitAE, values=values, mark=mark) for mark in ("free", "noted"))
    assert {"data", "init", "dataset.path", "loop.lr", "loop.report", "autoencoder.kl_weight", "losses"} <= free
    assert {"loop.lr", "autoencoder.kl_weight", "losses"} <= noted and not noted & {"data", "dataset.path", "loop.report"}
    assert not free & {"autoencoder.widths", "dataset.val_share", "dataset.suffixes", "image.size", "loop.seed", "discriminator"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("soon", "adversarial.start: input should be a valid integer, a valid number or 'auto' (got 'soon')"),
        (float("nan"), "adversarial.start: input should be a finite number or 'auto' (got nan)"),
        (-3, "adversarial.start: input should be greater than or equal to 0 or 'auto' (got -3)"),
    ],
)
def test_a_key_of_several_types_has_one_line_for_all_of_them(value, said):
    with pytest.raises(ValidationError) as caught:
        FitAE.model_validate({"data": "shapes", "adversarial": {"start": value}})
    assert said in explained(caught.value, FitAE)
