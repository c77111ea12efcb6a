"""Names of files and classes as people compare and read them: any bytes, any Unicode form, any case."""

import re
import unicodedata
from collections.abc import Iterable

ESCAPED = re.compile("[\udc80-\udcff]")  # bytes of a file name that are no UTF-8, as Python has them
HALF = re.compile("[\ud800-\udfff]")  # of a pair that makes one character


def readable(text: str) -> str:
    """The text as characters alone: bytes that are no UTF-8 are read as Windows-1252, what is half a character becomes U+FFFD."""
    if text.isascii() or not HALF.search(text):
        return text
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")  # two halves side by side are a whole
    return HALF.sub("\ufffd", ESCAPED.sub(_western, text))


def _western(found: re.Match[str]) -> str:
    byte = bytes([ord(found[0]) - 0xDC00])
    try:
        return byte.decode("cp1252")
    except UnicodeDecodeError:
        return byte.decode("latin-1")


def composed(text: str) -> str:
    """The same name whatever wrote it: composed Unicode, no spaces around it."""
    return unicodedata.normalize("NFC", readable(text)).strip(" \t\r\n\ufeff\xa0")


def alike(path: str) -> str:
    """What two spellings of one path have in common: composed Unicode, case folded."""
    return path.casefold() if path.isascii() else unicodedata.normalize("NFC", unicodedata.normalize("NFC", readable(path)).casefold())


def shown(path: str) -> str:
    """A path for a sentence, on one line: what cannot be printed is escaped."""
    if path.isprintable():
        return path
    return "".join(
        each if each.isprintable() else repr(f"{each}")[1:-1].replace("\\udc", "\\x") if HALF.match(each) else repr(each)[1:-1]
        for each in path
    )


def natural(names: Iterable[str]) -> list[str]:
    """Sorted, by number where all are numbers."""
    names = set(names)
    numbers = all(re.fullmatch(r"-?[0-9]{1,300}", name) for name in names)
    return sorted(names, key=lambda name: (int(name), name) if numbers else (0, name))


def listed(names: Iterable[str], *, most: int = 3) -> str:
    """`a, b and c`, or `a, b, c and 5 more`."""
    words = [shown(name) for name in names]
    if len(words) > most + 1:
        words = [*words[:most], f"{len(words) - most:,} more"]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def counted(number: int, noun: str) -> str:
    """`1 picture`, `1,234 pictures`."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"


def are(number: int) -> str:
    """`is` of one, `are` of several."""
    return "is" if number == 1 else "are"
