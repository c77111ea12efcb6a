"""A picture depends on its seed, its label and the settings, and on nothing that is made beside it."""

import json
import shutil

import pytest
import torch

from ldmctl.diffusion.labels import class_index, labels_as_in_data
from ldmctl.diffusion.network import Network, build_network, describe_network
from ldmctl.diffusion.sampling import even_threads, rows_of, sample_latents
from ldmctl.errors import ConfigError, MismatchError
from ldmctl.latents import recipe
from ldmctl.pictures.png import read_png_text
from ldmctl.stages.sample import sample as stage
from ldmctl.storage import weights
from ldmctl.training import engine as engines
from ldmctl.training import order

CPU = engines.Engine(torch.device("cpu"), torch.float32)
RECIPE = [  # the default recipe's form with fewer channels: two resolutions, two blocks each, attention at the second
    "denoiser.widths=[16,32]",
    "denoiser.layers=2",
    "denoiser.head_dim=8",
    "denoiser.norm_groups=8",
    "conditioner.dim=32",
]


@pytest.fixture(scope="module")
def ldm(tmp_path_factory, fit_diffusion, vae_cache):
    """A run folder of fit-diffusion whose network listens to labels. Read only."""
    return fit_diffusion(tmp_path_factory.mktemp("ldm") / "ldm", vae_cache, *RECIPE, "loop.lr=1e-2", "loop.ema=0", "loop.steps=8")


@pytest.fixture(scope="module")
def deaf(tmp_path_factory, fit_diffusion, vae_cache):
    """A run folder of fit-diffusion without conditioner. Read only."""
    return fit_diffusion(tmp_path_factory.mktemp("deaf") / "ldm", vae_cache, "conditioner=null")


@pytest.fixture
def sample(tiny, quiet, tmp_path):
    """sample(run, "count=4", out="a") -> (the stage's answer, {seed: bytes of the picture})."""

    def go(run, *overrides, out="samples", **options):
        words = [f"run={run}", "steps=3", "batch=4", "count=4", "machine.device=cpu", "machine.precision=fp32", *overrides]
        answer = stage(tiny("sample", *words), tmp_path / out, console=quiet, **options)
        return answer, {int(file.stem): file.read_bytes() for file in (tmp_path / out).glob("0*.png")}

    return go


def settings_of(folder, seed):
    return json.loads(read_png_text(folder / f"{seed:06d}.png")["ldmctl"])


# -- bytes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_the_same_seed_gives_the_same_bytes_for_any_number_and_order(ldm, sample, sampler):
    words = [f"sampler={sampler}", "guidance=2"]
    _, whole = sample(ldm, *words, "count=9")
    assert sorted(whole) == list(range(9)) and len(set(whole.values())) == 9
    for count, seed in [(1, 0), (1, 8), (2, 3), (4, 2), (5, 4), (7, 1)]:
        _, part = sample(ldm, *words, f"count={count}", f"seed={seed}", out=f"{count}-{seed}")
        assert part == {each: whole[each] for each in range(seed, seed + count)}
    sample(ldm, *words, "seed=7", "count=2", out="backwards")
    sample(ldm, *words, "seed=3", "count=2", out="backwards")
    assert sample(ldm, *words, "count=9", out="backwards")[1] == whole


def test_an_odd_batch_keeps_the_promise_too(ldm, sample):
    _, whole = sample(ldm, "count=7", "batch=3")
    assert sample(ldm, "count=1", "seed=4", "batch=3", out="one")[1] == {4: whole[4]}


@pytest.mark.slow
@pytest.mark.parametrize("batch", [5, 16])
@pytest.mark.parametrize("threads", [2, 3])
def test_the_default_network_gives_the_same_latent_wherever_its_seed_stands(batch, threads, vae_cache):
    from ldmctl import registry
    from ldmctl.config.presets import compose
    from ldmctl.config.schemas.fit_diffusion import FitDiffusion
    from ldmctl.latents import manifest as manifests

    manifest = manifests.read(vae_cache).model_copy(update={"latent": (4, 16, 16)})
    config, _ = compose(FitDiffusion, below=recipe.recipe(manifest))
    assert config.denoiser.widths == [64, 128, 192]
    order.reseed("test")
    network = build_network(describe_network(config.denoiser, config.conditioner, latent=manifest.latent, classes=manifest.classes)).eval()
    for parameter in network.parameters():  # it begins at zero, where every order would do
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    schedule, sampler = registry.build("schedule", config.schedule), registry.build("sampler", config.preview.sampler)

    def make(seeds):
        labels = [seed % len(manifest.classes) for seed in seeds]
        settings = {"prediction": "v", "shape": manifest.latent, "guidance": 2.0, "steps": 2, "batch": rows_of(batch)}
        with even_threads():
            return sample_latents(network, schedule, sampler, CPU, seeds=seeds, labels=labels, **settings)

    seeds, before = list(range(batch)), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = make(seeds)
        assert torch.equal(make(seeds[::-1]), whole.flip(0))
        assert all(torch.equal(make([seed]), whole[seed : seed + 1]) for seed in (seeds[-1], seeds[len(seeds) // 2]))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_what_is_there_is_not_made_again(ldm, sample, tmp_path):
    answer, first = sample(ldm)
    assert (answer["made"], answer["count"], answer["seeds"]) == (4, 4, [0, 1, 2, 3])
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "samples").glob("0*.png")}
    answer, again = sample(ldm)
    assert answer["made"] == 0 and again == first
    assert {file: file.stat().st_mtime_ns for file in times} == times
    assert sample(ldm, "count=6")[0]["made"] == 2
    answer, again = sample(ldm, overwrite=True)
    assert answer["made"] == 4 and {seed: again[seed] for seed in first} == first


@pytest.mark.parametrize("change", ["steps=4", "guidance=3", "sampler=ddpm", "label=1", "spacing=leading", "batch=2"])
def test_a_changed_setting_makes_the_pictures_anew(ldm, sample, tmp_path, change):
    sample(ldm, "label=0")
    answer, _ = sample(ldm, "label=0", change)
    assert answer["made"] == 4
    assert sample(ldm, "label=0", change)[0]["made"] == 0
    assert sample(ldm, "label=0")[0]["made"] == 4


def test_another_state_of_the_model_makes_the_pictures_anew(ldm, deaf, sample):
    sample(ldm)
    assert sample(deaf)[0]["made"] == 4


@pytest.mark.parametrize("damage", [b"", b"\x89PNG\r\n\x1a\n", b"not a picture"])
def test_a_damaged_or_foreign_picture_is_made_anew(ldm, sample, tmp_path, damage):
    _, first = sample(ldm)
    (tmp_path / "samples" / "000002.png").write_bytes(damage)
    answer, again = sample(ldm)
    assert answer["made"] == 1 and again == first


def test_what_an_interruption_left_is_in_nobodys_way(ldm, sample, tmp_path):
    _, whole = sample(ldm, out="whole")
    folder = tmp_path / "samples"
    folder.mkdir()
    (folder / ".000001.png.123.tmp").write_bytes(b"half")
    (folder / "000001.tmp").write_bytes(b"half")
    (folder / "holiday.png").write_bytes(b"mine")
    answer, made = sample(ldm)
    assert answer["made"] == 4 and made == whole and (folder / "holiday.png").read_bytes() == b"mine"


def test_a_picture_says_how_it_was_made(ldm, sample, tmp_path):
    sample(ldm, "guidance=2", "label=red square", "seed=5")
    text = settings_of(tmp_path / "samples", 7)
    header = weights.read_header(ldm / "model.safetensors")
    assert {key: text[key] for key in ("seed", "label", "steps", "guidance", "spacing", "batch", "precision")} == {
        "seed": 7,
        "label": "red square",
        "steps": 3,
        "guidance": 2.0,
        "spacing": "trailing",
        "batch": 4,
        "precision": "float32",
    }
    assert text["autoencoder"] == header["autoencoder"]["fingerprint"] and text["sampler"]["type"] == "ddim"
    assert len(text["model"]) == 64 and (tmp_path / "samples" / "grid.png").exists()


# -- labels --------------------------------------------------------------------------------------


def test_labels_are_taken_in_turn_by_name_number_or_none(ldm, sample, tmp_path):
    answer, _ = sample(ldm, "label=[blue square,0,none]", "count=5")
    assert answer["labels"] == ["blue square", "red circle", None, "blue square", "red circle"]
    assert [settings_of(tmp_path / "samples", seed)["label"] for seed in range(5)] == answer["labels"]


def test_a_label_changes_the_picture_and_none_is_guidance_0(ldm, sample):
    pictures = [sample(ldm, f"label={label}", out=label)[1] for label in ("0", "1", "none")]
    assert len({picture[0] for picture in pictures}) == 3
    plain = sample(ldm, "label=1", "guidance=0", out="plain")[1]
    strip = lambda file: torch.from_numpy(pixels(file))
    assert torch.equal(strip(plain[0]), strip(pictures[2][0])), "the same pixels; only the text differs"


def pixels(data):
    import io

    import numpy as np
    from PIL import Image

    return np.array(Image.open(io.BytesIO(data)))


def test_an_unknown_label_is_named_with_the_nearest_right_one(ldm, sample, tmp_path):
    with pytest.raises(ConfigError, match=r"There is no label 'red sqare'\. Did you mean 'red square'\? Labels: red circle, .*or none"):
        sample(ldm, "label=red sqare")
    for wrong in ("4", "-1", "99999", "²", ""):
        with pytest.raises(ConfigError, match="There is no label"):
            sample(ldm, f"label=['{wrong}']")
    with pytest.raises(ConfigError, match=r"label=\[\] names nothing"):
        sample(ldm, "label=[]")
    assert not (tmp_path / "samples").exists()


def test_a_class_that_is_called_like_a_number_is_meant_by_its_name():
    assert class_index("3", ["9", "3", "1", "0"]) == 1
    assert class_index("2", ["9", "3", "1", "0"]) == 2 and class_index("none", ["9"]) == -1


def test_labels_as_in_the_data_depend_on_the_seed_alone(ldm, sample):
    whole = labels_as_in_data(range(2000), [6, 0, 3, 1])
    assert whole[500:510] == labels_as_in_data(range(500, 510), [6, 0, 3, 1])
    shares = [whole.count(label) / 2000 for label in range(4)]
    assert shares == pytest.approx([0.6, 0, 0.3, 0.1], abs=0.04)
    assert labels_as_in_data([1, 2], [0, 0]) == [-1, -1] == labels_as_in_data([1, 2], [])
    answer, _ = sample(ldm, "count=6")
    other, _ = sample(ldm, "count=2", "seed=3", out="other")
    assert other["labels"] == answer["labels"][3:5]


def test_a_class_that_no_training_picture_has_is_refused_with_those_that_were_trained(sorted_run, sample, tmp_path):
    for label in ("rare", "2", "[cat,none,rare]"):
        with pytest.raises(ConfigError, match=r"label=rare was never learned: .* trained: cat, dog, wolf\."):
            sample(sorted_run, f"label={label}")
    assert not (tmp_path / "samples").exists()
    assert sample(sorted_run, "label=[wolf,none]")[0]["labels"] == ["wolf", None, "wolf", None]
    assert set(sample(sorted_run, "count=16", out="drawn")[0]["labels"]) == {"cat", "dog", "wolf"}


def test_a_model_without_labels_refuses_labels_and_guidance(deaf, sample):
    with pytest.raises(ConfigError, match="This model was trained without labels, so --label has nothing to choose"):
        sample(deaf, "label=red circle")
    with pytest.raises(ConfigError, match="guidance=3 needs a model trained with labels"):
        sample(deaf, "guidance=3")
    answer, _ = sample(deaf, "label=none")
    assert answer["labels"] == [None] * 4


def test_a_model_that_never_learned_without_labels_refuses_guidance_and_none(tmp_path, fit_diffusion, vae_cache, sample):
    always = fit_diffusion(tmp_path / "ldm", vae_cache, *RECIPE, "drop=0", "loop.steps=1")
    with pytest.raises(ConfigError, match="guidance=3 needs a model that also learned without labels"):
        sample(always, "guidance=3")
    with pytest.raises(ConfigError, match="label=none needs a model that also learned without labels"):
        sample(always, "label=none")
    assert len(sample(always)[1]) == 4


def test_dropped_items_are_shown_the_null_condition(vae_cache):
    class Echo(torch.nn.Module):
        def forward(self, x, timestep, condition):
            return condition.vector

    from ldmctl import registry
    from ldmctl.config.resolve import plugin_config

    label = registry.build("conditioner", plugin_config("conditioner", {"type": "label", "dim": 4}), classes=["a", "b"])
    network = Network(Echo(), label)
    given, dropped = torch.tensor([0, 1, 1, -1]), torch.tensor([False, True, False, False])
    shown = network(torch.zeros(4, 4), torch.zeros(4), given, dropped)
    null, full = label.null(1).vector[0], label.encode([0, 1]).vector
    assert torch.equal(shown, torch.stack([full[0], null, full[1], null]))


# -- the folder it comes from --------------------------------------------------------------------------


def test_a_run_folder_is_enough(ldm, sample, tmp_path):
    _, here = sample(ldm)
    moved = shutil.copytree(ldm, tmp_path / "elsewhere")
    for file in ("config.yaml", "run.json", "state.safetensors", "metrics.jsonl"):
        (moved / file).unlink()
    assert sample(moved, out="there")[1] == here


def test_a_snapshot_can_be_sampled_from(tmp_path, fit_diffusion, vae_cache, sample):
    run = fit_diffusion(tmp_path / "run", vae_cache, "loop.keep.every=2", "loop.ema=0", "loop.lr=1e-2")
    early, late, last = (sample(f"{run}{name}", out=f"out{name}")[1] for name in ("@2", "@4", ""))
    assert early != late == last


def test_another_autoencoder_beside_the_model_is_refused(ldm, vqvae_run, sample, tmp_path):
    run = shutil.copytree(ldm, tmp_path / "run")
    shutil.copyfile(vqvae_run / "model.safetensors", run / "autoencoder.safetensors")
    with pytest.raises(
        MismatchError, match=r"autoencoder\.safetensors is not the autoencoder that .*model\.safetensors was trained with"
    ) as caught:
        sample(run)
    assert caught.value.exit_code == 6
    (run / "autoencoder.safetensors").unlink()
    with pytest.raises(MismatchError, match=r"autoencoder\.safetensors"):
        sample(run)


def test_an_autoencoder_is_not_sampled_from(vae_run, sample):
    with pytest.raises(MismatchError, match=r"holds an autoencoder, not a denoiser\. --run wants a run folder of fit-diffusion"):
        sample(vae_run)


def test_a_denoiser_is_sampled_through_another_decoder_if_the_encoder_is_its_own(
    tmp_path, fit_ae, fit_diffusion, vae_run, vae_cache, tiny, quiet
):
    run = fit_diffusion(tmp_path / "ldm", vae_cache, "loop.steps=1")
    sharper = fit_ae(tmp_path / "sharper", f"init={vae_run}", "train=decoder", "loop.steps=3", "loop.lr=1e-2", "loop.ema=0.1")
    another = fit_ae(tmp_path / "another", "loop.steps=1", "loop.seed=5")

    def made(*words):
        config = tiny("sample", f"run={run}", "count=2", "steps=2", "machine.device=cpu", *words)
        count = stage(config, tmp_path / "samples", console=quiet)["made"]
        return count, [(tmp_path / "samples" / f"00000{seed}.png").read_bytes() for seed in range(2)]

    own, through = made(), made(f"ae={sharper}")
    assert own[0] == through[0] == 2 and own[1] != through[1]
    assert made(f"ae={sharper}") == (0, through[1]), "what is there already was made by the same decoder"
    assert made(f"ae={vae_run}") == (2, own[1]), "the run that the latents are of has the decoder that goes with them"
    with pytest.raises(MismatchError, match="whose encoder is another") as caught:
        made(f"ae={another}")
    assert caught.value.exit_code == 6
