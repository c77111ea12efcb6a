"""Keys that are younger than a run: what a folder that was made before them continues with, so that it stays what it is."""

from pathlib import Path

from pydantic import BaseModel

from ldmctl.config.differences import flatten, nested, younger
from ldmctl.config.documents import Raw, read_config
from ldmctl.config.schemas.shared import Image
from ldmctl.errors import MismatchError


def spelled_out(image: Raw) -> Raw:
    """An `image` section as a run wrote it, with what that run did wherever a key came later and its default does otherwise."""
    return {**dict(younger(Image)), **image}


def layer_of(schema: type[BaseModel], out: str | Path | None, *, overwrite: bool) -> Raw:
    """The layer, under all others, of a run that is in this folder and continues as runs did before a key; {} for any other."""
    folder = None if out is None or overwrite else Path(out).expanduser()
    if folder is None or not (folder / "config.yaml").exists():
        return {}
    try:
        known = dict(flatten(read_config(folder)))
    except MismatchError:  # said when the run is opened
        return {}
    return nested({path: value for path, value in younger(schema) if known.get(path, value) == value})
