"""A trained model, ready to make pictures: denoiser, schedule and decoder, loaded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ldmctl import registry
from ldmctl.attribution import expect_shape
from ldmctl.config.schemas.sample import Sample
from ldmctl.diffusion.asking import Ask, cut_off, short
from ldmctl.diffusion.autoguidance import Weaker, load_weaker
from ldmctl.diffusion.beginning import Given, edit_of, put_back, shape_of, sides_of
from ldmctl.diffusion.casting import cast_once
from ldmctl.diffusion.guidance import refuse_method, refuse_momentum
from ldmctl.diffusion.guides import build_guides
from ldmctl.diffusion.inpainting import refuse_churn, refuse_steps
from ldmctl.diffusion.labels import class_indices
from ldmctl.diffusion.learned_words import Vocabulary, unused
from ldmctl.diffusion.network import Network, build_schedule, load_network
from ldmctl.diffusion.prompts import negative_ask
from ldmctl.diffusion.recorded import settings_of
from ldmctl.diffusion.samples import sample, samples
from ldmctl.diffusion.sampling import even_threads, rows_of, sample_latents
from ldmctl.diffusion.shown import paints_by_condition, shown_of
from ldmctl.errors import DivergedError
from ldmctl.latents.codec import Codec, load_codec
from ldmctl.pictures.canvas import Canvas, open_canvas
from ldmctl.pictures.images import to_uint8
from ldmctl.storage.record import model_file
from ldmctl.training.engine import Engine


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
    run: str = "runs/ldm"  # as it was named
    others: dict[str, Weaker] = field(default_factory=dict)  # models that were taken for guidance, by the name of their run
    built: dict[tuple[Any, ...], list[Any]] = field(default_factory=dict)  # guides, by their configs
    canvases: dict[tuple[Any, ...], Canvas] = field(default_factory=dict)  # pictures that were started from, by their keys
    listings: dict[tuple[str, str], list[Path]] = field(
        default_factory=dict
    )  # files of maps and of pictures to follow, by place and purpose
    alike: dict[int, bool] = field(default_factory=dict)  # whether so many pictures together are rounded as a batch is
    known: dict[float, tuple[float, float, float]] = field(default_factory=dict)  # where levels lie in the schedule, as they are met

    sample = sample  # by the keys of `ldmctl sample`: pictures in memory
    samples = samples  # by a validated config

    def __repr__(self) -> str:
        return f"Model({self.source}, {len(self.classes)} classes, {self.engine.device})"

    @property
    def classes(self) -> list[str]:
        """Names of the classes of its data."""
        return list(self.header["classes"])

    @torch.no_grad()
    def make(
        self,
        config: Sample,
        seeds: Sequence[int],
        asks: Sequence[Ask],
        given: Given | None = None,
        *,
        output: Literal["images", "latents"] = "images",
    ) -> tuple[Tensor, list[int]]:
        """(pictures uint8 [N,C,H,W] of these seeds, which go through the network together, or their latents, on the CPU, the seeds of those that are not finite)."""
        if not seeds:
            return torch.empty(0, dtype=torch.uint8), []
        self.vocabulary.hear(config)
        refuse_method(config.guiding.method, self.header["prediction"])
        sampler = registry.build("sampler", config.sampler)
        refuse_momentum(config.guiding.momentum, sampler)
        refuse_steps(config.painting.method, sampler)
        refuse_churn(sampler, painted=config.mask is not None or config.outpaint is not None)
        rows, sides = rows_of(max(config.batch or 0, len(seeds))), sides_of(config, self.header)
        shape, weaker = shape_of(config, self.header, self.codec), self.weaker(config)
        given = given or self.given(config)
        with even_threads():
            filled = [*seeds, *[seeds[-1]] * (rows - len(seeds))]
            shown = shown_of(config, self, filled, sides)
            edit = edit_of(config, given, self.codec, filled, self.header, by_condition=paints_by_condition(config, self.network))
            latent = sample_latents(
                self.network,
                self.schedule,
                sampler,
                self.engine,
                prediction=self.header["prediction"],
                shape=shape,
                seeds=seeds,
                asks=asks,
                guidance=config.guidance,
                steps=config.steps,
                batch=rows,
                spacing=config.spacing,
                guiding=config.guiding,
                negative=negative_ask(config, self.header_for(config)),
                pictures={**shown, **edit.pictures},
                weaker=weaker.network if weaker else None,
                edit=edit,
                known=self.known,
            )
            if output == "latents":
                whole = latent.isfinite().flatten(1).all(1).tolist()
                return latent.cpu(), [seed for seed, sound in zip(seeds, whole, strict=True) if not sound]
            padded = torch.cat([latent, latent[-1:].expand(rows - len(latent), -1, -1, -1)])
            picture = torch.cat([self.codec.decode(part, sides) for part in padded.split(rows_of(config.batch or rows))])
            expect_shape(picture, (rows, int(self.header["image"]["channels"]), *sides), self.codec.autoencoder, "decode")
            picture = put_back(picture[: len(seeds)], config, given.canvas, seeds, self.codec.autoencoder.factor)
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
        """What pictures of one command share and a PNG's text says; a ConfigError or DataError where the keys do not fit this model."""
        return settings_of(self, config)

    def given(self, config: Sample) -> Given:
        """The pictures and guides that a config names, opened and built once."""
        return Given(self.canvas(config), self.guides(config))

    def guides(self, config: Sample) -> list[Any]:
        """The guides of a config, on the device."""
        key = (repr(config.guide), *(registry.load("guide", each.type) for each in config.guide))
        if key not in self.built:
            channels = int(self.header["image"]["channels"])
            self.built[key] = build_guides(config.guide, image_channels=channels, device=self.engine.device)
        return self.built[key]

    def canvas(self, config: Sample) -> Canvas | None:
        """The pictures that a config starts from, opened once; what does not fit is a DataError."""
        key = (config.start, config.mask, config.size, config.outpaint)
        if config.start is not None and key not in self.canvases:
            image = self.header["image"]
            self.canvases[key] = open_canvas(config.start, config.mask, image, size=config.size, margins=config.outpaint)
        return self.canvases.get(key)

    def weaker(self, config: Sample) -> Weaker | None:
        """The model that guidance goes away from, loaded once; a MismatchError for one that speaks of other latents, a ConfigError for this one."""
        if config.autoguide is None:
            return None
        if config.autoguide not in self.others:
            self.others[config.autoguide] = load_weaker(config.autoguide, self.header, self.fingerprint, self.engine)
        self.others[config.autoguide].vocabulary.hear(config)
        return self.others[config.autoguide]

    def said(self, ask: Ask, config: Sample) -> dict[str, Any]:
        """What a picture's text says of what it was asked to be, and of the learned words and classes in that."""
        words = self.vocabulary.said([ask, *self._away(config)], config)
        learned = {"token": [word.file for word in words], "learned": [word.sha256 for word in words]} if words else {}
        return {"label": self.name_of(ask.label, config), **({"prompt": ask.prompt} if ask.prompt else {}), **learned}

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What the network hears words and knows classes by."""
        return Vocabulary(self.network, self.header, self.run)

    def unheard(self, config: Sample) -> list[str]:
        """A sentence for each learned word that no prompt says, and each learned class that no label asks for."""
        header = self.header_for(config)
        asks = [Ask(prompt=prompt) for prompt in config.prompt or []]
        if header["classes"] != self.header["classes"]:
            asks += [Ask(index) for label in config.label or [] for index in class_indices(label, header)]
        said = [word.file for word in self.vocabulary.said([*asks, *self._away(config)], config)]
        return [unused(word) for word in self.vocabulary.read(config) if word.file not in said]

    def header_for(self, config: Sample) -> dict[str, Any]:
        """The header, with the learned classes that a config names behind the others."""
        return self.vocabulary.header_for(config)

    def _away(self, config: Sample) -> list[Ask]:
        away = negative_ask(config, self.header_for(config))
        return [] if away is None else [away]

    def cut_prompts(self, config: Sample) -> list[str]:
        """A sentence for each prompt that is longer than the model hears, with what it does not hear."""
        self.vocabulary.hear(config)
        if self.network.text is None or config.guidance == 0:
            return []
        said = dict.fromkeys([*(config.prompt or []), *(away.prompt for away in self._away(config))])
        ends = {prompt: cut_off(self.network.text, prompt) for prompt in said}
        return [f"The prompt {short(prompt)!r} is too long: {short(end)!r}, its end, is not heard." for prompt, end in ends.items() if end]

    def title(self, ask: Ask, config: Sample) -> str | None:
        """The words over a row of pictures that were asked to be this; None for nothing."""
        return ", ".join(filter(None, [self.name_of(ask.label, config), ask.prompt])) or None

    def name_of(self, label: int, config: Sample) -> str | None:
        """The name of a class index, of the model or of a file that a config names; None for -1."""
        return self.header_for(config)["classes"][label] if label >= 0 else None


def open_model(run: str, engine: Engine, *, tile: int | None, ae: str | None = None) -> Model:
    """The model of a run folder of fit-diffusion, or of a snapshot in it; with `ae` it decodes through that run of fit-ae."""
    source = model_file(run, verb="fit-diffusion")
    network, header, fingerprint = load_network(source, engine)
    cast_once(network.denoiser, engine)
    codec, decoder = load_codec(source, header, engine, tile=tile, ae=ae)
    return Model(source, engine, network, header, fingerprint, build_schedule(header), codec, decoder, tile, run)


def not_finite(module: torch.nn.Module) -> str:
    """The name of the first weight that is not finite; nothing without one."""
    held = module.state_dict().items()
    return next((name for name, value in held if value.is_floating_point() and not bool(value.isfinite().all())), "")
