"""Which weights a run began with: kept in run.json, so that the same ones under another name are known, and others are refused."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ldmctl.config.origins import Origin
from ldmctl.errors import LdmctlError, MismatchError
from ldmctl.storage import weights
from ldmctl.storage.changes import step_of_state
from ldmctl.storage.run import Run


def origin_file(init: str | None, find: Callable[[str], Origin]) -> Path | None:
    """The file of what `init` names, None where it has gone: a run that continues does not need it."""
    with suppress(LdmctlError):
        return None if init is None else find(init).file
    return None


def note_beginning(run: Run, init: str | None, file: Path | None) -> None:
    """Keep name and hash of the `file` that a new run begins with; None where it has gone.

    A run with a state that is told of other weights than those is a MismatchError: they would not be used.
    """
    if init is None or not run.writes:
        return
    begun = run.record.get("begun_with")
    if step_of_state(run.folder) is None or not run.resumed:
        if file is not None:
            run.update(begun_with={"init": init, "sha256": weights.file_sha256(file)})
    elif begun is not None and file is not None and begun["init"] != init and weights.file_sha256(file) != begun["sha256"]:
        raise MismatchError(
            f"{run.folder} began with the weights of {begun['init']}, and {init} holds others, which a run that continues does not take. "
            f"Leave init as it was, or start from {init} in another --out."
        )
