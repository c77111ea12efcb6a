"""Safetensors files opened whatever they are called: the library takes names in UTF-8 alone, a file system any bytes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


@contextmanager
def opened(path: Path, *, framework: str = "pt", **keys: Any) -> Iterator[Any]:
    """What `safetensors.safe_open` gives, with its errors."""
    import safetensors

    with in_utf8(path) as name, safetensors.safe_open(name, framework=framework, **keys) as file:
        yield file


@contextmanager
def in_utf8(path: Path) -> Iterator[str]:
    """The name of a file, or of a link to it where its own is not UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with TemporaryDirectory(prefix="ldmctl-") as folder:
            link = Path(folder) / "file"
            os.symlink(path.absolute(), link)
            yield str(link)
    else:
        yield str(path)
