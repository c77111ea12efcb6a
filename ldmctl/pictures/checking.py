"""`ldmctl data check`: a data set opened as training would, looked at, and what was found made to stick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ldmctl import registry
from ldmctl.config.documents import write_json
from ldmctl.config.presets import expand_data
from ldmctl.config.resolve import resolve
from ldmctl.config.schemas.encode_dataset import EncodeDataset
from ldmctl.console import Console
from ldmctl.errors import ConfigError
from ldmctl.pictures.album import refuse_foreign
from ldmctl.pictures.alike import groups, pairs
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.check import Look, check, look_at_all
from ldmctl.pictures.introduction import introduce
from ldmctl.pictures.png import grid, write_png
from ldmctl.storage import apart
from ldmctl.storage.answers import refuse_foreign_answer
from ldmctl.storage.atomic import write_text
from ldmctl.storage.folder import make_folder, verb_of

CONTACTS = 64  # pictures of the contact sheet


def check_data(data: str, image: dict[str, Any], *, out: Path | None, split: bool, metadata: bool, console: Console) -> dict[str, Any]:
    """What `check` says of a folder or a name, with the paths that were "written"."""
    config = resolve(EncodeDataset, [expand_data(data), {"image": image}], source=f"data check {data}")
    sets = {each: registry.build("dataset", config.dataset, split=each) for each in ("train", "val")}
    if split or metadata:
        refuse_table(sets["train"])
    if out is not None:
        refuse_out(out.expanduser(), sets["train"])
    introduce({each: Pictures(dataset, config.image, split=each) for each, dataset in sets.items()}, console)
    looks = look_at_all(sets, config.image, console)
    found = check(looks, sets["train"].classes, config.image, map_classes=getattr(sets["train"], "map_classes", ()))
    root = getattr(sets["train"], "root", None)
    found = {"data": data, **({"pictures": str(root.resolve())} if isinstance(root, Path) else {}), **found}
    written: list[str] = []
    if split or metadata:
        written.append(str(write_table(sets["train"], looks, sets["train"].classes, with_split=split)))
    if split:
        refuse_unheard(config.dataset, sets["train"].root, looks)
    if out is not None:
        folder = out.expanduser()
        write_contacts(folder / "contact.png", Pictures(sets["train"], config.image), looks, config.image.size)
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


def write_contacts(file: Path, pictures: Pictures, looks: list[Look], size: int) -> None:
    """Training pictures as they would be trained on, evenly over those that can be read."""
    good = [each.index for each in looks if each.split == "train" and not each.why]
    rows = [good[place * len(good) // min(CONTACTS, len(good))] for place in range(min(CONTACTS, len(good)))]
    shown = pictures.batch([(row, None) for row in rows]).image
    write_png(file, grid(shown), {"Description": f"Rows: training pictures, cropped and resized to {size}x{size}."})


# -- made to stick -----------------------------------------------------------------


def refuse_table(dataset: Any) -> None:
    """A ConfigError where a table cannot be written, or would take the place of another."""
    root = getattr(dataset, "root", None)
    if not isinstance(root, Path) or not root.is_dir():
        raise ConfigError("--write-split and --write-metadata write a table into a folder of pictures; this data set is none.")
    if there := sorted(each.name for each in root.glob("metadata.*")):
        raise ConfigError(f"{root} has {there[0]} already, which is not replaced: move it away, or edit it.")


def write_table(dataset: Any, looks: list[Look], classes: list[str], *, with_split: bool) -> Path:
    """metadata.jsonl with a row for each picture: name, label, caption, and with `with_split` the split that it belongs to."""
    place = sides(looks) if with_split else {}
    rows = []
    for each in sorted(looks, key=lambda look: look.name):
        row: dict[str, Any] = {"file_name": each.name}
        row |= {"split": place[each.name]} if with_split else {}
        row |= {"label": classes[each.label]} if each.label >= 0 else {}
        row |= {"text": each.text} if each.text else {}
        rows.append(json.dumps(row, ensure_ascii=False))
    file = Path(dataset.root) / "metadata.jsonl"
    write_text(file, "".join(f"{row}\n" for row in rows))
    return file


def sides(looks: list[Look]) -> dict[str, str]:
    """The split of each picture by name: as now, but that near-duplicates of a training picture are trained on too."""
    place = {each.name: each.split for each in looks}
    good = [each for each in looks if each.glance is not None]
    for group in groups(len(good), pairs([each.glance for each in good if each.glance is not None])):
        if any(good[index].split == "train" for index in group):
            place |= {good[index].name: "train" for index in group}
    return place


def refuse_unheard(config: Any, root: Path, looks: list[Look]) -> None:
    """A ConfigError, and the table gone again, where folders decide the split and the column is not heard."""
    wanted = {name for name, split in sides(looks).items() if split == "val"}
    again = registry.build("dataset", config, split="val")
    if {again.files[index].path for index in range(len(again))} == wanted:
        return
    (root / "metadata.jsonl").unlink()
    moved = sorted({each.name for each in looks if each.split == "val"} - wanted)
    some = ", ".join(moved[:10]) + (" ..." if len(moved) > 10 else "")
    raise ConfigError(
        f"Folders named after splits decide here, so a column `split` is not heard. Move these to the training folder: {some}"
    )
