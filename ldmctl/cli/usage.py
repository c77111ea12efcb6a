"""Wrong usage, as Typer says it, in the words of all other mistakes."""

import re
from typing import Any

from ldmctl.console import escaped
from ldmctl.errors import did_you_mean

CHOICE = re.compile(r"(?P<word>'.*'|\".*\") is not one of (?P<known>'.*')\.", re.DOTALL)  # of an option that takes some words only


def mended(error: Any) -> None:
    """Change an error's message: no name of a Python error in it, and of a word that is none of an option's the one that is nearest."""
    said = escaped(error.message.removeprefix("Value error, "), lines=True)
    if found := CHOICE.fullmatch(said):
        said += did_you_mean(found["word"][1:-1], re.findall(r"'(.*?)'", found["known"]))
    error.message = said
