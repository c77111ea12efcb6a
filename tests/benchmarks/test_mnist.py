"""What benchmarks/mnist.py keeps of a judgement, and the plain recipe that it is compared with."""

import argparse
import importlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from ldmctl.pictures.images import read
from ldmctl.pictures.png import read_png_text

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """benchmark("judge") -> that module of benchmarks/, which import their neighbours by their bare names."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def plain(benchmark):
    """The module benchmarks/plain_recipe.py."""
    return benchmark("plain_recipe")


def test_the_plain_recipe_has_3_6_million_parameters(plain):
    network = plain.Transformer((3, 7, 7), 10)
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(3.6e6, rel=0.02)
    said = network(torch.randn(2, 3, 7, 7), torch.tensor([0.0, 1.0]), torch.tensor([3, 10]))
    assert said.shape == (2, 3, 7, 7)


def test_eulers_method_lands_on_the_point_that_every_velocity_points_to(plain):
    target, noise = torch.randn(2, 3, 7, 7), torch.randn(2, 3, 7, 7)
    engine = plain.engines.Engine(torch.device("cpu"), torch.float32)

    def velocity(x, t, label):
        assert label.tolist() == [4, 5, 10, 10]
        return (x - torch.cat([target, target])) / t.view(-1, 1, 1, 1)  # of x_t = (1 - t) target + t noise

    found = plain.sample(velocity, noise, torch.tensor([4, 5]), 10, 2.0, engine)
    assert torch.allclose(found, target, atol=1e-4)


def test_the_plain_recipe_writes_labelled_samples_of_the_caches_own_autoencoder(plain, monkeypatch, vqvae_cache, tmp_path):
    monkeypatch.setattr(plain, "BATCH", 2)
    monkeypatch.setattr(plain, "STEPS", 2)
    asked = argparse.Namespace(minutes=1e-6, count=3, guidance=2.0, seed=0, device="cpu")
    took = plain.run(vqvae_cache, tmp_path / "once", asked)
    assert took["training_steps"] >= 1
    manifest = plain.manifests.read(vqvae_cache)
    files = sorted((tmp_path / "once").glob("0*.png"))
    assert [file.name for file in files] == ["000000.png", "000001.png", "000002.png"]
    assert [read_png_text(file)["label"] for file in files] == manifest.classes[:3]
    assert read(files[0]).shape == (3, manifest.image["size"], manifest.image["size"])


def test_a_judgement_is_kept_with_real_pictures_beside_each_number(benchmark, fit_diffusion, vae_cache, tmp_path):
    shutil.copytree(vae_cache, tmp_path / "cache")
    fit_diffusion(tmp_path / "runs" / "ldm", tmp_path / "cache", "loop.steps=1")
    words = ["-n", "12", "--extractor", "latent", "--steps", "2", "--device", "cpu", "workers=0"]
    found = benchmark("judge").judge(tmp_path, "judged/labelled", *words)
    whole = json.loads((tmp_path / "judged" / "labelled" / "judgement.json").read_text())
    assert (found["count"], found["made"], found["extractor"]) == (12, 12, "latent")
    for name in ("frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage"):
        value, low, high = found[name]
        assert low <= value <= high and value == pytest.approx(whole["measures"][name]["value"], rel=1e-3)
        assert found["real"][name] == pytest.approx(whole["measures"][name]["real"]["value"], rel=1e-3)
    assert found["seen_as_asked"][0] == pytest.approx(whole["asked"]["value"], rel=1e-3)
    assert found["copied"][0] == pytest.approx(whole["memorisation"]["share"], rel=1e-3) and "copied" not in found["real"]
