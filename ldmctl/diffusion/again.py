"""A picture made again from its own file: the model it names, found by its fingerprint, and the config that its text spells."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ldmctl.config.resolve import resolve
from ldmctl.config.schemas.sample import Sample
from ldmctl.config.travelling import BESIDE
from ldmctl.diffusion.moved import GUIDE, PLACES, SHORT, as_recorded, named_anew, refuse_gone
from ldmctl.diffusion.network import fingerprint_of
from ldmctl.errors import ConfigError, LdmctlError, MismatchError
from ldmctl.latents.codec import autoencoder_fingerprint
from ldmctl.pictures.album import differing, shared
from ldmctl.pictures.recorded import WAYS, Recorded, recorded
from ldmctl.storage import weights
from ldmctl.storage.apart import folder_of, same
from ldmctl.storage.record import model_file, run_of

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
DEFAULT = "runs/ldm"


def repeat(file: str | Path, out: str | Path, overrides: Sequence[str], flags: Mapping[str, Any]) -> tuple[Sample, Recorded]:
    """The config that makes the picture of a file again, and what the file says.

    `flags` and `overrides` are those of the command; what would change the picture, or write where it lies, is a ConfigError.
    """
    places = {key: flags[key] for key in PLACES if flags.get(key) is not None}
    left = {key: value for key, value in flags.items() if value is not None and key not in ("run", "ae", "machine", *PLACES)}
    machine = {key: value for key, value in (flags.get("machine") or {}).items() if value is not None}
    moved = [word for word in overrides if word.startswith(GUIDE)]
    others = [word for word in overrides if word not in moved]
    if others := [*others, *left, *(["precision"] if "precision" in machine else [])]:
        raise ConfigError(
            f"--again makes a picture as its file says, so {', '.join(others)} cannot be given with it: only --run, --ae, --out and the "
            f"device can. Where the files that it was made of lie now is said by {', '.join(PLACES.values())} and {GUIDE}KEY=FILE. For "
            "another picture leave --again away."
        )
    path = Path(file).expanduser()
    if any(same(Path(out).expanduser(), place) for place in (path.parent, path.absolute().parent.parent)):
        raise ConfigError(f"--out {out} is where {file} lies, and --again replaces nothing there: name another --out.")
    picture = recorded(path)
    if strange := [word for key, word in PLACES.items() if key in places and picture.said.get(key) is None]:
        raise ConfigError(f"{file} was made without {strange[0]}, so leave it away: --again changes nothing of a picture.")
    guides = named_anew(picture, moved)
    refuse_gone(picture, places, guides)
    places = {**places, **({"guide": guides} if moved else {})}
    return config_of(picture, run=flags.get("run"), ae=flags.get("ae"), machine=machine, places=places), picture


def config_of(picture: Recorded, *, run: str | None, ae: str | None, machine: dict[str, Any], places: Mapping[str, Any]) -> Sample:
    """The config that makes this one picture, of what lies at `places` now.

    A MismatchError where no model is found, or the text is none that this version can have written.
    """
    said = picture.said
    run = find_run(picture, run)
    ae = find_decoder(picture, run, ae)
    compute = {"precision": PRECISIONS.get(said["precision"], said["precision"]), **({"tile": said["tile"]} if "tile" in said else {})}
    layer = {key: value for key, value in said.items() if key in Sample.model_fields and key not in BESIDE} | {
        "run": run,
        "ae": ae,
        "seeds": str(said["seed"]),
        "label": ["index:none" if said["label"] is None else f"class:{said['label']}"],
        **({"prompt": [said["prompt"]]} if "prompt" in said else {}),
        **({"token": said["token"]} if "token" in said else {}),
        "machine": {**machine, **compute},
        **places,
    }
    try:
        return resolve(Sample, [layer], source=f"The text of {picture.file}")
    except ConfigError as error:
        raise MismatchError(f"{error} It was edited, or written by another version of ldmctl. {WAYS}") from None


def apart(picture: Recorded, settings: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """How a picture differs from those with these settings, and from what is its `own`, wherever the files lie that both name; nothing
    where it does not."""
    if picture.said.get("learned") != own.get("learned"):
        return "with a word or class that was learned otherwise (--token)"
    if "guide" in settings:
        settings = {**settings, "guide": as_recorded(picture, settings["guide"])}
    return differing(*({key: value for key, value in each.items() if key not in PLACES} for each in (shared(picture.text), settings)))


def find_run(picture: Recorded, run: str | None) -> str:
    """`--run` of the model that made a picture: the one named, or one near here or near the picture; a MismatchError where none has it."""
    wish, tried = picture.said["model"], {}
    for name in [run] if run else _places(picture):
        folder = folder_of(name).resolve()
        if (folder, name.partition("@")[2]) in tried:
            continue
        tried[folder, name.partition("@")[2]] = name
        if (found := _holding(name, wish)) is not None:
            return found
    names = list(tried.values())
    some = ", ".join(names[:3]) + (f" and {len(names) - 3} others" if names[3:] else "")
    raise MismatchError(
        f"{picture.file} was made by the model {wish[:SHORT]}, which is not in {some}, nor among the snapshots there: the run was moved, "
        "deleted, or trained further without a snapshot. Name the run that has it by --run."
    )


def find_decoder(picture: Recorded, run: str, ae: str | None) -> str | None:
    """`--ae` of the decoder that made a picture, None for the one beside its model; a MismatchError where it is not found."""
    wish = picture.said["autoencoder"]
    source = model_file(run, verb="fit-diffusion")
    beside = run_of(source) / "autoencoder.safetensors"
    if ae is None and _is_decoder(beside, wish):
        return None
    named = ae or picture.ae
    if named is not None:
        with suppress(LdmctlError):
            if _is_decoder(model_file(named, verb="fit-ae"), wish):
                return named
    where = f", and {named} does not have it" if named else ""
    raise MismatchError(
        f"{picture.file} was decoded by another autoencoder ({wish[:SHORT]}) than the one in {run}{where}. --ae names the run of fit-ae that has it."
    )


def _places(picture: Recorded) -> Iterator[str]:
    """Where the run may be that a picture came from: what its grid names, then all in runs/; from here and from each folder above the picture."""
    homes = dict.fromkeys([Path(), *picture.file.absolute().parents])
    for name in dict.fromkeys([picture.run or DEFAULT, DEFAULT]):
        yield from dict.fromkeys([name, *(str(home / name) for home in homes if (home / name.partition("@")[0]).is_dir())])
    for home in homes:
        yield from (str(file.parent) for file in sorted(home.glob("runs/*/model.safetensors")))


def _holding(name: str, fingerprint: str) -> str | None:
    """`name`, or the snapshot of its run, that has this fingerprint."""
    with suppress(LdmctlError):
        if _fingerprint(model_file(name, verb="fit-diffusion")) == fingerprint:
            return name
    folder = folder_of(name)
    for file in sorted((folder / "snapshots").glob("*.safetensors"), reverse=True):
        with suppress(LdmctlError):
            if _fingerprint(file) == fingerprint:
                return f"{folder}@{int(file.stem) if file.stem.isdecimal() else file.stem}"
    return None


def _fingerprint(file: Path) -> str:
    tensors, header = weights.load(file)
    return fingerprint_of(tensors, header)


def _is_decoder(file: Path, fingerprint: str) -> bool:
    return file.is_file() and autoencoder_fingerprint(file) == fingerprint
