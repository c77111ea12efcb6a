"""Between pictures and the latents a denoiser sees: an autoencoder and the statistics that whiten its latents."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldmctl.attribution import expect_shape
from ldmctl.errors import ConfigError, MismatchError, with_article
from ldmctl.latents import careful
from ldmctl.latents.manifest import Statistics
from ldmctl.latents.tiling import HALO, Network, tiled
from ldmctl.pictures.images import crop_to, pad_to
from ldmctl.storage import headers, weights
from ldmctl.storage.apart import folder_of
from ldmctl.storage.initial import same_encoder
from ldmctl.storage.record import model_file, run_of
from ldmctl.training import engine as engines
from ldmctl.training.engine import Engine

SMALLEST = 4  # side of a tile in pixels of the latent
CPU_PIXELS = 2**17  # that a CPU takes together: maps of 16 pictures of 256x256 fit no cache, and take twice the time of as many by twos


def load_autoencoder(path: Path, engine: Engine, *, option: str = "--run") -> tuple[Any, dict[str, Any]]:
    """(frozen autoencoder in eval mode on the engine's device, header) from its file alone, which an option named."""
    tensors, header = weights.load(path)
    if (kind := header.get("kind")) != "autoencoder":
        held = "a denoiser" if kind == "diffusion" else with_article(str(kind or "file"))
        raise MismatchError(f"{path} holds {held}, not an autoencoder. {option} wants a run folder of fit-ae.")
    headers.check(headers.Autoencoder, header, path)
    headers.check_context(header, path)
    weights.refuse_oversized(header, tensors, path)
    autoencoder: nn.Module = weights.rebuild(header)
    weights.load_into(autoencoder, tensors, path)
    return engine.frozen(autoencoder), header


def autoencoder_fingerprint(path: Path) -> str:
    """SHA-256 of the weights and config of an autoencoder's file; its step does not count."""
    tensors, header = weights.load(path)
    headers.check(headers.Autoencoder, header, path)
    return weights.fingerprint(tensors, {"type": header["type"], "config": header["config"], "context": header["context"]})


class Codec:
    """Pictures [B,C,H,W] in [-1, 1] of any size <-> moments <-> latents of mean 0 and deviation 1.

    Networks run in the engine's precision, everything else in float32. Without
    statistics, `whiten` and `unwhiten` are the identity. Pictures with a side of
    more than `tile` pixels are encoded and decoded in tiles (ldmctl.latents.tiling), which
    holds the maps of one tile at a time and takes 7 to 17 times as long (benchmarks/tiling.py).
    A network sees at most `at_once` pictures together, and on a CPU about as many as fit its caches.
    With `image_channels` it takes what a person gives: pictures also as uint8, and a ConfigError says what else is wrong.
    """

    def __init__(
        self,
        autoencoder: Any,
        engine: Engine,
        statistics: Statistics | None = None,
        *,
        tile: int | None = None,
        at_once: int | None = None,
        image_channels: int | None = None,
    ):
        self.autoencoder = autoencoder
        self.image_channels = image_channels
        self.engine = engine
        self.at_once = at_once
        self.side = None if tile is None else tile // autoencoder.factor  # of a tile, in pixels of the latent
        if self.side is not None and self.side < SMALLEST:
            raise ConfigError(
                f"A tile of {tile} pixels is too small for this autoencoder, which makes one latent pixel of {autoencoder.factor}. "
                f"Set machine.tile to {SMALLEST * autoencoder.factor} or more, or to null."
            )
        shape = (1, -1, 1, 1)
        given = statistics or Statistics(mean=[0.0], deviation=[1.0])
        self.mean = torch.tensor(given.mean, dtype=torch.float32, device=engine.device).view(shape)
        self.deviation = torch.tensor(given.deviation, dtype=torch.float32, device=engine.device).view(shape)

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """[B,C,H,W] -> moments [B,m,h,w] float32; the image is padded to multiples of the factor."""
        image = self._taken(image)
        with self.engine.autocast():
            padded = pad_to(image, self.autoencoder.factor)
            moments = self._run(self.autoencoder.encode, padded, self.autoencoder.factor)
        sides = (side // self.autoencoder.factor for side in padded.shape[2:])
        expect_shape(moments, (len(image), None, *sides), self.autoencoder, "encode", like=image)
        return moments.float()

    @torch.no_grad()
    def draw(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What a cache holds, moments [B,m,h,w] or integer codes [B,h,w] -> latent [B,c,h,w] float32, not whitened."""
        if self.image_channels is not None:
            stored = careful.stored(stored, self.autoencoder, self.engine.device)
        moments = stored if stored.is_floating_point() else self.autoencoder.lookup(stored.long())
        latent = self.autoencoder.draw(moments.float(), generator)
        expect_shape(latent, (len(moments), self.autoencoder.channels, *moments.shape[2:]), self.autoencoder, "draw", like=moments)
        return latent.float()

    def whiten(self, latent: Tensor) -> Tensor:
        """Latents of the autoencoder -> latents of the denoiser."""
        return (latent - self.mean) / self.deviation

    def unwhiten(self, latent: Tensor) -> Tensor:
        """Latents of the denoiser -> latents of the autoencoder."""
        return latent * self.deviation + self.mean

    @torch.no_grad()
    def decode(self, latent: Tensor, size: tuple[int, int]) -> Tensor:
        """Latents of the denoiser -> pictures [B,C,*size] float32 in [-1, 1]."""
        return self.picture_of(latent, size).clamp(-1, 1)

    def picture_of(self, latent: Tensor, size: tuple[int, int]) -> Tensor:
        """The same with gradients, and not yet clamped to [-1, 1]."""
        if self.image_channels is not None:
            latent, size = careful.latents(latent, self.autoencoder.channels, self.engine.device), careful.sides(size)
        with self.engine.autocast():
            image = self._run(self.autoencoder.decode, self.unwhiten(latent.float()))
        sides = (side * self.autoencoder.factor for side in latent.shape[2:])
        expect_shape(image, (len(latent), None, *sides), self.autoencoder, "decode", like=latent)
        return crop_to(image.float(), size)

    @torch.no_grad()
    def reconstruct(self, image: Tensor) -> Tensor:
        """[B,C,H,W] -> [B,C,H,W] in [-1, 1] through the mode of the posterior, so without noise."""
        image = self._taken(image)
        moments = self.encode(image)
        mode = getattr(self.autoencoder, "mode", self.autoencoder.draw)
        with self.engine.autocast():
            made = self._run(self.autoencoder.decode, mode(moments).float())
        expect_shape(made, (*image.shape[:2], None, None), self.autoencoder, "decode", like=image)
        return crop_to(made.float(), (image.shape[-2], image.shape[-1])).clamp(-1, 1)

    def _taken(self, image: Tensor) -> Tensor:
        return image if self.image_channels is None else careful.pictures(image, self.image_channels, self.engine.device)

    def _run(self, network: Network, x: Tensor, scale: int = 1) -> Tensor:
        """network(x), some pictures at a time, in tiles if they are larger than one; x has `scale` pixels per pixel of the latent."""
        pixels = x.shape[-2] * x.shape[-1] * (self.autoencoder.factor // scale) ** 2  # of one picture
        most = self.at_once or len(x)
        if self.engine.device.type == "cpu":
            most = min(most, max(CPU_PIXELS // pixels, 1))
        if len(x) > most:
            return torch.cat([self._run(network, part, scale) for part in x.split(most)])
        if self.side is None or (x.requires_grad and torch.is_grad_enabled()):  # gradients go through a picture as a whole
            return network(x)
        cells = (x.shape[-2] // scale, x.shape[-1] // scale)
        return tiled(network, x, cells=cells, side=self.side, halo=min(HALO, self.side // 4))


def statistics_of(header: Mapping[str, Any]) -> Statistics:
    """The statistics that a denoiser's file carries."""
    return Statistics.model_validate(header["statistics"])


def load_codec(
    source: Path,
    header: dict[str, Any],
    engine: engines.Engine,
    *,
    tile: int | None = None,
    ae: str | None = None,
    is_careful: bool = False,
) -> tuple[Codec, str]:
    """(the autoencoder beside a denoiser's file, with the statistics of the latents, its fingerprint); another autoencoder is a MismatchError.

    With `ae` it is that of this run of fit-ae, which must have the same encoder. A codec that `is_careful` checks what it is given.
    """
    file = run_of(source) / "autoencoder.safetensors"
    autoencoder, about = load_autoencoder(file, engine)
    if autoencoder_fingerprint(file) != header["autoencoder"]["fingerprint"]:
        raise MismatchError(f"{file} is not the autoencoder that {source} was trained with.")
    if ae is not None:
        if not folder_of(ae).exists():
            raise MismatchError(f"There is no run folder {folder_of(ae)} with a decoder. --ae names a run of fit-ae.")
        file = model_file(ae, verb="fit-ae")
        other, made = load_autoencoder(file, engine, option="--ae")
        if not same_encoder(autoencoder, other, image_channels=made["context"]["image_channels"]):
            raise MismatchError(
                f"The latents of {source} are not those of {ae}, whose encoder is another. A decoder that fits is fitted by "
                "ldmctl fit-ae --init RUN_OF_THE_LATENTS --out ANOTHER train=decoder."
            )
        autoencoder = other
    channels = int(about["context"]["image_channels"]) if is_careful else None
    return Codec(autoencoder, engine, statistics_of(header), tile=tile, image_channels=channels), autoencoder_fingerprint(file)
