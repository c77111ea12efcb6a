"""What a path holds, and what belongs to it: the cache and the autoencoder that a run was made from, its samples and their scores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldmctl.config.relocated import beside
from ldmctl.errors import DataError, MismatchError
from ldmctl.evaluation.report.cache import fingerprint
from ldmctl.evaluation.report.parts import decoded
from ldmctl.evaluation.report.samples import source
from ldmctl.pictures.album import pictures_in
from ldmctl.pictures.sampled import Sampled
from ldmctl.storage.apart import folder_of
from ldmctl.storage.assets import data_places
from ldmctl.storage.below import find, hint_of, is_bare
from ldmctl.storage.folder import verb_of
from ldmctl.storage.runs import look, word

RUNS = ("fit-ae", "encode-dataset", "fit-diffusion")
ORDER = ("data", "fit-ae", "encode-dataset", "fit-diffusion", "samples", "scores", "curve")
ANSWERS = {  # JSON files by the keys that they have
    "data": {"splits", "sizes", "duplicates"},
    "scores": {"measures", "extractor", "verdict"},
    "curve": {"curve", "extractor"},
}
FILES = ("check.json", "judgement.json", "curve.json")
BESIDE = 2  # folders above a run in whose folders a check of its pictures is looked for
NEAR = ("samples", "judgement", "curve")  # folders beside a chain where its samples and scores lie unless --out said otherwise
UP = 3  # folders above a run where others of its chain are looked for


@dataclass(frozen=True)
class Found:
    """One thing to tell of: its kind, one of `ORDER`, the folder or file, and of a JSON file what it says."""

    kind: str
    path: Path
    said: Mapping[str, Any] | None = None


def held(path: Path) -> list[Found]:
    """What a path holds; a MismatchError where nothing in it is of ldmctl."""
    if path.is_file():
        return [answer(path)]
    if not path.exists():
        raise MismatchError(f"There is no {path} to tell of.{hint_of(path)} `ldmctl runs list` shows the runs below runs/.")
    if os.path.lexists(path / "run.json"):
        return [run_in(path)]
    if is_bare(path):
        raise MismatchError(f"{path} has no run.json, so nothing says what its other files are of. Copy it from where the run was made.")
    answers = [answer(path / name) for name in FILES if (path / name).exists()]
    if answers:
        return answers
    if any(True for _ in pictures_in(path)):
        return [Found("samples", path)]
    if below := find(path)[0]:
        return [run_in(each) for each in below]
    if pictures_of_others(path):
        return [Found("samples", path)]
    raise MismatchError(
        f"{path} holds nothing that a report is made of: a run of fit-ae or fit-diffusion, a cache, samples, or what eval-samples (--out) "
        "or data check (--out) wrote."
    )


def pictures_of_others(folder: Path) -> list[Path]:
    """Every picture below a folder that holds no numbered ones, as eval-samples takes them; none where there are none."""
    try:
        return Sampled(folder, []).files
    except DataError:
        return []


def run_in(folder: Path) -> Found:
    """A run or a cache; one of a verb that is not known here is a MismatchError, and one that says none is told as damaged."""
    verb = verb_of(folder)
    if verb is not None and verb not in RUNS:
        raise MismatchError(f"{folder} holds a run of {verb}, which a report does not tell of.")
    return Found(verb or RUNS[0], folder)


def answer(file: Path) -> Found:
    """A JSON file of eval-samples or data check; any other is a MismatchError."""
    try:
        said = decoded(file.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise MismatchError(f"{file} cannot be read ({error.strerror}).") from None
    for kind, keys in ANSWERS.items():
        if isinstance(said, dict) and keys <= said.keys():
            return Found(kind, file, said)
    raise MismatchError(f"{file} is damaged, or is not what eval-samples or data check writes.")


def chain(named: Sequence[Found], troubles: list[str]) -> list[Found]:
    """These, with all that they were made from and what was made of a run, each once and in the order of work."""
    found: list[Found] = []
    waiting = [*named, *(each for one in named if one.kind == "fit-diffusion" for each in made_of(one.path))]
    while waiting:
        one = waiting.pop(0)
        if not any(each.kind == one.kind and same(each.path, one.path) for each in found):
            found.append(one)
            waiting += [*parents(one, troubles), *checks(one)]
    return sorted(found, key=lambda each: ORDER.index(each.kind) if each.kind in ORDER else len(ORDER))


def parents(one: Found, troubles: list[str]) -> Iterator[Found]:
    """What a run or a cache was made from; what is not there any more is told to `troubles`."""
    wanted = {"fit-diffusion": ("latents", "encode-dataset"), "encode-dataset": ("run", "fit-ae")}
    if one.kind not in wanted:
        return
    key, kind = wanted[one.kind]
    own = look(one.path, curves=False)
    name = word(own.config.get(key)) or word(own.record.get("parent"))
    if name is None:
        return
    there = locate(name, one.path, kind)
    if there is None:
        troubles.append(f"{one.path} was made from {name}, which is not here or is something else now.")
        return
    known = word(own.record.get("cache"))
    if kind == "encode-dataset" and known and (now := fingerprint(there)) not in (None, known):
        troubles.append(f"The cache {there} has changed since {one.path} began: its fingerprint was {known[:12]}, and is {str(now)[:12]}.")
    yield Found(kind, there)


def checks(one: Found) -> Iterator[Found]:
    """What data check wrote of the pictures of a run or cache, in folders beside it or in the current one."""
    if one.kind not in ("fit-ae", "encode-dataset"):
        return
    dataset = look(one.path, curves=False).config.get("dataset")
    named = dataset.get("path") if isinstance(dataset, dict) else None
    names = [name for name in (named if isinstance(named, list) else [named]) if isinstance(name, str)]
    pictures = {os.path.realpath(place) for place in data_places(names) if place.is_dir()}
    for place in dict.fromkeys([*list(one.path.absolute().parents)[:BESIDE], Path.cwd()]) if pictures else ():
        for file in sorted(place.glob(f"*/{FILES[0]}")):
            with suppress(MismatchError):  # of others, or damaged: nobody named it
                found = answer(file)
                if (of := word((found.said or {}).get("pictures"))) and os.path.realpath(of) in pictures:
                    yield Found(found.kind, shorter(file), found.said)


def locate(name: str, home: Path, verb: str) -> Path | None:
    """The run of a verb that was called `name` when `home` was made from it: from the folders above `home`, from here, or at its tail."""
    named = Path(beside(home, str(folder_of(name))))
    above = list(home.absolute().parents)[: UP + 1]
    tails = [Path(*named.parts[-count:]) for count in (2, 1) if count < len(named.parts)]
    places = [named] if named.is_absolute() else [*(place / named for place in above), named]
    for place in [*places, *(place / tail for place in above for tail in tails)]:
        if (place / "run.json").exists() and verb_of(place) == verb:
            return shorter(place)
    return None


def shorter(path: Path) -> Path:
    """A path as seen from here, where it lies below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path


def made_of(run: Path) -> Iterator[Found]:
    """Samples and scores beside a run's chain that say they are of this run."""
    for place in dict.fromkeys([*list(run.absolute().parents)[:UP], Path.cwd()]):
        for name in NEAR:
            folder = place / name
            if not folder.is_dir():
                continue
            if same_run(source(folder), run):
                yield Found("samples", shorter(folder))
            for file in (folder / each for each in FILES[1:]):
                with suppress(MismatchError):  # of others, or damaged: nobody named it
                    if file.is_file() and same_run(model_of(found := answer(file)), run):
                        yield Found(found.kind, shorter(file), found.said)


def model_of(found: Found) -> str:
    """What scores are of, as the command named it."""
    return (word((found.said or {}).get("of")) or "").removeprefix("samples of ")


def same_run(name: str | None, run: Path) -> bool:
    """Whether a name, such as runs/ldm@best or runs/ldm/model.safetensors, is that of a run, by its last two parts."""
    if not name:
        return False
    parts = [part for part in Path(name).parts if not part.endswith(".safetensors") and part != "snapshots"]
    if not parts:
        return False
    parts[-1] = parts[-1].partition("@")[0]
    own = run.absolute().parts
    count = min(2, len(parts))
    return tuple(parts[-count:]) == own[-count:]


def same(one: Path, other: Path) -> bool:
    """Whether two paths are one place."""
    return os.path.realpath(one) == os.path.realpath(other)
