"""Whether the pictures of a run are still those that it began with: what run.json keeps of them, a few kilobytes of any number.

A stamp holds name, size and time. Where the times alone are others, as in a copy without them, contents decide: those of all
pictures of a small set, and of LOOKED of a larger one, spread evenly over it.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmctl.errors import MismatchError
from ldmctl.pictures.batches import Pictures

LOOKED = 256  # parts whose times are kept apart, and pictures whose contents are


def known_of(splits: Mapping[str, Pictures], before: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """What is kept of these pictures, by split. Files are read only where `before` does not say that they are the same."""
    out = {}
    for split, pictures in splits.items():
        found = _listed(pictures)
        there = (before or {}).get(split, {})
        same = all(there.get(key) == found[key] for key in found)
        out[split] = {**found, "contents": there["contents"] if same and "contents" in there else _contents(pictures)}
    return out


def check_same_pictures(record: Mapping[str, Any], now: Mapping[str, Any], folder: Path, *, accepted: bool) -> bool:
    """Whether a run began with other pictures and continues with these, which must be `accepted`: else a MismatchError."""
    before = record.get("pictures")
    if before is None or all(_same(before.get(split), found) for split, found in now.items()):
        return False
    if not accepted:
        had, has = (f"{each['train']['count']:,} training and {each['val']['count']:,} held-out pictures" for each in (before, now))
        what = f"it has {had} as before, but some of them are others" if had == has else f"it had {had}, now it has {has}"
        raise MismatchError(
            f"The data has changed since {folder} was started: {what}. Continue with what there is now: --accept-data. "
            "Or start over: --out another folder, or --overwrite."
        )
    return True


def changes_of_pictures(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(what, before, now) of all pictures of a run, and of those held out where they are others, too, for a note of the change."""
    found = [("pictures", summary(before), summary(now))]
    if not _same(before.get("val"), now["val"]):
        had, has = ({"val": each["val"]} if "val" in each else {} for each in (before, now))
        found.append(("pictures.val", summary(had), summary(has)))
    return found


def summary(known: Mapping[str, Any]) -> str:
    """`4,000 training and 200 held-out, 3f2a91c0`."""
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    counts = [f"{known[split]['count']:,} {word}" for split, word in (("train", "training"), ("val", "held-out")) if split in known]
    return f"{' and '.join(counts)}, {digest[:8]}"


def _listed(pictures: Pictures) -> dict[str, Any]:
    """Count, a hash of all names and sizes, and of the times of each part, eight digits each."""
    count = len(pictures)
    names, times = hashlib.sha256(), [hashlib.sha256() for _ in range(min(LOOKED, count))]
    for index in range(count):
        stamp = pictures.stamp(index)
        name, time = re.fullmatch(r"(.*?)((?::\d+)?)", stamp, re.DOTALL).groups() if pictures.hashed else (stamp, "")  # type: ignore[union-attr]
        names.update(f"{name}\n".encode(errors="surrogatepass"))
        times[index * len(times) // count].update(f"{time}\n".encode())
    return {"count": count, "names": names.hexdigest(), "times": "".join(each.hexdigest()[:8] for each in times)}


def _contents(pictures: Pictures) -> str:
    """A hash of what the files hold, of LOOKED of them."""
    count = len(pictures)
    chosen = sorted({index * count // LOOKED for index in range(LOOKED)}) if count > LOOKED else range(count)
    digest = hashlib.sha256()
    for index in chosen:
        digest.update(pictures.content(index).encode())
    return digest.hexdigest()


def _same(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> bool:
    if before is None or any(before.get(key) != now[key] for key in ("count", "names", "contents")):
        return False
    parts = [[each["times"][first : first + 8] for first in range(0, len(each["times"]), 8)] for each in (before, now)]
    changed = sum(one != other for one, other in zip(*parts, strict=True))
    return now["count"] <= LOOKED or changed in (0, len(parts[1]))  # a copy has all its times anew; in an edited set some stay
