"""What a benchmark ran on and what it found, as one JSON file in benchmarks/results/."""

import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def describe() -> dict[str, Any]:
    """Processor, cores, memory, accelerator and versions."""
    import torch

    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return {
        "processor": capabilities.get("cpu_name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bf16": bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")),
        "memory_gib": round(pages / 2**30),
        "gpu": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("torch", "ldmctl")},
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "date": datetime.now(UTC).date().isoformat(),
    }


def ldmctl(*words: str, cwd: Path, **environment: str) -> tuple[dict[str, Any], float]:
    """(the JSON result, seconds) of one command, run as a user would in the folder `cwd`."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "ldmctl", *words, "--json"]
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}: {done.stdout}")
    return json.loads(done.stdout), time.perf_counter() - began


def keep(name: str, found: dict[str, Any], machine: dict[str, Any], *, show: bool = True) -> None:
    """Write results/NAME.json and show it."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"benchmark": name, "machine": machine, **found}, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    if show:
        print(text)
