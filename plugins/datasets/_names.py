"""Names of files and classes as people compare and read them: any bytes, any Unicode form, any case."""

import re
import unicodedata
from collections.abc import Iterable, Mapping

ESCAPED = re.compile("[\udc80-\udcff]")  # bytes of a file name that are no UTF-8, as Python has them
HALF = re.compile("[\ud800-\udfff]")  # of a pair that makes one character

UNSEEN = re.compile("[\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")  # of no width, as a hyphen that may be
BLANK = re.compile("[\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f]")  # other spaces, as one that does not break
JOINER = re.compile(
    "(?:^|(?<=[\0-\u024f]))[\u200c\u200d]+|[\u200c\u200d]+(?=[\0-\u024f]|$)"
)  # not between letters of Persian or Hindi, or in an emoji


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


def visible(text: str) -> str:
    """The name as one sees it: `composed`, without characters of no width that mean nothing where they stand, and with plain spaces."""
    text = composed(text)
    return text if text.isascii() else composed(JOINER.sub("", UNSEEN.sub("", BLANK.sub(" ", text))))


def hides(text: str) -> bool:
    """Whether there are characters in a name that one cannot see."""
    return not text.isascii() and unicodedata.normalize("NFC", readable(text)).strip(" \t\r\n") != visible(text)


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


def unseen(respelt: Mapping[str, str]) -> str:
    """A sentence on classes that are also written otherwise; '' where there are none."""
    if not respelt:
        return ""
    first = next(iter(respelt))
    more = f", and so {'is one more' if len(respelt) == 2 else f'are {len(respelt) - 1:,} more'}" if len(respelt) > 1 else ""
    return f"The class {shown(first)} is written with characters that cannot be seen ({shown(respelt[first])}){more}. They make no other class."


def counted(number: int, noun: str) -> str:
    """`1 picture`, `1,234 pictures`."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"


def are(number: int) -> str:
    """`is` of one, `are` of several."""
    return "is" if number == 1 else "are"
