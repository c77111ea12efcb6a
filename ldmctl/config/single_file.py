"""What a file of weights is that ldmctl did not write, by the names of its tensors, and how a folder is made of it that `init` reads."""

from collections.abc import Collection
from pathlib import Path

CONVERT = (
    "  from diffusers import AutoencoderKL\n"
    "  AutoencoderKL.from_single_file({file!r}).save_pretrained({folder!r})\n"
    "It fetches a config.json from the hub; without a network give it one: from_single_file(..., config=FOLDER_WITH_CONFIG_JSON).\n"
    "Then: --init {folder}"
)
FIRST_STAGE = "first_stage_model."  # where a checkpoint of latent diffusion keeps its autoencoder


def what_it_is(file: Path, names: Collection[str]) -> str:
    """A sentence on a safetensors file whose tensors have these names, and the way on."""
    if any(name.startswith(FIRST_STAGE) for name in names):
        return f"{file} is the single file of a whole diffusion model, with an autoencoder in it. {_made(file)}"
    if any(name.startswith(("model.diffusion_model.", "double_blocks.", "joint_blocks.")) for name in names):
        return f"{file} is the single file of a denoiser, without an autoencoder; fit-ae starts from an autoencoder alone."
    plain = {name.removeprefix("vae.") for name in names}
    quantized = any(name.startswith("quantize.") for name in plain)
    if any(name.startswith(("encoder.down_blocks.", "decoder.up_blocks.")) for name in plain):
        return (
            f"{file} is an autoencoder of diffusers without the config.json that describes its network. Make a folder of the two: "
            f"put the file into {_folder(file)} as diffusion_pytorch_model.safetensors, and beside it the config.json "
            f"({'VQModel' if quantized else 'AutoencoderKL'}) of the model that it comes from. Then: --init {_folder(file)}"
        )
    if any(name.startswith(("encoder.down.", "decoder.up.")) for name in plain):
        if quantized:
            return (
                f"{file} is the single file of a VQ autoencoder with the names of CompVis (taming-transformers), which neither ldmctl nor "
                "diffusers reads. A folder that diffusers saved (VQModel, with its config.json) can be named by --init."
            )
        return f"{file} is the single file of an autoencoder with the names of CompVis. {_made(file)}"
    return (
        f"{file} was not written by ldmctl, and its tensors ({', '.join(sorted(names)[:3]) or 'none'}) are not those of an autoencoder that it "
        "knows. Weights of diffusers are named by their folder, which holds config.json."
    )


def pickled(file: Path) -> str:
    """What to do with a checkpoint that is a pickle."""
    return (
        f"{file} is no safetensors file. Pickles (.bin, .pt, .ckpt) are not read. They can run any code when they are. "
        f"If it is an autoencoder that you trust: {_made(file)}"
    )


def _made(file: Path) -> str:
    return f"Make a folder of it with diffusers (pip install diffusers), once:\n{CONVERT.format(file=str(file), folder=str(_folder(file)))}"


def _folder(file: Path) -> Path:
    return file.with_suffix("") if file.suffix else file.with_name(f"{file.name}-folder")
