"""Where the weights of a published extractor are; that they are missing says also which extractors need none."""

from __future__ import annotations

from pathlib import Path

from ldmctl.errors import MissingError
from ldmctl.storage.assets import find_weights

WITHOUT = "take --extractor fitted, which learns from the labels of the data, or latent, which looks through the run's own encoder"


def find(name: str, *, url: str, sha256: str | None, given: str | None) -> Path:
    """As `ldmctl.storage.assets.find_weights`."""
    try:
        return find_weights(name, url=url, sha256=sha256, given=given)
    except MissingError as error:
        raise MissingError(f"{error}\n  or {WITHOUT}") from None
