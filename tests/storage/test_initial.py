"""Training starts from the weights of a run or of diffusers: same network, same pictures, or a sentence that says what differs."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from ldmctl import api, registry
from ldmctl.cli.app import run as command
from ldmctl.config.origins import find
from ldmctl.config.presets import compose
from ldmctl.config.resolve import plugin_config
from ldmctl.config.schemas.fit_ae import FitAE
from ldmctl.errors import ConfigError, LdmctlError, MismatchError, PluginError
from ldmctl.storage import weights
from ldmctl.storage.initial import decoder_only, load_initial, same_encoder

SHAPE = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "latent_channels": 3,
    "norm_num_groups": 4,
}
STEM = "diffusion_pytorch_model"


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """An empty folder, and no environment that could choose."""
    monkeypatch.chdir(tmp_path)
    for name in ("LDMCTL_OVERRIDES", "LDMCTL_DATA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def saved(tmp_path):
    """saved("AutoencoderKL", folder, key=value) -> (folder that diffusers wrote, its model)."""
    diffusers = pytest.importorskip("diffusers")

    def save(kind, folder="theirs", **keys):
        torch.manual_seed(0)
        model = getattr(diffusers, kind)(**SHAPE | keys).eval()
        if kind == "VQModel":
            nn.init.normal_(model.quantize.embedding.weight)
        model.save_pretrained(tmp_path / folder)
        return tmp_path / folder, model

    return save


def wanted(init, *overrides, **flags):
    """The config of `ldmctl fit-ae --init INIT`."""
    return compose(FitAE, overrides=overrides, flags={"init": str(init), **flags})[0]


def begun(init, *overrides):
    """(autoencoder with these initial weights, what was said)."""
    config = wanted(init, *overrides)
    torch.manual_seed(1)
    autoencoder = registry.build("autoencoder", config.autoencoder, image_channels=config.image.channels)
    return autoencoder, load_initial(str(init), autoencoder, config)


def picture():
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.no_grad()
def reconstruction(autoencoder):
    """[2,3,16,16] through an autoencoder of ours, without noise."""
    moments = autoencoder.eval().encode(picture())
    return autoencoder.decode(getattr(autoencoder, "mode", autoencoder.draw)(moments))


@torch.no_grad()
def theirs(model):
    """The same through one of diffusers."""
    encoded = model.encode(picture())
    return model.decode(encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()).sample


def edit(folder, **keys):
    """Change config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


# -- folders of diffusers ------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("AutoencoderKL", {}),
        ("AutoencoderKL", {"mid_block_add_attention": False}),
        ("AutoencoderKL", {"use_quant_conv": False, "use_post_quant_conv": False}),
        ("VQModel", {"num_vq_embeddings": 24}),
    ],
)
def test_a_model_of_diffusers_reconstructs_the_same_picture_here(saved, kind, keys):
    folder, model = saved(kind, **keys)
    autoencoder, _ = begun(folder)
    torch.testing.assert_close(reconstruction(autoencoder), theirs(model), atol=1e-5, rtol=0)


def test_its_architecture_is_taken_from_its_config(saved):
    config = wanted(saved("VQModel", num_vq_embeddings=24, mid_block_add_attention=False)[0])
    given = config.autoencoder.model_dump()
    assert (given["type"], given["codebook_size"], given["channels"], given["widths"]) == ("vqvae", 24, 3, [8, 16])
    assert (given["layers"], given["norm_groups"], given["attention"]) == (1, 4, False)


def test_a_pipeline_is_entered_where_its_autoencoder_lies(saved):
    _, model = saved("VQModel", "pipeline/vqvae")
    Path("pipeline/model_index.json").write_text("{}")
    torch.testing.assert_close(reconstruction(begun("pipeline")[0]), theirs(model), atol=1e-5, rtol=0)


def test_half_precision_is_read_into_float32(saved):
    folder, model = saved("AutoencoderKL")
    model.half().save_pretrained(folder, variant="fp16")
    (folder / f"{STEM}.safetensors").unlink()
    autoencoder, _ = begun(folder)
    assert all(parameter.dtype == torch.float32 for parameter in autoencoder.parameters())
    torch.testing.assert_close(reconstruction(autoencoder), theirs(model.float()), atol=1e-5, rtol=0)


def test_weights_under_the_old_names_of_attention_are_found(saved):
    folder, model = saved("AutoencoderKL")
    file = folder / f"{STEM}.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = safetensors.torch.load_file(file)
    for new, name in old.items():
        tensors = {key.replace(f"attentions.0.{new}.", f"attentions.0.{name}."): value for key, value in tensors.items()}
    assert sum("proj_attn" in key for key in tensors) == 4
    safetensors.torch.save_file(tensors, file)
    torch.testing.assert_close(reconstruction(begun(folder)[0]), theirs(model), atol=1e-5, rtol=0)


def test_factors_of_latents_are_left_out_and_that_is_said(saved):
    said = begun(saved("AutoencoderKL", scaling_factor=0.5, shift_factor=0.1)[0])[1]
    assert [line for line in said if "scaling_factor=0.5 and shift_factor=0.1 are left out" in line] == said[1:]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_class_name": "AutoencoderTiny"}, "describes AutoencoderTiny; ldmctl starts from AutoencoderKL or VQModel"),
        ({"act_fn": "relu"}, "act_fn is 'relu', which ldmctl has no network for; it knows 'silu'"),
        ({"down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]}, "down_block_types is"),
        ({"up_block_types": ["UpDecoderBlock2D"]}, "up_block_types is"),
        ({"out_channels": 4}, "out_channels is 4"),
        ({"in_channels": 9, "out_channels": 9}, "in_channels is 9"),
        ({"dropouts": 0.5}, "the key dropouts (0.5) is not known"),
    ],
)
def test_what_ldmctl_has_no_network_for_is_named_with_its_value(saved, change, said):
    folder, _ = saved("AutoencoderKL")
    edit(folder, **change)
    with pytest.raises(ConfigError) as caught:
        wanted(folder)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"), [({"vq_embed_dim": 5}, "vq_embed_dim is 5"), ({"norm_type": "spatial"}, "norm_type is 'spatial'")]
)
def test_a_codebook_of_another_kind_is_named_with_its_value(saved, change, said):
    folder, _ = saved("VQModel")
    edit(folder, **change)
    with pytest.raises(ConfigError, match=said):
        wanted(folder)


def test_keys_that_old_files_do_not_have_are_those_that_diffusers_takes(saved):
    folder, model = saved("AutoencoderKL")
    file = folder / "config.json"
    late = ("act_fn", "use_quant_conv", "use_post_quant_conv", "mid_block_add_attention", "force_upcast", "scaling_factor")
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key not in late}))
    torch.testing.assert_close(reconstruction(begun(folder)[0]), theirs(model), atol=1e-5, rtol=0)


def test_defaults_are_those_of_the_installed_diffusers():
    diffusers = pytest.importorskip("diffusers")
    from ldmctl.config.diffusers_format import OWN, SHARED

    for name, own in OWN.items():
        defaults = dict(getattr(diffusers, name)().config)
        assert {key: defaults[key] for key in (SHARED | own)} == {
            key: tuple(value) if isinstance(value, list) else value for key, value in (SHARED | own).items()
        }


def test_pickles_are_refused_with_the_way_to_a_file_that_is_none(saved):
    folder, model = saved("AutoencoderKL")
    (folder / f"{STEM}.safetensors").unlink()
    model.save_pretrained(folder, safe_serialization=False)
    with pytest.raises(MismatchError, match=r"A \.bin file is a pickle.*safe_serialization=True"):
        wanted(folder)


# -- runs ------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["", "@best", "@4", "/model.safetensors"])
def test_a_run_hands_on_its_averaged_weights_and_its_architecture(vae_run, tmp_path, which):
    shutil.copytree(vae_run, "ae")
    shutil.copy("ae/model.safetensors", "ae/snapshots/000000004.safetensors") if which == "@4" else None
    autoencoder, _ = begun(f"ae{which}")
    tensors, header = weights.load(find(f"ae{which}").file)
    assert set(tensors) == set(autoencoder.state_dict())
    assert all(torch.equal(value, tensors[name]) for name, value in autoencoder.state_dict().items())
    assert wanted(f"ae{which}").autoencoder.model_dump(mode="json") == header["config"]


def test_an_autoencoder_of_before_there_was_a_choice_of_norms_and_shortcuts_keeps_what_it_had(vae_run, saved):
    preset = Path("mine.yaml")
    preset.write_text("autoencoder: {type: vae, norm: layer, shortcuts: true}\n")
    tensors, header = weights.load(vae_run / "model.safetensors")
    keys = {name: value for name, value in header["config"].items() if name not in ("norm", "shortcuts")}
    weights.save(Path("old.safetensors"), tensors, {**header, "config": keys})
    for init in ("old.safetensors", saved("AutoencoderKL")[0]):
        config = compose(FitAE, config=str(preset), flags={"init": str(init)})[0]
        assert config.autoencoder.norm == "group" and not config.autoencoder.shortcuts


def test_a_cache_hands_on_the_autoencoder_it_carries(vae_run, vae_cache):
    for name in (vae_cache, vae_cache / "autoencoder.safetensors"):
        assert torch.equal(reconstruction(begun(name)[0]), reconstruction(begun(vae_run)[0]))


def test_a_run_hands_on_its_pictures_unless_others_are_named(vae_run):
    own, other = wanted(vae_run), wanted(vae_run, data="mnist")
    assert (own.dataset.type, own.dataset.count, own.image.size) == ("shapes", 40, 16)
    assert (other.data, other.dataset.type) == ("mnist", "idx")
    assert (other.image.size, other.image.channels) == (16, 3)  # prepared as its encoder knows them


def test_counters_that_one_of_two_codebooks_lacks_are_no_difference(vqvae_run):
    shutil.copytree(vqvae_run, "ae")
    tensors, header = weights.load(Path("ae/model.safetensors"))
    bare = {name: value for name, value in tensors.items() if name not in ("quantize.uses", "quantize.steps")}
    weights.save(Path("ae/model.safetensors"), bare, header)
    assert len(bare) < len(tensors)
    assert torch.equal(reconstruction(begun("ae")[0]), reconstruction(begun(vqvae_run)[0]))


@pytest.mark.parametrize(("old", "new"), [("null", "1"), ("1", "null")])
def test_state_that_a_key_of_training_brings_or_takes_along_is_no_difference(vae_run, old, new):
    config = wanted(vae_run, f"autoencoder.kl_target={old}", "autoencoder.kl_weight=0.1").autoencoder
    before = registry.build("autoencoder", config, image_channels=3)
    weights.save(Path("a.safetensors"), before.state_dict(), weights.describe("autoencoder", config, image_channels=3))
    after, _ = begun("a.safetensors", f"autoencoder.kl_target={new}")
    assert set(before.state_dict()) != set(after.state_dict())
    assert torch.equal(reconstruction(before), reconstruction(after))


def test_keys_of_training_may_change_and_that_is_said(vae_run):
    autoencoder, said = begun(vae_run, "autoencoder.kl_weight=0.5")
    assert autoencoder.kl_weight == 0.5 and "autoencoder.kl_weight: 1e-06 there, 0.5 asked for" in said[0]


# -- what does not fit --------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["autoencoder.widths=[8,16]"], "autoencoder.widths: [8, 8] there, [8, 16] asked for"),
        (["autoencoder.attention=true"], "autoencoder.attention: False there, True asked for"),
        (["autoencoder.norm=layer"], "autoencoder.norm: group there, layer asked for"),
        (["autoencoder.shortcuts=true"], "autoencoder.shortcuts: False there, True asked for"),
        (["image.channels=1"], "image.channels: 3 there, 1 asked for"),
    ],
)
def test_another_architecture_is_refused_by_the_keys_that_differ(vae_run, words, said):
    with pytest.raises(MismatchError) as caught:
        begun(vae_run, *words)
    assert said in str(caught.value)


def test_another_type_of_autoencoder_is_refused_at_once(vae_run, monkeypatch):
    with pytest.raises(ConfigError, match="holds a vae, and a vqvae is asked for"):
        wanted(vae_run, autoencoder="vqvae")
    monkeypatch.setenv("LDMCTL_OVERRIDES", "autoencoder=vqvae")
    with pytest.raises(ConfigError, match="holds a vae, and a vqvae is asked for"):
        wanted(vae_run)


@pytest.mark.parametrize(
    ("init", "said"),
    [
        ("nowhere/ae", "There is no nowhere/ae to start from"),
        ("ae@7", "has no snapshots/000000007.safetensors to start from. Snapshots: best."),
        ("empty", "has no model.safetensors to start from"),
        ("ae/config.yaml", "damaged or not a safetensors file"),
        ("ae/state.safetensors", "holds a state, not an autoencoder"),
        ("old.ckpt", "Pickles (.bin, .pt, .ckpt) are not read."),
        ("other.safetensors", "was not written by ldmctl, and its tensors (a) are not those of an autoencoder that it knows"),
    ],
)
def test_what_holds_no_autoencoder_is_named(vae_run, init, said):
    shutil.copytree(vae_run, "ae")
    Path("empty").mkdir()
    torch.save({}, "old.ckpt")
    safetensors.torch.save_file({"a": torch.zeros(1)}, "other.safetensors")
    with pytest.raises(LdmctlError) as caught:
        wanted(init)
    assert said in str(caught.value)


# -- layers and the command line -------------------------------------------------------


def test_init_beats_a_preset_and_words_beat_init(vae_run):
    Path("mine.yaml").write_text(
        f"init: {vae_run}\nautoencoder: {{type: vqvae, widths: [4], commitment: 1}}\nloop: {{steps: 7}}\nimage: {{size: 20}}"
    )
    config, source = compose(FitAE, config="mine.yaml", overrides=["autoencoder.kl_weight=2"])
    assert (config.autoencoder.type, config.autoencoder.widths, config.autoencoder.kl_weight) == ("vae", [8, 8], 2)
    assert (config.loop.steps, config.image.size, config.init) == (7, 20, str(vae_run))
    assert source == f"--config mine.yaml; autoencoder of {vae_run}"
    assert compose(FitAE, config="mine.yaml", overrides=["init=null"])[0].autoencoder.type == "vqvae"


def test_the_preset_is_chosen_by_the_type_that_init_brings(vqvae_run):
    source = compose(FitAE, flags={"init": str(vqvae_run), "data": "celebhq"})[1]
    assert source.startswith("preset fit-ae/celebhq-vqvae; ")


def test_a_dry_run_shows_the_architecture_of_init(vae_run, capfd):
    assert command(["fit-ae", "--init", str(vae_run), "--out", "new", "--dry-run", "--json", "--device", "cpu"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown["config"]["autoencoder"]["widths"] == [8, 8] and shown["config"]["init"] == str(vae_run)
    assert not Path("new").exists()


@pytest.mark.parametrize("init", ["ae", "ae@best", "ae/model.safetensors"])
def test_a_run_never_begins_with_itself_even_to_be_overwritten(vae_run, capfd, init):
    shutil.copytree(vae_run, "ae")
    assert command(["fit-ae", "--init", init, "--out", "ae", "--overwrite"]) == 2
    assert "cannot start from its own weights" in capfd.readouterr().err
    assert Path("ae/model.safetensors").exists()


def test_python_takes_init_like_the_command(vae_run):
    with pytest.raises(ConfigError, match="holds a vae, and a vqvae is asked for"):
        api.fit_ae(init=vae_run, ae="vqvae", out="new")


# -- a run whose beginning has gone ------------------------------------------------------


@pytest.fixture
def resumable(vae_run):
    """A run in `new` that began with `old/ae`, which has gone."""
    words = ["loop.steps=2", "machine.device=cpu", "machine.precision=fp32"]
    shutil.copytree(vae_run, "old/ae")
    config, _ = compose(FitAE, overrides=words, flags={"init": "old/ae"}, out="new")
    Path("new").mkdir()
    Path("new/config.yaml").write_text(json.dumps(config.model_dump(mode="json")))
    shutil.copy("old/ae/state.safetensors", "new")
    shutil.rmtree("old")
    return words, config


def test_a_run_goes_on_when_what_it_began_with_has_gone(resumable):
    words, config = resumable
    again, _ = compose(FitAE, overrides=words, flags={"init": "old/ae"}, out="new")
    assert again.model_dump() == config.model_dump()


def test_without_a_state_or_for_another_beginning_it_is_needed(resumable):
    words, _ = resumable
    for init, overwrite in (("old/ae", True), ("old/other", False)):
        with pytest.raises(MismatchError, match="There is no old/"):
            compose(FitAE, overrides=words, flags={"init": init}, out="new", overwrite=overwrite)
    Path("new/state.safetensors").unlink()
    with pytest.raises(MismatchError, match="There is no old/ae to start from"):
        compose(FitAE, overrides=words, flags={"init": "old/ae"}, out="new")


# -- the decoder alone -------------------------------------------------------------------


class Halves(nn.Module):
    """An autoencoder by its parts."""

    decoding = ("after", "decoder")

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(), nn.BatchNorm2d(4))
        self.after = nn.Conv2d(4, 4, 1)
        self.afterwards = nn.Conv2d(4, 4, 1)
        self.decoder = nn.Sequential(nn.Conv2d(4, 3, 1), nn.Dropout())


def test_only_what_decodes_is_trained_and_the_rest_rests():
    halves = Halves().train()
    decoder_only(halves)
    assert {name for name, value in halves.named_parameters() if value.requires_grad} == {
        "after.weight",
        "after.bias",
        "decoder.0.weight",
        "decoder.0.bias",
    }
    assert halves.training and halves.decoder[1].training
    assert not any(module.training for module in (halves.encoder, *halves.encoder, halves.afterwards))


def test_an_autoencoder_that_does_not_say_what_decodes_is_refused():
    with pytest.raises(PluginError, match="Conv2d has no `decoding`"):
        decoder_only(nn.Conv2d(3, 3, 1))
    halves = Halves()
    halves.decoding = ("decoder", "quantise")
    with pytest.raises(PluginError, match="names quantise, and Halves has no such submodule"):
        decoder_only(halves)


def test_a_decoder_is_not_trained_behind_a_random_encoder(vae_run):
    with pytest.raises(ConfigError, match="train=decoder leaves the encoder as it is, so it needs one that was trained"):
        compose(FitAE, overrides=["train=decoder"], flags={"data": "shapes"})
    assert wanted(vae_run, "train=decoder").train == "decoder"


def test_an_encoder_that_computes_otherwise_with_equal_weights_is_another():
    def built(**keys):
        torch.manual_seed(0)
        config = plugin_config("autoencoder", {"type": "vae", "channels": 2, "widths": [8, 8], "layers": 1, **keys})
        return registry.build("autoencoder", config, image_channels=1).eval()

    assert same_encoder(built(norm_groups=4), built(norm_groups=4), image_channels=1)
    assert not same_encoder(built(norm_groups=4), built(norm_groups=2), image_channels=1)
    assert same_encoder(built(norm_groups=4, kl_target=0.1), built(norm_groups=4), image_channels=1)  # what only training needs
