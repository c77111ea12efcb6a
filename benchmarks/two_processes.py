"""fit-diffusion on two processes beside one, at the same global batch: how fast, and whether they learn the same.

python benchmarks/two_processes.py              # four minutes on two cores; writes results/two_processes.json
python benchmarks/two_processes.py --rounds 1 --steps 6 --report 1 --print   # only a look

`ldmctl fit-diffusion --devices 2` and the same command without it, on a cache of latents of random pixels. On CPUs each of the two processes computes
with half of the threads that the one has, so that both use the same cores; GPUs are taken when there are two of them.

speed     images per second in automatic precision, those of metrics.jsonl without the first report and the last; `overhead` is how much longer a step
          takes on two processes than on one. Each runs in turn, round after round; medians.
equality  a run in float32 on both: the gradient's norm in every step, AdamW's running mean of the gradients at the end, and the weights of
          model.safetensors. They differ by rounding only, since sums are taken in another order, and must be within the tolerances below.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from machine import describe, keep, ldmctl
from random_cache import make
from rounds import rates, refuse_few, reported
from safetensors.torch import load_file
from torch import Tensor

SIZES: dict[str, dict[str, Any]] = {
    "cpu": {"latent": [3, 8, 8], "widths": [64, 128], "latents": 2048, "batch": 64, "steps": 60, "report": 2},
    "cuda": {"latent": [4, 32, 32], "widths": [128, 256, 384, 512], "latents": 8192, "batch": 128, "steps": 240, "report": 20},
}
COMPARED = 10  # steps of the runs in float32
TOLERANCES = {"gradient_norms": 1e-3, "gradients": 1e-3, "weights": 1e-3}  # relative


def main() -> None:
    """Prepare a cache, compare what is learned, measure, write."""
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--steps", type=int, help="of one run; by default as many as suit the device")
    options.add_argument("--report", type=int, help="steps between rates")
    options.add_argument("--print", action="store_true", help="show the result and keep nothing")
    asked = options.parse_args()
    machine = describe()
    device = "cuda" if torch.cuda.device_count() > 1 else "cpu"
    sizes = SIZES[device] | {key: value for key in ("steps", "report") if (value := getattr(asked, key))}
    refuse_few(sizes["steps"], sizes["report"])
    with tempfile.TemporaryDirectory() as folder:
        work = sizes | {"device": device, "folder": Path(folder)}
        make(work["folder"], latent=tuple(sizes["latent"]), count=sizes["latents"])
        found = {"device": device, "sizes": sizes, "rounds": asked.rounds, "equality": equality(work), "speed": speed(work, asked.rounds)}
    if asked.print:
        print(json.dumps(found, indent=2))
    else:
        keep("two_processes", found, machine)


def fit(work: dict[str, Any], processes: int, *, precision: str, loop: dict[str, Any]) -> Path:
    """One run of the command on so many processes -> its folder."""
    folder, out = work["folder"], f"run-{processes}"
    config = {
        "denoiser": {"type": "unet", "widths": work["widths"], "layers": 2},
        "conditioner": None,
        "preview": {"count": 1, "steps": 1},
        "loop": {"batch": work["batch"], "save": 10**6, "preview": 10**6, **loop},
        "machine": {"device": work["device"], "precision": precision, "devices": processes},
    }
    (folder / "fit.yaml").write_text(json.dumps(config))
    threads = max(1, (os.cpu_count() or 1) // processes) if work["device"] == "cpu" else 1
    words = ["fit-diffusion", "--config", "fit.yaml", "--latents", "cache", "--out", out, "--overwrite", "-q"]
    ldmctl(*words, cwd=folder, OMP_NUM_THREADS=str(threads))
    return folder / out


def speed(work: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Images per second of each, and the overhead of two processes."""
    found: dict[int, list[float]] = {1: [], 2: []}
    for number in range(rounds):
        for processes, done in found.items():
            run = fit(work, processes, precision="auto", loop={"steps": work["steps"], "report": work["report"]})
            done.append(statistics.median(rates(run)))
            print(f"round {number + 1}: {processes} process(es): {done[-1]:.1f} images/s", file=sys.stderr)
    middle = {processes: statistics.median(done) for processes, done in found.items()}
    return {
        "images_per_second": {str(processes): round(rate, 1) for processes, rate in middle.items()},
        "rounds": {str(processes): done for processes, done in found.items()},
        "overhead": round(middle[1] / middle[2] - 1, 3),
    }


def equality(work: dict[str, Any]) -> dict[str, Any]:
    """How far apart one process and two are after some steps in float32; beyond the tolerances nothing is measured."""
    loop = {"steps": COMPARED, "report": 1, "lr": 1e-4, "warmup": 1}
    one, two = (fit(work, processes, precision="fp32", loop=loop) for processes in (1, 2))
    norms = [reported(run, "diffusion/gradient") for run in (one, two)]
    states, models = ([load_file(run / f"{name}.safetensors") for run in (one, two)] for name in ("state", "model"))
    means = [name for name in states[0] if name.endswith(".exp_avg")]
    if len(norms[0]) != COMPARED or not means or states[0].keys() != states[1].keys() or models[0].keys() != models[1].keys():
        raise SystemExit("The runs on one process and on two did not leave the same reports, states and models.")
    apart = {
        "gradient_norms": max(abs(a - b) / a for a, b in zip(*norms, strict=True)),
        "gradients": apart_by(*(torch.cat([state[name].flatten() for name in means]) for state in states)),
        "weights": apart_by(*(torch.cat([model[name].flatten() for name in models[0]]) for model in models)),
    }
    if any(apart[name] > most for name, most in TOLERANCES.items()):
        raise SystemExit(f"Two processes do not learn what one learns: relative differences {apart}, at most {TOLERANCES} were expected.")
    return {"steps": COMPARED, "relative_differences": apart, "tolerances": TOLERANCES}


def apart_by(one: Tensor, other: Tensor) -> float:
    """Length of the difference over length."""
    return ((one - other).double().norm() / other.double().norm()).item()


if __name__ == "__main__":
    main()
