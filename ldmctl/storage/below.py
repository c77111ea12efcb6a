"""Run folders below a folder, and which of them was meant by a name that is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from ldmctl.errors import MismatchError

DEEP = 4  # folders below the one that is asked for
USUAL = Path("runs")  # where runs lie unless --out said otherwise


def find(folder: str | Path) -> tuple[list[Path], list[str]]:
    """(the run folders below one, or it alone where it is one; sentences on the folders in it that hold none)."""
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise MismatchError(f"There is no folder {place}. Runs lie in runs/ unless --out said otherwise; name the folder that holds yours.")
    if (place / "run.json").exists():
        return [place], []
    found: list[Path] = []
    foreign: list[str] = []
    for child in entries(place, foreign):
        below = list(runs_in(child, DEEP, foreign))
        found += below
        if not below:
            foreign.append(f"{child} has no run.json, though it looks like a run." if is_bare(child) else f"{child} holds no run.")
    return found, foreign


def runs_in(folder: Path, depth: int, troubles: list[str]) -> Iterator[Path]:
    """A folder that is a run, else the runs below it; nothing is looked for inside of a run."""
    if os.path.lexists(folder / "run.json"):
        yield folder
    elif depth > 1:
        for child in entries(folder, troubles):
            yield from runs_in(child, depth - 1, troubles)


def entries(folder: Path, troubles: list[str]) -> list[Path]:
    """The folders in a folder by name, without hidden ones, and links only to runs; one that may not be read is told to `troubles`."""
    try:
        return sorted(
            Path(each.path)
            for each in os.scandir(folder)
            if not each.name.startswith(".")
            and (each.is_dir(follow_symlinks=False) or (each.is_dir() and os.path.lexists(os.path.join(each.path, "run.json"))))
        )
    except OSError as error:
        troubles.append(f"{folder} cannot be looked into ({error.strerror}).")
        return []


def is_bare(folder: Path) -> bool:
    """Whether a folder has what a run or a cache leaves, but no run.json."""
    if os.path.lexists(folder / "run.json") or not (folder / "config.yaml").is_file():
        return False
    return (folder / "metrics.jsonl").exists() or any(folder.glob("*.safetensors"))


def hint_of(folder: Path) -> str:
    """` Did you mean 'runs/ldm'?` for a folder that is not there, where a run of nearly its name is, beside it or in runs/; else ''."""
    known: dict[str, Path] = {}
    for place, depth in ((folder.parent, 1), (USUAL, DEEP)):
        for child in entries(place, []) if place.is_dir() else ():
            for run in runs_in(child, depth, []):
                known.setdefault(run.name, run)
    close = get_close_matches(folder.name, list(known), n=1)
    return f" Did you mean {str(known[close[0]])!r}?" if close else ""
