"""MNIST and its kin: four idx files, plain or gzipped (http://yann.lecun.com/exdb/mnist, "file formats")."""

import contextlib
import gzip
import hashlib
import math
import sys
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ldmctl.config import Place, PluginConfig
from ldmctl.errors import DataError, one_line
from ldmctl.protocols import Example
from ldmctl.storage.assets import data_root, find_data, offline

PREFIX = {"train": "train", "val": "t10k"}
FETCHERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}  # classes of torchvision.datasets
LAYOUT = "a folder with {train,t10k}-images-idx3-ubyte and {train,t10k}-labels-idx1-ubyte, plain or with .gz"


class Idx:
    """Grey pictures and labels of a pair of idx files, held in memory; val is t10k."""

    class Config(PluginConfig):
        path: str | list[str] = Field(
            description="folder of the four files, or several of which the first that exists is taken", json_schema_extra=Place
        )
        download: Literal["mnist", "fashion-mnist", "kmnist"] | None = Field(
            None, description="the set that torchvision fetches if missing"
        )
        classes: list[str] = Field([str(digit) for digit in range(10)], description="names of the labels, in order")

    def __init__(self, config: Config, *, split: str):
        self.config, self.split = config, split
        self.classes = list(config.classes)
        folder = _find(config)
        self.images = _array(_file(folder, f"{PREFIX[split]}-images", 3), 3)
        self.labels = _array(_file(folder, f"{PREFIX[split]}-labels", 1), 1)
        if len(self.images) != len(self.labels) or not len(self.labels):
            raise DataError(f"{folder} holds {len(self.images)} {split} pictures and {len(self.labels)} labels.")
        if (highest := int(self.labels.max())) >= len(self.classes):
            raise DataError(f"{folder} has labels up to {highest}, but `classes` names only {len(self.classes)}.")

    def __reduce__(self) -> tuple[Any, ...]:  # a worker reads the files again, instead of receiving the arrays
        return _again, (type(self), self.config, self.split)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        return Example(self.images[index][None], *self.note(index))

    def stamp(self, index: int) -> str:
        """Hash of pixels and label."""
        content = self.images[index].tobytes() + self.labels[index].tobytes()
        return hashlib.blake2b(content, digest_size=8).hexdigest()

    def note(self, index: int) -> tuple[int, str]:
        """(label, no caption: the name of a class says no more than its number)."""
        return int(self.labels[index]), ""


def _again(plugin: type[Idx], config: Any, split: str) -> Idx:
    return plugin(config, split=split)


def _find(config: Idx.Config) -> Path:
    fetched = data_root() / FETCHERS[config.download] / "raw" if config.download else None
    missing = ""
    try:
        found = find_data(config.path, layout=LAYOUT)
    except DataError as error:
        found, missing = fetched or Path(), str(error)
        if fetched is None:
            raise
    if fetched is None or found.absolute() != fetched.absolute() or _whole(found):
        return found
    missing = missing or f"{found.absolute()} does not hold the whole set, as after a download that was interrupted."
    if offline():
        raise DataError(f"{missing}\nIt is not downloaded, because downloads are switched off.")
    if config.download and (failure := _fetch(FETCHERS[config.download])):  # files that are there and whole stay
        raise DataError(f"{missing}\nDownloading it failed: {failure}")
    return found


def _whole(folder: Path) -> bool:
    """Whether the files of both splits are there."""
    try:
        for prefix in PREFIX.values():
            _file(folder, f"{prefix}-images", 3)
            _file(folder, f"{prefix}-labels", 1)
    except DataError:
        return False
    return True


def _fetch(name: str) -> str:
    """Have torchvision download a set below the data root; -> why that failed, or ''."""
    try:
        import torchvision.datasets

        with contextlib.redirect_stdout(sys.stderr):  # stdout belongs to results
            getattr(torchvision.datasets, name)(str(data_root()), download=True)
    except (ImportError, RuntimeError, OSError) as error:  # an unfit torchvision raises RuntimeError when imported
        for empty in (data_root() / name / "raw", data_root() / name):  # left behind, they would pass for the set
            with contextlib.suppress(OSError):
                empty.rmdir()
        return one_line(error)
    return ""


def _file(folder: Path, stem: str, dims: int) -> Path:
    names = [f"{stem}{dot}idx{dims}-ubyte{suffix}" for dot in "-." for suffix in ("", ".gz")]
    if (found := next((folder / name for name in names if (folder / name).is_file()), None)) is None:
        raise DataError(f"{folder.absolute()} holds none of {', '.join(names)}. Expected: {LAYOUT}.")
    return found


def _array(path: Path, dims: int) -> np.ndarray[Any, Any]:
    """uint8 array of an idx file, or DataError when header and length disagree."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    start = 4 + 4 * dims
    if len(content) < start or content[:4] != bytes([0, 0, 8, dims]):  # 8: unsigned bytes
        raise DataError(f"{path} is not an idx file of unsigned bytes in {dims} dimension{'s' if dims > 1 else ''}.")
    shape = [int(side) for side in np.frombuffer(content, ">u4", dims, offset=4)]
    if len(content) - start != math.prod(shape):
        raise DataError(f"{path} should hold {math.prod(shape):,} bytes after its header and holds {len(content) - start:,}.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
