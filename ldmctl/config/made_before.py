"""Keys that are younger than a run: what a folder that was made before them goes on with, so that it stays what it is."""

from pathlib import Path

from ldmctl.config.base import value_before
from ldmctl.config.documents import Raw, read_config
from ldmctl.config.schemas.shared import Image
from ldmctl.errors import MismatchError


def spelled_out(image: Raw) -> Raw:
    """An `image` section as a run wrote it, with what that run did wherever a key came later and its default does otherwise."""
    return {**_did(), **image}


def layer_of(out: str | Path | None, *, overwrite: bool) -> Raw:
    """The layer, under all others, of a run that is in this folder and goes on as runs did before a key; {} for any other."""
    folder = None if out is None or overwrite else Path(out).expanduser()
    if folder is None or not (folder / "config.yaml").exists():
        return {}
    try:
        image = read_config(folder).get("image")
    except MismatchError:  # said when the run is opened
        return {}
    same = {key: value for key, value in _did().items() if isinstance(image, dict) and image.get(key, value) == value}
    return {"image": same} if same else {}


def _did() -> Raw:
    """What runs did before a key, of each key whose default is something else."""
    return {name: value_before(field) for name, field in Image.model_fields.items() if value_before(field) != field.default}
