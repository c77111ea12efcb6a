"""--devices N: the same command on N processes under torchrun, ended and stopped as if it were one.

torchrun turns every exit code into 1 and gives workers 30 seconds to end, so each
worker leaves its process id and its last words in a folder that the environment
names, and hears signals from here. It ends when the command does (`following`).
Verbs that do not share their work are done by the first rank alone.
"""

import atexit
import hashlib
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from ldmctl.cli.following import follow
from ldmctl.errors import LdmctlError
from ldmctl.signals import asking

FOLDER, LAUNCHER = "LDMCTL_RANKS", "LDMCTL_LAUNCHER"  # environment variables: the folder, and the process that starts the ranks
TORCHRUN = "TORCHELASTIC_ERROR_FILE"  # ATTEMPT/RANK/error.json in a folder of torchrun's own, which it deletes
FAILURES = "failures"  # in the folder: the ranks that failed, the first one first, and how
LEFT_ALONE = "Another process of this command is gone, and this one cannot go on without it. What was saved is intact."
SHARED = ("fit-ae", "encode-dataset", "fit-diffusion", "sample")  # verbs whose work the ranks share
LOST = ("closed by peer", "reset by peer", "broken pipe", "nccl", "connection refused", "tcpstore")  # words of torch
SHORT = (getattr(signal, "SIGKILL", 0), signal.SIGABRT)  # what the system, and C++ code without memory, ends a process by
OWN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")  # by which torch.distributed knows a rank


class Ended(LdmctlError):
    """Ranks that ended before their work was done: the sentence and the exit code of the one that knows why."""

    def __init__(self, sentence: str, exit_code: int):
        super().__init__(sentence)
        self.exit_code = exit_code


def spread(count: int) -> None:
    """Run this command on `count` processes; if they fail, `Ended` says why."""
    command = [sys.executable, "-m", "ldmctl.cli.launcher", str(os.getpid()), *launched(count, sys.argv[1:])]
    with TemporaryDirectory(prefix="ldmctl-") as folder:
        stdout = getattr(sys.stdout, "result", None)  # the first rank prints the result
        process = subprocess.Popen(
            command, env=os.environ | {FOLDER: folder}, stdout=stdout, start_new_session=True
        )  # Ctrl-C reaches us alone
        heard: list[int] = []

        def pass_on(number: int, _: FrameType | None) -> None:
            heard.append(number)
            workers = [int(file.read_text()) for file in Path(folder).glob("*.pid")]
            for worker in workers:
                with suppress(ProcessLookupError):
                    os.kill(worker, number)
            if not workers:
                process.terminate()

        before = {each: signal.signal(each, pass_on) for each in asking()}
        try:
            code = process.wait()
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
        if code:
            raise last_words(Path(folder), count, code, heard)


def launched(count: int, words: list[str]) -> list[str]:
    """What torchrun is told; without the two dashes it would take `--run` for a beginning of its own options."""
    return ["--standalone", f"--nproc-per-node={count}", "-m", "--", "ldmctl", *words]


def last_words(folder: Path, count: int, code: int, heard: list[int]) -> Ended:
    """How the first rank ended that knows why; a rank that only lost the others says 1."""
    words = {int(file.stem): json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))}
    known = [each for each in words.values() if each["exit_code"] != 1]
    failures = json.loads((folder / FAILURES).read_text()) if (folder / FAILURES).exists() else []
    rank, ended = failures[0] if failures else (None, code)
    if rank in words and words[rank]["error"] == LEFT_ALONE:  # it may end in the same second as the one that it lost
        rank, ended = next(((other, how) for other, how in failures if how < 0 and how != -signal.SIGTERM), (rank, ended))
    if known:
        said = known[0]
    elif heard:
        said = {"error": "Stopped at once; what was saved before is intact.", "exit_code": 128 + heard[0]}
    elif ended < 0:
        who = "The process that starts the ranks" if rank is None else f"Rank {rank} of {count}"
        why = " Machines that run out of memory do that." if -ended in SHORT else ""
        said = {
            "error": f"{who} was ended by {signal.Signals(-ended).name}.{why} What was saved before is intact; the same command continues.",
            "exit_code": 128 - ended,
        }
    else:
        silent = {"error": f"The processes of this command ended with exit code {ended} and left no word why.", "exit_code": max(ended, 1)}
        said = words.get(rank if rank is not None else -1, next(iter(words.values()), silent))
    return Ended(said["error"], said["exit_code"])


def note_failures(failures: list[tuple[int, int]]) -> None:
    """In the launcher: which ranks failed, the first one first, and their exit codes."""
    with suppress(OSError):
        (Path(os.environ[FOLDER]) / FAILURES).write_text(json.dumps(failures))


def arrive() -> None:
    """In a worker: say who it is, and end when the launcher does."""
    if FOLDER in os.environ:
        _write(".pid", str(os.getpid()))
        if LAUNCHER in os.environ:
            follow(int(os.environ[LAUNCHER]))


def depart(code: int) -> None:
    """Leave the process group, and end this rank with `code`; nothing where there is no group.

    A failed rank does not wait for NCCL, which would wait for what never comes. What a process is asked to do at its end is
    done, but the interpreter is not taken down: threads of gloo that need it then abort the process, rarely and after all work.
    """
    group: Any = sys.modules.get("torch.distributed")
    if group is None or not group.is_available() or not group.is_initialized():
        return
    if not code or group.get_backend() == "gloo":
        with suppress(RuntimeError):
            group.destroy_process_group()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def leave(sentence: str, code: int) -> bool:
    """In a worker: leave the last words; -> whether this is one."""
    if FOLDER in os.environ:
        _write(".json", json.dumps({"error": sentence, "exit_code": code}))
    return FOLDER in os.environ


def is_said(sentence: str) -> bool:
    """Whether another rank that the same torchrun started on this machine has said these words: an error that all share is said once."""
    if FOLDER in os.environ or int(os.environ.get("WORLD_SIZE", "1")) < 2 or TORCHRUN not in os.environ:
        return False
    mark = Path(os.environ[TORCHRUN]).parents[1] / f"said-{hashlib.sha256(sentence.encode(errors='replace')).hexdigest()[:16]}"
    try:
        mark.touch(exist_ok=False)
    except OSError as error:
        return isinstance(error, FileExistsError)
    return False


def speaks() -> bool:
    """Whether this process says what all ranks have to say: the command itself, or the first rank that torchrun started."""
    return FOLDER not in os.environ and os.environ.get("RANK", "0") == "0"


def lost_another(error: Exception) -> bool:
    """Whether this is a rank that fails because another one is gone."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return several and isinstance(error, RuntimeError) and any(word in str(error).lower() for word in LOST)


def alone(verb: str) -> bool:
    """Under torchrun, for what is not shared: the first rank says so and goes on as the only one; -> False on the others."""
    count = os.environ.get("WORLD_SIZE", "1")
    if int(count) < 2:
        return True
    if os.environ.get("RANK", "0") != "0":
        return False
    print(f"{verb} is not shared: the first of {count} ranks does it alone.", file=sys.stderr)
    for name in OWN:
        os.environ.pop(name, None)
    return True


def _write(ending: str, text: str) -> None:
    file = Path(os.environ[FOLDER]) / (f"{int(os.environ.get('RANK', '0')):05d}{ending}")
    temporary = file.with_suffix(".tmp")
    with suppress(FileNotFoundError):  # the command is gone and nobody listens
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
