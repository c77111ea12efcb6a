"""One training step of a U-Net on cached latents, ours beside the same U-Net in the loop of diffusers' train_unconditional example.

python benchmarks/denoiser_step.py              # a quarter of an hour on two cores; writes results/denoiser_step.json
python benchmarks/denoiser_step.py --rounds 1 --steps 6 --report 1 --print   # only a look

A step is everything between two updates: reading the batch, noise, forward, backward, clipping, AdamW and the moving average. Ours is the command
`ldmctl fit-diffusion` as it is, on a cache of latents of random pixels (their autoencoder is `identity`, so neither side draws posteriors); its time is that
of metrics.jsonl without the first report and the last. Theirs is benchmarks/diffusers_unet_step.py with the same latents and, to begin with, the
same weights; before anything is timed, prediction and gradient of the two networks are compared. Three lines for each batch size:

defaults  each as it comes on this device: ours in automatic precision, compiled where that is the default, theirs in float32
eager     both in bf16 where the hardware has it, else float32, neither compiled, both predicting noise under the same betas
compiled  ours with machine.compile=true over ours without

Every side runs in a process of its own, in turn, round after round. A time is the median of the rounds' medians.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from machine import describe, keep
from process import command, script
from random_cache import make
from rounds import rates, refuse_few, summary
from safetensors.torch import load_file, save_file
from torch import Tensor

from ldmctl.config.resolve import plugin_config
from ldmctl.config.schemas.fit_diffusion import FitDiffusion
from ldmctl.diffusion.network import build_network, describe_network
from ldmctl.training import engine, order

SIZES: dict[str, dict[str, Any]] = {
    "cpu": {"latent": [3, 8, 8], "widths": [64, 128], "layers": 2, "latents": 4096, "steps": 60, "report": 2},
    "cuda": {"latent": [4, 32, 32], "widths": [128, 256, 384, 512], "layers": 2, "latents": 16384, "steps": 240, "report": 20},
}
BATCHES = (16, 64)
LINES = {"defaults": ("ours", "theirs"), "eager": ("ours_eager", "theirs_eager"), "compiled": ("ours_compiled", "ours_eager")}
TOLERANCE = 1e-4  # of the largest value, between two predictions or gradients
COMPILES = "compile" in FitDiffusion.model_fields["machine"].annotation.model_fields  # whether this ldmctl has machine.compile


def main() -> None:
    """Prepare the files, compare the networks, measure, write."""
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--steps", type=int, help="of one run; by default as many as suit the device")
    options.add_argument("--report", type=int, help="steps between times")
    options.add_argument("--print", action="store_true", help="show the result and keep nothing")
    asked = options.parse_args()
    machine = describe()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = SIZES[device] | {key: value for key in ("steps", "report") if (value := getattr(asked, key))}
    refuse_few(sizes["steps"], sizes["report"])
    with tempfile.TemporaryDirectory() as folder:
        work = sizes | {"device": device, "folder": Path(folder)}
        agreement = same_network(work)
        prepare(work)
        found = {"sizes": sizes, "rounds": asked.rounds, "precision": precision(device), "networks": agreement}
        found |= {"batches": {str(batch): compared(work, batch, asked.rounds) for batch in BATCHES}}
    if asked.print:
        print(json.dumps(found, indent=2))
    else:
        keep("denoiser_step", found, machine)


def precision(device: str) -> str:
    """Of the lines in which both sides have the same."""
    return "bf16" if engine.has_bf16(torch.device(device)) else "fp32"


def sides(device: str) -> dict[str, dict[str, Any]]:
    """What runs: side -> its settings. A side without `keys` is theirs."""
    same = {"schedule": {"type": "linear"}, "prediction": "eps"}
    out: dict[str, dict[str, Any]] = {
        "ours": {"precision": "auto", "keys": {}},
        "theirs": {"precision": "fp32"},
        "ours_eager": {"precision": precision(device), "keys": same, **({"compile": False} if COMPILES else {})},
        "theirs_eager": {"precision": precision(device)},
    }
    if COMPILES:
        out["ours_compiled"] = {"precision": precision(device), "keys": same, "compile": True}
    return out


def compared(work: dict[str, Any], batch: int, rounds: int) -> dict[str, Any]:
    """Each side once per round, in turn; then medians, and for each line how many times faster the first of its sides is."""
    settings = sides(work["device"])
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in settings}
    for number in range(rounds):
        for side, done in runs.items():
            done.append((ours if "keys" in settings[side] else theirs)(work, batch, settings[side]))
            print(f"round {number + 1}: batch {batch}: {side}: {statistics.median(done[-1]['seconds']):.4f} s", file=sys.stderr)
    out: dict[str, Any] = {side: summary(done, batch) for side, done in runs.items()}
    out["times_faster"] = {
        line: round(out[other]["seconds_per_step"] / out[side]["seconds_per_step"], 3)
        for line, (side, other) in LINES.items()
        if side in out
    }
    if not COMPILES:
        out["times_faster"]["compiled"] = "skipped: this ldmctl has no key machine.compile"
    return out


# -- what both get -----------------------------------------------------------------


def same_network(work: dict[str, Any]) -> dict[str, Any]:
    """Prediction and gradient of both networks with the same weights; they must agree. Leaves the weights that a run begins with in unet.safetensors."""
    from diffusers_unet_step import unet_of

    config = plugin_config("denoiser", denoiser(work))
    order.reseed("weights", 0, "denoiser")
    own = build_network(describe_network(config, None, latent=tuple(work["latent"]), classes=[])).denoiser
    save_file({name: value.clone() for name, value in own.state_dict().items()}, work["folder"] / "unet.safetensors")
    for parameter in own.parameters():
        if not parameter.any():  # what begins at zero would hide all that is before it
            torch.nn.init.normal_(parameter, std=0.02)
    peer = unet_of(work["latent"], work["widths"], work["layers"])
    peer.load_state_dict(own.state_dict())

    x, t = torch.randn(2, *work["latent"]), torch.tensor([10.0, 900.0])
    pair = own(x, t), peer(x, t).sample
    for prediction in pair:
        prediction.square().mean().backward()
    theirs = dict(peer.named_parameters())
    apart = {
        "prediction": apart_by(*pair),
        "gradient": max(
            apart_by(value.grad, theirs[name].grad) for name, value in own.named_parameters() if not name.endswith("to_k.bias")
        ),
    }
    if max(apart.values()) > TOLERANCE:
        raise SystemExit(f"The two networks do not agree: relative differences {apart}.")
    return {"parameters": sum(parameter.numel() for parameter in own.parameters()), "apart": apart}


def apart_by(one: Tensor, other: Tensor) -> float:
    """The largest difference of two tensors over the largest value."""
    return ((one - other).abs().max() / other.abs().max()).item()


def denoiser(work: dict[str, Any]) -> dict[str, Any]:
    """Our U-Net of the architecture that both have, spelled out: what is left open follows the latents."""
    return {"type": "unet", "widths": work["widths"], "layers": work["layers"], "head_dim": 8, "norm_groups": 32}


def prepare(work: dict[str, Any]) -> None:
    """The cache, and its training latents as whitened float32 in latents.safetensors."""
    cache = make(work["folder"], latent=tuple(work["latent"]), count=work["latents"])
    statistics_of = json.loads((cache / "latents.json").read_text())["statistics"]
    mean, deviation = (torch.tensor(statistics_of[name]).view(-1, 1, 1) for name in ("mean", "deviation"))
    rows = [load_file(shard)["moments"].float() for shard in sorted(cache.glob("train-*.safetensors"))]
    save_file({"latents": (torch.cat(rows) - mean) / deviation}, work["folder"] / "latents.safetensors")


# -- the two sides -----------------------------------------------------------------


def ours(work: dict[str, Any], batch: int, settings: dict[str, Any]) -> dict[str, Any]:
    """`ldmctl fit-diffusion`: seconds of a step in each report, and memory."""
    loop = {"steps": work["steps"], "batch": batch, "report": work["report"], "save": 10**6, "preview": 10**6}
    chosen = {"device": work["device"], "precision": settings["precision"]}
    config = {
        "denoiser": denoiser(work),
        "conditioner": None,
        "preview": {"count": 1, "steps": 1},
        "loop": loop,
        "machine": chosen | {key: settings[key] for key in ("compile",) if key in settings},
        **settings["keys"],
    }
    folder = work["folder"]
    (folder / "ours.yaml").write_text(json.dumps(config))
    ran = command("fit-diffusion", "--config", "ours.yaml", "--latents", "cache", "--out", "run", "--overwrite", "-q", cwd=folder)
    return {"seconds": [batch / rate for rate in rates(folder / "run")], **{name: ran[name] for name in ("resident_mib", "device_mib")}}


def theirs(work: dict[str, Any], batch: int, settings: dict[str, Any]) -> dict[str, Any]:
    """The loop of the example: seconds of a step in each report, and memory."""
    given = {name: work[name] for name in ("latent", "widths", "layers", "device", "steps", "report")}
    given |= {"batch": batch, "precision": settings["precision"]}
    given |= {name: str(work["folder"] / f"{file}.safetensors") for name, file in (("weights", "unet"), ("latents", "latents"))}
    return script(Path(__file__).with_name("diffusers_unet_step.py"), json.dumps(given))


if __name__ == "__main__":
    main()
