"""64 pictures from a trained U-Net, ours beside diffusers: the same weights, the same sampler, the same number of steps.

python benchmarks/sampling_speed.py              # some minutes on two cores; writes results/sampling_speed.json
python benchmarks/sampling_speed.py --rounds 1 --steps 4 --print   # only a look

Latents are pictures here (the autoencoder is `identity`), so that nothing is timed but sampling: ours is `api.load(RUN).sample`, theirs DDIMPipeline, and
for DPM-Solver++ and in bf16 (which that pipeline cannot turn into pictures) its loop with their scheduler; both give pictures in uint8. Two lines for each sampler:

defaults  each as it comes on this device: ours in automatic precision and batches of 16, theirs in float32, all 64 at once
equal     both in bf16 where the hardware has it (ours by autocast, theirs by `pipeline.to(torch.bfloat16)`), else both in float32, ours in one batch too

Before anything is timed, both go from the same noise to latents in float32 and must agree. Then the two sides of a line take turns, pair by pair; how
many times faster ours is, is the median of the pairs' ratios. `outside` is the share of a side's time that its network was not running.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMPipeline, DDIMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from diffusers_unet_step import unet_of
from machine import describe, keep, ldmctl
from random_cache import make
from torch import Tensor, nn

from ldmctl import api, registry
from ldmctl.config.resolve import plugin_config
from ldmctl.diffusion.denoise import Denoise
from ldmctl.diffusion.model import Model
from ldmctl.diffusion.spacing import levels, start
from ldmctl.training import engine

SIZES: dict[str, dict[str, Any]] = {
    "cpu": {"latent": [3, 8, 8], "widths": [64, 128], "layers": 2, "steps": 20},
    "cuda": {"latent": [3, 32, 32], "widths": [128, 256, 256], "layers": 2, "steps": 50},
}
COUNT = 64
SAMPLERS = {"ddim": DDIMScheduler, "dpmpp-2m": DPMSolverMultistepScheduler}
TOLERANCE = 1e-3  # of the largest value, between two latents after all steps in float32


def main() -> None:
    """Prepare the run, compare the latents, measure, write."""
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--steps", type=int, help="of the sampler")
    options.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the CPU; 1 is steadier where others compute, too")
    options.add_argument("--print", action="store_true", help="show the result and keep nothing")
    asked = options.parse_args()
    machine = describe()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(asked.threads)
    sizes = SIZES[device] | ({"steps": asked.steps} if asked.steps else {})
    there = [name for name in SAMPLERS if any(name == registry.word_for(plugin) for plugin in registry.plugins("sampler"))]
    same = "bf16" if engine.has_bf16(torch.device(device)) else "fp32"
    found: dict[str, Any] = {"sizes": sizes | {"pictures": COUNT}, "rounds": asked.rounds, "precision_of_equal": same}
    found["threads"] = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(Path(folder), sizes)
        models = {name: api.load(run, device=device, precision=name) for name in dict.fromkeys(["auto", same, "fp32"])}
        for model in models.values():
            fill(model.network.denoiser)
        peers = {name: peer_of(models["fp32"], sizes, name).to(device) for name in dict.fromkeys(["fp32", same])}
        found["apart"] = {"ddim": apart(models["fp32"], peers["fp32"], sizes)}
        for name in there:
            sides = {
                "defaults": (ours(models["auto"], name, sizes, {}), theirs(peers["fp32"], name, sizes)),
                "equal": (ours(models[same], name, sizes, {"batch": COUNT}), theirs(peers[same], name, sizes)),
            }
            found[name] = {line: in_turn(line, *pair, rounds=asked.rounds) for line, pair in sides.items()}
    found["left_out"] = [name for name in SAMPLERS if name not in there]
    if asked.print:
        print(json.dumps(found, indent=2))
    else:
        keep("sampling_speed", found, machine)


# -- what both get -----------------------------------------------------------------


def prepare(folder: Path, sizes: dict[str, Any]) -> Path:
    """A run folder of one step with the U-Net that both have, under diffusers' linear betas."""
    make(folder, latent=tuple(sizes["latent"]), count=16)
    config = {
        "denoiser": {"type": "unet", "widths": sizes["widths"], "layers": sizes["layers"], "head_dim": 8, "norm_groups": 32},
        "conditioner": None,
        "schedule": {"type": "linear"},
        "prediction": "eps",
        "preview": {"count": 1, "steps": 1},
        "loop": {"steps": 1, "batch": 8},
    }
    (folder / "ours.yaml").write_text(json.dumps(config))
    ldmctl("fit-diffusion", "--config", "ours.yaml", "--latents", "cache", "--out", "run", "-q", cwd=folder)
    return folder / "run"


@torch.no_grad()
def fill(network: nn.Module) -> None:
    """The same small weights where a young network has zeros, which would hide all that is before them."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if not parameter.any():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)


def peer_of(model: Model, sizes: dict[str, Any], precision: str) -> UNet2DModel:
    """diffusers' U-Net with our weights."""
    peer = unet_of(sizes["latent"], sizes["widths"], sizes["layers"])
    peer.load_state_dict(model.network.denoiser.state_dict())
    return peer.to(torch.bfloat16 if precision == "bf16" else torch.float32).eval().requires_grad_(False)


@torch.no_grad()
def apart(model: Model, peer: UNet2DModel, sizes: dict[str, Any]) -> float:
    """The largest difference of latents that both make of the same noise by DDIM, over the largest value; too much ends this."""
    device = model.engine.device
    noise = torch.randn(4, *sizes["latent"], generator=torch.Generator().manual_seed(0)).to(device)
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(sizes["steps"])
    x = noise
    for t in scheduler.timesteps:
        x = scheduler.step(peer(x, t).sample, t, x).prev_sample
    _, sigmas = levels(model.schedule, sizes["steps"], "trailing")
    denoise = Denoise(model.network.denoiser, model.schedule, "eps")
    own = registry.build("sampler", plugin_config("sampler", {"type": "ddim"}))(denoise, start(noise, sigmas), sigmas, None)
    difference = ((own - x).abs().max() / x.abs().max()).item()
    if difference > TOLERANCE:
        raise SystemExit(f"The two samplers do not agree: relative difference {difference}.")
    return difference


# -- the two sides -----------------------------------------------------------------


Side = Callable[[], dict[str, float]]


def ours(model: Model, name: str, sizes: dict[str, Any], keys: dict[str, Any]) -> Side:
    """64 pictures by a loaded model, from the seeds on."""

    def go() -> dict[str, float]:
        with timed(model.network.denoiser) as spent:
            model.sample(COUNT, sampler=name, steps=sizes["steps"], spacing="trailing", **keys)
        return spent

    return go


def theirs(peer: UNet2DModel, name: str, sizes: dict[str, Any]) -> Side:
    """64 pictures by DDIMPipeline, or by its loop with the other scheduler."""
    pipeline = DDIMPipeline(peer, DDIMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(peer.device)

    def go() -> dict[str, float]:
        generator = torch.Generator(peer.device).manual_seed(0)
        with timed(peer) as spent:
            if name == "ddim" and peer.dtype == torch.float32:  # in bf16 the pipeline cannot hand out its pictures
                pipeline(batch_size=COUNT, generator=generator, num_inference_steps=sizes["steps"])
            else:
                pipeline.numpy_to_pil(looped(peer, SAMPLERS[name](), sizes, generator).float().permute(0, 2, 3, 1).cpu().numpy())
        return spent

    return go


@torch.no_grad()
def looped(peer: UNet2DModel, scheduler: Any, sizes: dict[str, Any], generator: torch.Generator) -> Tensor:
    """The loop of DDIMPipeline with any scheduler -> pictures in [0, 1]."""
    scheduler.set_timesteps(sizes["steps"], device=peer.device)
    x = torch.randn(COUNT, *sizes["latent"], generator=generator, device=peer.device, dtype=peer.dtype)
    for t in scheduler.timesteps:
        x = scheduler.step(peer(scheduler.scale_model_input(x, t), t).sample, t, x).prev_sample
    return (x / 2 + 0.5).clamp(0, 1)


@contextmanager
def timed(network: nn.Module) -> Iterator[dict[str, float]]:
    """Seconds of what happens meanwhile, and those in which the network ran."""
    spent, began = {"seconds": 0.0, "network": 0.0}, [0.0]

    def enter(*_: object) -> None:
        began[0] = now()

    def leave(*_: object) -> None:
        spent["network"] += now() - began[0]

    hooks = [network.register_forward_pre_hook(enter), network.register_forward_hook(leave)]
    first = now()
    try:
        yield spent
    finally:
        spent["seconds"] = now() - first
        for hook in hooks:
            hook.remove()


def now() -> float:
    """Seconds, when the device has done what it was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def in_turn(line: str, own: Side, other: Side, *, rounds: int) -> dict[str, Any]:
    """Both sides once without being counted, then in turn; -> medians, and the ratio of each pair."""
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
    for number in range(rounds + 1):
        pair = {"ours": own, "theirs": other}
        for name in list(pair) if number % 2 else list(pair)[::-1]:
            runs[name].append(pair[name]())
        print(f"{line} {number}: {runs['ours'][-1]['seconds']:.3f} s, {runs['theirs'][-1]['seconds']:.3f} s", file=sys.stderr)
    counted = {name: done[1:] for name, done in runs.items()}
    ratios = [theirs["seconds"] / ours["seconds"] for ours, theirs in zip(counted["ours"], counted["theirs"], strict=True)]
    out: dict[str, Any] = {
        name: {
            "seconds_per_picture": round(statistics.median(run["seconds"] for run in done) / COUNT, 5),
            "outside_percent": round(100 * statistics.median(1 - run["network"] / run["seconds"] for run in done), 2),
        }
        for name, done in counted.items()
    }
    return out | {"times_faster": round(statistics.median(ratios), 3), "pairs": [round(ratio, 3) for ratio in ratios]}


if __name__ == "__main__":
    main()
