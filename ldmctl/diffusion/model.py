"""A trained model, ready to make pictures: denoiser, schedule and decoder, loaded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ldmctl import registry
from ldmctl.attribution import expect_shape, foreign_plugins
from ldmctl.config.presets import compose
from ldmctl.config.schemas.sample import Sample
from ldmctl.config.travelling import travelling
from ldmctl.diffusion.casting import cast_once
from ldmctl.diffusion.network import Network, build_schedule, load_network
from ldmctl.diffusion.sampling import even_threads, rows_of, sample_latents
from ldmctl.diffusion.wanted import wanted
from ldmctl.errors import ConfigError, DivergedError
from ldmctl.latents.codec import Codec, load_codec
from ldmctl.pictures.images import to_uint8
from ldmctl.storage.record import model_file
from ldmctl.training.engine import Engine


class Samples(NamedTuple):
    """Pictures with what they are of. `images / 127.5 - 1` has them in [-1, 1]."""

    images: Tensor  # uint8 [N,C,H,W] from 0 to 255, on the CPU: the pixels of the PNG files; or the latents, where these were asked for
    labels: list[str | None]  # None is no class
    seeds: list[int]


@dataclass(frozen=True, eq=False)
class Model:
    """A trained denoiser with its decoder. The same seed and settings give the same pixels as `ldmctl sample`."""

    source: Path
    engine: Engine
    network: Network
    header: dict[str, Any]
    fingerprint: str
    schedule: Any
    codec: Codec
    decoder: str  # fingerprint of the autoencoder that decodes
    tile: int | None
    known: dict[float, tuple[float, float, float]] = field(default_factory=dict)  # where levels lie in the schedule, as they are met

    def __repr__(self) -> str:
        return f"Model({self.source}, {len(self.classes)} classes, {self.engine.device})"

    @property
    def classes(self) -> list[str]:
        """Names of the classes of its data."""
        return list(self.header["classes"])

    def sample(
        self,
        count: int | None = None,
        *,
        seed: int | None = None,
        seeds: str | Sequence[int] | None = None,
        each: int | None = None,
        label: str | Sequence[str] | None = None,
        guidance: float | None = None,
        steps: int | None = None,
        sampler: str | Mapping[str, Any] | None = None,
        spacing: str | None = None,
        batch: int | None = None,
        output: Literal["images", "latents"] = "images",
    ) -> Samples:
        """Pictures in memory, nothing is written; the keys are those of `ldmctl sample`. `sampler` is a name, or {"type": ..., its keys}.

        With output="latents" they stay float32 [N,c,h,w] of mean 0 and deviation 1, which `codec.decode` takes.
        """
        many = label if label is None or isinstance(label, str) else list(label)
        some = seeds if seeds is None or isinstance(seeds, str) else [int(each) for each in seeds]
        keys: dict[str, Any] = {"seeds": some, "each": each}
        keys |= {"count": count, "seed": seed, "label": many, "guidance": guidance, "steps": steps, "spacing": spacing, "batch": batch}
        kind = dict(sampler) if isinstance(sampler, Mapping) else sampler
        config, _ = compose(Sample, overrides=[], flags={**keys, "sampler": kind})
        return self.samples(config, output=output)

    def samples(self, config: Sample, *, output: Literal["images", "latents"] = "images") -> Samples:
        """The pictures that a validated config asks for; a DivergedError if some are not finite."""
        if output not in ("images", "latents"):
            raise ConfigError(f"output={output!r} is neither images nor latents.")
        asked = wanted(config, self.header)
        seeds, labels = list(asked.seeds), [asked.label(place) for place in range(len(asked))]
        images = []
        for first in range(0, len(seeds), config.batch):
            rows = slice(first, first + config.batch)
            made, bad = self.make(config, seeds[rows], labels[rows], output=output)
            self.refuse(bad, config)
            images.append(made)
        return Samples(torch.cat(images), [self.name_of(label) for label in labels], seeds)

    @torch.no_grad()
    def make(
        self,
        config: Sample,
        seeds: Sequence[int],
        labels: Sequence[int],
        *,
        output: Literal["images", "latents"] = "images",
    ) -> tuple[Tensor, list[int]]:
        """(pictures uint8 [N,C,H,W] of up to `config.batch` seeds, or their latents, on the CPU, the seeds of those that are not finite)."""
        if not seeds:
            return torch.empty(0, dtype=torch.uint8), []
        rows, side = rows_of(config.batch), int(self.header["image"]["size"])
        with even_threads():
            latent = sample_latents(
                self.network,
                self.schedule,
                registry.build("sampler", config.sampler),
                self.engine,
                prediction=self.header["prediction"],
                shape=tuple(self.header["latent"]),
                seeds=seeds,
                labels=labels,
                guidance=config.guidance,
                steps=config.steps,
                batch=rows,
                spacing=config.spacing,
                known=self.known,
            )
            if output == "latents":
                whole = latent.isfinite().flatten(1).all(1).tolist()
                return latent.cpu(), [seed for seed, sound in zip(seeds, whole, strict=True) if not sound]
            padded = torch.cat([latent, latent[-1:].expand(rows - len(latent), -1, -1, -1)])
            picture = self.codec.decode(padded, (side, side))
            expect_shape(picture, (rows, int(self.header["image"]["channels"]), side, side), self.codec.autoencoder, "decode")
            picture = picture[: len(seeds)]
        sound = (latent.isfinite().flatten(1).all(1) & picture.isfinite().flatten(1).all(1)).tolist()
        return to_uint8(picture).cpu(), [seed for seed, whole in zip(seeds, sound, strict=True) if not whole]

    def refuse(self, bad: Sequence[int], config: Sample) -> None:
        """A DivergedError if there are seeds whose pictures are not finite: which, why, and what to do."""
        if not bad:
            return
        some = ", ".join(map(str, bad[:8])) + (f" and {len(bad) - 8} more" if len(bad) > 8 else "")
        which = f"Seed {some} gives a picture that is" if len(bad) == 1 else f"Seeds {some} give pictures that are"
        said = f"{which} not finite, so nothing was made of this batch."
        if broken := not_finite(self.network) or not_finite(self.codec.autoencoder):
            raise DivergedError(
                f"{said} Weights of the model are not finite themselves ({broken}): its training diverged. Take an earlier snapshot "
                f"(--run RUN@STEP or RUN@best), or train again with a lower loop.lr. The file is {self.source}."
            )
        ways = [] if self.engine.dtype == torch.float32 else ["--precision fp32"]
        ways += ["a lower --guidance"] if config.guidance > 1 else []
        raise DivergedError(
            f"{said} The weights of {self.source} are finite. Try {', '.join([*ways, 'more --steps'])} or another --sampler."
        )

    def settings(self, config: Sample) -> dict[str, Any]:
        """What pictures of one command share and a PNG's text says: model, decoder, precision and keys."""
        found = {
            "model": self.fingerprint,
            "autoencoder": self.decoder,
            "precision": str(self.engine.dtype).removeprefix("torch."),
            **travelling(config),
        }
        parts = (
            self.network.denoiser,
            self.network.conditioner,
            self.schedule,
            self.codec.autoencoder,
            registry.build("sampler", config.sampler),
        )
        if third := foreign_plugins(parts):
            found["plugins"] = third  # another version of them makes other pictures
        tiled = self.tile is not None and int(self.header["image"]["size"]) > self.tile
        return found | ({"tile": self.tile} if tiled else {})

    def name_of(self, label: int) -> str | None:
        """The name of a class index; None for -1."""
        return self.header["classes"][label] if label >= 0 else None


def open_model(run: str, engine: Engine, *, tile: int | None, ae: str | None = None) -> Model:
    """The model of a run folder of fit-diffusion, or of a snapshot in it; with `ae` it decodes through that run of fit-ae."""
    source = model_file(run, verb="fit-diffusion")
    network, header, fingerprint = load_network(source, engine)
    cast_once(network.denoiser, engine)
    codec, decoder = load_codec(source, header, engine, tile=tile, ae=ae)
    return Model(source, engine, network, header, fingerprint, build_schedule(header), codec, decoder, tile)


def not_finite(module: torch.nn.Module) -> str:
    """The name of the first weight that is not finite; nothing without one."""
    held = module.state_dict().items()
    return next((name for name, value in held if value.is_floating_point() and not bool(value.isfinite().all())), "")
