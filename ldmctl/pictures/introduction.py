"""What a command says of its pictures before it starts: how many there are, what is known of them, and what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ldmctl.console import Console
from ldmctl.errors import LdmctlError, PluginError
from ldmctl.pictures.promised import note_as_promised
from ldmctl.protocols import Dataset

if TYPE_CHECKING:
    from ldmctl.pictures.batches import Pictures

COUNTED = 100_000  # items of a split that are asked one by one what is known of them


def introduce(splits: Mapping[str, Pictures], console: Console, *, leads: bool = True) -> None:
    """Say what the data set remarks, once for all splits, and count them; on the first rank alone."""
    if leads:
        introduce_datasets(datasets(splits), console)


def datasets(splits: Mapping[str, Pictures]) -> dict[str, Dataset]:
    """What the pictures are taken from, by split."""
    return {split: pictures.dataset for split, pictures in splits.items()}


def introduce_datasets(splits: Mapping[str, Dataset], console: Console) -> None:
    """The same of data sets that nothing is prepared of yet."""
    for remark in sayings(splits, "remarks"):
        console.say(remark)
    console.say(summary(splits))
    for warning in sayings(splits, "warnings"):
        console.warn(warning)


def sayings(splits: Mapping[str, Dataset], kind: str) -> Iterator[str]:
    """The `remarks` or `warnings` of the data set, each once; of a data set that makes none, none."""
    yield from dict.fromkeys(str(each) for dataset in splits.values() for each in getattr(dataset, kind, None) or ())


def summary(splits: Mapping[str, Dataset]) -> str:
    """`train: 1,234 pictures, 10 classes, 1,200 labels, 300 captions; val: ...`."""
    return "; ".join(f"{split}: {_counted(dataset)}" for split, dataset in splits.items()) + "."


def _counted(dataset: Dataset) -> str:
    counts = {"pictures": len(dataset), "classes": len(dataset.classes), **_known(dataset)}
    ones = {"pictures": "picture", "classes": "class", "labels": "label", "captions": "caption", "maps": "map"}
    return ", ".join(f"{count:,} {ones[name] if count == 1 else name}" for name, count in counts.items())


def _known(dataset: Dataset) -> dict[str, int]:
    """{"labels", "captions"} of a split, with "maps" where the set may have some; {} where that could not be known without opening its pictures."""
    if (counts := getattr(dataset, "counts", None)) is not None:
        return {name: int(counts.get(name, 0)) for name in ("labels", "captions", *(["maps"] if "maps" in counts else []))}
    if not hasattr(dataset, "note") or len(dataset) > COUNTED:
        return {}
    try:
        notes = [note_as_promised(dataset, index) for index in range(len(dataset))]
    except PluginError:
        raise
    except LdmctlError:  # which the item says again when it is used
        return {}
    return {"labels": sum(label >= 0 for label, _ in notes), "captions": sum(bool(text) for _, text in notes)}
