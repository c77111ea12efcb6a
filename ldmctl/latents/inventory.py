"""What a cache holds beside its latents: captions, and what conditioners have made of captions, maps and pictures.

Nothing here needs torch, so that to look at a cache that no conditioner has prepared for takes no time.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from ldmctl.latents.manifest import Manifest

FOLDER = "conditions"


def folders(cache: Path) -> list[Path]:
    """Where prepared rows of a cache lie, a folder for each conditioner that made some."""
    return sorted(place for place in (cache / FOLDER).glob("*-*") if place.is_dir())


def inventory(cache: Path, manifest: Manifest) -> dict[str, Any]:
    """{"captions": how many there are, "conditions": what is kept of them, of maps and of pictures}."""
    said, places = texts(cache, manifest), folders(cache)
    rows: list[dict[str, Any]] = []
    if places:
        from ldmctl.latents.prepared_rows import rows_in

        rows = [rows_in(place, said) for place in places]
    return {"captions": captions(said, manifest), "conditions": rows}


def texts(cache: Path, manifest: Manifest) -> Counter[str]:
    """Every caption and how often it is said, "" for items without one; nothing of files that cannot be read."""
    found: Counter[str] = Counter()
    if manifest.captions and not any(manifest.captions.values()):
        return found
    for shard in (shard for row in manifest.splits.values() for shard in row):
        try:
            rows = [json.loads(line) for line in (cache / shard.items_file).read_text(encoding="utf-8").split("\n")[:-1]]
            said = [[text for text in row.get("texts") or [row["text"]] if text.strip()] or [""] for row in rows]
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue
        for some in said:
            found.update(some)
    return found


def captions(said: Counter[str], manifest: Manifest) -> dict[str, int]:
    """Numbers of captions: of items with one and without, of captions, of different ones, of those that were said before."""
    items = sum(map(manifest.count, manifest.splits))
    without = said[""] if said else items
    many = said.total() - said[""]
    different = len(said) - ("" in said)
    return {"items_with": items - without, "items_without": without, "captions": many, "different": different, "repeated": many - different}
