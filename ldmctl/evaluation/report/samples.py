"""The chapter of a folder of samples: how they were made, and some of each class or prompt."""

from __future__ import annotations

from pathlib import Path

from ldmctl.config.differences import flatten
from ldmctl.evaluation.report.parts import Chapter, Figure, decoded, written
from ldmctl.evaluation.report.pictures import Album
from ldmctl.pictures.png_text import made_by
from ldmctl.pictures.recorded import ORIGIN

LABELS, EACH = 24, 8  # classes or prompts shown, and samples of each
SIDE, WIDE = 128, 64  # pixels of a shown sample at most, and shown at least
LOOKED = 2000  # files that are looked into
OF_ONE = ("label", "prompt", "seed", "model", "autoencoder", "grid")


def samples(folder: Path, files: list[Path], album: Album) -> Chapter:
    """Samples by what they were asked to be, the first of each."""
    told = [(file, said) for file in files[:LOOKED] if isinstance(said := decoded(made_by(file) or ""), dict) and "seed" in said]
    chapter = Chapter(
        "Samples", str(folder), f"{len(files):,} pictures" + (f", of which {LOOKED:,} were looked into." if len(files) > LOOKED else ".")
    )
    by_label: dict[str, list[tuple[Path, object]]] = {}
    for file, said in told:
        label = said.get("prompt", said.get("label"))
        by_label.setdefault("without a label" if label is None else str(label), []).append((file, said.get("seed")))
    if told:
        said = told[0][1]
        chapter.fact("made by", source(folder))
        chapter.fact("fingerprint of the model", str(said.get("model"))[:20])
        for path, value in flatten({key: value for key, value in said.items() if key not in OF_ONE}):
            chapter.fact(path, written(value))
    for label, some in list(by_label.items())[:LABELS]:
        shown = [album.add(file, f"{label}, seed {seed}", f"seed {seed}", side=SIDE, shown=WIDE) for file, seed in some[:EACH]]
        if known := [each for each in shown if each is not None]:
            chapter.groups.append((f"{label} ({len(some):,})", known))
    if len(by_label) > LABELS:
        chapter.troubles.append(f"{len(by_label):,} different labels, of which {LABELS} are shown.")
    if not told:
        chapter.figures += strangers(files, album)
    return chapter


def strangers(files: list[Path], album: Album) -> list[Figure]:
    """Some pictures that do not say how they were made."""
    shown = [album.add(file, file.name, file.name, side=SIDE, shown=WIDE) for file in files[: 4 * EACH]]
    return [each for each in shown if each is not None]


def source(folder: Path) -> str | None:
    """The run that a folder of samples says it is from, as the command named it."""
    said = decoded(made_by(folder / "grid.png", ORIGIN) or "")
    run = said.get("run") if isinstance(said, dict) else None
    return run if isinstance(run, str) else None
