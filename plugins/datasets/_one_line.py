"""Names of several pictures in one line of a list: those of a pair, a list as Python or JSON writes it, or what commas or spaces join."""

import re
from collections.abc import Callable

from ._formats import SUFFIXES, ending

ENDS = re.compile(rf"(?:{'|'.join(map(re.escape, SUFFIXES))})(?=[\s,;|\"'\])}}]|$)", re.IGNORECASE)
BRACKETS = " \t\r\n,\"'[](){}"  # around names, where a program has written a list


def apart(line: str, meant: Callable[[str], list[str]], *, alone: bool) -> list[str]:
    """The names in a line that has those of several pictures, by what each word may mean; otherwise the line.

    Words without the endings of pictures are names only where nothing else is in the file.
    """
    if not alone and len(ENDS.findall(line)) < 2:
        return [line]
    for marks in (r"[,;|\t]", r"[\s,;|]"):
        words = [word for part in re.split(marks, line) if (word := part.strip(BRACKETS))]
        found = {word: meant(word) for word in words if len(words) > 1}
        named = [word for word in words if ending(word) in SUFFIXES] or words
        pictures = {path for word in named for path in found.get(word, ())}
        if len(pictures) > 1 and (named is not words or (len(words) > 2 and len(pictures) == len(words) and all(found.values()))):
            return named
    return [line]
