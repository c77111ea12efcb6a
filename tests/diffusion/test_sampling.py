"""A picture depends on its seed, its label and the settings, and on nothing that is made beside it."""

import json
import shutil

import pytest
import torch

from ldmctl.diffusion.asking import Ask
from ldmctl.diffusion.labels import class_index, labels_as_in_data
from ldmctl.diffusion.network import Network, build_network, describe_network
from ldmctl.diffusion.sampling import even_threads, rows_of, sample_latents
from ldmctl.errors import ConfigError, DivergedError, MismatchError
from ldmctl.latents import recipe
from ldmctl.pictures.png import read_png_text
from ldmctl.protocols import Condition
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
@pytest.mark.parametrize(("threads", "batch"), [(2, 5), (3, 16)])
def test_the_default_network_gives_the_same_latent_wherever_its_seed_stands(batch, threads, vae_cache):
    from ldmctl import registry
    from ldmctl.config.presets import compose
    from ldmctl.config.schemas.fit_diffusion import FitDiffusion
    from ldmctl.latents import manifest as manifests

    manifest = manifests.read(vae_cache).model_copy(update={"latent": (4, 16, 16)})
    config, _ = compose(FitDiffusion, below=recipe.recipe(manifest))
    assert config.denoiser.widths == [64, 128, 192]
    order.reseed("test")
    network = build_network(
        describe_network(config.denoiser, config.conditions.label, latent=manifest.latent, classes=manifest.classes)
    ).eval()
    for parameter in network.parameters():  # it begins at zero, where every order would do
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    schedule, sampler = registry.build("schedule", config.schedule), registry.build("sampler", config.preview.sampler)

    def make(seeds):
        labels = [seed % len(manifest.classes) for seed in seeds]
        settings = {"prediction": "v", "shape": manifest.latent, "guidance": 2.0, "steps": 2, "batch": rows_of(batch)}
        with even_threads():
            return sample_latents(network, schedule, sampler, CPU, seeds=seeds, asks=[Ask(label) for label in labels], **settings)

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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("steps=4", "with steps=3 instead of 4"),
        ("guidance=3", r"with guidance=1\.0 instead of 3\.0"),
        ("sampler=ddpm", 'sampler.type="unipc" instead of "ddpm"'),
        ("label=1", "of another label"),
        ("spacing=leading", 'spacing="beta" instead of "leading"'),
        ("batch=2", "batch=4 instead of 2"),
    ],
)
def test_pictures_with_other_settings_are_replaced_only_when_asked_and_are_told_apart(ldm, sample, tmp_path, change, said):
    _, first = sample(ldm, "label=0")
    with pytest.raises(MismatchError, match=f"holds 4 pictures that do not belong to these: 4 .*{said}") as caught:
        sample(ldm, "label=0", change)
    assert caught.value.exit_code == 6 and "--overwrite, which deletes them" in str(caught.value)
    assert sample(ldm, "label=0")[0]["made"] == 0, "nothing was touched"
    assert sample(ldm, "label=0", change, overwrite=True)[0]["made"] == 4
    assert sample(ldm, "label=0", change)[0]["made"] == 0
    assert sample(ldm, "label=0", overwrite=True)[1] == first


def test_pictures_of_two_models_never_lie_in_one_folder(ldm, deaf, sample, tmp_path):
    sample(ldm, "count=6")
    with pytest.raises(MismatchError, match="6 pictures that do not belong to these: 6 by another model, or another state of it"):
        sample(deaf, "count=2", "seed=10")
    (tmp_path / "samples" / "000099.png").write_bytes((tmp_path / "samples" / "000000.png").read_bytes())
    (tmp_path / "samples" / "holiday.png").write_bytes(b"mine")
    answer, made = sample(deaf, "count=2", "seed=4", overwrite=True)
    assert answer["made"] == 2 and sorted(made) == [4, 5], "those of the other model are gone, what nobody made is kept"
    assert (tmp_path / "samples" / "holiday.png").read_bytes() == b"mine"


def test_the_same_command_with_other_seeds_or_labels_of_its_own_adds_to_a_folder(ldm, sample, tmp_path):
    sample(ldm, "label=0", "count=3")
    answer, made = sample(ldm, "label=1", "seed=3", "count=3")
    assert answer["made"] == 3 and sorted(made) == list(range(6))
    whole = sample(ldm, "label=0", "count=3", "seed=6", overwrite=True)[1]
    assert sorted(whole) == list(range(9)), "--overwrite keeps what belongs"


def test_a_picture_that_was_cut_off_is_made_anew(ldm, sample, tmp_path):
    _, first = sample(ldm)
    file = tmp_path / "samples" / "000002.png"
    for damage in (b"", bytes(4096), *(first[2][:size] for size in (8, 20, 33, 60, 100, 300)), first[2][:-40], first[2][:-400]):
        file.write_bytes(damage)
        answer, again = sample(ldm)
        assert answer["made"] == 1 and again == first


def png(size=(20, 20)):
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.effect_noise(size, 50).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("name", ["000002.png", "grid.png"])
@pytest.mark.parametrize("kind", ["picture", "large text", "not a picture", "cut off", "folder", "link", "dead link"])
def test_what_ldmctl_did_not_make_is_never_replaced(deaf, sample, tmp_path, name, kind):
    folder = tmp_path / "samples"
    folder.mkdir()
    file, mine = folder / name, tmp_path / "mine.png"
    mine.write_bytes(png())
    if kind == "folder":
        file.mkdir()
    elif "link" in kind:
        file.symlink_to(mine if kind == "link" else tmp_path / "away.png")
    elif kind == "large text":
        from PIL import Image, PngImagePlugin

        text = PngImagePlugin.PngInfo()
        text.add_text("note", "x" * 3_000_000)  # more than Pillow reads
        Image.effect_noise((20, 20), 50).save(file, "PNG", pnginfo=text)
    else:
        file.write_bytes({"picture": png(), "not a picture": b"GIF89a and so on", "cut off": png()[:-30]}[kind])
    before = None if kind in ("folder", "dead link") else file.read_bytes()
    for overwrite in (False, True):
        with pytest.raises(
            MismatchError, match=f"{name} is there already and is none of ldmctl's samples, so it is not replaced"
        ) as caught:
            sample(deaf, overwrite=overwrite)
        assert caught.value.exit_code == 6
        assert [each.name for each in folder.iterdir()] == [name], "nothing was written beside it"
    assert before is None or (file.read_bytes() == before and mine.read_bytes())


def test_a_grid_of_an_earlier_version_is_known_by_its_first_picture(deaf, sample, tmp_path):
    from PIL import Image

    sample(deaf)
    file = tmp_path / "samples" / "grid.png"
    assert "ldmctl" in read_png_text(file)
    Image.open(file).save(file, pnginfo=None)
    with Image.open(file) as image:
        image.load()
        plain = image.copy()
    plain.info.clear()
    plain.save(file)
    assert not read_png_text(file)
    assert sample(deaf, "count=6")[0]["made"] == 2 and "ldmctl" in read_png_text(file)


# -- not finite ------------------------------------------------------------------------------


def with_weights(run, folder, name, value, file="model.safetensors"):
    """A copy of a run with one value in all weights whose name begins so."""
    copy = shutil.copytree(run, folder)
    tensors, header = weights.load(copy / file)
    header.pop("format")
    changed = [key for key in tensors if key.startswith(name) and tensors[key].is_floating_point()]
    assert changed
    for key in changed:
        tensors[key] = torch.full_like(tensors[key], value)
    weights.save(copy / file, tensors, header)
    return copy


def test_pictures_that_are_not_finite_end_with_5_and_leave_nothing(deaf, sample, tmp_path):
    broken = with_weights(deaf, tmp_path / "broken", "denoiser.", float("nan"))
    with pytest.raises(DivergedError, match=r"Seeds 0, 1, 2, 3 give pictures that are not finite.*Weights of the model are") as caught:
        sample(broken)
    assert caught.value.exit_code == 5 and "loop.lr" in str(caught.value) and "@best" in str(caught.value)
    assert not (tmp_path / "samples").exists()


def test_a_batch_that_is_not_finite_leaves_the_batches_before_it_and_names_its_seeds(deaf, sample, tmp_path, monkeypatch):
    from ldmctl.diffusion import model

    real = model.sample_latents

    def with_a_hole(*given, seeds, **keys):
        latent = real(*given, seeds=seeds, **keys)
        for row, seed in enumerate(seeds):
            if seed == 5:
                latent[row, 0, 0, 0] = float("inf")
        return latent

    monkeypatch.setattr(model, "sample_latents", with_a_hole)
    with pytest.raises(
        DivergedError, match=r"Seed 5 gives a picture that is not finite.*are finite\. Try more --steps or another --sampler"
    ):
        sample(deaf, "count=8")
    assert sorted(file.name for file in (tmp_path / "samples").iterdir()) == [f"00000{seed}.png" for seed in range(4)]


def test_what_an_interruption_left_is_in_nobodys_way(ldm, sample, tmp_path):
    _, whole = sample(ldm, out="whole")
    folder = tmp_path / "samples"
    folder.mkdir()
    (folder / ".000001.png.123.tmp").write_bytes(b"half")
    (folder / "000001.tmp").write_bytes(b"half")
    (folder / "holiday.png").write_bytes(b"mine")
    answer, made = sample(ldm)
    assert answer["made"] == 4 and made == whole and (folder / "holiday.png").read_bytes() == b"mine"


def test_what_a_killed_command_left_half_written_is_deleted_and_what_another_is_writing_is_not(ldm, sample, tmp_path, monkeypatch):
    import os
    import subprocess

    from ldmctl.storage import leftovers

    gone = subprocess.Popen(["true"])
    gone.wait()
    folder = tmp_path / "samples"
    folder.mkdir()
    half = {
        f".000000.png.{leftovers.machine()}.{gone.pid}.part": False,  # of a process that is gone
        f".000001.png.{leftovers.machine()}.{os.getppid()}.part": True,  # of one that runs
        f".000002.png.0123abcd.{gone.pid}.part": True,  # of another machine
        ".000003.png.77.part": False,  # of a day ago
        ".mine.part": True,
    }
    for name in half:
        (folder / name).write_bytes(b"half")
    os.utime(folder / ".000003.png.77.part", (1e9, 1e9))
    sample(ldm, "count=2")
    assert {name: (folder / name).exists() for name in half} == half


def test_a_picture_says_how_it_was_made(ldm, sample, tmp_path):
    sample(ldm, "guidance=2", "label=red square", "seed=5")
    text = settings_of(tmp_path / "samples", 7)
    header = weights.read_header(ldm / "model.safetensors")
    assert {key: text[key] for key in ("seed", "label", "steps", "guidance", "spacing", "batch", "precision")} == {
        "seed": 7,
        "label": "red square",
        "steps": 3,
        "guidance": 2.0,
        "spacing": "beta",
        "batch": 4,
        "precision": "float32",
    }
    assert text["autoencoder"] == header["autoencoder"]["fingerprint"] and text["sampler"]["type"] == "unipc"
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


def test_where_classes_are_called_by_numbers_a_number_is_a_name_and_never_an_index():
    assert class_index("3", ["9", "3", "1", "0"]) == 1 and class_index("none", ["9"]) == -1
    for names in (["1", "2", "3", "4"], ["cat", "7"], ["-1", "1"], ["0.5", "1.5"]):
        with pytest.raises(ConfigError, match=r"There is no label '0'\..* Numbers are names of classes here; index:0 to index:"):
            class_index("0", names)
        assert class_index("index:0", names) == 0
    assert [class_index(label, ["1", "2", "3", "4"]) for label in ("1", "class:4", "index:3")] == [0, 3, 3]
    assert class_index("0", ["nan", "inf", "cat"]) == 0, "not every word that Python reads as a number is one"
    with pytest.raises(ConfigError, match=r"There is no label '7'\. Did you mean '007'\?"):
        class_index("7", ["007", "008"])


@pytest.mark.parametrize(
    "label", ["index:4", "index:-1", "index:", "index:²", "index:1.0", "class:", "class:cat ", "4", "-1", "", " ", "CLASS:cat"]
)
def test_a_label_that_names_nothing_is_refused(label):
    with pytest.raises(
        ConfigError, match=r"There is no label .*Labels: cat, dog, Elk, café; or a number from 0 to 3, or none for no class\."
    ):
        class_index(label, ["cat", "dog", "Elk", "café"])


def test_a_class_called_none_can_be_asked_for_and_so_can_no_class():
    names = ["cat", "none"]
    assert (class_index("class:none", names), class_index("index:none", names), class_index("index:1", names)) == (1, -1, 1)
    with pytest.raises(ConfigError, match=r"could mean the class of that name or no class\. Write class:none for the first, index:none"):
        class_index("none", names)
    assert class_index("class:cat", ["class:cat"]) == 0 and class_index("class:class:cat", ["class:cat"]) == 0
    assert class_index("index:7", ["index:7"]) == 0


def test_labels_that_differ_by_case_or_a_few_letters_are_suggested():
    for wrong, right in {"Cat": "cat", "CAT": "cat", "elk": "Elk", "dgo": "dog", "CAFE": "café", " cat": "cat"}.items():
        with pytest.raises(ConfigError, match=rf"There is no label '{wrong}'\. Did you mean '{right}'\?"):
            class_index(wrong, ["cat", "dog", "Elk", "café"])
    assert class_index("cafe\u0301", ["cat", "café"]) == 1, "the same name in other bytes"
    with pytest.raises(ConfigError, match=r"Name several one by one: --label cat --label 'red dog'\."):
        class_index("cat,red dog", ["cat", "red dog"])


def test_a_config_says_true_and_null_as_yaml_does(tiny):
    assert tiny("sample", "label=[true, null, 3, cat]").label == ["true", "none", "3", "cat"]


def test_guidance_0_records_no_label_since_it_uses_none(ldm, sample, tmp_path, tiny, capsys):
    from ldmctl.console import Console

    answer, _ = sample(ldm, "guidance=0", "label=red circle")
    assert answer["labels"] == [None] * 4 and settings_of(tmp_path / "samples", 0)["label"] is None
    assert sample(ldm, "guidance=0")[0]["made"] == 0, "nor are labels drawn"
    words = [f"run={ldm}", "steps=3", "batch=4", "count=4", "machine.device=cpu", "machine.precision=fp32"]
    stage(tiny("sample", *words, "guidance=0", "label=red circle"), tmp_path / "samples", console=Console(quiet=True))
    assert "guidance=0 ignores labels: label=red circle is not used" in capsys.readouterr().err


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


def test_a_model_that_never_learned_with_labels_refuses_them_and_guidance(tmp_path, fit_diffusion, vae_cache, sample):
    never = fit_diffusion(tmp_path / "ldm", vae_cache, *RECIPE, "drop=1", "loop.steps=1")
    assert weights.read_header(never / "model.safetensors")["conditional"] is False
    for words, said in {("label=red circle",): "label=red circle", ("guidance=3",): "guidance=3", ("label=[none,1]",): "label=1"}.items():
        with pytest.raises(ConfigError, match=f"{said} needs a model that learned with labels; this one never saw any"):
            sample(never, *words)
    assert not (tmp_path / "samples").exists()
    drawn, _ = sample(never)
    assert drawn["labels"] == [None] * 4, "labels are not drawn either"
    assert sample(never, "label=none")[0]["made"] == 0
    assert sample(never, "guidance=0", out="zero")[0]["labels"] == [None] * 4
    with pytest.raises(ConfigError, match=r"preview\.guidance=2 needs a network that learns with labels, .* drop=1 leaves every label out"):
        fit_diffusion(tmp_path / "preview", vae_cache, *RECIPE, "drop=1", "preview.guidance=2", "loop.steps=1")
    from ldmctl.evaluation.checkup import checkup

    assert "labels" not in [link["name"] for link in checkup(str(never), out=tmp_path / "checkup", device="cpu")["links"]]


def test_previews_of_a_network_that_never_learns_with_labels_have_none(tmp_path, fit_diffusion, vae_cache, monkeypatch):
    from ldmctl.diffusion import preview

    asked, real = [], preview.sample_latents
    monkeypatch.setattr(
        preview, "sample_latents", lambda *given, **keys: asked.append([ask.label for ask in keys["asks"]]) or real(*given, **keys)
    )
    fit_diffusion(tmp_path / "ldm", vae_cache, "drop=1", "loop.steps=1")
    assert asked and set(asked[-1]) == {-1}


def test_dropped_items_are_shown_the_null_condition(vae_cache):
    class Echo(torch.nn.Module):
        def forward(self, x, timestep, condition):
            return condition.vector[:, :, None, None]

    from ldmctl import registry
    from ldmctl.config.resolve import plugin_config

    label = registry.build("conditioner", plugin_config("conditioner", {"type": "label", "dim": 4}), classes=["a", "b"])
    network = Network(Echo(), label)
    given, dropped = torch.tensor([0, 1, 1, -1]), torch.tensor([False, True, False, False])
    shown = network(torch.zeros(4, 4, 1, 1), torch.zeros(4), given, dropped)[..., 0, 0]
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

    def made(*words, overwrite=True):
        config = tiny("sample", f"run={run}", "count=2", "steps=2", "machine.device=cpu", *words)
        count = stage(config, tmp_path / "samples", console=quiet, overwrite=overwrite)["made"]
        return count, [(tmp_path / "samples" / f"00000{seed}.png").read_bytes() for seed in range(2)]

    own, through = made(), made(f"ae={sharper}")
    assert own[0] == through[0] == 2 and own[1] != through[1]
    assert made(f"ae={sharper}", overwrite=False) == (0, through[1]), "what is there already was made by the same decoder"
    assert made(f"ae={vae_run}") == (2, own[1]), "the run that the latents are of has the decoder that goes with them"
    with pytest.raises(MismatchError, match="whose encoder is another") as caught:
        made(f"ae={another}")
    assert caught.value.exit_code == 6


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_weights_cast_once_give_the_bits_that_autocast_gives(name):
    from ldmctl import registry
    from ldmctl.config.resolve import plugin_config
    from ldmctl.diffusion.casting import cast_once

    assert name in [plugin.name for plugin in registry.plugins("denoiser") if plugin.built_in]
    small = {"unet": {"widths": [16, 32], "head_dim": 8, "norm_groups": 8}, "dit": {"width": 32, "depth": 2, "head_dim": 16}}[name]
    network = registry.build("denoiser", plugin_config("denoiser", {"type": name, **small}), channels=3, size=(8, 8), vector_dim=5)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, t, condition = torch.randn(4, 3, 8, 8), torch.tensor([1.0, 250.0, 500.0, 999.0]), Condition(vector=torch.randn(4, 5))
    half = engines.Engine(torch.device("cpu"), torch.bfloat16)

    def said():
        with torch.no_grad(), half.autocast():
            return network(x, t, condition)

    before = said()
    cast_once(network, CPU)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    cast_once(network, half)
    assert torch.bfloat16 in {parameter.dtype for parameter in network.parameters()} and before.isfinite().all() and before.std() > 0
    assert torch.equal(said(), before)


def test_the_weights_of_somebody_elses_network_are_left_as_they_are():
    from ldmctl.diffusion.casting import cast_once

    network = torch.nn.Sequential(torch.nn.Linear(2, 2))
    cast_once(network, engines.Engine(torch.device("cpu"), torch.bfloat16))
    assert network[0].weight.dtype == torch.float32
