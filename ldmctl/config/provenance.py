"""Where a plugin that is not here came from, as the folders and files say that were made with it. Readable without torch."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from ldmctl import registry


def how_to_get(recorded: str) -> str:
    """Where a plugin came from, recorded as "package version", and how to have it again."""
    name, _, version = recorded.partition(" ")
    if name == registry.SESSION:
        return f"It was the class {version}, registered in a Python session: register it again (ldmctl.registry.register)."
    return f"When this was made, it came from {recorded}: pip install {name}{f'=={version}' if version else ''}."


def said_by(folders: Iterable[object], kind: str, name: str) -> str:
    """The same of the first of these run folders whose run.json names this plugin; '' where none does."""
    for each in folders:
        path = Path(re.sub(r"@[^/@]*$", "", str(each))).expanduser() / "run.json"
        try:
            plugins = json.loads(path.read_text(encoding="utf-8")).get("plugins", [])
        except (OSError, ValueError, AttributeError, RecursionError):
            continue
        if found := [str(plugin).partition(" (")[2].rstrip(")") for plugin in plugins if str(plugin).startswith(f"{kind} {name} (")]:
            return how_to_get(found[0])
    return ""
