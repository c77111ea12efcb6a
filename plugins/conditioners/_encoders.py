"""Folders of published text encoders: where they are looked for, and the hash that one is known by.

An encoder is a folder as `save_pretrained` writes it, with its tokenizer. It is looked for at its path, below LDMCTL_WEIGHTS_DIR,
and then among what the hub has stored, where it is downloaded unless that is switched off.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from ldmctl.errors import MissingError

from . import _hub

TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
SETTINGS = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
WITHOUT = "take conditions.text=words, which learns its words from the captions and needs no weights"

TRAINED = (  # ways out for a model that is there
    "  or name the folder that holds it in conditions.text.encoder, where its fit-diffusion is to continue\n"
    "  or run its ldmctl fit-diffusion again with --embed-text where the encoder is, even if it is finished: that copies it into the run\n"
    "  or sample without --prompt and --negative, for which no encoder is needed"
)


def find(encoder: str, renamed: str | None = None, *, copy: Path | None = None, sha256: str | None = None) -> Path:
    """The folder of an encoder, of this hash where one is given; a copy in a run comes first, then where it was, and where it was `renamed` to.

    A MissingError has every way out.
    """
    places = [copy] if copy is not None and copy.is_dir() else []
    for name in dict.fromkeys([encoder, renamed or encoder]):
        places.append(Path(name).expanduser())
        if own := os.environ.get("LDMCTL_WEIGHTS_DIR"):
            places += [Path(own).expanduser() / each for each in dict.fromkeys([name, name.rsplit("/", maxsplit=1)[-1]])]
    there = [place for place in places if place.is_dir()]
    folder = next((place for place in there if sha256 in (None, digest(place))), None)
    if folder is None and (not there or there == [copy]):
        folder = _stored(renamed or encoder, places, trained=sha256 is not None)
    folder = folder or there[-1]
    if sha256 is not None and (found := digest(folder)) != sha256:
        raise MissingError(
            f"The text encoder in {folder} is another one than the model was trained with: the hash of its files is {found[:12]}, not "
            f"{sha256[:12]}.\nWays out:\n  put the files of then there, or below LDMCTL_WEIGHTS_DIR as {encoder}\n{TRAINED}"
        )
    return folder


def complete(folder: Path) -> Path:
    """The folder, if it has a config, a tokenizer and weights; else a MissingError says which is not there."""
    lacks = [
        *(["config.json"] if not (folder / "config.json").is_file() else []),
        *(["a tokenizer (tokenizer.json)"] if not any((folder / name).is_file() for name in TOKENIZERS) else []),
        *(["weights (model.safetensors)"] if not _weights(folder) else []),
    ]
    if lacks:
        raise MissingError(
            f"{folder} is no complete text encoder: it lacks {' and '.join(lacks)}.\nWays out:\n"
            "  save both into it, by model.save_pretrained(FOLDER) and tokenizer.save_pretrained(FOLDER) of transformers\n"
            f"  or name another folder, or a name on the hub, in conditions.text.encoder\n  or {WITHOUT}"
        )
    return folder


def digest(folder: Path) -> str:
    """SHA-256 of what an encoder says things by: names and bytes of its files."""
    return _hashed(tuple((file, (known := file.stat()).st_size, known.st_mtime_ns) for file in needed(folder)))


@lru_cache(maxsize=4)
def _hashed(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Of files with their sizes and times; read once in a process while they stay as they are."""
    total = hashlib.sha256()
    for file, *_ in files:
        with file.open("rb") as stream:
            total.update(f"{file.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def needed(folder: Path) -> list[Path]:
    """The files of an encoder's folder that it is opened from: its weights, its tokenizer and their settings."""
    named = [folder / name for name in (*TOKENIZERS, *SETTINGS) if (folder / name).is_file()]
    return sorted([*named, *_weights(folder), *folder.glob("*.index.json")])


def _weights(folder: Path) -> list[Path]:
    """Files of weights that transformers would read: safetensors, else those of torch."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def _stored(encoder: str, places: list[Path], *, trained: bool) -> Path:
    """The folder in which the hub's files of this name are stored, downloaded if need be; what to do differs for a model that is `trained`."""
    ways = [f"  copy a folder with config.json, a tokenizer and *.safetensors to {places[0].absolute()}"]
    ways += ["  or set LDMCTL_WEIGHTS_DIR to the folder that holds it"]
    ways += [] if trained else ["  or name another folder in conditions.text.encoder"]
    why, failed = "There is no such folder.", None
    if not encoder.startswith((".", "~", "/")) and encoder.count("/") < 2:
        try:
            return _hub.snapshot(encoder, TOKENIZERS)
        except ImportError:
            why += " Encoders are downloaded by huggingface_hub, which is not installed."
            ways.append("  or pip install 'ldmctl[text]'")
        except _hub.failures() as error:
            if _hub.is_of_the_disk(error):
                raise
            said, way = _hub.why_not(error, encoder)
            why, failed = f"{why} {said}", error
            ways += [f"  or {way}"] if way else []
    looked = [
        "Looked for:",
        *(f"  {place.absolute()}{', whose files are damaged or others' if place.is_dir() else ''}" for place in places),
    ]
    raise MissingError(
        "\n".join([f"The text encoder {encoder} is missing. {why}", *looked, "Ways out:", *ways, TRAINED if trained else f"  or {WITHOUT}"])
    ) from failed
