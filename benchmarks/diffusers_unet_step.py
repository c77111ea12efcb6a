"""The step that benchmarks/denoiser_step.py compares with: diffusers' UNet2DModel in the loop of its train_unconditional example.

What that script does to a batch, in its order and with its defaults: a DataLoader in the main process, DDPMScheduler.add_noise, the mean squared error
of the predicted noise, clipping to 1, AdamW, the cosine learning rate, an EMAModel that warms up, the loss read for the log after every step. Left out
are accelerate, which on one device adds only the autocast that stands here, and the progress bar and the tracker. Its pictures are latents, whitened
beforehand and held in memory. bf16 is what `--mixed_precision bf16` is there: autocast, and pictures in bf16.

python benchmarks/diffusers_unet_step.py '{"weights": "unet.safetensors", "latents": "latents.safetensors", ...}'   # prints one JSON object
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from process import memory
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class CachedLatents(Dataset):
    """Whitened latents [N,c,h,w] of a file, one by one under the name that the script reads."""

    def __init__(self, path: str):
        self.latents = load_file(path)["latents"]

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input": self.latents[index]}


def unet_of(latent: list[int], widths: list[int], layers: int) -> UNet2DModel:
    """The U-Net of diffusers that has the parameters of ours: attention everywhere but at the largest maps."""
    attended = len(widths) - 1
    return UNet2DModel(
        sample_size=latent[-1],
        in_channels=latent[0],
        out_channels=latent[0],
        block_out_channels=tuple(widths),
        layers_per_block=layers,
        down_block_types=("DownBlock2D", *["AttnDownBlock2D"] * attended),
        up_block_types=(*["AttnUpBlock2D"] * attended, "UpBlock2D"),
    )


def endless(loader: DataLoader) -> Iterator[dict[str, Tensor]]:
    """Epoch after epoch."""
    while True:
        yield from loader


def measure(given: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a step in each report of `report` steps, the first and the last left out, and the memory."""
    torch.manual_seed(0)
    device = torch.device(given["device"])
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[given["precision"]]
    model = unet_of(given["latent"], given["widths"], given["layers"])
    model.load_state_dict(load_file(given["weights"]))
    model.to(device).train()
    ema = EMAModel(
        model.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=3 / 4, model_cls=UNet2DModel, model_config=model.config
    )
    ema.to(device)
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    batches = endless(DataLoader(CachedLatents(given["latents"]), batch_size=given["batch"], shuffle=True))
    rate = get_scheduler("cosine", optimizer, num_warmup_steps=500, num_training_steps=given["steps"])

    reports, logs = [], {}
    for _ in range(0, given["steps"], given["report"]):
        began = time.perf_counter()
        for _ in range(given["report"]):
            clean = next(batches)["input"].to(device).to(dtype)
            noise = torch.randn(clean.shape, dtype=dtype, device=device)
            timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (len(clean),), device=device).long()
            noisy = scheduler.add_noise(clean, noise, timesteps)
            with nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype):
                predicted = model(noisy, timesteps).sample
            loss = F.mse_loss(predicted.float(), noise.float())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rate.step()
            optimizer.zero_grad()
            ema.step(model.parameters())
            logs = {"loss": loss.detach().item(), "lr": rate.get_last_lr()[0], "ema_decay": ema.cur_decay_value}
        reports.append((time.perf_counter() - began) / given["report"])  # the loss has waited for the device
    return {"seconds": reports[1:-1], **memory(), "last": logs}


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
