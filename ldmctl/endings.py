"""How a command ends when an error ends it: the exit code, and the sentence where the error is no sentence itself.

The command line and the run folder both ask here, so that run.json says the exit code that the shell sees.
"""

import errno
import os
import re
import sys
from pathlib import Path
from types import TracebackType

from ldmctl.errors import LdmctlError, one_line

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
DENIED = {errno.EACCES, errno.EPERM}
OTHERWISE = {errno.EISDIR: "there is a folder of that name", errno.ENOTDIR: "what should be a folder on the way there is a file"}
TROUBLE = {  # of a disk or a network share: whatever the command does next, it would not get far
    getattr(errno, name)
    for name in (
        "EIO",
        "ESTALE",
        "ENOTCONN",
        "EREMOTEIO",
        "EHOSTDOWN",
        "ENODEV",
        "ENXIO",
        "EUCLEAN",
        "ESHUTDOWN",
        "ETIMEDOUT",
        "EXDEV",
        "EBUSY",
    )
    if hasattr(errno, name)
}


DECODER_GONE = (
    "A process that decodes pictures was ended from outside, most often because memory is short. "
    "Fewer of them need less: loop.workers=1 (workers=1 where there is no loop), or 0."
)


HOMELESS = (
    "A path that is named here begins with ~ and the name of a user who has no home on this machine. Write the path in full, or ./~NAME "
    "for a folder that is called so."
)


def exit_code(error: BaseException) -> int:
    """What the shell sees when this error ends a command."""
    if isinstance(error, LdmctlError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(bool(error.code))
    return 2 if is_homeless(error) else 7 if is_memory_shortage(error) else 6 if file_trouble(error) or vanished(error) else 1


def is_homeless(error: BaseException) -> bool:
    """Whether a path `~somebody/...` could not be expanded."""
    return isinstance(error, RuntimeError) and str(error).startswith("Could not determine home directory")


def is_memory_shortage(error: BaseException) -> bool:
    """Whether this is a device or the machine running out of memory; without importing torch."""
    return (
        type(error).__name__ == "OutOfMemoryError"
        or isinstance(error, MemoryError)
        or any(
            words in str(error)
            for words in ("can't allocate memory", "could not create a primitive", "std::bad_alloc", "can't start new thread")
        )  # of torch, oneDNN, C++, Python
        or number_of(error) == errno.ENOMEM
        or is_decoder_gone(error)
    )


def is_decoder_gone(error: BaseException) -> bool:
    """Whether this says that a process which decodes pictures is gone: torch raises it wherever the main thread happens to be."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker")


def file_trouble(error: BaseException) -> str:
    """What a file system has refused, and the way out, as a sentence; '' for any other error."""
    number, said = number_of(error), one_line(error)[:160]
    if number in FULL or "No space left on device" in str(error) or "File too large" in str(error):
        return f"A file could not be written ({said}). What was saved before is intact; make room first."
    if number == errno.EROFS:
        return (
            f"A file could not be written ({said}): its file system is read-only. What was saved before is intact; name a folder elsewhere."
        )
    if number == errno.ENAMETOOLONG:
        return f"A name is too long for the file system ({said}). Take shorter names, such as another --out."
    if number in DENIED:
        name = getattr(error, "filename", None)
        return f"{denied(Path(os.fsdecode(name)))} What was saved before is intact." if name else f"Access was refused ({said})."
    if number in OTHERWISE and (name := getattr(error, "filename2", None) or getattr(error, "filename", None)) is not None:
        return (
            f"{os.fsdecode(name)} cannot be read or written, because {OTHERWISE[number]}. Move that away, then run the same command again."
        )
    if number in TROUBLE and not isinstance(error, ConnectionError):
        return (
            f"The file system does not do its work ({said}). What was saved before is intact: see whether the disk or the network share "
            "is there, then run the same command again to continue."
        )
    return ""


def vanished(error: BaseException) -> str:
    """A sentence on a file that a command had found and could not find again, '' for any other error.

    For the end of a command alone: whoever opens a file that a user has named says that there is none.
    """
    if number_of(error) != errno.ENOENT or (name := getattr(error, "filename", None)) is None:
        return ""
    return (
        f"{os.fsdecode(name)} is gone: it was deleted or moved while the command ran. What was saved before is intact; the same command "
        "says what is missing."
    )


def number_of(error: BaseException) -> int | None:
    """The errno of an error of the system, which safetensors has in its words alone."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    words = isinstance(error, OSError) or type(error).__name__ == "SafetensorError"
    found = re.search(r"\(os error (\d+)\)", str(error)) if words else None
    return int(found[1]) if found else None


def why_not_read(path: Path, error: Exception) -> str:
    """A sentence on a file of weights that safetensors has refused, which calls one that may not be read one that is not there."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except FileNotFoundError:
        return f"There is no file {path}."
    except IsADirectoryError:
        return f"{path} is a folder, not a safetensors file."
    except OSError as refused:
        return file_trouble(refused) or f"{path} cannot be read: {refused.strerror}."
    return file_trouble(error) or f"{path} is damaged or not a safetensors file: {error}"


def denied(path: Path) -> str:
    """A sentence on what this user may not do with a path that the system has refused."""
    for folder in reversed(path.absolute().parents):
        if not may(folder, os.X_OK) and os.path.lexists(folder):
            return f"{path} may not be read: the folder {folder} may not be entered by this user ({rights(folder)})."
    if os.path.exists(path) and not may(path, os.R_OK):
        return f"{path} may not be read by this user ({rights(path)})."
    place = path if os.path.exists(path) else path.parent
    return f"{path} may not be written by this user ({rights(place)})."


def may(path: Path, what: int) -> bool:
    """Whether this process may do `what` (os.R_OK, ...) with a path."""
    return os.access(path, what, effective_ids=os.access in os.supports_effective_ids)


def rights(path: Path) -> str:
    """`owner anna, mode 0600`, with which one asks the owner for more."""
    try:
        status = path.stat()
    except OSError as error:
        return str(error.strerror)
    try:
        import pwd

        owner = pwd.getpwuid(status.st_uid).pw_name
    except (ImportError, KeyError):
        owner = str(status.st_uid)
    return f"owner {owner}, mode {status.st_mode & 0o7777:04o}"


def hush_half_handovers() -> None:
    """Keep multiprocessing's thread that hands files over from printing a traceback when a decoding process ends in the middle of it.

    What the end of the process means is said where its pictures are missed.
    """
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if trace is None or Path(trace.tb_frame.f_code.co_filename).name != "resource_sharer.py":
            before(kind, error, trace)

    sys.excepthook = hook
