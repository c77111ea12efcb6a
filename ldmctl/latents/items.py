"""What is known of each row of a shard: a line of items.jsonl and a label."""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors

from ldmctl.config.mapped import opened
from ldmctl.errors import MismatchError, one_line
from ldmctl.latents.manifest import Shard
from ldmctl.storage import weights
from ldmctl.storage.lines import write_line


class Item(NamedTuple):
    """What is known of one row."""

    stamp: str
    text: str
    label: int
    texts: tuple[str, ...] = ()  # every caption where there are several, `text` the first
    content: str = ""  # hash of its file, by which it is known again under another stamp; empty: not recorded

    @property
    def more(self) -> list[Any]:
        """What it has beside stamp, caption and label, for hashes: nothing as before there were several captions, where there is one."""
        return [list(self.texts)] if self.texts else []

    @property
    def line(self) -> str:
        """What items.jsonl has of it; the label lies in the shard."""
        several, known = {"texts": self.texts} if self.texts else {}, {"content": self.content} if self.content else {}
        return write_line({"stamp": self.stamp, "text": self.text, **several, **known})

    @property
    def plain(self) -> list[Any]:
        """What a plan's hash is taken of: as before there were contents and several captions, where there are none."""
        return [self.stamp, self.text, self.label, *self.more, *([self.content] if self.content else [])]

    @property
    def identity(self) -> str:
        """What makes it this picture, wherever it lies."""
        return self.content or self.stamp


AGAIN = "Encode again: the same ldmctl encode-dataset makes what is lost or damaged anew and keeps the rest."


def read_items(folder: Path, shard: Shard) -> list[Item]:
    """What is known of each row of a shard; files that do not fit each other are a MismatchError."""
    try:
        lines = (folder / shard.items_file).read_text(encoding="utf-8").split("\n")[:-1]
        with opened(folder / shard.file) as file:
            labels = file.get_tensor("labels").tolist()
        if not len(lines) == len(labels) == shard.count:
            raise ValueError(f"{shard.count:,} items are in the manifest, {len(labels):,} in the shard, {len(lines):,} lines beside it")
        rows = map(json.loads, lines)
        return [_item(row, label) for row, label in zip(rows, labels, strict=True)]
    except FileNotFoundError as error:
        (folder / shard.file).open("rb").close()  # safetensors takes a file that may not be read for one that is not there
        raise MismatchError(f"{error.filename or folder / shard.file} is missing. {AGAIN}") from None
    except (ValueError, LookupError, TypeError, RecursionError, safetensors.SafetensorError) as error:
        raise MismatchError(f"{folder / shard.file} or {shard.items_file} is damaged ({error}). {AGAIN}") from None


def lines_of(file: Path, count: int, *, first: int = 0, wanted: Collection[int] | None = None) -> Iterator[dict[str, Any]]:
    """What `count` lines say, which are counted from `first`, or the `wanted` ones of them.

    A MismatchError where there are more or fewer, or one says something else.
    """
    row = -1
    try:
        with file.open(encoding="utf-8") as lines:
            for row, line in enumerate(lines):
                if wanted is None or first + row in wanted:
                    said = json.loads(line)
                    if not all(isinstance(each, str) for each in (said["stamp"], said["text"], *said.get("texts", ()))):
                        raise TypeError(f"line {row + 1} holds no text where one belongs")
                    yield said
        if row + 1 != count:
            raise ValueError(f"{count:,} items are in the manifest, {row + 1:,} lines here")
    except FileNotFoundError:
        raise MismatchError(f"{file} is missing. {AGAIN}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise MismatchError(f"{file} is damaged ({one_line(error)}). {AGAIN}") from None


def write_items(file: Path, items: Sequence[Item]) -> None:
    """A line for each item; its label stands in the shard."""
    weights.write_text(file, "".join(item.line for item in items))


def read_lines(file: Path) -> list[Item]:
    """What the lines alone say, all labels unknown; [] where they cannot be read."""
    try:
        rows = map(json.loads, file.read_text(encoding="utf-8").split("\n")[:-1])
        return [_item(row, -1) for row in rows]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []


def _item(row: dict[str, Any], label: int) -> Item:
    return Item(row["stamp"], row["text"], label, tuple(row.get("texts", ())), row.get("content", ""))


def label_counts(items: Sequence[Item], classes: int) -> list[int]:
    """How many items each class has."""
    counted = Counter(item.label for item in items)
    return [counted[index] for index in range(classes)]
