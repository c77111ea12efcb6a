"""A command or a script in a process of its own, and what it took.

Peak memory is read from /proc where there is one: what getrusage says of a process begins with the peak of the process that started it.
"""

import json
import resource
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

PROC = Path("/proc/self/status")
LIGHT = ("report", "data", "runs")  # commands that need no torch


def command(*words: str | Path, cwd: Path) -> dict[str, Any]:
    """One command of ldmctl -> its JSON result with `seconds`, the import of torch not counted where it needs it, `resident_mib` and `device_mib`."""
    return script(Path(__file__), *words, "--json", cwd=cwd)


def script(path: Path, *words: str | Path, cwd: Path | None = None) -> dict[str, Any]:
    """The JSON objects that a Python script prints, one a line, as one; a script that fails ends this one."""
    done = subprocess.run([sys.executable, str(path), *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{path.name} {' '.join(map(str, words))} ended with {done.returncode}: {done.stdout}\n{done.stderr}")
    found: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        found |= json.loads(line)
    return found


def processor_seconds() -> float:
    """Of the commands that have ended, their start included, which others on the machine change little."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def memory() -> dict[str, float | None]:
    """Peak memory of this process, MiB: resident on the host, allocated on the accelerator (None without one)."""
    if PROC.exists():
        peak = next(int(line.split()[1]) for line in PROC.read_text().splitlines() if line.startswith("VmHWM"))
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch: Any = sys.modules.get("torch")
    device = torch.cuda.max_memory_allocated() / 2**20 if torch is not None and torch.cuda.is_available() else None
    return {"resident_mib": round(peak / 1024, 1), "device_mib": device}


def main() -> None:
    """`python process.py fit-diffusion ...` is that command, as `python -m ldmctl` starts it; then what this process took."""
    from ldmctl.__main__ import main as command_line

    if sys.argv[1] not in LIGHT:
        import_module("torch")
    began = time.perf_counter()
    try:
        command_line()
    except SystemExit as end:
        if end.code:
            raise
    print(json.dumps({"seconds": time.perf_counter() - began, **memory()}))


if __name__ == "__main__":
    main()
