"""What `ldmctl cache info` says of captions, and of what conditioners have made of captions, maps and pictures."""

from collections.abc import Iterator
from typing import Any

SHOWN = 20  # classes by name at most


def lines(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, words) of each line that a person reads."""
    said = found["captions"]
    if said["captions"]:
        lacking = said["items_without"]
        without = f", {lacking:,} {'item has' if lacking == 1 else 'items have'} none" if lacking else ""
        yield "captions", f"{said['captions']:,}, {said['different']:,} of them different, {said['repeated']:,} repeated{without}"
    else:
        yield "captions", "none"
    for each in found["conditions"]:
        yield "conditions", f"{each['folder']}: {', '.join(filter(None, _parts(each)))}"


def _parts(each: dict[str, Any]) -> Iterator[str]:
    """What there is to say of one folder."""
    about = each["about"]
    yield " ".join(str(about[key]) for key in ("type", "encoder") if about.get(key))
    yield " ".join(f"{key}={about[key]}" for key in ("layer", "length", "store", "smaller") if about.get(key) is not None)
    if "damaged" in each:
        yield f"DAMAGED: {each['damaged']}"
        return
    yield f"{each['rows']:,} {WHAT.get(each['slot'], 'rows')}"
    if "tokens" in each:
        tokens, rows = each["tokens"], each["rows"]
        yield f"{rows - each['in_use']:,} of them of captions that are gone" if rows > each["in_use"] else ""
        yield f"tokens p50 {tokens['p50']}, p95 {tokens['p95']}, max {tokens['max']}"
        yield f"{each['cut'] / rows:.1%} cut" if each["cut"] else "none cut"
    if "shape" in each:
        yield " x ".join(map(str, each["shape"]))
    yield f"{each['bytes'] / 2**20:,.1f} MiB"
    if "classes" in each:
        yield f"pixels of {each['counted']:,}: {_shares(each['classes'])}"
        yield f"of no class {each['unlabelled']:.1%}" if each["unlabelled"] else ""


def _shares(classes: dict[str, float]) -> str:
    """Classes with their share of the pixels, the first ones when there are many."""
    more = f" ... ({len(classes)} classes in all)" if len(classes) > SHOWN else ""
    return " ".join(f"{name} {share:.1%}" for name, share in list(classes.items())[:SHOWN]) + more


WHAT = {"text": "captions", "map": "maps", "picture": "pictures"}
