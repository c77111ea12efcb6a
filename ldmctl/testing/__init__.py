"""Does a plugin keep the promise of its kind? `ldmctl plugins check` and the tests of third parties call these.

Each check makes the class with small inputs and calls every method. What is not as
`protocols.py` says is a PluginError with one complaint; a plugin that passes returns
nothing. Keywords are keys of the plugin's Config: name small ones to be quick.

    from ldmctl.testing import check_autoencoder
    check_autoencoder(LFQ, widths=[8, 16])
"""

from ldmctl.testing.autoencoder import check_autoencoder
from ldmctl.testing.checks import CHECKS, check
from ldmctl.testing.conditioner import check_conditioner
from ldmctl.testing.dataset import check_dataset
from ldmctl.testing.denoiser import check_denoiser
from ldmctl.testing.discriminator import check_discriminator
from ldmctl.testing.extractor import check_extractor
from ldmctl.testing.guide import check_guide
from ldmctl.testing.perceptual import check_perceptual
from ldmctl.testing.sampler import check_sampler
from ldmctl.testing.schedule import check_schedule
from ldmctl.testing.tracker import check_tracker

__all__ = [
    "CHECKS",
    "check",
    "check_autoencoder",
    "check_conditioner",
    "check_dataset",
    "check_denoiser",
    "check_discriminator",
    "check_extractor",
    "check_guide",
    "check_perceptual",
    "check_sampler",
    "check_schedule",
    "check_tracker",
]
