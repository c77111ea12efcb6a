"""A distance in the features of any convolutional network of torchvision. It is not LPIPS: nothing in it was learned from people.

Both pictures pass a frozen network; at each layer the features of a position
are scaled to unit length and their squared differences summed over channels
and averaged over positions: the unweighted form of arXiv:1801.03924, section 3.
The distance is the mean over layers, so it does not grow with their number.
"""

from __future__ import annotations

import re
import warnings
from bisect import bisect_left
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from ldmctl.blocks import channels_order, check_channels, fill, in_colour, inverse_length, torchvision_models
from ldmctl.config import PluginConfig
from ldmctl.errors import ConfigError, DataError, PluginError, did_you_mean, one_line
from ldmctl.storage.assets import find_weights

SIDE = 224  # pixels, what the networks were trained on
BEHIND = ("avgpool", "classifier", "fc", "head", "heads", "aux1", "aux2", "AuxLogits")  # parts that classify
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)


class Features(nn.Module):
    """Mean over layers of the distance between unit-length features, in [0, 4]."""

    class Config(PluginConfig):
        network: str = Field("squeezenet1_0", description="a classifier of torchvision.models")
        weights: str | None = Field(
            None,
            description="its weights, .safetensors or .pth, under torchvision's names; null: torchvision's own, looked for, then downloaded",
        )
        layers: list[str] | None = Field(
            None,
            min_length=1,
            description="modules whose outputs are compared, as named_modules calls them; null: the last of each resolution",
        )

    def __init__(self, config: Config, *, image_channels: int):
        super().__init__()
        check_channels("features", image_channels)
        self.title = f"features-{config.network}"
        models = torchvision_models("features", "take another perceptual distance")
        if config.network not in (known := models.list_models(module=models)):
            raise ConfigError(f"torchvision.models has no network {config.network!r}.{did_you_mean(config.network, known)}")
        network = _empty(lambda: models.get_model(config.network, weights=None)).requires_grad_(False).eval()
        calls = _trace(network, config.network)
        self.layers = _stages(calls) if config.layers is None else _checked(config.layers, calls, config.network)
        self.calls = {name: sum(call.name == name for call in calls) for name in self.layers}  # a ReLU may serve several times
        _prune(network, _run(network, _picture(SIDE), self.calls, lambda *_: None, all_of_them=True))
        self.smallest = 1 + bisect_left(range(1, SIDE), True, key=lambda side: _fits(network, self.calls, side))
        _load(network, config, models.get_model_weights(config.network).DEFAULT.url)
        if hasattr(network, "transform_input"):
            network.transform_input = True  # GoogLeNet and Inception: from ImageNet's normalisation to their own
        self.network = network
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Features:
        """Stays in evaluation, whatever the module that holds it is told."""
        return super().train(False)

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """[B,C,H,W] twice, in [-1, 1] -> [B] float32, 0 when equal; a DataError where the network shrinks them to nothing."""
        if min(image.shape[-2:]) < self.smallest:
            raise DataError(
                f"{self.title} needs pictures of at least {self.smallest} x {self.smallest} pixels, these have "
                f"{image.shape[-1]} x {image.shape[-2]}: set a larger image.size, and image.patch where it is set, or earlier layers in perceptual.layers."
            )
        with torch.no_grad():
            targets = self._features(target)
        terms = [(made - true).square().sum(1).mean((1, 2)) for made, true in zip(self._features(image), targets, strict=True)]
        return torch.stack(terms).mean(0)

    @torch.no_grad()
    def embed(self, image: Tensor) -> Tensor:
        """[B,C,H,W] in [-1, 1] -> [B,D] float32: the unit-length features of the last of `layers`, averaged over positions."""
        return self._features(image)[-1].mean((2, 3))

    def _features(self, picture: Tensor) -> list[Tensor]:
        """Of each layer, in the order of `layers`, float32 and of unit length over channels."""
        found: dict[str, Tensor] = {}

        def keep(name: str, features: Tensor) -> None:
            with torch.autocast(features.device.type, enabled=False):
                features = features.float().clone()  # a ReLU or a sum behind it may write into the original
                found[name] = features * inverse_length(features)

        seen = (in_colour(picture) / 2 + 0.5 - self.mean) / self.deviation
        seen = seen.contiguous(memory_format=channels_order(seen.device))
        _run(self.network, seen, self.calls, keep)
        return [found[name] for name in self.layers]


class Call(NamedTuple):
    """One call of a module."""

    name: str
    module: nn.Module
    output: Any

    def is_map(self) -> bool:
        """[1,C,h,w] of a square picture; tokens, and networks that keep channels last, look different."""
        return isinstance(self.output, Tensor) and self.output.ndim == 4 and self.output.shape[2] == self.output.shape[3]


class _Enough(Exception):
    """All layers have been seen: what follows need not run."""


def _run(
    network: nn.Module, x: Tensor, calls: Mapping[str, int], keep: Callable[[str, Tensor], None], *, all_of_them: bool = False
) -> set[str]:
    """Give `keep` the output of each layer's last call and stop behind the last of them -> names of the hooked modules that ran."""
    left, ran = dict(calls), set()

    def behind(name: str, _: nn.Module, output: Any) -> None:
        ran.add(name)
        if name in left:
            left[name] -= 1
            if not left[name]:
                del left[name]
                keep(name, output)
            if not left:
                raise _Enough

    with _hooked(network, behind, None if all_of_them else calls), suppress(_Enough):
        network(x)
    return ran


@contextmanager
def _hooked(network: nn.Module, behind: Callable[[str, nn.Module, Any], None], only: Container[str] | None = None) -> Iterator[None]:
    """Call `behind(name, module, output)` after each call of a module, in a network that is left as it was."""
    handles = [
        module.register_forward_hook(lambda module, _, output, name=name: behind(name, module, output))
        for name, module in network.named_modules()
        if name and (only is None or name in only)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _picture(side: int) -> Tensor:
    """A picture without content: what a network makes of its size is known without computing."""
    return torch.empty(1, 3, side, side, device="meta")


def _trace(network: nn.Module, title: str) -> list[Call]:
    """Every call of a module, in the order in which they end."""
    calls: list[Call] = []
    try:
        with _hooked(network, lambda *call: calls.append(Call(*call))):
            network(_picture(SIDE))
    except (RuntimeError, AssertionError) as error:
        raise PluginError(f"features cannot follow {title} through its layers ({one_line(error)[:200]}): choose another network.") from None
    return calls


def _stages(calls: Sequence[Call]) -> list[str]:
    """The last module of each resolution, without poolings, which only repeat, and without what classifies."""
    pooled = {id(call.output) for call in calls if isinstance(call.module, POOLS)}  # the container that ends in a pooling gives the same
    last: dict[int, str] = {}
    for call in calls:
        if call.is_map() and id(call.output) not in pooled and call.output.shape[-1] > 1 and call.name.split(".")[0] not in BEHIND:
            last[call.output.shape[-1]] = call.name
    return list(last.values())


def _checked(layers: list[str], calls: Sequence[Call], title: str) -> list[str]:
    """The layers asked for, each once; a ConfigError where one is unknown or gives no map."""
    maps = {call.name: call.is_map() for call in calls}
    for name in layers:
        if not maps.get(name):
            what = f"gives no map [B,C,h,w], in the layer {name!r}" if name in maps else f"has no layer {name!r}"
            near = get_close_matches(name, [known for known in maps if maps[known]], n=4) or _stages(calls)
            raise ConfigError(f"{title} {what}, named in perceptual.layers. Such as {', '.join(near)} would do.")
    return list(dict.fromkeys(layers))


def _fits(network: nn.Module, calls: Mapping[str, int], side: int) -> bool:
    """Whether pictures of this side leave a position at every layer."""
    sizes: list[int] = []
    try:
        _run(network, _picture(side), calls, lambda _, features: sizes.append(features.numel()))
    except (RuntimeError, AssertionError, ValueError):
        return False
    return all(sizes)


def _empty(make: Callable[[], nn.Module]) -> nn.Module:
    """A network without storage: its initial weights would only be thrown away."""
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of initial weights
        try:
            with torch.device("meta"):
                return make()
        except NotImplementedError:  # RegNet computes its widths with tensors
            with torch.random.fork_rng(devices=[]):
                return make().to("meta")


def _prune(network: nn.Module, ran: Container[str]) -> None:
    """Take out what lies behind the last layer, which then needs no weights."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.num_batches_tracked = torch.zeros((), dtype=torch.long)  # only training counts, and older files lack it
        if name and name not in ran and name.rpartition(".")[0] not in ran and not list(module.children()):
            network.set_submodule(name, nn.Identity())


def _load(network: nn.Module, config: Features.Config, url: str) -> None:
    """The file that the config names, else torchvision's own, whose name holds the first digits of its checksum."""
    official = url.rsplit("/", 1)[1]
    digits = re.search(r"-([0-9a-f]{8,})\.", official)
    file = find_weights(official, url=url, sha256=digits and digits[1], given=config.weights)
    names = {name: name for name in network.state_dict() if not name.endswith("num_batches_tracked")}
    if file.name == official and config.network.startswith("densenet"):  # published under the names of an older torch
        names = {name: re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name) for name in names}
    fill(network, file, names, f"torchvision's weights of {config.network}")
