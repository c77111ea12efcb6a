"""Peak memory of `ldmctl sample` for few pictures and for many, which should be the same.

python benchmarks/sampling_memory.py             # a minute; writes results/sampling_memory.json
python benchmarks/sampling_memory.py --many 2000 --print   # only a look

A run of one step on latents of random pixels; each command in a process of its own, then the many once more where everything is there already.
`--npz` is given to the many, so that the file of all is written too.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from machine import describe, keep, ldmctl
from process import command
from random_cache import make

FEW = 100
CONFIG = {
    "denoiser": {"type": "unet", "widths": [16], "layers": 1, "attention": [False], "head_dim": 16, "norm_groups": 8},
    "conditioner": None,
    "preview": {"count": 1, "steps": 1},
    "loop": {"steps": 1, "batch": 8},
}
KEYS = ("--steps", "1", "batch=64", "-q")


def main() -> None:
    """Prepare the run, measure, write."""
    options = argparse.ArgumentParser()
    options.add_argument("--many", type=int, default=10_000)
    options.add_argument("--print", action="store_true", help="show the result and keep nothing")
    asked = options.parse_args()
    machine = describe()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, latent=(3, 8, 8), count=16)
        (folder / "ldm.yaml").write_text(json.dumps(CONFIG))
        ldmctl("fit-diffusion", "--config", "ldm.yaml", "--latents", "cache", "--out", "run", "-q", cwd=folder)
        runs = {
            "few": sampled(folder, FEW, "few"),
            "many": sampled(folder, asked.many, "many", "--npz"),
            "many_that_are_there": sampled(folder, asked.many, "many", "--npz"),
        }
    found: dict[str, Any] = {"pictures": {"few": FEW, "many": asked.many}, "side": 8, **runs}
    found["many_over_few"] = round(runs["many"]["resident_mib"] / runs["few"]["resident_mib"], 3)
    if asked.print:
        print(json.dumps(found, indent=2))
    else:
        keep("sampling_memory", found, machine)


def sampled(folder: Path, count: int, out: str, *words: str) -> dict[str, Any]:
    """Seconds, peak memory and pictures made of one command."""
    done = command("sample", "--run", "run", "-n", str(count), "--out", out, *KEYS, *words, cwd=folder)
    return {name: done[name] for name in ("seconds", "resident_mib", "device_mib", "made")}


if __name__ == "__main__":
    main()
