"""Maps beside pictures: which files of a folder are maps and never pictures, and whose map each one is.

A folder is one of maps where its name says so (`masks`, `train_masks`, `labels`,
`annotations` ...) and half of what is in it is called as pictures are that lie
outside of it: `masks/1.png` and `1.jpg` or `images/1.jpg`, `train/masks/1.png` or
`masks/train/1.png` and `train/1.jpg`. So a class of pictures that is called masks
stays one. `dataset.maps` names the folder where this is not enough.
"""

import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ldmctl.errors import DataError

from . import _captions, _celeb, _formats, _map_beside, _map_doubts, _tree
from ._map_doubts import have
from ._map_names import Key, bare, by_key, keys_of, kind, match_names, match_stems, top_of_maps
from ._map_tables import named_in_tables
from ._map_twins import doubts
from ._names import counted, listed, shown
from ._splits import FILLERS, KINDS
from ._tree import File

NAMES = ("classes.txt", "labels.txt")  # the classes of label maps, one a line


@dataclass
class Maps:
    """The maps of a folder."""

    files: set[str] = field(default_factory=set)  # that are maps, or lie among them, by path below the root
    of: dict[str, Path | _celeb.Parts] = field(default_factory=dict)  # by picture
    classes: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    doubtful: dict[str, list[str]] = field(default_factory=dict)  # pictures in folders that are called as those of maps are, by folder
    orphans: list[str] = field(default_factory=list)  # maps of no picture
    warnings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def say(self, used: Sequence[str]) -> None:
        """Sentences on how many of the pictures in use have a map, and on folders of pictures that are called as those of maps are."""
        self.remarks += _map_doubts.of_folders(self.doubtful, set(used))
        if not self.folders:
            return
        lacking = [path for path in used if path not in self.of]
        number = len(used) - len(lacking)
        kinds = f", with {len(self.classes)} classes" if self.classes else ""
        self.remarks.append(f"Maps from {listed(self.folders)}: {number:,} of {counted(len(used), 'picture')} {have(number)} one{kinds}.")
        if lacking:
            lack = f"{len(lacking):,} of {counted(len(used), 'picture')} {have(len(lacking))} no map"
            self.warnings.append(f"{lack}, the first {shown(lacking[0])}.")
        if self.orphans:
            belong = "belongs" if len(self.orphans) == 1 else "belong"
            self.warnings.append(f"{counted(len(self.orphans), 'map')} {belong} to no picture, the first {shown(self.orphans[0])}.")


def find(root: Path, pictures: Sequence[File], files: Sequence[File], asked: str, *, tables: bool) -> Maps:
    """The maps of these pictures among all files of a folder; `asked` is auto, none, or the name of a folder. A DataError where that holds none.

    Those that `tables` name are known as such here, and whose they are by `of_tables`.
    """
    out = Maps()
    if asked == "none":
        return out
    if asked == "auto":
        faces = _celeb.find(root, pictures, files)
        out.files |= faces.files
        if faces.folder:
            out.of, out.orphans, out.folders, out.classes = {**faces.of}, faces.orphans, [faces.folder], _celeb.CLASSES
        else:
            out.files |= named_in_tables(root, pictures, files) if tables else set()
            left = [file for file in pictures if file.path not in out.files]
            _by_names(root, left, out)
            beside = {} if out.folders or out.files else _map_beside.find(left, out.warnings)
            out.files |= {file.path for files in beside.values() for file in files}
            out.of |= {path: root / files[0].path for path, files in beside.items()}
            out.folders += ["files beside the pictures that end in _mask or the like"] if beside else []
            out.warnings += [] if out.folders or out.files else doubts(root, left)
    else:
        _by_wish(root, pictures, files, asked, out)
    _read_classes(root, files, out)
    return out


def stamp(given: Path | _celeb.Parts, root: Path) -> str:
    """Name and version of a map by its files: `path:size:mtime`, the path as seen from the folder of the pictures, which may be moved; of
    several files the sum of their sizes and the last of their times."""
    files = [given] if isinstance(given, Path) else given.files
    try:
        known = [file.stat() for file in files]
    except OSError:
        known = []
    size, time = sum(each.st_size for each in known), max((each.st_mtime_ns for each in known), default=0)
    name = str(given if isinstance(given, Path) else given.filename)
    with suppress(ValueError):  # on another drive
        name = Path(os.path.relpath(name, root)).as_posix()
    return f"{name}:{size}:{time}"


# -- by the names of folders -----------------------------------------------------


def _by_names(root: Path, pictures: Sequence[File], out: Maps) -> None:
    """Folders that are called as those of maps are, where the names of their pictures bear it out."""
    folders = {file.folder for file in pictures}
    common = posixpath.commonpath(folders) if folders else ""
    top_of = {folder: top_of_maps(folder, common.count("/") + 1 if common else 0) for folder in folders}
    if not any(top_of.values()):
        return
    tops: dict[str, list[File]] = defaultdict(list)
    outside: list[File] = []
    for file in pictures:
        if top := top_of[file.folder]:
            tops[top].append(file)
        else:
            outside.append(file)
    owners, stems = by_key(outside)
    found = {top: match_names(files, owners) or match_stems(top, files, stems) for top, files in tops.items()}
    taken = [top for top, matched in found.items() if _bears_out(tops[top], matched, owners)]
    called = {top.rpartition("/")[2].casefold() for top in taken}  # val/masks is what train/masks is, whatever lies in it
    taken = sorted(top for top in tops if top.rpartition("/")[2].casefold() in called or _is_beside_images(top, outside))
    out.doubtful = {top: [file.path for file in tops[top]] for top in tops if top not in taken}
    best = min((kind(top.rpartition("/")[2]) or 0 for top in taken), default=0)
    for top in sorted(taken, key=lambda top: (kind(top.rpartition("/")[2]) or 0, top)):
        out.files |= {file.path for file in tops[top]}
        if (kind(top.rpartition("/")[2]) or 0) == best and not (found[top] and found[top].keys() <= out.of.keys()):
            _take(root, f"{top}/", tops[top], found[top], out)
        else:
            left = f"{shown(top)}/ ({counted(len(tops[top]), 'map')}) is left out, because {listed(out.folders)} {'holds' if len(out.folders) == 1 else 'hold'} maps too"
            out.warnings.append(f"{left}: dataset.maps={shown(top)} takes it instead.")


def _is_beside_images(top: str, pictures: Iterable[File]) -> bool:
    """Whether `masks/` lies beside a folder that is called `images` or the like, and beside no other folder: then neither is a class."""
    parent = f"{top.rpartition('/')[0]}/" if "/" in top else ""
    beside = {file.folder[len(parent) :].partition("/")[0].casefold() for file in pictures if file.folder.startswith(parent)} - {""}
    return bool(beside) and beside <= FILLERS - KINDS


def _bears_out(maps: Sequence[File], matched: dict[str, File], owners: dict[Key, list[str]]) -> bool:
    """Whether half of the maps are called as pictures are, or half of the pictures beside them have one."""
    there = {bare(folder) for folder in {file.folder for file in maps}}
    possible = len({path for key, paths in owners.items() if key[0] in there for path in paths})
    return bool(matched) and 2 * len(matched) >= min(len(maps), possible or len(maps))


def _take(root: Path, folder: str, maps: Iterable[File], matched: dict[str, File], out: Maps) -> None:
    used = {file.path for file in matched.values()}
    again = {key for file in matched.values() for key in keys_of(file)}
    out.folders.append(folder)
    out.of |= {path: root / file.path for path, file in matched.items()}
    out.orphans += [file.path for file in maps if file.path not in used and again.isdisjoint(keys_of(file))]


# -- by the wish of the user -----------------------------------------------------


def _by_wish(root: Path, pictures: Sequence[File], files: Sequence[File], asked: str, out: Maps) -> None:
    """All that lies in the folder `asked`, which is one inside the root, of that name at any depth, or elsewhere."""
    name, inside, place = asked.replace("\\", "/").strip("/"), set[str](), Path(asked).expanduser()
    if not os.path.isabs(asked):
        inside = {top for file in files for top in _tops(file.folder, name)}
    if not inside and place.is_dir() and place.resolve().is_relative_to(root.resolve()):
        name = place.resolve().relative_to(root.resolve()).as_posix()
        inside = {name}
    if inside:
        base, maps = root, [file for file in files if any(f"{file.folder}/".startswith(f"{top}/") for top in inside)]
    elif place.is_dir():
        base, maps, name = place, _tree.scan(place).files, ""
    else:
        raise DataError(f"There is no folder {shown(asked)} in {shown(str(root))} or elsewhere to take maps from (dataset.maps).")
    maps = [file for file in maps if file.size and _formats.ending(file.path) in _formats.SUFFIXES]
    out.files |= {file.path for file in maps} if inside else set()
    others = Maps()
    _by_names(root, [file for file in pictures if file.path not in out.files], others)
    out.files |= others.files
    if others.folders:
        out.remarks.append(f"{listed(others.folders)} holds maps by its name and is left out, because dataset.maps is {shown(asked)}.")
    matched = match_names(maps, (keys := by_key(file for file in pictures if file.path not in out.files))[0], without=name, stems=keys[1])
    if not matched:
        first = f": its first is {shown(maps[0].path)}, the first picture {shown(pictures[0].path)}" if maps and pictures else ""
        none = f"Of the {counted(len(maps), 'map')} in {shown(asked)} none has the name of a picture{first}"
        raise DataError(f"{none}. A map is called as its picture is.")
    _take(base, f"{asked.rstrip('/')}/", maps, matched, out)
    out.folders = [f"{top}/" for top in sorted(inside)] or out.folders


def _tops(folder: str, name: str) -> Iterable[str]:
    """The folders called `name` on the way to a folder."""
    for found in re.finditer(rf"(^|/){re.escape(name)}(?=/|$)", folder):
        yield folder[: found.end()]


# -- by a column of a table --------------------------------------------------------


def of_tables(root: Path, named: dict[str, str], out: Maps) -> None:
    """Take over the map that a table names for each picture, instead of one that was found by its name."""
    missing = []
    for picture, path in sorted(named.items()):
        if (root / path).is_file():
            out.of[picture] = root / path
        else:
            missing.append(path)
    if named:
        out.folders.append("a column of a table")
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        out.warnings.append(f"{counted(len(missing), 'map')} that a table names {verb} not there, the first {shown(missing[0])}.")


# -- classes -----------------------------------------------------------------------


def _read_classes(root: Path, files: Iterable[File], out: Maps) -> None:
    """Names of classes from a file among the maps: one a line, or each after its number."""
    if out.classes:
        return
    there = {file.path.casefold(): file.path for file in files}
    for folder in out.folders:
        for name in NAMES:
            inside = there.get(f"{folder}{name}".casefold(), "")
            at = root / inside if inside else Path(folder) / name
            if not at.is_file():
                continue
            lines = [line.strip() for line in _captions.read(at)[0].splitlines() if line.strip()]
            numbered = [re.fullmatch(r"(\d+)\s*[:=,;\s]\s*(.+)", line) for line in lines]
            if lines and all(numbered):
                if large := next((each[1] for each in numbered if each and not re.fullmatch(r"0{,9}\d{1,3}", each[1])), ""):
                    number = large if len(large) < 20 else f"{large[:10]}... ({len(large):,} digits)"
                    raise DataError(f"{shown(str(at))} gives a class the number {number}; a label map has those from 0 to 254.")
                names = {int(each[1]): each[2] for each in numbered if each}
                lines = [names.get(number, str(number)) for number in range(max(names) + 1)]
            if len(lines) > 255:
                raise DataError(f"{shown(str(at))} names {len(lines):,} classes; a label map has 255 at most, 0 to 254.")
            out.classes = lines
            out.files |= {inside} if inside else set()
            return
