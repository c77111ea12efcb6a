"""How a text is spoilt: a seeded change to its bytes, or to the tree of values that stands in it.

Each mutator takes (random, bytes) and gives (bytes, what was done in one line).
"""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from random import Random
from typing import Any

import yaml

Mutator = Callable[[Random, bytes], tuple[bytes, str]]

DEEP = 3000
MOST = 100_000  # values in a tree
STRANGE: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 7, 255, 65536, 2**31, 2**32 + 1, 2**63, -(2**63) - 1, 10**30, 10**400),
    *(0.0, -0.0, 0.5, 1e-320, 1e38, 1e308, -1e308, float("nan"), float("inf"), float("-inf")),
    *("", " ", "x", "x" * 300, "x" * 100_000, "null", "none", "auto", "nan", "1", "-1", "1e9", "true", "\x00", "a\x00b", "a\nb", "\ud800"),
    *(
        "../../canary",
        "../canary.txt",
        "..",
        ".",
        "/dev/null",
        "/dev/zero",
        "/proc/self/mem",
        "~",
        "~nobody",
        "canary",
        "canary:Thing",
        "os:system",
    ),
    *("é" * 9, "e\u0301", "\u202e", "[bold]x[/bold]", "[/]", "%s%n", "{}", "{0.__class__}", "$(touch canary)", "vae", "folder", "unet"),
    *([], {}, [[]], {"": ""}, [None], {"type": None}, {"type": "x"}, {"type": []}, {"type": "vae"}, [1, "a", None], list(range(5000))),
]
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
DOCUMENTS = (
    *("[" * 20000, "{a: " * 20000, BOMB, "- " * 5000 + "x", "%YAML 9.9\n---\n", "---\na: 1\n---\nb: 2\n", "!!set {a, b}"),
    "x: " + "9" * 6000,
)
CELLS = (
    *('"', '"open', "a,b,c", "", "x" * 200_000, "\x00", "../../canary", "/etc/passwd", "nan", "-1", "1e400", "\u202e", "=cmd()", '""'),
    *("é", "a;b", "C:\\x.png", "~", "."),
)
WORDS = (
    "!!python/object/apply:os.system ['touch canary']",
    "!!python/name:os.system",
    "&a [*a]",
    "*nowhere",
    "!!binary x",
    "? [a]\n: b",
    "<<: 1",
)


def nested(depth: int, kind: type) -> Any:
    """Lists or objects inside each other."""
    value: Any = 0
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


# -- bytes -----------------------------------------------------------------------


def spoil_bytes(random: Random, data: bytes) -> tuple[bytes, str]:
    """One change to any file."""
    n = len(data)
    at, end = sorted((random.randrange(n + 1), random.randrange(n + 1)))
    end = min(end, at + random.choice([1, 4, 64, 1 << 20]))
    some = random.randbytes(random.choice([1, 2, 8, 100]))
    return random.choice([
        lambda: (data[:at], f"cut off after {at} of {n} bytes"),
        lambda: (b"", "emptied"),
        lambda: (data[:at] + data[end:], f"bytes {at} to {end} left out"),
        lambda: (data[:at] + some + data[at:], f"{len(some)} random bytes put in at {at}"),
        lambda: (data[:at] + some + data[at + len(some) :], f"{len(some)} random bytes at {at}"),
        lambda: (data[:at] + bytes(end - at) + data[end:], f"bytes {at} to {end} zeroed"),
        lambda: (data[:at] + bytes([(data[at] if at < n else 0) ^ (1 << random.randrange(8))]) + data[at + 1 :], f"a bit flipped at {at}"),
        lambda: (data[:end] + data[at:end] * random.choice([1, 3, 500]) + data[end:], f"bytes {at} to {end} repeated"),
        lambda: (data + some, f"{len(some)} random bytes appended"),
        lambda: (b"\xef\xbb\xbf" + data, "a byte order mark before it"),
        lambda: (data.replace(b"\n", b"\r\n"), "line ends of Windows"),
        lambda: (data.replace(b"\n", b"\r"), "line ends of an old Mac"),
        lambda: (data.decode("latin-1").encode("utf-16"), "written as UTF-16"),
        lambda: (random.randbytes(random.choice([1, 100, 5000])), "replaced by random bytes"),
        lambda: (data[:at] + b"\xff\xfe\x80" + data[at:], f"bytes that are no UTF-8 at {at}"),
        lambda: (data[:at] + b"\0" + data[at:], f"a zero byte at {at}"),
        lambda: (data[::-1], "turned round"),
        lambda: (data * 2, "twice in one file"),
    ])()  # fmt: skip


# -- trees of values ---------------------------------------------------------------


def places_of(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value below the top."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield (*path, key)
        yield from places_of(value, (*path, key))


def spoil_tree(random: Random, tree: Any) -> tuple[Any, str]:
    """One change to a value in a tree of dicts and lists, which is changed in place."""
    places = list(islice(places_of(tree), MOST))
    if len(places) == MOST:
        raise ValueError("a tree too large to walk, such as one of aliases of aliases")
    if not places:
        return random.choice(STRANGE), "replaced"
    path = random.choice(places)
    home = tree
    for key in path[:-1]:
        home = home[key]
    last, there = path[-1], home[path[-1]]
    where = ".".join(map(str, path))
    act = random.choice(["strange", "strange", "strange", "near", "near", "drop", "rename", "add", "swap", "deep", "whole"])
    if act == "drop":
        del home[last]
        return tree, f"{where} left out"
    if act == "rename" and isinstance(home, dict):
        name = random.choice([f"{last}x", "", "type", "__class__", "a.b", "\x00", str(last).upper()])
        home[name] = home.pop(last)
        return tree, f"{where} renamed to {name!r}"
    if act == "add" and isinstance(there, dict | list):
        value = random.choice(STRANGE)
        there.update({random.choice(["x", "type", "path", ""]): value}) if isinstance(there, dict) else there.append(value)
        return tree, f"{short(value)} added to {where}"
    if act == "swap":
        other = tree
        for key in random.choice(places):
            other = other[key]
        home[last] = json.loads(json.dumps(other, default=str))
        return tree, f"{where} = {short(other)}, which stands elsewhere in it"
    if act == "whole" and random.random() < 0.3:
        value = random.choice(STRANGE)
        return value, f"all of it replaced by {short(value)}"
    value = nested(DEEP, random.choice([list, dict])) if act == "deep" and random.random() < 0.3 else near(random, there)
    value = random.choice(STRANGE) if act == "strange" else value
    home[last] = value
    return tree, f"{where} = {short(value)}" + (f", where {short(there)} stood" if not isinstance(there, dict | list) else "")


def near(random: Random, value: Any) -> Any:
    """A value that looks like this one and is another."""
    if isinstance(value, bool):
        return random.choice([not value, str(value), int(value)])
    if isinstance(value, int | float):
        return random.choice([value + 1, value - 1, -value, value * 2, value * 1000, value / 3, str(value), [value], value * 1e30, 0])
    if isinstance(value, str):
        cut = random.randrange(len(value) + 1)
        changed = (value[:cut], value + "x", value.upper(), f" {value}", value * 2, f"../{value}", f"/{value}")
        return random.choice([*changed, [value], {value: value}])
    if isinstance(value, list):
        return random.choice([value[:-1], value + value[-1:], value[::-1], value * 50, {}, value[0] if value else 0, [value]])
    if isinstance(value, dict):
        return random.choice([{}, list(value), dict(list(value.items())[:1]), {**value, "x": 1}, str(value), [value]])
    return random.choice([0, "", "null", [], {}])


def short(value: Any) -> str:
    """A value in a line."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"something nested {DEEP} deep"
    return text if len(text) < 60 else f"{text[:50]}... ({len(text):,} characters)"


def dump_json(tree: Any, **style: Any) -> bytes:
    try:
        return json.dumps(tree, **style).encode("utf-8", "surrogatepass")
    except RecursionError:
        return json.dumps({"deep": 0}).replace("0", "[" * DEEP * 40 + "]" * DEEP * 40).encode()


def spoil_json(random: Random, data: bytes) -> tuple[bytes, str]:
    """A change to a JSON document's values, or to its bytes."""
    if random.random() < 0.2:
        return spoil_bytes(random, data)
    tree, said = spoil_tree(random, json.loads(data))
    return dump_json(tree, indent=1), said


def spoil_lines(random: Random, data: bytes) -> tuple[bytes, str]:
    """A change to one line of JSON, to the order of the lines, or to the bytes."""
    lines = data.split(b"\n")[:-1]
    if random.random() < 0.25 or not lines:
        return spoil_bytes(random, data)
    row = random.randrange(len(lines))
    act = random.choice(["value", "value", "value", "drop", "twice", "blank", "swap"])
    said = f"line {row + 1} {act}"
    if act == "value":
        tree, said = spoil_tree(random, json.loads(lines[row]))
        lines[row], said = dump_json(tree), f"line {row + 1}: {said}"
    elif act == "swap":
        random.shuffle(lines)
    else:
        lines[row : row + 1] = {"drop": [], "twice": [lines[row]] * 2, "blank": [b"", lines[row], b"  "]}[act]
    return b"\n".join([*lines, b""]), said


def spoil_yaml(random: Random, data: bytes) -> tuple[bytes, str]:
    """A change to a YAML document's values, to its words, or to its bytes."""
    chance = random.random()
    if chance < 0.15:
        return spoil_bytes(random, data)
    if chance < 0.25:
        text = random.choice(DOCUMENTS)
        return data + text.encode() if random.random() < 0.5 else text.encode(), f"YAML {text[:40]!r}"
    tree = yaml.safe_load(data)
    tree, said = spoil_tree(random, tree)
    try:
        text = yaml.safe_dump(tree, allow_unicode=True)
    except (RecursionError, ValueError, UnicodeError):
        return spoil_bytes(random, data)
    if chance < 0.35:
        word = random.choice(WORDS)
        lines = text.split("\n")
        row = random.randrange(len(lines))
        lines[row] = lines[row].partition(":")[0] + ": " + word
        text, said = "\n".join(lines), f"line {row + 1}: {word}"
    return text.encode("utf-8", "replace"), said


def spoil_table(random: Random, data: bytes) -> tuple[bytes, str]:
    """A change to a CSV file's cells, or to its bytes."""
    if random.random() < 0.3:
        return spoil_bytes(random, data)
    lines = data.decode().split("\n")
    row = random.randrange(max(1, len(lines) - 1))
    cells = lines[row].split(",")
    column = random.randrange(len(cells))
    cells[column] = random.choice(CELLS)
    lines[row] = ",".join(cells)
    return "\n".join(lines).encode(), f"line {row + 1}, column {column + 1}: {short(cells[column])}"
