"""A folder that a command reads is never one that it writes: refused by real path, before anything is touched. Without torch.

Two names are one folder if the file system says so, so links, `..`, bind mounts and capitals hide nothing. What a command
reads are the folders in its config, and what those were made from, as far as it is there.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from ldmctl.config.base import Config
from ldmctl.config.documents import read_config
from ldmctl.errors import ConfigError, LdmctlError
from ldmctl.storage.assets import data_places

INPUTS = {
    "latents": "the cache",
    "run": "the run",
    "init": "the weights to start from,",
    "ae": "the autoencoder",
    "autoguide": "the weaker run",
}  # by key
TRAINED = ("fit-ae", "encode-dataset", "fit-diffusion")  # own all of their folder, and clear it with --overwrite
LINKED = ("samples", "snapshots", "averages", "checkup", "text-encoder")  # folders in a run folder that somebody may have put elsewhere
PLACES = re.compile(r"path|root|dir|folder|file|archive|place")  # in keys of a dataset that name something on disk
LINKS = 2  # how deep links in a folder of pictures are looked for: splits and their classes
FAR = 4  # steps back: pictures, autoencoder, cache, denoiser


@dataclass(frozen=True)
class Read:
    """A folder or file that a command reads, or that what it reads was made from."""

    what: str  # such as `the cache cache (latents)`
    path: Path
    pictures: bool = False
    far: bool = False  # not read by this command itself


def refuse_inputs(config: Config, out: str | Path | None) -> None:
    """A ConfigError when the command of this config would write to `out` what it, or a command before it, reads there."""
    if out is not None:
        verb: str = config.verb  # type: ignore[attr-defined]
        refuse(out, reads_of(config.model_dump(mode="json")), verb=verb, owns=verb in TRAINED)


def refuse_lost(config: Config, doomed: Iterable[Path]) -> None:
    """A ConfigError when a file that the command of this config is about to replace or delete is one that it reads, or lies in a folder that it reads."""
    reads = {_place(each.path): each for each in _shown(config.model_dump(mode="json")) if os.path.exists(each.path)}
    for file in doomed if reads else ():
        if (lost := reads.get(_place(file)) or reads.get(_place(file.parent))) is not None:
            verb: str = config.verb  # type: ignore[attr-defined]
            raise ConfigError(f"{file} would be replaced or deleted, and {verb} reads it as {lost.what}: name another --out, or move it.")


def elsewhere(out: str | Path | None, default: Path) -> str | Path | None:
    """`out`, None where that is the file that a command writes into the run that it reads unless another is named."""
    named = out is not None and Path(out).name == default.name and same(Path(out).expanduser().parent, default.parent)
    return None if named else out


def refuse(out: str | Path, reads: list[Read], *, verb: str, owns: bool) -> None:
    """The same for what a command reads, however it is known. With `owns`, the command takes the whole folder for its own."""
    folder = Path(out).expanduser()
    places = [folder, *(folder / name for name in LINKED if owns and (folder / name).is_symlink())]
    for each in [each for each in reads if os.path.exists(each.path)]:
        linked = list(_linked(each.path)) if each.pictures else []
        for place in places:
            named = f"--out {out}" if place == folder else f"{place}, a link in --out {out},"
            if same(place, each.path) and not (owns and each.far and not each.pictures):  # which is refused as a run of another verb
                also = "" if each.far else f", which {verb} reads. No command writes where it reads"
                raise ConfigError(f"{named} is {each.what}{also}: name another --out.")
            if each.pictures and (within(place, each.path) or any(same(place, part) or within(place, part) for part in linked)):
                raise ConfigError(
                    f"{named} lies in {each.what}, so what {verb} writes would be among the pictures the next time. "
                    "Name an --out outside of that folder."
                )
            if within(place, each.path) and not _made_before(place, verb):
                also = "" if each.far else f", which {verb} reads. No command writes where it reads"
                raise ConfigError(f"{named} lies in {each.what}{also}: name an --out beside it.")
        own = each.path.name in LINKED and same(each.path.parent, folder) and _made_before(folder, verb)  # its copy of a text encoder
        if owns and not each.far and not own and within(each.path, folder):
            raise ConfigError(
                f"--out {out} holds {each.what}, which {verb} reads. {verb} wants a folder of its own: name another --out, such as {folder / 'out'}."
            )


def reads_of(config: Mapping[str, Any]) -> list[Read]:
    """What a command of these keys reads, and what that was made from."""
    own = list(_named(config))
    return [*own, *chain.from_iterable(_before(each.path, FAR) for each in own if not each.pictures)]


def run_and_before(run: str) -> list[Read]:
    """What `--run` names, and what it was made from."""
    return reads_of({"run": run})


def same(one: Path, other: Path) -> bool:
    """Whether two paths are one place on disk."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def within(inner: Path, outer: Path) -> bool:
    """Whether a path, which need not be there yet, lies below another."""
    return any(same(parent, outer) for parent in Path(os.path.realpath(inner)).parents)


def _linked(folder: Path, depth: int = LINKS) -> Iterator[Path]:
    """The folders elsewhere that links in a folder of pictures lead to, such as those of its splits and classes."""
    try:
        entries = [entry for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return
    yield from (Path(entry.path) for entry in entries if entry.is_symlink())
    if depth > 1:
        yield from chain.from_iterable(_linked(Path(entry.path), depth - 1) for entry in entries)


def folder_of(name: str) -> Path:
    """The run folder of `runs/ae`, of `runs/ae@best`, or of a file in it."""
    path = Path(name).expanduser()
    if not path.exists() and "@" in path.name:
        path = Path(name.rpartition("@")[0]).expanduser()
    homes = [path.parent, path.parent.parent] if path.is_file() else []
    return next((home for home in homes if (home / "run.json").exists()), path)


def _named(config: Mapping[str, Any], *, far: str = "") -> Iterator[Read]:
    """What the keys of one command name."""
    pairs = config.get("pairs") or []
    for key, what in INPUTS.items():
        if isinstance(value := config.get(key), str) and not pairs:
            yield Read(f"{what} {value}{far}" + ("" if far else f" ({key})"), folder_of(value), far=bool(far))
    for key in ("samples", "against"):
        if isinstance(value := config.get(key), str):
            yield Read(f"the folder {value}{far}" + ("" if far else f" ({key})"), folder_of(value), pictures=True, far=bool(far))
    for key in ("start", "map", "picture"):
        if isinstance(start := config.get(key), str) and Path(start).expanduser().is_dir():
            yield Read(f"the folder of pictures {start}{far}" + ("" if far else f" ({key})"), Path(start).expanduser(), pictures=True)
    yield from (Read(f"the folder {folder} (pairs)", Path(folder).expanduser(), pictures=True) for folder in pairs)
    for folder in _pictures(config.get("dataset")):
        yield Read(f"the folder of pictures {folder}{far}" + ("" if far else " (data)"), folder, pictures=True, far=bool(far))
    for key, folder in _heard(config.get("conditions")):
        yield Read(f"the folder {folder}{far}" + ("" if far else f" (conditions.{key})"), folder, far=bool(far))


def _heard(conditions: object) -> Iterator[tuple[str, Path]]:
    """Folders that the keys of conditioners name, such as that of a text encoder, and by which key."""
    for slot, conditioner in conditions.items() if isinstance(conditions, Mapping) else ():
        for key, text in conditioner.items() if isinstance(conditioner, Mapping) else ():
            named = isinstance(text, str) and key != "type" and (key == "encoder" or PLACES.search(key) or re.search(r"[/\\]", text))
            if named and text.strip() and (folder := Path(text).expanduser()).is_dir():
                yield f"{slot}.{key}", folder


def _shown(config: Mapping[str, Any]) -> Iterator[Read]:
    """Files and folders that pictures are made by; of guides of any plugin, so every text among their keys that is the name of a file."""
    for key in ("start", "mask", "map", "picture", "token"):
        for text in config.get(key) or [] if isinstance(config.get(key), list) else [config.get(key)]:
            if isinstance(text, str):
                yield Read(f"{text} ({'from' if key == 'start' else key})", Path(text).expanduser())
    for guide in config.get("guide") or ():
        files = (Path(text).expanduser() for text in guide.values() if isinstance(text, str) and text)
        yield from (Read(f"{file} (guide)", file) for file in files if os.path.isfile(file))  # a folder `red` is no colour


def _place(path: Path) -> tuple[int, int]:
    """What is the same for all names of one place on disk; nothing has (0, 0)."""
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _before(folder: Path, steps: int) -> Iterator[Read]:
    """What a run or a cache was made from, as its config.yaml says; nothing where that cannot be read."""
    if steps and (folder / "config.yaml").is_file():
        try:
            found = list(_named(read_config(folder), far=f", from which {folder} was made"))
        except (LdmctlError, OSError):
            return
        yield from found
        yield from chain.from_iterable(_before(each.path, steps - 1) for each in found if not each.pictures)


def _pictures(dataset: object) -> Iterator[Path]:
    """Files and folders that a dataset's keys name; of any plugin, so every text that is written as a path, or under a key for one, and is there."""
    if not isinstance(dataset, Mapping):
        return
    for key, value in dataset.items():
        texts = [text for text in (value if isinstance(value, list | tuple) else [value]) if isinstance(text, str) and text.strip()]
        for text in texts if key not in ("type", "source") else ():
            if key == "maps":  # which are looked for in the folder of pictures, then here
                yield from [place for place in [Path(text).expanduser()] if text not in ("auto", "none") and place.is_dir()]
            elif PLACES.search(key) or re.search(r"[./\\]", text):  # and not a colour or a class that a folder is called by, too
                yield from [place for place in data_places(text) if os.path.exists(place)][:1]


def _made_before(folder: Path, verb: str) -> bool:
    """Whether a run of this verb is there already, from a time when it was let in."""
    from ldmctl.storage.folder import verb_of

    return verb_of(folder) == verb
