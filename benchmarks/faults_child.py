"""Commands of ldmctl in children forked from a process that has torch and ldmctl loaded already: a fraction of a second each.

Every child has a folder of its own to work in, its words on stdout and stderr in one file, and an audit hook, which
sees each file that Python opens for writing, renames or deletes, and each program that it starts.
"""

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 10.0  # seconds of its own that a command may take before it is told to stop, and then to obey
SAID = "said.txt"
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    "os.rename": 2,
    "os.remove": 1,
    "os.mkdir": 1,
    "os.rmdir": 1,
    "os.truncate": 1,
    "os.symlink": 2,
    "os.link": 2,
    "shutil.rmtree": 1,
}
STARTS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class", "socket.connect")

Hook = Callable[[str, tuple[Any, ...]], None]


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int  # negative: by this signal
    said: str
    seconds: float
    memory: int  # MiB beyond what it began with
    hung: bool = False

    @property
    def traceback(self) -> bool:
        """Whether a person saw the insides."""
        return "Traceback (most recent call last)" in self.said or "This is a bug" in self.said


@dataclass
class Child:
    """A command under way."""

    pid: int
    folder: Path
    began: float
    said: Path

    def wait(self, patience: float | None = PATIENCE) -> Outcome:
        """How it ends. After so many seconds it is told to stop, as Ctrl-C would; one that does not is hung."""
        told = False
        while True:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            spent = time.monotonic() - self.began - (0 if pid else self.queued())
            if pid:
                return self._outcome(os.waitstatus_to_exitcode(status), usage, spent)
            if patience is not None and not told and spent > patience and self.cpu() > 0.4 * patience:
                os.kill(self.pid, signal.SIGTERM)
                told = True
            if (patience is not None and spent > 6 * patience) or (told and self.cpu() > 3 * patience):
                os.kill(self.pid, signal.SIGKILL)
                _, status, usage = os.wait4(self.pid, 0)
                return self._outcome(os.waitstatus_to_exitcode(status), usage, spent, hung=True)
            time.sleep(0.002)

    def kill(self) -> Outcome:
        """End it at once, and see it gone."""
        os.kill(self.pid, signal.SIGKILL)
        return self.wait(None)

    def cpu(self) -> float:
        """Seconds that it has computed: on a busy machine the clock on the wall says little."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def queued(self) -> float:
        """Seconds that it was ready to compute while others had the processors."""
        try:
            return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9
        except (OSError, LookupError):
            return 0.0

    def _outcome(self, code: int, usage: Any, spent: float, *, hung: bool = False) -> Outcome:
        said = self.said.read_text(encoding="utf-8", errors="replace") if self.said.exists() else ""
        return Outcome(code, said, spent, max(0, usage.ru_maxrss - resident()) // 1024, hung)


def warm() -> None:
    """Load everything that a command may load, on one thread: what is loaded later is loaded once per child."""
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "LDMCTL_OFFLINE": "1",
        "COLUMNS": "200",
        "LDMCTL_OVERRIDES": "",
        "TOKENIZERS_PARALLELISM": "false",
    }
    import torch
    from PIL import Image

    torch.set_num_threads(1)
    Image.init()
    import torchmetrics
    import torchvision
    from transformers import AutoModel, AutoTokenizer

    import ldmctl.plan

    assert torchmetrics and torchvision and AutoModel and AutoTokenizer
    from ldmctl import registry
    from ldmctl.cli import app, ranks
    from ldmctl.evaluation import checkup, verdict
    from ldmctl.stages import encode_dataset, eval_lpips, eval_samples, fit_ae, fit_diffusion, fit_token, report, sample
    from ldmctl.training import posthoc_ema

    stages = (encode_dataset, eval_lpips, eval_samples, fit_ae, fit_diffusion, fit_token, report, sample)
    assert all((ldmctl.plan, app, ranks, checkup, verdict, *stages, posthoc_ema))
    for kind in registry.GROUPS:
        for plugin in registry.plugins(kind):
            if plugin.name not in ("wandb", "tensorboard"):
                registry.load(kind, plugin.name)


def start(
    words: Sequence[str],
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    hook: Hook | None = None,
    before: Callable[[], None] | None = None,
    memory: int | None = None,
    work: Callable[[], int] | None = None,
) -> Child:
    """Fork a child that runs `ldmctl WORDS` (or `work`) in a folder; `memory` in MiB beyond what is there already."""
    sys.stdout.flush()
    sys.stderr.flush()
    said = folder / SAID
    began = time.monotonic()
    pid = os.fork()
    if pid:
        return Child(pid, folder, began, said)
    code = 70
    try:
        _settle(said, folder, words, environment or {}, memory)
        if before is not None:
            before()
        if hook is not None:
            sys.addaudithook(hook)
        code = work() if work is not None else _command(list(words))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) and 0 <= code < 256 else 70)


def run(words: Sequence[str], folder: Path, *, patience: float | None = PATIENCE, **options: Any) -> Outcome:
    """`start`, and how it ended."""
    return start(words, folder, **options).wait(patience)


def _settle(said: Path, folder: Path, words: Sequence[str], environment: Mapping[str, str], memory: int | None) -> None:
    """What the child is before the command begins: its folder, its words, its limits."""
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(folder)
    (folder / "tmp").mkdir(exist_ok=True)
    os.environ |= {"TMPDIR": str(folder / "tmp"), **environment}
    sys.argv = ["ldmctl", *words]
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL if each != signal.SIGINT else signal.default_int_handler)
    import tempfile

    tempfile.tempdir = None
    if memory is not None:
        there = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (there + (memory << 20),) * 2)


def _command(words: list[str]) -> int:
    import threading

    from ldmctl.cli.app import run as run_words

    code = run_words(words)
    for thread in threading.enumerate():  # as the interpreter does at its end
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    return code


def resident() -> int:
    """KiB that this process holds, which each child begins with."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


# -- what a child does to files --------------------------------------------------


def changed_paths(event: str, arguments: tuple[Any, ...]) -> list[str]:
    """The paths that this audit event is about to change."""
    if event == "open":
        path, mode, flags = arguments
        writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool((flags or 0) & WRITES)
        return [os.fsdecode(path)] if writes and isinstance(path, str | bytes | os.PathLike) else []
    return [os.fsdecode(path) for path in arguments[: CHANGES.get(event, 0)] if isinstance(path, str | bytes | os.PathLike)]


def watch(folder: Path, allowed: Sequence[Path], report: Path) -> Hook:
    """A hook that notes in `report` whatever is changed outside the allowed folders, and every program that is started."""
    places = [str(place) for place in (*allowed, folder / "tmp", Path("/dev"), folder / SAID)]
    file = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event in STARTS or (event == "import" and str(arguments[0]).split(".")[0] == "canary"):
            os.write(file, f"{event} {str(arguments)[:200]}\n".encode(errors="replace"))
        for path in changed_paths(event, arguments):
            whole = os.path.realpath(os.path.join(str(folder), path))
            if not any(whole == place or whole.startswith(place + "/") for place in places):
                os.write(file, f"{event} changes {whole}\n".encode(errors="replace"))

    return note
