"""Towards a picture, by any perceptual distance: like it, but not the same pixels."""

import hashlib
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from pydantic import Field, PositiveFloat, field_validator
from torch import Tensor, nn

from ldmctl.config import PluginConfig
from ldmctl.errors import DataError
from ldmctl.pictures.images import read, to_float

DISTANCE = "lpips"  # where none is named
UNIT = 0.02  # a distance that counts 1 at scale 1


class Perceptual(nn.Module):
    """The distance to one picture, which is cut to the samples' shape. A distance of 0.02 counts 1 at scale 1."""

    class Config(PluginConfig):
        image: str = Field(description="the picture to be like, a file")
        by: str | dict[str, Any] = Field(DISTANCE, description="the perceptual distance: its name, or `type` and its keys")
        scale: PositiveFloat = Field(1.0, le=1e15, description="how much it counts: the loss is multiplied by it")

        @field_validator("by")
        @classmethod
        def _has_a_type(cls, by: str | dict[str, Any]) -> str | dict[str, Any]:
            return by if isinstance(by, str) else {"type": DISTANCE, **by}

    def __init__(self, config: Config, *, image_channels: int, perceptual: Callable[[Any], nn.Module]):
        super().__init__()
        self.distance = perceptual(config.by).requires_grad_(False).eval()
        self.scale = config.scale
        try:
            target = read(config.image, channels=image_channels)
        except DataError as error:
            raise DataError(f"guide.image: {error}") from None
        self.stamp = stamp_of(target, self.distance)
        self.register_buffer("target", to_float(target)[None], persistent=False)
        self.target: Tensor

    def loss(self, image: Tensor) -> Tensor:
        """image [B,C,H,W] in [-1, 1] -> [B], 0 where it is the picture; a DataError where the distance takes none of this size."""
        like = covering(self.target, image.shape[2], image.shape[3])
        try:
            apart: Tensor = self.distance(image, like.expand(len(image), -1, -1, -1))
        except DataError as error:
            reason = str(error).partition(": ")[0]  # what follows is the advice to who trains by it
            raise DataError(
                f"The guide perceptual cannot compare these pictures: {reason}. Take a larger --size, another distance (guide.by), or of "
                "features earlier layers (guide.by.layers)."
            ) from None
        return self.scale / UNIT * apart


def stamp_of(target: Tensor, distance: nn.Module) -> str:
    """SHA-256 of a picture and of the weights of a distance, hexadecimal."""
    found = hashlib.sha256(target.numpy().tobytes())
    for name, value in sorted(distance.state_dict().items()):
        found.update(name.encode() + value.float().numpy().tobytes())
    return found.hexdigest()


def covering(picture: Tensor, height: int, width: int) -> Tensor:
    """[1,C,H,W] as large as covers height and width, and the middle of it."""
    scale = max(height / picture.shape[2], width / picture.shape[3])
    sides = [max(side, round(there * scale)) for side, there in zip((height, width), picture.shape[2:], strict=True)]
    large = F.interpolate(picture, sides, mode="bicubic", antialias=True).clamp(-1, 1)
    top, left = (sides[0] - height) // 2, (sides[1] - width) // 2
    return large[:, :, top : top + height, left : left + width]
