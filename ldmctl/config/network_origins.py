"""What `fit-diffusion --init` names: the network of an earlier run, and the config layer that builds it. Readable without torch."""

import os
from pathlib import Path

from ldmctl.config.documents import Raw, read_config
from ldmctl.config.made_before import spelled_out
from ldmctl.config.origins import Origin, file_of, header_of
from ldmctl.errors import ConfigError, MismatchError, with_article

KEYS = ("denoiser", "conditions", "schedule", "prediction", "self_conditioning")


def find(name: str) -> Origin:
    """The weights of a run (`runs/ldm`, `runs/ldm@10000`, `runs/ldm@best`) or of a file of one; what is not there is a MismatchError."""
    file = file_of(name, verb="fit-diffusion")
    header = header_of(file)
    if header.get("kind") != "diffusion":
        raise MismatchError(f"{file} holds {with_article(str(header.get('kind', 'file')))}, not a denoiser to start from.")
    described = {key: header[key]["config"] for key in ("denoiser", "schedule")}
    heard = {"label": header["conditioner"], **dict.fromkeys(("text", "map", "picture")), **header.get("conditions", {})}
    listens = {slot: each and each["config"] for slot, each in heard.items()}
    own = {"prediction": header["prediction"], "self_conditioning": header.get("self_conditioning", False)}
    return Origin(name, file, {**described, "conditions": listens, **own})


def layer_of(name: str, *, out: str | Path | None = None, overwrite: bool = False) -> Raw:
    """The keys of fit-diffusion that build its network and say what it predicts.

    A run in `out` that began with it continues without it, by its own config; no run begins with itself (ConfigError).
    """
    folder = None if out is None else Path(out).expanduser()
    try:
        origin = find(name)
    except MismatchError:
        if folder is not None and not overwrite and (folder / "state.safetensors").exists() and (folder / "config.yaml").exists():
            config = read_config(folder)
            if config.get("init") is not None and same_path(config["init"], name):
                return {key: config[key] for key in (*KEYS, "conditioner") if key in config}
        raise
    if folder is not None and folder.resolve() in origin.file.resolve().parents[:2]:  # snapshots/ is one deeper
        raise ConfigError(f"A run cannot start from its own weights: init is {name} and --out is {out}. Name another --out.")
    return origin.layer


def image_of(name: str) -> Raw:
    """How the pictures were prepared that a run learned from, as the layer {"image": ...}; {} where that cannot be read."""
    try:
        image = header_of(file_of(name, verb="fit-diffusion")).get("image")
    except MismatchError:  # said when the model is opened
        return {}
    return {"image": spelled_out(image)} if isinstance(image, dict) else {}


def same_path(one: str, other: str) -> bool:
    """Whether two names are of one place, here."""
    return os.path.abspath(os.path.expanduser(one)) == os.path.abspath(os.path.expanduser(other))
