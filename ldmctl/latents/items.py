"""What is known of each row of a shard: a line of items.jsonl and a label."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import safetensors

from ldmctl.errors import MismatchError
from ldmctl.latents.manifest import Shard


class Item(NamedTuple):
    """What is known of one row."""

    stamp: str
    text: str
    label: int


AGAIN = "Encode again: ldmctl encode-dataset --overwrite."


def read_items(folder: Path, shard: Shard) -> list[Item]:
    """What is known of each row of a shard; files that do not fit each other are a MismatchError."""
    try:
        lines = (folder / shard.items_file).read_text(encoding="utf-8").split("\n")[:-1]
        with safetensors.safe_open(str(folder / shard.file), framework="pt") as file:
            labels = file.get_tensor("labels").tolist()
        if not len(lines) == len(labels) == shard.count:
            raise ValueError(f"{shard.count:,} items are in the manifest, {len(labels):,} in the shard, {len(lines):,} lines beside it")
        rows = map(json.loads, lines)
        return [Item(row["stamp"], row["text"], label) for row, label in zip(rows, labels, strict=True)]
    except FileNotFoundError as error:
        (folder / shard.file).open("rb").close()  # safetensors takes a file that may not be read for one that is not there
        raise MismatchError(f"{error.filename or folder / shard.file} is missing. {AGAIN}") from None
    except (ValueError, LookupError, TypeError, safetensors.SafetensorError) as error:
        raise MismatchError(f"{folder / shard.file} or {shard.items_file} is damaged ({error}). {AGAIN}") from None


def label_counts(items: Sequence[Item], classes: int) -> list[int]:
    """How many items each class has."""
    counted = Counter(item.label for item in items)
    return [counted[index] for index in range(classes)]
