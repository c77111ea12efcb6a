"""`ldmctl data check`: a data set opened as training would, looked at, and what was found made to stick."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ldmctl import registry
from ldmctl.config.documents import write_json
from ldmctl.config.presets import compose, expand_data
from ldmctl.config.resolve import resolve
from ldmctl.config.schemas.encode_dataset import EncodeDataset
from ldmctl.config.schemas.fit_ae import FitAE
from ldmctl.config.schemas.shared import Image
from ldmctl.console import Console
from ldmctl.errors import ConfigError, DataError, LdmctlError
from ldmctl.pictures.album import refuse_foreign
from ldmctl.pictures.check import Look, check, look_at_all, nearly_the_same
from ldmctl.pictures.choosing import large_enough, named
from ldmctl.pictures.introduction import introduce_datasets, sayings
from ldmctl.pictures.opening import BROKEN, limits
from ldmctl.pictures.pillow import ready
from ldmctl.pictures.png import tiled, write_png
from ldmctl.pictures.promised import opened_as_promised
from ldmctl.protocols import Dataset
from ldmctl.storage import apart
from ldmctl.storage.answers import refuse_foreign_answer
from ldmctl.storage.atomic import write_text
from ldmctl.storage.folder import make_folder, verb_of
from ldmctl.storage.lines import write_line

CONTACTS = 64  # pictures of the contact sheet


def check_data(data: str, image: dict[str, Any], *, out: Path | None, split: bool, metadata: bool, console: Console) -> dict[str, Any]:
    """What `check` says of a folder or a name, with the paths that were "written"."""
    planned = compose(FitAE, overrides=[], flags={"data": data}, only=("image",))[0].image.model_dump()
    config = resolve(EncodeDataset, [expand_data(data), {"image": {**planned, **image}}], source=f"data check {data}")
    sets = {each: opened_as_promised(registry.build("dataset", config.dataset, split=each)) for each in ("train", "val")}
    if split or metadata:
        refuse_table(sets["train"])
    if out is not None:
        refuse_out(out.expanduser(), sets["train"])
    introduce_datasets({split: large_enough(dataset, config.image.smallest, split) for split, dataset in sets.items()}, console)
    looks = look_at_all(sets, config.image, console)
    twins = nearly_the_same(looks, console)
    found = check(looks, twins, sets["train"].classes, config.image, map_classes=getattr(sets["train"], "map_classes", ()))
    root = getattr(sets["train"], "root", None)
    said = {kind: list(sayings(sets, kind)) for kind in ("remarks", "warnings")}
    found = {"data": data, **({"pictures": str(root.resolve())} if isinstance(root, Path) else {}), **found, **said}
    written: list[str] = []
    if split or metadata:
        written.append(str(make_stick(config.dataset, sets, looks, sides(looks, twins) if split else {}, console)))
    if out is not None:
        folder = out.expanduser()
        write_contacts(folder / "contact.png", sets["train"], looks, config.image)
        write_text(folder / "check.json", write_json(found) + "\n")
        written += [str(folder / "contact.png"), str(folder / "check.json")]
    return {**found, "written": written}


def refuse_out(folder: Path, dataset: Any) -> None:
    """Make the folder of --out; a ConfigError or MismatchError for one that holds the pictures, a run, or files of others by these names."""
    root = getattr(dataset, "root", None)
    if isinstance(root, Path):
        apart.refuse(folder, [apart.Read(f"the folder of pictures {root}", root, pictures=True)], verb="data check", owns=False)
    if (folder / "run.json").exists():
        raise ConfigError(f"--out {folder} holds a run of {verb_of(folder) or 'ldmctl'}: name another --out.")
    make_folder(folder)
    refuse_foreign(folder / "contact.png")
    refuse_foreign_answer(folder / "check.json", ("splits", "sizes", "duplicates"))


def write_contacts(file: Path, dataset: Dataset, looks: list[Look], settings: Image) -> None:
    """Training pictures as they would be trained on, evenly over those that can be read."""
    good = [each.index for each in looks if each.split == "train" and not each.why]
    rows = [good[place * len(good) // min(CONTACTS, len(good))] for place in range(min(CONTACTS, len(good)))]
    size = settings.size
    shown = tiled(np.stack(squares(dataset, rows, settings)))
    write_png(file, shown, {"Description": f"Rows: training pictures, cropped and resized to {size}x{size}."})


def squares(dataset: Dataset, rows: Sequence[int], settings: Image) -> list[np.ndarray[Any, Any]]:
    """uint8 [C,size,size] of those of the rows that can be trained on; a DataError where none can."""
    centered, found, why = settings.model_copy(update={"crop": "center"}), [], ""
    with limits(settings.max_pixels):
        for row in rows:
            try:
                found.append(np.atleast_3d(np.asarray(ready(dataset[row].picture, centered)[0])).transpose(2, 0, 1))
            except (DataError, *BROKEN) as error:
                why = str(error)
    if not found:
        raise DataError(f"No training picture can be used. {why}")
    return found


# -- made to stick -----------------------------------------------------------------


def refuse_table(dataset: Any) -> None:
    """A ConfigError where a table cannot be written, or would take the place of another."""
    root = getattr(dataset, "root", None)
    if not isinstance(root, Path) or not root.is_dir():
        raise ConfigError("--write-split and --write-metadata write a table into a folder of pictures; this data set is none.")
    if there := sorted(each.name for each in root.glob("metadata.*")):
        raise ConfigError(f"{root} has {there[0]} already, which is not replaced: move it away, or edit it.")


def make_stick(config: Any, sets: Mapping[str, Any], looks: list[Look], place: Mapping[str, str], console: Console) -> Path:
    """The table, written without the columns that would be read from it as something else; none stays where it cannot be used. `place` is
    the split of each picture by name, where it is to hold them."""
    held_out = {name for name, split in place.items() if split == "val"}
    if place and not held_out and any(each.split == "val" for each in looks):
        raise ConfigError(
            "Each picture that would be held out is a near-duplicate of a training picture, so with --write-split none would be held out. "
            "Remove what is spare first."
        )
    file = write_table(sets, looks, place)
    try:
        again = {split: registry.build("dataset", config, split=split) for split in sets}
        if place:
            refuse_unheard(again["val"], looks, held_out)
        if changed := unlike(sets, again):
            write_table(sets, looks, place, without=changed)
        for column, what in changed.items():
            console.warn(
                f"{file} has no column `{column}`: {what} would be read from it as something else, and is taken from where it is now."
            )
    except LdmctlError:
        file.unlink()
        raise
    return file


def write_table(sets: Mapping[str, Any], looks: list[Look], place: Mapping[str, str], *, without: Collection[str] = ()) -> Path:
    """metadata.jsonl with a row for each picture: name, label, captions, and the split that it belongs to, where `place` says that."""
    rows = []
    for each in sorted(looks, key=lambda look: look.name):
        label, texts = known(sets[each.split], each.index, (each.label, each.text))
        bare = each.name.startswith("~") or ":" in each.name.partition("/")[0]  # which a reader takes for a home or a drive
        row: dict[str, Any] = {"file_name": f"./{each.name}" if bare else each.name}
        row |= {"split": place[each.name]} if place else {}
        row |= {"label": label} if label and "label" not in without else {}
        row |= {"text": texts[0] if len(texts) == 1 else [*texts]} if texts and "text" not in without else {}
        rows.append(row)
    if all(len(row) == 1 for row in rows):  # a table of names alone says nothing
        rows = [{**row, "text": ""} for row in rows]
    file = Path(sets["train"].root) / "metadata.jsonl"
    write_text(file, "".join(map(write_line, rows)))
    return file


def known(dataset: Any, index: int, seen: tuple[int, str]) -> tuple[str, tuple[str, ...]]:
    """(the name of the class or '', every caption) of an item; of a data set without notes, what was `seen` of it."""
    label, text = dataset.note(index) if hasattr(dataset, "note") else seen
    texts = dataset.captions(index) if hasattr(dataset, "captions") else ((text,) if text else ())
    return dataset.classes[label] if label >= 0 else "", tuple(texts)


def unlike(sets: Mapping[str, Any], again: Mapping[str, Any]) -> dict[str, str]:
    """The columns of a table that are read otherwise than they were written, with a word for the first such value."""
    before, after = told(sets), told(again)
    pairs = [(each, after[name]) for name, each in before.items() if name in after]
    labels = [was[0] for was, now in pairs if was[0] != now[0]]
    texts = [was[1] for was, now in pairs if was[1] != now[1]]
    out = {"label": f"the class {max(labels)!r}"} if labels else {}
    return out | ({"text": f"the caption {max(texts)[0]!r:.60}"} if texts else {})


def told(sets: Mapping[str, Any]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """What is known of each picture by its name, without opening it."""
    noted = [dataset for dataset in sets.values() if hasattr(dataset, "note")]
    return {named(dataset.stamp(index)): known(dataset, index, (-1, "")) for dataset in noted for index in range(len(dataset))}


def sides(looks: list[Look], twins: list[list[Look]]) -> dict[str, str]:
    """The split of each picture by name: as now, but that near-duplicates of a training picture are trained on too."""
    place = {each.name: each.split for each in looks}
    for group in twins:
        if any(each.split == "train" for each in group):
            place |= {each.name: "train" for each in group}
    return place


def refuse_unheard(again: Any, looks: list[Look], wanted: set[str]) -> None:
    """A ConfigError where folders decide which pictures the set that was read `again` holds out, and the column is not heard."""
    if {again.files[index].path for index in range(len(again))} == wanted:
        return
    moved = sorted({each.name for each in looks if each.split == "val"} - wanted)
    some = ", ".join(moved[:10]) + (" ..." if len(moved) > 10 else "")
    raise ConfigError(
        f"Folders named after splits decide here, so a column `split` is not heard. Move these to the training folder: {some}"
    )
