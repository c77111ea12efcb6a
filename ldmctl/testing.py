"""Does a plugin keep its kind's promise? `ldmctl plugins check` and third-party tests call these."""

import torch

from ldmctl.errors import PluginError


def check_schedule(cls, **options):
    """From data to noise, and the noise only grows."""


def check_sampler(cls, **options):
    """Falls to clean."""


def expect(holds, complaint):
    if not holds:
        raise PluginError(complaint)
