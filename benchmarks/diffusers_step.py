"""The step that benchmarks/autoencoder_step.py compares with: an autoencoder of diffusers, the lpips package, two optimizers.

Built as the example scripts of diffusers build it (research_projects/autoencoderkl and vqgan): batches alternate between the autoencoder and the
discriminator, so each of the two updates has a forward of the autoencoder of its own; lpips sees both pictures; the adversarial weight is measured by
two gradients at the decoder's last layer; the discriminator is a PatchGAN with BatchNorm; AdamW, clipping, EMAModel.

`written` keeps what the scripts do beyond or short of that: with the KL model LPIPS under no_grad, so that it teaches nothing, and a discriminator's
loss whose gradient runs on through the autoencoder; with the VQ model a gradient penalty on every real batch; in both an average after every update,
of either network. `repaired` is without these. Weights stay float32; bf16 is autocast.

python benchmarks/diffusers_step.py '{"model": "kl", "variant": "repaired", ...}'   # prints one JSON object
"""

import json
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import lpips
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, VQModel
from diffusers.training_utils import EMAModel
from process import memory
from torch import Tensor, nn

KL_SCALE, PERCEPTUAL_SCALE, PENALTY = 1e-6, 0.5, 10.0


@dataclass
class Side:
    """Everything that one step is made of."""

    kind: str  # kl, vq
    written: bool
    device: torch.device
    dtype: torch.dtype
    autoencoder: Any
    discriminator: nn.Module
    perceptual: nn.Module
    optimizer: torch.optim.Optimizer
    critic: torch.optim.Optimizer
    average: EMAModel

    def autocast(self):
        """Around networks."""
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device.type, self.dtype)


def build(given: dict[str, Any]) -> Side:
    """The networks, in training, and their optimizers."""
    torch.manual_seed(0)
    device = torch.device(given["device"])
    autoencoder = autoencoder_of(given["model"], given["widths"], given["layers"]).to(device).train()
    discriminator = patch_discriminator().to(device).train()
    optimizer, critic = (
        torch.optim.AdamW(each.parameters(), lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
        for each in (autoencoder, discriminator)
    )
    average = EMAModel(autoencoder.parameters(), model_cls=type(autoencoder), model_config=autoencoder.config)
    average.to(device)
    return Side(
        given["model"],
        given["variant"] == "written",
        device,
        {"fp32": torch.float32, "bf16": torch.bfloat16}[given["precision"]],
        autoencoder,
        discriminator,
        perceptual_of(given["vgg"]).to(device),
        optimizer,
        critic,
        average,
    )


def autoencoder_of(kind: str, widths: list[int], layers: int) -> Any:
    """The autoencoder of diffusers that has the parameters of ours."""
    shape = {
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "block_out_channels": tuple(widths),
        "layers_per_block": layers,
        "latent_channels": 4,
    }
    return AutoencoderKL(**shape) if kind == "kl" else VQModel(**shape, num_vq_embeddings=512)


def patch_discriminator() -> nn.Sequential:
    """Three strides of 2, patches of 70 pixels, BatchNorm."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    for before, width, stride in ((64, 128, 2), (128, 256, 2), (256, 512, 1)):
        layers += [nn.Conv2d(before, width, 4, stride=stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(512, 1, 4, padding=1))


def perceptual_of(vgg: str) -> nn.Module:
    """lpips' network with its own heads on the VGG16 of a file."""
    perceptual = lpips.LPIPS(net="vgg", pretrained=True, pnet_rand=True, verbose=False)
    found = torch.load(vgg, weights_only=True)
    own = perceptual.net.state_dict()  # slice1.0.weight is torchvision's features.0.weight
    perceptual.net.load_state_dict({name: found[f"features.{name.partition('.')[2]}"] for name in own})
    return perceptual


# -- one step ----------------------------------------------------------------------


def reconstruct(side: Side, image: Tensor) -> tuple[Tensor, Tensor]:
    """[B,C,H,W] -> (its reconstruction, the autoencoder's own penalty)."""
    if side.kind == "vq":
        return side.autoencoder(image, return_dict=False)
    posterior = side.autoencoder.encode(image).latent_dist
    return side.autoencoder.decode(posterior.sample()).sample, KL_SCALE * posterior.kl().sum() / len(image)


def generator_step(side: Side, image: Tensor) -> dict[str, float]:
    """One update of the autoencoder -> its logs."""
    with side.autocast():
        made, penalty = reconstruct(side, image)
        with torch.set_grad_enabled(not (side.written and side.kind == "kl")):
            distance = side.perceptual(made, image).float()
        judged = -side.discriminator(made).float().mean()
    gap = F.mse_loss(made.float(), image, reduction="none")
    if side.kind == "kl":
        fit = reference = (gap + PERCEPTUAL_SCALE * distance).sum() / len(image)
    else:
        reference = distance.mean()
        fit = gap.mean() + reference
    last = side.autoencoder.decoder.conv_out.weight
    norms = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (reference, judged)]
    weight = (norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4).detach()
    loss = fit + penalty.float() + weight * judged
    loss.backward()
    nn.utils.clip_grad_norm_(side.autoencoder.parameters(), 1.0)
    side.optimizer.step()
    side.optimizer.zero_grad()
    side.average.step(side.autoencoder.parameters())
    return {name: float(value) for name, value in {"loss": loss, "perceptual": distance.mean(), "judged": judged, "weight": weight}.items()}


def discriminator_step(side: Side, image: Tensor) -> dict[str, float]:
    """One update of the discriminator -> its logs."""
    runs_on = side.written and side.kind == "kl"
    penalised = side.written and side.kind == "vq"
    if not runs_on:
        side.critic.zero_grad()  # of what the autoencoder's backward left
    with side.autocast():
        made, _ = reconstruct(side, image)
        image = image.requires_grad_(penalised)
        real = side.discriminator(image).float()
        fake = side.discriminator(made if runs_on else made.detach()).float()
    loss = (F.relu(1 - real) + F.relu(1 + fake.float())).mean() / 2
    if penalised:
        gradient = torch.autograd.grad(real.sum(), image, create_graph=True)[0]
        loss = loss + PENALTY * (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    loss.backward()
    nn.utils.clip_grad_norm_(side.discriminator.parameters(), 1.0)
    side.critic.step()
    side.critic.zero_grad()
    if side.written:
        side.average.step(side.autoencoder.parameters())
    return {name: float(value) for name, value in {"loss": loss, "real": real.mean(), "fake": fake.mean()}.items()}


# -- the clock ---------------------------------------------------------------------


def measure(given: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a training step, which is one update of each network: the median of reports of `report` steps, without the first."""
    side = build(given)
    pictures = torch.load(given["pictures"], weights_only=True)  # uint8 [N,C,H,W], decoded already
    order = torch.randperm(len(pictures))
    batches = [pictures[rows].to(side.device).float() / 127.5 - 1 for rows in order.split(given["batch"])]
    batches = [batch for batch in batches if len(batch) == given["batch"]]
    reports, logs = [], {}
    for first in range(0, given["steps"], given["report"]):
        began = time.perf_counter()
        for step in range(first, first + given["report"]):
            logs = generator_step(side, batches[2 * step % len(batches)])
            logs |= {
                f"discriminator_{name}": value
                for name, value in discriminator_step(side, batches[(2 * step + 1) % len(batches)].clone()).items()
            }
        reports.append((time.perf_counter() - began) / given["report"])  # the logs have waited for the device
    return {
        "seconds": reports[1:],
        **memory(),
        "parameters": {
            name: sum(p.numel() for p in part.parameters()) for name, part in vars(side).items() if name in ("autoencoder", "discriminator")
        },
        "last": logs,
    }


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
