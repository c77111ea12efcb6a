"""Keys that are younger than a run: what a folder that was made before them goes on with, so that it stays what it is."""

from pathlib import Path

from ldmctl.config.base import value_before
from ldmctl.config.documents import Raw, read_config
from ldmctl.config.schemas.shared import Image
from ldmctl.errors import MismatchError


def spelled_out(image: Raw) -> Raw:
    """An `image` section as a run wrote it, with what that run did wherever a key came later and its default does otherwise."""
    later = {name: value_before(field) for name, field in Image.model_fields.items() if value_before(field) != field.default}
    return {**later, **image}


def layer_of(out: str | Path | None, *, overwrite: bool) -> Raw:
    """The layer, under all others, of the run that is in this folder and goes on: only keys that are younger; {} for a new one."""
    folder = None if out is None or overwrite else Path(out).expanduser()
    if folder is None or not (folder / "config.yaml").exists():
        return {}
    try:
        image = read_config(folder).get("image")
    except MismatchError:  # said when the run is opened
        return {}
    if not isinstance(image, dict):
        return {}
    younger = {key: value for key, value in spelled_out(image).items() if key not in image}
    return {"image": younger} if younger else {}
