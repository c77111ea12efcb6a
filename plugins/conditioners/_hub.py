"""Files of an encoder from Hugging Face's hub: what is stored here, or downloaded; and in words of our own why there are none."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path

from ldmctl.storage.assets import offline

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
DEPTH = 5  # causes of causes that are looked at
MISSED = {  # by the names of huggingface_hub's errors: what is wrong, and what to do
    "GatedRepoError": (
        "The hub gives it only to people who have accepted its terms.",
        "accept them at https://huggingface.co/{name}, log in (hf auth login), and give the same command again",
    ),
    "DisabledRepoError": ("The hub has withdrawn it.", ""),
    "RepositoryNotFoundError": (
        "The hub has no model of this name, or a private one.",
        "write the name as https://huggingface.co shows it, such as sentence-transformers/all-MiniLM-L6-v2; for a private one log in (hf auth login)",
    ),
    "RevisionNotFoundError": ("The hub has no main branch of it.", ""),
    "HFValidationError": (
        "It is no name that the hub can have.",
        "write it as the hub does, such as sentence-transformers/all-MiniLM-L6-v2",
    ),
    "OfflineModeIsEnabled": (
        "The hub has stored nothing by this name here, and its downloads are switched off (HF_HUB_OFFLINE).",
        "unset HF_HUB_OFFLINE, so that it is downloaded",
    ),
    "NoWeights": ("The hub has it without weights that PyTorch reads (*.safetensors, pytorch_model*.bin).", ""),
}
SWITCHED_OFF = (
    "The hub has stored nothing by this name, and downloads are switched off (LDMCTL_OFFLINE or --offline).",
    "unset LDMCTL_OFFLINE and leave out --offline, so that it is downloaded",
)
UNREACHED = (
    "The hub has stored nothing by this name here, and cannot be reached.",
    "give the same command again where there is a connection; what is downloaded once is found without one",
)


class NoWeights(OSError):
    """A model on the hub has none that can be read."""


def snapshot(encoder: str, tokenizers: tuple[str, ...]) -> Path:
    """The folder with the files of this name, downloaded if need be; one of `failures` where they cannot be had."""
    from huggingface_hub import snapshot_download

    for suffix in ("*.safetensors", "pytorch_model*.bin"):
        wanted = [suffix, "*.json", *tokenizers, "merges.txt"]
        for stored in (True,) if offline() else (True, False):  # what is there is taken as it is, without asking for something newer
            try:
                folder = Path(snapshot_download(encoder, allow_patterns=wanted, ignore_patterns=["*/*"], local_files_only=stored))
            except OSError:
                if not stored:
                    raise
                continue
            if any(folder.glob(suffix)):
                return folder
    raise NoWeights(encoder)


def failures() -> tuple[type[Exception], ...]:
    """What `snapshot` may raise where huggingface_hub is installed; its connections have errors of their own."""
    kinds: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError)
    with suppress(ImportError):
        import httpx

        kinds = (*kinds, httpx.HTTPError)
    return kinds


def is_of_the_disk(error: BaseException) -> bool:
    """Whether what was downloaded could not be stored, which whoever runs the command says in words of its own."""
    return isinstance(error, OSError) and error.errno in DISK


def why_not(error: BaseException, encoder: str) -> tuple[str, str]:
    """(why the hub's files of this name cannot be had, what to do about it or '')."""
    if offline() and isinstance(error, NoWeights):
        return SWITCHED_OFF
    causes = [error]
    while len(causes) < DEPTH and (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    kinds = [kind.__name__ for each in causes for kind in type(each).__mro__]
    if (found := next((MISSED[kind] for kind in kinds if kind in MISSED), None)) is None:
        if offline():
            return SWITCHED_OFF
        status = next((code for each in causes if (code := getattr(getattr(each, "response", None), "status_code", None))), None)
        return (
            (f"The hub has answered with the status {status} in place of it.", "give the same command again later") if status else UNREACHED
        )
    return found[0], found[1].format(name=encoder)
