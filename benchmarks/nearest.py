"""The nearest of 8,192 codes to each of 65,536 features of width 4: time and memory, beside `torch.cdist(features, codes).argmin(1)`.

python benchmarks/nearest.py

Times are medians of runs in turn, in one process a line; memory is the most that one run holds beyond its inputs, each in a
process of its own. `misses` are features whose code is farther than the one found in float64.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import describe, keep
from torch import Tensor

from ldmctl.blocks.nearest import CPU_TILE, TILE, nearest_codes

FEATURES, CODES, WIDTH = 65_536, 8192, 4
ROUNDS = 9
LOOKED_AT = 8192  # features whose codes are searched again in float64
MIB = 2**20
Search = Callable[[Tensor, Tensor], Tensor]


def by_cdist(features: Tensor, codes: Tensor) -> Tensor:
    """[N,c] and [K,c] -> [N], with all distances in memory at once."""
    return torch.cdist(features, codes).argmin(1)


def searches(device: str) -> dict[str, Search]:
    """What is compared, by name; compiling happens at the first call."""
    compiled = {"cdist_compiled": torch.compile(by_cdist), "nearest_codes_compiled": torch.compile(nearest_codes)}
    return {"cdist": by_cdist, "nearest_codes": nearest_codes, **compiled, **{f"tile_{tile}": tiled(tile) for tile in tiles(device)}}


def tiles(device: str) -> list[int]:
    """Numbers of scores held at a time, around the one that is taken."""
    middle = CPU_TILE if device == "cpu" else TILE
    return [middle * 2**power // 4 for power in range(0, 6, 1)]


def tiled(tile: int) -> Search:
    """The search with another tile."""
    return lambda features, codes: nearest_codes(features, codes, tile=tile)


def main() -> None:
    """Each line in processes of its own; the ratios are those of the goals."""
    machine = describe()
    lines = {}
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        names = list(searches(device))
        eager, sweep = names[:2], [name for name in names if name.startswith("tile_")]
        plain, compiled = child("times", device, *eager), child("times", device, *names[2:4], "cdist")  # a ratio is of one process
        memory = {name: child("memory", device, name)[name] for name in names[:4]}
        lines[device] = {
            "median_seconds": {"eager": plain, "compiled": compiled},
            "peak_mib": memory,
            "times_faster": {
                "eager_than_eager_cdist": round(plain["cdist"] / plain["nearest_codes"], 2),
                "compiled_than_eager_cdist": round(compiled["cdist"] / compiled["nearest_codes_compiled"], 2),
                "compiled_than_compiled_cdist": round(compiled["cdist_compiled"] / compiled["nearest_codes_compiled"], 2),
            },
            "share_of_cdists_memory": {
                name: round(memory[name] / memory["cdist"], 4) for name in ("nearest_codes", "nearest_codes_compiled")
            },
            "median_seconds_by_tile": child("times", device, *sweep),
            "misses": {name: child("misses", device, name)[name] for name in eager},
        }
    keep("nearest", {"features": FEATURES, "codes": CODES, "width": WIDTH, "rounds": ROUNDS, "looked_at": LOOKED_AT, **lines}, machine)


def child(what: str, device: str, *names: str) -> dict[str, float]:
    """What a fresh process finds, by name of the search."""
    done = subprocess.run([sys.executable, __file__, what, device, *names], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def inputs(device: str) -> tuple[Tensor, Tensor]:
    """(features [N,c], codes [K,c]), always the same."""
    generator = torch.Generator().manual_seed(0)
    features, codes = (torch.randn(count, WIDTH, generator=generator).to(device) for count in (FEATURES, CODES))
    return features, codes


def times(device: str, names: list[str]) -> dict[str, float]:
    """Median seconds of each search, in turn, after two rounds that do not count."""
    given, chosen = inputs(device), searches(device)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS + 2):
        for name in names:
            seconds[name].append(timed(chosen[name], given, device))
    return {name: round(statistics.median(values[2:]), 5) for name, values in seconds.items()}


def timed(search: Search, given: tuple[Tensor, Tensor], device: str) -> float:
    """Seconds of one call."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    search(*given)
    wait()
    return time.perf_counter() - began


def memory(device: str, names: list[str]) -> dict[str, float]:
    """MiB that the search holds at most, beyond its inputs and what a small search has brought into memory."""
    features, codes = inputs(device)
    search = searches(device)[names[0]]
    if "compiled" in names[0]:
        search(features, codes)  # else it is the compiler that is measured
    search(features[:64].clone(), codes[:64].clone())
    return {names[0]: round(peak(lambda: search(features, codes), device) / MIB, 1)}


def peak(work: Callable[[], object], device: str) -> int:
    """Bytes."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    mark = Path("/proc/self/clear_refs")
    if mark.exists():
        mark.write_text("5")  # the kernel's high-water mark starts over
    before = most_held()
    work()
    return most_held() - before


def most_held() -> int:
    """Bytes of memory that this process has held at most."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def misses(device: str, names: list[str]) -> dict[str, float]:
    """How many of the features that are looked at have a code that is farther than the nearest."""
    features, codes = inputs(device)
    found = searches(device)[names[0]](features, codes)[:LOOKED_AT, None]
    count = 0
    for part, own in zip(features[:LOOKED_AT].double().split(256), found.split(256), strict=True):
        apart = (part[:, None] - codes.double()).square().sum(2)
        count += int((apart.gather(1, own)[:, 0] > apart.amin(1)).sum())
    return {names[0]: count}


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        what, device, *names = sys.argv[1:]
        print(json.dumps({"times": times, "memory": memory, "misses": misses}[what](device, names)))
