"""A whole training step with captions, as ldmctl takes it and as diffusers' train_text_to_image does, on the same U-Net weights.

python benchmarks/text_loop.py              # three minutes on two cores; writes results/text_loop.json
python benchmarks/text_loop.py --rounds 3 --print

Both learn the noise in latents of 128x128 pictures from captions of 6 to 24 tokens, in float32 on a CPU and in bf16 on CUDA, with AdamW and clipped
gradients. What differs is what their loops do in each step:

theirs      encodes the pictures by the autoencoder and the captions, padded to 77, by the text encoder; no average of weights
ours        reads moments and the tokens of captions that were kept, padded to the longest of the batch and masked, and averages weights
ours_live   the same, with the text encoder run over each batch of captions in place of the kept tokens

The autoencoder (AutoencoderKL, factor 8) and the text encoder (CLIPTextModel) are small, so that on a CPU encoding a picture takes a fifth of what the
U-Net's forward and backward take; `gflop` says it for each. All of it is timed in turn, in an order that changes every round; `times_faster`
is the median of the rounds' ratios to theirs.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from machine import describe, keep
from text_step import LONGEST, PADDED, SIZES, networks
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ldmctl import registry
from ldmctl.config.resolve import plugin_config
from ldmctl.config.schemas.shared import Loop
from ldmctl.diffusion.process import draw_times, noised, timestep
from ldmctl.latents.prepared import padded
from ldmctl.protocols import Condition
from ldmctl.training.engine import Engine
from ldmctl.training.learner import Learner

WARMUP = 2  # rounds that are not counted
ITEMS = 256
WORDS = 1000  # of the tokenizer
SCALE = 0.18215


def main() -> None:
    """Measure, write."""
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--print", action="store_true", help="show the result and keep nothing")
    asked = options.parse_args()
    machine = describe()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    steps, sizes = sides(device)
    seconds: dict[str, list[float]] = {side: [] for side in steps}
    for number in range(WARMUP + asked.rounds):
        order = list(steps) if number % 2 else list(steps)[::-1]
        for side in order:
            began = time.perf_counter()
            steps[side](number)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number >= WARMUP:
                seconds[side].append(time.perf_counter() - began)
    found = {"rounds": asked.rounds, "precision": "bf16" if device.type == "cuda" else "fp32", **sizes}
    found["seconds_per_step"] = {side: round(statistics.median(each), 4) for side, each in seconds.items()}
    found["times_faster"] = {
        side: round(statistics.median(slow / fast for slow, fast in zip(seconds["theirs"], seconds[side], strict=True)), 3)
        for side in ("ours", "ours_live")
    }
    if asked.print:
        print(json.dumps(found, indent=2))
    else:
        keep("text_loop", found, machine)


def sides(device: torch.device) -> tuple[dict[str, Callable[[int], None]], dict[str, Any]]:
    """A function that takes one step, for each side; and what is said of their sizes."""
    from diffusers import AutoencoderKL, DDPMScheduler
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = SIZES[device.type]
    batch, dim = sizes["batch"], sizes["token_dim"]
    unet, peer = networks(sizes)
    widths, depth, groups = ((16, 32, 64, 64), 1, 8) if device.type == "cpu" else ((128, 256, 512, 512), 2, 32)
    kinds = (["DownEncoderBlock2D"] * 4, ["UpDecoderBlock2D"] * 4)
    vae = (
        AutoencoderKL(3, 3, *kinds, widths, layers_per_block=depth, latent_channels=4, norm_num_groups=groups)
        .to(device)
        .eval()
        .requires_grad_(False)
    )
    layers = 4 if device.type == "cpu" else 12
    shape = CLIPTextConfig(
        vocab_size=WORDS, hidden_size=dim, intermediate_size=4 * dim, num_hidden_layers=layers, num_attention_heads=dim // 64
    )
    encoder = CLIPTextModel(shape).to(device).eval().requires_grad_(False)

    pictures = torch.randint(0, 256, (ITEMS, 3, 8 * sizes["latent"][1], 8 * sizes["latent"][2]), dtype=torch.uint8)
    counts = torch.randint(6, LONGEST + 1, (ITEMS,))
    ids = [torch.randint(WORDS, (int(count),)) for count in counts]
    with torch.no_grad():
        moments = torch.cat([vae.encode(scaled(part, device)).latent_dist.parameters.cpu() for part in pictures.split(16)]).half()
        kept = [{"tokens": encoder(each[None].to(device)).last_hidden_state[0].cpu().half()} for each in ids]

    noise = DDPMScheduler(1000, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    peer.to(device).train()
    optimizer = torch.optim.AdamW(peer.parameters(), lr=1e-4)

    def rows(number: int) -> Tensor:
        return torch.arange(number * batch, (number + 1) * batch) % ITEMS

    def cast() -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")

    def theirs(number: int) -> None:
        with cast():
            clean = vae.encode(scaled(pictures[rows(number)], device)).latent_dist.sample() * SCALE
            e = torch.randn_like(clean)
            t = torch.randint(1000, (batch,), device=device)
            long = torch.stack([nn.functional.pad(ids[row], (0, PADDED - len(ids[row]))) for row in rows(number).tolist()]).to(device)
            tokens = encoder(long).last_hidden_state
            said = peer(noise.add_noise(clean, e, t), t, tokens).sample
        nn.functional.mse_loss(said.float(), e.float()).backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    schedule = registry.build("schedule", plugin_config("schedule", {"type": "scaled-linear"}))
    learner = Learner(
        unet.to(device).train(),
        Loop(steps=10**6, batch=batch, lr=1e-4),
        Engine(device, torch.bfloat16 if device.type == "cuda" else torch.float32),
    )

    def own(number: int, *, live: bool) -> None:
        here = rows(number)
        mean, log = moments[here].to(device).float().chunk(2, dim=1)
        clean = (mean + (0.5 * log.clamp(-30, 20)).exp() * torch.randn_like(mean)) * SCALE
        if live:
            texts = padded([{"ids": ids[row]} for row in here.tolist()])
            with torch.no_grad(), cast():
                mask = texts["mask"].to(device)
                tokens = encoder(texts["ids"].to(device), attention_mask=mask.long()).last_hidden_state
        else:
            texts = padded([kept[row] for row in here.tolist()])
            tokens, mask = texts["tokens"].to(device).float(), texts["mask"].to(device)
        t = draw_times(schedule, torch.rand(batch, device=device))
        e = torch.randn_like(clean)
        with learner.backward_context(last=True):
            with cast():
                said = learner.network(noised(schedule, clean, e, t), timestep(schedule, t), Condition(tokens=tokens, mask=mask))
            (said.float() - e).square().mean().backward()
        learner.update(number)
        learner.track(number)

    parameters = {
        name: sum(value.numel() for value in each.parameters())
        for name, each in (("unet", unet), ("autoencoder", vae), ("text_encoder", encoder))
    }
    steps = {"theirs": theirs, "ours": lambda number: own(number, live=False), "ours_live": lambda number: own(number, live=True)}
    one, long = torch.zeros(1, *sizes["latent"], device=device), torch.zeros(1, PADDED, dtype=torch.long, device=device)
    gflop = {
        "unet_forward_backward": 3
        * gflop_of(lambda: unet(one, one.new_zeros(1), Condition(tokens=torch.zeros(1, PADDED, dim, device=device)))),
        "autoencoder_encode": gflop_of(lambda: vae.encode(scaled(pictures[:1], device))),
        "text_encoder": gflop_of(lambda: encoder(long)),
    }
    return steps, {"sizes": sizes, "parameters": parameters, "gflop": {name: round(value, 3) for name, value in gflop.items()}}


def gflop_of(work: Callable[[], Any]) -> float:
    """Floating-point operations of a forward, in thousands of millions."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return counter.get_total_flops() / 1e9


def scaled(pictures: Tensor, device: torch.device) -> Tensor:
    """uint8 -> float32 in [-1, 1] on the device."""
    return pictures.to(device).float() / 127.5 - 1


if __name__ == "__main__":
    main()
