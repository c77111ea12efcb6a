"""Forward and backward of a U-Net that listens to tokens, ours beside diffusers' UNet2DConditionModel with the same weights.

python benchmarks/text_step.py              # two minutes on two cores; writes results/text_step.json
python benchmarks/text_step.py --rounds 3 --print   # only a look

A step here is what the network takes of a training step: forward, the mean squared error, backward. Both networks stand in one process and take turns,
step by step and line by line, in an order that changes every round, in float32 on a CPU and under autocast to bf16 on CUDA, not compiled. Before anything is timed,
their predictions and gradients are compared. Three lines:

whole     77 tokens that all count, and no mask, as diffusers' train_text_to_image gives CLIP's
masked    77 tokens of which 4 to 24 count, with a mask, on both sides
ragged    ours padded to the longest caption of the batch, 24 tokens, theirs to 77, both masked: the same prediction

A time is the median of the rounds, `times_faster` the median of the rounds' ratios.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from machine import describe, keep
from torch import Tensor, nn

from ldmctl import registry
from ldmctl.protocols import Condition

SIZES: dict[str, dict[str, Any]] = {
    "cpu": {"latent": [4, 16, 16], "widths": [64, 128], "layers": 2, "head_dim": 32, "token_dim": 128, "batch": 16},
    "cuda": {"latent": [4, 32, 32], "widths": [128, 256, 384, 512], "layers": 2, "head_dim": 64, "token_dim": 768, "batch": 64},
}
PADDED, LONGEST = 77, 24
WARMUP = 2  # rounds that are not counted
TOLERANCE = 1e-4  # of the largest value, between two predictions or gradients


def main() -> None:
    """Compare the networks, measure, write."""
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--print", action="store_true", help="show the result and keep nothing")
    asked = options.parse_args()
    machine = describe()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = SIZES[device.type]
    torch.manual_seed(0)
    ours, theirs = networks(sizes)
    found = {"sizes": sizes, "rounds": asked.rounds, "precision": "bf16" if device.type == "cuda" else "fp32"}
    found |= {"parameters": sum(value.numel() for value in ours.parameters()), "apart": apart(ours, theirs, sizes)}
    ours.to(device).train(), theirs.to(device).train()
    found |= timed(ours, theirs, lines(sizes, device), sizes["latent"], asked.rounds)
    if asked.print:
        print(json.dumps(found, indent=2))
    else:
        keep("text_step", found, machine)


def networks(sizes: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    """Both with the weights that theirs begins with, which is nowhere zero: attention at all resolutions but the first."""
    from diffusers import UNet2DConditionModel

    widths, attended = sizes["widths"], len(sizes["widths"]) - 1
    theirs = UNet2DConditionModel(
        sample_size=sizes["latent"][-1],
        in_channels=sizes["latent"][0],
        out_channels=sizes["latent"][0],
        block_out_channels=tuple(widths),
        layers_per_block=sizes["layers"],
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * attended),
        up_block_types=(*["CrossAttnUpBlock2D"] * attended, "UpBlock2D"),
        cross_attention_dim=sizes["token_dim"],
        attention_head_dim=tuple(width // sizes["head_dim"] for width in widths),  # which is their number
        use_linear_projection=True,
    )
    unet = registry.load("denoiser", "unet")
    config = unet.Config(type="unet", widths=widths, layers=sizes["layers"], head_dim=sizes["head_dim"])
    channels, *size = sizes["latent"]
    ours = unet(config, channels=channels, size=tuple(size), token_dim=sizes["token_dim"])
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def lines(sizes: dict[str, Any], device: torch.device) -> dict[str, tuple[Condition, Condition]]:
    """What each line tells (ours, theirs)."""
    batch = sizes["batch"]
    tokens = torch.randn(batch, PADDED, sizes["token_dim"], device=device)
    counts = torch.linspace(4, LONGEST, batch, device=device).round()
    mask = torch.arange(PADDED, device=device) < counts[:, None]
    whole, masked = Condition(tokens=tokens), Condition(tokens=tokens, mask=mask)
    return {
        "whole": (whole, whole),
        "masked": (masked, masked),
        "ragged": (Condition(tokens=tokens[:, :LONGEST], mask=mask[:, :LONGEST]), masked),
    }


def predicted(network: nn.Module, x: Tensor, t: Tensor, told: Condition) -> Tensor:
    """What one of the two says, asked in its own way."""
    if hasattr(network, "token_dim"):
        return network(x, t, told)
    return network(x, t, told.tokens, encoder_attention_mask=told.mask).sample


def apart(ours: nn.Module, theirs: nn.Module, sizes: dict[str, Any]) -> dict[str, float]:
    """The largest differences of predictions and of gradients, over the largest value, over all lines; they must agree."""
    x, t = torch.randn(sizes["batch"], *sizes["latent"]), torch.linspace(0, 999, sizes["batch"])
    out = {"prediction": 0.0, "gradient": 0.0}
    for pair in lines(sizes, torch.device("cpu")).values():
        seen = []
        for network, told in zip((ours, theirs), pair, strict=True):
            network.zero_grad()
            said = predicted(network, x, t, told)
            said.square().mean().backward()
            seen.append((said.detach(), {name: value.grad.clone() for name, value in network.named_parameters()}))
        (one, own), (other, peer) = seen
        out["prediction"] = max(out["prediction"], ((one - other).abs().max() / other.abs().max()).item())
        largest = max(value.abs().max() for value in peer.values())
        out["gradient"] = max(out["gradient"], *(((own[name] - peer[name]).abs().max() / largest).item() for name in own))
    if max(out.values()) > TOLERANCE:
        raise SystemExit(f"The two networks do not agree: relative differences {out}.")
    return out


def timed(
    ours: nn.Module, theirs: nn.Module, told: dict[str, tuple[Condition, Condition]], shape: list[int], rounds: int
) -> dict[str, Any]:
    """Of each line the seconds of a step of both sides, and how many times faster ours is."""
    tokens = next(iter(told.values()))[0].tokens
    assert tokens is not None
    x, goal = torch.randn(2, len(tokens), *shape, device=tokens.device)
    t = torch.randint(1000, (len(tokens),), device=tokens.device)
    steps = {
        line: [stepper(network, x, t, goal, each) for network, each in zip((ours, theirs), pair, strict=True)]
        for line, pair in told.items()
    }
    seconds: dict[str, tuple[list[float], list[float]]] = {line: ([], []) for line in told}
    for number in range(WARMUP + rounds):
        for line, pair in steps.items():
            for side in (0, 1) if number % 2 else (1, 0):
                taken = pair[side]()
                if number >= WARMUP:
                    seconds[line][side].append(taken)
    return {
        line: {
            "ours_seconds": round(statistics.median(own), 5),
            "theirs_seconds": round(statistics.median(other), 5),
            "times_faster": round(statistics.median(slow / fast for fast, slow in zip(own, other, strict=True)), 3),
        }
        for line, (own, other) in seconds.items()
    }


def stepper(network: nn.Module, x: Tensor, t: Tensor, goal: Tensor, told: Condition) -> Callable[[], float]:
    """A function that makes one step and says how many seconds it took."""

    def step() -> float:
        began = time.perf_counter()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda):
            said = predicted(network, x, t, told)
        (said.float() - goal).square().mean().backward()
        network.zero_grad()
        if x.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    return step


if __name__ == "__main__":
    main()
