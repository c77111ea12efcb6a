"""LPIPS as a loss, forward and backward to the first picture: ldmctl's against the `lpips` package, in turn.

python benchmarks/lpips_loss.py [ROUNDS]          # needs `pip install lpips`

VGG16's weights are random, made once and given to both: they change no time. The
gradient of a network of ReLUs and maxima is not continuous: where rounding moves
a feature across 0 or makes another one the maximum, a few pixels' gradients jump.
So both gradients are also set against one in float64, and `slope_median` is the
median over pixels of their difference over the median slope.
"""

import copy
import ctypes
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import describe, keep
from torch import Tensor, nn

from ldmctl import registry

SIZES = {"cpu": [(8, 64), (2, 256)], "cuda": [(64, 64), (32, 256), (8, 512)]}  # batch, side
ALIKE = 1e-4


def main() -> None:
    """Time both in every size and precision."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 11
    machine = describe()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    losses = {name: module.to(device) for name, module in both().items()}
    found = []
    for batch, side in SIZES[device.type]:
        torch.manual_seed(side)
        image, target = torch.rand(2, batch, 3, side, side, device=device) * 2 - 1
        for precision in ("fp32", "bf16"):
            found.append(
                {"precision": precision, "batch": batch, "side": side, **compare(losses, image, target, precision == "bf16", rounds)}
            )
    keep("lpips_loss", {"rounds": rounds, "found": found}, machine)


def both() -> dict[str, nn.Module]:
    """ldmctl's LPIPS and the package's on the same weights."""
    with warnings.catch_warnings(action="ignore"), tempfile.TemporaryDirectory() as folder:
        import lpips

        torch.manual_seed(0)
        package = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).requires_grad_(False)
        file = Path(folder) / "vgg16.pth"
        torch.save({f"features.{name.split('.', 1)[1]}": value for name, value in package.net.state_dict().items()}, file)
        plugin = registry.load("perceptual", "lpips")
        return {"ldmctl": plugin(plugin.Config(type="lpips", weights=str(file)), image_channels=3), "lpips": package}


def compare(losses: dict[str, nn.Module], image: Tensor, target: Tensor, half: bool, rounds: int) -> dict[str, Any]:
    """Median milliseconds of each, their ratio, peak memory, and how far the results are apart."""
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    results: dict[str, tuple[Tensor, Tensor]] = {}
    for _ in range(rounds + 1):  # the first does not count
        for name, loss in losses.items():
            began = time.perf_counter()
            results[name] = step(loss, image, target, half)
            seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    ratios = [theirs / ours for ours, theirs in zip(*(values[1:] for values in seconds.values()), strict=True)]
    memory = {name: peak(lambda loss=loss: step(loss, image, target, half), image.device) for name, loss in losses.items()}
    return {
        "milliseconds": {name: round(1000 * value, 2) for name, value in medians.items()},
        "ratio": round(medians["lpips"] / medians["ldmctl"], 3),
        "ratio_lowest_and_highest_round": [round(min(ratios), 3), round(max(ratios), 3)],
        "peak_mib": memory,
        **apart(losses, results, image, target, half),
    }


def step(loss: nn.Module, image: Tensor, target: Tensor, half: bool) -> tuple[Tensor, Tensor]:
    """(distances [B], gradient of their mean)."""
    leaf = image.detach().requires_grad_()
    with torch.autocast(image.device.type, torch.bfloat16, enabled=half):
        distance = loss(leaf, target).flatten().float()
    (slope,) = torch.autograd.grad(distance.mean(), leaf)
    if image.device.type == "cuda":
        torch.cuda.synchronize()
    return distance.detach(), slope


def apart(
    losses: dict[str, nn.Module], results: dict[str, tuple[Tensor, Tensor]], image: Tensor, target: Tensor, half: bool
) -> dict[str, Any]:
    """How far value and gradient of the two are apart, and each from float64 (of the first picture)."""
    (ours, our_slope), (theirs, their_slope) = results["ldmctl"], results["lpips"]
    value = ((ours - theirs).abs() / theirs).max().item()
    median = ((our_slope - their_slope).abs().median() / their_slope.abs().median()).item()
    leaf = image[:1].double().requires_grad_()
    exact = copy.deepcopy(losses["lpips"]).double()(leaf, target[:1].double())
    (slope,) = torch.autograd.grad(exact.sum() / len(image), leaf)
    out = {"value": value, "slope_median": median, "alike": half or max(value, median) < ALIKE}
    for name, (_, found) in results.items():
        out[f"slope_of_{name}_from_float64"] = ((found[:1] - slope).norm() / slope.norm()).item()
    return out


def peak(run: Callable[[], object], device: torch.device) -> float | None:
    """MiB beyond what was held before: of the allocator on CUDA; of the process on Linux, looked at every millisecond; else None."""
    if device.type == "cuda":
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return round((torch.cuda.max_memory_allocated() - held) / 2**20, 1)
    if not (status := Path("/proc/self/statm")).exists():
        return None
    ctypes.CDLL(None).malloc_trim(0)  # what an earlier step left would hide what this one takes
    pages: list[int] = [int(status.read_text().split()[1])]
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.001):
            pages.append(int(status.read_text().split()[1]))

    watcher = threading.Thread(target=look)
    watcher.start()
    run()
    done.set()
    watcher.join()
    return round((max(pages) - pages[0]) * 4096 / 2**20, 1)


if __name__ == "__main__":
    main()
