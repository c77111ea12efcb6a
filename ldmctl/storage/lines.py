"""Lines of JSON that hold whatever a file system or a caption may hold, and read back equal."""

import json
from typing import Any


def write_line(row: dict[str, Any]) -> str:
    """One line of JSON with its end. Names that are no UTF-8, and half characters, are written as escapes; all else as it is."""
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        line = json.dumps(row)
    return f"{line}\n"
