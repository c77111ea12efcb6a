"""Autoencoders as diffusers saves them: which plugin and which keys describe the same network. Readable without torch.

A folder of `save_pretrained` holds config.json and one file of weights; a pipeline's has such a folder in it.
"""

import json
from pathlib import Path
from typing import Any

from ldmctl.config.documents import Raw
from ldmctl.endings import file_trouble
from ldmctl.errors import ConfigError, MismatchError, did_you_mean

PARTS = ("", "vae", "vqvae")  # the folder itself, or where pipelines keep their autoencoder
STEM = "diffusion_pytorch_model"

SHARED = {  # what diffusers takes where config.json is silent
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D"],
    "block_out_channels": [64],
    "layers_per_block": 1,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "mid_block_add_attention": True,
}
OWN: dict[str, Raw] = {
    "AutoencoderKL": {"latent_channels": 4, "use_quant_conv": True, "use_post_quant_conv": True},
    "VQModel": {"latent_channels": 3, "num_vq_embeddings": 256, "vq_embed_dim": None, "norm_type": "group"},
}
KEYS = {  # theirs -> ours
    "latent_channels": "channels",
    "block_out_channels": "widths",
    "layers_per_block": "layers",
    "norm_num_groups": "norm_groups",
    "mid_block_add_attention": "attention",
    "num_vq_embeddings": "codebook_size",
}
SCALES = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")  # of latents: ours are whitened by measured statistics
UNUSED = {*SCALES, "sample_size", "force_upcast", "lookup_from_codebook"}  # they change nothing between a picture and its reconstruction


def part_of(folder: Path) -> Path | None:
    """The folder itself or the one within it that diffusers saved an autoencoder to; None where there is neither."""
    return next((folder / part for part in PARTS if (folder / part / "config.json").is_file()), None)


def weights_of(folder: Path) -> Path:
    """The one safetensors file of a saved model; pickles, shards and a choice of variants are a MismatchError."""
    plain = folder / f"{STEM}.safetensors"
    found = [plain] if plain.exists() else sorted(folder.glob(f"{STEM}.*.safetensors"))
    if len(found) == 1:
        return found[0]
    there = ", ".join(file.name for file in found or sorted(folder.glob(f"{STEM}*"))) or "no weights"
    if found:
        raise MismatchError(f"{folder} holds {there}, and which one is meant is not known. Rename it to {plain.name}.")
    pickled = f"{STEM}.bin" in there
    reason = " A .bin file is a pickle, which can run any code when it is read, so ldmctl reads none." if pickled else ""
    raise MismatchError(
        f"{folder} has no {plain.name}, but {there}.{reason} diffusers writes that file: "
        f"from_pretrained(...).save_pretrained(..., safe_serialization=True)."
    )


def read_config(folder: Path) -> Raw:
    """config.json of a saved autoencoder that ldmctl has a twin of, the defaults filled in; any other is a ConfigError."""
    file = folder / "config.json"
    try:
        given = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MismatchError(file_trouble(error) or f"{file} cannot be read: {error}") from None
    name = given.get("_class_name") if isinstance(given, dict) else None
    if name not in OWN:
        raise ConfigError(f"{file} describes {name or 'no model of diffusers'}; ldmctl starts from {' or '.join(OWN)}.")
    config = SHARED | OWN[name] | given
    for key, value, wanted in _checks(config):
        if value != wanted:
            raise ConfigError(f"{file}: {key} is {value!r}, which ldmctl has no network for; it knows {wanted!r} here.")
    known = {*SHARED, *OWN[name], *UNUSED}
    if strange := sorted(key for key in given if key not in known and not key.startswith("_")):
        raise ConfigError(
            f"{file}: the key {strange[0]} ({given[strange[0]]!r}) is not known to ldmctl, so the network may be another than it builds."
            f"{did_you_mean(strange[0], known)}"
        )
    if config["in_channels"] not in (1, 3, 4):
        raise ConfigError(f"{file}: in_channels is {config['in_channels']!r}; pictures have 1, 3 or 4 channels.")
    return config


def _checks(config: Raw) -> list[tuple[str, Any, Any]]:
    """(key, value, the one value that there is a network for)."""
    levels = len(config["block_out_channels"])
    rows = [
        ("down_block_types", list(config["down_block_types"]), ["DownEncoderBlock2D"] * levels),
        ("up_block_types", list(config["up_block_types"]), ["UpDecoderBlock2D"] * levels),
        ("act_fn", "silu" if config["act_fn"] == "swish" else config["act_fn"], "silu"),  # two names of one function
        ("out_channels", config["out_channels"], config["in_channels"]),
    ]
    if config["_class_name"] == "VQModel":
        rows += [
            ("norm_type", config["norm_type"], "group"),
            ("vq_embed_dim", config["vq_embed_dim"] or config["latent_channels"], config["latent_channels"]),
        ]
    return rows


def layer(config: Raw) -> Raw:
    """The keys of fit-ae that build the same network."""
    plugin = {"AutoencoderKL": "vae", "VQModel": "vqvae"}[config["_class_name"]]
    ours = {name: config[key] for key, name in KEYS.items() if key in config}
    return {"autoencoder": {"type": plugin, "norm": "group", "shortcuts": False, **ours}, "image": {"channels": config["in_channels"]}}
