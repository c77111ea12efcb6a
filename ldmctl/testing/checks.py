"""The check of each kind of plugin."""

from typing import Any

from ldmctl.registry import kind_of
from ldmctl.testing.autoencoder import check_autoencoder
from ldmctl.testing.conditioner import check_conditioner
from ldmctl.testing.dataset import check_dataset
from ldmctl.testing.denoiser import check_denoiser
from ldmctl.testing.discriminator import check_discriminator
from ldmctl.testing.extractor import check_extractor
from ldmctl.testing.guide import check_guide
from ldmctl.testing.perceptual import check_perceptual
from ldmctl.testing.promises import Check
from ldmctl.testing.sampler import check_sampler
from ldmctl.testing.schedule import check_schedule
from ldmctl.testing.tracker import check_tracker

CHECKS: dict[str, Check] = {
    "autoencoder": check_autoencoder,
    "discriminator": check_discriminator,
    "schedule": check_schedule,
    "denoiser": check_denoiser,
    "sampler": check_sampler,
    "dataset": check_dataset,
    "perceptual": check_perceptual,
    "conditioner": check_conditioner,
    "guide": check_guide,
    "tracker": check_tracker,
    "extractor": check_extractor,
}


def check(kind: str, cls: type, /, **options: Any) -> None:
    """The check of this kind; a PluginError says what is not as promised."""
    CHECKS[kind_of(kind)](cls, **options)
