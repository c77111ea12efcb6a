"""What tests of the data set `folder` stand on: tiny pictures, and a folder opened for one split."""

from pathlib import Path

import numpy as np
from PIL import Image

from ldmctl_plugins.datasets.folder import Folder


def write_pictures(root: Path, *names: str) -> Path:
    """Pictures below a folder, no two alike -> the folder."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = list(name.encode("utf-8", "surrogatepass"))
        with path.open("wb") as file:
            Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file, "PNG")
    return root


def numbered(folder: str, count: int, suffix: str = ".png") -> list[str]:
    """`folder/0.png`, `folder/1.png`, ..."""
    return [f"{folder}/{index}{suffix}" for index in range(count)]


def opened(root: Path, split: str = "train", **keys) -> Folder:
    """The data set of one split."""
    return Folder(Folder.Config(type="folder", path=str(root), **keys), split=split)


def names(dataset: Folder) -> list[str]:
    """Its pictures by path."""
    return [file.path for file in dataset.files]


def labels(dataset: Folder) -> dict[str, str]:
    """The class of each picture that has one, by path."""
    return {file.path: dataset.classes[label] for file, label in zip(dataset.files, dataset.labels, strict=True) if label >= 0}


def captions(dataset: Folder) -> dict[str, str]:
    """The caption of each picture that has one, by path."""
    return {file.path: text for index, file in enumerate(dataset.files) if (text := dataset.note(index)[1])}


def said(dataset: Folder) -> str:
    """All that a command says of it."""
    return "\n".join([*dataset.remarks, *dataset.warnings])


def write_texts(root: Path, texts: dict[str, str]) -> Path:
    """Text files by path -> the folder."""
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def shared(root: Path) -> tuple[list[str], list[str]]:
    """(the pictures to train on, those held out)."""
    return names(opened(root)), names(opened(root, "val"))


def each(folder: str, count: int, *, start: int = 0, pre: str = "", ending: str = ".jpg") -> list[str]:
    """`folder/a0.jpg`, `folder/a1.jpg`, ..."""
    return [f"{folder}/{pre}{index}{ending}" for index in range(start, start + count)]
