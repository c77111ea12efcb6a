"""A folder of samples as a data set: every picture below it, ldmctl's or anybody's, with the class that it was asked to be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ldmctl.errors import DataError
from ldmctl.pictures.choosing import spread
from ldmctl.pictures.opening import opened
from ldmctl.pictures.said import is_sheet, said_of
from ldmctl.protocols import Example

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


class Sampled:
    """Pictures by path, without what ldmctl made of several: grids, traces and sheets of pairs. A label is what a PNG's text says, or the name of the folder."""

    def __init__(self, folder: str | Path, classes: Sequence[str], *, count: int | None = None, evenly: bool = False):
        """At most `count` of them: `evenly` over all, which lie class by class in anybody's folder, or the first, as a run makes its seeds."""
        self.root, self.classes = Path(folder).expanduser(), list(classes)
        if not self.root.is_dir():
            raise DataError(f"There is no folder {self.root} of samples.")
        found = sorted(
            file for file in self.root.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file() and not _hidden(file, self.root)
        )
        files = [file for file in found if not is_sheet(file)]
        self.found = len(files)
        self.files = [files[row] for row in spread(len(files), count)] if evenly and count is not None else files[:count]
        if not self.files:
            raise DataError(f"{self.root} holds no pictures. Endings that are looked for: {', '.join(sorted(SUFFIXES))}.")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        """One sample; DataError when it cannot be opened."""
        return Example(opened(self.files[index]), self.label(self.files[index]))

    def stamp(self, index: int) -> str:
        """Path, size and time."""
        file = self.files[index]
        stat = file.stat()
        return f"{file.relative_to(self.root)}:{stat.st_size}:{stat.st_mtime_ns}"

    def models(self, most: int = 100) -> set[object]:
        """Fingerprints of the models that made them, as so many of their texts say, evenly; None for those that do not say."""
        return {said_of(self.files[row]).get("model") for row in spread(len(self.files), most)}

    def label(self, file: Path) -> int:
        """Index of the class that it was asked to be; -1 where nobody says, or names none of the classes."""
        said = said_of(file) if file.suffix.lower() == ".png" else {}
        name = said.get("label", file.parent.name if file.parent != self.root else None)  # null is no class, on whichever shelf it lies
        return self.classes.index(str(name)) if str(name) in self.classes else -1


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)
