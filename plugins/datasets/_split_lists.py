"""Tables that belong to one split by their names: `train.csv` and `val.csv`, `captions_train2017.json`, `annotations/test/labels.csv`.

So does `sample_submission.csv` of a contest: the pictures that it names are those to be judged, and what it says of them is made up.
"""

import re
from pathlib import PurePosixPath

from ._splits import HELD, split_word

SUBMISSION = re.compile(r"(?:^|[^a-z])(?:sample)?submi(?:ssions?|t)(?![a-z])", re.IGNORECASE)
COLUMN = re.compile(r"the column `([^`]+)` of ")
LISTS = "the lists of each split"  # in place of the name of a column, which has no space
WORDS = "label labels caption captions metadata meta annotation annotations list names ids id index idx indices info df table"
PLAIN = frozenset(WORDS.split())
JOINED = re.compile(rf"({'|'.join([*sorted(PLAIN, key=len, reverse=True), 'classes', 'class'])})(?![a-z])", re.IGNORECASE)


def of_column(name: str, path: str) -> str:
    """What says of which split the pictures are that a column names, in place of the path of a list."""
    return f"the column `{name}` of {path}"


def word_of(value: str) -> tuple[str, int, tuple[str, ...]]:
    """What `split_word` says of a table's path, of a folder's, or of a column."""
    if found := COLUMN.match(value):
        return split_word(found[1])
    if is_submission(value):
        return "val", HELD["test"], ()
    stem = PurePosixPath(value).stem
    found = split_word(stem)
    return found if found[0] else split_word(JOINED.sub(" ", stem))  # trainlist01


def is_submission(path: str) -> bool:
    """Whether a table has the name of a contest's sample of a submission: `sampleSubmission.csv`."""
    return bool(SUBMISSION.search(PurePosixPath(path).stem))


def is_list(path: str) -> bool:
    """Whether a table has the name of a split."""
    return bool(word_of(path)[0])


def is_plain(value: str) -> bool:
    """Whether nothing but the split is in the name: list_eval_partition.csv rather has a column of splits."""
    return set(word_of(value)[2]) <= PLAIN


def speaker(path: str, folders: set[str]) -> str:
    """The table, or the folder above it without pictures (`folders` are those with some), by whose name it belongs to a split; '' where none does."""
    if is_list(path):
        return path
    above = [str(each) for each in PurePosixPath(path).parents if str(each) != "."]
    return next((f"{each}/" for each in above if each not in folders and word_of(each)[0]), "")
