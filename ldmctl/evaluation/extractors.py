"""An extractor ready to be used: chosen, built, fitted where it learns from the data, known by a fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldmctl import registry
from ldmctl.config.base import PluginConfig
from ldmctl.config.resolve import plugin_config
from ldmctl.console import Console
from ldmctl.errors import ConfigError, MismatchError
from ldmctl.evaluation.reconstruction import title_of
from ldmctl.latents.codec import Codec
from ldmctl.pictures.images import to_float
from ldmctl.storage import weights
from ldmctl.training.engine import Engine


@dataclass(frozen=True)
class Encoder:
    """A run's encoder for the extractor `latent`: uint8 [B,C,H,W] -> whitened latents [B,c,h,w], without the posterior's noise."""

    codec: Codec
    fingerprint: str

    def __call__(self, image: Tensor) -> Tensor:
        """[B,C,H,W] -> [B,c,h,w]."""
        moments = self.codec.encode(to_float(image.to(self.codec.engine.device)))
        autoencoder = self.codec.autoencoder
        return self.codec.whiten(getattr(autoencoder, "mode", autoencoder.draw)(moments).float())


def choose(asked: PluginConfig | None, *, labelled: bool, encoder: Encoder | None) -> Any:
    """The extractor that was asked for; without a wish the data's own classifier, or the run's encoder. A ConfigError where neither can be."""
    if asked is not None:
        return asked
    if not labelled and encoder is None:
        raise ConfigError(
            "These pictures have no labels to fit an extractor to, and there is no run to look through. Name one with --extractor: torchvision "
            "with extractor.weights=FILE, or inception, dinov2, clip (pip install 'ldmctl[fid]')."
        )
    return plugin_config("extractor", {"type": "fitted" if labelled else "latent"})


def build(config: Any, engine: Engine, **context: Any) -> Any:
    """The extractor in evaluation on the engine's device; not yet fitted."""
    return registry.build("extractor", config, **context).to(engine.device).eval()


def fitted(
    extractor: Any, file: Path, key: str, batches: Callable[[], Iterable[tuple[Tensor, Tensor]]], *, engine: Engine, console: Console
) -> None:
    """Fit it, or read from `file` what it learned before under this key; nothing where it does not learn."""
    if not hasattr(extractor, "fit"):
        return
    try:
        tensors, header = weights.load(file)
    except MismatchError:
        header = {}
    if header.get("key") == key:
        weights.load_into(extractor, tensors, file)
        return
    console.say(f"Fitting the extractor {title_of(extractor, 'extractor')} to the labels of the training pictures, once.")
    extractor.cpu().fit(batches())  # the same whatever the device
    extractor.to(engine.device)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        weights.save(file, extractor.state_dict(), {"kind": "extractor", "key": key})
    except OSError as error:
        console.warn(f"What it learned could not be kept in {file.parent} ({error.strerror}).")


def fingerprint(extractor: Any, config: Any) -> str:
    """A hash that is equal where features are equal: kind, keys but where weights lie, tensors, and what it says itself."""
    keys = {name: value for name, value in config.model_dump(mode="json").items() if name != "weights"}
    own = getattr(extractor, "fingerprint", "")
    return weights.fingerprint(extractor.state_dict(), [keys, own])


@torch.no_grad()
def seen_as(extractor: Any, features: Tensor, engine: Engine, *, reference: Tensor, labels: Tensor, k: int = 5) -> Tensor:
    """[N]: the class that each of features [N,D] looks like most: by the extractor's own word, else by most of its k nearest references."""
    if hasattr(extractor, "logits"):
        return torch.cat([extractor.logits(part.to(engine.device)).argmax(1).cpu() for part in features.split(1024)])
    known = labels >= 0
    pool, names = reference[known], labels[known]
    found = []
    for part in features.split(1024):
        near = torch.cdist(part, pool).topk(min(k, len(pool)), largest=False).indices
        found.append(torch.mode(names[near], dim=1).values)
    return torch.cat(found)
