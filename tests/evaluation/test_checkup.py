"""`ldmctl doctor --run`: each link of a run's chain has a sentence, and the link that is broken is the one that is named."""

import json
import math
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image

from ldmctl import registry
from ldmctl.cli.app import run as command
from ldmctl.config.documents import read_config, write_yaml
from ldmctl.diffusion.denoise import Denoise
from ldmctl.diffusion.network import build_network
from ldmctl.errors import ConfigError, MismatchError
from ldmctl.evaluation import checkup as walk
from ldmctl.evaluation import latent_links, network_links
from ldmctl.evaluation.checkup import checkup
from ldmctl.evaluation.diagnosis import CAUSES, Link, conclusion, judge_channels, judge_labels, judge_ratios, judge_samples, strayed
from ldmctl.evaluation.lineage import Lineage, error_ratio, noise_levels, open_lineage, originals
from ldmctl.pictures.images import read
from ldmctl.pictures.png import read_png_text
from ldmctl.storage import weights
from ldmctl.testing.promises import seeded
from ldmctl.training import engine as engines
from ldmctl.training import order

NAMES = ["reconstruct", "whiten", "denoise", "labels", "sample", "average"]


@pytest.fixture(scope="module", autouse=True)
def few():
    """Fewer latents and samples than a person needs, so that a walk takes a second."""
    patch = pytest.MonkeyPatch()
    for links in (latent_links, network_links):
        patch.setattr(links, "DECODED", 4)
    for module in (walk, network_links):
        patch.setattr(module, "SHOWN", 3)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def ldm(tmp_path_factory, fit_diffusion, vae_cache):
    """A tiny run of fit-diffusion. Read only."""
    return fit_diffusion(tmp_path_factory.mktemp("checkup") / "ldm", vae_cache)


@pytest.fixture(scope="module")
def found(ldm, tmp_path_factory):
    """What the checkup says of it."""
    return checkup(str(ldm), out=tmp_path_factory.mktemp("picture"), device="cpu")


@pytest.fixture
def changed(ldm, tmp_path):
    """changed(tensors=f, header=g) -> a copy of the run whose model's tensors and header went through f and g."""

    def copy(tensors=lambda held: held, header=lambda held: held):
        folder = shutil.copytree(ldm, tmp_path / "ldm")
        held, described = weights.load(folder / "model.safetensors")
        weights.save(folder / "model.safetensors", tensors(held), header(described))
        return folder

    return copy


def links_of(folder):
    found = checkup(str(folder), device="cpu")
    return {link["name"]: link for link in found["links"]}, found["conclusion"]


# -- a whole walk --------------------------------------------------------------


def test_every_link_has_a_verdict_a_sentence_and_its_place(found):
    assert [link["name"] for link in found["links"]] == NAMES
    for link in found["links"]:
        known = link["name"] != "labels"  # of whose four classes nothing is said
        assert (link["verdict"] in ("good", "weak", "broken")) == known and len(link["sentence"]) > 40, link
        assert math.isfinite(link["number"]), link
        assert bool(link["change"]) == (link["verdict"] in ("weak", "broken")), link


def test_a_run_on_its_own_cache_is_white_by_its_own_statistics(found):
    whiten = found["links"][1]
    assert whiten["verdict"] == "good" and whiten["statistics_gap"] == 0 and not whiten["cache_changed"]
    assert whiten["count"] == 40 and whiten["deviations"] == pytest.approx([1, 1, 1], abs=0.1)


def test_an_autoencoder_of_four_steps_is_the_first_broken_link(found):
    assert found["links"][0]["verdict"] == "broken" and found["links"][0]["lost"] > 0.5
    assert found["conclusion"].startswith("The first broken link is reconstruct: ") and "loop.steps" in found["conclusion"]


def test_one_picture_shows_all_and_says_what(found):
    picture = read(found["picture"])
    rows, columns = 2 + 2 * 5 + 1, 1 + 3
    assert picture.shape[1:] == (rows * 98 - 2, columns * 98 - 2)
    text = read_png_text(found["picture"])["Description"]
    assert "originals; decoded latents" in text and "noised, sigma/alpha 0.1" in text and "samples" in text
    assert all(link["sentence"] in text for link in found["links"])


def test_the_same_run_gives_the_same_words_and_the_same_bytes(ldm, found, tmp_path):
    again = checkup(str(ldm), out=tmp_path, device="cpu")
    assert again["links"] == found["links"]
    assert (tmp_path / "checkup.png").read_bytes() == Path(found["picture"]).read_bytes()


# -- what it looks at ---------------------------------------------------------


def test_every_link_looks_at_latents_of_all_classes_and_makes_samples_of_the_trained_ones(sorted_run, tmp_path, monkeypatch):
    monkeypatch.setattr(network_links, "DENOISED", 4)
    taken, made, take, make = [], [], Lineage.take, network_links.sample_latents
    monkeypatch.setattr(Lineage, "take", lambda *given, **words: (taken.append(take(*given, **words)), taken[-1])[1])
    monkeypatch.setattr(
        network_links,
        "sample_latents",
        lambda *given, **words: (made.append([ask.label for ask in words["asks"]]), make(*given, **words))[1],
    )
    links = {link["name"]: link for link in checkup(str(sorted_run), out=tmp_path, device="cpu")["links"]}
    seen = [(items.split, items.labels.unique().tolist()) for items in taken]
    assert sorted(seen) == [("train", [0, 1, 3]), *[("val", [0, 1, 2, 3])] * 5]
    assert (links["labels"]["classes"], links["labels"]["wrong"]) == (4, 0)
    assert made == [[0, 1, 3, 0]]


def test_originals_are_the_pictures_of_these_latents_and_no_other_is_opened(sorted_run, monkeypatch):
    lineage = open_lineage(sorted_run / "model.safetensors", engines.Engine(torch.device("cpu"), torch.float32))
    items, opened, whole = lineage.take("val", 4), set(), Image.open
    monkeypatch.setattr(Image, "open", lambda file, *more: (opened.add("/".join(Path(file).parts[-2:])), whole(file, *more))[1])
    found, pictures = originals(lineage, items)
    assert found == [0, 1, 2, 3] and pictures.label == items.labels.tolist() == [0, 1, 2, 3]
    assert opened == {"cat/0.png", "dog/1.png", "rare/2.png", "wolf/3.png"}


# -- what is broken is named ---------------------------------------------------


def test_a_network_with_random_weights_has_learned_nothing(changed):
    links, _ = links_of(changed(tensors=lambda held: {name: torch.randn_like(value) / 9 for name, value in held.items()}))
    assert links["denoise"]["verdict"] == "broken" and "has learned nothing after 4 steps at loop.lr=0.001" in links["denoise"]["sentence"]
    assert min(links["denoise"]["ratios"]) > 0.9


def test_statistics_that_are_ten_times_too_large_break_whitening(changed):
    def tenfold(header):
        return {**header, "statistics": {name: [10 * value for value in values] for name, values in header["statistics"].items()}}

    links, _ = links_of(changed(header=tenfold))
    assert links["whiten"]["verdict"] == "broken" and links["whiten"]["channels"] == [0, 1, 2]
    assert links["whiten"]["number"] == pytest.approx(0.1, abs=0.01)
    assert "channels 0, 1, 2" in links["whiten"]["sentence"] and "not the cache's" in links["whiten"]["sentence"]


def test_another_autoencoder_beside_the_model_breaks_whitening(changed):
    folder = changed()
    held, header = weights.load(folder / "autoencoder.safetensors")
    weights.save(folder / "autoencoder.safetensors", {name: value + 0.01 for name, value in held.items()}, header)
    links, said = links_of(folder)
    assert links["whiten"]["verdict"] == "broken" and "is not the autoencoder" in links["whiten"]["sentence"]
    assert "put the autoencoder.safetensors of its cache beside the model" in said
    text = read_png_text(folder / "checkup" / "checkup.png")["Description"]
    assert "originals; decoded latents" in text  # what should come out, beside what does


def drawn_anew(folder, seed):
    """A run whose averaged weights are the initial ones of a seed; its own is 0."""
    _, header = weights.load(folder / "model.safetensors")
    order.reseed("weights", seed, "denoiser")
    weights.save(folder / "model.safetensors", build_network(header).state_dict(), header)
    return folder


def test_an_average_that_never_left_its_initial_weights_is_named_before_what_it_breaks(changed):
    links, said = links_of(drawn_anew(changed(), seed=0))
    assert links["average"]["verdict"] == "broken" and links["average"]["moved"] == 0
    assert "still the initial ones" in links["average"]["sentence"] and "loop.ema" in links["average"]["change"]
    assert CAUSES.index("whiten") < CAUSES.index("average") < CAUSES.index("denoise")
    assert said.startswith("The first broken link is reconstruct")


def test_raw_weights_that_are_much_better_than_the_average_blame_it(ldm, changed, monkeypatch):
    errors = iter([0.3, 0.9])
    monkeypatch.setattr(network_links, "estimated", lambda *_: torch.zeros(1))
    monkeypatch.setattr(network_links, "error_ratio", lambda *_: next(errors))
    link, _ = network_links.average(open_lineage(changed() / "model.safetensors", engines.Engine(torch.device("cpu"), torch.float32)))
    assert link.verdict == "broken" and link.number == pytest.approx(1 / 3)
    assert "the average lags behind" in link.sentence and "loop.ema" in link.change


def test_weights_that_are_not_finite_are_a_sentence(changed):
    links, _ = links_of(changed(tensors=lambda held: {name: torch.full_like(value, math.nan) for name, value in held.items()}))
    assert [links[name]["verdict"] for name in ("denoise", "labels", "sample", "average")] == ["broken"] * 4
    assert all("not finite" in links[name]["sentence"] for name in ("denoise", "labels", "sample", "average"))


def test_fresh_random_weights_are_no_average_of_the_run(changed):
    links, _ = links_of(drawn_anew(changed(), seed=1))
    assert links["average"]["verdict"] == "broken" and "no average of this run" in links["average"]["sentence"]
    assert links["denoise"]["verdict"] == "broken" and "has learned nothing" in links["denoise"]["sentence"]


def test_cached_labels_that_are_not_those_of_the_pictures_are_named_and_how_to_mend_them(changed, vae_cache, tmp_path):
    cache, folder = shutil.copytree(vae_cache, tmp_path / "cache"), changed()
    manifest = json.loads((cache / "latents.json").read_text())
    shard = manifest["splits"]["val"][0]
    tensors, header = weights.load(cache / shard["file"])
    weights.save(cache / shard["file"], {**tensors, "labels": (tensors["labels"] + 1) % len(manifest["classes"])}, header)
    shard["sha256"] = weights.file_sha256(cache / shard["file"])
    (cache / "latents.json").write_text(json.dumps(manifest))
    (folder / "config.yaml").write_text(write_yaml({**read_config(folder), "latents": str(cache)}))
    links, _ = links_of(folder)
    assert links["labels"]["verdict"] == "broken" and links["labels"]["wrong"] == 1
    assert "100% of the cached labels are not those of their pictures" in links["labels"]["sentence"]
    assert "encode-dataset again" in links["labels"]["change"]


def test_a_network_that_listens_to_nothing_has_no_link_of_labels(fit_diffusion, vae_cache, tmp_path):
    assert "labels" not in links_of(fit_diffusion(tmp_path / "ldm", vae_cache, "conditioner=null"))[0]


# -- what is missing does not end it -------------------------------------------


def test_without_its_cache_it_says_what_it_still_can(changed):
    folder = changed()
    config = read_config(folder)
    (folder / "config.yaml").write_text(write_yaml({**config, "latents": str(folder / "gone")}))
    (folder / "state.safetensors").unlink()
    links, _ = links_of(folder)
    assert [links[name]["verdict"] for name in ("reconstruct", "whiten", "denoise", "labels")] == ["unknown"] * 4
    assert all("gone" in links[name]["sentence"] for name in ("reconstruct", "whiten", "denoise", "labels"))
    assert math.isfinite(links["sample"]["deviation"]) and links["average"]["moved"] > 0


def test_without_its_pictures_it_decodes_all_the_same(changed, vae_cache, tmp_path):
    cache, folder = shutil.copytree(vae_cache, tmp_path / "cache"), changed()
    raw = read_config(cache)
    (cache / "config.yaml").write_text(write_yaml({**raw, "data": None, "dataset": {"type": "folder", "path": str(tmp_path / "none")}}))
    config = read_config(folder)
    (folder / "config.yaml").write_text(write_yaml({**config, "latents": str(cache)}))
    link, rows = latent_links.reconstruct(open_lineage(folder / "model.safetensors", engines.Engine(torch.device("cpu"), torch.float32)))
    assert link.number is None and [caption for caption, _ in rows] == ["decoded latents"]
    assert "originals are missing" in link.sentence or "same picture" in link.sentence


def test_a_run_of_fit_ae_is_sent_to_eval_lpips(vae_run):
    with pytest.raises(MismatchError, match=f"ldmctl eval-lpips --run {vae_run}"):
        checkup(str(vae_run), device="cpu")


# -- the command ---------------------------------------------------------------


def test_doctor_prints_one_object_for_a_run(ldm, tmp_path, capsys):
    assert command(["doctor", "--run", str(ldm), "--out", str(tmp_path), "--device", "cpu", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [link["name"] for link in said["links"]] == NAMES and all(link["sentence"] for link in said["links"])
    assert said["picture"] == str(tmp_path / "checkup.png") and said["conclusion"]


def test_doctor_without_a_run_wants_no_folder(capsys):
    assert command(["doctor", "--out", "x"]) == ConfigError.exit_code
    assert "--run FOLDER" in capsys.readouterr().err


# -- known answers -------------------------------------------------------------


@pytest.mark.parametrize("name", ["flow", "cosine", "linear", "scaled-linear"])
def test_the_posterior_mean_of_gaussian_latents_errs_as_the_best_linear_guess_and_the_clean_latent_not_at_all(name):
    schedule = registry.build("schedule", registry.load("schedule", name).Config(type=name))
    clean = torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))

    def posterior_mean(x_t, told, condition):
        t = (told.double() + (1 if hasattr(schedule, "timesteps") else 0)) / 1000
        alpha, sigma = (each.view(-1, 1, 1, 1) for each in schedule.marginal(t))
        return (alpha / (alpha**2 + sigma**2)).float() * x_t

    for sigma in noise_levels(schedule):
        best = Denoise(posterior_mean, schedule, "x0")(clean + sigma * noise, sigma)
        assert error_ratio(best, clean, sigma) == pytest.approx(1, abs=0.03), sigma
        knowing = Denoise(lambda x_t, told, condition: clean, schedule, "x0")(clean + sigma * noise, sigma)
        assert error_ratio(knowing, clean, sigma) == 0


def test_levels_are_even_in_log_snr_and_end_near_pure_noise_or_where_the_schedule_does():
    def of(name):
        return noise_levels(registry.build("schedule", registry.load("schedule", name).Config(type=name)))

    assert of("cosine") == pytest.approx([0.1, 0.4, 1.6, 6.4, 25.6])
    ends = of("scaled-linear")
    assert ends[0] == pytest.approx(0.1345, abs=1e-3)  # the last but one of 50 steps
    assert ends[-1] == pytest.approx(14.6146, abs=1e-3)
    assert [b / a for a, b in pairwise(ends)] == pytest.approx([ends[1] / ends[0]] * 4)


@pytest.mark.parametrize(
    ("ratios", "verdict", "words"),
    [
        ([0.9, 0.5, 0.4, 0.7, 0.99], "good", "knows more than the mean"),
        ([1.0, 1.0, 1.0, 1.0, 1.0], "broken", "learned nothing after 7 steps"),
        ([1.01, 2.0, 30.0, 400.0, 650.0], "broken", "learned nothing"),
        ([0.8, 0.7, 1.3, 2.0, 3.0], "broken", "structure is missing"),
        ([0.8, 0.7, 0.6, 0.8, 3.0], "weak", "structure is missing, most at 25.6"),
        ([2.0, 0.8, 0.5, 0.7, 1.0], "weak", "detail is missing"),
        ([0.8, math.nan, 0.5, 0.7, 1.0], "broken", "not finite"),
    ],
)
def test_which_noise_levels_fail_says_what_is_missing(ratios, verdict, words):
    got, said, change = judge_ratios(ratios, [0.1, 0.4, 1.6, 6.4, 25.6], "v", "after 7 steps")
    assert got == verdict and words in said and bool(change) == (verdict != "good")


def test_channels_that_are_off_are_counted_and_a_common_divisor_is_judged_as_one():
    latent = torch.randn(400, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    assert judge_channels(latent, common=False)[2:] == ([], False)
    shifted = latent + torch.tensor([0.0, 0.2, 0.0]).view(1, 3, 1, 1)
    assert judge_channels(shifted, common=False)[2:] == ([1], False)
    assert judge_channels(latent * torch.tensor([1.0, 1.0, 3.0]).view(1, 3, 1, 1), common=False)[2:] == ([2], True)
    unequal = latent * torch.tensor([1.4, 1.0, 0.2]).sqrt().div(math.sqrt(2.6 / 3)).view(1, 3, 1, 1)
    assert judge_channels(unequal, common=True)[2:] == ([], False) and judge_channels(unequal, common=False)[2] == [0, 2]


@pytest.mark.parametrize(
    ("gains", "wrong", "verdict", "words"),
    [
        (
            [0.10, 0.12, 0.08, 0.10, 0.10],
            0.0,
            "good",
            "cached labels are those of their pictures; with them the network errs by 10.0% less",
        ),
        ([0.10, 0.12, 0.08, 0.10, 0.10], None, "good", "it listens"),
        ([0.10, -0.12, 0.01, 0.02, 0.0], 0.0, "weak", "does not listen to them after 7 steps"),
        ([-0.10, -0.12, -0.08, -0.10, -0.10], 0.0, "broken", "it has learned other labels"),
        ([0.0, 0.001, 0.0], 0.9, "broken", "90% of the cached labels are not those of their pictures"),
        ([0.10, 0.12, 0.08], 0.05, "weak", "5% of the cached labels"),
        ([0.10, math.nan, 0.08], 0.0, "broken", "not finite"),
    ],
)
def test_labels_are_judged_by_whether_they_are_the_pictures_and_help(gains, wrong, verdict, words):
    got, said, change = judge_labels(torch.tensor(gains, dtype=torch.float64), wrong, "after 7 steps")
    assert got == verdict and words in said and bool(change) == (verdict != "good")


def test_of_few_classes_nothing_is_said_that_chance_says_as_well():
    got, said, change = judge_labels(torch.tensor([-0.10, -0.12], dtype=torch.float64), 0.0, "after 7 steps")
    assert got == "unknown" and "2 classes are too few" in said and not change


def test_an_average_lies_between_the_initial_weights_and_the_raw_ones():
    initial, raw, other = ({"a": torch.randn(400, generator=random), "b": torch.zeros(1)} for random in map(seeded, range(3)))
    raw["b"] += 1
    for share in (0.1, 0.5, 1.0):
        assert strayed({name: torch.lerp(initial[name], raw[name], share) for name in raw}, initial, raw) == ""
    assert "1 of 2 averaged weights are still the initial ones where the raw ones have moved, b first" in strayed(
        {**raw, "b": initial["b"]}, initial, raw
    )
    assert "from the initial and from the raw ones" in strayed({**other, "b": raw["b"]}, initial, raw)
    assert strayed(initial | {"b": raw["b"]}, initial, initial | {"b": raw["b"]}) == ""  # a layer that is not trained


def test_samples_are_judged_by_width_outliers_and_whether_neighbours_agree():
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(16, 4, 8, 8, generator=random)
    coarse = torch.randn(64, 4, 4, 4, generator=random).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert judge_samples(coarse[:16], coarse)[0] == "good"
    white = torch.randn(64, 4, 8, 8, generator=random)
    assert judge_samples(noise, white)[0] == "good"  # where the data is white too, nothing can be said against it
    places = torch.randn(1, 4, 8, 8, generator=random) + 0.5 * white  # no two neighbours alike, but each place its own
    assert judge_samples((places[:16] / places.std()), places[16:] / places.std())[0] == "good"
    assert "mostly noise" in judge_samples(noise, places / places.std())[1]
    assert judge_samples(noise, coarse)[0] == "broken" and "mostly noise" in judge_samples(noise, coarse)[1]
    assert "washed out" in judge_samples(0.3 * coarse, coarse)[1] and "diverge" in judge_samples(3 * coarse, coarse)[1]
    assert judge_samples(1.5 * coarse, coarse)[0] == "weak" and judge_samples(3 * coarse, None)[0] == "broken"
    assert judge_samples(coarse * math.inf, coarse)[0] == "broken"
    spiked = coarse.clone()
    spiked[:, :, 0, 0] = 4.5  # one value in 64
    assert "outliers" in judge_samples(spiked, coarse)[1]


def test_the_conclusion_names_a_cause_before_its_effects_and_what_was_not_tried():
    def lineage(**verdicts):
        return conclusion([Link(name, verdicts.get(name, "good"), "", change=f"mend {name}") for name in NAMES])

    assert lineage() == "The chain holds."
    assert lineage(denoise="broken", average="broken") == "The first broken link is average: mend average."
    assert lineage(sample="weak") == "The chain holds. Its weakest link is sample: mend sample."
    assert lineage(whiten="unknown", reconstruct="unknown").endswith("Nothing is known of reconstruct and whiten.")
