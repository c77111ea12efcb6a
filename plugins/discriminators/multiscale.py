"""Patch discriminators side by side, each on a picture half as large as the one before (Wang et al., arXiv:1711.11585, section 3.2).

The coarsest sees the largest part of the picture and asks for a shape that hangs together, the finest for texture.
"""

from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from ldmctl.blocks import Patches, PatchNorm
from ldmctl.config import PluginConfig
from ldmctl.errors import PluginError


class MultiScale(nn.Module):
    class Config(PluginConfig):
        scales: int = Field(2, ge=2, le=4, description="how many: at full size, half, a quarter, an eighth")
        widths: list[PositiveInt] = Field(
            [64, 128, 256], min_length=1, description="channels of the convolutions that halve the map, in each of them"
        )
        flat: list[PositiveInt] = Field(
            [], description="channels of convolutions of stride 1 that follow; none: patches of 46 pixels, [512]: of 70, as in the paper"
        )
        norm: PatchNorm = Field(
            "group",
            description="group: up to 32 groups; batch: over the micro-batches of all devices, real and made together; spectral: of the "
            "weights; none: for a discriminator that the penalty adversarial.r1 holds in check instead, as StyleGAN2's",
        )

    def __init__(self, config: Config, *, image_channels: int):
        super().__init__()
        shape = {"flat": config.flat, "norm": config.norm}
        self.scales = nn.ModuleList(Patches(image_channels, config.widths, **shape) for _ in range(config.scales))
        self.smallest = self.scales[0].smallest * 2 ** (config.scales - 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        """image [B,C,H,W] -> maps of logits [B,1,*,*], finest first; a PluginError if the picture is too small for the coarsest."""
        height, width = image.shape[-2:]
        if min(height, width) < self.smallest:
            raise PluginError(
                f"The discriminator 'multiscale' with {len(self.scales)} scales needs pictures of at least {self.smallest}x{self.smallest} "
                f"and got {height}x{width}: give it fewer scales or fewer widths."
            )
        maps = []
        for level, patches in enumerate(self.scales):
            image = avg_pool2d(image, 2) if level else image
            maps.append(patches(image))
        return maps

    def after_step(self) -> list[str]:
        """Spectral norms follow the weights, once per optimizer step. Renews nothing."""
        return [name for patches in self.scales for name in patches.after_step()]
