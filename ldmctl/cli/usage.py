"""Wrong usage, as Typer says it, in the words of all other mistakes; and what Typer takes without a word: an option that is given twice."""

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from ldmctl.console import escaped
from ldmctl.errors import ConfigError, did_you_mean

CHOICE = re.compile(r"(?P<word>'.*'|\".*\") is not one of (?P<known>'.*')\.", re.DOTALL)  # of an option that takes some words only


def mended(error: Any) -> None:
    """Change an error's message: no name of a Python error in it, and of a word that is none of an option's the one that is nearest."""
    said = escaped(error.message.removeprefix("Value error, "), lines=True)
    if found := CHOICE.fullmatch(said):
        said += did_you_mean(found["word"][1:-1], re.findall(r"'(.*?)'", found["known"]))
    error.message = said


def refuse_twice(root: Any, words: Sequence[str]) -> list[str]:
    """A ConfigError for an option of one value that is given two; -> a sentence on each KEY=VALUE that another one replaces.

    `root` is the command with all its verbs. What else is wrong with the words is left to Typer.
    """
    command, rest = root, list(words)
    while hasattr(command, "commands"):
        if not rest or rest[0] not in command.commands:
            return []
        command, rest = command.commands[rest[0]], rest[1:]
    single = [param for param in command.params if _takes_one(param)]
    for param in single:
        param.multiple = True  # so that the parser keeps all that it is given
    context = command.context_class(command, info_name=command.name, resilient_parsing=True)
    found, _, _ = command.make_parser(context).parse_args(rest)
    for param in single:
        if len(values := list(dict.fromkeys(found.get(param.name) or []))) > 1:
            name = "/".join(sorted(param.opts, key=len))
            raise ConfigError(
                f"{name} takes one value, and {len(values)} are given: {', '.join(map(_written, values))}. Leave out all but one."
            )
    return list(_replaced(found.get("overrides") or found.get("settings") or []))


def _takes_one(param: Any) -> bool:
    return param.param_type_name == "option" and not (param.multiple or param.is_flag or param.count)


def _replaced(overrides: Sequence[str]) -> Iterator[str]:
    """A sentence on each key that is given another value later on."""
    given: dict[str, list[str]] = {}
    for word in overrides:
        key, equals, value = word.partition("=")
        if equals:
            given.setdefault(key.strip(), []).append(value)
    for key, values in given.items():
        if others := [value for value in dict.fromkeys(values) if value != values[-1]]:
            yield f"{key} is given more than once: it is {_written(values[-1])}, the last, and not {' or '.join(map(_written, others))}."


def _written(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else shlex.quote(str(value))
