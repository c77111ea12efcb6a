"""Towards a class of a classifier, such as one that was trained on the same pictures (arXiv:2105.05233, section 4)."""

import hashlib
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from ldmctl.blocks import UNREADABLE, read_weights, torchvision_models
from ldmctl.config import PluginConfig
from ldmctl.errors import ConfigError, DataError, did_you_mean, one_line
from ldmctl.storage.assets import find_weights

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class Classifier(nn.Module):
    """Minus the logarithm of the class's probability, by a network of torchvision whose weights are in a file. Scale 1 is Bayes' rule."""

    class Config(PluginConfig):
        file: str = Field(description="weights under torchvision's names, .safetensors or .pth")
        network: str = Field("resnet18", description="a classifier of torchvision.models; how many classes it has is read from the file")
        label: NonNegativeInt = Field(description="the class, by its index in the network's output")
        side: PositiveInt | None = Field(None, description="pixels that pictures are resized to; null: as they are")
        normalise: bool = Field(True, description="by ImageNet's mean and deviation, as torchvision's own weights want it; false: [-1, 1]")
        scale: PositiveFloat = Field(1.0, le=1e15, description="how much it counts: the loss is multiplied by it")

    def __init__(self, config: Config, *, image_channels: int, **context: object):
        super().__init__()
        state = weights_of(config.file)
        classes = classes_of(config.network, state, config.file)
        if config.label >= classes:
            raise ConfigError(f"guide.label={config.label} is beyond the {classes} classes of {config.file}, counted from 0.")
        self.network = built(config.network, classes, state, config.file)
        self.config = config
        self.stamp = hashlib.sha256(find_weights(config.file, given=config.file).read_bytes()).hexdigest()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def loss(self, image: Tensor) -> Tensor:
        """image [B,C,H,W] in [-1, 1] -> [B], 0 where the network is certain; a ConfigError where it takes none of this size."""
        x = image[:, :3].float()
        x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
        if self.config.normalise:
            x = ((x + 1) / 2 - self.mean) / self.deviation
        if self.config.side is not None:
            x = F.interpolate(x, (self.config.side, self.config.side), mode="bilinear", antialias=True)
        wanted = torch.full((len(x),), self.config.label, device=x.device)
        return self.config.scale * F.cross_entropy(self._said(x).float(), wanted, reduction="none")

    def _said(self, x: Tensor) -> Tensor:
        """What the network says of x [B,3,H,W], [B,classes]."""
        try:
            said: Tensor = self.network(x)
        except (RuntimeError, ValueError, AssertionError) as error:  # as networks of torchvision refuse a size
            if "memory" in str(error):  # of which the device has none left
                raise
            raise ConfigError(
                f"{self.config.network} of the guide classifier cannot look at pictures of {x.shape[3]}x{x.shape[2]} pixels: {one_line(error)[:200]} "
                "Set guide.side to a size that it takes, such as guide.side=224."
            ) from None
        return said


def weights_of(file: str) -> dict[str, Tensor]:
    """The tensors of a file of weights."""
    try:
        state: Any = read_weights(find_weights(file, given=file))
    except UNREADABLE:
        raise DataError(
            f"guide.file={file} cannot be read as weights: save network.state_dict(), by torch.save or as .safetensors."
        ) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"guide.file={file} holds no weights by name: save network.state_dict().")
    return state


def classes_of(name: str, state: dict[str, Tensor], file: str) -> int:
    """How many classes these weights of a network know: the length of the tensor whose length follows them, in whatever order the file has its own."""
    try:
        with torch.device("meta"):
            few, many = (of_torchvision(name, count).state_dict() for count in (2, 3))
    except NotImplementedError:  # RegNet computes its widths with tensors
        few, many = (of_torchvision(name, count).state_dict() for count in (2, 3))
    last = [key for key in few if few[key].shape != many[key].shape][-1]
    if last not in state or not state[last].ndim:
        raise DataError(f"guide.file={file} holds no weights of {name}: it has no {last}.")
    return len(state[last])


def of_torchvision(name: str, classes: int) -> nn.Module:
    """A network of torchvision for so many classes."""
    models = torchvision_models("The guide classifier", "take another guide")
    if name not in (known := models.list_models(module=models)):
        raise ConfigError(f"torchvision.models has no network {name!r}.{did_you_mean(name, known)}")
    network: nn.Module = models.get_model(name, weights=None, num_classes=classes)
    return network


def built(name: str, classes: int, state: dict[str, Tensor], file: str) -> nn.Module:
    """The network of torchvision with these weights."""
    network = of_torchvision(name, classes)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(f"guide.file={file} holds no weights of {name}: {one_line(error)[:200]}") from None
    return network
