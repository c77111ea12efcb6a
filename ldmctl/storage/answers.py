"""JSON files that a command writes where a person says so: its own are replaced, others never."""

import json
from collections.abc import Iterable
from pathlib import Path

from ldmctl.errors import MismatchError


def refuse_foreign_answer(file: Path, keys: Iterable[str]) -> None:
    """A MismatchError if this file, which is to be replaced, is not an object with these keys, as the command writes it."""
    if not file.exists():
        return
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not set(keys) <= found.keys():
        raise MismatchError(f"{file} is there already and was not made by ldmctl, so it is not replaced. Name another --out, or move it.")
