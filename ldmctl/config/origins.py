"""What `--init` names: a run's model or a folder saved by diffusers, and the config layer of its architecture. Readable without torch."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ldmctl.config import diffusers_format as published
from ldmctl.config import single_file
from ldmctl.config.documents import Raw, read_config
from ldmctl.endings import why_not_read
from ldmctl.errors import ConfigError, MismatchError, with_article

BEFORE: dict[str, Raw] = {  # what was so before there was a key for it
    name: {"norm": "group", "shortcuts": False} for name in ("vae", "vqvae", "fsq")
}
EXAMPLES = {"fit-ae": "runs/ae, runs/ae@best", "fit-diffusion": "runs/ldm, runs/ldm@best"}


@dataclass(frozen=True)
class Origin:
    """Weights to start from."""

    name: str  # as the user wrote it
    file: Path  # a safetensors file
    layer: Raw  # the keys that build its network: of an autoencoder also `image`, with at least its channels
    published: Raw = field(default_factory=dict)  # config.json of diffusers; {} for a file of ldmctl


def find(name: str) -> Origin:
    """The weights of a run (`runs/ae`, `runs/ae@10000`, `runs/ae@best`), of a file of ldmctl, or of a folder saved by diffusers.

    What is not there or damaged is a MismatchError, what ldmctl has no network for a ConfigError.
    """
    if (folder := published.part_of(Path(name).expanduser())) is not None:
        config = published.read_config(folder)
        return Origin(name, published.weights_of(folder), published.layer(config), config)
    file = file_of(name, verb="fit-ae")
    header = header_of(file)
    if header.get("kind") != "autoencoder":
        raise MismatchError(f"{file} holds {with_article(str(header.get('kind', 'file')))}, not an autoencoder to start from.")
    keys: Any = header.get("config")
    context: Any = header.get("context")
    if not (isinstance(keys, dict) and isinstance(keys.get("type"), str) and isinstance(context, dict) and "image_channels" in context):
        raise MismatchError(f"{file} is damaged: its header does not describe an autoencoder.")
    image = header.get("image", {}) | {"channels": header["context"]["image_channels"]}
    return Origin(name, file, {"autoencoder": {**BEFORE.get(keys["type"], {}), **keys}, "image": image})


def layer_of(name: str, *, out: str | Path | None = None, overwrite: bool = False) -> Raw:
    """The keys of fit-ae that build its network: `autoencoder`, and `image` as it saw pictures.

    A run in `out` that began with it can go on without it, by its own config; no run begins with itself (ConfigError).
    """
    try:
        origin = find(name)
    except MismatchError:
        if out is not None and not overwrite and (kept := _kept(name, Path(out).expanduser())):
            return kept
        raise
    if out is not None and Path(out).expanduser().resolve() in origin.file.resolve().parents[:2]:  # snapshots/ is one deeper
        raise ConfigError(f"A run cannot start from its own weights: init is {name} and --out is {out}. Name another --out.")
    return origin.layer


def _kept(name: str, out: Path) -> Raw:
    """The autoencoder and the pictures of a run with a state to go on from that began with this origin; {} when there is none."""
    if not all((out / file).exists() for file in ("state.safetensors", "config.yaml")):
        return {}
    config = read_config(out)
    if config.get("init") is None or os.path.abspath(os.path.expanduser(config["init"])) != os.path.abspath(os.path.expanduser(name)):
        return {}
    return {key: config[key] for key in ("autoencoder", "image", "data", "dataset") if config.get(key) is not None}


def file_of(name: str, *, verb: str) -> Path:
    """The file of ldmctl that a name stands for."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    stem, _, snapshot = name.rpartition("@") if "@" in path.name else (name, "", "")
    folder = Path(stem).expanduser()
    if not folder.is_dir():
        raise MismatchError(
            f"There is no {folder} to start from. init is a run folder of {verb} ({EXAMPLES[verb]}), one of its files"
            + (", or a folder that diffusers saved; models on a hub are downloaded first." if verb == "fit-ae" else ".")
        )
    if verb == "fit-ae" and not snapshot and (folder / "autoencoder.safetensors").exists() and not (folder / "model.safetensors").exists():
        return folder / "autoencoder.safetensors"  # a cache of latents, which carries its autoencoder
    number = f"{int(snapshot):09d}" if snapshot.isdecimal() else snapshot
    file = folder / "snapshots" / f"{number}.safetensors" if snapshot else folder / "model.safetensors"
    if not file.exists():
        there = sorted(each.stem for each in (folder / "snapshots").glob("*.safetensors"))
        hint = (
            f" Snapshots: {', '.join(there) or 'none'}."
            if snapshot
            else f" It is no run of {verb} with a save" + (", nor a model of diffusers." if verb == "fit-ae" else ".")
        )
        files = [] if snapshot else sorted(each for each in folder.iterdir() if each.suffix in (".safetensors", ".ckpt"))
        if len(files) == 1 and not (folder / "run.json").exists():
            header_of(files[0])  # says what it is, and how a folder is made of it
        raise MismatchError(f"{folder} has no {file.relative_to(folder)} to start from.{hint}")
    return file


def header_of(file: Path) -> Raw:
    """What a file of ldmctl says of itself."""
    import safetensors

    from ldmctl.config.mapped import opened

    try:
        with opened(file, framework="np") as mapped:
            header = json.loads((mapped.metadata() or {}).get("ldmctl", "{}"))
            names = list(mapped.keys())
    except (ValueError, RecursionError) as error:
        raise MismatchError(f"{file} is damaged: its header cannot be read ({error}).") from None
    except (OSError, safetensors.SafetensorError) as error:
        if file.suffix in (".bin", ".pt", ".pth", ".ckpt") and file.stat().st_size:
            raise MismatchError(single_file.pickled(file)) from None
        raise MismatchError(why_not_read(file, error)) from None
    if not isinstance(header, dict) or "kind" not in header:
        raise MismatchError(single_file.what_it_is(file, names))
    return header
