"""What benchmarks/mnist.py is compared with: a plain transformer in plain torch on the same cached latents, for as many minutes.

python benchmarks/plain_recipe.py CACHE OUT --minutes M [--guidance 2] [--count 5000] [--seed 0]

A transformer of width 192 and depth 6, one token per pixel of the latent, told time and class by shift and scale (adaLN of
arXiv:2212.09748): 3.6M parameters on MNIST. Flow matching with logit-normal times (arXiv:2403.03206), batch 128, AdamW 1e-3, class dropped
one time in ten, an average of the weights of 0.999, 50 Euler steps, guidance (arXiv:2207.12598), decoded by the cache's own autoencoder.
The minutes are those of training; sampling comes after.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ldmctl.config.schemas.shared import Compute
from ldmctl.latents import manifest as manifests
from ldmctl.latents.codec import Codec, load_autoencoder
from ldmctl.latents.reader import open_latents
from ldmctl.pictures.images import to_uint8
from ldmctl.pictures.png import write_png
from ldmctl.training import engine as engines
from ldmctl.training import order

WIDTH, DEPTH, HEADS = 192, 6, 6
BATCH, RATE, DROP, AVERAGE = 128, 1e-3, 0.1, 0.999
STEPS = 50  # of Euler's method
CHUNK = 250  # pictures per forward


class Block(nn.Module):
    """Attention and a perceptron, each behind a norm that the condition shifts and scales."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.perceptron = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(approximate="tanh"), nn.Linear(4 * WIDTH, WIDTH))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 4 * WIDTH))
        nn.init.zeros_(self.modulation[1].weight)
        nn.init.zeros_(self.modulation[1].bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens [B,n,WIDTH] and condition [B,WIDTH] -> tokens."""
        shift, scale, shift_two, scale_two = self.modulation(condition)[:, None].chunk(4, dim=2)
        x = x + self.attend(self.norm(x) * (1 + scale) + shift)
        return x + self.perceptron(self.norm(x) * (1 + scale_two) + shift_two)

    def attend(self, x: Tensor) -> Tensor:
        """Self-attention over tokens [B,n,WIDTH]; in float32 on a CPU, where bf16 is several times slower for few tokens."""
        qkv = self.qkv(x).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        with torch.autocast("cpu", enabled=False):
            q, k, v = (qkv.float() if qkv.device.type == "cpu" else qkv).unbind(0)
            mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """The velocity of latents [B,c,h,w] at times t [B], given classes [B]; class `classes` means none."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.shape = (height, width)
        self.into, self.back = nn.Linear(channels, WIDTH), nn.Linear(WIDTH, channels)
        self.position = nn.Parameter(0.02 * torch.randn(height * width, WIDTH))
        self.time = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.label = nn.Embedding(classes + 1, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH)
        nn.init.zeros_(self.back.weight)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """-> velocity [B,c,h,w]."""
        condition = self.time(waves(t)) + self.label(label)
        tokens = self.into(x.flatten(2).transpose(1, 2)) + self.position
        for block in self.blocks:
            tokens = block(tokens, condition)
        return self.back(self.norm(tokens)).transpose(1, 2).unflatten(2, self.shape)


def waves(t: Tensor) -> Tensor:
    """Cosines and sines [B,WIDTH] of 1000 t at WIDTH / 2 frequencies from 1 to 1/10000."""
    rates = torch.exp(-math.log(1e4) * torch.arange(WIDTH // 2, device=t.device) / (WIDTH // 2))
    angles = 1000 * t[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def train(network: Transformer, latents: Tensor, labels: Tensor, minutes: float, engine: engines.Engine) -> tuple[nn.Module, int]:
    """(the averaged network, steps taken) after so many minutes on whitened latents [N,c,h,w] with labels [N]."""
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE))
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, fused=engine.device.type in ("cpu", "cuda"))
    none = network.label.num_embeddings - 1
    ends, steps = time.perf_counter() + 60 * minutes, 0
    while time.perf_counter() < ends:
        rows = torch.randint(len(latents), (BATCH,), device=engine.device)
        clean, noise = latents[rows], torch.randn(BATCH, *latents.shape[1:], device=engine.device)
        t = torch.randn(BATCH, device=engine.device).sigmoid()
        given = torch.where(torch.rand(BATCH, device=engine.device) < DROP, none, labels[rows])
        with engine.autocast():
            said = network(torch.lerp(clean, noise, t.view(-1, 1, 1, 1)), t, given)
        F.mse_loss(said.float(), noise - clean).backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(network)
        steps += 1
    return average.module.eval(), steps


@torch.no_grad()
def sample(network: nn.Module, noise: Tensor, labels: Tensor, none: int, guidance: float, engine: engines.Engine) -> Tensor:
    """Latents [B,c,h,w] from standard normal noise by Euler's method, from t = 1 to t = 0."""
    x, twice = noise, torch.cat([labels, torch.full_like(labels, none)])
    for step in range(STEPS, 0, -1):
        t = torch.full((len(twice),), step / STEPS, device=x.device)
        with engine.autocast():
            with_class, without = network(torch.cat([x, x]), t, twice).float().chunk(2)
        x = x - (without + guidance * (with_class - without)) / STEPS
    return x


def write_samples(network: nn.Module, codec: Codec, shape: tuple[int, ...], size: int, classes: list[str], out: Path, asked: Any) -> None:
    """`asked.count` pictures, the classes in turn, each named by its number and with its class in its PNG text."""
    device = codec.engine.device
    for first in range(0, asked.count, CHUNK):
        numbers = torch.arange(first, min(first + CHUNK, asked.count))
        noise = torch.randn(len(numbers), *shape, generator=order.generator("cpu", "plain", asked.seed, first)).to(device)
        labels = (numbers % len(classes)).to(device)
        latent = sample(network, noise, labels, len(classes), asked.guidance, codec.engine)
        for number, picture in zip(numbers.tolist(), to_uint8(codec.decode(latent, (size, size))).cpu(), strict=True):
            write_png(out / f"{number:06d}.png", picture, {"label": classes[number % len(classes)]})


def run(cache: Path, out: Path, asked: Any) -> dict[str, Any]:
    """Train and sample -> what it took."""
    began = time.perf_counter()
    engine = engines.start(Compute(device=asked.device))
    manifest = manifests.read(cache)
    codec = Codec(load_autoencoder(cache / "autoencoder.safetensors", engine)[0], engine, manifest.statistics)
    held = open_latents(cache, manifest, "train")
    torch.manual_seed(asked.seed)
    stored = held.stored(torch.arange(len(held))).to(engine.device)
    latents = codec.whiten(codec.draw(stored, order.generator(engine.device, "plain", asked.seed)))
    network = Transformer(manifest.latent, len(manifest.classes)).to(engine.device)
    averaged, steps = train(network, latents, held.labels.to(engine.device), asked.minutes, engine)
    trained = time.perf_counter()
    write_samples(averaged, codec, manifest.latent, int(manifest.image["size"]), manifest.classes, out, asked)
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "training_minutes": round((trained - began) / 60, 2),
        "training_steps": steps,
        "sampling_minutes": round((time.perf_counter() - trained) / 60, 2),
        "guidance": asked.guidance,
    }


def main() -> None:
    """Run it and print what it took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    print(json.dumps(run(asked.cache, asked.out, asked)))


if __name__ == "__main__":
    main()
