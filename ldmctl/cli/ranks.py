"""--devices N: the same command on N processes under torchrun, ended and stopped as if it were one.

torchrun turns every exit code into 1 and gives workers 30 seconds to end, so each
worker leaves its process id and its last words in a folder that the environment
names, and hears signals from here.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from ldmctl.signals import ASKING

FOLDER = "LDMCTL_RANKS"  # the environment variable


def spread(count: int) -> dict:
    """Run this command on `count` processes -> {"exit_code": ...} and, if it failed with a sentence, its "error"."""
    command = [sys.executable, "-m", "torch.distributed.run", *launched(count, sys.argv[1:])]
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

        before = {each: signal.signal(each, pass_on) for each in ASKING}
        try:
            code = process.wait()
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
        if code == 0:
            return {"exit_code": 0}
        return last_words(Path(folder)) or {"exit_code": 128 + heard[0] if heard else code}


def launched(count: int, words: list[str]) -> list[str]:
    """What torchrun is told; without the two dashes it would take `--run` for a beginning of its own options."""
    return ["--standalone", f"--nproc-per-node={count}", "-m", "--", "ldmctl", *words]


def last_words(folder: Path) -> dict | None:
    """How the first rank ended that knows why; a rank that only lost the others says 1."""
    words = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    return next((each for each in words if each["exit_code"] != 1), words[0] if words else None)


def arrive() -> None:
    """In a worker: say who it is."""
    if FOLDER in os.environ:
        _write(".pid", str(os.getpid()))


def leave(sentence: str, code: int) -> bool:
    """In a worker: leave the last words; -> whether this is one."""
    if FOLDER in os.environ:
        _write(".json", json.dumps({"error": sentence, "exit_code": code}))
    return FOLDER in os.environ


def _write(ending: str, text: str) -> None:
    file = Path(os.environ[FOLDER]) / (f"{int(os.environ.get('RANK', '0')):05d}{ending}")
    temporary = file.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)
