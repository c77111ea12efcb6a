"""Errors a user can mend. The command line prints their message and exits with their code; anything else is a bug and keeps its traceback."""

from collections.abc import Iterable
from difflib import get_close_matches


class LdmctlError(Exception):
    """Base of every error whose message is written for the user."""

    exit_code = 2


class ConfigError(LdmctlError):
    """A command, a config file or a KEY=VALUE does not describe a run."""


class DataError(LdmctlError):
    """Pictures are missing, unreadable or not what was asked for."""

    exit_code = 3


class DataNotFound(DataError):
    """Pictures are not where they are said to be."""


class MissingError(LdmctlError):
    """Weights or an optional package that cannot be had here."""

    exit_code = 4


class PluginError(MissingError):
    """A plugin is missing, ambiguous, broken, or not what its kind promises."""


class UnknownPlugin(PluginError):
    """No plugin of this kind has this name here."""

    def __init__(self, sentence: str, kind: str = "", name: str = ""):
        super().__init__(sentence)
        self.kind, self.name = kind, name


class DivergedError(LdmctlError):
    """Training left the finite numbers and did not come back."""

    exit_code = 5


class MismatchError(LdmctlError):
    """A cache, checkpoint or run folder belongs to something else."""

    exit_code = 6


class MemoryShortage(LdmctlError):
    """The device has no room for one step."""

    exit_code = 7


class Stopped(LdmctlError):
    """A signal arrived and everything is saved; the same command continues."""

    exit_code = 75


class PluginWarning(UserWarning):
    """What a person should know of an installed plugin; the command line prints it as one line."""


class RelocatedWarning(UserWarning):
    """That something is read from another place than a run has recorded; the command line prints it as one line."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' Did you mean X?' for a near miss, otherwise ''."""
    close = get_close_matches(word, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def with_article(noun: str) -> str:
    """`a vae`, `an autoencoder`."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def one_line(error: BaseException) -> str:
    """`Type: message` of any exception without its line breaks."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
