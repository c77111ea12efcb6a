"""An autoencoder whose latent is bits: the sign of each channel (lookup-free quantization, arXiv:2310.05737)."""

import torch
from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn

from ldmctl.blocks import Decoder, Encoder
from ldmctl.config import PluginConfig
from ldmctl.protocols import Reconstruction


class LFQ(nn.Module):
    rescale = "channel"  # a sign depends on its own channel alone

    class Config(PluginConfig):
        channels: PositiveInt = Field(8, description="latent channels, one bit each")
        widths: list[PositiveInt] = Field([64, 128, 256], min_length=1, description="channels at each resolution")
        entropy: float = Field(0.01, ge=0, description="weight of the penalty that makes each bit sure and both of its values used")

    def __init__(self, config: Config, *, image_channels: int):
        super().__init__()
        self.channels = config.channels
        self.factor = 2 ** (len(config.widths) - 1)
        self.entropy = config.entropy
        self.encoder = Encoder(image_channels, config.widths, config.channels)
        self.decoder = Decoder(config.channels, config.widths, image_channels)

    def encode(self, image: Tensor) -> Tensor:
        """image [B,C,H,W] in [-1, 1] -> features [B,c,h,w] in (-1, 1), not yet bits."""
        return torch.tanh(self.encoder(image).float())

    def draw(self, moments: Tensor, generator: Generator | None = None) -> Tensor:
        """The features themselves: encoding is deterministic."""
        return moments

    def decode(self, latent: Tensor) -> Tensor:
        """features [B,c,h,w] -> image [B,C,H,W] of their signs."""
        signs = torch.where(latent > 0, 1.0, -1.0)
        return self.decoder(signs + (latent - latent.detach()))  # straight-through

    def forward(self, image: Tensor, generator: Generator | None = None) -> Reconstruction:
        """image [B,C,H,W] -> its reconstruction; the penalty is the paper's on entropy, bit by bit: each bit's, less that of its mean."""
        features = self.encode(image)
        chance = torch.sigmoid(4 * features)  # that the bit is 1
        penalty = entropy(chance).mean() - entropy(chance.mean((0, 2, 3))).mean()
        facts = {"bits_on": (features > 0).float().mean()}
        return Reconstruction(self.decode(features), {"entropy": self.entropy * penalty}, facts)


def entropy(chance: Tensor) -> Tensor:
    """Nats of a bit that is 1 with this chance."""
    return torch.special.entr(chance) + torch.special.entr(1 - chance)
