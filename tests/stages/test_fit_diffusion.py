"""The second stage learns what theory says, and the same from a cache as from pictures encoded on the way."""

import json
from itertools import product

import pytest
import torch
from PIL import Image

from ldmctl import registry
from ldmctl.config.documents import read_config
from ldmctl.config.presets import pictures_of
from ldmctl.config.resolve import plugin_config
from ldmctl.config.schemas.shared import Loop
from ldmctl.diffusion import objective, preview
from ldmctl.diffusion.denoise import clean_from
from ldmctl.diffusion.network import build_network, describe_network
from ldmctl.diffusion.process import timestep
from ldmctl.diffusion.spacing import time_of
from ldmctl.errors import ConfigError, MismatchError
from ldmctl.latents.codec import Codec, load_autoencoder
from ldmctl.latents.fit import check_same_cache
from ldmctl.latents.manifest import read
from ldmctl.latents.reader import Latents, open_latents
from ldmctl.latents.recipe import recipe
from ldmctl.pictures.loading import on_device, open_pictures
from ldmctl.stages import fit_diffusion as stage
from ldmctl.storage import weights
from ldmctl.training import watch
from ldmctl.training.engine import Engine
from ldmctl.training.learner import Learner

HOST = Engine(torch.device("cpu"), torch.float32)
SHAPE = (2, 4, 4)
STEPS = 200
SMALL = {
    "unet": {"type": "unet", "widths": [16], "layers": 1, "norm_groups": 4, "head_dim": 8},
    "dit": {"type": "dit", "width": 32, "depth": 2, "head_dim": 16},
}
QUICK = [("unet", "cosine", "eps"), ("unet", "flow", "flow"), ("dit", "cosine", "v"), ("dit", "linear", "x0")]
RECIPES = [
    pytest.param(*recipe, marks=() if recipe in QUICK else pytest.mark.slow)
    for recipe in product(SMALL, ("linear", "scaled-linear", "cosine", "flow"), ("eps", "x0", "v", "flow"))
]


@pytest.mark.parametrize(("denoiser", "schedule", "prediction"), RECIPES)
def test_of_gaussian_latents_every_denoiser_learns_the_posterior_mean(tiny, denoiser, schedule, prediction):
    config = tiny("fit-diffusion", f"schedule={schedule}", f"prediction={prediction}", "drop=0", below={"latents": "nowhere"})
    plan, count = registry.build("schedule", config.schedule), 64
    codec = Codec(registry.build("autoencoder", plugin_config("autoencoder", {"type": "identity"}), image_channels=2), HOST)
    torch.manual_seed(0)
    network = build_network(describe_network(plugin_config("denoiser", SMALL[denoiser]), None, latent=SHAPE, classes=[]))
    model = Learner(network, Loop(lr=4e-3, warmup=20, steps=STEPS, decay="cosine", ema=0.98), HOST)
    labels, random = torch.full((count,), -1), torch.Generator().manual_seed(1)
    for step in range(STEPS):
        clean = torch.randn(count, *SHAPE, generator=random)
        drawn = objective.draw(config, count, slice(0, count), clean, labels, codec, plan, HOST, ("noise", step))
        objective.backward({"diffusion": model}, drawn, 1.0, HOST)
        model.update(step)
        model.track(step)
    t = torch.cat([time_of(plan, level) for level in (0.2, 1, 2)])  # of sigma / alpha, which multiplies an error of eps
    alpha, sigma = plan.marginal(t)
    clean, noise = torch.randn(2, 32, 3, *SHAPE)
    x = alpha.float().view(-1, 1, 1, 1) * clean + sigma.float().view(-1, 1, 1, 1) * noise
    with model.averaged(), torch.no_grad():
        for place in range(3):
            said = network(x[:, place], timestep(plan, t[place : place + 1]).expand(32))
            guess = clean_from(prediction, x[:, place], said, float(alpha[place]), float(sigma[place]))
            best = x[:, place] * float(alpha[place] / (alpha[place] ** 2 + sigma[place] ** 2))
            assert (guess - best).square().mean() < 0.05, f"at t={t[place]:.2f}, of deviation {best.std():.2f}"


def test_training_with_the_cache_is_training_that_encodes_on_the_fly(tmp_path, tiny, fit_diffusion, encode, vqvae_run, monkeypatch):
    cache = encode(tmp_path / "cache", vqvae_run, "flip=true", "dtype=float32")
    words = ["flip=true", "loop.steps=6", "loop.lr=1e-4", "loop.warmup=1"]
    cached = weights.load(fit_diffusion(tmp_path / "cached", cache, *words) / "model.safetensors")[0]

    pictures = open_pictures(tiny("encode-dataset", f"run={vqvae_run}", below=pictures_of(vqvae_run)), "train")
    encoder = Codec(load_autoencoder(vqvae_run / "model.safetensors", HOST)[0], HOST)
    encoded = []

    def live(self, items, flipped=None, *, pinned=False):
        image = on_device(pictures.batch([(int(item), None) for item in items]).image, HOST)
        encoded.append(len(image))
        return encoder.encode(torch.where(flipped.view(-1, 1, 1, 1), image.flip(-1), image))

    monkeypatch.setattr(Latents, "stored", live)
    monkeypatch.setattr(stage, "validate", lambda *_: {})
    model = weights.load(fit_diffusion(tmp_path / "live", cache, *words) / "model.safetensors")[0]
    assert sum(encoded) == 6 * 8
    for name in cached:
        torch.testing.assert_close(model[name], cached[name], atol=2e-6, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("rows", [slice(0, 48), slice(48, 96), slice(64, 96), slice(95, 96)])
def test_a_rank_draws_for_its_rows_what_one_process_draws_for_the_whole_batch(tiny, rows):
    config = tiny("fit-diffusion", "drop=0.5", below={"latents": "nowhere"})
    codec = Codec(registry.build("autoencoder", plugin_config("autoencoder", {"type": "identity"}), image_channels=2), HOST)
    moments, labels, plan = torch.randn(96, *SHAPE), torch.arange(96), registry.build("schedule", config.schedule)

    def drawn(rows):
        read = objective.rows_read(rows, 96)
        return objective.draw(config, 96, rows, moments[read], labels[read], codec, plan, HOST, ("noise", 7))

    whole, part = drawn(slice(0, 96)), drawn(rows)
    for name in whole._fields[:7]:
        assert torch.equal(getattr(whole, name)[rows], getattr(part, name)), name


def test_a_rank_reads_its_rows_to_whole_chunks():
    assert objective.rows_read(slice(256, 512), 1024) == slice(256, 512)
    assert objective.rows_read(slice(24, 48), 48) == slice(0, 48)
    assert objective.rows_read(slice(96, 192), 192) == slice(64, 192)


def test_reports_say_the_share_of_the_peak_and_the_memory(tmp_path, fit_diffusion, vae_cache):
    rows = [json.loads(line) for line in (fit_diffusion(tmp_path / "run", vae_cache) / "metrics.jsonl").read_text().splitlines()]
    reports = [row for row in rows if "images_per_second" in row]
    assert reports and all(0 <= row["peak_share"] < 1.5 and row["memory_gib"] > 0.01 for row in reports)


def test_what_is_sampled_are_averages_that_have_moved(tmp_path, fit_diffusion, vae_cache):
    run = fit_diffusion(tmp_path / "run", vae_cache, "loop.steps=4", "loop.ema=0.9")
    state, model = weights.load(run / "state.safetensors")[0], weights.load(run / "model.safetensors")[0]
    begun = weights.load(fit_diffusion(tmp_path / "begun", vae_cache, "loop.steps=1", "loop.lr=1e-12") / "model.safetensors")[0]
    for name in ("denoiser.conv_in.weight", "denoiser.conv_out.weight"):
        assert torch.equal(model[name], state[f"diffusion.average.{name}"])
        assert not torch.equal(model[name], state[f"diffusion.weights.{name}"])
        assert not torch.allclose(model[name], begun[name])


def test_a_cache_with_other_items_is_refused_with_the_counts_or_accepted(tmp_path, fit_diffusion, vae_cache):
    run = fit_diffusion(tmp_path / "run", vae_cache, "loop.steps=2")
    record = json.loads((run / "run.json").read_text())
    manifest = read(vae_cache)
    grown = manifest.model_copy(update={"fingerprint": "another", "splits": {**manifest.splits, "train": manifest.splits["train"] * 2}})
    with pytest.raises(MismatchError, match=r"had 40 training and 8 held-out latents, now it has 80 training.*--accept-data") as caught:
        check_same_cache(record, grown, run, accepted=False)
    assert caught.value.exit_code == 6
    check_same_cache(record, grown, run, accepted=True)
    other = grown.model_copy(update={"classes": ["one", "two"]})
    with pytest.raises(MismatchError, match="classes"):
        check_same_cache(record, other, run, accepted=True)


def test_a_cache_whose_statistics_were_measured_anew_is_refused_though_it_has_the_same_items(tmp_path, fit_diffusion, vae_cache):
    run = fit_diffusion(tmp_path / "run", vae_cache, "loop.steps=2")
    record, manifest = json.loads((run / "run.json").read_text()), read(vae_cache)

    def measured(shift):
        mean = [value + shift * deviation for value, deviation in zip(manifest.statistics.mean, manifest.statistics.deviation, strict=True)]
        return manifest.model_copy(update={"statistics": manifest.statistics.model_copy(update={"mean": mean})})

    older = {name: value for name, value in record.items() if not name.startswith("latent_")}
    check_same_cache(older, manifest, run, accepted=False)  # of a run that does not remember them
    check_same_cache(record, measured(1e-5), run, accepted=False)  # as another machine may measure them
    with pytest.raises(MismatchError, match=r"encoded again. Its statistics have moved by up to 5.00% of a deviation"):
        check_same_cache(record, measured(0.05), run, accepted=True)


def test_a_run_goes_on_with_a_cache_that_has_grown_when_that_is_accepted(tmp_path, fit_diffusion, encode, vae_run):
    pictures = tmp_path / "pictures" / "train"
    pictures.mkdir(parents=True)

    def draw(*numbers):
        for number in numbers:
            Image.effect_noise((16, 16), 40 + number).convert("RGB").save(pictures / f"{number:02d}.png")
        return encode(tmp_path / "cache", vae_run, f"data={pictures.parent}")

    cache = draw(*range(10))
    run = fit_diffusion(tmp_path / "run", cache, "conditioner=null", "loop.steps=2")
    draw(10, 11)
    with pytest.raises(MismatchError, match=r"had 9 training .*, now it has 11 .*--accept-data"):
        fit_diffusion(run, cache, "conditioner=null", "loop.steps=4")
    fit_diffusion(run, cache, "conditioner=null", "loop.steps=4", accept_data=True)
    assert weights.read_header(run / "model.safetensors")["step"] == 4
    assert json.loads((run / "run.json").read_text())["cache_items"]["train"] == 11


def test_a_run_that_goes_on_keeps_the_network_for_as_many_latents_as_it_began_with(tmp_path, fit_diffusion, vae_cache, tiny, quiet):
    run, manifest = fit_diffusion(tmp_path / "run", vae_cache, "loop.steps=2"), read(vae_cache)
    assert json.loads((run / "run.json").read_text())["first_latents"] == manifest.count("train")
    many = manifest.model_copy(update={"splits": {**manifest.splits, "train": manifest.splits["train"] * 30_000}})
    assert recipe(many)["denoiser"] != recipe(manifest)["denoiser"]
    assert recipe(many, run) == {**recipe(manifest), "conditions": read_config(run)["conditions"]}
    assert recipe(many, run, overwrite=True) == recipe(many, tmp_path / "nothing") == recipe(many)


def test_learned_weights_are_saved_resumed_and_not_part_of_the_model(tmp_path, fit_diffusion, vae_cache):
    words = ["weighting.kind=learned", "times.sampling=logit-normal", "loop.lr=1e-2"]
    whole = fit_diffusion(tmp_path / "whole", vae_cache, *words, "loop.steps=6")
    fit_diffusion(tmp_path / "parts", vae_cache, *words, "loop.steps=3")
    parts = fit_diffusion(tmp_path / "parts", vae_cache, *words, "loop.steps=6")
    one, other = (weights.load(run / "state.safetensors")[0] for run in (whole, parts))
    assert one["uncertainty.weights.linear.weight"].any() and one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not [name for name in weights.load(whole / "model.safetensors")[0] if "linear.weight" in name and "uncertainty" in name]


def test_averages_stored_while_training_build_one_of_any_length_that_can_be_sampled(tmp_path, fit_diffusion, vae_cache, quiet, tiny):
    from ldmctl.stages.sample import sample
    from ldmctl.training.posthoc_ema import write_model

    run = fit_diffusion(tmp_path / "run", vae_cache, "loop.steps=6", "loop.keep.averages=2")
    assert sorted(path.name for path in (run / "averages").iterdir()) == [
        f"{step:09d}-{length}.safetensors" for step in (2, 4, 6) for length in ("0.050", "0.100")
    ]
    file, average = write_model(run, 0.1)
    stored = weights.load(run / "averages" / "000000006-0.100.safetensors")[0]
    assert all(torch.allclose(average.tensors[name].float(), stored[name].float(), atol=1e-6) for name in stored)
    sample(tiny("sample", f"run={run}@ema-0.100", "count=1", "steps=1", "machine.device=cpu"), tmp_path / "samples", console=quiet)
    assert file.is_file() and (tmp_path / "samples" / "000000.png").is_file()


def test_validation_is_said_in_bins_of_noise_level(tmp_path, fit_diffusion, vae_cache):
    rows = [json.loads(line) for line in (fit_diffusion(tmp_path / "run", vae_cache) / "metrics.jsonl").read_text().splitlines()]
    last = next(row for row in reversed(rows) if "val/loss" in row)
    bins = {name: value for name, value in last.items() if name.startswith("val/loss_sigma_")}
    assert len(bins) >= 3 and min(bins.values()) <= last["val/loss"] <= max(bins.values())


@pytest.mark.parametrize(("most", "classes"), [(4, [0, 1, 2, 3]), (512, [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4)])
def test_a_validation_looks_all_over_the_split_or_at_each_latent_in_order(tiny, sorted_cache, monkeypatch, most, classes):
    monkeypatch.setattr(objective, "VALIDATED", most)
    monkeypatch.setattr(objective, "CHUNK", 3)
    config, manifest, heard = tiny("fit-diffusion", below={"latents": "nowhere"}), read(sorted_cache), []
    codec = Codec(load_autoencoder(sorted_cache / "autoencoder.safetensors", HOST)[0], HOST, manifest.statistics)

    def network(x, timesteps, labels, dropped):
        heard.extend(labels.tolist())
        return torch.zeros_like(x)

    val = open_latents(sorted_cache, manifest, "val")
    found = objective.validate(config, network, val, codec, registry.build("schedule", config.schedule), HOST)
    assert heard == classes and found["val/loss"] > 0


def test_a_preview_shows_only_classes_that_are_trained(tmp_path, fit_diffusion, sorted_cache, monkeypatch):
    assert read(sorted_cache).label_counts == [3, 3, 0, 3]
    asked, whole = [], preview.sample_latents
    monkeypatch.setattr(
        preview, "sample_latents", lambda *given, **words: (asked.append([ask.label for ask in words["asks"]]), whole(*given, **words))[1]
    )
    fit_diffusion(tmp_path / "run", sorted_cache, "preview.count=5", "loop.steps=1")
    assert asked == [[0, 1, 3, 0, 1]]


def test_previews_that_need_what_is_never_learned_are_refused_before_the_first_step(tmp_path, fit_diffusion, vae_cache):
    for guidance in ("3", "0"):
        with pytest.raises(ConfigError, match=rf"preview\.guidance={guidance} .* drop=0 .*Take drop=0\.1, or preview\.guidance=1\."):
            fit_diffusion(tmp_path / "run", vae_cache, "drop=0", f"preview.guidance={guidance}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [["drop=0"], ["preview.guidance=3"], ["drop=0", "preview.guidance=3", "conditioner=null"]])
def test_previews_that_need_nothing_more_are_made(tmp_path, fit_diffusion, vae_cache, words):
    run = fit_diffusion(tmp_path / "run", vae_cache, *words, "loop.steps=1")
    assert (run / "samples" / "000000001.png").is_file()


def test_a_denoiser_whose_validation_loss_rises_is_warned_of_once(tmp_path, fit_diffusion, vae_cache, monkeypatch):
    monkeypatch.setattr(watch, "APART", 1)
    given = iter([1.0] * 14 + [2.0] * 6 + [1.0] * 14)
    monkeypatch.setattr(stage, "validate", lambda *_: {"val/loss": next(given), "val/low": 5.0})
    words = ["loop.watch.every=0.001", "loop.save=100", "loop.preview=100"]
    run = fit_diffusion(tmp_path / "run", vae_cache, *words, "loop.steps=18")
    fit_diffusion(run, vae_cache, *words, "loop.steps=20")
    (event,) = json.loads((run / "run.json").read_text())["watch"]
    assert (event["step"], event["what"]) == (17, "risen")
    assert event["why"] == (
        "loss has risen from 1 around step 14 to 2 or more in its last three validations. If it stays so, a lower loop.lr is likely to help; snapshots/best is kept."
    )
    given = iter([1.0, 2.0])
    fit_diffusion(run, vae_cache, *words, "loop.steps=21")
    assert len(json.loads((run / "run.json").read_text())["watch"]) == 1, "and not again when it goes on"
    given, off = (
        iter([1.0] * 14 + [2.0] * 6),
        [*words[1:2], "loop.preview=1", "preview.steps=1", "preview.count=1", "loop.watch.bound=null"],
    )
    fit_diffusion(tmp_path / "off", vae_cache, *off, "loop.steps=20")
    assert "watch" not in json.loads((tmp_path / "off" / "run.json").read_text())
