"""The keys that benchmarks add to the preset for folders fit together, and with what the preset says today."""

import importlib
from pathlib import Path

import pytest

from ldmctl.config.presets import compose
from ldmctl.config.schemas.verbs import VERBS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def recipes(name, module):
    """The words of every training of a benchmark, by what it is called there."""
    if name == "adversarial":
        return {key: [*module.MODEL, *module.LOSSES, *words] for key, words in module.VARIANTS.items()}
    if name == "beaten":
        return {key: [*module.SETTING, *words] for key, words in module.GUARDS.items()}
    if name == "clothing":
        return {"clothing": [*module.MODEL, *module.LOSSES]}
    if name == "emoji":
        return {"emoji": module.AUTOENCODER}
    if name == "hour":
        return {key: words for key, (_, _, words) in module.TRIED.items()}
    return {
        f"{model} {losses} {guard}": [*module.COMMON, module.MODELS[model], *module.LOSSES[losses], *module.GUARDS[guard]]
        for model in module.MODELS
        for losses in module.LOSSES
        for guard in module.GUARDS
    }


@pytest.mark.parametrize("name", ["adversarial", "beaten", "clothing", "emoji", "hour", "photographs"])
def test_every_recipe_is_a_config(name, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    found = recipes(name, importlib.import_module(name))
    assert found
    for words in found.values():
        config, _ = compose(VERBS["fit-ae"], overrides=["dataset.type=folder", "dataset.path=photos", *words])
        assert config.dataset.path == "photos"


def test_a_cell_is_the_same_whatever_the_preset_has(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("photographs")
    words = ["dataset.type=folder", "dataset.path=photos", *module.COMMON, module.MODELS["vae"], *module.LOSSES["weight"]]
    words += ["loop.steps=800", "loop.batch=16", "loop.lr=1e-3"]  # each is always given
    by_preset, alone = (compose(VERBS["fit-ae"], config=name, overrides=words)[0] for name in ("default", "photographs-256"))
    rare = {"report", "save", "preview"}
    assert by_preset.model_dump(exclude={"loop": rare}) == alone.model_dump(exclude={"loop": rare})
