"""How many pictures at once the device has room for, found by real steps (`loop.micro: auto`).

Steps of 1, 2, 4, ... pictures are made; memory grows in a line with their number,
so two measurements tell what the next would need, and one that would not fit is
never tried.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

import torch

from ldmctl.errors import ConfigError, MemoryShortage
from ldmctl.training.engine import Engine

FILLED = 0.9  # of what is free
KNOBS = "loop.checkpointing=true needs less, and so does a smaller network."  # true of every stage that trains
GIB = 2**30


def largest_micro(step: Callable[[int], object], share: int, engine: Engine, *, memory: float | None = None) -> int:
    """The largest of 1, 2, 4, ..., `share` pictures whose step stays within `memory` GiB, by default nine tenths of what is
    free; the same on all ranks. `step(n)` makes one whole training step of n pictures. MemoryShortage if one is too many."""
    allowed = -_agreed(-allowance(engine, memory), engine)
    found, peaks = 0, list[tuple[int, float]]()
    for count in sizes(share):
        if expected(peaks, count) > allowed:
            break
        try:
            peaks.append((count, _agreed(_peak(step, count, engine), engine)))
        except RuntimeError as error:
            if engine.world > 1 or not is_shortage(error):  # the other ranks wait within the step: it cannot be left alone
                raise
            break
        if peaks[-1][1] > allowed:
            break
        found = count
    if not found:
        raise MemoryShortage(
            f"A step of one picture needs {f'about {peaks[0][1] / GIB:.2f} GiB' if peaks else 'more than there is'}, "
            f"and {allowed / GIB:.2f} GiB may be used. {KNOBS}"
        )
    return found


def allowance(engine: Engine, memory: float | None = None) -> float:
    """Bytes that this process may hold: `memory` GiB, by default nine tenths of what is free, with what it holds already."""
    return memory * GIB if memory is not None else FILLED * (free(engine) + used(engine))


def release(engine: Engine) -> None:
    """Give back what a rehearsal held: its networks, which may hold themselves in a cycle, and the memory that torch keeps for them."""
    gc.collect()
    if engine.device.type == "cuda":
        torch.cuda.empty_cache()


def is_shortage(error: BaseException) -> bool:
    """Whether this is torch running out of memory, on an accelerator or a CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _agreed(value: float, engine: Engine) -> float:
    """The largest over the ranks."""
    if engine.world == 1:
        return value
    return float(engine.maximum(torch.tensor(float(value), dtype=torch.float64, device=engine.device)))


def sizes(share: int) -> list[int]:
    """1, 2, 4, ... and `share` itself."""
    return [1 << power for power in range((share - 1).bit_length())] + [share]


def expected(peaks: Sequence[tuple[int, float]], count: int) -> float:
    """Bytes that a step of `count` pictures will need, on the line through the last two measurements; 0 without any."""
    if len(peaks) < 2:
        return peaks[-1][1] if peaks else 0
    (few, low), (many, high) = peaks[-2:]
    return high + max(high - low, 0) / (many - few) * (count - many)


def _peak(step: Callable[[int], object], count: int, engine: Engine) -> int:
    """Bytes that this process held at most during a step."""
    if engine.device.type == "cuda":
        torch.cuda.empty_cache()  # what smaller steps left in pieces that this one cannot use is no part of its peak
        torch.cuda.reset_peak_memory_stats(engine.device)
    elif (reset := Path("/proc/self/clear_refs")).exists():
        reset.write_text("5")  # the kernel's high-water mark starts over
    step(count)
    gc.collect()
    if engine.device.type == "cuda":
        return torch.cuda.max_memory_reserved(engine.device)
    if peak := _status("VmHWM"):
        return peak
    try:
        import resource
    except ImportError:
        raise ConfigError("loop.micro=auto cannot measure memory on this system; give loop.micro a number.") from None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def held(engine: Engine) -> int:
    """Bytes that tensors took at most on an accelerator since this was last asked; elsewhere those that the process holds now."""
    if engine.device.type != "cuda":
        return _status("VmRSS")
    peak = torch.cuda.max_memory_allocated(engine.device)
    torch.cuda.reset_peak_memory_stats(engine.device)
    return peak


def used(engine: Engine) -> int:
    """Bytes that this process holds now, of the kind that `_peak` counts."""
    return torch.cuda.memory_reserved(engine.device) if engine.device.type == "cuda" else _status("VmRSS")


def free(engine: Engine) -> int:
    """Bytes of the device that nobody uses, this process's part of them when several share the machine."""
    if engine.device.type == "cuda":
        return torch.cuda.mem_get_info(engine.device)[0]
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    file = Path("/proc/meminfo")
    if file.exists():
        return min(_kilobytes(file, "MemAvailable"), granted()) // beside
    if not hasattr(os, "sysconf"):  # Windows does not say
        return sys.maxsize
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 // beside


def granted(own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that the container or batch job of this process may still take, by its control groups of either version."""
    left = sys.maxsize
    for line in own.read_text().splitlines() if own.exists() else ():
        _, controllers, place = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        most, now = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        for level in (PurePosixPath(place), *PurePosixPath(place).parents):
            folder = root / controllers / str(level).lstrip("/")
            with suppress(OSError, ValueError):  # not there, not ours to read, or without a limit
                limit, taken = (int((folder / name).read_text()) for name in (most, now))
                counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                left = min(left, limit - taken + int(counts.get("total_inactive_file", counts.get("inactive_file", 0))))
    return max(left, 0)


def _status(name: str) -> int:
    file = Path("/proc/self/status")
    return _kilobytes(file, name) if file.exists() else 0


def _kilobytes(file: Path, name: str) -> int:
    """The number after `name:` in a file of the kernel, in bytes; 0 if it is not there."""
    rows = (line.split() for line in file.read_text().splitlines() if line.startswith(f"{name}:"))
    return next((int(row[1]) * 1024 for row in rows), 0)
