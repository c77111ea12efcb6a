"""Tables that belong to one split by their names: `train.csv` and `val.csv`, `captions_train2017.json`, `annotations/test/labels.csv`."""

from pathlib import PurePosixPath

from ._splits import split_word

LISTS = "the lists of each split"  # in place of the name of a column, which has no space
PLAIN = frozenset(
    [
        "label",
        "labels",
        "caption",
        "captions",
        "metadata",
        "meta",
        "annotation",
        "annotations",
        "list",
        "names",
        "ids",
        "id",
        "index",
        "info",
        "df",
        "table",
    ]
)


def word_of(value: str) -> tuple[str, int, tuple[str, ...]]:
    """What `split_word` says of a table's path, or of a folder's."""
    return split_word(PurePosixPath(value).stem)


def is_list(path: str) -> bool:
    """Whether a table has the name of a split."""
    return bool(word_of(path)[0])


def speaker(path: str, folders: set[str]) -> str:
    """The table, or the folder above it without pictures (`folders` are those with some), by whose name it belongs to a split; '' where none does."""
    if is_list(path):
        return path
    above = [str(each) for each in PurePosixPath(path).parents if str(each) != "."]
    return next((f"{each}/" for each in above if each not in folders and word_of(each)[0]), "")
