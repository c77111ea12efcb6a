"""Scores overlapping patches instead of the whole picture (Isola et al., arXiv:1611.07004, section 3.2.2)."""

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ldmctl.blocks import Patches, PatchNorm
from ldmctl.config import PluginConfig
from ldmctl.errors import PluginError


class PatchGAN(nn.Module):
    class Config(PluginConfig):
        widths: list[PositiveInt] = Field([64, 128, 256], min_length=1, description="channels of the convolutions that halve the map")
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
        self.patches = Patches(image_channels, config.widths, flat=config.flat, norm=config.norm)

    def forward(self, image: Tensor) -> list[Tensor]:
        """image [B,C,H,W] -> one map of logits [B,1,*,*]; a PluginError if the picture is too small for one patch."""
        height, width = image.shape[-2:]
        if min(height, width) < self.patches.smallest:
            needed = f"{self.patches.smallest}x{self.patches.smallest}"
            raise PluginError(
                f"The discriminator 'patchgan' needs pictures of at least {needed} and got {height}x{width}: give it fewer widths."
            )
        return [self.patches(image)]

    def after_step(self) -> list[str]:
        """Spectral norms follow the weights, once per optimizer step. Renews nothing."""
        return self.patches.after_step()
