"""A small autoencoder without noise or codes: `encode` gives the latent itself, and a penalty keeps it small."""

from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn

from ldmctl.blocks import Decoder, Encoder
from ldmctl.config import PluginConfig
from ldmctl.protocols import Reconstruction


class Template(nn.Module):
    """Convolutions down to a small map and up again."""

    rescale = "channel"
    decoding = ("decoder",)  # what `train: decoder` trains alone

    class Config(PluginConfig):
        channels: PositiveInt = Field(4, description="latent channels")
        widths: list[PositiveInt] = Field(
            [32, 64, 128], min_length=1, description="channels at each resolution; each entry after the first halves the picture"
        )
        weight: float = Field(1e-4, ge=0, description="weight of the latent's mean square in the loss")

    def __init__(self, config: Config, *, image_channels: int):
        super().__init__()
        self.channels = config.channels
        self.factor = 2 ** (len(config.widths) - 1)
        self.weight = config.weight
        self.encoder = Encoder(image_channels, config.widths, config.channels, layers=1)
        self.decoder = Decoder(config.channels, config.widths, image_channels, layers=1)

    @property
    def last_layer(self) -> Tensor:
        """The weight that makes the picture, for `adversarial.balance: last-layer`."""
        return self.decoder.conv_out.weight

    def encode(self, image: Tensor) -> Tensor:
        """image [B,C,H,W] in [-1, 1] -> moments [B,c,h,w], what a cache stores."""
        return self.encoder(image)

    def draw(self, moments: Tensor, generator: Generator | None = None) -> Tensor:
        """moments [B,c,h,w] -> latent [B,c,h,w]: the same, since nothing here is random."""
        return moments

    def decode(self, latent: Tensor) -> Tensor:
        """latent [B,c,h,w] -> image [B,C,H,W]."""
        return self.decoder(latent)

    def forward(self, image: Tensor, generator: Generator | None = None) -> Reconstruction:
        """image [B,C,H,W] -> its reconstruction, a penalty that joins the loss, a fact that is only reported."""
        moments = self.encode(image)
        image = self.decode(self.draw(moments, generator))
        penalty = self.weight * moments.float().square().mean()
        return Reconstruction(image, penalties={"size": penalty}, facts={"deviation": moments.detach().float().std()})
