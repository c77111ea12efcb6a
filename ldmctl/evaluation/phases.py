"""What the discriminator changed: the same numbers before its first step and of the published weights."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ldmctl import registry
from ldmctl.config.resolve import plugin_config
from ldmctl.config.schemas.fit_ae import FitAE
from ldmctl.errors import LdmctlError
from ldmctl.evaluation.scores import Evaluation
from ldmctl.storage.assets import weights_places
from ldmctl.training.engine import Engine

SQUEEZENET = "squeezenet1_0-b66bff10.pth"


def compared_by(perceptual: Any, config: FitAE, engine: Engine) -> Any:
    """What reconstructions are compared by before and after the discriminator: the run's perceptual loss, and in its place SqueezeNet's
    features, which give the Frechet distance. None without a discriminator, or where these weights do not lie here: none are fetched."""
    if perceptual is not None or config.discriminator is None or not any(place.is_file() for place in weights_places(SQUEEZENET)):
        return perceptual
    with suppress(LdmctlError):  # pictures of four channels, a damaged file
        slot = plugin_config("perceptual", {"type": "features"})
        features: Any = registry.build("perceptual", slot, image_channels=config.image.channels).to(engine.device)
        return features if config.image.size >= features.smallest else None
    return None


def before_and_after(before: Mapping[str, Any] | None, found: Evaluation, step: int, *, others_since: int | None = None) -> list[str]:
    """A sentence, or none without a discriminator; `before` is `Evaluation.as_dict` at its start, with the step, and `found` what the
    published weights, of `step`, are worth. Other pictures than before are held out since a step, None where they are the same."""
    if not before or before.get("split") != found.split:
        return []
    if step <= before["step"]:
        return [
            f"The published weights are of before the discriminator's first step ({before['step'] + 1:,}): it has changed nothing in them."
        ]
    if others_since is not None and before["step"] <= others_since:
        return [f"What the discriminator has changed cannot be said: other pictures are held out since step {others_since:,}."]
    after = found.as_dict()
    names = [name for name in ("psnr", "ssim", *found.distances) if name in before and name in after]
    words = [f"{title(name)} from {before[name]['mean']:.4g} to {after[name]['mean']:.4g}" for name in names]
    for name, values in after.get("frechet", {}).items():
        if (earlier := before.get("frechet", {}).get(name)) is not None:
            words.append(f"the Frechet distance of reconstructions in {name} from {earlier['made']:.4g} to {values['made']:.4g}")
    return [f"From the discriminator's first step ({before['step'] + 1:,}) to step {step:,}: {', '.join(words)}."] if words else []


def title(name: str) -> str:
    """PSNR, SSIM and LPIPS are written in capitals, other distances by their own titles."""
    return name.upper() if name in ("psnr", "ssim", "lpips") else name
