"""A single file of another project is named for what it is, with the way to make a folder of it that --init reads."""

import re
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ldmctl.config.origins import find
from ldmctl.errors import MismatchError

COMPVIS = ["encoder.down.0.block.0.norm1.weight", "decoder.up.0.block.0.conv1.weight", "quant_conv.weight"]
DIFFUSERS = ["encoder.down_blocks.0.resnets.0.norm1.weight", "decoder.up_blocks.0.resnets.0.conv1.weight"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            COMPVIS,
            ["single file of an autoencoder with the names of CompVis", "from_single_file('vae.safetensors').save_pretrained('vae')"],
        ),
        ([f"vae.{name}" for name in COMPVIS], ["names of CompVis", "from_single_file"]),
        ([f"first_stage_model.{name}" for name in COMPVIS], ["whole diffusion model, with an autoencoder in it", "from_single_file"]),
        (["model.diffusion_model.x", "first_stage_model.encoder.down.0.x"], ["whole diffusion model", "from_single_file"]),
        (["model.diffusion_model.input_blocks.0.0.weight"], ["denoiser, without an autoencoder"]),
        ([*COMPVIS, "quantize.embedding.weight"], ["VQ autoencoder with the names of CompVis", "VQModel, with its config.json"]),
        (DIFFUSERS, ["without the config.json that describes its network", "vae as diffusion_pytorch_model.safetensors", "AutoencoderKL"]),
        ([*DIFFUSERS, "quantize.embedding.weight"], ["without the config.json", "VQModel"]),
        (["lora_up.weight"], ["its tensors (lora_up.weight) are not those of an autoencoder that it knows"]),
    ],
    ids=["compvis", "with a prefix", "checkpoint", "full checkpoint", "denoiser", "vq", "diffusers", "diffusers vq", "other"],
)
def test_a_single_file_is_told_how_to_become_a_folder(tmp_path, monkeypatch, names, said):
    monkeypatch.chdir(tmp_path)
    tensors = {name: torch.zeros(1) for name in names}
    safetensors.torch.save_file(tensors, "vae.safetensors")
    Path("folder").mkdir()
    safetensors.torch.save_file(tensors, "folder/vae.safetensors")
    for name in ("vae.safetensors", "folder"):  # the file itself, or a folder with nothing else
        with pytest.raises(MismatchError) as caught:
            find(name)
        words = str(caught.value).replace("folder/", "")
        assert [each for each in said if each not in words] == []
        assert caught.value.exit_code == 6


def test_a_pickle_is_told_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}}, "vae.ckpt")
    with pytest.raises(MismatchError, match=r"Pickles .* are not read.*\n.*\n.*from_single_file\('vae\.ckpt'\)"):
        find("vae.ckpt")


def test_the_advice_works(tmp_path, monkeypatch):
    """The lines that are printed make a folder that --init reads, of a file with CompVis' names."""
    diffusers = pytest.importorskip("diffusers")
    monkeypatch.chdir(tmp_path)
    keys = {"block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": 4, "layers_per_block": 1}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    model = diffusers.AutoencoderKL(**keys, **blocks)
    model.save_pretrained("described")
    safetensors.torch.save_file({old_name(name): value for name, value in model.state_dict().items()}, "mine.safetensors")
    with pytest.raises(MismatchError) as caught:
        find("mine.safetensors")
    code = "\n".join(line.strip() for line in str(caught.value).splitlines() if line.startswith("  "))
    exec(code.replace("from_single_file('mine.safetensors')", "from_single_file('mine.safetensors', config='described')"), {})
    folder = re.search(r"--init (\S+)", str(caught.value))[1]
    assert folder == "mine" and find(folder).layer["autoencoder"]["widths"] == [8, 8]


def old_name(name):
    """A weight of this small network as CompVis names it."""
    side, _, rest = name.partition(".")
    last = 1
    rest = re.sub(r"^down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", rest)
    rest = re.sub(r"^down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", rest)
    rest = re.sub(r"^up_blocks\.(\d+)\.resnets\.", lambda found: f"up.{last - int(found[1])}.block.", rest)
    rest = re.sub(r"^up_blocks\.(\d+)\.upsamplers\.0\.", lambda found: f"up.{last - int(found[1])}.upsample.", rest)
    rest = re.sub(r"^mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", rest)
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    rest = re.sub(r"^mid_block\.attentions\.0\.(.+)\.", lambda found: f"mid.attn_1.{attention[found[1]]}.", rest)
    return f"{side}.{rest}".replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out") if rest else name
