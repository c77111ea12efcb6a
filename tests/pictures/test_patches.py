"""`image.patch`: an autoencoder may train on parts of pictures, and is judged and used on whole ones."""

import json

import pytest
import torch

from ldmctl.config.schemas.shared import Image
from ldmctl.pictures import images
from ldmctl.storage import weights


def at(picture: torch.Tensor, patch: torch.Tensor) -> list[tuple[int, int]]:
    """(top, left) of all places where the patch lies in the picture."""
    height, width = patch.shape[1:]
    places = [(top, left) for top in range(picture.shape[1] - height + 1) for left in range(picture.shape[2] - width + 1)]
    return [(top, left) for top, left in places if torch.equal(picture[:, top : top + height, left : left + width], patch)]


def noise(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def drawn(picture: torch.Tensor, settings: Image, seed: int) -> torch.Tensor:
    return images.finish(picture, settings, torch.Generator().manual_seed(seed))


def test_a_patch_lies_everywhere_in_its_picture_and_nowhere_else():
    picture, settings = noise(8, 8), Image(size=8, patch=4)
    places = [at(picture, drawn(picture, settings, seed)) for seed in range(1000)]
    assert {len(found) for found in places} == {1}
    counts = torch.zeros(5, 5)
    for [(top, left)] in places:
        counts[top, left] += 1
    assert counts.min() > 15 and counts.max() < 75  # of 40 expected: four and five and a half deviations


def test_a_patch_may_be_mirrored_and_lies_in_what_the_crop_leaves():
    picture = noise(8, 12)
    centre = picture[:, :, 2:10]
    plain = [drawn(picture, Image(size=8, patch=4), seed) for seed in range(40)]
    assert all(at(centre, patch) for patch in plain)
    mirrored = [drawn(picture, Image(size=8, patch=4, flip=True), seed) for seed in range(40)]
    assert {torch.equal(one, other) for one, other in zip(plain, mirrored, strict=True)} == {True, False}
    assert all(torch.equal(one, other) or torch.equal(one.flip(-1), other) for one, other in zip(plain, mirrored, strict=True))
    assert any(not at(centre, drawn(picture, Image(size=8, patch=4, crop="random"), seed)) for seed in range(40))


def test_what_was_drawn_before_there_were_patches_is_drawn_still():
    picture = noise(8, 12)
    whole, part = (Image(size=8, crop="random", flip=True, patch=patch) for patch in (None, 8))
    assert all(torch.equal(drawn(picture, whole, seed), drawn(picture, part, seed)) for seed in range(20))


def test_pictures_that_are_judged_are_whole():
    assert images.finish(noise(8, 8), Image(size=8, patch=4), None).shape == (3, 8, 8)


def test_pictures_no_larger_than_a_patch_are_whole():
    sides = [Image(size=8, patch=patch).trained for patch in (None, 4, 8, 16)]
    assert sides == [8, 4, 8, 8]
    picture = noise(8, 12)
    whole, part = (Image(size=8, crop="random", flip=True, patch=patch) for patch in (None, 16))
    assert all(torch.equal(drawn(picture, whole, seed), drawn(picture, part, seed)) for seed in range(20))


@pytest.fixture(scope="module")
def run(tmp_path_factory, fit_ae):
    """Trained on a quarter of each picture, with a discriminator."""
    critic = ["discriminator={type: patchgan, widths: [8]}", "adversarial.start=1", "loop.micro=auto"]
    return fit_ae(tmp_path_factory.mktemp("patches") / "ae", "image.size=32", "image.patch=16", *critic)


def test_a_run_is_judged_on_whole_pictures(run):
    record = json.loads((run / "run.json").read_text())
    assert record["judged"]["latent"]["shape"] == [3, 16, 16]


def test_a_network_is_shown_patches_in_training(tmp_path, fit_ae, monkeypatch):
    from ldmctl_plugins.autoencoders.vae import VAE

    shown, forward = [], VAE.forward
    monkeypatch.setattr(VAE, "forward", lambda self, image, *rest: (shown.append(tuple(image.shape)), forward(self, image, *rest))[1])
    fit_ae(tmp_path / "ae", "image.size=32", "image.patch=16", "loop.steps=2")
    assert len(shown) == 2 and {shape[2:] for shape in shown} == {(16, 16)}


def test_a_run_continues_with_the_patches_that_it_would_have_drawn(tmp_path, fit_ae):
    words = ["image.size=32", "image.patch=16", "image.crop=random"]
    whole = fit_ae(tmp_path / "whole", *words, "loop.steps=4")
    parts = fit_ae(tmp_path / "parts", *words, "loop.steps=2")
    fit_ae(parts, *words, "loop.steps=4")
    one, other = (weights.load(folder / "model.safetensors")[0] for folder in (whole, parts))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_cache_holds_whole_pictures_whatever_was_trained_on(tmp_path, run, encode):
    cache = encode(tmp_path / "cache", run)
    assert (made := json.loads((cache / "latents.json").read_text()))["latent"] == [3, 16, 16]
    assert "patch" not in made["preparation"]["image"]


def test_the_time_of_a_run_is_that_of_steps_on_patches(tiny, monkeypatch):
    from ldmctl import plan

    shown, rehearsal = [], plan.rehearsal

    def watched(*given):
        step = rehearsal(*given)
        return lambda pictures: (shown.append(tuple(pictures.shape[2:])), step(pictures))[1]

    monkeypatch.setattr(plan, "rehearsal", watched)
    planned = plan.plan_fit_ae(tiny("fit-ae", "image.size=32", "image.patch=16"))
    assert set(shown) == {(16, 16)} and planned["latent"] == "3 x 16 x 16"


def test_whole_pictures_are_judged_in_the_room_of_as_many_pixels_of_patches(tmp_path, fit_ae, monkeypatch):
    from ldmctl.latents.codec import Codec

    seen, forward = [], Codec._run

    def noted(codec, network, x, scale=1):
        seen.append((codec.at_once, len(x)))
        return forward(codec, network, x, scale)

    monkeypatch.setattr(Codec, "_run", noted)
    fit_ae(tmp_path / "ae", "image.size=32", "image.patch=16", "loop.steps=2", "loop.preview=1", "loop.micro=8")
    assert {at_once for at_once, _ in seen} == {None, 2}
    assert max(count for at_once, count in seen if at_once is None) == 2


def test_a_run_says_that_it_trains_on_parts(tmp_path, tiny, capsys):
    from ldmctl.console import Console
    from ldmctl.stages.fit_ae import fit_ae

    fit_ae(tiny("fit-ae", "image.size=32", "image.patch=16", "loop.steps=1"), tmp_path / "parts", console=Console())
    assert "40 pictures, in parts of 16x16 pixels, 8 held out" in capsys.readouterr().err
    fit_ae(tiny("fit-ae", "loop.steps=1"), tmp_path / "whole", console=Console())
    assert "40 pictures, 8 held out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "why", "ways"),
    [
        (["image.patch=16"], "its GroupNorms meet other means and variances,", "; not with autoencoder.norm=layer."),
        (
            ["image.patch=16", "autoencoder.attention=true"],
            "its GroupNorms meet other means and variances and its attention meets more pixels,",
            "; not with autoencoder.norm=layer autoencoder.attention=false.",
        ),
        (
            ["image.patch=16", "autoencoder.attention=true", "autoencoder.norm=layer"],
            "its attention meets more pixels,",
            "; not with autoencoder.attention=false.",
        ),
        (["image.patch=16", "autoencoder.norm=layer"], None, None),
        (["image.patch=24"], None, None),
        ([], None, None),
    ],
)
def test_what_whole_pictures_are_to_a_network_that_learns_from_parts_is_said_once(tmp_path, tiny, capsys, words, why, ways):
    from ldmctl.console import Console
    from ldmctl.stages.fit_ae import fit_ae

    for steps in (1, 2):
        fit_ae(tiny("fit-ae", "image.size=48", f"loop.steps={steps}", *words), tmp_path / "ae", console=Console())
        said = " ".join(capsys.readouterr().err.split())
        expected = why is not None and steps == 1
        assert ("The autoencoder learns from parts of 16x16 pixels. In whole pictures of 48x48" in said) == expected
        if expected:
            assert f"In whole pictures of 48x48 {why} so they may turn out worse than the parts{ways}" in said
